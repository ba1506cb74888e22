"""`headgate plan`: what a run would change, and what holds it; nothing is sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from sync.cli import output, plan_file, report
from sync.cli.context import Session, opened, reason_of
from sync.cli.observer import observing
from sync.cli.options import Options, SyncName
from sync.cli.options import command as _command
from sync.cli.revert import job_of
from sync.cli.samples import samples
from sync.documents import plan_data
from sync.engine.report import SyncReport


@_command("plan")
@click.argument("syncs", nargs=-1, type=SyncName(), metavar="[SYNC]...")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the plans to a file for `run`."
)
@click.option("--detailed-exitcode", is_flag=True, help="Exit 5 where changes are pending.")
@click.option("--first-run", is_flag=True, help="Judge as if the first run were allowed.")
@click.option("--samples", "count", default=3, show_default=True, help="Sample records shown per op.")
@click.option("--reveal", is_flag=True, help="Show samples unmasked; needs --reason and is audited.")
@click.option("--revert", metavar="RUN", help="Plan to put back what that run changed; it pauses the sync.")
@click.option("--reason", default="", help="Why the run is reverted, or the samples are needed unmasked.")
@click.pass_obj
def command(
    options: Options,
    syncs: tuple[str, ...],
    out: Path | None,
    detailed_exitcode: bool,
    first_run: bool,
    count: int,
    reveal: bool,
    revert: str | None,
    reason: str,
) -> int:
    """Show what a run would change, and what holds it.

    Nothing is sent. The plan is frozen: `run --plan` delivers exactly it, or says why not.
    """
    why = reason_of(reason) if reveal or revert is not None else ""
    with opened(options) as session:
        with observing(verbose=options.verbose > 0) as observer:
            runner = session.runner(observer=observer)
            if revert is not None:
                reports = [runner.revert(job_of(session, syncs, revert), revert, why, deliver=False)]
            else:
                reports = [runner.plan(job, first_run=first_run) for job in session.jobs(syncs)]
        code = _exit_code(reports, detailed=detailed_exitcode)
        shown = [samples(session, r.plan, count, reveal_reason=why if reveal else "") for r in reports]
        if out is not None:
            plan_file.write(out, reports)
        if options.json:
            data = [{**plan_data(r), "samples": s} for r, s in zip(reports, shown, strict=True)]
            output.document("plan", syncs=data, exit_code=code)
        else:
            _show(session, reports, shown, out)
        return code


def _show(
    session: Session, reports: list[SyncReport], shown: list[list[dict[str, Any]]], out: Path | None
) -> None:
    for one, some in zip(reports, shown, strict=True):
        report.show_plan(session, one, some)
    if not reports:
        output.say("no sync is selected")
    elif out is not None:
        output.say(f"written to {out}; deliver exactly it: {session.command(f'run --plan {out}')}")


def _exit_code(reports: list[SyncReport], *, detailed: bool) -> int:
    """1 where a plan could not be made, 3 where one is held, 5 where changes are pending and that was asked."""
    if any(r.status == "failed" for r in reports):
        return 1
    if any(r.status == "held" or r.held for r in reports):
        return 3
    return 5 if detailed and any(r.status == "ready" for r in reports) else 0
