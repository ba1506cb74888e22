"""Slots of a schedule in the ledger: up to where they were asked for, or passed over while the sync was paused."""

from __future__ import annotations

from datetime import datetime, timedelta

from sync.schedule import slot, slot_time
from sync.state.base import State, StateReader

__all__ = ["asked", "begin", "dealt_with", "pass_over"]

_LOOK_BACK = timedelta(days=31)  # slots missed longer ago than this are not looked for
_SEEN = "schedule seen"
"""What the ledger calls the note of an instant, named like a slot, before which nothing is to be asked for."""


def asked(state: StateReader, sync: str) -> datetime | None:
    """The newest slot that was asked for."""
    return slot_time(state.last_slot(sync) or "")


def dealt_with(state: StateReader, sync: str, now: datetime) -> datetime | None:
    """The instant up to which nothing is left to ask for; None where no daemon saw the schedule yet."""
    found = [at for at in (asked(state, sync), slot_time(state.note(sync, _SEEN) or "")) if at is not None]
    return min(max(*found, now - _LOOK_BACK), now) if found else None


def begin(state: State, sync: str, now: datetime) -> datetime:
    """As `dealt_with`; a schedule that is seen first begins now, so that its first slot may be missed, too."""
    found = dealt_with(state, sync, now)
    if found is None:
        state.notice(sync, _SEEN, None, slot(now))
    return found or now


def pass_over(state: State, sync: str, due: datetime) -> None:
    """Nobody asks for this slot, nor for those before it."""
    state.notice(sync, _SEEN, state.note(sync, _SEEN), slot(due))
