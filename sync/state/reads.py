"""What can be asked of the ledger; every answer is one consistent view."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import bindparam, func, select

from sync.errors import StateError
from sync.sdk.nouns import Op, Status
from sync.state import rows, tables
from sync.state.base import StateReader
from sync.state.database import Database
from sync.state.nouns import (
    Approval,
    Attempt,
    BatchRow,
    BatchState,
    Generation,
    Lease,
    Plan,
    PlanStatus,
    Refresh,
    RejectedRecord,
    Run,
    RunRequest,
)
from sync.state.tables import NOW, OPEN_RUN, STEADY

T = TypeVar("T")

_SYNC: sa.BindParameter[str] = bindparam("sync")
_RUN: sa.BindParameter[str] = bindparam("run")

_lease, _attempt, _run = tables.lease.c, tables.attempt.c, tables.run.c

CLOCK = select(NOW)
_STEADY = select(STEADY)
LEASE = select(tables.lease).where(_lease.sync == _SYNC, _lease.holder != "", _lease.expires > STEADY)
_LEASES = (
    select(tables.lease, (_lease.expires - STEADY).label("left")).where(_lease.holder != "").order_by(_lease.sync)
)
GENERATION = (
    select(tables.generation)
    .where(tables.generation.c.sync == _SYNC)
    .order_by(tables.generation.c.number.desc())
    .limit(1)
)
# Written out, not bound: only then does SQLite see that the partial index answers it.
_IS_OPEN = _run.status.in_(bindparam("open", OPEN_RUN, expanding=True, literal_execute=True))
OPEN = select(tables.run).where(_run.sync == _SYNC, _IS_OPEN)
_UNSETTLED = _attempt.settled.is_(sa.false())
_BARRIER = select(func.max(_attempt.alive_until)).where(
    _attempt.sync == _SYNC, _UNSETTLED, _attempt.run != _RUN, _attempt.alive_until > STEADY
)
_ATTEMPTS = select(tables.attempt).where(_attempt.run == _RUN, _UNSETTLED).order_by(_attempt.id)
_BATCHES = (
    select(*(c for c in tables.batch.c if c.name != "remote_ids"))
    .where(tables.batch.c.run == _RUN)
    .order_by(tables.batch.c.first, tables.batch.c.number)
)


def find_plan(connection: sa.Connection, name: str) -> sa.Row[Any] | None:
    """The plan's row, by id, by digest, or by a prefix of it of at least 6 digits that only one plan has."""
    plan = tables.plan.c
    row = connection.execute(select(tables.plan).where((plan.id == name) | (plan.digest == name))).first()
    if row is not None or len(name) < 6:
        return row
    prefix = plan.digest.startswith(name.lower(), autoescape=True)
    found = connection.execute(select(tables.plan).where(prefix).limit(2)).all()
    return found[0] if len(found) == 1 else None


def _newest(
    table: sa.Table, sync: str | None, among: Collection[str] | None, limit: int, before: str | None
) -> sa.Select[Any]:
    """Rows of runs or plans, newest first, those older than the one with the id `before`."""
    query = select(table).order_by(table.c.seq.desc()).limit(limit)
    if sync is not None:
        query = query.where(table.c.sync == sync)
    if among is not None:
        query = query.where(table.c.sync.in_(among))
    if before is not None:
        query = query.where(table.c.seq < select(table.c.seq).where(table.c.id == before).scalar_subquery())
    return query


class LedgerReader(StateReader):
    """Looks at the ledger; several threads may."""

    def __init__(self, database: Database) -> None:
        self._db = database

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection with one consistent view, for those who keep tables of their own in the ledger (audit)."""
        with self._db.read() as connection:
            yield connection

    def _one(
        self, query: sa.Select[Any], make: Callable[[sa.Row[Any]], T], parameters: Mapping[str, Any] | None = None
    ) -> T | None:
        with self._db.read() as connection:
            row = connection.execute(query, parameters).first()
        return None if row is None else make(row)

    def _all(
        self, query: sa.Select[Any], make: Callable[[sa.Row[Any]], T], parameters: Mapping[str, Any] | None = None
    ) -> list[T]:
        with self._db.read() as connection:
            return [make(row) for row in connection.execute(query, parameters)]

    def _scalar(self, query: sa.Select[Any], parameters: Mapping[str, Any] | None = None) -> Any:
        with self._db.read() as connection:
            return connection.execute(query, parameters).scalar()

    def now(self) -> float:
        """The database's clock."""
        return float(self._scalar(CLOCK))

    def steady(self) -> float:
        """The clock of leases and of `alive_until`."""
        return float(self._scalar(_STEADY))

    def lease(self, sync: str) -> Lease | None:
        """Who holds the sync now; `deadline` is 0: it is not ours to believe."""
        return self._one(LEASE, lambda r: Lease(r.sync, r.holder, r.epoch, r.expires, 0.0), {"sync": sync})

    def leases(self) -> list[tuple[Lease, float]]:
        """Every lease that was not given back, and for how many seconds it lasts; negative where it ran out."""
        return self._all(_LEASES, lambda r: (Lease(r.sync, r.holder, r.epoch, r.expires, 0.0), r.left))

    def generation(self, sync: str, number: int | None = None) -> Generation:
        """The current generation, or that one; raises `StateError` where there never was such a number."""
        if number is None:
            return self._one(GENERATION, rows.generation, {"sync": sync}) or Generation(sync, 0, 0)
        table = tables.generation
        query = select(table).where(table.c.sync == sync, table.c.number == number)
        found = self._one(query, rows.generation)
        if found is None and number == 0:
            return Generation(sync, 0, 0)
        if found is None:
            raise StateError(
                f"{sync} has no generation {number} of members",
                code="HG319",
                fix=f"`headgate state {sync}` lists the generations there are",
            )
        return found

    def generations(self, sync: str) -> list[Generation]:
        """All of a sync's generations, oldest first."""
        table = tables.generation
        return self._all(select(table).where(table.c.sync == sync).order_by(table.c.number), rows.generation)

    def refreshes(self, sync: str, *, accepted: bool | None = None, limit: int = 20) -> list[Refresh]:
        """The newest refreshes, newest first."""
        table = tables.refresh
        query = select(table).where(table.c.sync == sync).order_by(table.c.seq.desc()).limit(limit)
        if accepted is not None:
            query = query.where(table.c.accepted.is_(sa.true() if accepted else sa.false()))
        return self._all(query, rows.refresh)

    def refresh(self, id: str) -> Refresh | None:
        """One refresh."""
        return self._one(select(tables.refresh).where(tables.refresh.c.id == id), rows.refresh)

    def plan(self, name: str) -> Plan | None:
        """A plan by its id, its digest or a prefix of it; None where no plan, or more than one, has it."""
        with self._db.read() as connection:
            row = find_plan(connection, name)
        return None if row is None else rows.plan(row)

    def plans(
        self,
        sync: str | None = None,
        *statuses: PlanStatus,
        among: Collection[str] | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Plan]:
        """Plans, newest first."""
        table = tables.plan
        query = _newest(table, sync, among, limit, before)
        if statuses:
            query = query.where(table.c.status.in_([s.value for s in statuses]))
        return self._all(query, rows.plan)

    def approvals(self, plan: str) -> list[Approval]:
        """The decisions that count for a plan: those since it was last made. Oldest first."""
        table = tables.approval
        query = (
            select(table)
            .join(tables.plan, (tables.plan.c.id == table.c.plan) & (tables.plan.c.round == table.c.round))
            .where(table.c.plan == plan)
            .order_by(table.c.seq)
        )
        return self._all(query, rows.approval)

    def run(self, id: str) -> Run | None:
        """One run."""
        return self._one(select(tables.run).where(_run.id == id), rows.run)

    def runs(
        self,
        sync: str | None = None,
        *,
        among: Collection[str] | None = None,
        limit: int = 20,
        before: str | None = None,
    ) -> list[Run]:
        """Runs, newest first."""
        return self._all(_newest(tables.run, sync, among, limit, before), rows.run)

    def last_ended(self, sync: str) -> int:
        """The number of the newest run that has ended; 0 where none has."""
        query = select(func.max(_run.seq)).where(_run.sync == sync, _run.finished_at.is_not(None))
        return int(self._scalar(query) or 0)

    def runs_since(self, sync: str, number: int, *, limit: int = 100) -> list[tuple[int, Run]]:
        """The runs after that number, each with its own, oldest first, up to the first that has not ended."""
        query = select(tables.run).where(_run.sync == sync, _run.seq > number).order_by(_run.seq).limit(limit)
        found = self._all(query, lambda row: (int(row.seq), rows.run(row)))
        return list(itertools.takewhile(lambda one: one[1].finished_at is not None, found))

    def open_run(self, sync: str) -> Run | None:
        """The run that was interrupted while it was sending or waiting; there is never more than one."""
        return self._one(OPEN, rows.run, {"sync": sync})

    def open_runs(self) -> list[Run]:
        """Every run that is sending or waiting, or was interrupted in that; oldest first."""
        return self._all(select(tables.run).where(_IS_OPEN).order_by(_run.seq), rows.run)

    def batches(self, run: str, *states: BatchState) -> list[BatchRow]:
        """A run's batches in delivery order."""
        query = _BATCHES.where(tables.batch.c.state.in_([s.value for s in states])) if states else _BATCHES
        return self._all(query, rows.batch, {"run": run})

    def exceptions(self, run: str) -> list[tuple[int, str, Op, Status, str]]:
        """A run's records that were not plainly applied, by row of the plan file."""
        table = tables.exception
        query = select(table.c.row, table.c.key, table.c.op, table.c.status, table.c.reason)
        query = query.where(table.c.run == run).order_by(table.c.row)
        return self._all(query, lambda r: (r.row, r.key, Op(r.op), Status(r.status), r.reason))

    def remote_ids(self, run: str) -> dict[int, str]:
        """Row of the plan file -> the platform's own id, as far as this run's receipts told."""
        batch = tables.batch.c
        query = select(batch.remote_ids).where(batch.run == run, batch.remote_ids.is_not(None))
        told: dict[int, str] = {}
        for ids in self._all(query, lambda r: json.loads(r.remote_ids)):
            told |= {int(row): remote for row, remote in ids.items()}
        return told

    def attempts(self, run: str) -> list[Attempt]:
        """A run's unsettled attempts, oldest first; some may be dead by now."""
        return self._all(_ATTEMPTS, rows.attempt, {"run": run})

    def barrier(self, sync: str, run: str) -> float:
        """Until when an unsettled attempt of another run of this sync can be alive; 0 where none can."""
        return float(self._scalar(_BARRIER, {"sync": sync, "run": run}) or 0.0)

    def dirty(self, sync: str) -> list[tuple[str, str, int, Op]]:
        """Members whose state at the destination is uncertain: (key, run, row of its plan file, op)."""
        table = tables.dirty
        query = select(table.c.key, table.c.run, table.c.row, table.c.op).where(table.c.sync == sync)
        return self._all(query.order_by(table.c.key), lambda r: (r.key, r.run, r.row, Op(r.op)))

    def rejected(self, sync: str | None = None, *, given_up: bool | None = None) -> list[RejectedRecord]:
        """Rejected records, newest first."""
        table = tables.rejected
        query = select(table).order_by(table.c.last_at.desc(), table.c.sync, table.c.key)
        if sync is not None:
            query = query.where(table.c.sync == sync)
        if given_up is not None:
            at = table.c.given_up_at
            query = query.where(at.is_not(None) if given_up else at.is_(None))
        return self._all(query, rows.rejected)

    def undelivered(self, sync: str) -> tuple[int, int]:
        """How many records are refused and not given up, and of how many the outcome is unknown."""
        rejected = tables.rejected.c
        refused = select(func.count()).select_from(tables.rejected)
        refused = refused.where(rejected.sync == sync, rejected.given_up_at.is_(None))
        dirty = select(func.count()).select_from(tables.dirty).where(tables.dirty.c.sync == sync)
        return int(self._scalar(refused)), int(self._scalar(dirty))

    def removed_since(self, sync: str, since: float) -> int:
        """Removals acknowledged in runs that ended since then and that no person approved."""
        query = select(func.sum(_run.removed))
        query = query.where(_run.sync == sync, _run.finished_at >= since, _run.approved.is_(sa.false()))
        return int(self._scalar(query) or 0)

    def requests(self, sync: str | None = None, *, open_only: bool = True) -> list[RunRequest]:
        """Run requests, oldest first."""
        table = tables.run_request
        query = select(table).order_by(table.c.at, table.c.sync, table.c.slot)
        if sync is not None:
            query = query.where(table.c.sync == sync)
        return self._all(query.where(table.c.taken_at.is_(None)) if open_only else query, rows.request)

    def unanswered(self, sync: str) -> list[RunRequest]:
        """Requests that were taken and not answered, oldest first: somebody is at work on them, or was."""
        table = tables.run_request
        query = select(table).where(
            table.c.sync == sync, table.c.taken_at.is_not(None), table.c.ended_at.is_(None)
        )
        return self._all(query.order_by(table.c.at, table.c.slot), rows.request)

    def request(self, sync: str, slot: str) -> RunRequest | None:
        """One run request."""
        table = tables.run_request
        return self._one(select(table).where(table.c.sync == sync, table.c.slot == slot), rows.request)

    def person(self, actor: str) -> str:
        """Who stands behind an actor."""
        token = tables.token.c
        kind, _, name = actor.partition(":")
        owner = self._scalar(select(token.created_by).where(token.name == name)) if kind == "token" else None
        return owner or actor

    def last_slot(self, sync: str) -> str | None:
        """The newest slot of the schedule that was ever asked for.

        Slots of a schedule are instants (ISO 8601) and sort as text; what is asked for after an interruption is
        named after an instant, too, and does not count.
        """
        table = tables.run_request
        of_schedule = select(func.max(table.c.slot)).where(table.c.sync == sync, table.c.why == "schedule")
        found: str | None = self._scalar(of_schedule)
        return found

    def paused(self) -> dict[str, str]:
        """Paused syncs and destinations -> the reason."""
        table = tables.paused
        return dict(
            self._all(select(table.c.name, table.c.reason).order_by(table.c.name), lambda r: (r.name, r.reason))
        )

    def note(self, sync: str, name: str) -> str | None:
        """A remembered fact about a sync."""
        table = tables.note
        found: str | None = self._scalar(select(table.c.value).where(table.c.sync == sync, table.c.name == name))
        return found
