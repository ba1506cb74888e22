"""Runs after another sync's: each run of it that completed asks for one, whoever made it."""

from __future__ import annotations

from functools import partial

from sync.daemon.asking import Asking
from sync.daemon.chores import guarded
from sync.engine.job import SyncJob
from sync.errors import StateError
from sync.state.nouns import RunStatus

__all__ = ["Following"]


class Following:
    """Looks in the ledger for runs that ended, from the day on that a daemon first saw the schedule."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def look(self) -> None:
        """Ask for what follows from runs that ended since the last look."""
        for job, schedule in self._asking.syncs():
            if schedule.after is not None:
                look = partial(self._look, job, schedule.after)
                guarded(f"looking for runs that {job.name} follows", look, but=StateError)

    def _look(self, job: SyncJob, other: str) -> None:
        fact = f"after {other}"  # another name begins anew
        before = self._asking.seen(job, fact)
        if before is None:
            self._asking.see(job, fact, None, str(self._asking.state.last_ended(other)))
            return
        for number, run in self._asking.state.runs_since(other, int(before)):
            if run.status is RunStatus.COMPLETED:
                self._asking.ask(job, fact, before, str(number), f"after-{run.id}")
            else:
                self._asking.see(job, fact, before, str(number))
            before = str(number)
