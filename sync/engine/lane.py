"""One account, one lane: how fast requests may leave for it, whoever sends them.

A lane knows when requests left, until when the destination asked to be left alone, how far it is slowed down, and
whether its breaker is open.

* **Windows.** No window of a declared rate ever holds more requests than the rate allows.
* **Pauses.** What `Retry-After` asks for is waited for in full.
* **Slow-down** (additive increase, multiplicative decrease). A 429 halves the pace that requests had; it grows
  again by a thirtieth of that pace each second, until it is what it was. An answer that does not come takes a
  quarter off, for five seconds: one in ten that fails by chance must not make a sync ten times slower.
* **Breaker.** After five failures in a row, with no answer between them, one request at a time is let through: a
  probe, after a pause that doubles with each that fails. The first answer closes it. A new process probes at once:
  somebody may just have mended what was broken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sync.engine.lane_file import FileCells, MemoryCells
from sync.sdk.nouns import Rate

__all__ = ["BREAKS_AFTER", "Lane", "Room", "Used"]

_MARGIN, _MOST_JITTER, _JITTER = 1.01, 0.15, 0.03
"""Windows are held a little longer than the destination's, whose clock sees requests closer together than ours: by
a hundredth, and by as much as the road to it may differ from request to request (seconds, share of the window)."""

_LONGEST = 86400.0
"""Seconds of the longest pause: an absurd wish must not silence an account until the process ends."""

BREAKS_AFTER = 5  # failures in a row
_FIRST_COOLING, _LONGEST_COOLING = 1.0, 300.0  # seconds between probes
_LOOK = 0.5  # seconds until those who wait for a probe's answer look again

_LOOK_BACK = Rate(100, 10.0)  # requests and seconds over which the pace is measured that is slowed down
_FEW = 10  # requests: fewer do not make a pace
_AT_ONCE = 1.0  # seconds: failures closer together than this are one event
_SLOWEST = 16  # a lane is never slowed down further than to this part of its pace
# What is left of the pace; seconds from nothing to the whole of it; seconds it is measured over at least.
_LIMITED = (0.5, 30.0, 1.0)  # after a 429
_UNANSWERED = (0.75, 5.0, 0.2)  # after a request that was not answered

# The cells; 0 is the file's own. From _RING on: when requests left, the last _SIZE of them.
_COUNT, _PAUSED, _PEAK, _SLOWED, _PACE, _RECOVERY, _FAILURES, _SHUT, _PROBE, _DOWN = range(1, 11)
_RING, _SIZE = 16, 10_000


@dataclass(frozen=True, slots=True)
class Used:
    """How much of one window is used: of `rate.requests` in `rate.per` seconds."""

    rate: Rate
    used: int

    @property
    def left(self) -> int:
        """Requests that could leave now."""
        return max(0, self.rate.requests - self.used)


@dataclass(frozen=True, slots=True)
class Room:
    """What an account has room for. Times are in seconds."""

    windows: tuple[Used, ...] = ()
    paused: float = 0.0  # nothing leaves for so long: the destination asked for it
    pace: float | None = None  # requests a second, where the lane is slowed down
    down: float | None = None  # for how long no request has been answered, where the breaker is open
    probe_in: float = 0.0  # until the next probe may leave, where it is open


class Lane:
    """The lane of one account. Any thread may call it; `clock` is in seconds and never goes back.

    With `FileCells` all processes of a state folder share it.
    """

    def __init__(self, cells: MemoryCells | FileCells, clock: Callable[[], float]) -> None:
        self._cells = cells
        self._clock = clock
        self._put = cells.put
        self._fresh = True  # has this process not probed yet

    def take(self, rates: Iterable[Rate], lifetime: float) -> tuple[float, int]:
        """Take a turn: 0 and its number where that was done, else the seconds to wait before asking again.

        `lifetime` is for how many seconds a probe can be under way.
        """
        with self._cells.held():
            now = self._clock()
            shut = self._get(_FAILURES) >= BREAKS_AFTER
            delay = max(
                self._get(_PAUSED, now + _LONGEST) - now,
                self._until_pace(now),
                *(self._until_window(rate, now) for rate in rates),
                self._until_probe(now) if shut else 0.0,
            )
            if delay > 0:
                return delay, -1
            count = self._get(_COUNT)
            self._put(_slot(count), now)
            self._put(_COUNT, count + 1)
            if shut:
                self._fresh = False
                self._put(_PROBE, now + lifetime)
            return 0.0, int(count)

    def leave(self, turn: int) -> None:
        """A request leaves now, some time after its turn was taken: the windows count from here."""
        with self._cells.held():
            self._put(_slot(turn), self._clock())

    def pause(self, seconds: float) -> None:
        """Grant nothing for so long, a day at most: the destination asked for it."""
        with self._cells.held():
            self._put(_PAUSED, max(self._get(_PAUSED), self._clock() + min(seconds, _LONGEST)))

    @property
    def paused(self) -> float:
        """For how many seconds more nothing is granted, whatever the rates."""
        return max(0.0, self._get(_PAUSED, self._clock() + _LONGEST) - self._clock())

    def answered(self) -> None:
        """A request was answered: the breaker closes."""
        if self._get(_FAILURES):
            with self._cells.held():
                self._put(_FAILURES, 0.0)

    def slow_down(self) -> None:
        """A request was one too many: halve the pace."""
        with self._cells.held():
            self._slow_down(self._clock(), *_LIMITED)

    def failed(self) -> int:
        """A request was not answered: slow down, open the breaker where it is time. How many failed in a row."""
        with self._cells.held():
            now = self._clock()
            self._slow_down(now, *_UNANSWERED)
            failures = self._get(_FAILURES) + 1
            self._put(_FAILURES, failures)
            self._put(_PROBE, 0.0)
            if failures == 1:
                self._put(_DOWN, now)
            if failures >= BREAKS_AFTER:
                cooling = _FIRST_COOLING * 2.0 ** min(failures - BREAKS_AFTER, 30)
                self._put(_SHUT, now + min(cooling, _LONGEST_COOLING))
            return int(failures)

    def room(self, rates: Iterable[Rate]) -> Room:
        """What there is room for now; nothing is taken."""
        now = self._clock()
        shut = self._get(_FAILURES) >= BREAKS_AFTER
        return Room(
            windows=tuple(Used(rate, self._used(_bounded(rate), now)) for rate in rates),
            paused=max(0.0, self._get(_PAUSED, now + _LONGEST) - now),
            pace=self._pace(now),
            down=now - self._get(_DOWN, now) if shut else None,
            probe_in=max(0.0, self._get(_SHUT, now + _LONGEST_COOLING) - now) if shut else 0.0,
        )

    def _get(self, cell: int, most: float = 2.0**53) -> float:
        """A number that makes sense: a damaged file must not silence an account."""
        value = self._cells.get(cell)
        return value if 0 <= value <= most else 0.0

    # --- windows ------------------------------------------------------------------------------------------

    def _until_window(self, rate: Rate, now: float) -> float:
        rate, count = _bounded(rate), self._get(_COUNT)
        if count < rate.requests:
            return 0.0
        return self._get(_slot(count - rate.requests), now) + _held(rate) - now

    def _used(self, rate: Rate, now: float) -> int:
        """Requests that left within a window up to now: the times are in order, so halving finds the first."""
        count = int(self._get(_COUNT))
        low, high = max(0, count - rate.requests), count
        while low < high:
            middle = (low + high) // 2
            if self._get(_slot(middle), now) + _held(rate) > now:
                high = middle
            else:
                low = middle + 1
        return count - low

    # --- the slow-down ------------------------------------------------------------------------------------

    def _pace(self, now: float) -> float | None:
        """Requests a second; None where the lane is not slowed down."""
        peak = self._get(_PEAK)
        pace = self._get(_PACE) + peak * (now - self._get(_SLOWED, now)) / (self._get(_RECOVERY) or 1.0)
        return pace if pace < peak else None

    def _until_pace(self, now: float) -> float:
        pace, count = self._pace(now), self._get(_COUNT)
        return self._get(_slot(count - 1), now) + 1 / pace - now if pace and count else 0.0

    def _slow_down(self, now: float, left: float, recovery: float, least: float) -> None:
        if self._get(_PEAK) and now - self._get(_SLOWED, now) < _AT_ONCE:
            return
        pace = self._pace(now)
        if pace is None:
            recent = self._used(_LOOK_BACK, now)
            if recent < _FEW:
                return
            first = self._get(_slot(self._get(_COUNT) - recent), now)
            pace = recent / max(now - first, least)
            self._put(_PEAK, pace)
        self._put(_PACE, max(pace * left, self._get(_PEAK) / _SLOWEST))
        self._put(_RECOVERY, recovery)
        self._put(_SLOWED, now)

    # --- the breaker --------------------------------------------------------------------------------------

    def _until_probe(self, now: float) -> float:
        if self._get(_PROBE, now + _LONGEST) > now:
            return min(self._get(_PROBE) - now, _LOOK)
        return 0.0 if self._fresh else self._get(_SHUT, now + _LONGEST_COOLING) - now


def _slot(count: float) -> int:
    return _RING + int(count) % _SIZE


def _held(rate: Rate) -> float:
    """For how many seconds a window is held."""
    return rate.per * _MARGIN + min(rate.per * _JITTER, _MOST_JITTER)


def _bounded(rate: Rate) -> Rate:
    """A rate over more requests than are remembered is kept over a shorter time."""
    return rate if rate.requests <= _SIZE else Rate(_SIZE, rate.per * _SIZE / rate.requests)
