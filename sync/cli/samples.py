"""Sample records of a plan, masked unless somebody gave a reason to see them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sync.cli import words
from sync.state.nouns import Event, Plan

if TYPE_CHECKING:
    from sync.cli.context import Session

__all__ = ["samples"]


def samples(session: Session, plan: Plan | None, per_op: int, *, reveal_reason: str = "") -> list[dict[str, Any]]:
    """Some changes of a plan; with a reason they are unmasked and the audit log says so."""
    if plan is None or not plan.file or per_op < 1:
        return []
    from sync.engine.plan import samples as read

    found = read(session.engine, plan, per_op=per_op)
    if not reveal_reason:
        # A revert may have fields of an earlier mapping: what is not known to be harmless is masked.
        harmless = {field.to for field in session.job(plan.sync).sync.fields if not field.pii}
        pii = frozenset(name for sample in found for name in sample["fields"]) - harmless
        return [words.masked_sample(sample, pii) for sample in found]
    session.ledger.record(
        Event(session.actor, "plan.revealed", plan.id, {"reason": reveal_reason, "records": len(found)})
    )
    return found
