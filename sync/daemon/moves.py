"""Runs when the source changed: each table's version is asked for now and then, in a thread of its own."""

from __future__ import annotations

import hashlib
import threading
import time
from datetime import UTC, datetime

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


class Moves:
    """Asks sources for their versions. A warehouse that is slow to answer keeps only the other sources waiting."""

    def __init__(self, asking: Asking, stop: threading.Event) -> None:
        self._asking, self._stop = asking, stop
        self._asked: dict[str, float] = {}  # sync -> when, by the monotonic clock
        self._told: dict[str, str] = {}  # sync -> what the log was told last that kept it from knowing
        self._thread: threading.Thread | None = None

    def look(self) -> None:
        """Ask the sources that are due. It takes as long as they do."""
        due = [
            (job, schedule.source)
            for job, schedule in self._asking.syncs()
            if schedule.source is not None and self._is_due(job.name, schedule.source.poll)
        ]
        for job, _ in due:
            if self._stop.is_set():
                return
            self._asked[job.name] = time.monotonic()
            guarded("asking whether the source changed", lambda job=job: self._ask(job))  # type: ignore[misc]

    def keep_looking(self) -> None:
        """Look in a thread of its own, unless it still does."""
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self.look, name="headgate-moves", daemon=True)
            self._thread.start()

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
