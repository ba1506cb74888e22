"""Runs whose jobs the platform finishes later: when each is asked about again.

Such a run has no worker and no lease meanwhile. What a restart needs to know is in the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from dataclasses import dataclass

from sync.state.base import StateReader
from sync.state.nouns import BatchState, Run, RunStatus

__all__ = ["Waiting"]

_LEAST, _MOST = 1.0, 3600.0
"""Seconds between two questions about a run, whatever its connector says."""


@dataclass(frozen=True, slots=True)
class _Next:
    run: str
    at: float  # monotonic clock
    delay: float


class Waiting:
    """Says which waiting runs are to be asked about. One that it does not know is asked about at once."""

    def __init__(self, state: StateReader) -> None:
        self._state = state
        self._next: dict[str, _Next] = {}
        self._lock = threading.Lock()

    def due(self, runs: Collection[Run]) -> list[Run]:
        """Those of the open runs whose jobs are to be asked about now; what ended is forgotten."""
        waiting = {run.sync: run for run in runs if run.status is RunStatus.WAITING}
        with self._lock:
            for name in [n for n, one in self._next.items() if n not in waiting or waiting[n].id != one.run]:
                del self._next[name]
            now = time.monotonic()
            return [run for name, run in waiting.items() if name not in self._next or self._next[name].at <= now]

    def left(self, run: Run, *, failed: bool) -> None:
        """A run was left to its jobs: ask again when the connector says; after a failure, twice as late each time.

        Called in the run's thread.
        """
        before = self._next.get(run.sync)
        jobs = self._state.batches(run.id, BatchState.JOB)
        wanted = min((row.job.poll_after for row in jobs if row.job), default=_LEAST)
        if failed and before is not None and before.run == run.id:
            wanted = max(wanted, 2 * before.delay)
        delay = min(max(wanted, _LEAST), _MOST)
        with self._lock:
            self._next[run.sync] = _Next(run.id, time.monotonic() + delay, delay)
