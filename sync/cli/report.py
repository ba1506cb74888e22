"""A plan or a run of one sync, as JSON and as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sync.cli import output, words
from sync.documents import next_commands
from sync.durations import format_duration
from sync.engine.report import SyncReport
from sync.state.nouns import PlanKind, Verdict, VerdictAnswer

if TYPE_CHECKING:
    from sync.cli.context import Session

__all__ = ["next_commands", "show_plan", "show_run"]

_OUTCOMES = ("applied", "accepted", "rejected", "deferred", "unknown", "requests", "retries")
_HOLDS = (VerdictAnswer.HOLD, VerdictAnswer.HOLD_REMOVALS)


def show_plan(session: Session, report: SyncReport, samples: Sequence[dict[str, Any]] = ()) -> None:
    """The plan of one sync: counts, verdicts, samples, and what to type next."""
    _head(report)
    _counts(report)
    _problems(session, report)
    _verdicts(report.verdicts)
    for line in sample_lines(samples):
        output.say(line)
    _notes(report)
    if report.status not in ("failed", "unchanged"):
        _next(session, report)


def show_run(session: Session, report: SyncReport, samples: Sequence[dict[str, Any]] = ()) -> None:
    """The outcome of one sync's run."""
    _head(report)
    _counts(report)
    delivered = report.applied + report.accepted
    if report.requests or delivered or report.undelivered:
        output.say(f"  {_outcomes(report)}")
        output.say(f"  run {report.run}")
    _problems(session, report)
    _verdicts(report.verdicts)
    for line in sample_lines(samples):
        output.say(line)
    _notes(report)
    _next(session, report)


def _head(report: SyncReport) -> None:
    target = ""
    if report.plan is not None:
        where = " / ".join(
            part for part in (report.plan.destination, report.plan.object, report.plan.audience) if part
        )
        target = f" -> {where}"
    kind = {
        "failed": "error",
        "stopped": "error",
        "cancelled": "error",
        "held": "warning",
        "paused": "warning",
    }.get(report.status, "ok")
    kind = "warning" if kind == "ok" and (report.held or report.undelivered or report.status in _OPEN) else kind
    if report.plan is not None and report.plan.kind is PlanKind.REVERT:
        target += f", reverting run {report.plan.origin}"
    output.say(f"{report.sync}{target}: {_STATUS.get(report.status, report.status)}", kind=kind)


_OPEN = ("sending", "waiting")
_STATUS = {
    "ready": "ready to run",
    "unchanged": "nothing to do",
    "paused": "paused, left out",
    "held": "held, waits for a decision",
    "completed": "done",
    "completed_with_errors": "done, but not every record was delivered",
    "sending": "interrupted; what is left is kept for the next run",
    "waiting": "the destination is still at work; the next run asks again",
    "stopped": "stopped, too many records were not taken",
}


def _counts(report: SyncReport) -> None:
    c = report.counts
    if report.status in ("failed", "paused") and not report.plan:
        return
    output.say(f"  +{c.add:,} add  ~{c.update:,} update  -{c.remove:,} remove  ={c.unchanged:,} unchanged")
    extra = {
        "members before": c.members,
        "invalid": c.invalid,
        "waiting after a rejection": c.backed_off,
        "given up": c.given_up,
        "removals kept back for a decision": c.removals_kept_back,
        "forgotten people left out": c.forgotten,
    }
    said = [f"{count:,} {what}" for what, count in extra.items() if count]
    if said:
        output.say("  " + ", ".join(said))
    if report.reading is not None and report.reading.bytes_scanned is not None:
        output.say(f"  the warehouse scanned {words.size(report.reading.bytes_scanned)}")
    if c.left_out:
        output.say(f"  {c.not_undone:,} cannot be undone:")
    for op, why, records in c.left_out:
        output.say(f"    {records:,} {op}: {why}")


def _outcomes(report: SyncReport) -> str:
    parts = [f"{getattr(report, name):,} {name}" for name in _OUTCOMES[:5] if getattr(report, name)]
    sent = words.several(report.requests, "request")
    sent += f", {words.several(report.retries, 'retry')}" if report.retries else ""
    return f"{', '.join(parts) or 'nothing delivered'}  ({sent}, {format_duration_fine(report.wall_s)})"


def format_duration_fine(seconds: float) -> str:
    """`0.4 s` below a minute and a half, then as everywhere."""
    return f"{seconds:.1f} s" if seconds < 90 else format_duration(seconds)


def _problems(session: Session, report: SyncReport) -> None:
    if report.code:
        output.say(f"  {report.error}  [{report.code}]")
        if report.fix:
            output.say(f"  fix: {report.fix}")
        output.say(f"  more: {session.command('explain ' + report.code)}")


def _verdicts(verdicts: Iterable[Verdict]) -> None:
    for verdict in verdicts:
        if verdict.answer is VerdictAnswer.ALLOW:
            continue
        what = {VerdictAnswer.HOLD: "held", VerdictAnswer.HOLD_REMOVALS: "removals held"}.get(
            verdict.answer, "warning"
        )
        output.say(f"  {what} by {verdict.guardrail}:")
        output.say(f"    {verdict.message}")


def sample_lines(samples: Iterable[dict[str, Any]]) -> list[str]:
    """One line a sample, masked already or on purpose not."""
    signs = {"add": "+", "update": "~", "remove": "-", "left_out": "!"}
    lines = []
    for sample in samples:
        op = str(sample.get("op", ""))
        who = ", ".join(f"{k}={_text(v)}" for k, v in (sample.get("identifiers") or {}).items())
        what = "" if op == "remove" else _change(sample)
        what = str(sample.get("why")) if op == "left_out" else what
        lines.append(f"  {signs.get(op, ' ')} {words.cut(f'{who}  {what}', 74)}".rstrip())
    return lines


def _change(sample: dict[str, Any]) -> str:
    fields, before = sample.get("fields") or {}, sample.get("before")
    if sample.get("op") != "update" or not isinstance(before, dict):
        return ", ".join(f"{k}={_text(v)}" for k, v in fields.items())
    moved = [k for k in fields if fields[k] != before.get(k)]
    return ", ".join(f"{k}: {_text(before.get(k))} -> {_text(fields[k])}" for k in moved)


def _text(value: Any) -> str:
    return "null" if value is None else str(value)


def _notes(report: SyncReport) -> None:
    for note in report.notes:
        output.say(f"  note: {note}")


def _next(session: Session, report: SyncReport) -> None:
    plan, commands = report.plan, next_commands(report)
    if plan is not None and commands and (report.held or report.status == "ready"):
        left = format_duration(plan.expires_at - session.ledger.now())
        persons = f", needs {plan.needs} persons" if plan.needs > 1 else ""
        waits = " waits for a decision" if report.held else ""
        output.say(f"  plan {plan.id}{waits}, good for {left}{persons}")
    for prefix, words_ in zip(["next:", *["  or:"] * len(commands)], commands, strict=False):
        output.say(f"  {prefix} {session.command(words_)}")
