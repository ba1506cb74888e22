"""Pauses: a sync or a destination that a person stopped is not run until a person resumes it."""

from __future__ import annotations

from collections.abc import Mapping

from sync.engine.job import SyncJob
from sync.errors import DecisionError
from sync.state.base import StateReader

__all__ = ["Paused", "destination_name", "pause_of", "paused_noun", "refuse_paused"]


class Paused(DecisionError):
    """The sync, or its destination, is paused; nothing was sent."""

    code = "HG525"


def destination_name(destination: str) -> str:
    """What a destination's pause is kept under."""
    return f"destination:{destination}"


def paused_noun(name: str) -> str:
    """What is paused under this name: a destination or a sync."""
    return "destination" if name.startswith(destination_name("")) else "sync"


def pause_of(paused: Mapping[str, str], sync: str, destination: str) -> tuple[str, str] | None:
    """What keeps a sync from running, and the reason: its destination's pause before its own."""
    for name in (destination_name(destination), sync):
        if name in paused:
            return name, paused[name]
    return None


def refuse_paused(state: StateReader, job: SyncJob, *, only_destination: bool = False) -> None:
    """Raise `Paused` where a pause forbids to send."""
    found = pause_of(state.paused(), job.name, job.destination)
    if found is None or (only_destination and found[0] == job.name):
        return
    name, why = found
    raise Paused(
        f"{name} is paused: {why.rstrip('.')}; nothing was sent",
        fix=f"when that is settled: headgate resume {name}",
    )
