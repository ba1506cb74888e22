"""The engine's DuckDB: embedded, bounded in memory, and closed to everything but its own folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb

from sync.engine.job import EngineSettings
from sync.engine.sql import identifier, literal
from sync.errors import Corrupt, HeadgateError, SourceError, StateError
from sync.state.parquet import unlock

__all__ = ["identifier", "insert", "literal", "load_keys", "lock_down", "one_thread", "open_database", "translate"]


def open_database(settings: EngineSettings) -> duckdb.DuckDBPyConnection:
    """A connection of its own, in memory, that spills into the state folder. Attach sources, then `lock_down`.

    Raises `StateError` (HG340) where DuckDB cannot start within `memory_limit`.
    """
    tmp = settings.folder / "tmp"
    tmp.mkdir(parents=True, exist_ok=True, mode=0o700)
    with translate("starting DuckDB", StateError):
        connection = duckdb.connect(
            ":memory:",
            config={
                "memory_limit": settings.memory_limit,
                "threads": settings.threads,
                "temp_directory": str(tmp),
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "preserve_insertion_order": "true",
                "allowed_configs": "[threads]",  # see `one_thread`
            },
        )
        connection.execute("SET TimeZone = 'UTC'")
    unlock(connection, settings.keys)
    connection.execute(f"SET allowed_directories = [{literal(settings.folder)}]")
    return connection


def insert(connection: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Sequence[Any]]) -> None:
    """Put rows of Python values into a table, column by column: a thousand times faster than row by row."""
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        values = ", ".join("unnest(?)" for _ in columns)
        connection.execute(f"INSERT INTO {table} SELECT {values}", columns)


def load_keys(connection: duckdb.DuckDBPyConnection, table: str, keys: Sequence[str]) -> None:
    """The temporary table of these member keys, each once."""
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} (key DECIMAL(38, 0))")
    if keys:
        connection.execute(f"INSERT INTO {table} SELECT DISTINCT unnest(?::DECIMAL(38, 0)[])", [list(keys)])


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    """From here on no SQL reaches a file outside the state folder, the network, or a setting."""
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


@contextmanager
def one_thread(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Do what is inside in one thread: for a file whose rows have an order.

    Its rows are written one after the other anyway, and rows that pass from thread to thread cost half as much
    again, in page faults.
    """
    ((threads,),) = connection.execute("SELECT current_setting('threads')").fetchall()
    connection.execute("SET threads = 1")
    try:
        yield
    finally:
        connection.execute(f"SET threads = {int(threads)}")


@contextmanager
def translate(what: str, kind: type[HeadgateError] = SourceError, code: str | None = None) -> Iterator[None]:
    """Turn DuckDB's errors into ours; its text may quote rows, so only its first line's kind is repeated."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise StateError(
            f"{what} needs more memory or disk than it may use",
            code="HG340",
            fix="raise [engine] memory_limit in config.toml, or free disk space for the state folder",
        ) from error
    except duckdb.IOException as error:
        raise StateError(
            f"{what} could not read or write a file: {_disk(str(error))}",
            code="HG341",
            fix="check free space and permissions of the state folder",
        ) from error
    except duckdb.Error as error:
        if "AES tag" in str(error):
            raise Corrupt(
                f"{what} met an encrypted state file that is damaged or was altered; nothing is sent on a doubt",
                fix="restore the state folder from a backup, ledger and files together",
            ) from error
        raise kind(f"{what} failed: {_first_line(error)}", code=code) from error


def _disk(text: str) -> str:
    return "the disk is full" if "space" in text.lower() else "input or output error"


def _first_line(error: duckdb.Error) -> str:
    """DuckDB's own words up to the first quoted value, which may be somebody's data."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    head = line.split("'", 1)[0].split('"', 1)[0].rstrip(" :")
    return head[:200]
