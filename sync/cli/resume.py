"""`headgate resume`: let paused syncs and destinations run again."""

from __future__ import annotations

import click

from sync.cli import output
from sync.cli.context import Session, opened
from sync.cli.options import Options, SyncName
from sync.cli.options import command as _command
from sync.cli.pause import targets
from sync.engine.pauses import paused_noun
from sync.state.nouns import LIVE_PLANS, Event, PlanKind


@_command("resume")
@click.argument("names", nargs=-1, type=SyncName(), metavar="[SYNC|destination:NAME]...")
@click.option("--reason", default="", help="Why; kept in the audit log.")
@click.pass_obj
def command(options: Options, names: tuple[str, ...], reason: str) -> None:
    """Let paused syncs and destinations run again; what was not paused stays as it is."""
    with opened(options) as session:
        paused = session.ledger.paused()
        gone = [name for name in names if name in paused]  # it may not be in the project any more
        rest = [name for name in names if name not in paused]
        meant = [*gone, *(targets(session, rest, "resume") if rest or not names else [])]
        wanted = [name for name in meant if name in paused]
        for name in wanted:
            data = {"was": paused[name], **({"reason": reason} if reason else {})}
            session.ledger.pause(name, None, [Event(session.actor, f"{paused_noun(name)}.resumed", name, data)])
        notes = [note for name in wanted for note in _overtaken(session, name)]
        if options.json:
            output.document("resume", resumed=wanted, notes=notes, exit_code=0)
            return
        for name in wanted:
            output.say(f"{name} is resumed", kind="ok")
        for note in notes:
            output.say(f"  note: {note}")
        if not wanted:
            output.say("none of them is paused")


def _overtaken(session: Session, sync: str) -> list[str]:
    """A revert that waits is void once an ordinary run moves the members."""
    waiting = session.ledger.plans(sync, *LIVE_PLANS)
    return [
        f"plan {plan.id}, which reverts run {plan.origin}, is not delivered; the next run makes it void"
        for plan in waiting
        if plan.kind is PlanKind.REVERT
    ]
