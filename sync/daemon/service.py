"""One daemon process: its clock, its workers and its chores, and how it ends.

Set `stop` to drain: batches in flight are finished, what is left is resumed by the next start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog

from sync.daemon.chores import Chore, Chores, guarded
from sync.daemon.clock import Clock
from sync.daemon.life import Life
from sync.daemon.reasons import Reasons
from sync.daemon.recovery import Recovery
from sync.daemon.supervisor import Supervisor
from sync.daemon.watchdog import Watchdog
from sync.daemon.work import MOST, Ended, Runs, Workers
from sync.engine.job import SyncJob
from sync.engine.report import SyncReport
from sync.state.base import State

__all__ = ["Daemon"]

log = structlog.get_logger("headgate.daemon")

_AFTER_AN_ERROR_S = 5.0  # a full disk must not fill with what the log says of it


class Daemon:
    """One process that ticks and works.

    `load`, `watch`, `names`: see `Clock`; `runner`, `ended`: see `Workers`; `stuck_after`, `quit_after`: see
    `Watchdog`; `root`: see `Reasons`.
    `poll` and `look` are in seconds: how often it looks for requests, and for changed files or a clock that was
    set.
    """

    def __init__(
        self,
        load: Callable[[], Sequence[SyncJob]],
        state: State,
        runner: Callable[[str, str, Life], Runs],
        *,
        stop: threading.Event | None = None,
        workers: int = 2,
        poll: float = 0.5,
        look: float = 2.0,
        stuck_after: float = 3600.0,
        quit_after: float = 60.0,
        watch: Callable[[], Hashable] = lambda: None,
        names: Callable[[], Collection[str]] = tuple,
        chores: Sequence[Chore] = (),
        ended: Sequence[Callable[[Ended], None]] = (),
        supervisor: Supervisor | None = None,
        root: Path = Path(),
    ) -> None:
        self.stop = stop or threading.Event()
        self.clock = Clock(load, state, watch, names)
        self.recovery = Recovery(state, self.clock)
        self.workers = Workers(state, self.clock, runner, workers, ended)
        self.watchdog = Watchdog(state, stuck_after, quit_after)
        self.supervisor = supervisor or Supervisor({})
        self.reasons = Reasons(state, self.clock, root, self.stop)
        self._poll = poll
        self._chores = (
            Chore("looking at files and clock", look, self.clock.look),
            Chore("looking for runs of processes that are gone", min(look, 1.0), self.recovery.take_over),
            *self.reasons.chores(),
            *chores,
        )

    def limit(self, workers: int, stuck_after: float, quit_after: float) -> None:
        """Go on within these limits; see `Workers` and `Watchdog`."""
        self.workers.count = workers
        self.watchdog.after, self.watchdog.grace = stuck_after, quit_after

    def serve(self) -> None:
        """Tick and work until `stop` is set, then drain. Raises `ProjectError` where the files cannot be read."""
        self.clock.start()
        self.clock.catch_up()
        self.recovery.recover()
        self.reasons.begin()
        syncs, scheduled = len(self.clock.jobs), self.clock.scheduled
        log.info("started", syncs=syncs, scheduled=scheduled, workers=self.workers.count)
        self.supervisor.ready(self._status)
        chores = Chores(self._chores)
        with self._pool() as pool:
            while not self.stop.wait(self._poll):
                self._turn(pool, chores)
            self.clock.stop()
            log.info("draining", running=self.workers.busy)
            self.supervisor.stopping(f"draining: {self._status}")
            self._drain()
        log.info("stopped")

    def once(self) -> list[SyncReport]:
        """Do everything that is due now, and nothing more; returns what became of it."""
        ended: list[Ended] = []
        self.workers.tell(ended.append)
        self.clock.read()
        self.clock.catch_up()
        self.recovery.recover()
        self.reasons.look()
        with self._pool() as pool:
            while not self.stop.is_set():
                if not self.workers.dispatch(pool, self.stop.is_set):
                    break
                self.watchdog.turn(self.workers.lives)
                self.stop.wait(min(self._poll, 0.05))
            self._drain()
        return [one.report for one in ended if one.report is not None]

    def _turn(self, pool: ThreadPoolExecutor, chores: Chores) -> None:
        """What the main thread does again and again. A ledger that cannot be used now may be usable later."""
        if not guarded("looking for requests", partial(self.workers.dispatch, pool, self.stop.is_set)):
            self.stop.wait(_AFTER_AN_ERROR_S)
        guarded("looking after the runs", partial(self.watchdog.turn, self.workers.lives))
        chores.turn()
        self.supervisor.alive(self._status)

    def _drain(self) -> None:
        """Wait for the runs under way; the watchdog ends those that would keep us for good."""
        self.workers.stop()
        while self.workers.busy:
            self.workers.wait(self._poll)
            self.watchdog.turn(self.workers.lives)
            self.supervisor.alive(f"draining: {self._status}")

    @property
    def _status(self) -> str:
        """For the service manager: nothing that changes with every record."""
        return f"{len(self.workers.busy)} of {self.clock.scheduled} scheduled syncs running"

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(MOST, thread_name_prefix="headgate-run")
