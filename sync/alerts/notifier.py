"""One `[alerts.NAME]`: hands a letter to apprise, and says in our words why it was not taken."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from sync.alerts.patience import Patience, TooLate
from sync.alerts.wording import Letter, Severity
from sync.errors import HeadgateError
from sync.logging import register_secret
from sync.secrets import parse, resolve
from sync.settings import NotifierSettings

__all__ = ["WITHIN_S", "Notifier", "NotifierError", "Room"]

WITHIN_S = 30.0
"""Seconds that a notifier may take for one message."""

_STATUS = re.compile(r"\berror=(\d{3})\b")
_PART = re.compile(r"[/:@?&=#]+")
_SECRET = 12  # letters that a part of an address has at least, to be looked for in the log
_REFUSED = {"400", "413", "422"}
_KEYS = ("dedup", "alias", "entity_id")  # what services of incidents call their key
_MARGIN = 100  # characters that a body grows by on its way, title included


class NotifierError(HeadgateError):
    """A notifier did not take a message; what it said is not repeated.

    `refused`: it may take another one, a shorter one say.
    """

    code = "HG450"
    refused = False


@dataclass(frozen=True, slots=True)
class Room:
    """What a notifier takes at once: characters, and `keyed` where it keeps one incident for each alert."""

    letters: int
    keyed: bool


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where letters go. `root` is the project's folder, for secrets that are kept in files."""

    name: str
    settings: NotifierSettings
    root: Path
    patience: Patience = field(default_factory=lambda: Patience("headgate-notifier", WITHIN_S))

    def check(self) -> None:
        """Raises `SecretError` where the address is not there, and `NotifierError` (HG451) where it is none."""
        self._service()

    def room(self) -> Room:
        """Raises as `check`."""
        services = list(self._service())
        return Room(min(one.body_maxlen for one in services) - _MARGIN, any(map(_key_of, services)))

    def body(self, letter: Letter) -> str:
        """The letter's text, as it is written for this notifier."""
        return letter.markdown() if self._markdown else letter.text()

    def send(self, letter: Letter, key: str = "") -> None:
        """Hand it over; raises as `check`, and `NotifierError` where it was not taken in time.

        Where the service keeps incidents, letters of the same `key` are of one, and the one that tells of the end
        resolves it; an address that says otherwise (`?action=`) is let have its way.
        """
        apprise, service = _apprise(), self._service(key)

        def notify() -> Any:
            return service.notify(
                title=letter.title,
                body=self.body(letter),
                body_format=apprise.NotifyFormat.MARKDOWN if self._markdown else apprise.NotifyFormat.TEXT,
                notify_type=_kind(apprise, letter),
            )

        try:
            result = self.patience.do(notify)
        except TooLate:
            raise self._error(f"it did not answer within {self.patience.seconds:.0f} s") from None
        if not result:
            raise self._error(*_why("\n".join(entry.message for entry in result.logs())))

    @property
    def _markdown(self) -> bool:
        return self.settings.format == "markdown"

    def _error(self, why: str, refused: bool = False) -> NotifierError:
        error = NotifierError(f"{self.name}: {why}", fix=f"try it with: headgate alert test {self.name}")
        error.refused = refused
        return error

    def _service(self, key: str = "") -> Any:
        """What apprise makes of the address: a service, or a few where there are several in it."""
        address = resolve(parse(self.settings.url), self.root).get_secret_value().strip()
        for part in (address, *(p for p in _PART.split(address) if len(p) >= _SECRET)):
            register_secret(part)
        made, known = _made(address)
        if not known:
            raise NotifierError(
                f"{self.name}: what `{self.settings.url}` refers to is not an address that apprise knows",
                code="HG451",
                fix="write it as apprise does: slack://..., mailtos://..., jsons://...",
            )
        argument = _key_of(made[0]) if key and len(made) == 1 else None
        if argument is not None:
            own = parse_qs(urlsplit(address).query)
            more = {name: value for name, value in ((argument, key), ("action", "map")) if name not in own}
            keyed, known = _made(f"{address}{'&' if '?' in address else '?'}{urlencode(more)}")
            made = keyed if known else made
        for one in made:
            one.overflow_mode = _apprise().OverflowMode.SPLIT  # rather in pieces than refused
        return made


def _made(address: str) -> tuple[Any, bool]:
    """The services, and whether the whole address was understood."""
    apprise = _apprise()
    asset = apprise.AppriseAsset(
        async_mode=False, secure_logging=True, service_timeout=0, app_id="Headgate", app_desc="Headgate"
    )
    made = apprise.Apprise(asset=asset)
    return made, made.add(address)


def _key_of(service: Any) -> str | None:
    """The argument of an address that names the incident a message is of; None where the service has none."""
    known = service.template_args
    maps = "map" in known.get("action", {}).get("values", ())
    return next((name for name in _KEYS if name in known), None) if maps else None


_importing = threading.Lock()


def _apprise() -> Any:
    with _importing:
        return _imported()


@cache
def _imported() -> Any:
    """The library, its services imported; what it logs goes nowhere, for it may have parts of addresses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some services import modules that Python is about to drop
        import apprise
        from apprise.plugins import N_MGR

        N_MGR.load_modules()  # type: ignore[no-untyped-call]
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.setLevel(logging.WARNING)
    logger.addHandler(logging.NullHandler())
    return apprise


def _kind(apprise: Any, letter: Letter) -> Any:
    if letter.over:
        return apprise.NotifyType.SUCCESS
    kinds = {Severity.CRITICAL: apprise.NotifyType.FAILURE, Severity.WARNING: apprise.NotifyType.WARNING}
    return kinds.get(letter.severity, apprise.NotifyType.INFO)


def _why(words: str) -> tuple[str, bool]:
    """In our words, for what a service says may have anything in it; and whether it refused this message only."""
    if found := _STATUS.search(words):
        return f"it answered with HTTP {found[1]}", found[1] in _REFUSED
    if "onnection error" in words or "ocket error" in words or "SMTP" in words:
        return "it could not be reached", False
    return "it did not take the message", True
