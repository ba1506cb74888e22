"""`headgate state verify`: is the audience at the destination what the members say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sync.cli import output, report, words
from sync.cli.context import Session
from sync.cli.observer import observing
from sync.cli.signals import draining
from sync.documents import plan_data

if TYPE_CHECKING:
    from sync.engine.job import SyncJob
    from sync.engine.reconcile import Verified
    from sync.engine.report import SyncReport

__all__ = ["verify"]

_FINDINGS = {
    "missing": "members that the destination does not have any more",
    "extra": "at the destination and no member: somebody else put them there",
    "unknown": "at the destination without an identifier to know them by",
}


def verify(session: Session, job: SyncJob, samples: int, repair: str) -> int:
    """Compare, tell, and return the exit code: 4 where they differ, 3 where a repair waits for a decision."""
    with observing(verbose=session.options.verbose > 0) as observer, draining(_tell) as stop:
        found = session.runner(observer=observer, stop=stop).verify(job, samples=samples, repair=repair)
    code = 0 if found.same else 3 if found.repair and found.repair.plan else 4
    shown = [_masked(sample) for sample in found.samples]
    if session.options.json:
        output.document("state verify", **_data(job, found), samples=shown, exit_code=code)
    else:
        _show(session, job, found, shown)
    return code


def _masked(sample: dict[str, Any]) -> dict[str, Any]:
    return words.masked_sample(sample, frozenset())


def _data(job: SyncJob, found: Verified) -> dict[str, Any]:
    counts = {**asdict(found.result), "in_step": found.result.in_step}
    repair = plan_data(found.repair) if found.repair else None
    status = "same" if found.same else "differs"
    return {"sync": job.name, "status": status, **counts, "removes": found.removes, "repair": repair}


def _show(session: Session, job: SyncJob, found: Verified, samples: Sequence[dict[str, Any]]) -> None:
    result = found.result
    target = " / ".join(part for part in (job.destination, job.spec.name, job.sync.audience) if part)
    says = "the destination has what it acknowledged" if found.same else "the destination differs"
    output.say(f"{job.name} -> {target}: {says}", kind="ok" if found.same else "warning")
    output.say(
        f"  {words.several(result.members, 'member')}, {result.found:,} at the destination, "
        f"{result.in_step:,} in step; "
        f"{words.several(result.requests, 'request')}"
    )
    for name, meaning in _FINDINGS.items():
        if count := getattr(result, name):
            output.say(f"  {count:,} {name}: {meaning}")
    if result.uncertain:
        output.say(f"  {result.uncertain:,} uncertain: the next run sets them again")
    for sample in samples:
        values = ", ".join(f"{k} {v}" for k, v in sample["identifiers"].items())
        output.say(f"    {sample['finding']}: {values}")
    if not found.removes and (result.extra or result.unknown):
        output.say("  this sync never removes: whoever else is there is none of its business")
    if found.repair is not None:
        _show_repair(session, found.repair)
    elif not found.same:
        output.say(f"  next: {session.command(f'state verify {job.name} --repair --reason ...')}")


def _show_repair(session: Session, repair: SyncReport) -> None:
    if repair.plan is None:
        output.say(f"  an ordinary run mends all of it: {session.command(f'run {repair.sync}')}")
    else:
        report.show_plan(session, repair)


def _tell(message: str) -> None:
    output.say(message, err=True)
