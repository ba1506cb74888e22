"""`headgate reject`: turn a held plan down, with a reason."""

from __future__ import annotations

import click

from sync.cli import output
from sync.cli.approve import decide
from sync.cli.context import opened, reason_of
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.state.nouns import Decision, PlanKind


@_command("reject")
@click.argument("plan")
@click.option("--reason", required=True, help="Why not; kept in the audit log.")
@click.pass_obj
def command(options: Options, plan: str, reason: str) -> None:
    """Turn a held plan down; nothing of it is sent, and the next run plans anew."""
    with opened(options) as session:
        decided = decide(session, plan, Decision.REJECT, reason_of(reason))
        if options.json:
            fields = {"sync": decided.sync, "plan": decided.id, "digest": decided.digest}
            output.document("reject", **fields, status=decided.status.value, exit_code=0)
        else:
            output.say(f"plan {decided.id} of {decided.sync} is rejected by {session.actor}", kind="ok")
            if decided.kind is PlanKind.REVERT and decided.sync in session.ledger.paused():
                output.say(f"  it is still paused; go on with: {session.command(f'resume {decided.sync}')}")
