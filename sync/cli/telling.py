"""What the daemon and `headgate alert` need to tell people: what the project is now, and who tells."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from sync.cli.context import Session

if TYPE_CHECKING:
    from sync.alerts.dead_man import DeadMan
    from sync.alerts.teller import Ground, Teller
    from sync.daemon.chores import Chore
    from sync.project import Project
    from sync.telemetry.vitals import Pulse

__all__ = ["teller", "telling"]


class _Ground:
    """The project that is in force. Its jobs are made once for each taking over: that asks git for authors."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._project: Project | None = None
        self._ground: Ground | None = None

    def __call__(self) -> Ground:
        from sync.alerts.teller import Ground

        project = self._session.project
        if project is not self._project or self._ground is None:
            self._project, self._ground = project, Ground(project.settings, project.jobs(disabled=True))
        return self._ground


def teller(session: Session, looking: Pulse | None = None) -> Teller:
    """Whoever tells of this project's syncs, all of them: whatever is selected."""
    from sync.alerts.teller import Teller

    return Teller(session.ledger, _Ground(session), session.command, looking=looking)


@contextmanager
def telling(
    session: Session, looking: Pulse, working: Callable[[], bool], *, once: bool = False
) -> Iterator[list[Chore]]:
    """Tell people while a daemon works, or `once` when it has; gives the chores of its main thread.

    The dead man's switch is asked for only while these are done and the daemon is `working`.
    """
    from sync.alerts.dead_man import DeadMan
    from sync.daemon.chores import Chore, guarded

    if once:
        yield []
        guarded("telling people", teller(session).once)
        return
    with ExitStack() as closing:
        switch = DeadMan(session.root, working)
        closing.callback(switch.close)
        tells = teller(session, looking)
        tells.start()
        closing.callback(tells.close)
        yield [Chore("dead man's switch", 1.0, _beating(session, switch))]


def _beating(session: Session, switch: DeadMan) -> Callable[[], None]:
    """Beats as the settings in force say."""
    beaten = time.monotonic()

    def beat() -> None:
        nonlocal beaten
        settings, now = session.project.settings.alerting, time.monotonic()
        if settings.dead_man_url is not None and now - beaten >= settings.dead_man_every:
            beaten = now
            switch.beat(settings.dead_man_url)

    return beat
