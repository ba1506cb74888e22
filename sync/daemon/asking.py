"""Asking for runs that no clock asks for: after another sync, after dbt, when the source changed.

What was seen last is a fact in the ledger, which moves together with the request that follows from it. So each of
these asks once, across restarts and with any number of daemons.
"""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from sync.daemon.clock import Clock
from sync.engine.job import SyncJob
from sync.engine.pauses import pause_of
from sync.mapping import Schedule
from sync.state.base import State
from sync.state.nouns import RunRequest

__all__ = ["Asking"]

log = structlog.get_logger("headgate.daemon")


class Asking:
    """What those have in common that ask for runs."""

    def __init__(self, state: State, clock: Clock) -> None:
        self.state, self._clock = state, clock

    def syncs(self, *, all: bool = False) -> Iterator[tuple[SyncJob, Schedule]]:
        """The syncs that may be asked for now, each with its schedule, or `all` that are not disabled.

        One that is paused or in a blackout is asked for afterwards.
        """
        paused = self.state.paused()
        for name, job in self._clock.jobs.items():
            schedule = job.sync.schedule
            if schedule is None or job.sync.disabled or not (schedule.after or schedule.dbt or schedule.source):
                continue
            if all or (pause_of(paused, name, job.destination) is None and not self._clock.dark(name)):
                yield job, schedule

    def seen(self, job: SyncJob, fact: str) -> str | None:
        """What was seen last; None where nothing was."""
        return self.state.note(job.name, fact)

    def see(self, job: SyncJob, fact: str, before: str | None, value: str) -> bool:
        """Remember it, and ask for nothing; False where another daemon was faster."""
        return self.state.notice(job.name, fact, before, value)

    def ask(self, job: SyncJob, fact: str, before: str | None, value: str, slot: str) -> None:
        """Remember it and ask for a run, once. `slot` says why (`after-RUN`) and names what the run is for."""
        request = RunRequest(job.name, slot, slot.partition("-")[0], "scheduler", self.state.now())
        if self.state.notice(job.name, fact, before, value, request):
            log.info("due", sync=job.name, slot=request.slot)
