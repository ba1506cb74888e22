"""Erasures in the ledger: who was forgotten, the files that were rewritten for it, and rows taken from itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, delete, insert, select, update

from sync.faultpoints import durable
from sync.state import rows, tables
from sync.state.database import upsert
from sync.state.erasures import (
    REMOVED_TEXT,
    Erasure,
    ErasureOutcome,
    ErasurePart,
    ErasureState,
    Forgotten,
    Rewrite,
    Rewritten,
    quoting,
)
from sync.state.leases import LeaseLedger
from sync.state.nouns import LIVE_PLANS, Event, Lease, PlanStatus
from sync.state.sending import out_of_order
from sync.state.settling import drop_keys
from sync.state.tables import NOW, OPEN_RUN

__all__ = ["ErasureLedger"]

VOID_REASON = "a person in it was forgotten"

_plan, _run, _batch, _exception = tables.plan.c, tables.run.c, tables.batch.c, tables.exception.c
_part, _forgotten = tables.erasure_part.c, tables.forgotten.c
_QUOTING = (
    tables.exception.c.reason,
    tables.rejected.c.reason,
    tables.rejected.c.given_up_reason,
    tables.batch.c.job,
    tables.run.c.error,
)
"""Where a destination's own words are kept."""


class ErasureLedger(LeaseLedger):
    """Forgets people, and keeps them forgotten."""

    # --- looking ------------------------------------------------------------------------------------------

    def erasure(self, id: str) -> Erasure | None:
        """One erasure, by its id or a beginning of it that no other has."""
        table = tables.erasure
        query = select(table).where(table.c.id.startswith(id, autoescape=True)).limit(2)
        found = self._all(query, _erasure)
        return found[0] if len(found) == 1 and id else None

    def erasures(self, *, limit: int = 20) -> list[Erasure]:
        """Erasures, newest first."""
        return self._all(select(tables.erasure).order_by(tables.erasure.c.seq.desc()).limit(limit), _erasure)

    def erasure_parts(
        self, *states: ErasureState, sync: str | None = None, erasure: str | None = None
    ) -> list[ErasurePart]:
        """Parts of erasures, by sync; all states where none is named."""
        query = select(tables.erasure_part).order_by(_part.sync, _part.erasure)
        if states:
            query = query.where(_part.state.in_([s.value for s in states]))
        if sync is not None:
            query = query.where(_part.sync == sync)
        return self._all(query if erasure is None else query.where(_part.erasure == erasure), _as_part)

    def forgotten(self, sync: str) -> list[Forgotten]:
        """What keeps people out of a sync; the same digest may come from two erasures."""
        query = select(tables.forgotten).where(_forgotten.sync.in_(["", sync])).order_by(_forgotten.digest)
        return self._all(query, lambda r: Forgotten(**r._mapping))

    def erasures_of(self, digests: Iterable[str]) -> set[str]:
        """The erasures that one of these digests belongs to."""
        query = select(_forgotten.erasure).where(_forgotten.digest.in_(list(digests)))
        return set(self._all(query, lambda r: str(r.erasure)))

    def known_syncs(self) -> list[str]:
        """Every sync that something is remembered of, also those that no mapping has any more."""
        columns = (tables.generation.c.sync, _plan.sync, _run.sync, tables.rejected.c.sync)
        found = sa.union(*(select(column) for column in columns)).subquery()
        return sorted(self._all(select(found.c.sync), lambda r: str(r.sync)))

    # --- forgetting ---------------------------------------------------------------------------------------

    @durable
    def forget(
        self,
        leases: Sequence[Lease],
        erasure: Erasure,
        forgotten: Sequence[Forgotten],
        parts: Sequence[ErasurePart],
        plans: Mapping[str, Sequence[str]],
        events: Sequence[Event] = (),
    ) -> None:
        """Keep an erasure before anything is erased; one that is repeated is added to.

        From here on the person is kept out of every plan. `plans` has sync -> files of plans with the person:
        those that may still be delivered become void.
        """
        with self._db.write() as connection:
            self._refuse_lost(connection, leases)
            table = tables.erasure
            if connection.execute(select(table.c.id).where(table.c.id == erasure.id)).first() is None:
                connection.execute(insert(table), rows.values(erasure))
            if forgotten:
                connection.execute(_PUT_FORGOTTEN, [rows.values(one) for one in forgotten])
            for part in parts:
                connection.execute(_PUT_PART, rows.values(part))
            for sync, files in plans.items():
                _void(connection, sync, files)
            self._record(connection, events)

    @durable
    def rewrite(self, lease: Lease, rewrite: Rewrite) -> None:
        """Name the files that took the place of others, and take the person's rows out of the ledger.

        Raises `StateError` while a run of the sync is open: it would be resumed from files of before.
        """
        with self._fenced(lease) as connection:
            query = select(_run.id).where(_run.sync == lease.sync, _run.status.in_(OPEN_RUN))
            if connection.execute(query).first() is not None:
                raise out_of_order(f"a run of {lease.sync} is open: its files cannot be rewritten")
            _rename_members(connection, lease.sync, rewrite)
            _void(connection, lease.sync, [plan.old for plan in rewrite.plans])
            gone: dict[str, set[int]] = {run: set(numbers) for run, numbers in rewrite.copies.items()}
            for plan in rewrite.plans:
                for run in _rename_plan(connection, lease.sync, plan):
                    gone.setdefault(run, set()).update(plan.rows)
            for run, numbers in gone.items():
                _clear_rows(connection, lease.sync, run, numbers)
            _clear_keys(connection, lease.sync, rewrite)

    @durable
    def end_erasure(self, lease: Lease, part: ErasurePart, events: Sequence[Event] = ()) -> None:
        """A part is over: its keys go."""
        with self._fenced(lease) as connection:
            values = rows.values(part) | {"keys": "[]", "ended_at": NOW}
            this = update(tables.erasure_part).where(_part.erasure == part.erasure, _part.sync == part.sync)
            connection.execute(this.values({k: v for k, v in values.items() if k not in ("erasure", "sync")}))
            self._record(connection, events)
        self._db.truncate()

    @durable
    def unquote(self, words: Iterable[str], *, compact: bool = False) -> int:
        """Take words out of what destinations said of other records; returns how many texts had one.

        `compact` then writes the ledger's file anew, without what was deleted before it was overwritten at once.
        Raises `StateError` where another process keeps that from being done.
        """
        known = quoting(words)
        count = 0
        if known:
            pattern = re.compile(known, re.IGNORECASE | re.ASCII)
            with self._db.write() as connection:
                count = sum(_unquoted(connection, column, pattern) for column in _QUOTING)
        if compact:
            self._db.compact()
        return count

    @durable
    def remember_again(
        self,
        leases: Sequence[Lease],
        erasures: Iterable[str],
        actor: str,
        reason: str,
        events: Sequence[Event] = (),
    ) -> None:
        """Take erasures back: the person may be sent again. Removals that were not made are not made."""
        these = list(erasures)
        with self._db.write() as connection:
            self._refuse_lost(connection, leases)
            connection.execute(delete(tables.forgotten).where(_forgotten.erasure.in_(these)))
            open_ = update(tables.erasure_part).where(
                _part.erasure.in_(these), _part.state == ErasureState.QUEUED.value
            )
            connection.execute(open_.values(state=ErasureState.WITHDRAWN.value, keys="[]", ended_at=NOW))
            table = tables.erasure
            taken = update(table).where(table.c.id.in_(these), table.c.remembered_at.is_(None))
            values = {"remembered_at": NOW, "remembered_by": actor, "remembered_reason": reason}
            connection.execute(taken.values(values))
            self._record(connection, events)

    def _refuse_lost(self, connection: sa.Connection, leases: Sequence[Lease]) -> None:
        for lease in leases:
            self._check(connection, lease)


_PUT_FORGOTTEN = upsert(tables.forgotten).on_conflict_do_nothing()
_PUT_PART = upsert(tables.erasure_part)
_PUT_PART = _PUT_PART.on_conflict_do_update(
    index_elements=[_part.erasure, _part.sync],
    set_={c.name: _PUT_PART.excluded[c.name] for c in _part if c.name not in ("erasure", "sync")},
)


def _erasure(row: rows.AnyRow) -> Erasure:
    return Erasure(**{name: value for name, value in row._mapping.items() if name != "seq"})


def _as_part(row: rows.AnyRow) -> ErasurePart:
    plain = dict(row._mapping)
    plain["state"], plain["outcome"] = ErasureState(plain["state"]), ErasureOutcome(plain["outcome"])
    plain["keys"], plain["rows"] = tuple(json.loads(plain["keys"])), json.loads(plain["rows"])
    return ErasurePart(**plain)


def _unquoted(connection: sa.Connection, column: sa.Column[Any], pattern: re.Pattern[str]) -> int:
    count = 0
    query = select(column).distinct().where(column.is_not(None), column != "")
    for text in connection.execute(query).scalars().all():
        if pattern.search(text):
            clean = update(column.table).where(column == text)
            count += connection.execute(clean.values({column.name: pattern.sub(REMOVED_TEXT, text)})).rowcount
    return count


def _void(connection: sa.Connection, sync: str, files: Sequence[str]) -> None:
    live = update(tables.plan).where(_plan.sync == sync, _plan.file.in_(list(files)), _plan.status.in_(LIVE_PLANS))
    connection.execute(live.values(status=PlanStatus.VOID.value, reason=VOID_REASON))


def _rename_members(connection: sa.Connection, sync: str, rewrite: Rewrite) -> None:
    """Generations name the new files; numbers, runs and times stay as they were."""
    if not rewrite.members:
        return
    table, fresh = tables.generation, {file.old: file for file in rewrite.members}
    for row in connection.execute(select(table).where(table.c.sync == sync)).all():
        digests = json.loads(row.digests)
        if not fresh.keys() & digests.keys():
            continue
        names = {name: fresh[name].new if name in fresh else name for name in digests}
        renamed = {names[name]: fresh[name].digest if name in fresh else d for name, d in digests.items()}
        connection.execute(
            update(table)
            .where(table.c.sync == sync, table.c.number == row.number)
            .values(
                base=names.get(row.base, row.base),
                delta=names.get(row.delta, row.delta),
                digests=rows.to_json(renamed),
                members=rewrite.counts.get(row.number, row.members),
            )
        )


def _rename_plan(connection: sa.Connection, sync: str, plan: Rewritten) -> list[str]:
    """The plan's digest stays what was approved; returns the plan's runs."""
    these = (_plan.sync == sync, _plan.file == plan.old)
    ids = list(connection.execute(select(_plan.id).where(*these)).scalars())
    connection.execute(update(tables.plan).where(*these).values(file=plan.new, file_sha256=plan.digest))
    return list(connection.execute(select(_run.id).where(_run.plan.in_(ids))).scalars())


def _clear_rows(connection: sa.Connection, sync: str, run: str, numbers: set[int]) -> None:
    """What a run's receipts said of these rows of its plan. The counts of its batches stay."""
    clear = update(tables.exception).where(_exception.run == run, _exception.row == bindparam("this"))
    connection.execute(clear.values(key="", reason=""), [{"this": n} for n in sorted(numbers)])
    table = tables.rejected
    gone = delete(table).where(table.c.sync == sync, table.c.run == run, table.c.row == bindparam("this"))
    connection.execute(gone, [{"this": n} for n in sorted(numbers)])
    query = select(_batch.number, _batch.first, _batch.last, _batch.remote_ids, _batch.job).where(
        _batch.run == run, _batch.remote_ids.is_not(None) | _batch.job.is_not(None)
    )
    for batch in connection.execute(query).all():
        if any(batch.first <= number <= batch.last for number in numbers):
            told = json.loads(batch.remote_ids) if batch.remote_ids else {}
            kept = {row: id for row, id in told.items() if int(row) not in numbers}
            this = update(tables.batch).where(_batch.run == run, _batch.number == batch.number)
            # A run that is over asks about no job any more.
            connection.execute(this.values(remote_ids=rows.to_json(kept) if kept else None, job=None))


def _clear_keys(connection: sa.Connection, sync: str, rewrite: Rewrite) -> None:
    runs = select(_run.id).where(_run.sync == sync)
    keys = sorted(rewrite.keys)
    of_person = update(tables.exception).where(_exception.run.in_(runs), _exception.key.in_(keys))
    connection.execute(of_person.values(key="", reason=""))
    drop_keys(connection, tables.rejected, sync, [*keys, *rewrite.rejected])
    if rewrite.uncertain:
        drop_keys(connection, tables.dirty, sync, keys)
