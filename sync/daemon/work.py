"""The workers: threads that take what was asked for. Two syncs of one account never run at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from sync.daemon.chores import guarded
from sync.daemon.clock import Clock
from sync.documents import report_data
from sync.engine.job import SyncJob
from sync.engine.report import SyncReport
from sync.errors import HeadgateError
from sync.state.base import State
from sync.state.holder import alive
from sync.state.nouns import RequestKind, RunRequest

__all__ = ["Ended", "LogObserver", "Runs", "Workers"]

log = structlog.get_logger("headgate.daemon")


class Runs(Protocol):
    """What the daemon asks of a runner."""

    def run(self, job: SyncJob) -> SyncReport:
        """Resume, plan, and deliver or hold."""

    def plan(self, job: SyncJob) -> SyncReport:
        """Make a plan and send nothing."""


class LogObserver:
    """Tells the log."""

    def phase(self, sync: str, phase: str, detail: str = "") -> None:
        """At the debug level."""
        log.debug("phase", sync=sync, phase=phase, detail=detail)

    def progress(self, sync: str, done: int, total: int) -> None:
        """Too much for a log."""

    def note(self, sync: str, message: str) -> None:
        """At the info level."""
        log.info("note", sync=sync, message=message)


@dataclass(frozen=True, slots=True)
class Ended:
    """A run, not a plan, that a worker made: its report, or the code of the error that left none."""

    job: SyncJob
    request: RunRequest
    report: SyncReport | None
    code: str = ""


class Workers:
    """Runs what is asked for, `count` syncs at a time at most.

    `runner` makes a runner for a trigger and an actor. Whoever is in `ended` is told of each run, in its thread.
    """

    def __init__(
        self,
        state: State,
        clock: Clock,
        runner: Callable[[str, str], Runs],
        count: int,
        ended: Sequence[Callable[[Ended], None]] = (),
    ) -> None:
        self.count = count
        self._state, self._clock, self._runner, self._ended = state, clock, runner, [*ended]
        self._busy: dict[str, Future[None]] = {}

    @property
    def busy(self) -> list[str]:
        """The syncs that run now."""
        return sorted(name for name, future in self._busy.items() if not future.done())

    def tell(self, whom: Callable[[Ended], None]) -> None:
        """Tell them, too, of each run from now on."""
        self._ended.append(whom)

    def dispatch(self, pool: ThreadPoolExecutor, stopped: Callable[[], bool]) -> bool:
        """Hand what is asked for to free workers; one request stands for all of the same sync and kind.

        Returns whether there is a run that was not seen to end.
        """
        self._busy = {name: future for name, future in self._busy.items() if not future.done()}
        jobs = self._clock.jobs
        for name, requests in self._asked().items():
            if len(self._busy) >= self.count or stopped():
                break
            if not self._free(jobs, name):
                continue
            taken = [r for r in requests if self._state.take_request(name, r.slot)]
            if name not in jobs or jobs[name].sync.disabled:
                log.warning("no_such_sync", sync=name)
                self._answer(name, taken, None, "HG191" if name not in jobs else "HG193")
            elif taken:
                self._busy[name] = pool.submit(self._work, jobs[name], taken)
        return bool(self._busy)

    def _asked(self) -> dict[str, list[RunRequest]]:
        asked: dict[str, list[RunRequest]] = {}
        for request in self._state.requests():
            same = asked.setdefault(request.sync, [])
            if not same or request.kind is same[0].kind:
                same.append(request)
        return asked

    def _free(self, jobs: Mapping[str, SyncJob], name: str) -> bool:
        """May this sync run now: it does not run, its account is not in use, and it is not paused."""
        job = jobs.get(name)
        if job is None:
            return name not in self._busy
        accounts = {jobs[other].account for other in self._busy if other in jobs}
        return job.account not in accounts and not alive(self._state.lease(name)) and not self._clock.paused(name)

    def _work(self, job: SyncJob, requests: Sequence[RunRequest]) -> None:
        with structlog.contextvars.bound_contextvars(sync=job.name):
            ended = self._run(job, requests[-1])
            self._answer(job.name, requests, ended.report, ended.code)
            if ended.request.kind is RequestKind.PLAN:
                return
            for tell in self._ended:
                guarded("telling of a run", partial(tell, ended))

    def _answer(self, name: str, requests: Sequence[RunRequest], report: SyncReport | None, code: str) -> None:
        """Keep what became of requests, for those who wait for it."""
        failed = {"sync": name, "status": "failed", "error": {"code": code}}
        data = failed if report is None else report_data(report)
        guarded("answering", partial(self._state.answer_requests, name, [r.slot for r in requests], data))

    def _run(self, job: SyncJob, request: RunRequest) -> Ended:
        try:
            runner = self._runner(request.why, request.actor)
            report = runner.plan(job) if request.kind is RequestKind.PLAN else runner.run(job)
        except HeadgateError as error:
            log.error("run_failed", code=error.code, why=error.message)
            return Ended(job, request, None, error.code)
        except Exception as error:  # noqa: BLE001 - one sync's bug must not end the others' daemon
            log.error("run_failed", code="HG900", why=f"internal error: {type(error).__name__}")
            return Ended(job, request, None, "HG900")
        _tell(report)
        return Ended(job, request, report)


def _tell(report: SyncReport) -> None:
    write = log.error if report.status in ("failed", "stopped") else log.info
    figures = ("applied", "accepted", "rejected", "deferred", "unknown", "requests")
    done = {name: getattr(report, name) for name in figures if getattr(report, name)}
    held = {"held": [v.guardrail for v in report.held]} if report.held else {}
    failed = {"code": report.code, "why": report.error} if report.code else {}
    write("run", run=report.run, status=report.status, wall_s=round(report.wall_s, 2), **done, **held, **failed)
