"""`headgate audit`: who did what and why."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from sync.cli import output, words
from sync.cli.context import opened
from sync.cli.options import Options, group
from sync.errors import UsageError


@group("audit", default="search")
def command() -> None:
    """Who did what and why: an append-only log, chained by hash, with signed checkpoints in a second place."""


@command.command("verify")
@click.pass_obj
def verify(options: Options) -> int:
    """Check the chain and the checkpoints; exits 1 and says what was edited, deleted, swapped or cut."""
    with opened(options) as session:
        with session.ledger.reading() as connection:
            result = session.audit.verify(connection)
        code = 0 if result.ok else 1
        figures = {"events": result.events, "checkpoints": result.checkpoints, "witnessed": result.witnessed}
        if options.json:
            keys = ("kind", "message", "first", "last")
            findings = [{key: getattr(f, key) for key in keys} for f in result.findings]
            output.document("audit verify", ok=result.ok, **figures, findings=findings, exit_code=code)
            return code
        for finding in result.findings:
            output.say(finding.message, kind="error")
        if result.ok:
            output.say(
                f"{result.events:,} events in order; checkpoints vouch for {result.witnessed:,} of them", kind="ok"
            )
        return code


@command.command("search")
@click.argument("text", required=False)
@click.option("--actor", help="Exactly, or with * for any letters.")
@click.option("--action", help="As plan.approved, or with *: plan.*")
@click.option("--object", "about", help="A sync, a plan or a run.")
@click.option("--since", metavar="AGE", help="Not older than 90m, 24h, 7d.")
@click.option("--limit", default=50, show_default=True, help="Events at most.")
@click.pass_obj
def search(
    options: Options,
    text: str | None,
    actor: str | None,
    action: str | None,
    about: str | None,
    since: str | None,
    limit: int,
) -> None:
    """The newest events that match, newest first."""
    with opened(options) as session:
        with session.ledger.reading() as connection:
            found = session.audit.search(
                connection,
                actor=actor,
                action=action,
                object=about,
                since=_since(since),
                text=text,
                limit=limit,
            )
        if options.json:
            output.document("audit search", events=[_data(event) for event in found], exit_code=0)
            return
        for event in found:
            output.say(event_line(event))
        if not found:
            output.say("no event matches")


@command.command("export")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="A file (default: stdout).")
@click.pass_obj
def export(options: Options, out: Path | None) -> None:
    """Write every event as a line of JSON, oldest first, with its hashes."""
    if options.json and out is None:
        raise UsageError(
            "--json prints one document and the export is many", fix="give the export a file: --out F"
        )
    with opened(options) as session, session.ledger.reading() as connection:
        if out is None:
            session.audit.export(connection, sys.stdout)
            return
        try:
            with out.open("x", encoding="utf-8") as file:
                count = session.audit.export(connection, file)
        except OSError as error:
            raise UsageError(f"cannot write {out}: {error.strerror}", fix="give --out a new file") from None
        if options.json:
            output.document("audit export", file=str(out), events=count, exit_code=0)
        else:
            output.say(f"{count:,} events written to {out}", kind="ok")


def event_line(event: Any) -> str:
    """An event for people: when, what, on what; and below who, why, and the figures that are not 0."""
    data = {k: v for k, v in event.data.items() if v not in (0, "", None, [], {}) and k != "digest"}
    reason = f': "{data.pop("reason")}"' if "reason" in data else ""
    rest = ", ".join(f"{k}={_short(v)}" for k, v in data.items())
    line = f"#{event.seq} {words.moment(event.at)}  {event.action}  {event.object}\n    by {event.actor}{reason}"
    return line + (f"\n    {words.cut(rest, 74)}" if rest else "")


def _short(value: Any) -> str:
    return "/".join(map(str, value)) if isinstance(value, list) else str(value)


def _data(event: Any) -> dict[str, Any]:
    keys = ("seq", "actor", "action", "object", "data", "prev", "hash")
    return {"at": words.iso(event.at), **{key: getattr(event, key) for key in keys}}


def _since(text: str | None) -> float | None:
    if text is None:
        return None
    from sync.durations import parse_duration

    try:
        return time.time() - float(parse_duration(text))
    except ValueError as error:
        raise UsageError(f"--since: {error}") from None
