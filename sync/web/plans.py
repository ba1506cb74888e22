"""`/plans`: what waits for a decision, and deciding on it. Records of a plan need a scope of their own."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from sync.engine.approvals import decide, refuse_damaged, refuse_unfit
from sync.engine.plan import samples
from sync.state.base import StateReader
from sync.state.holder import alive
from sync.state.nouns import APPROVED_PLANS, Decision, Event, Plan, PlanStatus, RequestKind
from sync.web.asking import new_request
from sync.web.callers import Approves, Authenticated, Caller, Reads, SeesSamples
from sync.web.pages import page
from sync.web.problems import Refused
from sync.web.shapes import (
    ApprovalAsked,
    Cursor,
    DecisionAsked,
    Id,
    Limit,
    PlanPage,
    PlanView,
    SamplesAsked,
    SamplesView,
    SyncFilter,
)

__all__ = ["router"]

router = APIRouter(prefix="/plans", tags=["plans"], route_class=Authenticated)

_Status = Annotated[PlanStatus | None, Query(description="Only plans that stand there: `held` say.")]


@router.get("", summary="List plans")
def list_plans(
    caller: Reads, sync: SyncFilter = None, status: _Status = None, limit: Limit = 50, before: Cursor = None
) -> PlanPage:
    """Newest first, with what the guardrails say of each."""
    statuses = [] if status is None else [status]

    def some(count: int) -> list[Plan]:
        return caller.site.state.plans(sync, *statuses, among=caller.syncs, limit=count, before=before)

    found, following = page(some, limit)
    return PlanPage(items=[_view(caller, plan) for plan in found], next=following)


@router.get("/{id}", summary="One plan")
def get_plan(caller: Reads, id: Id) -> PlanView:
    """Its counts, the guardrails' verdicts and the decisions so far."""
    return _view(caller, _plan(caller, id))


@router.post("/{id}/samples", summary="See some records of a plan")
def see_samples(caller: SeesSamples, id: Id, asked: SamplesAsked) -> SamplesView:
    """Unmasked, and therefore with a reason: the audit log keeps who saw how many, and why."""
    plan = _plan(caller, id)
    if not plan.file:
        return SamplesView(plan=plan.id, samples=[])
    found = samples(caller.site.engine, plan, per_op=asked.per_op)
    data = {"reason": asked.reason, "records": len(found)}
    caller.site.state.record(Event(caller.actor, "plan.revealed", plan.id, data))
    return SamplesView(plan=plan.id, samples=found)


@router.post("/{id}/approve", summary="Approve a held plan")
def approve_plan(caller: Approves, id: Id, asked: ApprovalAsked) -> PlanView:
    """The daemon then delivers exactly it, once it has all the approvals it needs."""
    decision = Decision.APPROVE if asked.removals else Decision.APPROVE_WITHOUT_REMOVALS
    return _decided(caller, id, decision, asked)


@router.post("/{id}/reject", summary="Turn a held plan down")
def reject_plan(caller: Approves, id: Id, asked: DecisionAsked) -> PlanView:
    """Nothing of it is sent, and the next run plans anew."""
    return _decided(caller, id, Decision.REJECT, asked)


def _decided(caller: Caller, id: str, decision: Decision, asked: DecisionAsked) -> PlanView:
    """Keep a decision, as `headgate approve` and `reject` do; the same one again only asks for its run anew."""
    plan, state = _plan(caller, id), caller.site.state
    request = new_request(caller, plan.sync, RequestKind.RUN, "approval")
    if plan.digest != asked.digest:
        raise Refused(409, "HG811", "the digest is not this plan's", fix="look at the plan again")
    if any(a.actor == caller.actor and a.decision is decision for a in state.approvals(plan.id)):
        if plan.status in APPROVED_PLANS and not _will_run(state, plan.sync):
            state.request_run(request)
        return _view(caller, plan)
    job = caller.job(plan.sync)
    if decision is not Decision.REJECT:
        refuse_unfit(plan, state.now())
        refuse_damaged(state, caller.site.engine, plan, caller.actor)
    return _view(caller, decide(state, job, plan, decision, caller.actor, asked.reason, request))


def _will_run(state: StateReader, sync: str) -> bool:
    """Is a run of the sync asked for, or under way."""
    return alive(state.lease(sync)) or any(r.kind is RequestKind.RUN for r in state.requests(sync))


def _plan(caller: Caller, id: str) -> Plan:
    plan = caller.site.state.plan(id)
    if plan is None or not caller.sees(plan.sync):
        raise Refused(404, "HG501", "there is no such plan", fix="/api/v1/plans has their ids")
    return plan


def _view(caller: Caller, plan: Plan) -> PlanView:
    return PlanView.of(plan, caller.site.state.approvals(plan.id))
