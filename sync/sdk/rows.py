"""Rows of a batch as CSV, JSON Lines or Parquet, streamed: a million rows take the memory of a few thousand."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import IO, Literal

from sync.errors import RequestError
from sync.sdk.nouns import Batch, Change, Value
from sync.sdk.values import dumps, text

__all__ = ["write"]

Row = Mapping[str, Value]

_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what makes a spreadsheet run a cell (OWASP, "CSV Injection")
_PARQUET_ROWS = 32_768  # rows of a row group; bounds the memory of a snapshot


def write(
    batch: Batch, out: IO[bytes], format: Literal["csv", "jsonl", "parquet"], *, delta: bool, guard: bool = False
) -> None:
    """Write the changes of a batch: with a column `op` where they are a `delta`, else as members.

    `guard` puts an apostrophe before text of a CSV that a spreadsheet would run. Raises `RequestError` where a row
    cannot be written.
    """
    rows: Iterator[Row] = (_row(change, op=delta) for change in batch.changes)
    if format == "jsonl":
        out.writelines(dumps(row) + b"\n" for row in rows)
        return
    first = next(rows, {})
    sample = (_row(change, op=True) for change in batch.changes) if delta else iter([first])
    columns = _columns(batch.types, sample, op=delta)
    rows = chain([first], rows) if first else rows
    if format == "csv":
        _write_csv(columns, rows, out, _guarded if guard else text)
    else:
        _write_parquet(columns, rows, out, batch.types)


def _row(change: Change, *, op: bool) -> Row:
    row = {**change.identifiers, **change.fields, **change.identifiers}
    if not op:
        return row
    if "op" in row:
        raise RequestError("a field is named 'op', like the column that says what changed", fix="rename the field")
    return {"op": change.op.value, **row}


def _columns(types: Mapping[str, str], rows: Iterable[Row], *, op: bool) -> list[str]:
    """Every column once: `op`, then the mapped fields in the mapping's order."""
    columns = dict.fromkeys(["op"] if op else [])
    columns.update(dict.fromkeys(types))
    for row in rows:
        columns.update(dict.fromkeys(row))
    return list(columns)


def _write_csv(columns: list[str], rows: Iterable[Row], out: IO[bytes], cell: Callable[[Value], str]) -> None:
    """RFC 4180: CRLF, quotes where they are needed, a header; null is empty; lists and objects are JSON text."""
    writer = csv.writer(_Utf8(out))
    writer.writerow([cell(name) for name in columns])
    writer.writerows([cell(row.get(name)) for name in columns] for row in _known(columns, rows))


class _Utf8:
    """Where `csv` writes text to; unlike `TextIOWrapper` it holds nothing back when a write fails."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out

    def write(self, line: str) -> int:
        return self._out.write(line.encode())


def _known(columns: list[str], rows: Iterable[Row]) -> Iterator[Row]:
    names = set(columns)
    for row in rows:
        if not row.keys() <= names:
            raise RequestError(f"a row has fields the first one has not: {', '.join(row.keys() - names)}")
        yield row


def _guarded(value: Value) -> str:
    formula = isinstance(value, str) and value.startswith(_FORMULA)
    return f"'{value}" if formula else text(value)


def _write_parquet(columns: list[str], rows: Iterable[Row], out: IO[bytes], types: Mapping[str, str]) -> None:
    """Typed as in the warehouse, a row group at a time."""
    import pyarrow.parquet as pq

    from sync.sdk.arrow import record_batch, schema

    into, rows = schema(columns, types), _known(columns, rows)
    with pq.ParquetWriter(out, into, compression="zstd") as writer:
        while group := list(islice(rows, _PARQUET_ROWS)):
            writer.write_batch(record_batch(group, into))
