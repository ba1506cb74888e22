"""`headgate person`: where one person is known, and forgetting them."""

from __future__ import annotations

import sys
from typing import Any

import click

from sync.cli import output, words
from sync.cli.context import opened, reason_of
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.errors import UsageError
from sync.state.nouns import Event


@_command("person")
@click.argument("identifier", required=False)
@click.option("--forget", is_flag=True, help="Erase and remove the person everywhere, and never send them again.")
@click.option("--remember", is_flag=True, help="Let a forgotten person be sent again.")
@click.option("--reason", default="", help="Why; kept in the audit log. It must not say who.")
@click.option("--members", default=1, show_default=True, help="How many people of a sync may be meant.")
@click.option("--erasure", metavar="ID", help="What became of an erasure, by the number that --forget printed.")
@click.pass_obj
def command(
    options: Options,
    identifier: str | None,
    forget: bool,
    remember: bool,
    reason: str,
    members: int,
    erasure: str | None,
) -> int:
    """Where one person is known: an e-mail address, a phone number or an id, as any destination knows it.

    `-` reads the identifier from standard input, so that it is in no shell's history. The look-up itself is
    audited, without the identifier.
    """
    if forget and remember:
        raise UsageError("a person is forgotten or remembered, not both")
    if erasure is not None:
        if identifier or forget or remember:
            raise UsageError("--erasure ID stands alone", fix="headgate person --erasure ID")
        from sync.cli import person_forget

        with opened(options) as session:
            return person_forget.show(session, erasure)
    text = _given(identifier)
    if not forget and not remember:
        return _look_up(options, text)
    from sync.cli import person_forget

    why = reason_of(reason)
    with opened(options) as session:
        if remember:
            return person_forget.remember(session, text, why)
        return person_forget.forget(session, text, why, members)


def _given(identifier: str | None) -> str:
    text = sys.stdin.readline().strip() if identifier == "-" else identifier
    if not text or not text.strip():
        raise UsageError("who is meant", fix="headgate person IDENTIFIER, or - to read it from standard input")
    return text


def _look_up(options: Options, identifier: str) -> int:
    from sync.engine.people import find

    with opened(options) as session:
        found: list[dict[str, Any]] = []
        for job in session.jobs():
            found += [_data(job.name, one) for one in find(session.ledger, session.engine, job, identifier)]
        session.ledger.record(Event(session.actor, "person.looked_up", "person", {"found": len(found)}))
        if options.json:
            output.document("person", found=found, exit_code=0)
        elif not found:
            output.say("no sync knows this person")
        else:
            _show(found)
    return 0


def _data(sync: str, one: dict[str, Any]) -> dict[str, Any]:
    times = {name: words.iso(one.get(name)) for name in ("since", "updated")}
    return {"sync": sync, **one, **times}


def _show(found: list[dict[str, Any]]) -> None:
    for one in found:
        output.say(f"{one['sync']}: {one.get('status', 'member')}", kind="ok")
        for key, value in one.items():
            if key not in ("sync", "status") and value not in (None, "", {}, []):
                output.say(f"  {key}: {value}")
