"""Waits for what may never end, for so long and no longer: what is late goes on in a thread that is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

__all__ = ["Patience", "TooLate"]

R = TypeVar("R")

_LEFT = 3
"""Threads that one who waits leaves behind: while so many go on, nothing more is begun."""


class TooLate(Exception):
    """It did not end in time, or was not begun because so many before it have not ended."""


class Patience:
    """Waits `seconds` for each of the things it does, one after another; `name` is what threads are called.

    Time limits of sockets count anew with every byte that comes: an answer that drips is never late for them.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self.seconds = seconds
        self._name = name
        self._left: list[threading.Thread] = []

    def do(self, what: Callable[[], R]) -> R:
        """Its result, or what it raises; raises `TooLate` where there is none in time."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        if len(self._left) >= _LEFT:
            raise TooLate
        result: Future[R] = Future()
        thread = threading.Thread(target=_settle, args=(what, result), name=self._name, daemon=True)
        thread.start()
        thread.join(self.seconds)
        if thread.is_alive():
            self._left.append(thread)
            raise TooLate
        return result.result()


def _settle(what: Callable[[], R], result: Future[R]) -> None:
    try:
        result.set_result(what())
    except BaseException as error:  # noqa: BLE001 - whoever waits is told
        result.set_exception(error)
