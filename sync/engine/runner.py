"""A run, read like a table of contents."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from sync.engine.job import EngineSettings, SyncJob
from sync.engine.report import Observer, SilentObserver, SyncReport
from sync.sdk.nouns import Op
from sync.state.base import State


class Runner:
    """Plans and runs syncs, one call a sync; calls for different syncs may come from different threads.

    `stop` ends a run gracefully when it is set: batches in flight are finished, the rest is kept for the next
    run. `actor` is who asked, for the audit log.
    """

    def __init__(
        self,
        state: State,
        settings: EngineSettings,
        *,
        actor: str,
        trigger: str = "cli",
        observer: Observer | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        self.state = state
        self.settings = settings
        self.actor = actor
        self.trigger = trigger
        self.observer = observer or SilentObserver()
        self.stop = stop or threading.Event()

    def plan(self, job: SyncJob, *, first_run: bool = False) -> SyncReport:
        """Refresh, compile, diff, freeze and judge; send nothing."""
        raise NotImplementedError

    def run(
        self,
        job: SyncJob,
        *,
        first_run: bool = False,
        only: Iterable[Op] | None = None,
        plan: str | None = None,
    ) -> SyncReport:
        """Resume what was interrupted, then plan and deliver, or hold.

        `plan` names one plan by digest: exactly that is delivered, or `DecisionError` says why not. Errors of
        the warehouse, the state and the destination are reported, not raised.
        """
        raise NotImplementedError
