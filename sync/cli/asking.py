"""`headgate run --ask`: leave the run to the daemon."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from sync.cli import output
from sync.cli.context import Session
from sync.engine.pauses import pause_of
from sync.state.nouns import Event, RunRequest

__all__ = ["ask"]


def ask(session: Session, names: tuple[str, ...]) -> int:
    """Ask for a run of each sync and say so; paused ones are left out where none is named."""
    told = []
    for job in session.jobs(names):
        paused = pause_of(session.ledger.paused(), job.name, job.destination)
        if paused is not None and not names:
            continue
        slot = f"ask-{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}-{secrets.token_hex(4)}"
        request = RunRequest(job.name, slot, "ask", session.actor, session.ledger.now())
        session.ledger.request_run(request)
        session.ledger.record(Event(session.actor, "sync.asked", job.name, {"slot": slot}))
        told.append({"sync": job.name, "slot": slot, "paused": None if paused is None else paused[1]})
    if session.options.json:
        output.document("run", asked=told, exit_code=0)
        return 0
    for one in told:
        when = "a daemon runs it as soon as it can"
        if one["paused"] is not None:
            when = f"a daemon runs it once it is resumed (it is paused: {one['paused']})"
        output.say(f"{one['sync']}: asked for; {when}", kind="ok")
    if not told:
        output.say("no sync is selected")
    return 0
