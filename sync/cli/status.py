"""`headgate status`: health, activity and figures of every sync."""

from __future__ import annotations

import click

from sync.cli import output, words
from sync.cli.context import Session, opened
from sync.cli.options import Options, SyncName
from sync.cli.options import command as _command
from sync.cli.room import AccountRoom, rooms
from sync.documents import standing_data
from sync.durations import format_duration
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
        jobs = session.project.jobs(names=syncs, select=options.select, exclude=options.exclude, disabled=True)
        found = [standing(session.ledger, job.cohort, job.sync) for job in jobs]
        room = rooms(session.project.settings.state_folder, jobs)
        if options.json:
            accounts = [one.data() for one in room]
            output.document("status", syncs=[standing_data(one) for one in found], accounts=accounts, exit_code=0)
        else:
            _show(session, found)
            _show_room(room)


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
            format_duration(one.next_runs[0] - now) if one.next_runs else "-",
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


def _show_room(room: list[AccountRoom]) -> None:
    for one in room:
        output.say(f"{one.name}: {one.words()}", kind="warning" if one.down else "")
