"""`headgate person`: where one person is known, and since when."""

from __future__ import annotations

from typing import Any

import click

from sync.cli import output, words
from sync.cli.context import opened
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.state.nouns import Event


@_command("person")
@click.argument("identifier")
@click.pass_obj
def command(options: Options, identifier: str) -> None:
    """Where one person is known: an e-mail address, a phone number or an id, as any destination knows it.

    The look-up itself is audited, without the identifier.
    """
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


def _data(sync: str, one: dict[str, Any]) -> dict[str, Any]:
    times = {name: words.iso(one.get(name)) for name in ("since", "updated")}
    return {"sync": sync, **one, **times}


def _show(found: list[dict[str, Any]]) -> None:
    for one in found:
        output.say(f"{one['sync']}: {one.get('status', 'member')}", kind="ok")
        for key, value in one.items():
            if key not in ("sync", "status") and value not in (None, "", {}, []):
                output.say(f"  {key}: {value}")
