"""One run's life in the daemon: its signs, told to the log, and how it is told to end."""

from __future__ import annotations

import threading
import time

import structlog

__all__ = ["Life"]

log = structlog.get_logger("headgate.daemon")


class Life:
    """What a runner tells of one run; `stop` ends it. Any thread of the run may call it."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.step = ""
        self.stuck = False
        self._last = time.monotonic()

    @property
    def silent(self) -> float:
        """Seconds since its last sign."""
        return time.monotonic() - self._last

    def phase(self, sync: str, phase: str, detail: str = "") -> None:
        """At the debug level."""
        self._sign()
        self.step = phase
        log.debug("phase", sync=sync, phase=phase, detail=detail)

    def progress(self, sync: str, done: int, total: int) -> None:  # noqa: ARG002 - too much for a log
        """A sign, and nothing for the log."""
        self._sign()

    def note(self, sync: str, message: str) -> None:
        """At the info level."""
        self._sign()
        log.info("note", sync=sync, message=message)

    def _sign(self) -> None:
        self._last = time.monotonic()
