"""The dead man's switch: an address that is asked for while the daemon works; who watches it tells when not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import structlog

from sync.alerts.patience import Patience
from sync.errors import HeadgateError
from sync.logging import register_secret
from sync.secrets import parse, resolve

__all__ = ["DeadMan"]

log = structlog.get_logger("headgate.alerts")

_TIMEOUT_S = 10.0
_UNFIT = "the daemon does not work: /readyz says why"


class DeadMan:
    """Asks for an address (GET) after each `beat`, in a thread of its own: a slow answer holds nothing up.

    It does not while the daemon is not `working`.
    """

    def __init__(self, reference: str, root: Path, working: Callable[[], bool] = lambda: True) -> None:
        self._reference, self._root, self._working = reference, root, working
        self._beat, self._stopping = threading.Event(), False
        self._well: bool | None = None
        self._patience = Patience("headgate-dead-man", _TIMEOUT_S)
        self._thread = threading.Thread(target=self._run, name="headgate-dead-man", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """The daemon's main loop turns."""
        self._beat.set()

    def close(self) -> None:
        """Ask no more."""
        self._stopping = True
        self._beat.set()
        self._thread.join(_TIMEOUT_S + 1)

    def _run(self) -> None:
        while self._beat.wait() and not self._stopping:
            self._beat.clear()
            self._tell(self._turn())

    def _turn(self) -> str:
        """Why it was not asked for, or did not answer well; empty where it did. It has nothing of the address."""
        try:
            return self._patience.do(self._ask) if self._working() else _UNFIT
        except HeadgateError as error:
            return error.message
        except Exception as error:  # noqa: BLE001 - certificates that are being replaced, say: the next beat may do
            return type(error).__name__

    def _ask(self) -> str:
        address = resolve(parse(self._reference), self._root).get_secret_value().strip()
        register_secret(address)
        with (
            httpx.Client(timeout=_TIMEOUT_S, follow_redirects=True) as client,
            client.stream("GET", address) as answer,  # nobody reads its body
        ):
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
