"""The workers: threads that take what was asked for. Two syncs of one account never run at the same time.

Accounts take turns: the one that was served longest ago comes first, with its oldest request. So neither a sync
that always has requests nor an account with many syncs keeps another waiting. Nor does a destination that takes
hours: a run that sends has a thread, and no worker, for what takes memory is to read and to compare.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from itertools import count as count_from
from typing import Protocol

import structlog

from sync.daemon.chores import guarded
from sync.daemon.clock import Clock
from sync.daemon.life import Life
from sync.daemon.waiting import Waiting
from sync.documents import report_data
from sync.engine.job import SyncJob
from sync.engine.report import SyncReport, exit_code
from sync.errors import HeadgateError, LeaseHeld, StateError
from sync.state.base import State
from sync.state.holder import alive
from sync.state.nouns import RequestKind, RunRequest, RunStatus

__all__ = ["MOST", "POLL", "Ended", "Runs", "Workers"]

log = structlog.get_logger("headgate.daemon")

MOST = 64
"""Runs at a time, whatever they do."""
_SENDS = "deliver"  # the phase in which a run needs little of this machine
_OPEN = ("sending", "waiting")  # the run goes on, after a restart or when its jobs are done
_INTERRUPTED = "HG520"  # it was told to end
POLL = "poll"
"""Why a run is taken up that waits for its jobs: no slot was asked for."""


class Runs(Protocol):
    """What the daemon asks of a runner."""

    def run(self, job: SyncJob) -> SyncReport:
        """Resume, plan, and deliver or hold."""

    def plan(self, job: SyncJob) -> SyncReport:
        """Make a plan and send nothing."""

    def finish(self, job: SyncJob) -> SyncReport:
        """Go on with an interrupted run, or ask about its jobs, and no more."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A run, not a plan, that a worker made: its report, or the code of the error that left none.

    `stuck`: it showed no sign of life, and was told to end.
    """

    job: SyncJob
    request: RunRequest
    report: SyncReport | None
    code: str = ""
    stuck: bool = False

    @property
    def over(self) -> bool:
        """Has the run ended, or does it go on: when its jobs are done."""
        return self.report is None or self.report.status not in _OPEN


@dataclass(frozen=True, slots=True)
class _Busy:
    job: SyncJob
    life: Life
    future: Future[None]


class Workers:
    """Runs what is asked for; `count` syncs at most read and compare at a time, others may send.

    `runner` makes a runner for a trigger, an actor and the run's life. Whoever is in `ended` is told of each run,
    in its thread.
    """

    def __init__(
        self,
        state: State,
        clock: Clock,
        runner: Callable[[str, str, Life], Runs],
        count: int,
        ended: Sequence[Callable[[Ended], None]] = (),
    ) -> None:
        self.count = count
        self._state, self._clock, self._runner, self._ended = state, clock, runner, [*ended]
        self._waiting = Waiting(state)
        self._busy: dict[str, _Busy] = {}
        self._served: dict[str, int] = {}  # account -> when it was served last, in turns
        self._turns = count_from(1)

    @property
    def busy(self) -> list[str]:
        """The syncs that run now."""
        return sorted(self.lives)

    @property
    def lives(self) -> dict[str, Life]:
        """The runs under way, by sync. Any thread may ask."""
        return {name: one.life for name, one in list(self._busy.items()) if not one.future.done()}

    def tell(self, whom: Callable[[Ended], None]) -> None:
        """Tell them, too, of each run from now on."""
        self._ended.append(whom)

    def stop(self) -> None:
        """Let every run finish what is in flight, and no more."""
        for life in self.lives.values():
            life.stop.set()

    def wait(self, seconds: float) -> None:
        """Until a run ends, or so long."""
        wait([one.future for one in self._busy.values()], seconds, return_when=FIRST_COMPLETED)

    def dispatch(self, pool: ThreadPoolExecutor, stopped: Callable[[], bool]) -> bool:
        """Hand what is asked for to free workers; one request stands for all of the same sync and kind.

        Returns whether there is a run that was not seen to end.
        """
        self._busy = {name: one for name, one in self._busy.items() if not one.future.done()}
        jobs = self._clock.jobs
        for requests in self._in_turn(jobs):
            if self._full or stopped():
                break
            name = requests[0].sync
            if not self._free(jobs, name):
                continue
            if name not in jobs and not self._clock.nobody(name):
                continue
            taken = self._take(requests)
            if name not in jobs or jobs[name].sync.disabled:
                log.warning("no_such_sync", sync=name)
                self._answer(name, taken, None, "HG191" if name not in jobs else "HG193")
            elif taken:
                self._begin(pool, jobs[name], taken)
        return bool(self._busy)

    @property
    def _full(self) -> bool:
        """Must another run wait."""
        here = sum(one.life.step != _SENDS for one in self._busy.values())
        return here >= self.count or len(self._busy) >= MOST

    def _take(self, requests: Sequence[RunRequest]) -> list[RunRequest]:
        """Those that nobody else took. Where the ledger fails between them, the rest is taken another time."""
        taken: list[RunRequest] = []
        for request in requests:
            try:
                if request.why == POLL or self._state.take_request(request.sync, request.slot):
                    taken.append(request)
            except StateError:
                if not taken:
                    raise
                break
        return taken

    def _begin(self, pool: ThreadPoolExecutor, job: SyncJob, requests: Sequence[RunRequest]) -> None:
        life = Life()
        self._served[job.account] = next(self._turns)
        self._busy[job.name] = _Busy(job, life, pool.submit(self._work, job, requests, life))

    def _in_turn(self, jobs: Mapping[str, SyncJob]) -> list[list[RunRequest]]:
        """What is asked for, sync by sync, in the order it is served."""

        def place(requests: list[RunRequest]) -> tuple[int, float, str]:
            job = jobs.get(requests[0].sync)
            return self._served.get(job.account, 0) if job else 0, requests[0].at, requests[0].sync

        return sorted(self._asked(jobs).values(), key=place)

    def _asked(self, jobs: Mapping[str, SyncJob]) -> dict[str, list[RunRequest]]:
        """The requests of each sync, oldest first. While a run waits for its jobs, these come before any other.

        One that was interrupted is finished before there can be a plan.
        """
        open_runs = [run for run in self._state.open_runs() if _enabled(jobs, run.sync)]
        waiting = {run.sync for run in open_runs if run.status is RunStatus.WAITING}
        interrupted = {run.sync for run in open_runs}
        asked: dict[str, list[RunRequest]] = {}
        for run in self._waiting.due(open_runs):
            if run.sync not in self._busy:
                asked[run.sync] = [RunRequest(run.sync, "", POLL, "scheduler", run.started_at)]
        later = lambda r: r.sync in interrupted and r.kind is RequestKind.PLAN  # noqa: E731
        for request in sorted(self._state.requests(), key=later):
            if self._clock.puts_off(request):
                continue
            same = asked.setdefault(request.sync, []) if request.sync not in waiting else []
            if not same or request.kind is same[0].kind:
                same.append(request)
        return asked

    def _free(self, jobs: Mapping[str, SyncJob], name: str) -> bool:
        """May this sync run now: it does not run, its account is not in use, and it is not paused."""
        job = jobs.get(name)
        if job is None or name in self._busy:
            return name not in self._busy
        accounts = {one.job.account for one in self._busy.values()}
        return job.account not in accounts and not alive(self._state.lease(name)) and not self._clock.paused(name)

    def _work(self, job: SyncJob, requests: Sequence[RunRequest], life: Life) -> None:
        with structlog.contextvars.bound_contextvars(sync=job.name):
            since = self._now()
            ended = self._run(job, requests[-1], life)
            self._close(requests, ended, since)
            if ended.request.kind is RequestKind.PLAN:
                return
            guarded("looking at its jobs", partial(self._left, ended))
            for tell in self._ended:
                guarded("telling of a run", partial(tell, ended))

    def _now(self) -> float | None:
        """The ledger's clock; None where it cannot be read now, which is no reason not to run."""
        try:
            return self._state.now()
        except HeadgateError:
            return None

    def _close(self, requests: Sequence[RunRequest], ended: Ended, since: float | None) -> None:
        """Answer the requests of a run that is over, and no others.

        Where somebody else had the sync, they are given back; what was told to end goes on at the next start,
        unless it was stuck.
        """
        report, name = ended.report, ended.job.name
        code = ended.code if report is None else report.code
        if code == LeaseHeld.code:
            slots = [r.slot for r in requests]
            guarded("giving requests back", partial(self._state.give_back, name, slots))
        elif ended.over and (code != _INTERRUPTED or ended.stuck):
            self._answer(name, requests, report, ended.code, since)

    def _answer(
        self,
        name: str,
        requests: Sequence[RunRequest],
        report: SyncReport | None,
        code: str,
        since: float | None = None,
    ) -> None:
        """Keep what became of requests, for those who wait for it, and of earlier ones whose run this was."""
        failed = {"sync": name, "status": "failed", "error": {"code": code}, "exit_code": 1}
        data = failed if report is None else report_data(report) | {"exit_code": exit_code([report])}
        slots, kind = [r.slot for r in requests], requests[0].kind
        guarded("answering", partial(self._state.answer_requests, name, slots, data, kind=kind, until=since))

    def _run(self, job: SyncJob, request: RunRequest, life: Life) -> Ended:
        try:
            runner = self._runner(request.why, request.actor, life)
            if request.why == POLL:
                report = runner.finish(job)
            else:
                report = runner.plan(job) if request.kind is RequestKind.PLAN else runner.run(job)
        except HeadgateError as error:
            log.error("run_failed", code=error.code, why=error.message)
            return Ended(job, request, None, error.code, life.stuck)
        except Exception as error:  # noqa: BLE001 - one sync's bug must not end the others' daemon
            log.error("run_failed", code="HG900", why=f"internal error: {type(error).__name__}")
            return Ended(job, request, None, "HG900", life.stuck)
        _tell(report)
        return Ended(job, request, report, "", life.stuck)

    def _left(self, ended: Ended) -> None:
        """Remember when to ask again about the jobs that a run left."""
        run = self._state.open_run(ended.job.name)
        if run is not None and run.status is RunStatus.WAITING:
            said = ended.report.status if ended.report is not None else ""
            self._waiting.left(run, failed=said != RunStatus.WAITING)


def _enabled(jobs: Mapping[str, SyncJob], name: str) -> bool:
    return name in jobs and not jobs[name].sync.disabled


def _tell(report: SyncReport) -> None:
    write = log.error if report.status in ("failed", "stopped") else log.info
    figures = ("applied", "accepted", "rejected", "deferred", "unknown", "requests")
    done = {name: getattr(report, name) for name in figures if getattr(report, name)}
    held = {"held": [v.guardrail for v in report.held]} if report.held else {}
    failed = {"code": report.code, "why": report.error} if report.code else {}
    write("run", run=report.run, status=report.status, wall_s=round(report.wall_s, 2), **done, **held, **failed)
