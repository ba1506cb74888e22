"""Decisions on held plans: who may decide, what a decision binds, and when it is void."""

from __future__ import annotations

from pathlib import Path

from sync.durations import format_duration
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.plan import verify_file
from sync.errors import Corrupt, DecisionError
from sync.sdk.nouns import Delivery
from sync.state.base import State, StateReader
from sync.state.nouns import DECIDABLE_PLANS, Approval, Decision, Event, Plan, PlanStatus, RunRequest

__all__ = ["decide", "find_plan", "held_again", "moved", "refuse_damaged", "refuse_unfit"]

_DECIDED = {
    PlanStatus.REJECTED: "was rejected",
    PlanStatus.EXECUTED: "was delivered already",
    PlanStatus.EXPIRED: "has expired",
    PlanStatus.VOID: "is void",
}


def find_plan(state: StateReader, name: str) -> Plan:
    """A plan by id, by digest, or by the name of a sync with exactly one held plan. Raises `DecisionError`."""
    plan = state.plan(name)
    if plan is not None:
        return plan
    held = state.plans(name, PlanStatus.HELD)
    if len(held) == 1:
        return held[0]
    waiting = [p.id for p in state.plans(None, PlanStatus.HELD)]
    raise DecisionError(
        f"there is no plan '{name}'",
        code="HG501",
        fix=f"held plans: {', '.join(waiting)}"
        if waiting
        else "no plan is held; `headgate status` shows the syncs",
    )


def held_again(state: StateReader, inputs: str, sync: str, now: float) -> Plan | None:
    """A held or approved plan made from the same inputs, which need not be made again."""
    plans = state.plans(sync, *DECIDABLE_PLANS)
    return next((p for p in plans if p.inputs == inputs and p.expires_at > now), None)


def moved(plan: Plan, job: SyncJob, generation: int, source_version: str | None = None) -> str:
    """Which of the plan's inputs moved since it was frozen, in words; empty where none did."""
    if plan.mapping_digest != job.mapping_digest:
        return "the mapping, or where its destination is, was changed"
    if plan.generation != generation:
        return "another run changed the members"
    if source_version is not None and plan.source_version != source_version:
        return "the cohort was refreshed with other rows"
    return ""


def refuse_unfit(plan: Plan, now: float) -> None:
    """Raise `DecisionError` for a plan that is decided, void or expired."""
    if plan.status in _DECIDED:
        why = f": {plan.reason}" if plan.reason else ""
        raise DecisionError(
            f"plan {plan.id} {_DECIDED[plan.status]}{why}",
            code="HG502",
            fix=f"make a new one: headgate plan {plan.sync}",
        )
    if now > plan.expires_at:
        raise DecisionError(
            f"plan {plan.id} expired {format_duration(now - plan.expires_at)} ago",
            code="HG503",
            fix=f"make a new one: headgate plan {plan.sync}",
        )


def refuse_damaged(state: State, settings: EngineSettings, plan: Plan, actor: str) -> Path:
    """The file of a plan that nothing was sent of yet; where it is not what was judged, the plan is void.

    Raises `Corrupt`. The next plan of the sync is made anew, and asks for a decision anew.
    """
    try:
        return verify_file(settings, plan)
    except Corrupt:
        why = "its file is missing or was altered"
        state.set_plan(plan.id, PlanStatus.VOID, why, [Event(actor, "plan.void", plan.id, {"why": why})])
        raise


def decide(
    state: State,
    job: SyncJob,
    plan: Plan,
    decision: Decision,
    actor: str,
    reason: str,
    request: RunRequest | None = None,
) -> Plan:
    """Keep a person's decision on a held plan, and return the plan as it stands then.

    `request` is of the run that delivers it, and is kept with the decision that approves the plan.

    Raises `DecisionError` where there is no reason, the plan is not held, its inputs moved, or this person may
    not decide on it.
    """
    now = state.now()
    if not reason.strip():
        raise DecisionError("a decision needs a reason", code="HG504", fix="add --reason '...'")
    refuse_unfit(plan, now)
    if plan.status is not PlanStatus.HELD:
        raise DecisionError(
            f"plan {plan.id} is not held", code="HG502", fix=f"deliver it: headgate run {plan.sync}"
        )
    what = moved(plan, job, state.generation(job.name).number)
    if what and decision is not Decision.REJECT:
        state.set_plan(plan.id, PlanStatus.VOID, what, [Event(actor, "plan.void", plan.id, {"why": what})])
        raise DecisionError(
            f"plan {plan.id} is void: {what}", code="HG505", fix=f"make a new one: headgate plan {plan.sync}"
        )
    if decision is not Decision.REJECT:
        _refuse_person(state, plan, job, actor)
    if decision is Decision.APPROVE_WITHOUT_REMOVALS and job.spec.delivery is Delivery.SNAPSHOT:
        raise DecisionError(
            f"plan {plan.id} cannot keep its removals: {plan.destination} takes whole audiences, "
            "and whoever is not in what it is sent is gone",
            code="HG508",
            fix="approve all of it, or reject it",
        )
    approval = Approval(plan.id, plan.digest, decision, actor, reason.strip(), now)
    data = {"sync": plan.sync, "digest": plan.digest, "reason": approval.reason, "remove": plan.counts.remove}
    return state.decide(approval, [Event(actor, f"plan.{decision}", plan.id, data)], request)


def _refuse_person(state: StateReader, plan: Plan, job: SyncJob, actor: str) -> None:
    """Raise `DecisionError` where this person may not approve. A token is one more hand of whoever made it."""
    allowed = job.guardrails.approvers
    person = state.person(actor).casefold()
    if allowed and actor.casefold() not in {name.casefold() for name in allowed}:
        raise DecisionError(
            f"{actor} may not approve plans of '{plan.sync}'",
            code="HG506",
            fix=f"ask one of {', '.join(sorted(allowed))}",
        )
    if job.guardrails.four_eyes and plan.author and plan.author.casefold() in (actor.casefold(), person):
        raise DecisionError(
            f"{actor} last changed the mapping of '{plan.sync}', and four eyes are asked for",
            code="HG507",
            fix="ask somebody else to approve",
        )
    others = [a.actor for a in state.approvals(plan.id) if a.actor != actor]
    same = next((other for other in others if state.person(other).casefold() == person), None)
    if same is not None:
        raise DecisionError(
            f"{actor} and {same}, who decided on plan {plan.id} already, are one person",
            code="HG507",
            fix=f"it needs {plan.needs} different persons; ask somebody else",
        )
