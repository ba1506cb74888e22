"""Rows on their way from or to Snowflake: a Parquet file that only we can read, written as they come."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sync.errors import SourceError
from sync.sources.base import Column, Staged
from sync.sources.snowflake_types import duckdb_type, staged

__all__ = ["spooled", "written"]


def spooled(tables: Iterable[Any], schema: Any, file: Path) -> int:
    """Write the batches as they come, each cast to what the columns are declared as; returns how many rows.

    Raises `SourceError`: HG209 for a value that is not of its column's type, HG208 where the disk is full.
    """
    import pyarrow as pa
    import pyarrow.parquet

    rows = 0
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as out, pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as writer:  # noqa: PTH123
            for part in tables:
                table = part if isinstance(part, pa.Table) else pa.Table.from_batches([part])
                writer.write_table(table.rename_columns(schema.names).cast(schema))
                rows += table.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        failure = SourceError(
            "a value of the cohort is not of the type that its column says",
            code="HG209",
            fix="cast the column in a view or in the cohort's query: TO_JSON(...) or ::VARCHAR",
        )
    except OSError as error:
        raise SourceError(
            f"the cohort's rows cannot be kept in {file.parent}: {error.strerror or 'input or output error'}",
            code="HG208",
            fix="free disk space for the state folder",
        ) from error
    else:
        return rows
    raise failure  # out here: Arrow's words may quote a value


def written(file: Path, columns: Sequence[Any]) -> Staged:
    """What stands for the columns, of which the connector's metadata is given, over the file of their values."""
    path = str(file.absolute()).replace("'", "''")
    return Staged(
        f"(SELECT {', '.join(map(staged, columns))} FROM read_parquet('{path}'))",
        tuple(Column(m.name, duckdb_type(m)) for m in columns),
    )
