"""Leases: who may run a sync, and the fence in front of every write of a run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import sqlalchemy as sa
from sqlalchemy import bindparam, select, update

from sync.durations import format_duration
from sync.errors import Fenced, LeaseHeld
from sync.faultpoints import durable
from sync.state import tables
from sync.state.base import State
from sync.state.database import Database, upsert
from sync.state.holder import boot_clock, describe
from sync.state.nouns import Event, Lease
from sync.state.reads import LedgerReader
from sync.state.tables import STEADY

__all__ = ["LeaseLedger", "Record"]

Record = Callable[[sa.Connection, Event], None]
"""Appends one event to the audit log, inside the transaction of what it tells of."""

_lease = tables.lease.c
_TTL = bindparam("ttl", type_=sa.Double)
# A parameter may not be named like a column that the statement writes.
_OURS = (_lease.sync == bindparam("of"), _lease.epoch == bindparam("at"), _lease.holder == bindparam("by"))

_ACQUIRE = (
    upsert(tables.lease)
    .values(sync=bindparam("sync"), holder=bindparam("holder"), epoch=1, expires=STEADY + _TTL)
    .on_conflict_do_update(
        index_elements=[_lease.sync],
        set_={"holder": bindparam("holder"), "epoch": _lease.epoch + 1, "expires": STEADY + _TTL},
        where=(_lease.expires <= STEADY) | (_lease.holder == bindparam("dead", type_=sa.Text)),
    )
    .returning(_lease.epoch, _lease.expires)
)
_HOLDER = select(_lease.holder, (_lease.expires - STEADY).label("left")).where(_lease.sync == bindparam("of"))
_RENEW = update(tables.lease).where(*_OURS).values(expires=STEADY + _TTL).returning(_lease.expires)
_RELEASE = update(tables.lease).where(*_OURS).values(holder="", expires=0.0)
# SQLite's write transactions are alone; elsewhere the row's lock holds a takeover back until the commit.
_FENCE: sa.Select[Any] = (
    select(sa.literal_column("1")).select_from(tables.lease).where(*_OURS).with_for_update(read=True)
)


def fenced(lease: Lease) -> Fenced:
    """The error of a process whose lease was taken over."""
    return Fenced(
        f"this process lost its lease on {lease.sync} (epoch {lease.epoch}): its writes are refused",
        fix="nothing is lost: whoever took over finishes the run; `headgate status` shows it",
    )


class LeaseLedger(LedgerReader, State):
    """Takes and gives back leases; the other writers build on its fence."""

    def __init__(self, database: Database, record: Record | None) -> None:
        super().__init__(database)
        self._append = record

    @durable
    def acquire(self, sync: str, holder: str, ttl: float, *, dead: str | None = None) -> Lease:
        """Take the lease for `ttl` seconds and raise its epoch, or raise `LeaseHeld`."""
        believed = boot_clock() + ttl  # before the statement: we may believe it for less time, never for more
        with self._db.write() as connection:
            asked = {"sync": sync, "holder": holder, "ttl": ttl, "dead": dead}
            taken = connection.execute(_ACQUIRE, asked).first()
            if taken is None:
                held = connection.execute(_HOLDER, {"of": sync}).one()
                raise LeaseHeld(
                    f"{sync} is being run by {describe(held.holder)}; "
                    f"its lease ends in {format_duration(max(1.0, held.left))} unless it is renewed",
                    fix="wait until that run is over; if its machine is gone for good, the lease ends by itself",
                )
        return Lease(sync, holder, taken.epoch, taken.expires, believed)

    @durable
    def renew(self, lease: Lease, ttl: float) -> Lease:
        """Hold it for `ttl` seconds from now; raises `Fenced` where it was taken over."""
        believed = boot_clock() + ttl
        with self._db.write() as connection:
            held = connection.execute(_RENEW, _ours(lease) | {"ttl": ttl}).first()
            if held is None:
                raise fenced(lease)
        return Lease(lease.sync, lease.holder, lease.epoch, held.expires, believed)

    @durable
    def release(self, lease: Lease) -> None:
        """Give it back; harmless where it was lost. Its epoch stays, so the next one is higher."""
        with self._db.write() as connection:
            connection.execute(_RELEASE, _ours(lease))

    @contextlib.contextmanager
    def _fenced(self, lease: Lease) -> Iterator[sa.Connection]:
        """A write transaction that only the lease's holder gets."""
        with self._db.write() as connection:
            self._check(connection, lease)
            yield connection

    def _check(self, connection: sa.Connection, lease: Lease) -> None:
        if connection.execute(_FENCE, _ours(lease)).first() is None:
            raise fenced(lease)

    def _record(self, connection: sa.Connection, events: Iterable[Event]) -> None:
        if self._append is not None:
            for event in events:
                self._append(connection, event)


def _ours(lease: Lease) -> dict[str, str | int | float]:
    return {"of": lease.sync, "at": lease.epoch, "by": lease.holder}
