"""One `[alerts.NAME]`: hands a letter to apprise, and says in our words why it was not taken."""

from __future__ import annotations

import logging
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sync.alerts.wording import Letter, Severity
from sync.errors import HeadgateError
from sync.logging import register_secret
from sync.secrets import parse, resolve
from sync.settings import NotifierSettings

__all__ = ["Notifier", "NotifierError"]

_STATUS = re.compile(r"\berror=(\d{3})\b")
_PART = re.compile(r"[/:@?&=#]+")
_SECRET = 12  # letters that a part of an address has at least, to be looked for in the log


class NotifierError(HeadgateError):
    """A notifier did not take a message; what it said is not repeated."""

    code = "HG450"


@dataclass(frozen=True, slots=True)
class Notifier:
    """Where letters go. `root` is the project's folder, for secrets that are kept in files."""

    name: str
    settings: NotifierSettings
    root: Path

    def check(self) -> None:
        """Raises `SecretError` where the address is not there, and `NotifierError` (HG451) where it is none."""
        self._service()

    def send(self, letter: Letter) -> None:
        """Hand it over; raises as `check`, and `NotifierError` where it was not taken.

        It waits for four seconds at most to connect, and as long for each answer, where the address has no
        `?cto=` and `?rto=`.
        """
        apprise, service = _apprise(), self._service()
        markdown = self.settings.format == "markdown"
        with apprise.LogCapture(level=logging.WARNING) as said:
            taken = service.notify(
                title=letter.title,
                body=letter.markdown() if markdown else letter.text(),
                body_format=apprise.NotifyFormat.MARKDOWN if markdown else apprise.NotifyFormat.TEXT,
                notify_type=_kind(apprise, letter),
            )
            words = said.getvalue()
        if not taken:
            raise NotifierError(f"{self.name}: {_why(words)}", fix=f"try it with: headgate alert test {self.name}")

    def _service(self) -> Any:
        apprise = _apprise()
        address = resolve(parse(self.settings.url), self.root).get_secret_value().strip()
        for part in (address, *(p for p in _PART.split(address) if len(p) >= _SECRET)):
            register_secret(part)
        asset = apprise.AppriseAsset(async_mode=False, secure_logging=True, app_id="Headgate", app_desc="Headgate")
        service = apprise.Apprise(asset=asset)
        with apprise.LogCapture(level=logging.CRITICAL):
            known = service.add(address)
        if not known:
            raise NotifierError(
                f"{self.name}: what `{self.settings.url}` refers to is not an address that apprise knows",
                code="HG451",
                fix="write it as apprise does: slack://..., mailtos://..., jsons://...",
            )
        return service


@cache
def _apprise() -> Any:
    """The library, its services imported; what it logs goes nowhere, for it may have parts of addresses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some services import modules that Python is about to drop
        import apprise
        from apprise.plugins import N_MGR

        N_MGR.load_modules()  # type: ignore[no-untyped-call]
    logger = logging.getLogger("apprise")
    logger.propagate = False
    logger.addHandler(logging.NullHandler())
    return apprise


def _kind(apprise: Any, letter: Letter) -> Any:
    if letter.over:
        return apprise.NotifyType.SUCCESS
    kinds = {Severity.CRITICAL: apprise.NotifyType.FAILURE, Severity.WARNING: apprise.NotifyType.WARNING}
    return kinds.get(letter.severity, apprise.NotifyType.INFO)


def _why(words: str) -> str:
    """In our words: what a service answers may have anything in it."""
    if found := _STATUS.search(words):
        return f"it answered with HTTP {found[1]}"
    if "onnection error" in words or "ocket error" in words or "SMTP" in words:
        return "it could not be reached"
    return "it did not take the message"
