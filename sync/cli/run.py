"""`headgate run`: plan and deliver, or hold for a decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sync.cli import output, plan_file, report
from sync.cli.asking import ask
from sync.cli.context import Session, opened, reason_of
from sync.cli.observer import observing
from sync.cli.options import Options, SyncName
from sync.cli.options import command as _command
from sync.cli.revert import job_of
from sync.cli.samples import samples
from sync.cli.signals import draining
from sync.cli.telemetry import traced
from sync.documents import report_data
from sync.engine.pauses import pause_of
from sync.engine.report import SyncReport, exit_code
from sync.errors import UsageError
from sync.sdk.nouns import Op
from sync.state.nouns import PlanKind

if TYPE_CHECKING:
    from sync.engine.job import SyncJob


def _ops(context: click.Context, parameter: click.Parameter, value: str | None) -> frozenset[Op] | None:  # noqa: ARG001
    if value is None:
        return None
    try:
        return frozenset(Op(word.strip()) for word in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is not a list of add, update, remove") from None


@_command("run")
@click.argument("syncs", nargs=-1, type=SyncName(), metavar="[SYNC]...")
@click.option(
    "--plan", "plan", metavar="PLAN", help="Deliver exactly this plan: its id, or a file of `plan --out`."
)
@click.option("--only", callback=_ops, metavar="OPS", help="Deliver only these ops: add,update,remove.")
@click.option("--first-run", is_flag=True, help="Allow the first run of a sync; harmless on later runs.")
@click.option("--revert", metavar="RUN", help="Put back what that run changed; it pauses the sync.")
@click.option("--reason", default="", help="Why the run is reverted; kept in the audit log.")
@click.option("--ask", "asks", is_flag=True, help="Leave it to the daemon: ask it for a run, and end.")
@click.pass_obj
def command(
    options: Options,
    syncs: tuple[str, ...],
    plan: str | None,
    only: frozenset[Op] | None,
    first_run: bool,
    revert: str | None,
    reason: str,
    asks: bool,
) -> int:
    """Plan and deliver, or hold for a decision.

    A run that was interrupted is finished first. Syncs go one after another. The first signal finishes what is
    in flight and keeps the rest for the next run; the second quits at once.

    Paused syncs are left out where none is named. --revert undoes a run as far as that can be done, and says
    what cannot; it is planned, judged and held like any other change.
    """
    why = _why(revert, reason, other=bool(plan or only is not None or first_run))
    if asks and (plan or only is not None or first_run or revert):
        raise UsageError("--ask asks for a run like any other", fix="leave the other options out, or --ask")
    with opened(options) as session:
        if asks:
            return ask(session, syncs)
        reports = []
        with observing(verbose=options.verbose > 0) as observer, draining(_tell) as stop, traced(session):
            runner = session.runner(observer=observer, stop=stop)
            if revert is not None:
                reports.append(runner.revert(job_of(session, syncs, revert), revert, why))
            else:
                for job, digest in _work(session, syncs, plan):
                    if stop.is_set():
                        break
                    skipped = None if syncs or digest else _paused(session, job)
                    reports.append(skipped or runner.run(job, first_run=first_run, only=only, plan=digest))
        return finish(session, reports, "run", stopped=stop.is_set())


def _why(revert: str | None, reason: str, *, other: bool) -> str:
    """The reason of a revert. Raises `UsageError` where the options do not go together."""
    if revert is None:
        if reason:
            raise UsageError("--reason goes with --revert", fix="leave it out")
        return ""
    if other:
        raise UsageError("--revert makes a plan of its own, whole", fix="leave --plan, --only and --first-run out")
    return reason_of(reason)


def _paused(session: Session, job: SyncJob) -> SyncReport | None:
    """What is told of a sync that was not named and is paused."""
    found = pause_of(session.ledger.paused(), job.name, job.destination)
    return None if found is None else SyncReport(job.name, "paused", notes=(f"{found[0]} is paused: {found[1]}",))


def _work(session: Session, syncs: tuple[str, ...], plan: str | None) -> Iterator[tuple[SyncJob, str | None]]:
    """The syncs to run, each with the digest of the plan to deliver, if one was named."""
    if plan is None:
        for job in session.jobs(syncs):
            yield job, None
        return
    if plan_file.looks_like_file(plan):
        named = plan_file.read(Path(plan))
    else:
        found = session.plan(plan)
        named = [(found.sync, found.digest)]
    unknown = set(syncs) - {sync for sync, _ in named}
    if unknown:
        raise UsageError(f"the plan is not for {', '.join(sorted(unknown))}", fix="leave the sync's name out")
    for sync, digest in named:
        if not syncs or sync in syncs:
            yield session.job(sync), digest


def finish(session: Session, reports: list[SyncReport], name: str, *, stopped: bool = False) -> int:
    """Print the reports and return the exit code; a run that was told to stop has not succeeded."""
    code = exit_code(reports) or int(stopped)
    if session.options.json:
        data = [{**report_data(r), **_samples(session, r)} for r in reports]
        output.document(name, syncs=data, exit_code=code)
        return code
    for one in reports:
        report.show_run(session, one, _samples(session, one).get("samples", ()))
    if not reports:
        output.say("no sync is selected" if not stopped else "stopped before anything was done")
    return code


def _samples(session: Session, report: SyncReport) -> dict[str, list[dict[str, Any]]]:
    """What a revert is about, masked: `plan` shows the cohort's changes and not these."""
    if report.plan is None or report.plan.kind is not PlanKind.REVERT:
        return {}
    return {"samples": samples(session, report.plan, 3)}


def _tell(message: str) -> None:
    output.say(message, err=True)
