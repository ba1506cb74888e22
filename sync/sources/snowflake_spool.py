"""Rows on their way from or to Snowflake: a Parquet file that only we can read, written as they come."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sync.errors import SourceError
from sync.sources.base import Column, Staged
from sync.sources.snowflake_types import duckdb_type, staged
from sync.sources.spool import rows_in
from sync.sources.spool import spooled as written_down

__all__ = ["spooled", "written"]


def spooled(tables: Iterable[Any], schema: Any, file: Path) -> int:
    """Write the batches as they come, each cast to what the columns are declared as; returns how many rows.

    Raises `SourceError`: HG209 for a value that is not of its column's type, HG208 where the disk is full.
    """
    import pyarrow as pa

    def cast() -> Iterator[Any]:
        for part in tables:
            table = part if isinstance(part, pa.Table) else pa.Table.from_batches([part])
            yield table.rename_columns(schema.names).cast(schema)

    try:
        return written_down(cast(), schema, file, compression="zstd")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        failure = SourceError(
            "a value of the cohort is not of the type that its column says",
            code="HG209",
            fix="cast the column in a view or in the cohort's query: TO_JSON(...) or ::VARCHAR",
        )
    raise failure  # out here: Arrow's words may quote a value


def written(file: Path, columns: Sequence[Any]) -> Staged:
    """What stands for the columns, of which the connector's metadata is given, over the file of their values."""
    return Staged(
        f"(SELECT {', '.join(map(staged, columns))} FROM {rows_in(file)})",
        tuple(Column(m.name, duckdb_type(m)) for m in columns),
    )
