"""Tells people what changed, in a thread of its own: keeps the change first, then sends, and tries again.

Any number of processes may do so on one ledger: only one of them keeps a change, and a message is claimed for a
while before it is sent. Who dies in between is followed by the next, so that a message may come twice, with the
same id.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from sync.alerts.deciding import Rules, decide
from sync.alerts.notifier import Notifier, NotifierError
from sync.alerts.observing import observe
from sync.alerts.wording import Command, Letter, bundled, letter
from sync.daemon.chores import guarded
from sync.engine.job import SyncJob
from sync.errors import HeadgateError
from sync.faultpoints import reached
from sync.secrets import SecretError
from sync.settings import Settings
from sync.state.alerts import AlertMessage
from sync.state.holder import me
from sync.state.ledger import Ledger

__all__ = ["Ground", "Teller"]

log = structlog.get_logger("headgate.alerts")

_CLAIM_S = 120.0  # longer than any notifier takes
_FIRST_S, _LONGEST_S = 5.0, 900.0  # waits between attempts
_GIVE_UP_S = 3 * 86400.0
_SINGLY = 3  # more messages than these for one notifier at once are sent as one
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
    """Looks every so many seconds (`every`) and sends what is due.

    `ground` answers with the files as they were last fit to be read; `command` makes a command line of words.
    """

    def __init__(
        self,
        ledger: Ledger,
        ground: Callable[[], Ground],
        command: Command,
        *,
        every: float = 15.0,
    ) -> None:
        self._ledger, self._ground, self._command = ledger, ground, command
        self._every = every
        self._holder = me()
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
            self._thread.join(_DRAIN_S + _FIRST_S)

    def once(self) -> int:
        """Look, and send everything that is due; returns how many messages were taken."""
        self.look()
        return self._drain()

    def look(self) -> int:
        """Keep what changed since somebody looked last; returns how many messages are to be sent by it."""
        ground, now = self._ground(), self._ledger.now()
        alerting = ground.settings.alerting
        rules = Rules(alerting.flapping, alerting.repeat_after)
        known = self._ledger.alerts()
        mutes = {(m.subject, m.condition) for m in self._ledger.mutes()}
        before = {(a.subject, a.condition): a for a in known}
        made = 0
        for seen in observe(self._ledger, ground.jobs, alerting, known):
            muted = bool(mutes & {(seen.subject, ""), (seen.subject, seen.condition.value)})
            found = decide(before.get((seen.subject, seen.condition)), seen, now, rules, muted=muted)
            if found is None or not self._ledger.change_alert(*found):
                continue
            alert, telling = found
            made += len(telling.targets) if telling is not None else 0
            what = telling.kind.value if telling is not None else "kept"
            log.info("alert", subject=alert.subject, condition=alert.condition.value, open=alert.open, news=what)
        return made

    def send(self) -> int:
        """Send what one notifier is to be told; returns how many messages it took."""
        if not self._ledger.due_messages():
            return 0
        messages = self._ledger.claim_messages(self._holder, _CLAIM_S)
        if not messages:
            return 0
        ground, target = self._ground(), messages[0].target
        settings = ground.settings.alerts.get(target)
        if settings is None:
            self._end(messages, "config.toml has no such notifier", most=-1.0)
            return 0
        notifier, link = Notifier(target, settings, ground.root), ground.settings.http.public_url or ""
        return sum(self._hand_over(notifier, part, link) for part in _parts(messages))

    def _hand_over(self, notifier: Notifier, messages: list[AlertMessage], link: str) -> int:
        letters = [letter(message, self._command, link) for message in messages]
        try:
            notifier.send(_one(letters))
            reached("message.sent")
        except (NotifierError, SecretError) as error:
            self._failed(messages, error)
            return 0
        except Exception as error:  # noqa: BLE001 - a service's own bug must not keep the others' messages back
            self._failed(messages, NotifierError(f"{notifier.name}: apprise failed with {type(error).__name__}"))
            return 0
        self._end(messages)
        log.info("told", notifier=notifier.name, messages=len(messages))
        return len(messages)

    def _failed(self, messages: Sequence[AlertMessage], error: HeadgateError) -> None:
        wait = min(_LONGEST_S, _FIRST_S * 2 ** min(20, messages[0].attempts))
        log.warning("not_told", notifier=messages[0].target, code=error.code, why=error.message, again_in_s=wait)
        self._end(messages, error.message, after=wait)

    def _end(
        self, messages: Sequence[AlertMessage], problem: str = "", *, after: float = 0.0, most: float = _GIVE_UP_S
    ) -> None:
        self._ledger.end_messages(self._holder, messages, problem, after=after, most=most)

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        looked = float("-inf")
        while not self._stopping.is_set():
            if time.monotonic() - looked >= self._every:
                looked = time.monotonic()
                guarded("looking for alerts", self.look)
            guarded("sending messages", self._drain)
            self._stopping.wait(min(self._every, _POLL_S))
        guarded("looking for alerts", self.look)
        guarded("sending messages", partial(self._drain, _DRAIN_S))

    def _drain(self, seconds: float = float("inf")) -> int:
        """Send until nothing is due, or the time is over."""
        until, taken = time.monotonic() + seconds, 0
        while time.monotonic() < until and self._ledger.due_messages():
            before = self._ledger.messages(waiting=True, limit=1)
            taken += self.send()
            if self._ledger.messages(waiting=True, limit=1) == before:  # another process has them
                break
        return taken


def _parts(messages: list[AlertMessage]) -> list[list[AlertMessage]]:
    return [[message] for message in messages] if len(messages) <= _SINGLY else [messages]


def _one(letters: Sequence[Letter]) -> Letter:
    return letters[0] if len(letters) == 1 else bundled(letters)
