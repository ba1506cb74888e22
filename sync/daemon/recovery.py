"""Recovery: what processes that are gone left is asked for again."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import structlog

from sync.daemon.chores import guarded
from sync.daemon.clock import Clock
from sync.schedule import slot
from sync.state.base import State
from sync.state.holder import alive
from sync.state.nouns import Lease, RequestKind, RunRequest, RunStatus

__all__ = ["Recovery"]

log = structlog.get_logger("headgate.daemon")

_AT_A_TERMINAL = ("cli", "approval")
_RESUME = "resume"


class Recovery:
    """Asks for runs that were interrupted, and gives back requests that were taken and never answered."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._state, self._clock = state, clock
        self._looked: dict[str, int] = {}  # sync -> epoch of the lease that was looked at

    def recover(self) -> None:
        """Take up what is left of every sync that nobody runs now."""
        for name in self._clock.jobs:
            self._take_up(name)

    def take_over(self) -> None:
        """Take up what a process that is gone was running: its lease ran out, or it is certainly dead."""
        for lease, left in self._state.leases():
            gone = left <= 0 or not alive(lease)
            if gone and lease.sync in self._clock.jobs and self._looked.get(lease.sync) != lease.epoch:
                guarded(f"taking over {lease.sync}", partial(self._take_over, lease))

    def _take_over(self, lease: Lease) -> None:
        if not self._clock.paused(lease.sync):
            self._take_up(lease.sync)
            self._looked[lease.sync] = lease.epoch

    def _take_up(self, name: str) -> None:
        if self._clock.jobs[name].sync.disabled or alive(self._state.lease(name)):
            return
        run = self._state.open_run(name)
        interrupted = run is not None and run.status is not RunStatus.WAITING  # else it is asked about without
        left = [
            request.slot
            for request in self._state.unanswered(name)  # other runs are answered when the open one is finished
            if run is None or request.kind is RequestKind.PLAN or (interrupted and request.why == _RESUME)
        ]
        if left:
            self._state.give_back(name, left)
            log.info("left_over", sync=name, requests=len(left))
        if any(request.kind is RequestKind.RUN for request in self._state.requests(name)):
            return
        if interrupted:
            self._ask(name, _RESUME)
        elif run is None and self._cut_short(name):
            self._ask(name, "recover")

    def _cut_short(self, name: str) -> bool:
        """Was its newest run told to end before it sent anything, and not by who began it at a terminal."""
        runs = self._state.runs(name, limit=1)
        ended = [run for run in runs if run.status is RunStatus.CANCELLED and run.plan is None]
        return any(run.trigger not in _AT_A_TERMINAL for run in ended)

    def _ask(self, name: str, why: str) -> None:
        now = datetime.now(UTC)
        if self._state.request_run(RunRequest(name, f"{slot(now)}#{why}", why, "scheduler", self._state.now())):
            log.info("left_over", sync=name, why=why)
