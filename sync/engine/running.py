"""A run carried out: opened with all its batches, delivered, settled; or taken up where another process ended."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass, field, replace
from itertools import chain

from sync import spans
from sync.engine.approvals import refuse_damaged
from sync.engine.batches import PlanFile, cut
from sync.engine.delivery import deliver
from sync.engine.dispatch import Dispatch, Halt, lifetime
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import verify
from sync.engine.lease import LeaseKeeper
from sync.engine.observe import definition_of
from sync.engine.pacing import Pacers
from sync.engine.plan import verify_file
from sync.engine.report import Observer, SyncReport
from sync.engine.settle import settlement
from sync.engine.tally import Tally
from sync.engine.trust import refuse_little_room, whole
from sync.errors import HeadgateError
from sync.sdk.nouns import Op
from sync.spans import Fact
from sync.state import mark
from sync.state.base import State
from sync.state.nouns import BatchState, Event, Plan, PlanKind, PlanStatus, Run, RunStatus, Verdict, VerdictAnswer

__all__ = ["Means", "RunIds", "Running"]

_JOB_PATIENCE = 7 * 86400.0  # seconds that a run is kept open for nothing but its jobs


@dataclass(frozen=True, slots=True)
class Means:
    """What every run of one caller works with; see `Runner`."""

    state: State
    settings: EngineSettings
    actor: str
    trigger: str
    observer: Observer
    stop: threading.Event
    pacers: Pacers

    def phase(self, job: SyncJob, name: str, detail: str = "", **facts: Fact) -> None:
        """Tell that a phase begins."""
        self.observer.phase(job.name, name, detail)
        spans.phase(name, **facts)


class RunIds:
    """Ids of one execution's runs: the first is known before it begins."""

    def __init__(self) -> None:
        self.first = _new_id()
        self._ids = chain([self.first], iter(_new_id, ""))

    def next(self) -> str:
        """One that no other run has."""
        return next(self._ids)


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True)
class Running:
    """Carries out runs of one sync under its lease."""

    means: Means
    job: SyncJob
    keeper: LeaseKeeper
    ids: RunIds = field(default_factory=RunIds)

    def carry_out(self, plan: Plan, ops: frozenset[Op]) -> SyncReport:
        """Open a run of these ops of a plan that may be delivered, and deliver it."""
        state, settings = self.means.state, self.means.settings
        path = refuse_damaged(state, settings, plan, self.means.actor)
        if not plan.observed:  # else the members were read, and found whole, a moment ago
            verify(settings, state.generation(self.job.name))
        refuse_little_room(settings, path, state.generation(self.job.name))
        approved = plan.status is PlanStatus.APPROVED
        run = self.new_run(plan.id, RunStatus.SENDING, ops, approved=approved)
        with PlanFile(settings, path) as file:
            # A whole audience in which nothing changed is not sent for the sake of invalid rows.
            batches = cut(run.id, file, self.job, ops) if _planned(plan, ops) else []
            event = self.event("run.started", run.id, plan=plan.id, batches=len(batches))
            state.open(self.keeper.lease, run, batches, [event])
            return self._deliver(plan, run, file)

    def resume(self) -> SyncReport | None:
        """Finish the run that a crash or a signal interrupted: replay its batches as they were stored."""
        state, settings = self.means.state, self.means.settings
        run = state.open_run(self.job.name)
        if run is None or run.plan is None:
            return None
        plan = self._plan_of(run)
        self.means.observer.note(self.job.name, f"run {run.id} was interrupted; it is finished first")
        path = whole(state, settings, plan, run)
        refuse_little_room(settings, path, state.generation(self.job.name))
        state.set_run(self.keeper.lease, run.id, RunStatus.SENDING)
        with PlanFile(settings, path) as file:
            if self._outdated(plan, run):
                return self._give_up(plan, run, "its mapping or destination changed, or its plan expired")
            return replace(self._deliver(plan, run, file), resumed=run.id)

    def _outdated(self, plan: Plan, run: Run) -> bool:
        """Is the plan not to be gone on with. Where all is sent, only jobs are waited for, and longer."""
        if plan.mapping_digest != self.job.mapping_digest:
            return True
        state = self.means.state
        until = plan.expires_at
        if not state.batches(run.id, BatchState.PLANNED, BatchState.INTENT):
            until = max(until, run.started_at + _JOB_PATIENCE)
        return state.now() > until

    def end(self, run: Run, why: str) -> SyncReport:
        """End an interrupted run where it is, and send nothing more of it."""
        plan = self._plan_of(run)
        whole(self.means.state, self.means.settings, plan, run)
        self.means.state.set_run(self.keeper.lease, run.id, RunStatus.SENDING)
        return self._give_up(plan, run, why)

    def _plan_of(self, run: Run) -> Plan:
        plan = self.means.state.plan(run.plan or "")
        if plan is None:
            raise HeadgateError(f"the plan of run {run.id} is not in the ledger", code="HG303")
        return plan

    def _give_up(self, plan: Plan, run: Run, why: str) -> SyncReport:
        """Keep what was answered, and leave the rest to a plan made afresh.

        Batches that may have been sent are dirty: the next plan sets their members again.
        """
        tally = Tally()
        tally.resume(self.means.state.batches(run.id))
        self._settle(plan, run, tally, RunStatus.CANCELLED, None)
        note = f"run {run.id} was given up: {why}; a new plan takes its place"
        return SyncReport(self.job.name, "completed", resumed=run.id, notes=(note,))

    # --- delivering and settling --------------------------------------------------------------------------

    def _deliver(self, plan: Plan, run: Run, file: PlanFile) -> SyncReport:
        means = self.means
        mark.put(means.settings.folder, self.job.name, run.id)  # before the first byte
        tally = Tally(planned=_planned(plan, run.ops))
        means.phase(self.job, "deliver", f"{tally.planned:,} records", run=run.id, records=tally.planned)
        dispatch = Dispatch(
            state=means.state,
            keeper=self.keeper,
            job=self.job,
            run=run,
            settings=means.settings.delivery,
            pacer=means.pacers.of(self.job.account, self.job.limits.rates, lifetime(means.settings.delivery)),
            observer=means.observer,
            stop=means.stop,
            tally=tally,
            planned={str(op): getattr(plan.counts, op) for op in run.ops},
        )
        try:
            deliver(dispatch, file)
        except Halt as halt:
            return self._halted(plan, run, tally, halt)
        means.phase(self.job, "record", run=run.id)
        status = self._settle(plan, run, tally, RunStatus.COMPLETED, None)
        if plan.kind is PlanKind.DIFF:
            means.state.remember(self.keeper.lease, "definition", definition_of(self.job))
        return self._sent(plan, run, tally, str(status))

    def _halted(self, plan: Plan, run: Run, tally: Tally, halt: Halt) -> SyncReport:
        """Where it does not end the run, the next one goes on with it."""
        if halt.ends:
            self._settle(plan, run, tally, halt.status, {"code": halt.code, "message": halt.message})
        else:
            self.means.state.record(self.event("run.interrupted", run.id, code=halt.code, why=halt.message))
        report = self._sent(plan, run, tally, str(halt.status))
        return replace(report, code=halt.code, error=halt.message, fix=halt.fix)

    def _settle(
        self, plan: Plan, run: Run, tally: Tally, status: RunStatus, error: dict[str, str] | None
    ) -> RunStatus:
        means = self.means
        ended = settlement(
            means.state,
            means.settings,
            self.job,
            plan,
            run,
            verify_file(means.settings, plan),
            status,
            actor=means.actor,
            counts=tally.outcomes() | {"remove": plan.counts.remove if Op.REMOVE in run.ops else 0},
            error=error,
        )
        means.state.finish(self.keeper.lease, run.id, ended)
        return ended.status

    def _sent(self, plan: Plan, run: Run, tally: Tally, status: str) -> SyncReport:
        warnings = [v for v in plan.verdicts if v.answer is VerdictAnswer.WARN]
        return SyncReport(
            self.job.name,
            status,
            plan=plan,
            run=run.id,
            counts=plan.counts,
            verdicts=(*warnings, *self._rejected_share(tally)),
            applied=tally.applied,
            accepted=tally.accepted,
            rejected=tally.rejected,
            deferred=tally.deferred,
            unknown=tally.unknown,
            requests=tally.requests,
            retries=tally.retries,
        )

    def _rejected_share(self, tally: Tally) -> list[Verdict]:
        limit = self.job.guardrails.warn_rejected_pct
        if not tally.answered or tally.rejected * 100 <= tally.answered * limit:
            return []
        share = round(100 * tally.rejected / tally.answered, 2)
        message = f"{self.job.destination} rejected {share:g} % of the records, more than {limit:g} %"
        return [Verdict("rejected_share", VerdictAnswer.WARN, limit, share, message)]

    # --- what is written of it ----------------------------------------------------------------------------

    def new_run(
        self,
        plan: str | None,
        status: RunStatus,
        ops: frozenset[Op] = frozenset(),
        *,
        approved: bool = False,
        finished: float | None = None,
    ) -> Run:
        """A run of this sync that starts now."""
        return Run(
            id=self.ids.next(),
            sync=self.job.name,
            status=status,
            plan=plan,
            ops=ops,
            trigger=self.means.trigger,
            actor=self.means.actor,
            started_at=self.means.state.now(),
            finished_at=finished,
            epoch=self.keeper.lease.epoch,
            approved=approved,
        )

    def event(self, action: str, object: str, **data: object) -> Event:
        """An event of this sync for the audit log."""
        return Event(self.means.actor, action, object, {"sync": self.job.name, **data})


def _planned(plan: Plan, ops: frozenset[Op]) -> int:
    return sum(getattr(plan.counts, op) for op in ops)
