"""The end of a run: everything that becomes true with it, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, delete, func, insert, select, update

from sync.errors import Fenced
from sync.faultpoints import durable
from sync.sdk.nouns import Op
from sync.state import rows, tables
from sync.state.database import upsert
from sync.state.leases import LeaseLedger
from sync.state.nouns import BatchState, Event, Generation, Lease, RejectedRecord, RunStatus, Settlement
from sync.state.reads import GENERATION, OPEN
from sync.state.sending import out_of_order
from sync.state.tables import NOW

__all__ = ["SettleLedger", "present"]

_batch, _run, _dirty, _rejected = tables.batch.c, tables.run.c, tables.dirty.c, tables.rejected.c

_COMPLETED = (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)
_UNDER_WAY = (BatchState.INTENT.value, BatchState.JOB.value)


def _replacing(table: sa.Table) -> Any:
    """An insert that takes the place of the row with the same sync and key."""
    statement = upsert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.c if c.name not in ("sync", "key")}
    return statement.on_conflict_do_update(index_elements=[table.c.sync, table.c.key], set_=rest)


_PUT_REJECTED = _replacing(tables.rejected)
_PUT_DIRTY = _replacing(tables.dirty)
_ANSWERED = (
    select(_batch.op, func.sum(_batch.applied + _batch.accepted).label("records"))
    .where(_batch.run == bindparam("run"), _batch.state == BatchState.ACKED.value)
    .group_by(_batch.op)
)


class SettleLedger(LeaseLedger):
    """Ends runs, and names generations."""

    @durable
    def finish(self, lease: Lease, run: str, settlement: Settlement) -> None:
        """End an open run: see `Settlement`.

        Planned batches become cancelled. Those without an answer are parked: their records are unknown. A run
        with such batches cannot be completed, that raises `StateError`. Raises `Fenced` where the current
        generation is not the one before `settlement.generation`.
        """
        with self._fenced(lease) as connection:
            found = connection.execute(OPEN, {"sync": lease.sync}).first()
            if found is None or found.id != run:
                raise out_of_order(f"run {run} of {lease.sync} is not open: it cannot end")
            if settlement.status in _COMPLETED:
                _refuse_under_way(connection, run)
            if settlement.generation is not None:
                _name(connection, lease, settlement.generation)
            _close_batches(connection, run)
            _end(connection, run, settlement, _removed(connection, run, settlement.counts))
            self._settle_rest(connection, lease.sync, found, settlement)
            self._record(connection, settlement.events)

    def _settle_rest(self, connection: sa.Connection, sync: str, run: sa.Row[Any], settlement: Settlement) -> None:
        if settlement.plan_status is not None and run.plan is not None:
            move = update(tables.plan).where(tables.plan.c.id == run.plan)
            connection.execute(move.values(status=settlement.plan_status.value))
        if settlement.accept_refresh is not None:
            accept = update(tables.refresh).where(tables.refresh.c.id == settlement.accept_refresh)
            connection.execute(accept.values(accepted=True))
        # What is certain goes before what is not: a key in both is uncertain, or still rejected.
        drop_keys(connection, tables.rejected, sync, settlement.resolved)
        drop_keys(connection, tables.dirty, sync, settlement.clean)
        _put_rejected(connection, settlement.rejected)
        if settlement.dirty:
            uncertain = [
                {"sync": sync, "key": key, "run": run.id, "row": row, "op": op.value}
                for key, row, op in settlement.dirty
            ]
            connection.execute(_PUT_DIRTY, uncertain)

    @durable
    def drop_rejected(self, lease: Lease, keys: Iterable[str]) -> None:
        """These keys of the lease's sync are in step with the source again."""
        with self._fenced(lease) as connection:
            drop_keys(connection, tables.rejected, lease.sync, keys)

    @durable
    def move(self, lease: Lease, generation: Generation, events: Sequence[Event] = ()) -> None:
        """Name the same members, kept in another place, as the current generation, numbered one more.

        Nothing else is touched. Raises `StateError` while a run is open: it has yet to write the next generation.
        """
        with self._fenced(lease) as connection:
            if connection.execute(OPEN, {"sync": lease.sync}).first() is not None:
                raise out_of_order(f"a run of {lease.sync} is open: its members cannot be moved")
            _name(connection, lease, generation)
            self._record(connection, events)

    @durable
    def reset(self, lease: Lease, generation: Generation, events: Sequence[Event] = ()) -> None:
        """Name another generation, numbered one more than the current, as the current one.

        Rejected and dirty rows go. An open run is cancelled, and those of its batches that may have been sent
        are parked; their requests still hold back the next run until they are dead.
        """
        with self._fenced(lease) as connection:
            _name(connection, lease, generation)
            for table in (tables.rejected, tables.dirty):
                connection.execute(delete(table).where(table.c.sync == lease.sync))
            found = connection.execute(OPEN, {"sync": lease.sync}).first()
            if found is not None:
                _close_batches(connection, found.id)
                ended = update(tables.run).where(_run.id == found.id)
                connection.execute(ended.values(status=RunStatus.CANCELLED.value, finished_at=NOW))
            self._record(connection, events)


def present(connection: sa.Connection, table: sa.Table, sync: str, keys: Iterable[str]) -> list[str]:
    """Those of the keys that the table has; it has few where the keys may be a million."""
    have = set(connection.execute(select(table.c.key).where(table.c.sync == sync)).scalars())
    return sorted(have.intersection(keys)) if have else []


def drop_keys(connection: sa.Connection, table: sa.Table, sync: str, keys: Iterable[str]) -> None:
    """Delete a sync's rows with these keys."""
    gone = present(connection, table, sync, keys)
    if gone:
        statement = delete(table).where(table.c.sync == bindparam("of"), table.c.key == bindparam("this"))
        connection.execute(statement, [{"of": sync, "this": key} for key in gone])


def _put_rejected(connection: sa.Connection, records: Sequence[RejectedRecord]) -> None:
    if records:
        connection.execute(_PUT_REJECTED, [rows.values(record) for record in records])


def _refuse_under_way(connection: sa.Connection, run: str) -> None:
    query = select(_batch.number).where(_batch.run == run, _batch.state.in_(_UNDER_WAY)).limit(1)
    batch = connection.execute(query).scalar()
    if batch is not None:
        raise out_of_order(f"run {run} cannot be completed: a request of its batch {batch} may still be under way")


def _close_batches(connection: sa.Connection, run: str) -> None:
    """What was never sent is cancelled; what has no answer is parked, its attempts stay unsettled."""
    these = update(tables.batch).where(_batch.run == run)
    never_sent, no_answer = _batch.state == BatchState.PLANNED.value, _batch.state.in_(_UNDER_WAY)
    connection.execute(these.where(never_sent).values(state=BatchState.CANCELLED.value))
    size = _batch.last - _batch.first + 1
    connection.execute(these.where(no_answer).values(state=BatchState.PARKED.value, unknown=size))


def _removed(connection: sa.Connection, run: str, counts: Mapping[str, int]) -> int:
    """Removals that the destination acknowledged.

    A batch of mixed ops does not say how many of its records are removals: then at most as many as were planned
    (`counts["remove"]`), for too many is the safe side of what is judged by them.
    """
    answered = {row.op: row.records for row in connection.execute(_ANSWERED, {"run": run})}
    removed = int(answered.get(Op.REMOVE.value, 0))
    mixed = int(answered.get("mixed", 0))
    return min(removed + mixed, counts.get("remove", removed + mixed)) if mixed else removed


def _end(connection: sa.Connection, run: str, settlement: Settlement, removed: int) -> None:
    ended = update(tables.run).where(_run.id == run)
    connection.execute(
        ended.values(
            status=settlement.status.value,
            finished_at=NOW,
            counts=rows.to_json(dict(settlement.counts)),
            error=None if settlement.error is None else rows.to_json(dict(settlement.error)),
            removed=removed,
        )
    )


def _name(connection: sa.Connection, lease: Lease, generation: Generation) -> None:
    """Make it the current generation: a compare-and-set on the number before it."""
    current = connection.execute(GENERATION, {"sync": lease.sync}).first()
    number = 0 if current is None else current.number
    if generation.sync != lease.sync or generation.number != number + 1:
        raise Fenced(
            f"{lease.sync} is at generation {number} of its members, so {generation.number} cannot follow",
            fix="somebody else moved it on: run the sync again, it plans anew from what is there",
        )
    connection.execute(insert(tables.generation).values(rows.values(generation)))
