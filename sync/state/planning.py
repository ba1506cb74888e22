"""Refreshes, plans and what people decided on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, func, insert, select, update

from sync.errors import DecisionError, StateError
from sync.faultpoints import durable
from sync.state import rows, tables
from sync.state.leases import LeaseLedger
from sync.state.nouns import (
    APPROVED_PLANS,
    DECIDABLE_PLANS,
    LIVE_PLANS,
    Approval,
    Decision,
    Event,
    Lease,
    Plan,
    PlanStatus,
    Refresh,
    RunRequest,
)
from sync.state.reads import CLOCK, find_plan

__all__ = ["PlanLedger"]

_plan = tables.plan.c

_UNDECIDED = (PlanStatus.READY.value, PlanStatus.HELD.value)
_LIVE = tuple(status.value for status in LIVE_PLANS)

_REPLACE = (
    update(tables.plan)
    .where(
        _plan.sync == bindparam("of"),
        _plan.kind == bindparam("like"),
        _plan.id != bindparam("by"),
        _plan.status.in_(_UNDECIDED),
    )
    .values(status=PlanStatus.VOID.value, reason=bindparam("why"))
)
_NEXT_SEQ = select(func.coalesce(func.max(_plan.seq), 0) + 1).scalar_subquery()


class PlanLedger(LeaseLedger):
    """Keeps what is observed, proposed and decided before anything is sent."""

    @durable
    def add_refresh(self, lease: Lease, refresh: Refresh) -> None:
        """Keep an observation."""
        with self._fenced(lease) as connection:
            connection.execute(insert(tables.refresh).values(rows.values(refresh)))

    @durable
    def add_plan(self, lease: Lease, plan: Plan, events: Sequence[Event] = ()) -> None:
        """Keep a plan; undecided plans of the same sync and kind become void.

        The same plan, made again while it waits for a decision or has one, stays as it is with its decisions;
        made again after it was rejected, void, expired or executed, it starts anew without them.
        """
        with self._fenced(lease) as connection:
            connection.execute(
                _REPLACE,
                {
                    "of": lease.sync,
                    "like": plan.kind.value,
                    "by": plan.id,
                    "why": f"plan {plan.id}, made later, replaced it",
                },
            )
            query = select(_plan.status, _plan.expires_at, _plan.round).where(_plan.id == plan.id)
            old = connection.execute(query).first()
            if old is None:
                connection.execute(insert(tables.plan).values({**rows.values(plan), "round": 1}))
            elif not _still_waits(connection, old, plan):
                again = update(tables.plan).where(_plan.id == plan.id)
                connection.execute(again.values({**rows.values(plan), "round": old.round + 1, "seq": _NEXT_SEQ}))
            self._record(connection, events)

    @durable
    def set_plan(self, plan: str, status: PlanStatus, reason: str = "", events: Sequence[Event] = ()) -> None:
        """Move a plan to `void` or `expired`; a plan that is over already stays as it is, without the events."""
        if status not in (PlanStatus.VOID, PlanStatus.EXPIRED):
            raise StateError(f"a plan becomes {status.value} by a decision or a run only", code="HG318")
        with self._db.write() as connection:
            move = update(tables.plan).where(_plan.id == plan, _plan.status.in_(_LIVE))
            if connection.execute(move.values(status=status.value, reason=reason)).rowcount:
                self._record(connection, events)

    @durable
    def decide(self, approval: Approval, events: Sequence[Event] = (), request: RunRequest | None = None) -> Plan:
        """Keep a decision on a held plan and return the plan as it stands then; see `State.decide`.

        Where some approve all and others approve without removals, the removals stay back.
        """
        with self._db.write() as connection:
            row = find_plan(connection, approval.plan)
            plan = _decidable(connection, row, approval)
            round_ = row.round if row is not None else 1
            said = _decisions(connection, plan.id, round_)
            if approval.actor in said:
                raise DecisionError(
                    f"{approval.actor} decided on plan {plan.id} already ({said[approval.actor].value})",
                    fix=f"it needs {plan.needs} different persons; ask somebody else",
                )
            kept = {**rows.values(approval), "plan": plan.id, "round": round_}
            connection.execute(insert(tables.approval).values(kept))
            status = _standing(plan.needs, [*said.values(), approval.decision])
            connection.execute(update(tables.plan).where(_plan.id == plan.id).values(status=status.value))
            if request is not None and status in APPROVED_PLANS:
                connection.execute(insert(tables.run_request).values(rows.values(request)))
            self._record(connection, events)
            return rows.plan(connection.execute(select(tables.plan).where(_plan.id == plan.id)).one())


def _still_waits(connection: sa.Connection, old: Any, plan: Plan) -> bool:
    now = connection.execute(CLOCK).scalar_one()
    return plan.status is PlanStatus.HELD and PlanStatus(old.status) in DECIDABLE_PLANS and old.expires_at > now


def _decidable(connection: sa.Connection, row: sa.Row[Any] | None, approval: Approval) -> Plan:
    if row is None:
        raise DecisionError(
            f"there is no plan {approval.plan}, or more than one begins like that",
            fix="`headgate status` lists the plans that wait for a decision",
        )
    plan = rows.plan(row)
    if plan.digest != approval.digest:
        raise DecisionError(
            f"the decision is about another content of plan {plan.id} than the one kept",
            fix=f"look at the plan again: `headgate plan {plan.sync}`",
        )
    if plan.status is not PlanStatus.HELD:
        reason = f": {plan.reason}" if plan.reason else ""
        raise DecisionError(
            f"plan {plan.id} of {plan.sync} does not wait for a decision, it is {plan.status.value}{reason}",
            fix=f"make a new one: `headgate plan {plan.sync}`",
        )
    if plan.expires_at <= connection.execute(CLOCK).scalar_one():
        raise DecisionError(
            f"plan {plan.id} of {plan.sync} has expired", fix=f"make a new one: `headgate plan {plan.sync}`"
        )
    return plan


def _decisions(connection: sa.Connection, plan: str, round_: int) -> dict[str, Decision]:
    said = tables.approval.c
    query = select(said.actor, said.decision).where(said.plan == plan, said.round == round_)
    return {row.actor: Decision(row.decision) for row in connection.execute(query)}


def _standing(needs: int, decisions: Sequence[Decision]) -> PlanStatus:
    if Decision.REJECT in decisions:
        return PlanStatus.REJECTED
    if len(decisions) < needs:
        return PlanStatus.HELD
    if Decision.APPROVE_WITHOUT_REMOVALS in decisions:
        return PlanStatus.APPROVED_WITHOUT_REMOVALS
    return PlanStatus.APPROVED
