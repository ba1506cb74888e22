"""One daemon process: its clock, its workers and its chores, and how it ends.

Set `stop` to drain: batches in flight are finished, what is left is resumed by the next start.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor

import structlog

from sync.daemon.chores import Chore, Chores
from sync.daemon.clock import Clock
from sync.daemon.work import Ended, Runs, Workers
from sync.engine.job import SyncJob
from sync.engine.report import SyncReport
from sync.state.base import State

__all__ = ["Daemon"]

log = structlog.get_logger("headgate.daemon")


class Daemon:
    """One process that ticks and works.

    `load`, `watch`: see `Clock`; `runner`, `ended`: see `Workers`. `poll` and `look` are in seconds: how often
    it looks for requests, and for changed files or a clock that was set.
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
        look: float = 5.0,
        watch: Callable[[], Hashable] = lambda: None,
        chores: Sequence[Chore] = (),
        ended: Sequence[Callable[[Ended], None]] = (),
    ) -> None:
        self.stop = stop or threading.Event()
        self.clock = Clock(load, state, watch)
        self.workers = Workers(state, self.clock, runner, workers, ended)
        self._poll = poll
        self._chores = (Chore("looking at files and clock", look, self.clock.look), *chores)

    def serve(self) -> None:
        """Tick and work until `stop` is set, then drain. Raises `ProjectError` where the files cannot be read."""
        self.clock.start()
        self.clock.recover()
        syncs, scheduled = len(self.clock.jobs), self.clock.scheduled
        log.info("started", syncs=syncs, scheduled=scheduled, workers=self.workers.count)
        chores = Chores(self._chores)
        with self._pool() as pool:
            while not self.stop.wait(self._poll):
                self.workers.dispatch(pool, self.stop.is_set)
                chores.turn()
            self.clock.stop()
            log.info("draining", running=self.workers.busy)
        log.info("stopped")

    def once(self) -> list[SyncReport]:
        """Do everything that is due now, and nothing more; returns what became of it."""
        ended: list[Ended] = []
        self.workers.tell(ended.append)
        self.clock.read()
        self.clock.recover()
        with self._pool() as pool:
            while not self.stop.is_set():
                if not self.workers.dispatch(pool, self.stop.is_set):
                    break
                self.stop.wait(min(self._poll, 0.05))
        return [one.report for one in ended if one.report is not None]

    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self.workers.count, thread_name_prefix="headgate-run")
