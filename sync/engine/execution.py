"""One sync under its lease: resume, refresh, diff, freeze, judge; then deliver, hold, or deliver what may go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from sync.engine import erasing
from sync.engine.approvals import find_plan, held_again, moved, refuse_damaged, refuse_unfit
from sync.engine.audience import Audience
from sync.engine.dispatch import lifetime
from sync.engine.guardrails import answer
from sync.engine.job import SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.observe import Observed, observe, remember_types
from sync.engine.pauses import refuse_paused
from sync.engine.planner import Difference, Planner, permitted
from sync.engine.proposal import judged_again, rest_of
from sync.engine.reconcile import Verified, compared
from sync.engine.report import SyncReport, joined, with_erased, with_rest, with_waiting
from sync.engine.revert import Reverting, find_run
from sync.engine.running import Means, RunIds, Running
from sync.engine.scratch import scratch
from sync.engine.trust import refuse_older_ledger
from sync.errors import DecisionError, HeadgateError
from sync.sdk.nouns import Op
from sync.sources.base import Reading
from sync.state.nouns import APPROVED_PLANS, Counts, Plan, PlanKind, PlanStatus, Run, RunStatus, VerdictAnswer

__all__ = ["Execution"]


class Execution:
    """Plans or runs one sync, once."""

    def __init__(
        self, means: Means, job: SyncJob, keeper: LeaseKeeper, *, first_run: bool, ids: RunIds | None = None
    ) -> None:
        self.job = job
        self.keeper = keeper
        self.first_run = first_run
        self.kept_back = False  # did this execution deliver a plan without its removals, as a person decided
        self.state, self.settings = means.state, means.settings
        self.cause = f"{means.trigger}: {means.actor}"
        self.cause_actor = means.actor
        self.running = Running(means, job, keeper, ids or RunIds())
        self.reading: Reading | None = None
        self._observations: set[str] = set()  # refreshes that are kept already

    # --- the two ways through -----------------------------------------------------------------------------

    def plan_only(self) -> SyncReport:
        """Make and keep a plan of everything there is to change."""
        refuse_older_ledger(self.state, self.settings, self.job.name)
        self._refuse_open_run()
        with self._observed() as seen:
            difference = self._difference(seen)
            if difference.nothing_to_do:
                return self._report("unchanged", difference)
            plan = self._made(difference, permitted(self.job))
        status = "ready" if plan.status in (PlanStatus.READY, *APPROVED_PLANS) else "held"
        return self._of_plan(status, plan)

    def verify(self, samples: int, *, repair: str = "") -> Verified:
        """Compare the destination's audience with the members; a reason to `repair` makes a plan that does."""
        refuse_older_ledger(self.state, self.settings, self.job.name)
        self._refuse_open_run()
        self.running.means.phase(self.job, "compare")
        means = self.running.means
        pacer = means.pacers.of(self.job.account, self.job.limits.rates, lifetime(self.settings.delivery))
        audience = Audience(self.job, self.keeper, pacer, self.settings.delivery, means.stop)
        with compared(self.state, self.settings, self.job, audience) as found:
            verified = Verified(found.result, Op.REMOVE in permitted(self.job), found.samples(samples))
            told = self.running.event("state.verified", self.job.name, **asdict(found.result), repair=repair)
            self.state.record(told)
            if repair and not verified.same:
                with found.saved(scratch(self.settings)) as (missing, extra):
                    return replace(verified, repair=self._repaired(missing, extra))
        return verified

    def _repaired(self, missing: Path, extra: Path) -> SyncReport:
        """The plan of a repair, which waits for a person; or nothing, where an ordinary run does all there is."""
        with self._observed(whole=True) as seen:
            plan = self._planner().repair(seen, missing, extra)
            if not plan.counts.add + plan.counts.remove:
                return SyncReport(self.job.name, "unchanged", counts=plan.counts)
            self.state.add_refresh(self.keeper.lease, seen.refresh)
            return self._of_plan("held", self._kept(plan))

    def _refuse_open_run(self) -> None:
        if self.state.open_run(self.job.name) is not None:
            raise HeadgateError(
                f"a run of '{self.job.name}' was interrupted and is not finished",
                code="HG524",
                fix=f"finish it first: headgate run {self.job.name}",
            )

    def run(self, only: Iterable[Op] | None, name: str | None) -> SyncReport:
        """Finish what was interrupted; then deliver a decided plan, or what a fresh one allows."""
        every = permitted(self.job)
        ops = every if only is None else every & frozenset(only)
        refuse_older_ledger(self.state, self.settings, self.job.name)
        named = self.state.plan(name) if name else None
        refuse_paused(self.state, self.job, only_destination=named is not None and named.kind is PlanKind.REVERT)
        resumed = self.running.resume()
        if resumed is not None and resumed.code:
            return resumed
        if name:
            report = self._named(name)
            self._complete_erasures()
        else:
            report = self._erased_and_fresh(ops, erase=only is None or Op.REMOVE in frozenset(only))
        return report if resumed is None else joined(resumed, report, complete=ops == every)

    def finish(self) -> SyncReport:
        """Finish what was interrupted, and nothing else."""
        refuse_older_ledger(self.state, self.settings, self.job.name)
        refuse_paused(self.state, self.job)
        resumed = self.running.resume()
        if resumed is None:
            return SyncReport(self.job.name, str(RunStatus.COMPLETED), notes=("no run of it is interrupted",))
        if not resumed.code:
            self._complete_erasures()
        return resumed

    def _erased_and_fresh(self, ops: frozenset[Op], *, erase: bool) -> SyncReport:
        """Whoever is forgotten is removed first, whatever the mode, the source and the plan of the rest."""
        plan = erasing.removals(self.state, self.settings, self.job) if erase else None
        erased = self.proposed(plan) if plan is not None else None
        if erased is not None and erased.code:
            return erased
        self._complete_erasures()
        report = self._fresh(ops)
        self._complete_erasures()
        waiting = erasing.waiting(self.state, self.job.name)
        report = report if erased is None else with_erased(erased, report)
        return with_waiting(report, len(waiting)) if waiting else report

    def _complete_erasures(self) -> None:
        erasing.complete(self.state, self.settings, self.job.name, self.keeper, self.cause_actor)

    def _named(self, name: str) -> SyncReport:
        """Deliver exactly this plan."""
        plan = find_plan(self.state, name)
        if plan.sync != self.job.name:
            raise DecisionError(f"plan {plan.id} is of sync '{plan.sync}', not '{self.job.name}'", code="HG501")
        refuse_unfit(plan, self.state.now())
        if plan.status is PlanStatus.HELD:
            return self._of_plan("held", plan)
        self._refuse_damaged(plan)
        what = self._unfit(plan)
        if what:
            self._void(plan, what)
            raise DecisionError(
                f"plan {plan.id} is void: {what}; nothing was sent",
                code="HG505",
                fix=f"make a new one: headgate plan {self.job.name}",
            )
        return self._carried_out(plan, self._ops_of(plan))

    def _unfit(self, plan: Plan) -> str:
        """Why the plan must not be delivered any more. The source is asked only where the plan is about it."""
        if plan.observed:
            with self._observed() as seen:
                what = moved(plan, self.job, seen.generation.number, seen.refresh.version)
                return what or self._planner().objections(seen, plan)
        what = moved(plan, self.job, self.state.generation(self.job.name).number)
        return what or judged_again(self.state, self.settings, self.job, plan)

    def _ops_of(self, plan: Plan) -> frozenset[Op]:
        """What a plan may do: the mode says what becomes of the cohort's changes, and of no others."""
        return permitted(self.job) if plan.kind is PlanKind.DIFF else self.job.spec.ops

    def revert(self, name: str, reason: str, *, deliver: bool) -> SyncReport:
        """Plan the inverse of a run, and pause the sync: else its next run would undo that again.

        An interrupted run that is to be reverted is ended where it is; any other is finished first.
        """
        refuse_older_ledger(self.state, self.settings, self.job.name)
        run = find_run(self.state, self.job, name)
        refuse_paused(self.state, self.job, only_destination=True)
        if not deliver:
            self._refuse_open_run()
        resumed = self._closed(run)
        again = resumed is not None and resumed.plan is not None and resumed.plan.origin == run.id
        if resumed is not None and (resumed.code or again):
            return resumed
        self.running.means.phase(self.job, "revert", run.id)
        plan = Reverting(self.state, self.settings, self.job, run).plan()
        if plan is None:
            note = f"everything that run {run.id} changed is as it was before"
            report = SyncReport(self.job.name, "unchanged", notes=(note,))
        else:
            report = self._reverted(plan, reason, deliver=deliver)
        return report if resumed is None else joined(resumed, report, complete=False)

    def _closed(self, run: Run) -> SyncReport | None:
        """Leave no run open before another begins."""
        left = self.state.open_run(self.job.name)
        if left is None or left.id != run.id:
            return self.running.resume()
        return self.running.end(left, "it is to be reverted")

    def _reverted(self, plan: Plan, reason: str, *, deliver: bool) -> SyncReport:
        event = self.running.event("run.revert", plan.origin, plan=plan.id, reason=reason)
        if self.job.name in self.state.paused():
            self.state.record(event)
        else:
            why = f"run {plan.origin} is reverted by {self.running.means.actor}: {reason}"
            paused = self.running.event("sync.paused", self.job.name, reason=why)
            self.state.pause(self.job.name, why, [event, paused])
        report = self.proposed(plan, deliver=deliver)
        note = (
            f"{self.job.name} is paused: its next run would send again what is undone here. When the source or "
            f"the mapping is mended: headgate resume {self.job.name}"
        )
        return replace(report, notes=(*report.notes, note))

    def proposed(self, plan: Plan, *, deliver: bool = True) -> SyncReport:
        """Keep a plan that is not about the source; deliver it, or hold it where a guardrail does."""
        kept = self.state.plan(plan.digest)
        waits = kept is not None and kept.status in (PlanStatus.HELD, *APPROVED_PLANS)
        plan = kept if kept is not None and waits and kept.expires_at > self.state.now() else self._kept(plan)
        self._refuse_damaged(plan)
        if plan.status is PlanStatus.HELD:
            return self._hold(plan) if deliver else self._of_plan("held", plan)
        return self._carried_out(plan, self._ops_of(plan)) if deliver else self._of_plan("ready", plan)

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
                ops &= {Op.REMOVE}  # what was rejected a moment ago is not tried again at once
            plan = self._made(difference, ops)
            if _only_removals_held(plan) and plan.counts.add + plan.counts.update > 0:
                self.kept_back |= any(v.guardrail == "kept_back" for v in plan.verdicts)
                additions = self._made(difference, ops - {Op.REMOVE}, kept_back=plan.counts.remove)
        if additions is not None:
            sent = self.running.carry_out(additions, ops - {Op.REMOVE})
            return self._then_rest(sent, ops)
        if plan.status is PlanStatus.HELD:
            return self._hold(plan)
        return self._carried_out(plan, ops)

    def _carried_out(self, plan: Plan, ops: frozenset[Op]) -> SyncReport:
        """A plan that no guardrail holds, or that a person decided on."""
        if plan.status is not PlanStatus.APPROVED_WITHOUT_REMOVALS or not plan.counts.remove:
            return self.running.carry_out(plan, ops)
        self.kept_back = True
        sent = self.running.carry_out(plan, ops - {Op.REMOVE})
        if plan.kind is PlanKind.DIFF or sent.code:
            return self._then_rest(sent, ops)
        return with_rest(sent, self._hold(self._kept(rest_of(self.state, self.settings, self.job, plan))))

    def _then_rest(self, sent: SyncReport, ops: frozenset[Op]) -> SyncReport:
        """After additions and updates went out: freeze the removals as a plan of their own, which is held."""
        return sent if sent.code else with_rest(sent, self._fresh(ops, rest=True))

    # --- planning -----------------------------------------------------------------------------------------

    @contextmanager
    def _observed(self, *, whole: bool = False) -> Iterator[Observed]:
        self.running.means.phase(self.job, "refresh")
        stop = self.running.means.stop
        with observe(self.state, self.settings, self.job, self.cause, stop, whole=whole) as seen:
            self.reading = seen.reading
            yield seen

    def _planner(self) -> Planner:
        return Planner(self.state, self.settings, self.job, first_run=self.first_run, kept_back=self.kept_back)

    def _difference(self, seen: Observed) -> Difference:
        self.running.means.phase(self.job, "diff", f"{seen.refresh.rows:,} rows", rows=seen.refresh.rows)
        remember_types(self.state, self.keeper.lease, self.job, seen)
        difference = self._planner().difference(seen)
        self._void_overtaken(difference)
        return difference

    def _void_overtaken(self, difference: Difference) -> None:
        """Approvals bind what was judged: where that moved they are void, and say why."""
        for plan in self.state.plans(self.job.name, *APPROVED_PLANS):
            seen = difference.seen
            source = seen.refresh.version if plan.observed else None
            what = moved(plan, self.job, seen.generation.number, source)
            if what:
                self._void(plan, what)

    def _made(self, difference: Difference, ops: frozenset[Op], *, kept_back: int = 0) -> Plan:
        """The plan of a difference: the one that waits already, where nothing moved since it was made."""
        planner = self._planner()
        waiting = held_again(self.state, planner.inputs(difference.seen, ops), self.job.name, planner.now)
        if waiting is not None:
            self._refuse_damaged(waiting)
            return waiting
        self.running.means.phase(self.job, "guard", f"{difference.diff.changes:,} changes")
        plan = planner.plan(difference, ops, kept_back=kept_back)
        self._note(difference)
        return self._kept(plan)

    def _note(self, difference: Difference) -> None:
        """Keep the observation that plans are made from, once."""
        refresh = difference.seen.refresh
        if refresh.id not in self._observations:
            self._observations.add(refresh.id)
            self.state.add_refresh(self.keeper.lease, refresh)
            self._settle_rejected(difference)

    def _kept(self, plan: Plan) -> Plan:
        """The plan as the ledger has it then: made again, it may be decided already."""
        c = plan.counts
        event = self.running.event(
            f"plan.{plan.status}",
            plan.id,
            **({} if plan.kind is PlanKind.DIFF else {"kind": str(plan.kind), "origin": plan.origin}),
            digest=plan.digest,
            add=c.add,
            update=c.update,
            remove=c.remove,
            guardrails=[v.guardrail for v in plan.verdicts],
        )
        self.state.add_plan(self.keeper.lease, plan, [event])
        return self.state.plan(plan.digest) or plan

    def _void(self, plan: Plan, why: str) -> None:
        self.state.set_plan(plan.id, PlanStatus.VOID, why, [self.running.event("plan.void", plan.id, why=why)])

    def _refuse_damaged(self, plan: Plan) -> None:
        refuse_damaged(self.state, self.settings, plan, self.running.means.actor)

    def _settle_rejected(self, difference: Difference) -> None:
        if difference.settled:
            self.state.drop_rejected(self.keeper.lease, difference.settled)

    # --- runs that send nothing ---------------------------------------------------------------------------

    def _unchanged(self, difference: Difference) -> SyncReport:
        """Nothing to send. Green, unless records that were rejected before still wait.

        The run is kept as any other; the audit log, which grows for ever, is for what somebody did.
        """
        self.state.add_refresh(self.keeper.lease, replace(difference.seen.refresh, accepted=True))
        self._settle_rejected(difference)
        waiting = difference.diff.backed_off
        status = RunStatus.COMPLETED_WITH_ERRORS if waiting else RunStatus.COMPLETED
        run = self.running.new_run(None, status, finished=self.state.now())
        self.state.add_run(run)
        return self._report(str(status), difference, run=run.id)

    def _hold(self, plan: Plan) -> SyncReport:
        run = self.running.new_run(plan.id, RunStatus.HELD, finished=self.state.now())
        self.state.add_run(run)
        return replace(self._of_plan("held", plan), run=run.id)

    # --- reports ------------------------------------------------------------------------------------------

    def _report(self, status: str, difference: Difference, *, run: str | None = None) -> SyncReport:
        diff = difference.diff
        counts = Counts(
            unchanged=diff.unchanged,
            members=difference.seen.generation.members,
            backed_off=diff.backed_off,
            given_up=diff.given_up,
            forgotten=difference.seen.forgotten,
        )
        return SyncReport(self.job.name, status, run=run, counts=counts)

    def _of_plan(self, status: str, plan: Plan) -> SyncReport:
        return SyncReport(self.job.name, status, plan=plan, counts=plan.counts, verdicts=plan.verdicts)


def _only_removals_held(plan: Plan) -> bool:
    return plan.status is PlanStatus.HELD and answer(plan.verdicts) is VerdictAnswer.HOLD_REMOVALS
