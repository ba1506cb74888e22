"""Runs, their batches and the requests that carry them: intent before the first byte, receipt after the last.

Each step of a batch is a compare-and-set on its state under the lease's fence: either alone would keep a late
writer out, and both are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, case, insert, select, update

from sync.errors import StateError
from sync.faultpoints import durable
from sync.sdk.nouns import Job, Status
from sync.state import rows, tables
from sync.state.leases import LeaseLedger
from sync.state.nouns import Attempt, BatchRow, BatchState, Event, Lease, Outcomes, Run, RunStatus
from sync.state.tables import OPEN_RUN, STEADY

__all__ = ["RunLedger", "out_of_order"]

_batch, _attempt, _run = tables.batch.c, tables.attempt.c, tables.run.c

_PLANNED, _INTENT, _JOB = BatchState.PLANNED.value, BatchState.INTENT.value, BatchState.JOB.value
_AWAITED = (_INTENT, _JOB)

# A parameter may not be named like a column that the statement writes.
_THIS_BATCH = (_batch.run == bindparam("of"), _batch.number == bindparam("at"))
_SIZE = _batch.last - _batch.first + 1
_UNSETTLED = _attempt.settled.is_(sa.false())

_INTEND = (
    update(tables.batch)
    .where(*_THIS_BATCH, _batch.state.in_((_PLANNED, *_AWAITED)))
    # A job stays one: after a crash it is polled again, not sent again.
    .values(state=case((_batch.state == _JOB, _JOB), else_=_INTENT), attempts=_batch.attempts + 1)
)
_ATTEMPT = (
    insert(tables.attempt)
    .values(
        sync=bindparam("sync"),
        run=bindparam("run"),
        batch=bindparam("batch"),
        epoch=bindparam("epoch"),
        alive_until=STEADY + bindparam("alive_for", type_=sa.Double),
        settled=False,
    )
    .returning(_attempt.id, _attempt.alive_until)
)
_SETTLE = update(tables.attempt).where(_attempt.id == bindparam("this"), _UNSETTLED).values(settled=True)
_BACK = (
    update(tables.batch)
    .where(
        *_THIS_BATCH,
        _batch.state == _INTENT,
        ~select(_attempt.id)
        .where(_attempt.run == _batch.run, _attempt.batch == _batch.number, _UNSETTLED)
        .exists(),
    )
    .values(state=_PLANNED)
)
_ACKNOWLEDGE = (
    update(tables.batch)
    .where(*_THIS_BATCH, _batch.state.in_(_AWAITED), bindparam("total") == _SIZE)
    .values(
        state=BatchState.ACKED.value,
        job=None,
        **{n: bindparam(n) for n in ("applied", "accepted", "rejected", "deferred", "unknown", "remote_ids")},
    )
)
_KEEP_JOB = (
    update(tables.batch).where(*_THIS_BATCH, _batch.state.in_(_AWAITED)).values(state=_JOB, job=bindparam("job"))
)
_SPLIT = (
    update(tables.batch)
    .where(*_THIS_BATCH, _batch.state.in_(_AWAITED))
    .values(state=BatchState.SPLIT.value, job=None)
)
_PARK = (
    update(tables.batch)
    .where(*_THIS_BATCH, _batch.state.in_(_AWAITED))
    .values(state=BatchState.PARKED.value, unknown=_SIZE)
)
_EXCEPTION = insert(tables.exception)


def out_of_order(what: str) -> StateError:
    """The error of a write that the commit protocol forbids; nothing was written."""
    return StateError(
        what,
        code="HG318",
        fix="nothing is lost, the ledger is as it was: run the sync again; report it if it comes back",
    )


class RunLedger(LeaseLedger):
    """Keeps a run from its first intent to its last receipt."""

    @durable
    def open(self, lease: Lease, run: Run, batches: Sequence[BatchRow], events: Sequence[Event] = ()) -> None:
        """Keep the run and all its batches before anything is sent; refused while the sync has an open run."""
        if run.sync != lease.sync or any(b.run != run.id for b in batches):
            raise out_of_order(f"run {run.id} is opened with another sync's lease or another run's batches")
        with self._fenced(lease) as connection:
            connection.execute(insert(tables.run), {**_run_values(run), "epoch": lease.epoch})
            _insert_batches(connection, batches)
            self._record(connection, events)

    @durable
    def add_run(self, run: Run, events: Sequence[Event] = ()) -> None:
        """Keep a run that sends nothing."""
        with self._db.write() as connection:
            connection.execute(insert(tables.run), _run_values(run))
            self._record(connection, events)

    @durable
    def set_run(self, lease: Lease, run: str, status: RunStatus) -> None:
        """Move an open run to `sending` or `waiting`; it also takes the lease's epoch."""
        with self._fenced(lease) as connection:
            move = update(tables.run).where(_run.id == run, _run.sync == lease.sync, _run.status.in_(OPEN_RUN))
            moved = connection.execute(move.values(status=status.value, epoch=lease.epoch)).rowcount
            if not moved or status.value not in OPEN_RUN:
                raise out_of_order(
                    f"run {run} of {lease.sync} is not open, or {status.value} is not a step of one"
                )

    @durable
    def intend(self, lease: Lease, run: str, batch: int, alive_for: float) -> Attempt:
        """Commit, before the first byte, that a request is about to leave: to send the batch or to poll its job.

        `alive_for` is in seconds; the attempt's `alive_until` is by the steady clock.
        """
        with self._fenced(lease) as connection:
            _step(connection, _INTEND, run, batch, "sent")
            values = {"sync": lease.sync, "run": run, "batch": batch, "epoch": lease.epoch, "alive_for": alive_for}
            made = connection.execute(_ATTEMPT, values).one()
        return Attempt(made.id, run, batch, lease.epoch, made.alive_until)

    @durable
    def settle(self, lease: Lease, attempt: Attempt) -> None:
        """The destination answered this attempt, and nothing was applied.

        Where no other attempt of the batch is without an answer, the batch is planned again.
        """
        with self._fenced(lease) as connection:
            connection.execute(_SETTLE, {"this": attempt.id})
            connection.execute(_BACK, {"of": attempt.run, "at": attempt.batch})

    @durable
    def acknowledge(self, lease: Lease, attempt: Attempt, outcomes: Outcomes) -> None:
        """Keep the answer, once; refused unless it speaks for every record of the batch exactly once."""
        said = Counter(status for _, _, _, status, _ in outcomes.exceptions)
        counts = {s.value: said[s] for s in (Status.REJECTED, Status.DEFERRED, Status.UNKNOWN)}
        counts |= {"applied": outcomes.applied, "accepted": outcomes.accepted}
        remote = {row: rows.clean(id) for row, id in outcomes.remote_ids.items()}
        kept = counts | {"total": sum(counts.values()), "remote_ids": rows.to_json(remote) if remote else None}
        exceptions = [
            {
                "run": attempt.run,
                "row": row,
                "key": key,
                "op": op.value,
                "status": status.value,
                "reason": rows.clean(reason),
            }
            for row, key, op, status, reason in outcomes.exceptions
        ]
        with self._fenced(lease) as connection:
            _step(connection, _ACKNOWLEDGE, attempt.run, attempt.batch, "acknowledged", kept)
            connection.execute(_SETTLE, {"this": attempt.id})
            if exceptions:
                connection.execute(_EXCEPTION, exceptions)

    @durable
    def keep_job(self, lease: Lease, attempt: Attempt, job: Job) -> None:
        """The platform finishes this batch later, or said how far it is; the attempt is settled with it."""
        with self._fenced(lease) as connection:
            _step(connection, _KEEP_JOB, attempt.run, attempt.batch, "left to a job", {"job": rows.job_text(job)})
            connection.execute(_SETTLE, {"this": attempt.id})

    @durable
    def split(self, lease: Lease, attempt: Attempt, children: Sequence[BatchRow]) -> None:
        """Replace a refused batch by smaller ones, which together have exactly its rows."""
        with self._fenced(lease) as connection:
            _step(connection, _SPLIT, attempt.run, attempt.batch, "split")
            query = select(_batch.first, _batch.last).where(*_THIS_BATCH)
            parent = connection.execute(query, {"of": attempt.run, "at": attempt.batch}).one()
            if not _covers(attempt, children, parent.first, parent.last):
                raise out_of_order(f"the parts of batch {attempt.batch} of run {attempt.run} do not add up to it")
            _insert_batches(connection, children)
            connection.execute(_SETTLE, {"this": attempt.id})

    @durable
    def park(self, lease: Lease, run: str, batch: int) -> None:
        """Nobody can tell what became of this batch, and it must not be sent again: all of it is unknown.

        Its attempts stay unsettled: a request may still be alive.
        """
        with self._fenced(lease) as connection:
            _step(connection, _PARK, run, batch, "parked")


def _run_values(run: Run) -> dict[str, Any]:
    return {**rows.values(run), "removed": 0}


def _insert_batches(connection: sa.Connection, batches: Sequence[BatchRow]) -> None:
    if batches:
        values = [{**rows.values(b), "job": rows.job_text(b.job) if b.job else None} for b in batches]
        connection.execute(insert(tables.batch), values)


def _covers(attempt: Attempt, children: Sequence[BatchRow], first: int, last: int) -> bool:
    following = first
    for child in sorted(children, key=lambda c: c.first):
        if (child.run, child.parent, child.first) != (attempt.run, attempt.batch, following) or child.size < 1:
            return False
        following = child.last + 1
    return following == last + 1


def _step(
    connection: sa.Connection,
    statement: sa.Update,
    run: str,
    batch: int,
    done: str,
    values: dict[str, Any] | None = None,
) -> None:
    """Move a batch on, or say why it cannot be."""
    this = {"of": run, "at": batch}
    if connection.execute(statement, this | (values or {})).rowcount == 1:
        return
    found = connection.execute(select(_batch.state, _SIZE.label("size")).where(*_THIS_BATCH), this).first()
    if found is None:
        raise StateError(f"run {run} has no batch {batch}", code="HG319", fix="`headgate status` lists the runs")
    total = (values or {}).get("total", found.size)
    if total != found.size:
        raise out_of_order(
            f"the answer to batch {batch} of run {run} speaks for {total} of its {found.size} records"
        )
    raise out_of_order(f"batch {batch} of run {run} cannot be {done}: it is {found.state}")
