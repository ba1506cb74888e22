"""What the daemon and `headgate alert` need to tell people: what the project is now, and who tells."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from sync.cli.context import Session

if TYPE_CHECKING:
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
    settings, chores = session.project.settings.alerting, list[Chore]()
    with ExitStack() as closing:
        if settings.dead_man_url is not None:
            switch = DeadMan(settings.dead_man_url, session.root, working)
            closing.callback(switch.close)
            chores.append(Chore("dead man's switch", settings.dead_man_every, switch.beat))
        tells = teller(session, looking)
        tells.start()
        closing.callback(tells.close)
        yield chores
