"""Forgetting a person, remembering them again, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from sync.cli import output, words
from sync.errors import UsageError
from sync.state.erasures import OPEN_ERASURES, Erasure, ErasureOutcome, ErasurePart, ErasureState

if TYPE_CHECKING:
    from sync.cli.context import Session
    from sync.engine.forget import Forgetting

__all__ = ["forget", "remember", "show"]

_HELD = (ErasureOutcome.BY_HAND, ErasureOutcome.UNCERTAIN)


def forget(session: Session, identifier: str, reason: str, members: int) -> int:
    """Forget a person in every selected sync, and print the erasure. Returns the exit code."""
    from sync.engine.forget import forget

    session.audit.ready()
    left: list[str] = []
    made = forget(_asked(session, identifier, reason, members, left.append))
    return _print(session, "person forget", made, left)


def remember(session: Session, identifier: str, reason: str) -> int:
    """Let a forgotten person be sent again. Returns the exit code."""
    from sync.engine.forget import remember

    session.audit.ready()
    known = remember(_asked(session, identifier, reason, 1))
    if session.options.json:
        output.document("person remember", erasures=known, exit_code=0)
    elif not known:
        output.say("nobody with this identifier was forgotten")
    else:
        output.say(f"remembered again; erasure {', '.join(known)} is taken back", kind="ok")
        output.say("  where the cohort has them, the next run sends them again")
    return 0


def show(session: Session, id: str) -> int:
    """Print what became of an erasure. Returns the exit code; raises `UsageError` where there is none."""
    found = session.ledger.erasure(id)
    if found is None:
        raise UsageError(
            f"there is no erasure '{id}'",
            code="HG354",
            fix=session.command("audit search --action person.forgotten"),
        )
    return _print(session, "person erasure", found)


def _asked(
    session: Session, identifier: str, reason: str, members: int, tell: Callable[[str], None] = lambda _: None
) -> Forgetting:
    from sync.engine.forget import Forgetting

    options = session.options
    chosen = session.project.jobs(select=options.select, exclude=options.exclude, disabled=True)
    everything = not options.select and not options.exclude
    return Forgetting(
        state=session.ledger,
        settings=session.engine,
        jobs={job.name: job for job in session.project.jobs(disabled=True)},
        identifier=identifier,
        actor=session.actor,
        reason=reason,
        only=frozenset() if everything else frozenset(job.name for job in chosen),
        members=members,
        sources=session.project.openers(),
        tell=tell,
    )


def _print(session: Session, command: str, erasure: Erasure, left: Sequence[str] = ()) -> int:
    parts = session.ledger.erasure_parts(erasure=erasure.id)
    if session.options.json:
        output.document(command, **_data(erasure, parts), notes=list(left), exit_code=0)
        return 0
    over = not any(part.state in OPEN_ERASURES for part in parts)
    output.say(f"erasure {erasure.id}: {_standing(erasure, over=over)}", kind="ok" if over else "warning")
    output.say(f"  by {erasure.actor} at {words.moment(erasure.at)}: {erasure.reason}")
    for part in parts:
        output.say(f"  {part.sync}{_place(part)}: {_words(part)}")
        rows = [f"{count:,} rows of {kind}" for kind, count in part.rows.items() if count]
        if rows:
            output.say(f"    erased: {', '.join(rows)}" if part.ended_at else f"    found: {', '.join(rows)}")
    for sentence in left:
        output.say(f"  {sentence}", kind="warning")
    if not parts:
        output.say("  nothing was kept of this person; they are kept out of every sync")
    queued = [part.sync for part in parts if part.state is ErasureState.QUEUED]
    if queued:
        output.say(f"  next: {session.command('run ' + ' '.join(queued))}")
    return 0


def _standing(erasure: Erasure, *, over: bool) -> str:
    if erasure.remembered_at is not None:
        return f"taken back by {erasure.remembered_by} at {words.moment(erasure.remembered_at)}"
    return "done" if over else "under way"


def _place(part: ErasurePart) -> str:
    where = " / ".join(text for text in (part.destination, part.audience) if text)
    return f" -> {where}" if where else ""


def _words(part: ErasurePart) -> str:
    if part.state is ErasureState.WITHDRAWN:
        return "taken back before the destination removed them"
    if part.state is ErasureState.QUEUED:
        return "queued, the next run removes them at the destination"
    said = {
        ErasureOutcome.REMOVED: "the destination removed them",
        ErasureOutcome.ABSENT: "the destination did not have them",
        ErasureOutcome.BY_HAND: "we cannot remove there: do it at the destination",
        ErasureOutcome.UNCERTAIN: "nobody can tell whether the destination has them: look there",
    }[part.outcome]
    return said if part.state is ErasureState.ERASED else f"{said}; not yet erased here, repeat the command"


def _data(erasure: Erasure, parts: list[ErasurePart]) -> dict[str, Any]:
    return {
        "erasure": erasure.id,
        "at": words.iso(erasure.at),
        "actor": erasure.actor,
        "reason": erasure.reason,
        "remembered_at": words.iso(erasure.remembered_at),
        "remembered_by": erasure.remembered_by,
        "done": not any(part.state in OPEN_ERASURES for part in parts),
        "syncs": [
            {
                "sync": part.sync,
                "destination": part.destination,
                "audience": part.audience,
                "state": part.state.value,
                "outcome": part.outcome.value,
                "by_hand": part.outcome in _HELD,
                "rows": dict(part.rows),
                "ended_at": words.iso(part.ended_at),
            }
            for part in parts
        ],
    }
