"""`headgate status`: health, activity and figures of every sync."""

from __future__ import annotations

import click

from sync.cli import output, words
from sync.cli.context import Session, opened
from sync.cli.daemon_files import refused
from sync.cli.options import Options, SyncName
from sync.cli.options import command as _command
from sync.cli.room import AccountRoom, rooms
from sync.documents import standing_data
from sync.durations import format_duration
from sync.errors import Problem, ProjectError
from sync.health import Health, Standing, standing

_ICONS = {
    Health.HEALTHY: "✓",
    Health.WARNING: "!",
    Health.HELD: "‖",
    Health.FAILING: "✗",
    Health.STALE: "◷",
    Health.DISABLED: "-",
}
_COLOURS = {Health.HEALTHY: "green", Health.FAILING: "red", Health.DISABLED: "dim"}


@_command("status")
@click.argument("syncs", nargs=-1, type=SyncName(), metavar="[SYNC]...")
@click.pass_obj
def command(options: Options, syncs: tuple[str, ...]) -> None:
    """Health, activity and figures of every sync, and the room that is left at their destinations."""
    with opened(options) as session:
        refusal = _refusal(session)
        jobs = session.project.jobs(names=syncs, select=options.select, exclude=options.exclude, disabled=True)
        found = [standing(session.ledger, job.cohort, job.sync) for job in jobs]
        room = rooms(session.project.settings.state_folder, jobs)
        if options.json:
            accounts = [one.data() for one in room]
            data = [standing_data(one) for one in found]
            told = None if refusal is None else {"message": refusal.message, "why": refusal.fix}
            output.document("status", syncs=data, accounts=accounts, files_refused=told, exit_code=0)
        else:
            if refusal is not None:
                output.show_problems([refusal])
            _show(session, found)
            _show_room(room)


def _refusal(session: Session) -> Problem | None:
    """Whether a daemon refused the files; told also where they cannot be read here."""
    try:
        settings = session.project.settings
    except ProjectError as error:
        problem = refused(session.root)
        error.problems += [problem] if problem is not None else []
        raise
    return refused(session.root, settings.state_folder)


def _show(session: Session, found: list[Standing]) -> None:
    if not found:
        output.say("no sync is selected")
        return
    from rich.text import Text

    now = session.ledger.now()
    columns = ("sync", "health", "activity", "ran", "next", "source", "members", "rejected")
    table = output.table(*columns, right=("members", "rejected"), fold=("sync",))
    for one in found:
        last = one.last_run
        table.add_row(
            one.sync,
            Text(f"{_ICONS[one.health]} {one.health}", style=_COLOURS.get(one.health, "yellow")),
            str(one.activity),
            words.age(last.started_at, now) if last else "never",
            format_duration(one.next_runs[0] - now) if one.next_runs else _asked_by(one.schedule),
            "-" if one.freshness is None else format_duration(one.freshness),
            f"{one.members:,}",
            f"{one.rejected:,}",
        )
    output.console().print(table)
    for one in found:
        for reason in one.reasons:
            output.say(f"{one.sync}: {reason}")
        if one.held_plan is not None:
            why = '--reason "..."'
            output.say(f"  next: {session.command(f'approve {one.held_plan} {why}')}")


def _asked_by(schedule: str) -> str:
    """What asks for runs where no clock does: `after crm-vips`, `after dbt`."""
    return "-" if schedule == "on request" else words.cut(schedule.partition(" (")[0], 24)


def _show_room(room: list[AccountRoom]) -> None:
    for one in room:
        output.say(f"{one.name}: {one.words()}", kind="warning" if one.down else "")
