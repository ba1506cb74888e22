"""A ledger in front of which a process dies: at the n-th write, before it or right after it was committed."""

from __future__ import annotations

import threading
from typing import Any

from sync.state.base import State, StateReader
from sync.state.ledger import Ledger

WRITES = State.__abstractmethods__ - StateReader.__abstractmethods__


class Crash(BaseException):
    """The process is gone; nothing of it may write any more."""


class Fragile:
    """Passes everything on to a ledger until it crashes. `committed`: the last write goes through, unseen."""

    def __init__(self, ledger: Ledger, at: int, *, committed: bool = False) -> None:
        self._ledger = ledger
        self._at = at
        self._committed = committed
        self._lock = threading.Lock()
        self.writes: list[str] = []
        self.crashed = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        if name not in WRITES:
            return method

        def write(*arguments: Any, **options: Any) -> Any:
            with self._lock:
                if self.crashed:
                    raise Crash(name)
                self.writes.append(name)
                self.crashed = len(self.writes) == self._at
                if self.crashed and not self._committed:
                    raise Crash(name)
                result = method(*arguments, **options)
                if self.crashed:
                    raise Crash(name)
                return result

        return write
