"""The clock: it knows when each sync is due, and does nothing but ask for runs.

A tick inserts a run request named by its slot in UTC, so that any number of daemons may tick. Schedules are read
from the files at start and whenever these change.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as TickPool
from apscheduler.schedulers.background import BackgroundScheduler

from sync.daemon.chores import guarded
from sync.engine.job import SyncJob
from sync.engine.pauses import pause_of
from sync.errors import HeadgateError
from sync.schedule import BY_ITSELF, Timing, blackout_of, slot, slot_time, timing
from sync.state.base import State
from sync.state.holder import alive
from sync.state.nouns import RunRequest, RunStatus

__all__ = ["Clock"]

log = structlog.get_logger("headgate.daemon")

_LOOK_BACK = timedelta(days=31)  # slots missed longer ago than this are not looked for
_STEP_S = 2.0
_FIRST_SEEN = "schedule seen"
"""What the ledger calls the note of the instant, named like a slot."""
_OVERLOOKED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A sync with a schedule, and the instant up to which its slots were asked for.

    `ahead` is a slot of the future that was asked for already: by a clock that was set too far and then back.
    """

    trigger: Timing
    since: datetime
    ahead: datetime | None = None


class Clock:
    """Asks for runs when they are due.

    `load` reads the project's syncs; `watch` changes its answer when the files changed.
    """

    def __init__(
        self, load: Callable[[], Sequence[SyncJob]], state: State, watch: Callable[[], Hashable] = lambda: None
    ) -> None:
        self._load, self._state, self._watch = load, state, watch
        self._jobs: Mapping[str, SyncJob] = {}
        self._timed: dict[str, _Timed] = {}
        self._lock = threading.Lock()
        self._seen: Hashable = None
        self._looked: Hashable = None
        self._drift = time.time() - time.monotonic()
        self._strayed = False
        self._scheduler: Any = None
        self._taken_over: dict[str, int] = {}  # sync -> epoch of the lease that was looked at
        self.ticked = 0.0  # when it last found that a sync is due, in seconds since the epoch
        self.refused = ""  # the code of what is wrong with changed files, while older ones are in force

    @property
    def jobs(self) -> Mapping[str, SyncJob]:
        """The project's syncs by name, as the files were last read."""
        return self._jobs

    @property
    def scheduled(self) -> int:
        """How many of them have a schedule."""
        return len(self._timed)

    @property
    def ticking(self) -> bool:
        """Does it tick: its thread lives, and no slot was overlooked for a minute."""
        scheduler, edge = self._scheduler, datetime.now(UTC) - _OVERLOOKED
        if scheduler is None or not scheduler.running or not scheduler._thread.is_alive():
            return False
        with self._lock:
            timed = list(self._timed.values())
        return all(item.trigger.latest(item.since, edge) is None for item in timed)

    @property
    def late(self) -> float:
        """For how many seconds a tick has been due: next to none where the clock ticks."""
        jobs = self._scheduler.get_jobs() if self._scheduler is not None else ()
        due = [job.next_run_time for job in jobs if job.next_run_time is not None]
        return max(0.0, (datetime.now(UTC) - min(due)).total_seconds()) if due else 0.0

    def start(self) -> None:
        """Read the files and tick from now on. Raises `ProjectError`."""
        self._scheduler = BackgroundScheduler(
            timezone="UTC",
            executors={"default": TickPool(2)},
            job_defaults={"coalesce": True, "misfire_grace_time": None, "max_instances": 1},
        )
        self.read()
        self._scheduler.start()

    def stop(self) -> None:
        """Tick no more."""
        if self._scheduler is not None:
            self._scheduler.shutdown(wait=False)

    def read(self) -> None:
        """Read the files and set the clock by them. Raises `ProjectError`; what was read before holds then."""
        looks = self._watch()  # before they are read: what is saved meanwhile is a change
        try:
            jobs = {job.name: job for job in self._load()}
        except HeadgateError as error:
            self.refused = error.code
            raise
        self.refused = ""
        now, timed = datetime.now(UTC), dict[str, _Timed]()
        for name, job in jobs.items():
            if job.sync.schedule is None or job.sync.disabled:
                continue
            try:
                trigger = timing(job.sync.schedule, name)
            except ValueError as error:
                log.error("schedule_refused", sync=name, why=str(error))
                continue
            if trigger is None:
                continue
            last = self._state.last_slot(name)
            known = self._timed.get(name)
            asked = slot_time(last) if last else None
            begin = asked or (known.since if known is not None else self._first_seen(name, now))
            since = min(max(begin, now - _LOOK_BACK), now)
            timed[name] = _Timed(trigger, since, asked if asked and asked > now else None)
        with self._lock:
            self._jobs, self._timed = jobs, timed
        self._seen = looks
        if self._scheduler is not None:
            self._scheduler.remove_all_jobs()
            for name, item in timed.items():
                self._scheduler.add_job(self.tick, item.trigger, args=[name], id=name)

    def _first_seen(self, name: str, now: datetime) -> datetime:
        """When a daemon first saw the schedule of a sync that was never due: its first slot may be missed, too."""
        if self._state.notice(name, _FIRST_SEEN, None, slot(now)):
            return now
        return slot_time(self._state.note(name, _FIRST_SEEN) or "") or now

    def tick(self, name: str) -> None:
        """Ask for the newest slot that is due and was not asked for; paused syncs are not asked for.

        A tick by a clock that was set puts the next one off as far, even where it is right again by the time
        that somebody looks.
        """
        self.ticked = time.time()
        self._strayed |= self._stepped
        with self._lock:
            item = self._timed.get(name)
            if item is None:
                return
            now = datetime.now(UTC)
            due = item.trigger.latest(item.since, now)
            self._timed[name] = replace(item, since=due or item.since)
        if due is not None and not self.paused(name):
            again = "#again" if item.ahead is not None and due <= item.ahead else ""
            request = RunRequest(name, slot(due) + again, "schedule", "scheduler", self._state.now())
            if self._state.request_run(request):
                log.info("due", sync=name, slot=request.slot)

    def recover(self) -> None:
        """Ask for what an earlier process left: missed slots, interrupted runs, requests taken and not begun."""
        for name in list(self._timed):
            self.tick(name)
        for name in self._jobs:
            self._take_up(name)

    def take_over(self) -> None:
        """Ask for what a process that is gone was running: its lease ran out, or it is certainly dead."""
        for lease, left in self._state.leases():
            name, this = lease.sync, lease.epoch
            gone = left <= 0 or not alive(lease)
            if gone and self._taken_over.get(name) != this and name in self._jobs and not self.paused(name):
                self._taken_over[name] = this
                self._take_up(name)

    def _take_up(self, name: str) -> None:
        """Ask for a run that was interrupted or never begun. One that waits for jobs is asked about without."""
        if self._jobs[name].sync.disabled or alive(self._state.lease(name)) or self._state.requests(name):
            return
        run = self._state.open_run(name)
        if run is None:
            if self._lost(name):
                self._ask(name, "recover")
        elif run.status is not RunStatus.WAITING:
            self._ask(name, "resume")

    def look(self) -> None:
        """Look whether the files changed, or the system's clock was set."""
        stepped = self._stepped or self._strayed
        if stepped:
            drift, self._strayed = time.time() - time.monotonic(), False
            log.warning("clock_stepped", seconds=round(drift - self._drift, 1))
            self._drift = drift
        if self._changed() or stepped:
            self._seen = self._looked  # also where they are refused: they are read again when they change again
            guarded("reading the files again", self.read)
        if stepped:  # setting the clock anew forgot what came due in the step
            for name in list(self._timed):
                guarded("catching up", partial(self.tick, name))

    def _changed(self) -> bool:
        """Did the files change, and are they at rest: what is being saved is read when that is done."""
        looks = self._watch()
        resting, self._looked = looks == self._looked, looks
        return resting and looks != self._seen

    def paused(self, name: str) -> bool:
        """Is the sync paused, or its destination."""
        job = self._jobs.get(name)
        return pause_of(self._state.paused(), name, job.destination if job is not None else "") is not None

    def puts_off(self, request: RunRequest) -> bool:
        """Is its sync in a blackout: there nothing begins that was not asked for by a person."""
        job = self._jobs.get(request.sync)
        schedule = job.sync.schedule if job is not None else None
        if schedule is None or not schedule.blackout or request.why not in BY_ITSELF:
            return False
        return blackout_of(schedule).around(datetime.now(UTC)) is not None

    def _lost(self, name: str) -> bool:
        requests = self._state.requests(name, open_only=False)
        taken = requests[-1].taken_at if requests else None
        if taken is None:
            return False
        runs = self._state.runs(name, limit=1)
        if runs and runs[0].status is RunStatus.CANCELLED and runs[0].plan is None:
            return True  # it was told to end before it sent anything
        return not runs or (runs[0].finished_at or runs[0].started_at) < taken

    def _ask(self, name: str, why: str) -> None:
        now = datetime.now(UTC)
        if self._state.request_run(RunRequest(name, f"{slot(now)}#{why}", why, "scheduler", self._state.now())):
            log.info("left_over", sync=name, why=why)

    @property
    def _stepped(self) -> bool:
        """Was the clock set since it was last looked after."""
        return abs(time.time() - time.monotonic() - self._drift) > _STEP_S
