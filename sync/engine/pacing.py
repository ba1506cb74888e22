"""Pacing: the lanes of accounts, shared by all who send to them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sync.engine.lane import Lane, Room
from sync.engine.lane_file import FileCells, MemoryCells, lane_path
from sync.errors import RateLimited, Unavailable
from sync.sdk.nouns import Rate
from sync.state.holder import boot_clock

__all__ = ["Pacer", "Pacers", "room_left"]

_log = logging.getLogger(__name__)


class Pacer:
    """Grants requests of one lane within every window of its rates.

    Requests that other pacers of the lane granted count too. `wait` sleeps, and returns True where waiting is to
    end. `lifetime` is for how many seconds a request can be under way.
    """

    def __init__(self, lane: Lane, rates: Iterable[Rate], lifetime: float = 60.0) -> None:
        self._lane = lane
        self._rates = tuple(rates)
        self._lifetime = lifetime
        self._mine = threading.local()

    @property
    def paused(self) -> float:
        """For how many seconds more nothing is granted, whatever the rates."""
        return self._lane.paused

    def acquire(self, wait: Callable[[float], bool]) -> bool:
        """Wait for a turn and take it; False where `wait` said to stop."""
        while True:
            delay, turn = self._lane.take(self._rates, self._lifetime)
            if delay <= 0:
                self._mine.turn = turn
                return True
            if wait(delay):
                return False

    def leave(self) -> None:
        """The request that this thread took its turn for leaves now."""
        self._lane.leave(self._mine.turn)

    def pause(self, seconds: float) -> None:
        """Grant nothing for so long, a day at most: the destination asked for it."""
        self._lane.pause(seconds)

    def answered(self) -> None:
        """A request was answered, whatever the answer says."""
        self._lane.answered()

    def failed(self, error: Unavailable) -> int:
        """A request was not answered, or with leave to try again later. How many failed in a row."""
        if error.retry_after is not None:
            self._lane.pause(error.retry_after)
        if isinstance(error, RateLimited):
            self._lane.answered()
            self._lane.slow_down()
            return 0
        return self._lane.failed()


class Pacers:
    """Pacers of accounts, shared by every sync that uses them.

    With `folder`, the state folder, by every process that uses it, too; there `clock` is the machine's own.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, folder: Path | None = None) -> None:
        self._clock = clock
        self._folder = folder
        self._lock = threading.Lock()
        self._lanes: dict[str, Lane] = {}

    def of(self, account: str, rates: Iterable[Rate], lifetime: float = 60.0) -> Pacer:
        """A pacer of the account for these rates."""
        with self._lock:
            if account not in self._lanes:
                self._lanes[account] = self._lane(account)
            return Pacer(self._lanes[account], rates, lifetime)

    def _lane(self, account: str) -> Lane:
        if self._folder is not None:
            try:
                return Lane(FileCells(lane_path(self._folder, account)), boot_clock)
            except OSError as error:  # a full disk must not stop a delivery
                _log.warning("an account's lane is not shared with other processes: %s", error.strerror)
        return Lane(MemoryCells(), self._clock)


def room_left(folder: Path, account: str, rates: Iterable[Rate]) -> Room | None:
    """What an account has room for; None where nothing was sent to it since the machine started."""
    try:
        cells = FileCells(lane_path(folder, account), make=False)
    except OSError:
        return None
    return Lane(cells, boot_clock).room(rates) if cells.current else None
