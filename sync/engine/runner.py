"""A run, read like a table of contents: resume, refresh, diff, freeze, judge, deliver or hold, settle, report."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from sync.engine.approvals import find_plan, moved, refuse_unfit
from sync.engine.batches import PlanFile, cut
from sync.engine.delivery import Deliverer, Halt
from sync.engine.guardrails import answer
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.observe import Observed, definition_of, observe
from sync.engine.pacing import Pacers
from sync.engine.plan import verify_file
from sync.engine.planner import Difference, Planner, held_again, permitted
from sync.engine.report import Observer, SilentObserver, SyncReport
from sync.engine.settle import settlement
from sync.engine.tally import Tally
from sync.errors import DecisionError, HeadgateError, LeaseHeld
from sync.sdk.nouns import Op
from sync.state.base import Counts, Event, Plan, PlanStatus, Run, RunStatus, State, VerdictAnswer

__all__ = ["Runner"]

_APPROVED = (PlanStatus.APPROVED, PlanStatus.APPROVED_WITHOUT_REMOVALS)


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
        self.actor = actor
        self.trigger = trigger
        self.observer = observer or SilentObserver()
        self.stop = stop or threading.Event()
        self.pacers = pacers or Pacers()

    def plan(self, job: SyncJob, *, first_run: bool = False) -> SyncReport:
        """Refresh, compile, diff, freeze and judge; send nothing."""
        started = time.monotonic()
        try:
            with LeaseKeeper(self.state, job.name, self.settings.lease_ttl) as keeper:
                report = _Execution(self, job, keeper, first_run).plan_only()
        except HeadgateError as error:
            report = _failed(job, error)
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
        started = time.monotonic()
        try:
            with LeaseKeeper(self.state, job.name, self.settings.lease_ttl) as keeper:
                report = _Execution(self, job, keeper, first_run).run(only, plan)
        except HeadgateError as error:
            report = replace(_failed(job, error), run=self._keep_failure(job, error, time.monotonic() - started))
        return replace(report, wall_s=round(time.monotonic() - started, 3))

    def _keep_failure(self, job: SyncJob, error: HeadgateError, took: float) -> str | None:
        """Record a run that failed; a lease that is held, or a plan that may not be run, is no failed run."""
        event = Event(self.actor, "run.failed", job.name, {"code": error.code, "error": error.message})
        if isinstance(error, LeaseHeld | DecisionError):
            self.state.record(event)
            return None
        now = self.state.now()
        run = Run(
            id=uuid.uuid4().hex[:12],
            sync=job.name,
            status=RunStatus.FAILED,
            plan=None,
            ops=frozenset(),
            trigger=self.trigger,
            actor=self.actor,
            started_at=now - took,
            finished_at=now,
            error={"code": error.code, "message": error.message},
        )
        self.state.add_run(run, [event])
        return run.id


def _failed(job: SyncJob, error: HeadgateError) -> SyncReport:
    return SyncReport(job.name, "failed", code=error.code, error=error.message, fix=error.fix)


@dataclass
class _Execution:
    """One sync under its lease."""

    runner: Runner
    job: SyncJob
    keeper: LeaseKeeper
    first_run: bool

    def __post_init__(self) -> None:
        self.state = self.runner.state
        self.settings = self.runner.settings
        self.tell = self.runner.observer

    # --- the two ways through -----------------------------------------------------------------------------

    def plan_only(self) -> SyncReport:
        """Make and keep a plan of everything there is to change."""
        if self.state.open_run(self.job.name) is not None:
            raise HeadgateError(
                f"a run of '{self.job.name}' was interrupted and is not finished",
                code="HG524",
                fix=f"finish it first: headgate run {self.job.name}",
            )
        with self._observed() as seen:
            difference = self._difference(seen)
            if difference.nothing_to_do:
                return self._report("unchanged", difference)
            plan = self._made(difference, permitted(self.job))
        status = "ready" if plan.status in (PlanStatus.READY, *_APPROVED) else "held"
        return self._of_plan(status, plan)

    def run(self, only: Iterable[Op] | None, name: str | None) -> SyncReport:
        """Finish what was interrupted; then deliver a decided plan, or what a fresh one allows."""
        resumed = self._resume()
        if resumed is not None and resumed.code:
            return resumed
        ops = permitted(self.job) & frozenset(only) if only is not None else permitted(self.job)
        report = self._named(name) if name else self._fresh(ops)
        return _joined(resumed, report)

    def _named(self, name: str) -> SyncReport:
        """Deliver exactly this plan."""
        plan = find_plan(self.state, name)
        if plan.sync != self.job.name:
            raise DecisionError(f"plan {plan.id} is of sync '{plan.sync}', not '{self.job.name}'", code="HG501")
        refuse_unfit(plan, self.state.now())
        if plan.status is PlanStatus.HELD:
            return self._of_plan("held", plan)
        with self._observed() as seen:
            what = moved(plan, self.job, seen.generation.number, seen.refresh.version)
        if what:
            self.state.set_plan(plan.id, PlanStatus.VOID, what, [self._event("plan.void", plan.id, why=what)])
            raise DecisionError(
                f"plan {plan.id} is void: {what}; nothing was sent",
                code="HG505",
                fix=f"make a new one: headgate plan {self.job.name}",
            )
        sent = self._carry_out(plan)
        if plan.status is PlanStatus.APPROVED_WITHOUT_REMOVALS and plan.counts.remove:
            return self._then_rest(sent, permitted(self.job))
        return sent

    def _fresh(self, ops: frozenset[Op], *, rest: bool = False) -> SyncReport:
        """Observe, plan, judge; then deliver, hold, or deliver what is not held.

        `rest` is what is left after additions went out while removals were kept: it is held, or nothing.
        """
        additions = None
        with self._observed() as seen:
            difference = self._difference(seen)
            if difference.nothing_to_do:
                return self._unchanged(difference)
            if rest and difference.diff.remove < difference.diff.changes:
                ops = frozenset({Op.REMOVE})  # what was rejected a moment ago is not tried again at once
            plan = self._made(difference, ops)
            if _only_removals_held(plan) and plan.counts.add + plan.counts.update > 0:
                additions = self._made(difference, ops - {Op.REMOVE}, kept_back=plan.counts.remove)
        if additions is not None:
            return self._then_rest(self._carry_out(additions), ops)
        if plan.status is PlanStatus.HELD:
            return self._hold(plan)
        if plan.status is PlanStatus.APPROVED_WITHOUT_REMOVALS and plan.counts.remove:
            return self._then_rest(self._carry_out(plan), ops)
        return self._carry_out(plan)

    def _then_rest(self, sent: SyncReport, ops: frozenset[Op]) -> SyncReport:
        """After additions and updates went out: freeze the removals as a plan of their own, which is held."""
        if sent.code:
            return sent
        rest = self._fresh(ops, rest=True)
        return replace(
            sent,
            status=rest.status if rest.status == "held" or rest.code else sent.status,
            plan=rest.plan or sent.plan,
            counts=replace(sent.counts, remove=rest.counts.remove),
            verdicts=rest.verdicts,
            notes=(*sent.notes, *rest.notes),
        )

    # --- planning -----------------------------------------------------------------------------------------

    def _observed(self) -> AbstractContextManager[Observed]:
        self.tell.phase(self.job.name, "refresh")
        cause = f"{self.runner.trigger}: {self.runner.actor}"
        return observe(self.state, self.settings, self.job, cause)

    def _difference(self, seen: Observed) -> Difference:
        self.tell.phase(self.job.name, "diff", f"{seen.refresh.rows:,} rows")
        return Planner(self.state, self.settings, self.job, first_run=self.first_run).difference(seen)

    def _made(self, difference: Difference, ops: frozenset[Op], *, kept_back: int = 0) -> Plan:
        """The plan of a difference: the one that waits already, where nothing moved since it was made."""
        planner = Planner(self.state, self.settings, self.job, first_run=self.first_run)
        waiting = held_again(self.state, planner.inputs(difference.seen, ops), self.job.name, planner.now)
        if waiting is not None:
            return waiting
        self.tell.phase(self.job.name, "guard", f"{difference.diff.changes:,} changes")
        plan = planner.plan(difference, ops, kept_back=kept_back)
        self.state.add_refresh(self.keeper.lease, difference.seen.refresh)
        self._settle_rejected(difference)
        self._keep(plan)
        return plan

    def _keep(self, plan: Plan) -> None:
        c = plan.counts
        self.state.add_plan(
            self.keeper.lease,
            plan,
            [
                self._event(
                    f"plan.{plan.status}",
                    plan.id,
                    digest=plan.digest,
                    add=c.add,
                    update=c.update,
                    remove=c.remove,
                    guardrails=[v.guardrail for v in plan.verdicts],
                )
            ],
        )

    def _settle_rejected(self, difference: Difference) -> None:
        if difference.settled:
            self.state.drop_rejected(self.keeper.lease, difference.settled)

    # --- the ends of a run --------------------------------------------------------------------------------

    def _unchanged(self, difference: Difference) -> SyncReport:
        """Nothing to send. Green, unless records that were rejected before still wait."""
        self.state.add_refresh(self.keeper.lease, replace(difference.seen.refresh, accepted=True))
        self._settle_rejected(difference)
        waiting = difference.diff.backed_off
        status = RunStatus.COMPLETED_WITH_ERRORS if waiting else RunStatus.COMPLETED
        run = self._new_run(None, status, frozenset(), finished=self.state.now())
        self.state.add_run(run, [self._event(f"run.{status}", run.id, requests=0)])
        return self._report(str(status), difference, run=run.id)

    def _hold(self, plan: Plan) -> SyncReport:
        run = self._new_run(plan.id, RunStatus.HELD, frozenset(), finished=self.state.now())
        self.state.add_run(run)
        return replace(self._of_plan("held", plan), run=run.id)

    def _carry_out(self, plan: Plan) -> SyncReport:
        """Open a run of a plan that may be delivered, and deliver it."""
        ops = permitted(self.job)
        if plan.status is PlanStatus.APPROVED_WITHOUT_REMOVALS:
            ops -= {Op.REMOVE}
        approved = plan.status is PlanStatus.APPROVED
        run = self._new_run(plan.id, RunStatus.SENDING, ops, approved=approved)
        with PlanFile(self.settings, verify_file(self.settings, plan)) as file:
            batches = cut(run.id, file, self.job, ops)
            event = self._event("run.started", run.id, plan=plan.id, batches=len(batches))
            self.state.open(self.keeper.lease, run, batches, [event])
            return self._deliver(plan, run, file)

    def _resume(self) -> SyncReport | None:
        """Finish the run that a crash or a signal interrupted: replay its batches as they were stored."""
        run = self.state.open_run(self.job.name)
        if run is None or run.plan is None:
            return None
        plan = self.state.plan(run.plan)
        if plan is None:
            raise HeadgateError(f"the plan of run {run.id} is not in the ledger", code="HG303")
        self.tell.note(self.job.name, f"run {run.id} was interrupted; it is finished first")
        self.state.set_run(self.keeper.lease, run.id, RunStatus.SENDING)
        with PlanFile(self.settings, verify_file(self.settings, plan)) as file:
            if plan.mapping_digest != self.job.mapping_digest or self.state.now() > plan.expires_at:
                return self._give_up(plan, run)
            return replace(self._deliver(plan, run, file), resumed=run.id)

    def _give_up(self, plan: Plan, run: Run) -> SyncReport:
        """The mapping moved, or the plan is too old, to go on: keep what was answered, and plan afresh.

        Batches that may have been sent are dirty: the next plan sets their members again.
        """
        tally = Tally()
        tally.resume(self.state.batches(run.id))
        self._settle(plan, run, tally, RunStatus.CANCELLED, None)
        note = f"run {run.id} was given up: its mapping changed or its plan expired; a new plan takes its place"
        return SyncReport(self.job.name, "completed", resumed=run.id, notes=(note,))

    # --- delivering and settling --------------------------------------------------------------------------

    def _deliver(self, plan: Plan, run: Run, file: PlanFile) -> SyncReport:
        tally = Tally(planned=sum(getattr(plan.counts, op) for op in run.ops))
        self.tell.phase(self.job.name, "deliver", f"{tally.planned:,} records")
        deliverer = Deliverer(
            state=self.state,
            keeper=self.keeper,
            job=self.job,
            plan=plan,
            run=run,
            file=file,
            settings=self.settings.delivery,
            pacer=self.runner.pacers.of(self.job.account, self.job.limits.rates),
            observer=self.tell,
            stop=self.runner.stop,
            tally=tally,
        )
        try:
            deliverer.deliver()
        except Halt as halt:
            return self._halted(plan, run, tally, halt)
        self.tell.phase(self.job.name, "record")
        status = self._settle(plan, run, tally, RunStatus.COMPLETED, None)
        self.state.remember(self.keeper.lease, "definition", definition_of(self.job))
        return self._sent(plan, run, tally, str(status))

    def _halted(self, plan: Plan, run: Run, tally: Tally, halt: Halt) -> SyncReport:
        """A guardrail's stop ends the run; anything else leaves it open for the next one."""
        if halt.status is RunStatus.STOPPED:
            error = {"code": halt.code, "message": halt.message}
            self._settle(plan, run, tally, RunStatus.STOPPED, error)
        else:
            self.state.record(self._event("run.interrupted", run.id, code=halt.code, why=halt.message))
        report = self._sent(plan, run, tally, str(halt.status))
        return replace(report, code=halt.code, error=halt.message, fix=halt.fix)

    def _settle(
        self, plan: Plan, run: Run, tally: Tally, status: RunStatus, error: dict[str, str] | None
    ) -> RunStatus:
        ended = settlement(
            self.state,
            self.settings,
            self.job,
            plan,
            run,
            verify_file(self.settings, plan),
            status,
            actor=self.runner.actor,
            counts=tally.outcomes() | {"remove": plan.counts.remove if Op.REMOVE in run.ops else 0},
            error=error,
        )
        self.state.finish(self.keeper.lease, run.id, ended)
        return ended.status

    # --- small things -------------------------------------------------------------------------------------

    def _new_run(
        self,
        plan: str | None,
        status: RunStatus,
        ops: frozenset[Op],
        *,
        approved: bool = False,
        finished: float | None = None,
    ) -> Run:
        return Run(
            id=uuid.uuid4().hex[:12],
            sync=self.job.name,
            status=status,
            plan=plan,
            ops=ops,
            trigger=self.runner.trigger,
            actor=self.runner.actor,
            started_at=self.state.now(),
            finished_at=finished,
            epoch=self.keeper.lease.epoch,
            approved=approved,
        )

    def _event(self, action: str, object: str, **data: object) -> Event:
        return Event(self.runner.actor, action, object, {"sync": self.job.name, **data})

    def _report(self, status: str, difference: Difference, *, run: str | None = None) -> SyncReport:
        diff = difference.diff
        counts = Counts(
            unchanged=diff.unchanged,
            members=difference.seen.generation.members,
            backed_off=diff.backed_off,
            given_up=diff.given_up,
        )
        return SyncReport(self.job.name, status, run=run, counts=counts)

    def _of_plan(self, status: str, plan: Plan) -> SyncReport:
        return SyncReport(self.job.name, status, plan=plan, counts=plan.counts, verdicts=plan.verdicts)

    def _sent(self, plan: Plan, run: Run, tally: Tally, status: str) -> SyncReport:
        warnings = tuple(v for v in plan.verdicts if v.answer is VerdictAnswer.WARN)
        return SyncReport(
            self.job.name,
            status,
            plan=plan,
            run=run.id,
            counts=plan.counts,
            verdicts=warnings,
            applied=tally.applied,
            accepted=tally.accepted,
            rejected=tally.rejected,
            deferred=tally.deferred,
            unknown=tally.unknown,
            requests=tally.requests,
            retries=tally.retries,
        )


def _only_removals_held(plan: Plan) -> bool:
    return plan.status is PlanStatus.HELD and answer(plan.verdicts) is VerdictAnswer.HOLD_REMOVALS


def _joined(resumed: SyncReport | None, report: SyncReport) -> SyncReport:
    """One report for a command that finished an interrupted run and then made its own."""
    if resumed is None:
        return report
    names = ("applied", "accepted", "rejected", "deferred", "unknown", "requests", "retries")
    sums = {name: getattr(resumed, name) + getattr(report, name) for name in names}
    idle = report.plan is None and not report.code
    status = resumed.status if idle and resumed.status != "completed" else report.status
    return replace(
        report,
        status=status,
        resumed=resumed.resumed,
        plan=report.plan or resumed.plan,
        counts=resumed.counts if idle and resumed.plan else report.counts,
        notes=(*resumed.notes, *report.notes),
        **sums,
    )
