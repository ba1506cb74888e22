"""`headgate token`: the machines that may use the HTTP API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sync.cli import output, words
from sync.cli.context import opened, reason_of
from sync.cli.options import Options, group
from sync.durations import format_duration, parse_duration
from sync.errors import UsageError

if TYPE_CHECKING:
    from sync.state.access import Token

_SCOPES = ("read", "run", "approve", "samples")
_LONGEST = 3650 * 86400.0


@group("token", default="list")
def command() -> None:
    """Tokens: the machines that may use the HTTP API, and what each may do there.

    A token is shown once, when it is made; what is kept of it is a hash. The audit log knows it as token:NAME.
    """


@command.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(_SCOPES),
    help="What it may do: look, ask for runs, decide on plans, see records of plans; repeatable.",
)
@click.option(
    "--sync",
    "syncs",
    multiple=True,
    metavar="WHAT",
    help="Only these syncs: a name, a glob, tag:T, destination:D or owner:O; repeatable.",
)
@click.option("--expires", default="90d", show_default=True, help="How long it is good: 12h, 90d.")
@click.pass_obj
def create(options: Options, name: str, scopes: tuple[str, ...], syncs: tuple[str, ...], expires: str) -> None:
    """Make a token and show it, once."""
    from sync.state.access import Scope

    seconds = _seconds(expires)
    with opened(options) as session:
        if syncs:
            session.project.jobs(select=syncs, disabled=True)  # a selector that means no sync is a mistake
        wanted = [Scope(scope) for scope in scopes]
        token, text = session.ledger.access.create(name, wanted, syncs=syncs, ttl=seconds, actor=session.actor)
        if options.json:
            output.document("token create", **_data(token), token=text, exit_code=0)
            return
        output.say(f"token {token.name} is good for {format_duration(seconds)}; it is shown only now:", kind="ok")
        output.say(text)


@command.command("list")
@click.pass_obj
def list_(options: Options) -> None:
    """All tokens, with what they may do and when they were last used."""
    with opened(options) as session:
        found, now = session.ledger.access.tokens(), session.ledger.now()
        if options.json:
            output.document("token list", tokens=[_data(token) for token in found], exit_code=0)
            return
        if not found:
            output.say("no token was made yet: headgate token create NAME --scope read")
            return
        table = output.table("token", "may", "syncs", "made by", "used", "ends", fold=("may", "syncs", "made by"))
        for token in found:
            syncs, may = ", ".join(token.syncs) or "all", ", ".join(sorted(token.scopes))
            used = words.age(token.used_at, now) if token.used_at is not None else "never"
            table.add_row(token.name, may, syncs, token.created_by, used, _ends(token, now))
        output.console().print(table)


@command.command("revoke")
@click.argument("name")
@click.option("--reason", required=True, help="Why; kept in the audit log.")
@click.pass_obj
def revoke(options: Options, name: str, reason: str) -> None:
    """End a token at once, for good."""
    why = reason_of(reason)
    with opened(options) as session:
        token = session.ledger.access.revoke(name, actor=session.actor, reason=why)
        if options.json:
            output.document("token revoke", **_data(token), exit_code=0)
        else:
            output.say(f"token {token.name} is revoked", kind="ok")


def _seconds(text: str) -> float:
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"--expires: {error}", fix="--expires 90d") from None
    if not isinstance(seconds, float) or not 0 < seconds <= _LONGEST:
        raise UsageError("--expires is between a moment and ten years", fix="--expires 90d")
    return seconds


def _ends(token: Token, now: float) -> str:
    if token.revoked_at is not None:
        return "revoked"
    return words.due(token.expires_at, now) if token.valid(now) else "expired"


def _data(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "id": token.id,
        "scopes": sorted(token.scopes),
        "syncs": list(token.syncs),
        "created_at": words.iso(token.created_at),
        "created_by": token.created_by,
        "expires_at": words.iso(token.expires_at),
        "used_at": words.iso(token.used_at),
        "revoked_at": words.iso(token.revoked_at),
    }
