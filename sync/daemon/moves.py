"""Runs when the source changed: each table's version is asked for now and then, in threads of their own."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import structlog

from sync.daemon.asking import Asking
from sync.daemon.chores import guarded
from sync.engine.job import SyncJob
from sync.errors import HeadgateError
from sync.schedule import slot
from sync.sources.base import Relation, Version

__all__ = ["Moves"]

log = structlog.get_logger("headgate.daemon")

SOURCE = "source"
_PATIENCE_S = 60.0


class Moves:
    """Asks sources for their versions. A warehouse that is slow to answer keeps only its own syncs waiting."""

    def __init__(self, asking: Asking, stop: threading.Event) -> None:
        self._asking, self._stop = asking, stop
        self._asked: dict[str, float] = {}  # sync -> when, by the monotonic clock
        self._told: dict[str, str] = {}  # sync -> what the log was told last that kept it from knowing
        self._threads: dict[str, threading.Thread] = {}  # connection -> who asks there
        self._waiting: dict[str, tuple[SyncJob, float]] = {}  # connection -> for whom, and when that is too long

    def look(self) -> None:
        """Ask the sources that are due. It takes as long as they do."""
        self.keep_looking()
        for thread in self._threads.values():
            while thread.is_alive() and not self._stop.is_set():
                thread.join(0.1)

    def keep_looking(self) -> None:
        """Ask the sources that are due, each connection in a thread of its own, unless it still does."""
        self._threads = {name: thread for name, thread in self._threads.items() if thread.is_alive()}
        due: dict[str, list[tuple[SyncJob, float]]] = {}
        for job, schedule in self._asking.syncs():
            if schedule.source is not None and self._is_due(job.name, schedule.source.poll):
                due.setdefault(job.cohort.source.connection, []).append((job, schedule.source.poll))
        for name, jobs in due.items():
            if name not in self._threads:
                thread = threading.Thread(
                    target=self._ask_all, args=(jobs,), name=f"headgate-moves-{name}", daemon=True
                )
                self._threads[name] = thread
                thread.start()
        for job, late in list(self._waiting.values()):
            if time.monotonic() >= late:
                self._tell(
                    job.name, f"{job.cohort.source.connection} has not answered, and is due to be asked again"
                )

    def _ask_all(self, jobs: Sequence[tuple[SyncJob, float]]) -> None:
        """Ask one connection, for one sync after the other."""
        for job, every in jobs:
            if self._stop.is_set():
                return
            connection, now = job.cohort.source.connection, time.monotonic()
            self._asked[job.name] = now
            self._waiting[connection] = job, now + max(every, _PATIENCE_S)
            guarded("asking whether the source changed", partial(self._ask, job))
            del self._waiting[connection]

    def _is_due(self, name: str, every: float) -> bool:
        asked = self._asked.get(name)
        return asked is None or time.monotonic() - asked >= every

    def _ask(self, job: SyncJob) -> None:
        version = self._version(job)
        if self._stop.is_set():
            return
        self._tell(job.name, version.untold)
        before = self._asking.seen(job, SOURCE)
        if not version.mark or version.mark == before:
            return
        if before is None:
            self._asking.see(job, SOURCE, None, version.mark)
            return
        digest = hashlib.sha256(version.mark.encode()).hexdigest()[:12]
        self._asking.ask(job, SOURCE, before, version.mark, f"source-{slot(datetime.now(UTC))}-{digest}")

    def _version(self, job: SyncJob) -> Version:
        where = job.cohort.source
        try:
            source = job.source()
            try:
                return source.version(Relation(where.table, where.query))
            finally:
                source.close()
        except HeadgateError as error:
            return Version(untold=f"{error.message} ({error.code})")

    def _tell(self, name: str, untold: str) -> None:
        """Say once why it is not known whether a source changed."""
        if untold and untold != self._told.get(name):
            log.error("source_untold", sync=name, why=untold)
        self._told[name] = untold
