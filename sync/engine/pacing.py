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


_LONGEST = 86400.0
"""Seconds of the longest pause: an absurd wish must not silence an account until the process ends."""


class _Account:
    """What all pacers of one account know: when its requests left, and until when it is paused."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.windows: dict[Rate, deque[float]] = {}
        self.paused_until = 0.0


class Pacer:
    """Grants requests within every window of its rates, and none while the account is paused.

    Requests that other pacers of the account granted count too. `clock` is in seconds and never goes back; `wait`
    sleeps, and returns True where waiting is to end.
    """

    def __init__(
        self,
        rates: Iterable[Rate],
        clock: Callable[[], float] = time.monotonic,
        *,
        account: _Account | None = None,
    ) -> None:
        self._account = account or _Account(clock)
        with self._account.lock:
            windows = self._account.windows
            self._windows = [(r, windows.setdefault(r, deque(maxlen=r.requests))) for r in rates]

    @property
    def paused(self) -> float:
        """For how many seconds more nothing is granted, whatever the rates."""
        return max(0.0, self._account.paused_until - self._account.clock())

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Wait for a turn and take it; False where `wait` said to stop."""
        while (delay := self._take()) > 0:
            if wait(delay):
                return False
        return True

    def pause(self, seconds: float) -> None:
        """Grant nothing for so long, a day at most: the destination asked for it."""
        account, seconds = self._account, min(seconds, _LONGEST)
        with account.lock:
            account.paused_until = max(account.paused_until, account.clock() + seconds)

    def _take(self) -> float:
        """0 where the turn was taken, else the seconds to wait before asking again."""
        account = self._account
        with account.lock:
            now = account.clock()
            delay = account.paused_until - now
            for rate, granted in self._windows:
                if len(granted) == rate.requests:
                    delay = max(delay, granted[0] + rate.per * _MARGIN - now)
            if delay <= 0:
                for granted in account.windows.values():
                    granted.append(now)
            return max(0.0, delay)


class Pacers:
    """Pacers of accounts, shared by every sync that uses them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._accounts: dict[str, _Account] = {}

    def of(self, account: str, rates: tuple[Rate, ...]) -> Pacer:
        """A pacer of the account for these rates."""
        with self._lock:
            known = self._accounts.setdefault(account, _Account(self._clock))
        return Pacer(rates, account=known)
