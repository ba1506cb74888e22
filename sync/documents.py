"""What is told of syncs, plans and runs as JSON: the same by the command line, the ledger and the API."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sync.durations import iso
from sync.engine.report import SyncReport
from sync.health import Standing
from sync.state.nouns import PlanKind, PlanStatus, Verdict, VerdictAnswer

if TYPE_CHECKING:
    from sync.sources.base import Reading

__all__ = ["next_commands", "plan_data", "report_data", "standing_data", "verdict_data"]

_OUTCOMES = ("applied", "accepted", "rejected", "deferred", "unknown", "requests", "retries")
_OPEN = ("sending", "waiting")


def plan_data(report: SyncReport) -> dict[str, Any]:
    """What `plan --json` gives of a sync."""
    counts, plan = report.counts, report.plan
    data: dict[str, Any] = {
        "sync": report.sync,
        "status": report.status,
        "plan": plan.id if plan else None,
        "kind": str(plan.kind) if plan else None,
        "reverts": plan.origin if plan and plan.kind is PlanKind.REVERT else None,
        "digest": plan.digest if plan else None,
        "add": counts.add,
        "update": counts.update,
        "remove": counts.remove,
        "unchanged": counts.unchanged,
        "members": counts.members,
        "invalid": counts.invalid,
        "backed_off": counts.backed_off,
        "given_up": counts.given_up,
        "removals_kept_back": counts.removals_kept_back,
        "forgotten": counts.forgotten,
        "not_undone": [{"op": op, "why": why, "records": records} for op, why, records in counts.left_out],
        "held": [verdict_data(v) for v in report.held],
        "warnings": [verdict_data(v) for v in report.verdicts if v.answer is VerdictAnswer.WARN],
        "expires_at": iso(plan.expires_at) if plan else None,
        "source": _reading(report.reading) if report.reading else None,
        "notes": list(report.notes),
        "next": [f"headgate {command}" for command in next_commands(report)],
    }
    if report.code:
        data["error"] = {"code": report.code, "message": report.error, "fix": report.fix}
    return data


def report_data(report: SyncReport) -> dict[str, Any]:
    """What `run --json` gives of a sync."""
    outcomes = {name: getattr(report, name) for name in _OUTCOMES}
    wall = round(report.wall_s, 3)
    return {**plan_data(report), "run": report.run, "resumed": report.resumed, **outcomes, "wall_s": wall}


def _reading(reading: Reading) -> dict[str, Any]:
    changed = reading.changed_at
    return asdict(reading) | {"changed_at": iso(changed) if changed is not None else None}


def verdict_data(verdict: Verdict) -> dict[str, Any]:
    """A guardrail's judgement."""
    return {
        "guardrail": verdict.guardrail,
        "limit": verdict.limit,
        "value": verdict.value,
        "answer": verdict.answer.value,
        "message": verdict.message,
    }


def next_commands(report: SyncReport) -> list[str]:
    """What a person types next, the likeliest first, as words after `headgate`."""
    plan = report.plan
    if report.held and plan is not None and plan.status is PlanStatus.HELD:
        why = '--reason "..."'
        partly = plan.counts.remove and (plan.counts.add or plan.counts.update)
        without = [f"approve {plan.id} --no-removals {why}"] if partly else []
        return [f"approve {plan.id} {why}", *without, f"reject {plan.id} {why}"]
    if plan is not None and report.status == "ready":
        return [f"run {report.sync} --plan {plan.id}"]
    if report.rejected or report.unknown:
        return [f"rejected list {report.sync}"]
    return [f"run {report.sync}"] if report.status in _OPEN else []


def standing_data(one: Standing) -> dict[str, Any]:
    """What `status --json` gives of a sync."""
    last = one.last_run
    return {
        "sync": one.sync,
        "health": one.health.value,
        "reasons": list(one.reasons),
        "activity": one.activity.value,
        "last_run": None
        if last is None
        else {
            "run": last.id,
            "status": last.status.value,
            "trigger": last.trigger,
            "started_at": iso(last.started_at),
            "finished_at": iso(last.finished_at),
            **last.counts,
        },
        "schedule": one.schedule,
        "next_run": iso(one.next_runs[0]) if one.next_runs else None,
        "next_runs": [iso(at) for at in one.next_runs],
        "freshness": None if one.freshness is None else round(one.freshness, 3),
        "stale_after": one.stale_after,
        "members": one.members,
        "rejected": one.rejected,
        "held_plan": one.held_plan,
        "paused": one.paused,
    }
