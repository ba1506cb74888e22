"""The clock of leases and barriers: it runs on whatever anybody does to the system's, the same for all processes.

The system's clock is set by people and by time servers, back and forth. A lease that ended a day early would let
two processes send at once, a request that could be alive a day longer would hold the next run back for the day.
So both are counted on the kernel's clock since the machine's boot, moved by an offset that the first process after
a boot writes into the ledger, so that its values are near those of the epoch. SQLite's write-ahead log is shared
memory: whoever has the file open runs on the same kernel.
"""

from __future__ import annotations

import json
import time

from sqlalchemy import select, update

from sync.state import tables
from sync.state.database import Database, upsert
from sync.state.holder import boot, boot_clock

__all__ = ["set_steady"]

_PATIENCE = 600.0
"""Seconds that a deadline of an earlier boot is waited for after a boot at most: its processes are gone."""

_note = tables.note.c
_ANCHOR = select(_note.value).where(_note.sync == "", _note.name == "clock")


def set_steady(database: Database) -> None:
    """Set the database's steady clock by what the ledger has of this boot, and where it has nothing write it.

    Where the system does not tell its boots apart (no `/proc`), the steady clock is the system's.
    """
    this = boot()
    if not this:
        database.steady = time.time
        return
    with database.read() as connection:
        offset = _offset(connection.execute(_ANCHOR).scalar(), this)
    if offset is None:
        offset = _anchor(database, this)
    database.steady = lambda: boot_clock() + offset


def _offset(text: str | None, this: str) -> float | None:
    known = json.loads(text) if text else {}
    return float(known["offset"]) if known.get("boot") == this else None


def _anchor(database: Database, this: str) -> float:
    """Begin this boot's clock at the system's time."""
    with database.write() as connection:
        found = _offset(connection.execute(_ANCHOR).scalar(), this)
        if found is not None:  # another process was faster
            return found
        now = time.time()
        offset = now - boot_clock()
        put = upsert(tables.note).values(sync="", name="clock", value=json.dumps({"boot": this, "offset": offset}))
        put = put.on_conflict_do_update(
            index_elements=[_note.sync, _note.name], set_={"value": put.excluded.value}
        )
        connection.execute(put)
        latest = now + _PATIENCE
        for table, column in ((tables.lease, "expires"), (tables.attempt, "alive_until")):
            connection.execute(update(table).where(table.c[column] > latest).values({column: latest}))
    return offset
