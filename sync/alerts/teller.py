"""Tells people what changed: keeps the change first, in a thread of its own, then has it sent, and tried again.

Any number of processes may do so on one ledger: only one of them keeps a change, and a message is claimed for a
while before it is sent. Who dies in between is followed by the next, so that a message may come twice, with the
same id.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from sync.alerts.deciding import Observed, Rules, decide
from sync.alerts.observing import observe
from sync.alerts.sending import GIVE_UP_S, Sender
from sync.alerts.wording import Command
from sync.daemon.chores import guarded
from sync.engine.job import SyncJob
from sync.settings import Settings
from sync.state.alerts import Alert
from sync.state.ledger import Ledger
from sync.state.refusal import Refusal
from sync.telemetry.vitals import Pulse

__all__ = ["Ground", "Teller"]

log = structlog.get_logger("headgate.alerts")

_POLL_S = 2.0
_DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What is told about: the settings, and every sync of the project, disabled ones too."""

    settings: Settings
    jobs: Sequence[SyncJob]

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self.settings.root


class Teller:
    """Looks every so many seconds (`every`) and has sent what is due, to each notifier in a thread of its own.

    `ground` answers with the files as they were last fit to be read; `command` makes a command line of words;
    `looking` beats whenever it has looked.
    """

    def __init__(
        self,
        ledger: Ledger,
        ground: Callable[[], Ground],
        command: Command,
        *,
        every: float = 15.0,
        looking: Pulse | None = None,
    ) -> None:
        self._ledger, self._ground, self._command = ledger, ground, command
        self._every, self._looking = every, looking or Pulse()
        self._senders: dict[str, Sender] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look and to send."""
        self._thread = threading.Thread(target=self._run, name="headgate-alerts", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look once more, send what is due, and end; a notifier that does not answer is not waited for long."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(2 * _DRAIN_S)

    def once(self) -> int:
        """Look, and send; returns how many messages were taken."""
        self.look()
        return self.send()

    def look(self) -> int:
        """Keep what changed since somebody looked last; returns how many messages are to be sent by it."""
        alerting, now = self._ground().settings.alerting, self._ledger.now()
        rules = Rules(alerting.flapping, alerting.repeat_after)
        known = self._ledger.alerts()
        mutes = {(m.subject, m.condition) for m in self._ledger.mutes()}
        before = {(a.subject, a.condition): a for a in known}
        made = 0
        for seen in self._observed(known):
            muted = bool(mutes & {(seen.subject, ""), (seen.subject, seen.condition.value)})
            found = decide(before.get((seen.subject, seen.condition)), seen, now, rules, muted=muted)
            if found is None or not self._ledger.change_alert(*found):
                continue
            alert, telling = found
            made += len(telling.targets) if telling is not None else 0
            what = telling.kind.value if telling is not None else "kept"
            log.info("alert", subject=alert.subject, condition=alert.condition.value, open=alert.open, news=what)
        self._looking.beat()
        return made

    def unseen(self) -> list[Alert]:
        """What is wrong since somebody looked last; nothing is kept of it, and nobody is told."""
        known, now = {(a.subject, a.condition) for a in self._ledger.alerts() if a.open}, self._ledger.now()
        return [
            Alert(one.subject, one.condition, open=True, since=now)
            for one in self._observed(())
            if one.open and (one.subject, one.condition) not in known
        ]

    def _observed(self, known: Sequence[Alert]) -> list[Observed]:
        ground = self._ground()
        refusal = Refusal.read(ground.settings.state_folder)
        return observe(self._ledger, ground.jobs, ground.settings.alerting, known, refusal)

    def send(self) -> int:
        """Send everything that is due; returns how many messages were taken."""
        begun = self._begin()
        for sender in begun:
            sender.wait()
        return sum(sender.taken for sender in begun)

    def _begin(self) -> list[Sender]:
        """Have sent what is due.

        A notifier that this process's config.toml has not may be in another's, an older or a newer one: its
        messages are given up in time, and not before.
        """
        begun, due = list[Sender](), self._ledger.due_targets()
        settings = self._ground().settings if due else None
        for target, oldest in due.items():
            if settings is not None and (target in settings.alerts or self._ledger.now() - oldest > GIVE_UP_S):
                sender = self._senders.setdefault(target, Sender(self._ledger, target, self._command))
                sender.begin(settings)
                begun.append(sender)
        return begun

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        looked = float("-inf")
        while not self._stopping.is_set():
            if time.monotonic() - looked >= self._every:
                looked = time.monotonic()
                guarded("looking for alerts", self.look)
            guarded("sending messages", self._begin)
            self._stopping.wait(min(self._every, _POLL_S))
        guarded("looking for alerts", self.look)
        guarded("sending messages", self._begin)
        until = time.monotonic() + _DRAIN_S
        for sender in self._senders.values():
            sender.wait(max(0.0, until - time.monotonic()))
