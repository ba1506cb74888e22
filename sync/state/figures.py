"""Figures of every sync at once, for those who ask every few seconds: a handful of queries, however many syncs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy import func, select

from sync.state import tables
from sync.state.nouns import PlanStatus, RunStatus
from sync.state.reads import LedgerReader
from sync.state.tables import NOW, STEADY

__all__ = ["Figures", "figures"]

_lease, _run, _plan, _refresh = tables.lease.c, tables.run.c, tables.plan.c, tables.refresh.c
_generation, _request = tables.generation.c, tables.run_request.c

# Written out, not bound: only then does SQLite see that a partial index answers it.
_HELD = _plan.status == sa.literal(PlanStatus.HELD.value, literal_execute=True)
_DELIVERED = (RunStatus.COMPLETED.value, RunStatus.COMPLETED_WITH_ERRORS.value)


@dataclass(slots=True)
class Figures:
    """What the ledger knows of one sync. Times are seconds since the epoch; ages and lags are in seconds."""

    members: int = 0
    rejected: int = 0
    unknown: int = 0
    held_plans: int = 0
    held_since: float | None = None
    newest: float | None = None  # of the source, as last seen
    waiting: int = 0  # requests that nobody took
    asked_at: float | None = None  # the oldest of them
    slot: str | None = None  # of the oldest of them that a schedule made
    last_run: float | None = None
    last_status: str = ""
    last_success: float | None = None
    lease_left: float | None = None  # until it runs out, negative since then; None where it was given back

    @property
    def runs(self) -> bool:
        """Does a process run it now, as far as its lease tells."""
        return self.lease_left is not None and self.lease_left > 0

    @property
    def left_open(self) -> bool:
        """Was its newest run left in the middle of sending, and nobody is at it: the next one goes on with it."""
        return self.last_status == RunStatus.SENDING and not self.runs


def figures(ledger: LedgerReader) -> tuple[float, dict[str, Figures]]:
    """The ledger's time, and the figures by sync: of every sync that ran or that is asked for."""
    found: dict[str, Figures] = {}
    with ledger.reading() as connection:
        now = float(connection.execute(select(NOW)).scalar_one())
        for query in _QUERIES:
            for sync, *values in connection.execute(query, {"now": now}):
                _learn(found.setdefault(sync, Figures()), query.selected_columns.keys()[1:], values)
        for sync, slot, at in connection.execute(_WAITING):
            _wait(found.setdefault(sync, Figures()), slot, at)
    return now, found


def _learn(one: Figures, names: Iterable[str], values: Iterable[Any]) -> None:
    for name, value in zip(names, values, strict=True):
        setattr(one, name, value)


def _wait(one: Figures, slot: str, at: float) -> None:
    """Count a request. Slots of a schedule begin with a digit, those of a person's wish with a letter."""
    one.waiting += 1
    one.asked_at = at if one.asked_at is None else min(one.asked_at, at)
    if slot < ":":
        one.slot = slot if one.slot is None else min(one.slot, slot)


_WAITING = select(_request.sync, _request.slot, _request.at).where(_request.taken_at.is_(None))


def _newest(column: sa.Column[Any], sync: sa.Column[str]) -> sa.ScalarSelect[Any]:
    """The highest number that a sync has in a table: one look into the index."""
    return select(func.max(column)).where(sync == _lease.sync).correlate(tables.lease).scalar_subquery()


# Every sync that ever ran has a row in `lease`: from there each table is looked into once a sync.
_QUERIES: tuple[sa.Select[Any], ...] = (
    select(_lease.sync, (_lease.expires - STEADY).label("lease_left")).where(_lease.holder != ""),
    select(
        _lease.sync,
        func.coalesce(
            select(_generation.members)
            .where(_generation.sync == _lease.sync)
            .order_by(_generation.number.desc())
            .limit(1)
            .correlate(tables.lease)
            .scalar_subquery(),
            0,
        ).label("members"),
    ),
    select(_lease.sync, func.coalesce(_refresh.newest, _refresh.at).label("newest")).join_from(
        tables.lease, tables.refresh, _refresh.seq == _newest(_refresh.seq, _refresh.sync)
    ),
    select(
        _lease.sync,
        func.coalesce(_run.finished_at, _run.started_at).label("last_run"),
        _run.status.label("last_status"),
    ).join_from(tables.lease, tables.run, _run.seq == _newest(_run.seq, _run.sync)),
    select(
        _lease.sync,
        select(_run.finished_at)
        .where(_run.sync == _lease.sync, _run.status.in_(_DELIVERED))
        .order_by(_run.finished_at.desc())
        .limit(1)
        .correlate(tables.lease)
        .scalar_subquery()
        .label("last_success"),
    ),
    select(_plan.sync, func.count().label("held_plans"), func.min(_plan.created_at).label("held_since"))
    .where(_HELD, _plan.expires_at > sa.bindparam("now", type_=sa.Double))
    .group_by(_plan.sync),
    select(tables.rejected.c.sync, func.count().label("rejected"))
    .where(tables.rejected.c.given_up_at.is_(None))
    .group_by(tables.rejected.c.sync),
    select(tables.dirty.c.sync, func.count().label("unknown")).group_by(tables.dirty.c.sync),
)
