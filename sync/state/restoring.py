"""Putting a backup in the place of a state folder's content, in steps that a crash may come between.

While it is done a file `restoring` stands in the folder, and the ledger there is refused to everybody (HG349). To
repeat the restore finishes it. What was there before is moved beside the folder and never deleted.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import select, update

from sync.errors import StateError
from sync.faultpoints import reached
from sync.state import tables
from sync.state.backup import Manifest, extract, refuse_incomplete
from sync.state.database import Database, upsert
from sync.state.leases import Record
from sync.state.members import publish
from sync.state.nouns import BatchState, Event
from sync.state.schema import migrate
from sync.state.steady import set_steady
from sync.state.tables import NOW, OPEN_RUN

__all__ = ["refuse_restoring", "restore"]

_MARK = "restoring"
_ASIDE, _WRITING = "aside", "writing"


def refuse_restoring(folder: Path) -> None:
    """Raise `StateError` HG349 where a restore of the folder was not finished."""
    if (folder / _MARK).exists():
        raise StateError(
            f"the state folder {folder} is being restored, or a restore of it was interrupted",
            code="HG349",
            fix="run the same `headgate state restore` again: it begins anew",
        )


def restore(
    archive: Path,
    manifest: Manifest,
    folder: Path,
    stamp: str,
    *,
    over: bool,
    record: Record,
    event: Event,
    pause: str,
) -> tuple[list[str], Path | None]:
    """Put the archive's content into the folder; returns the syncs that were paused, and where the old state is.

    `pause` is the reason to pause every sync that has sent anything with; none is where it is empty. Raises
    `StateError` HG349 where a state is there and it is not to go `over` it, or a process has it open; before that
    `Corrupt` HG348 where the archive lacks what its ledger needs.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    refuse_incomplete(archive, manifest, folder)
    mark = folder / _MARK
    if not mark.exists():
        if (folder / "ledger.db").exists():
            _refuse_live(folder, over=over)
        _note(mark, _ASIDE, stamp)
        reached("restore.marked")
    step, stamp = json.loads(mark.read_text(encoding="utf-8"))
    aside = folder.with_name(f"{folder.name}-before-{stamp}")
    if step == _ASIDE:
        _move(folder, aside)
        _note(mark, _WRITING, stamp)
    else:
        _clear(folder)
    reached("restore.emptied")
    for _ in extract(archive, folder, manifest):
        reached("restore.file")
    paused = _adapted(folder / "ledger.db.restored", record, event, pause)
    reached("restore.adapted")
    publish(folder / "ledger.db.restored", folder / "ledger.db")
    mark.unlink()
    _sync(folder)
    return paused, aside if aside.exists() else None


def _refuse_live(folder: Path, *, over: bool) -> None:
    if not over:
        raise StateError(
            f"there is a state in {folder} already",
            code="HG349",
            fix="say --over to put the backup in its place: what is there is moved aside, not deleted",
        )
    try:
        with closing(sqlite3.connect(folder / "ledger.db", timeout=1.0)) as connection:
            # SQLite leaves this mode only where nobody else has the file open, and then its log is empty.
            connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        raise StateError(
            f"another process has the ledger in {folder} open",
            code="HG349",
            fix="stop the daemon and every other headgate process first; nothing was changed",
        ) from error
    except sqlite3.DatabaseError:
        return  # it is damaged: that is what backups are for


def _note(mark: Path, step: str, stamp: str) -> None:
    temporary = mark.with_name(f".{_MARK}.tmp")
    temporary.write_text(json.dumps([step, stamp]), encoding="utf-8")
    publish(temporary, mark)


def _move(folder: Path, aside: Path) -> None:
    for path in _content(folder):
        aside.mkdir(exist_ok=True, mode=0o700)
        path.replace(aside / path.name)
    _sync(folder)


def _clear(folder: Path) -> None:
    """What an interrupted restore had written: the archive has it."""
    for path in _content(folder):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _content(folder: Path) -> Sequence[Path]:
    return [path for path in sorted(folder.iterdir()) if path.name != _MARK]


def _adapted(ledger: Path, record: Record, event: Event, pause: str) -> list[str]:
    """Make the ledger fit for another time: no lease, and what may have been sent since counts as sent."""
    database = Database(ledger)
    try:
        migrate(database)
        set_steady(database)
        with database.write() as connection:
            # Nobody holds a lease of the archive any more. Its epochs stay, so that the next ones are higher.
            connection.execute(update(tables.lease).values(holder="", expires=0.0))
            paused = _pause(connection, pause) if pause else []
            record(connection, event)
    finally:
        database.close()
    with closing(sqlite3.connect(ledger)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return paused


def _pause(connection: sa.Connection, reason: str) -> list[str]:
    """Pause what has sent anything. A batch that was planned then may have been sent since: it counts as if."""
    run, batch = tables.run.c, tables.batch.c
    open_runs = select(run.id).where(run.status.in_(OPEN_RUN))
    planned = update(tables.batch).where(batch.run.in_(open_runs), batch.state == BatchState.PLANNED.value)
    connection.execute(planned.values(state=BatchState.INTENT.value))
    sent = select(run.sync).where(run.plan.is_not(None)).union(select(tables.generation.c.sync))
    syncs = sorted(connection.execute(sent).scalars())
    for sync in syncs:
        put = upsert(tables.paused).values(name=sync, reason=reason, since=NOW)
        connection.execute(put.on_conflict_do_nothing())
    return syncs


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
