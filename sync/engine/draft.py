"""The draft of a first plan: everybody in the cohort as an addition, written down while the cohort is mapped once.

Where a destination has no members yet, the plan will most likely be everybody. What looks at the cohort afterwards
reads the draft, and where the plan comes to the very same rows, the draft is its file (`plan.freeze`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sync.engine.compile import Compiled
from sync.engine.database import one_thread
from sync.engine.sql import identifier
from sync.state.parquet import source, write

if TYPE_CHECKING:
    import duckdb

__all__ = ["CARRIED", "ROW_GROUP", "Draft", "drafted"]

ROW_GROUP = 20480
"""Rows in a row group of a plan's file: what whoever wants one batch has to read."""

CARRIED: Mapping[str, str] = {
    "was_nulls": "VARCHAR",
    "remote_id": "VARCHAR",
    "first_refresh": "VARCHAR",
    "first_at": "DOUBLE",
}
"""The columns of a plan's file that come from a member, which an addition has none of, and their types."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A file of the columns of a plan's file, in which rows that are not fit to be sent say why."""

    file: Path
    cohort: str  # the digested SELECT, read from the file


@contextmanager
def drafted(connection: duckdb.DuckDBPyConnection, spool: Path, compiled: Compiled) -> Iterator[Draft]:
    """Write the digested cohort to a file in the folder `spool`; its name there is gone at the end."""
    file = spool / f"{uuid.uuid4().hex}.parquet"
    cohort = compiled.digested
    names = [f"id.{n}" for n in compiled.identifiers] + [f"field.{n}" for n in compiled.fields]
    own = ", ".join(identifier(name) for name in names)
    carried = ", ".join(f"NULL::{type_} AS {name}" for name, type_ in CARRIED.items())
    select = (
        "SELECT (row_number() OVER ()) - 1 AS row, 'add' AS op, key, fingerprint, "
        f"{compiled.nulls} AS nulls, source_key, {own}, {carried}, why FROM ({cohort})"
    )
    try:
        with one_thread(connection):
            write(connection, select, file, row_group_size=ROW_GROUP)
        latest = f"SELECT max(newest) FILTER (isfinite(newest)) AS latest FROM ({cohort})"
        connection.execute(f"CREATE OR REPLACE TEMP TABLE newest AS {latest}")
        read = source(connection, file)
        yield Draft(
            file,
            f"SELECT source_key, (SELECT latest FROM newest) AS newest, {own}, why, key, fingerprint FROM {read}",
        )
    finally:
        file.unlink(missing_ok=True)
