"""The clock: it knows when each sync is due, and does nothing but ask for runs.

A tick inserts a run request named by its slot in UTC, so that any number of daemons may tick. Schedules are read
from the files at start and whenever these change. What moves a sync on to its next slot is that the ledger has the
request: APScheduler only wakes us in time, and what it did not is ticked when the clock is looked at.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as TickPool
from apscheduler.schedulers.background import BackgroundScheduler

from sync.blackout import NEVER, Blackout
from sync.daemon import slots
from sync.daemon.chores import guarded
from sync.engine.job import SyncJob
from sync.engine.pauses import pause_of
from sync.errors import HeadgateError, StateError
from sync.schedule import BY_ITSELF, Timing, blackout_of, slot, timing
from sync.state.base import State
from sync.state.nouns import RunRequest

__all__ = ["Clock"]

log = structlog.get_logger("headgate.daemon")

_STEP_S = 2.0
_OVERLOOKED = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class _Timed:
    """A sync with a schedule: the instant up to which its slots were asked for, and when another one is due.

    `ahead` is a slot of the future that was asked for already: by a clock that was set too far and then back.
    """

    trigger: Timing
    since: datetime
    coming: datetime | None
    ahead: datetime | None = None


class Clock:
    """Asks for runs when they are due.

    `load` reads the syncs that this daemon runs, `names` are those of all the project's, as it was read then;
    `watch` changes its answer when the files changed.
    """

    def __init__(
        self,
        load: Callable[[], Sequence[SyncJob]],
        state: State,
        watch: Callable[[], Hashable] = lambda: None,
        names: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._load, self._state, self._watch, self._names = load, state, watch, names
        self._jobs: Mapping[str, SyncJob] = {}
        self._known: frozenset[str] = frozenset()
        self._timed: dict[str, _Timed] = {}
        self._blackouts: Mapping[str, Blackout] = {}
        self._lock = threading.Lock()
        self._seen: Hashable = None
        self._looked: Hashable = None
        self._drift = time.time() - time.monotonic()
        self._strayed = False
        self._scheduler: Any = None
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
        """Does it tick: it was started, and no slot was overlooked for a minute."""
        scheduler, edge = self._scheduler, datetime.now(UTC) - _OVERLOOKED
        if scheduler is None or not scheduler.running:
            return False
        return all(item.trigger.latest(item.since, edge) is None for _, item in self._items())

    @property
    def late(self) -> float:
        """For how many seconds a tick has been due: next to none where the clock ticks."""
        due = [item.coming for _, item in self._items() if item.coming is not None]
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
        except Exception as error:
            self._seen = looks  # they are read again when they change again
            self.refused = getattr(error, "code", HeadgateError.code)
            raise
        self.refused = ""
        self._set(jobs)
        self._seen = looks

    def _set(self, jobs: Mapping[str, SyncJob]) -> None:
        """Put these syncs in force, as far as the ledger says that their slots were asked for."""
        now, timed, blackouts = datetime.now(UTC), dict[str, _Timed](), dict[str, Blackout]()
        for name, job in jobs.items():
            schedule = job.sync.schedule
            if schedule is None or job.sync.disabled:
                continue
            try:
                blackouts[name] = blackout_of(schedule)
                trigger = timing(schedule, name)
                if trigger is not None:
                    timed[name] = self._begun(name, trigger, now)
            except ValueError as error:
                log.error("schedule_refused", sync=name, why=str(error))
        known = frozenset(self._names()).union(jobs)
        with self._lock:
            self._jobs, self._known, self._timed, self._blackouts = jobs, known, timed, blackouts
        if self._scheduler is not None:
            self._scheduler.remove_all_jobs()
            for name, item in timed.items():
                self._wake(name, item)

    def _begun(self, name: str, trigger: Timing, now: datetime) -> _Timed:
        since = slots.begin(self._state, name, now)
        coming = trigger.next_after(now) if trigger.latest(since, now) is None else now
        asked = slots.asked(self._state, name)
        return _Timed(trigger, since, coming, asked if asked and asked > now else None)

    def _wake(self, name: str, item: _Timed) -> None:
        """Have the sync ticked when its next slot is due."""
        if self._scheduler is not None and item.coming is not None:
            ring = partial(guarded, f"ticking {name}", partial(self.tick, name))
            self._scheduler.add_job(ring, "date", run_date=item.coming, id=name, replace_existing=True)

    def tick(self, name: str) -> None:
        """Ask for the newest slot that is due and was not asked for; those of a paused sync are passed over.

        A tick by a clock that was set puts the next one off as far, even where it is right again by the time
        that somebody looks.
        """
        self._strayed |= self._stepped
        item, now = self._timed.get(name), datetime.now(UTC)
        if item is None:
            return
        due = item.trigger.latest(item.since, now)
        if due is not None:
            self._come(name, item, due)
        after = replace(item, since=due or item.since, coming=item.trigger.next_after(now))
        with self._lock:
            if self._timed.get(name) is not item:
                return  # the files were read meanwhile, or another thread ticked
            self._timed[name] = after
        self._wake(name, after)

    def _come(self, name: str, item: _Timed, due: datetime) -> None:
        """A slot is due: the ledger has it when this returns."""
        self.ticked = time.time()
        if self.paused(name):
            slots.pass_over(self._state, name, due)
            return
        again = "#again" if item.ahead is not None and due <= item.ahead else ""
        request = RunRequest(name, slot(due) + again, "schedule", "scheduler", self._state.now())
        if self._state.request_run(request):
            log.info("due", sync=name, slot=request.slot)

    def catch_up(self) -> None:
        """Tick whatever is due: slots missed while nothing ran, or while the ledger could not be written.

        Raises `StateError`: then the others could not be asked for either.
        """
        now = datetime.now(UTC)
        for name, item in self._items():
            if item.coming is not None and item.coming <= now:
                guarded(f"ticking {name}", partial(self.tick, name), but=StateError)

    def look(self) -> None:
        """Look whether the files changed, or the system's clock was set; and whether something was not ticked."""
        if self._stepped:
            drift, self._strayed = time.time() - time.monotonic(), True
            log.warning("clock_stepped", seconds=round(drift - self._drift, 1))
            self._drift = drift
        if self._strayed:
            self._strayed = not guarded("setting the clock anew", partial(self._set, self._jobs))
        if self._changed():
            guarded("reading the files again", self.read)
        self.catch_up()

    def _changed(self) -> bool:
        """Did the files change, and are they at rest: what is being saved is read when that is done."""
        looks = self._watch()
        resting, self._looked = looks == self._looked, looks
        return resting and looks != self._seen

    def nobody(self, name: str) -> bool:
        """Is there certainly no such sync: none that another daemon runs, nor one in files that are refused."""
        return not self.refused and name not in self._known

    def paused(self, name: str) -> bool:
        """Is the sync paused, or its destination."""
        job = self._jobs.get(name)
        return pause_of(self._state.paused(), name, job.destination if job is not None else "") is not None

    def dark(self, name: str) -> bool:
        """Is the sync in a blackout: nothing begins that was not asked for by a person."""
        return self._blackouts.get(name, NEVER).around(datetime.now(UTC)) is not None

    def puts_off(self, request: RunRequest) -> bool:
        """Does its run wait for the end of a blackout."""
        return request.why in BY_ITSELF and self.dark(request.sync)

    def _items(self) -> list[tuple[str, _Timed]]:
        with self._lock:
            return list(self._timed.items())

    @property
    def _stepped(self) -> bool:
        """Was the clock set since it was last looked after."""
        return abs(time.time() - time.monotonic() - self._drift) > _STEP_S
