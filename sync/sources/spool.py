"""Rows on their way through the disk: a Parquet file that only we can read, written as they come."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sync.errors import SourceError
from sync.sources.queries import literal

__all__ = ["QUICK", "passing", "rows_in", "spooled"]

QUICK = {"compression": "lz4", "use_dictionary": False, "write_statistics": False}
"""How to write a file that is read a few times and then removed: what would make it smaller costs more than it
saves.
"""


@contextmanager
def passing(spool: Path) -> Iterator[Path]:
    """A name for a file in the folder `spool`, which is made; the file is removed at the end."""
    spool.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = spool / f"{uuid.uuid4().hex}.parquet"
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def spooled(tables: Iterable[Any], schema: Any, file: Path, **how: Any) -> int:
    """Write Arrow tables or record batches of the schema; returns how many rows. `how` is the Parquet writer's.

    Raises `SourceError` HG208 where the disk does not take them.
    """
    import pyarrow.parquet

    rows = 0
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as out, pyarrow.parquet.ParquetWriter(out, schema, **how) as writer:  # noqa: PTH123
            for table in tables:
                writer.write(table)
                rows += table.num_rows
    except OSError as error:
        raise SourceError(
            f"the cohort's rows cannot be kept in {file.parent}: {error.strerror or 'input or output error'}",
            code="HG208",
            fix="free disk space for the state folder",
        ) from error
    return rows


def rows_in(file: Path) -> str:
    """What stands for the file in a FROM."""
    return f"read_parquet({literal(str(file.absolute()))})"
