"""Sends one notifier its messages, in a thread of its own: one that is slow keeps no other waiting."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from functools import partial

import structlog

from sync.alerts.notifier import WITHIN_S, Notifier, NotifierError
from sync.alerts.patience import Patience
from sync.alerts.wording import Command, Letter, bundled, letter
from sync.daemon.chores import guarded
from sync.errors import HeadgateError
from sync.faultpoints import reached
from sync.secrets import SecretError
from sync.settings import Settings
from sync.state.alerts import AlertMessage
from sync.state.holder import me
from sync.state.ledger import Ledger

__all__ = ["GIVE_UP_S", "Sender"]

log = structlog.get_logger("headgate.alerts")

GIVE_UP_S = 3 * 86400.0
_CLAIM_S = 300.0
_FIRST_S, _LONGEST_S = 5.0, 900.0  # waits between attempts
_SINGLY = 3  # more messages than these at once are bundled


class Sender:
    """Sends what one notifier is to be told. `taken`: how many messages it took since it last began."""

    def __init__(self, ledger: Ledger, target: str, command: Command) -> None:
        self.taken = 0
        self._ledger, self._target, self._command = ledger, target, command
        self._name = f"headgate-tell-{target}"
        self._patience = Patience(self._name, WITHIN_S)
        self._thread: threading.Thread | None = None

    def begin(self, settings: Settings) -> None:
        """Send what is due, in a thread of its own, unless it still does."""
        if self._thread is None or not self._thread.is_alive():
            self.taken = 0
            work = partial(guarded, "sending messages", partial(self._send, settings))
            self._thread = threading.Thread(target=work, name=self._name, daemon=True)
            self._thread.start()

    def wait(self, seconds: float | None = None) -> None:
        """Until it has, or so long."""
        if self._thread is not None:
            self._thread.join(seconds)

    def _send(self, settings: Settings) -> None:
        while messages := self._ledger.claim_messages(me(), self._target, _CLAIM_S):
            until = time.monotonic() + _CLAIM_S - 2 * WITHIN_S
            try:
                notifier = self._notifier(settings)
                parts = self._parts(notifier, messages, settings)
            except (NotifierError, SecretError) as error:
                self._failed(messages, error)
            else:
                self._hand_over(notifier, parts, until)

    def _notifier(self, settings: Settings) -> Notifier:
        if self._target not in settings.alerts:
            raise NotifierError("config.toml has no such notifier")
        return Notifier(self._target, settings.alerts[self._target], settings.root, self._patience)

    def _parts(self, notifier: Notifier, messages: Sequence[AlertMessage], settings: Settings) -> _Parts:
        """Each message alone where they are few, or each has an incident; else as few bundles as there is room."""
        room = notifier.room()
        parts, link = _Parts(), settings.http.public_url or ""
        for message in messages:
            written = (message, letter(message, self._command, link))
            last = [*parts[-1], written] if parts else []
            fits = last and len(messages) > _SINGLY and not room.keyed
            if fits and len(notifier.body(_one(last))) <= room.letters:
                parts[-1] = last
            else:
                parts.append([written])
        return parts

    def _hand_over(self, notifier: Notifier, parts: _Parts, until: float) -> None:
        """What the claim's time is too short for is claimed anew. Who refuses one message may take the others."""
        refused = 0
        while parts and time.monotonic() < until:
            part = parts.popleft()
            error = self._sent(notifier, part)
            if error is None:
                continue
            if error.refused and len(part) > 1:
                half = len(part) // 2
                parts.extendleft((part[half:], part[:half]))
            elif error.refused and not refused:
                refused += 1
                self._failed(_messages([part]), error)
            else:
                self._failed(_messages([part, *parts]), error)
                return

    def _sent(self, notifier: Notifier, part: _Part) -> NotifierError | None:
        """What was in the way; None where it was taken."""
        try:
            notifier.send(_one(part), key=part[0][0].key)
            reached("message.sent")
        except NotifierError as error:
            return error
        except SecretError as error:
            return NotifierError(error.message)
        except Exception as error:  # noqa: BLE001 - a service's own bug must not keep the others' messages back
            return NotifierError(f"{self._target}: apprise failed with {type(error).__name__}")
        messages = _messages([part])
        self._ledger.end_messages(me(), messages, most=GIVE_UP_S)
        self.taken += len(messages)
        log.info("told", notifier=self._target, messages=len(messages))
        return None

    def _failed(self, messages: Sequence[AlertMessage], error: HeadgateError) -> None:
        wait = min(_LONGEST_S, _FIRST_S * 2 ** min(20, messages[0].attempts))
        log.warning("not_told", notifier=self._target, code=error.code, why=error.message, again_in_s=wait)
        self._ledger.end_messages(me(), messages, error.message, after=wait, most=GIVE_UP_S)


_Part = list[tuple[AlertMessage, Letter]]
_Parts = deque[_Part]


def _messages(parts: Iterable[_Part]) -> list[AlertMessage]:
    return [message for part in parts for message, _ in part]


def _one(part: _Part) -> Letter:
    letters = [written for _, written in part]
    return letters[0] if len(letters) == 1 else bundled(letters)
