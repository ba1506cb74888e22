"""What the ledger keeps for how long: rows that nobody needs any more are deleted, a sync at a time.

Never what is open, held, approved or undelivered, what a later run or an undo stands on, and never the audit log.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import delete, func, or_, select

from sync.faultpoints import durable
from sync.state import tables
from sync.state.leases import LeaseLedger
from sync.state.nouns import LIVE_PLANS, Expiry, Lease
from sync.state.tables import OPEN_RUN

__all__ = ["AT_ONCE", "RetentionLedger"]

_run, _plan, _refresh = tables.run.c, tables.plan.c, tables.refresh.c
_generation, _request = tables.generation.c, tables.run_request.c

NEWEST_RUNS, NEWEST_REFRESHES = 50, 50
"""So many of a sync stay, however old: what is shown, and what the next plan is judged by."""
AT_ONCE = 2000
"""Runs deleted in one transaction at most: others wait for it."""


class RetentionLedger(LeaseLedger):
    """Forgets what is old."""

    @durable
    def prune(self, lease: Lease, expiry: Expiry) -> dict[str, int]:
        """Delete what expired of the lease's sync; returns how many rows of each kind went.

        At most `AT_ONCE` runs: whoever gets as many calls again.
        """
        sync = lease.sync
        with self._fenced(lease) as connection:
            generations = _generations(connection, sync, expiry.generations)
            runs = _runs(connection, sync, expiry)
            plans = _plans(connection, sync, expiry.runs)
            return {
                "runs": runs,
                "plans": plans,
                "refreshes": _refreshes(connection, sync, expiry.unchanged),
                "requests": _requests(connection, sync, expiry.unchanged),
                "generations": generations,
            }


def _runs(connection: sa.Connection, sync: str, expiry: Expiry) -> int:
    nothing_done = _run.plan.is_(None) & _run.error.is_(None)
    newest = select(_run.seq).where(_run.sync == sync).order_by(_run.seq.desc()).limit(NEWEST_RUNS)
    conditions = [
        _run.sync == sync,
        _run.status.not_in(OPEN_RUN),
        _run.finished_at < sa.case((nothing_done, expiry.unchanged), else_=expiry.runs),
        _run.seq.not_in(newest),
        _run.id.not_in(select(tables.dirty.c.run).where(tables.dirty.c.sync == sync)),
        _run.id.not_in(select(tables.rejected.c.run).where(tables.rejected.c.sync == sync)),
        _run.id.not_in(select(_generation.run).where(_generation.sync == sync)),
        _run.id.not_in(select(_plan.origin).where(_plan.sync == sync, _plan.status.in_(LIVE_PLANS))),
        _run.id.not_in(sorted(expiry.needed)),
    ]
    if expiry.from_run:
        first = connection.execute(select(_run.seq).where(_run.id == expiry.from_run)).scalar()
        conditions.append(_run.seq < (first or 0))
    query = select(_run.id).where(*conditions).order_by(_run.seq).limit(AT_ONCE)
    gone = list(connection.execute(query).scalars())
    for table in (tables.exception, tables.attempt, tables.batch):
        _delete(connection, table.c.run, gone)
    _delete(connection, _run.id, gone)
    return len(gone)


def _plans(connection: sa.Connection, sync: str, before: float) -> int:
    """Plans that are over, and their decisions; those that a run or a generation names stay."""
    query = select(_plan.id).where(
        _plan.sync == sync,
        or_(_plan.status.not_in(LIVE_PLANS), _plan.expires_at < before),
        _plan.created_at < before,
        _plan.id.not_in(select(_run.plan).where(_run.sync == sync, _run.plan.is_not(None))),
    )
    gone = list(connection.execute(query.order_by(_plan.seq).limit(AT_ONCE)).scalars())
    _delete(connection, tables.approval.c.plan, gone)
    _delete(connection, _plan.id, gone)
    return len(gone)


def _refreshes(connection: sa.Connection, sync: str, before: float) -> int:
    newest = (
        select(_refresh.seq).where(_refresh.sync == sync).order_by(_refresh.seq.desc()).limit(NEWEST_REFRESHES)
    )
    accepted = newest.where(_refresh.accepted.is_(sa.true()))
    query = select(_refresh.id).where(
        _refresh.sync == sync,
        _refresh.at < before,
        _refresh.seq.not_in(newest),
        _refresh.seq.not_in(accepted),
        _refresh.id.not_in(select(_plan.refresh).where(_plan.sync == sync)),
        _refresh.id.not_in(select(_generation.refresh).where(_generation.sync == sync)),
    )
    gone = list(connection.execute(query.limit(2 * AT_ONCE)).scalars())
    _delete(connection, _refresh.id, gone)
    return len(gone)


def _requests(connection: sa.Connection, sync: str, before: float) -> int:
    """Requests that were answered, but the newest slot of the schedule: the next one is counted from it."""
    newest = select(func.max(_request.slot)).where(_request.sync == sync, _request.why == "schedule")
    statement = delete(tables.run_request).where(
        _request.sync == sync,
        _request.ended_at < before,
        _request.slot != func.coalesce(newest.scalar_subquery(), ""),
    )
    return int(connection.execute(statement).rowcount)


def _generations(connection: sa.Connection, sync: str, before: float) -> int:
    """Generations older than the one that was current at `before`: that one is what the next run began with."""
    kept = (
        select(func.max(_generation.number))
        .where(_generation.sync == sync, _generation.at < before)
        .scalar_subquery()
    )
    statement = delete(tables.generation).where(_generation.sync == sync, _generation.number < kept)
    return int(connection.execute(statement).rowcount)


def _delete(connection: sa.Connection, column: sa.Column[Any], values: list[str]) -> None:
    for start in range(0, len(values), 500):
        connection.execute(delete(column.table).where(column.in_(values[start : start + 500])))
