"""What each account has room for, in words and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync.durations import format_duration

if TYPE_CHECKING:
    from pathlib import Path

    from sync.engine.job import SyncJob
    from sync.engine.lane import Room, Used

__all__ = ["AccountRoom", "rooms"]


@dataclass(frozen=True, slots=True)
class AccountRoom:
    """The room of one account; the destinations that share it."""

    destinations: tuple[str, ...]
    room: Room

    @property
    def name(self) -> str:
        """The destinations' names."""
        return ", ".join(self.destinations)

    @property
    def down(self) -> bool:
        """Is its breaker open."""
        return self.room.down is not None

    def words(self) -> str:
        """One line, such as `63 of 100 requests in 10s left`."""
        return "; ".join(self._parts()) or "nothing limits it"

    def _parts(self) -> Iterator[str]:
        room = self.room
        if room.down is not None:
            probe = f"the next probe in {format_duration(room.probe_in)}" if room.probe_in else "a probe may leave"
            yield f"has not answered for {format_duration(room.down)}: {probe}"
        if room.paused:
            yield f"asked to be left alone for {format_duration(room.paused)} more"
        if room.pace is not None:
            yield f"slowed down to {room.pace:.3g} requests a second"
        for one in room.windows:
            requests = f"{one.rate.requests:,} requests"
            yield f"{one.left:,} of {requests} in {format_duration(one.rate.per)} left"

    def data(self) -> dict[str, Any]:
        """For `--json`; times in seconds."""
        room = self.room
        return {
            "destinations": list(self.destinations),
            "rates": [_rate(one) for one in room.windows],
            "paused_s": round(room.paused, 3),
            "slowed_to_per_s": None if room.pace is None else round(room.pace, 3),
            "down_for_s": None if room.down is None else round(room.down, 3),
            "next_probe_s": None if room.down is None else round(room.probe_in, 3),
        }


def _rate(one: Used) -> dict[str, float]:
    return {"requests": one.rate.requests, "per_s": one.rate.per, "used": one.used, "left": one.left}


def rooms(folder: Path, jobs: Iterable[SyncJob]) -> list[AccountRoom]:
    """The room of every account that these syncs send to and that something was sent to since the last start of
    the machine. Of several rates that the syncs of an account keep, each is shown."""
    from sync.engine.pacing import room_left

    accounts: dict[str, list[SyncJob]] = {}
    for job in jobs:
        accounts.setdefault(job.account, []).append(job)
    found = []
    for account, its in accounts.items():
        rates = dict.fromkeys(rate for job in its for rate in job.limits.rates)
        room = room_left(folder, account, rates)
        if room is not None:
            found.append(AccountRoom(tuple(sorted({job.destination for job in its})), room))
    return sorted(found, key=lambda one: one.destinations)
