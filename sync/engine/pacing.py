"""Pacing: how fast requests may leave for one account, whoever sends them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

from sync.sdk.nouns import Rate

__all__ = ["Pacer", "Pacers"]

_MARGIN = 1.01
"""Windows are held a little longer than the destination's: its clock sees requests closer together than ours."""


class Pacer:
    """Grants requests within every window of an account's rates, and none while the account is paused.

    `clock` is in seconds and never goes back; `wait` sleeps, and returns True where waiting is to end.
    """

    def __init__(self, rates: Iterable[Rate], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._windows = [(rate, deque[float](maxlen=rate.requests)) for rate in rates]
        self._paused_until = 0.0

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Wait for a turn and take it; False where `wait` said to stop."""
        while (delay := self._take()) > 0:
            if wait(delay):
                return False
        return True

    def pause(self, seconds: float) -> None:
        """Grant nothing for so long: the destination asked for it."""
        with self._lock:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def _take(self) -> float:
        """0 where the turn was taken, else the seconds to wait before asking again."""
        with self._lock:
            now = self._clock()
            delay = self._paused_until - now
            for rate, granted in self._windows:
                if len(granted) == rate.requests:
                    delay = max(delay, granted[0] + rate.per * _MARGIN - now)
            if delay <= 0:
                for _, granted in self._windows:
                    granted.append(now)
            return max(0.0, delay)


class Pacers:
    """One pacer an account, shared by every sync that uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pacers: dict[tuple[str, tuple[Rate, ...]], Pacer] = {}

    def of(self, account: str, rates: tuple[Rate, ...]) -> Pacer:
        """The account's pacer for these rates."""
        with self._lock:
            return self._pacers.setdefault((account, rates), Pacer(rates))
