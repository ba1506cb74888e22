"""Replacing what is remembered of a sync: forgetting its members, or taking over another's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sync.errors import Corrupt, StateError, UsageError
from sync.state import mark
from sync.state.nouns import Event, Generation, Lease

if TYPE_CHECKING:
    from sync.cli.context import Session
    from sync.engine.job import SyncJob

__all__ = ["forget", "migrate", "take_over"]


def forget(session: Session, sync: str, members: int, reason: str) -> int:
    """Name an empty generation as the current one; returns how many members were forgotten.

    Raises `UsageError` where `members` is not the number there is, and `StateError` (HG330) where an interrupted
    run can still be finished.
    """
    with _leased(session, sync, unless_damaged=True) as lease:
        before = session.ledger.generation(sync)
        if members != before.members:
            raise UsageError(
                f"{sync} has {before.members:,} members, not {members:,}", fix="look again: state show"
            )
        after = Generation(sync=sync, number=before.number + 1, members=0, at=session.ledger.now())
        event = Event(session.actor, "state.reset", sync, {"members": before.members, "reason": reason})
        session.ledger.reset(lease, after, [event])
        mark.erase(session.engine.folder, sync)
    return before.members


def take_over(session: Session, old: str, new: SyncJob, reason: str) -> int:
    """Add the members of `old` that `new` does not know; returns how many. Raises `UsageError` where none are."""
    from sync.engine import kept
    from sync.engine.database import open_database

    theirs = session.ledger.generation(old)
    if not theirs.members:
        raise UsageError(
            f"nothing is remembered of a sync '{old}'", fix="see: headgate audit search --object NAME"
        )
    with _leased(session, old), _leased(session, new.name) as lease:
        ours = session.ledger.generation(new.name)
        kept.verify(session.engine, theirs)
        kept.verify(session.engine, ours)
        names = [i.to for i in new.sync.identifiers]
        fields = ours.fields if ours.members else theirs.fields
        after = replace(
            ours,
            number=ours.number + 1,
            fields=fields,
            probe=ours.probe or theirs.probe,
            at=session.ledger.now(),
            place=new.place if ours.blank else ours.place,
        )
        with open_database(session.engine) as connection:
            known = kept.members_of(connection, session.engine, ours, names)
            others = kept.members_of(connection, session.engine, theirs, names)
            changed = f"SELECT t.*, false AS removed FROM ({others}) t ANTI JOIN ({known}) k ON t.key = k.key"
            made = kept.advance(connection, session.engine, ours, after, changed, names)
        taken = made.members - ours.members
        event = Event(session.actor, "state.merged", new.name, {"from": old, "members": taken, "reason": reason})
        session.ledger.reset(lease, made, [event])
    return taken


def migrate(session: Session, job: SyncJob, to: str, reason: str) -> int:
    """Keep a sync's members in the place `to`, as the next generation; returns how many there are.

    Keys and fingerprints are the same there, so nobody is sent again. Earlier generations stay where they are,
    and so do rejected and uncertain records. Raises `UsageError` where config.toml or the ledger says that they
    are there already, or are to be elsewhere.
    """
    from sync.engine import kept
    from sync.engine.database import open_database

    place = job.place if to == "warehouse" else ""
    if to == "warehouse" and not place:
        name = job.cohort.source.connection
        raise UsageError(
            f"config.toml does not say that the warehouse '{name}' keeps members",
            fix=f'write members = "warehouse" under [sources.{name}]; the next run needs it, too',
        )
    with _leased(session, job.name) as lease:
        before = session.ledger.generation(job.name)
        if before.place == place:
            raise UsageError(f"the members of {job.name} are there already", fix="look: state show")
        with open_database(session.engine) as connection:
            after = kept.migrated(connection, session.engine, before, place, session.ledger.now())
        told = {
            "members": after.members,
            "from": before.place or "local",
            "to": place or "local",
            "reason": reason,
        }
        session.ledger.move(lease, after, [Event(session.actor, "state.migrated", job.name, told)])
    return after.members


@contextmanager
def _leased(session: Session, sync: str, *, unless_damaged: bool = False) -> Iterator[Lease]:
    """Hold the sync, so that no run is under way; an interrupted run must be finished first, if it can be."""
    from sync.engine.lease import LeaseKeeper

    ledger = session.ledger
    with LeaseKeeper(ledger, sync, session.engine.lease_ttl) as keeper:
        if ledger.open_run(sync) is not None and not (unless_damaged and _beyond_repair(session, sync)):
            raise StateError(
                f"a run of {sync} was interrupted while it was sending",
                code="HG330",
                fix=f"finish it first: {session.command(f'run {sync}')}",
            )
        yield keeper.lease


def _beyond_repair(session: Session, sync: str) -> bool:
    """Can the interrupted run not be finished any more, for files that it needs are damaged."""
    from sync.engine.trust import whole

    run = session.ledger.open_run(sync)
    plan = session.ledger.plan(run.plan) if run is not None and run.plan is not None else None
    if run is None or plan is None:
        return True
    try:
        whole(session.ledger, session.engine, plan, run)
    except Corrupt:
        return True
    return False
