"""The ledger: the control database that remembers runs, plans, batches, receipts, decisions and leases.

LedgerReader            reads.py      looks
└─ LeaseLedger          leases.py     leases and the fence
   ├─ PlanLedger        planning.py   refreshes, plans, decisions
   ├─ RunLedger         sending.py    runs, batches, attempts
   ├─ SettleLedger      settling.py   the end of a run
   ├─ ErasureLedger     erasing.py    people who are forgotten
   ├─ AlertLedger       alerting.py   alerts, and the messages that tell of them
   └─ RetentionLedger   retention.py  rows that are old
      Ledger            here: all of it, and the small things
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import Insert, and_, bindparam, delete, func, or_, select, update

from sync.faultpoints import durable, reached
from sync.state import rows, tables
from sync.state.access import Access
from sync.state.alerting import AlertLedger
from sync.state.database import Database, upsert
from sync.state.erasing import ErasureLedger
from sync.state.leases import Record
from sync.state.nouns import Event, Lease, RequestKind, RunRequest
from sync.state.planning import PlanLedger
from sync.state.restoring import refuse_restoring
from sync.state.retention import RetentionLedger
from sync.state.schema import migrate
from sync.state.sending import RunLedger
from sync.state.settling import SettleLedger, present
from sync.state.steady import set_steady
from sync.state.tables import NOW

__all__ = ["Ledger", "Record", "open_ledger"]


def open_ledger(path: Path, *, record: Record | None = None, busy_timeout: float | None = None) -> Ledger:
    """Open the ledger, making it (mode 0600) where there is none and migrating it where it is older.

    `record` appends an event to the audit log inside the transaction of what it tells of; without it, events
    are not kept: fit for those who only look. `busy_timeout` is how many seconds another process's writing is
    waited for. Raises `StateError` where the file is locked, read-only, of a later version or not a ledger, and
    `Corrupt` where it is damaged.
    """
    refuse_restoring(path.parent)
    database = Database(path, busy_timeout)
    reached("ledger.opened")
    try:
        migrate(database)
        set_steady(database)
    except BaseException:
        database.close()
        raise
    reached("ledger.migrated")
    return Ledger(database, record)


class Ledger(PlanLedger, RunLedger, SettleLedger, ErasureLedger, AlertLedger, RetentionLedger):
    """The whole of `State` on one database; any number of threads may call it."""

    @property
    def path(self) -> Path:
        """The database file."""
        return self._db.path

    @property
    def access(self) -> Access:
        """Who may use the API, and what was asked for under a key."""
        return Access(self._db, self._record)

    def check(self, *, thorough: bool = False) -> None:
        """Raises `Corrupt` (HG315) where the file is damaged; see `Database.check`."""
        self._db.check(thorough=thorough)

    def write_nothing(self) -> None:
        """Write, durably, what is there already. Raises `StateError` where the ledger cannot be written."""
        self._db.write_nothing()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @durable
    def set_rejected(
        self, sync: str, keys: Iterable[str], *, retry: bool, actor: str, reason: str, events: Sequence[Event] = ()
    ) -> int:
        """Try these again at the next run (`retry`), or give them up; returns how many there were."""
        table = tables.rejected
        values: dict[str, Any] = {"given_up_by": actor, "given_up_reason": reason, "given_up_at": NOW}
        if retry:
            values = {"next_at": 0.0, "given_up_by": None, "given_up_reason": None, "given_up_at": None}
        move = (
            update(table).where(table.c.sync == bindparam("of"), table.c.key == bindparam("this")).values(values)
        )
        with self._db.write() as connection:
            found = present(connection, table, sync, keys)
            if found:
                connection.execute(move, [{"of": sync, "this": key} for key in found])
            self._record(connection, events)
        return len(found)

    @durable
    def request_run(self, request: RunRequest) -> bool:
        """Ask for a run; False where the slot was asked for before."""
        with self._db.write() as connection:
            return connection.execute(_ask(request)).rowcount == 1

    @durable
    def notice(
        self, sync: str, name: str, before: str | None, value: str, request: RunRequest | None = None
    ) -> bool:
        """Remember a fact that was `before` until now, and ask for the run that follows from it."""
        table = tables.note
        put = upsert(table).values(sync=sync, name=name, value=value).on_conflict_do_nothing()
        move = update(table).where(table.c.sync == sync, table.c.name == name, table.c.value == before)
        with self._db.write() as connection:
            first = connection.execute(put if before is None else move.values(value=value)).rowcount == 1
            if first and request is not None:
                connection.execute(_ask(request))
        return first

    @durable
    def take_request(self, sync: str, slot: str) -> bool:
        """Mark a request as taken; False where somebody took it."""
        table = tables.run_request
        take = update(table).where(table.c.sync == sync, table.c.slot == slot, table.c.taken_at.is_(None))
        with self._db.write() as connection:
            return connection.execute(take.values(taken_at=NOW)).rowcount == 1

    @durable
    def withdraw(self, sync: str, slot: str, report: Mapping[str, Any], events: Sequence[Event] = ()) -> bool:
        """Answer a request before anybody takes it; False, and nothing is kept, where somebody took it."""
        table = tables.run_request
        end = update(table).where(table.c.sync == sync, table.c.slot == slot, table.c.taken_at.is_(None))
        with self._db.write() as connection:
            values = {"taken_at": NOW, "ended_at": NOW, "report": rows.to_json(dict(report))}
            done = connection.execute(end.values(values)).rowcount == 1
            self._record(connection, events if done else ())
        return done

    @durable
    def give_back(self, sync: str, slots: Iterable[str]) -> None:
        """These requests were not taken after all, unless they are answered."""
        table = tables.run_request
        taken = update(table).where(
            table.c.sync == sync, table.c.slot.in_(list(slots)), table.c.ended_at.is_(None)
        )
        with self._db.write() as connection:
            connection.execute(taken.values(taken_at=None))

    @durable
    def answer_requests(
        self,
        sync: str,
        slots: Iterable[str],
        report: Mapping[str, Any],
        *,
        kind: RequestKind = RequestKind.RUN,
        until: float | None = None,
    ) -> None:
        """Keep what became of requests, and of those of their kind taken before that nobody answered."""
        table, names = tables.run_request, list(slots)
        first = select(func.min(table.c.taken_at)).where(table.c.sync == sync, table.c.slot.in_(names))
        before = func.coalesce(first.scalar_subquery(), until)
        left = and_(table.c.taken_at < before, table.c.ended_at.is_(None), table.c.kind == kind.value)
        move = update(table).where(table.c.sync == sync, or_(table.c.slot.in_(names), left))
        taken = func.coalesce(table.c.taken_at, NOW)  # somebody may have given it back meanwhile
        with self._db.write() as connection:
            connection.execute(move.values(taken_at=taken, ended_at=NOW, report=rows.to_json(dict(report))))

    @durable
    def pause(self, name: str, reason: str | None, events: Sequence[Event] = ()) -> None:
        """Pause a sync or a `destination:NAME`; None resumes it."""
        table = tables.paused
        put = upsert(table).values(name=name, reason=reason, since=NOW)
        put = put.on_conflict_do_update(index_elements=[table.c.name], set_={"reason": reason})
        with self._db.write() as connection:
            connection.execute(delete(table).where(table.c.name == name) if reason is None else put)
            self._record(connection, events)

    @durable
    def remember(self, lease: Lease, name: str, value: str) -> None:
        """Remember a fact about the lease's sync."""
        table = tables.note
        put = upsert(table).values(sync=lease.sync, name=name, value=value)
        put = put.on_conflict_do_update(index_elements=[table.c.sync, table.c.name], set_={"value": value})
        with self._fenced(lease) as connection:
            connection.execute(put)

    @durable
    def record(self, *events: Event) -> None:
        """Append to the audit log."""
        with self._db.write() as connection:
            self._record(connection, events)


def _ask(request: RunRequest) -> Insert:
    """Keep a request, where its slot was not asked for before."""
    return upsert(tables.run_request).values(rows.values(request)).on_conflict_do_nothing()
