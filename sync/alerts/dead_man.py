"""The dead man's switch: an address that is asked for while the daemon works; who watches it tells when not."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import structlog

from sync.errors import HeadgateError
from sync.logging import register_secret
from sync.secrets import parse, resolve

__all__ = ["DeadMan"]

log = structlog.get_logger("headgate.alerts")

_TIMEOUT_S = 10.0


class DeadMan:
    """Asks for an address (GET) after each `beat`, in a thread of its own: a slow answer holds nothing up."""

    def __init__(self, reference: str, root: Path) -> None:
        self._reference, self._root = reference, root
        self._beat, self._stopping = threading.Event(), False
        self._well: bool | None = None
        self._thread = threading.Thread(target=self._run, name="headgate-dead-man", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """The daemon works."""
        self._beat.set()

    def close(self) -> None:
        """Ask no more."""
        self._stopping = True
        self._beat.set()
        self._thread.join(_TIMEOUT_S + 1)

    def _run(self) -> None:
        while self._beat.wait() and not self._stopping:
            self._beat.clear()
            self._tell(self._ask())

    def _ask(self) -> str:
        """Why it could not be asked for; empty where it answered well. Nothing of the address is in it."""
        try:
            address = resolve(parse(self._reference), self._root).get_secret_value().strip()
            register_secret(address)
            with httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client:
                answer = client.get(address)
        except HeadgateError as error:
            return error.message
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return type(error).__name__
        return "" if answer.is_success else f"HTTP {answer.status_code}"

    def _tell(self, why: str) -> None:
        """Into the log, when that changes."""
        if self._well is (not why):
            return
        self._well = not why
        if why:
            log.warning("dead_man_not_reached", why=why)
        else:
            log.info("dead_man_reached")
