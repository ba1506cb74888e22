"""`headgate pause`: stop syncs, or every sync of a destination, until somebody resumes them."""

from __future__ import annotations

from collections.abc import Sequence

import click

from sync.cli import output
from sync.cli.context import Session, opened, reason_of
from sync.cli.options import Options, SyncName
from sync.cli.options import command as _command
from sync.engine.pauses import destination_name, paused_noun
from sync.errors import UsageError
from sync.state.nouns import Event


@_command("pause")
@click.argument("names", nargs=-1, type=SyncName(), metavar="[SYNC|destination:NAME]...")
@click.option("--reason", required=True, help="Why; shown by `status` and kept in the audit log.")
@click.pass_obj
def command(options: Options, names: tuple[str, ...], reason: str) -> None:
    """Stop syncs, or every sync of a destination, until somebody resumes them.

    What is in flight is finished; nothing new is sent, on schedule or by hand.
    """
    why = reason_of(reason)
    with opened(options) as session:
        wanted = targets(session, names, "pause")
        for name in wanted:
            event = Event(session.actor, f"{paused_noun(name)}.paused", name, {"reason": why})
            session.ledger.pause(name, why, [event])
        if options.json:
            output.document("pause", paused=[{"name": name, "reason": why} for name in wanted], exit_code=0)
            return
        for name in wanted:
            output.say(f"{name} is paused", kind="ok")
            output.say(f"  go on with: {session.command(f'resume {name}')}")


def targets(session: Session, names: Sequence[str], verb: str) -> list[str]:
    """The syncs and destinations that are meant; some must be named, or selected. Raises `UsageError`."""
    if not names and not session.options.select:
        raise UsageError(
            f"nothing is named to {verb}", fix=f"name syncs or destinations: headgate {verb} SYNC destination:NAME"
        )
    known = {destination_name(d) for d in session.project.settings.destinations}
    wanted = [name for name in names if paused_noun(name) == "destination"]
    unknown = sorted(set(wanted) - known)
    if unknown:
        raise UsageError(
            f"there is no {unknown[0]}",
            fix=f"there are {', '.join(sorted(known))}" if known else "see config.toml",
        )
    syncs = [name for name in names if name not in wanted]
    if syncs or not names:
        found = session.project.jobs(
            names=syncs, select=session.options.select, exclude=session.options.exclude, disabled=True
        )
        wanted += [job.name for job in found]
    return wanted
