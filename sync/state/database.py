"""The SQLite file behind the ledger: connections, transactions, and its errors as sentences.

All that is particular to SQLite stands here, but for the clock in `sync.state.tables`.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DBAPIError

from sync.errors import Corrupt, HeadgateError, StateError

__all__ = ["BUSY_TIMEOUT", "Database", "upsert"]

BUSY_TIMEOUT = 30.0
"""How long a statement waits for another process's transaction, in seconds."""

_OLDEST = (3, 35)  # RETURNING

# SQLite's primary result codes (https://sqlite.org/rescode.html) -> our code, what it is, how to mend it.
_REASONS: dict[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_BUSY: (
        "HG311",
        "is locked: another process has been writing for SECONDS seconds",
        "wait for the other `headgate` process, or look which one it is with `fuser FILE`; a backup tool that "
        "holds the file open must use SQLite's own backup",
    ),
    sqlite3.SQLITE_READONLY: (
        "HG312",
        "cannot be written",
        "give the user who runs headgate write permission on the file and on its folder",
    ),
    sqlite3.SQLITE_FULL: (
        "HG313",
        "cannot grow: the disk is full",
        "free space on the disk of the state folder and run again; what was acknowledged so far is kept",
    ),
    sqlite3.SQLITE_IOERR: (
        "HG314",
        "could not be read or written: the disk reported an error",
        "look at the system's log and the disk's free space; run again once the disk is well",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "HG310",
        "cannot be opened",
        "check that the state folder exists and that the user who runs headgate may read and write it",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "HG315",
        "is damaged",
        "stop every headgate process, keep a copy of the file with its -wal, and restore the newest backup; "
        "nothing is sent before that",
    ),
    sqlite3.SQLITE_NOTADB: (
        "HG315",
        "is not a SQLite database",
        "restore the newest backup, or name another file if this one belongs to something else",
    ),
}
_REASONS[sqlite3.SQLITE_LOCKED] = _REASONS[sqlite3.SQLITE_BUSY]
_REASONS[sqlite3.SQLITE_PERM] = _REASONS[sqlite3.SQLITE_READONLY]


class Database:
    """One file, one connection that writes, and a pool of connections that read.

    SQLite lets one transaction write at a time: threads queue for it here, which is fair and costs no polling;
    other processes are waited for by SQLite itself.
    """

    def __init__(self, path: Path, busy_timeout: float | None = None) -> None:
        """Raises `StateError` where the file cannot be opened, created or trusted."""
        self._patience = BUSY_TIMEOUT if busy_timeout is None else busy_timeout
        _check_library()
        _prepare(path)
        self.path = path
        self.steady: Callable[[], float] = time.time  # what `steady()` is in SQL
        self._lock = threading.Lock()
        self._engine = sa.create_engine(
            sa.URL.create("sqlite+pysqlite", database=str(path)),
            connect_args={"timeout": self._patience, "check_same_thread": False},
            hide_parameters=True,  # parameters are personal data
            pool_size=4,
            max_overflow=60,
        )
        sa.event.listen(self._engine, "connect", self._connected)
        sa.event.listen(self._engine, "begin", _begin)
        try:
            with self._translated():
                self._writer = self._engine.connect().execution_options(headgate_writes=True)
                _use_wal(self._writer, path, self._patience)
        except BaseException:
            self._engine.dispose()
            raise

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection with one consistent view of the ledger."""
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """The writing connection inside a transaction that is durable when the block ends without an error."""
        with self._lock, self._translated(), self._writer.begin():
            yield self._writer

    def write_nothing(self) -> None:
        """Write, durably, what is there already: it fails where a write would."""
        with self.write() as connection:
            connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")

    def check(self, *, thorough: bool = False) -> None:
        """Read the whole file; raises `Corrupt` where it is damaged. `thorough` checks the indexes too."""
        with self.read() as connection:
            pragma = "integrity_check" if thorough else "quick_check"
            found = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA {pragma}(1)").all()]
        if found != ["ok"]:
            raise _damaged(self.path, pragma)

    def compact(self) -> None:
        """Write the file anew: no byte is left of what earlier versions deleted and did not overwrite."""
        with self._lock, self._translated(), self._alone() as own:
            own.execute("PRAGMA secure_delete = ON")
            own.execute("VACUUM")
        self.truncate()

    def truncate(self) -> None:
        """Empty the journal, which has pages of before; left to a later time where somebody is reading."""
        with self._lock, self._translated(), self._alone() as own:
            own.execute("PRAGMA busy_timeout = 1000")
            own.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    @contextlib.contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own, for what goes on outside of any transaction."""
        own = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            yield own
        finally:
            own.close()

    def close(self) -> None:
        """Close every connection; harmless when repeated."""
        with self._lock:
            self._writer.close()
            self._engine.dispose()

    def _connected(self, connection: Any, record: Any) -> None:
        _configure(connection, record)
        connection.create_function("steady", 0, lambda: self.steady())

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._sentence(error.orig) from error
        except sqlite3.Error as error:
            raise self._sentence(error) from error

    def _sentence(self, error: BaseException | None) -> HeadgateError:
        code = getattr(error, "sqlite_errorcode", None)
        name = getattr(error, "sqlite_errorname", "SQLITE_ERROR")
        if code is None and "UTF-8" in str(error):  # its message quotes the row
            return _damaged(self.path, "a row is not text")
        if code is None or code & 0xFF not in _REASONS:
            return StateError(
                f"the ledger {self.path} refused what headgate asked of it ({name}: {error})",
                fix="this is a defect of headgate, or the file was changed by hand: report it with this message",
            )
        ours, what, fix = _REASONS[code & 0xFF]
        kind = Corrupt if ours == "HG315" else StateError
        what = what.replace("SECONDS", f"{self._patience:g}")
        return kind(f"the ledger {self.path} {what} ({name})", code=ours, fix=fix.replace("FILE", str(self.path)))


def _damaged(path: Path, what: str) -> Corrupt:
    """The error of a ledger whose content is not what was written to it; `what` holds nothing of a row."""
    _, is_, fix = _REASONS[sqlite3.SQLITE_CORRUPT]
    return Corrupt(f"the ledger {path} {is_} ({what})", code="HG315", fix=fix)


def _check_library() -> None:
    if sqlite3.sqlite_version_info < _OLDEST:
        raise StateError(
            f"this Python was built with SQLite {sqlite3.sqlite_version}; the ledger needs 3.35 or later",
            code="HG317",
            fix="use a Python with a newer SQLite, `uv python install 3.12` brings one",
        )


def _prepare(path: Path) -> None:
    """Make the file, for its owner's eyes only; SQLite gives its journals the same permissions."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            if stat.S_IMODE(os.fstat(handle).st_mode) & 0o077:
                os.fchmod(handle, 0o600)
        finally:
            os.close(handle)
    except OSError as error:
        readonly = path.is_file() and isinstance(error, PermissionError)
        ours, what, fix = _REASONS[sqlite3.SQLITE_READONLY if readonly else sqlite3.SQLITE_CANTOPEN]
        raise StateError(f"the ledger {path} {what} ({error.strerror})", code=ours, fix=fix) from error


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver's own idea of transactions; `_begin` is explicit
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA recursive_triggers = ON")  # else REPLACE would delete unseen by triggers
    # In WAL mode FULL is what makes a commit survive a power loss: intents and receipts must.
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA fullfsync = ON")  # macOS: a plain fsync does not reach the platter
    connection.execute("PRAGMA journal_size_limit = 67108864")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted may be about a person


def _begin(connection: sa.Connection) -> None:
    # IMMEDIATE takes the write lock at once: a transaction that read first could not get it later.
    writes = connection.get_execution_options().get("headgate_writes")
    raw: Any = connection.connection.dbapi_connection
    raw.execute("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(connection: sa.Connection, path: Path, patience: float) -> None:
    """Switch to the write-ahead log, once in a file's life."""
    raw: Any = connection.connection.dbapi_connection
    until = time.monotonic() + patience
    while raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            mode = raw.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            # The switch does not wait for other processes as other statements do.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.02)
            continue
        if mode != "wal":
            raise StateError(
                f"the ledger {path} is on a file system without shared memory, which several processes need",
                code="HG317",
                fix="put the state folder on a local disk, not on a network share",
            )
