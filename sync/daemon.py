"""Runs each sync on its schedule: a clock that only asks for runs, and threads that take what was asked for.

A tick inserts a run request named by its slot in UTC, and nothing else, so that any number of daemons may tick.
A request is taken by one worker, which runs the sync under its lease; two syncs of one account never run at the
same time. Schedules are read from the files at start and whenever these change. Set `stop` to drain: batches in
flight are finished, what is left is resumed by the next start.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as TickPool
from apscheduler.schedulers.background import BackgroundScheduler

from sync.engine.job import SyncJob
from sync.engine.pauses import pause_of
from sync.engine.report import SyncReport
from sync.errors import HeadgateError
from sync.schedule import Cron, Every, parse, slot, slot_time
from sync.state.base import State
from sync.state.holder import alive
from sync.state.nouns import RunRequest

__all__ = ["Daemon", "LogObserver", "Runs"]

log = structlog.get_logger("headgate.daemon")

_LOOK_BACK = timedelta(days=31)  # slots missed longer ago than this are not looked for
_CLOCK_STEP_S = 2.0
_WATCH_S = 5.0


class Runs(Protocol):
    """What the daemon asks of a runner."""

    def run(self, job: SyncJob) -> SyncReport:
        """Resume, plan, and deliver or hold."""


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
class _Timed:
    """A sync with a schedule, and the instant up to which its slots were asked for.

    `ahead` is a slot of the future that was asked for already: by a clock that was set too far and then back.
    """

    trigger: Cron | Every
    since: datetime
    ahead: datetime | None = None


class Daemon:
    """One process that ticks and works.

    `load` reads the project's syncs and `runner` makes a runner for a trigger and an actor; `watch` changes its
    answer when the files changed, and `housekeep` is called about once a minute. `poll` is in seconds.
    """

    def __init__(
        self,
        load: Callable[[], Sequence[SyncJob]],
        state: State,
        runner: Callable[[str, str], Runs],
        *,
        stop: threading.Event | None = None,
        workers: int = 2,
        poll: float = 0.5,
        watch: Callable[[], Hashable] = lambda: None,
        housekeep: Callable[[], None] = lambda: None,
    ) -> None:
        self.stop = stop or threading.Event()
        self.reports: list[SyncReport] = []
        self._load, self._state, self._runner = load, state, runner
        self._workers, self._poll = workers, poll
        self._watch, self._housekeep = watch, housekeep
        self._jobs: dict[str, SyncJob] = {}
        self._timed: dict[str, _Timed] = {}
        self._busy: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._seen: Hashable = None
        self._drift = time.time() - time.monotonic()
        self._strayed = False
        self._clock: Any = None

    # --- what the command calls ---------------------------------------------------------------------------

    def serve(self) -> None:
        """Tick and work until `stop` is set, then drain."""
        self._clock = BackgroundScheduler(
            timezone="UTC",
            executors={"default": TickPool(2)},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        self._reload()
        self._clock.start()
        self._recover()
        log.info("started", syncs=len(self._jobs), scheduled=len(self._timed), workers=self._workers)
        with ThreadPoolExecutor(self._workers, thread_name_prefix="headgate-run") as pool:
            looked = kept = time.monotonic()
            while not self.stop.wait(self._poll):
                self._dispatch(pool)
                if time.monotonic() - looked >= _WATCH_S:
                    looked = time.monotonic()
                    self._look_after_files_and_clock()
                if time.monotonic() - kept >= 60:
                    kept = time.monotonic()
                    self._guarded("housekeeping", self._housekeep)
            self._clock.shutdown(wait=False)
            log.info("draining", running=sorted(name for name, f in self._busy.items() if not f.done()))
        log.info("stopped")

    def once(self) -> list[SyncReport]:
        """Do everything that is due now, and nothing more."""
        self._reload()
        self._recover()
        with ThreadPoolExecutor(self._workers, thread_name_prefix="headgate-run") as pool:
            while not self.stop.is_set():
                self._dispatch(pool)
                if not self._busy:
                    break
                self.stop.wait(min(self._poll, 0.05))
        return self.reports

    # --- the clock ----------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Read the files and set the clock by them. Raises `ProjectError` at the start only."""
        jobs = {job.name: job for job in self._load()}
        now, timed = datetime.now(UTC), dict[str, _Timed]()
        for name, job in jobs.items():
            if job.sync.schedule is None or job.sync.disabled:
                continue
            try:
                trigger = parse(job.sync.schedule)
            except ValueError as error:
                log.error("schedule_refused", sync=name, why=str(error))
                continue
            last = self._state.last_slot(name)
            known = self._timed.get(name)
            asked = slot_time(last) if last else known and known.since
            since = min(max(asked, now - _LOOK_BACK), now) if asked else now
            timed[name] = _Timed(trigger, since, asked if asked and asked > now else None)
        with self._lock:
            self._jobs, self._timed = jobs, timed
        self._seen = self._watch()
        if self._clock is not None:
            self._clock.remove_all_jobs()
            for name, item in timed.items():
                self._clock.add_job(self._tick, item.trigger, args=[name], id=name)

    def _tick(self, name: str) -> None:
        """Ask for the newest slot that is due and was not asked for; paused syncs are not asked for.

        A tick by a clock that was set puts the next one off as far, even where it is right again by the time
        that somebody looks.
        """
        self._strayed |= self._stepped
        with self._lock:
            item = self._timed.get(name)
            if item is None:
                return
            now = datetime.now(UTC)
            due = _latest(item.trigger, item.since, now)
            self._timed[name] = replace(item, since=due or item.since)
        if due is not None and not self._paused(name):
            again = "#again" if item.ahead is not None and due <= item.ahead else ""
            request = RunRequest(name, slot(due) + again, "schedule", "scheduler", self._state.now())
            if self._state.request_run(request):
                log.info("due", sync=name, slot=request.slot)

    def _recover(self) -> None:
        """Ask for what an earlier process left: missed slots, interrupted runs, requests taken and not begun."""
        for name in list(self._timed):
            self._tick(name)
        for name, job in self._jobs.items():
            if job.sync.disabled or alive(self._state.lease(name)) or self._state.requests(name):
                continue
            if self._state.open_run(name) is not None:
                self._ask(name, "resume")
            elif self._lost(name):
                self._ask(name, "recover")

    def _lost(self, name: str) -> bool:
        requests = self._state.requests(name, open_only=False)
        taken = requests[-1].taken_at if requests else None
        if taken is None:
            return False
        runs = self._state.runs(name, limit=1)
        return not runs or (runs[0].finished_at or runs[0].started_at) < taken

    def _ask(self, name: str, why: str) -> None:
        now = datetime.now(UTC)
        if self._state.request_run(RunRequest(name, f"{slot(now)}#{why}", why, "scheduler", self._state.now())):
            log.info("left_over", sync=name, why=why)

    @property
    def _stepped(self) -> bool:
        """Was the clock set since it was last looked after."""
        return abs(time.time() - time.monotonic() - self._drift) > _CLOCK_STEP_S

    def _look_after_files_and_clock(self) -> None:
        stepped = self._stepped or self._strayed
        if stepped:
            drift, self._strayed = time.time() - time.monotonic(), False
            log.warning("clock_stepped", seconds=round(drift - self._drift, 1))
            self._drift = drift
        if stepped or self._watch() != self._seen:
            self._seen = self._watch()
            self._guarded("reading the files again", self._reload)
        if stepped:  # setting the clock anew forgot what came due in the step
            for name in list(self._timed):
                self._guarded("catching up", partial(self._tick, name))

    # --- the work -----------------------------------------------------------------------------------------

    def _dispatch(self, pool: ThreadPoolExecutor) -> None:
        """Hand what is asked for to free workers; one request stands for all of the same sync."""
        self._busy = {name: future for name, future in self._busy.items() if not future.done()}
        for name, requests in self._asked().items():
            if len(self._busy) >= self._workers or self.stop.is_set():
                return
            if not self._free(name):
                continue
            taken = [r for r in requests if self._state.take_request(name, r.slot)]
            if name not in self._jobs:
                log.warning("no_such_sync", sync=name)
            elif taken:
                self._busy[name] = pool.submit(self._work, self._jobs[name], taken[-1])

    def _asked(self) -> dict[str, list[RunRequest]]:
        asked: dict[str, list[RunRequest]] = {}
        for request in self._state.requests():
            asked.setdefault(request.sync, []).append(request)
        return asked

    def _free(self, name: str) -> bool:
        """May this sync run now: it does not run, its account is not in use, and it is not paused."""
        job = self._jobs.get(name)
        if job is None:
            return name not in self._busy
        accounts = {self._jobs[other].account for other in self._busy if other in self._jobs}
        return job.account not in accounts and not alive(self._state.lease(name)) and not self._paused(name)

    def _paused(self, name: str) -> bool:
        job = self._jobs.get(name)
        return pause_of(self._state.paused(), name, job.destination if job is not None else "") is not None

    def _work(self, job: SyncJob, request: RunRequest) -> None:
        with structlog.contextvars.bound_contextvars(sync=job.name):
            try:
                report = self._runner(request.why, request.actor).run(job)
            except HeadgateError as error:
                log.error("run_failed", code=error.code, why=error.message)
            except Exception as error:  # noqa: BLE001 - one sync's bug must not end the others' daemon
                log.error("run_failed", code="HG900", why=f"internal error: {type(error).__name__}")
            else:
                self.reports.append(report)
                _tell(report)

    def _guarded(self, what: str, do: Callable[[], None]) -> None:
        try:
            do()
        except HeadgateError as error:
            log.error("kept_going", what=what, code=error.code, why=error.message)


def _latest(trigger: Cron | Every, since: datetime, now: datetime) -> datetime | None:
    """The newest slot after `since` that is due."""
    found, due = None, trigger.next_after(since)
    while due is not None and due <= now:
        found, due = due, trigger.next_after(due)
    return found


def _tell(report: SyncReport) -> None:
    write = log.error if report.status in ("failed", "stopped") else log.info
    figures = ("applied", "accepted", "rejected", "deferred", "unknown", "requests")
    done = {name: getattr(report, name) for name in figures if getattr(report, name)}
    held = {"held": [v.guardrail for v in report.held]} if report.held else {}
    failed = {"code": report.code, "why": report.error} if report.code else {}
    write("run", run=report.run, status=report.status, wall_s=round(report.wall_s, 2), **done, **held, **failed)
