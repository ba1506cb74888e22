"""What is old is deleted of syncs that do not run, too: paused, disabled, or in no mapping any more.

A sync that runs sees to it at the end of its runs; see `sync.engine.retention`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from sync.engine.job import EngineSettings, LogTarget
from sync.engine.lease import LeaseKeeper
from sync.engine.retention import due, prune_when_due
from sync.errors import HeadgateError, LeaseHeld
from sync.state.base import State

__all__ = ["LOOK", "Retention"]

log = structlog.get_logger("headgate.daemon")

LOOK = 3600.0
"""Seconds between two looks whether a sync is due."""


class Retention:
    """Looks through every sync that the ledger knows, once a day.

    `settings` are those in force, and `logs` has where each sync of the project is logged to: a sync that is not
    in there is gone from the mappings.
    """

    def __init__(
        self,
        state: State,
        settings: Callable[[], EngineSettings],
        logs: Callable[[], Mapping[str, LogTarget | None]],
        stop: threading.Event,
    ) -> None:
        self._state, self._settings, self._logs, self._stop = state, settings, logs, stop

    def look(self) -> None:
        """Delete what is old of the syncs that are due. It takes as long as that does."""
        waiting = [sync for sync in self._state.known_syncs() if due(self._state, sync)]
        logs = self._logs() if waiting else {}
        for sync in waiting:
            if self._stop.is_set():
                return
            try:
                self._prune(sync, logs.get(sync))
            except HeadgateError as error:
                log.error("kept_going", what="deleting what is old", sync=sync, code=error.code, why=error.message)

    def _prune(self, sync: str, target: LogTarget | None) -> None:
        settings = self._settings()
        try:
            with LeaseKeeper(self._state, sync, settings.lease_ttl) as keeper:
                gone = prune_when_due(self._state, settings, keeper, target)
        except LeaseHeld:
            return  # it runs, and sees to it in the end
        deleted = {kind: count for kind, count in gone.items() if count}
        if deleted:
            log.info("deleted", what="what is older than [retention] says", sync=sync, **deleted)
