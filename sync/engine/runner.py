"""The engine's front door: plan a sync or run it, under its lease, and report what became of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from sync.engine.execution import Execution
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.pacing import Pacers
from sync.engine.reconcile import Verified
from sync.engine.report import Observer, SilentObserver, SyncReport
from sync.engine.retention import prune_when_due
from sync.engine.running import Means, RunIds
from sync.engine.sync_log import write as write_log
from sync.errors import DecisionError, Fenced, HeadgateError, LeaseHeld, SourceError, StateError
from sync.sdk.nouns import Op
from sync.spans import Span, span
from sync.state.base import State
from sync.state.nouns import Event, Run, RunStatus

__all__ = ["Runner"]

_COUNTS = ("applied", "accepted", "rejected", "deferred", "unknown", "requests", "retries")


class Runner:
    """Plans and runs syncs, one call a sync; calls for different syncs may come from different threads.

    `stop` ends a run gracefully when it is set: batches in flight are finished, the rest is kept for the next
    run. `actor` is who asked, for the audit log. `pacers` are shared by everything that uses the same accounts.
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
        pacers: Pacers | None = None,
    ) -> None:
        self.state = state
        self.settings = settings
        self.stop = stop or threading.Event()
        pacers = pacers or Pacers(folder=settings.folder)
        self._means = Means(state, settings, actor, trigger, observer or SilentObserver(), self.stop, pacers)

    def plan(self, job: SyncJob, *, first_run: bool = False) -> SyncReport:
        """Refresh, compile, diff, freeze and judge; send nothing."""
        started = time.monotonic()
        try:
            with LeaseKeeper(self.state, job.name, self.settings.lease_ttl) as keeper:
                execution = Execution(self._means, job, keeper, first_run=first_run)
                report = replace(execution.plan_only(), reading=execution.reading)
        except HeadgateError as error:
            report = _failed(job, self._cause(job, error))
        return replace(report, wall_s=round(time.monotonic() - started, 3))

    def run(
        self,
        job: SyncJob,
        *,
        first_run: bool = False,
        only: Iterable[Op] | None = None,
        plan: str | None = None,
    ) -> SyncReport:
        """Resume what was interrupted, then plan and deliver, or hold.

        `plan` names one plan by digest: exactly that is delivered, or the report says why not. Errors of the
        warehouse, the state and the destination are reported, not raised.
        """
        return self._ran(job, lambda execution: execution.run(only, plan), first_run=first_run)

    def finish(self, job: SyncJob) -> SyncReport:
        """Go on with a run that was interrupted, or ask about its jobs; nothing is planned and nothing else sent.

        Errors are reported as `run` does.
        """
        return self._ran(job, lambda execution: execution.finish())

    def verify(self, job: SyncJob, *, samples: int = 3, repair: str = "") -> Verified:
        """Compare the destination's audience with the members; nothing is sent.

        A reason to `repair` makes a held plan that puts back who is missing and removes who does not belong there.
        Raises `HeadgateError` where the connector cannot read, or the destination does not answer.
        """
        with LeaseKeeper(self.state, job.name, self.settings.lease_ttl) as keeper:
            return Execution(self._means, job, keeper, first_run=False).verify(samples, repair=repair)

    def revert(self, job: SyncJob, run: str, reason: str, *, deliver: bool = True) -> SyncReport:
        """Put back what a run was acknowledged for, or hold the plan that does; the sync is paused with it.

        Without `deliver` the plan is only made and kept.
        """
        return self._ran(job, lambda execution: execution.revert(run, reason, deliver=deliver))

    def _ran(
        self, job: SyncJob, work: Callable[[Execution], SyncReport], *, first_run: bool = False
    ) -> SyncReport:
        """The report of a run, made under its lease, told to whoever watches, and kept where it failed.

        What is old is deleted in the end, also by a sync that always fails.
        """
        ids, began = RunIds(), time.monotonic()
        facts = {"sync": job.name, "destination": job.destination, "cohort": job.cohort.name, "run": ids.first}
        with span("run", **facts, trigger=self._means.trigger) as told:
            try:
                with LeaseKeeper(self.state, job.name, self.settings.lease_ttl) as keeper:
                    execution = Execution(self._means, job, keeper, first_run=first_run, ids=ids)
                    try:
                        report = replace(work(execution), reading=execution.reading)
                    except HeadgateError as error:
                        report = self._ended_early(job, error, ids, time.monotonic() - began)
                    else:
                        report = self._logged(job, keeper, report)
                    report = _noted(report, self._pruned(job, keeper))
            except HeadgateError as error:  # somebody else has the lease
                report = self._ended_early(job, error, ids, time.monotonic() - began)
            _tell(told, report)
            return replace(report, wall_s=round(time.monotonic() - began, 3))

    def _logged(self, job: SyncJob, keeper: LeaseKeeper, report: SyncReport) -> SyncReport:
        """The report, with a note where the sync log could not be brought up to date: that fails no run."""
        if job.log is not None:
            self._means.phase(job, "log")
        return _noted(report, write_log(self.state, self.settings, job, keeper, self.stop))

    def _pruned(self, job: SyncJob, keeper: LeaseKeeper) -> str:
        """Delete what is old; returns why that failed, or nothing. What was delivered is, either way."""
        try:
            prune_when_due(self.state, self.settings, keeper, job.log)
        except Fenced:
            return ""  # whoever has the lease now does it
        except HeadgateError as error:
            return f"what is older than [retention] says was not deleted: {error}"
        return ""

    def _ended_early(self, job: SyncJob, error: HeadgateError, ids: RunIds, took: float) -> SyncReport:
        """The report of a run that failed; one that was told to end while it read the source is cancelled."""
        error = self._cause(job, error)
        report = _failed(job, error)
        status = str(RunStatus.CANCELLED) if error.code == "HG520" else report.status
        return replace(report, status=status, run=self._keep_failure(job, error, ids, took))

    def _cause(self, job: SyncJob, error: HeadgateError) -> HeadgateError:
        """Why it ended: what told it to end interrupts the source, whose error says less."""
        if not (self.stop.is_set() and isinstance(error, SourceError)):
            return error
        return HeadgateError(
            "the run was interrupted while it read the source; nothing was sent",
            code="HG520",
            fix=f"`headgate run {job.name}` begins anew",
        )

    def _keep_failure(self, job: SyncJob, error: HeadgateError, ids: RunIds, took: float) -> str | None:
        """Record a run that failed, and return its id; None where the ledger cannot be written."""
        data = {"sync": job.name, "code": error.code, "error": error.message}
        try:
            if isinstance(error, LeaseHeld | Fenced | DecisionError):  # none of these is a failed run
                self.state.record(Event(self._means.actor, "run.refused", job.name, data))
                return None
            left = self.state.open_run(job.name)
            if left is not None:
                self.state.record(Event(self._means.actor, "run.interrupted", left.id, data))
                return left.id
            run = self._failed_run(job, error, ids.next(), took)
            self.state.add_run(run, [Event(self._means.actor, f"run.{run.status}", run.id, data)])
        except StateError:
            return None
        return run.id

    def _failed_run(self, job: SyncJob, error: HeadgateError, id: str, took: float) -> Run:
        now = self.state.now()
        return Run(
            id=id,
            sync=job.name,
            status=RunStatus.CANCELLED if error.code == "HG520" else RunStatus.FAILED,
            plan=None,
            ops=frozenset(),
            trigger=self._means.trigger,
            actor=self._means.actor,
            started_at=now - took,
            finished_at=now,
            error={"code": error.code, "message": error.message},
        )


def _tell(told: Span, report: SyncReport) -> None:
    """Tell whoever watches of the outcome."""
    told.learn(status=report.status, **{name: getattr(report, name) for name in _COUNTS})
    if report.run:
        told.learn(run=report.run)
    told.error = report.code


def _noted(report: SyncReport, note: str) -> SyncReport:
    """The report with one more note, where there is one."""
    return replace(report, notes=(*report.notes, note)) if note else report


def _failed(job: SyncJob, error: HeadgateError) -> SyncReport:
    return SyncReport(job.name, "failed", code=error.code, error=error.message, fix=error.fix)
