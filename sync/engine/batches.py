"""Cutting a plan into batches, and reading them back from the plan file, the same at every replay."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from sync.engine.database import identifier, literal, lock_down, open_database, translate
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.plan import NOT_SENT, phase_of
from sync.engine.wire import decoders, json_sql, wire_sql
from sync.errors import StateError
from sync.sdk.nouns import Batch, Change, Delivery, Limits, Op
from sync.state.nouns import BatchRow, BatchState
from sync.state.parquet import source

if TYPE_CHECKING:
    import duckdb

__all__ = ["PlanFile", "cut", "halves", "key_of"]

_META = ("row", "op", "key", "remote_id")


def key_of(run: str, first: int, last: int) -> str:
    """The idempotency key of a range of a run's plan: the same at every replay, never the same for other rows."""
    return hashlib.sha256(f"{run}:{first}:{last}".encode()).hexdigest()[:32]


def cut(run: str, file: PlanFile, job: SyncJob, ops: frozenset[Op]) -> list[BatchRow]:
    """The batches of a run in delivery order; each within the limits and, unless mixed, of one op."""
    found = file.ranges()
    if job.spec.delivery is Delivery.SNAPSHOT:
        changes = any(op in ops for op, _, _ in found)  # rows that are merely invalid are no reason to send
        return _numbered(run, [(0, "mixed", found[0][1], found[-1][2])]) if changes else []
    ranges: list[tuple[int, str, int, int]] = []
    for op, first, last in found:
        if op in ops:
            phase = phase_of(op, job.spec.order)
            previous = ranges[-1] if ranges else None
            joins = job.limits.mixed_ops and previous and previous[0] == phase and previous[3] + 1 == first
            if joins and previous:
                ranges[-1] = (phase, "mixed", previous[2], last)
            else:
                ranges.append((phase, op, first, last))
    pieces = [
        (phase, op, a, b) for phase, op, first, last in ranges for a, b in _pieces(file, first, last, job.limits)
    ]
    return _numbered(run, pieces)


def _numbered(run: str, pieces: Sequence[tuple[int, str, int, int]]) -> list[BatchRow]:
    return [
        BatchRow(run, number, key_of(run, first, last), phase, op, first, last)
        for number, (phase, op, first, last) in enumerate(pieces, 1)
    ]


def _pieces(file: PlanFile, first: int, last: int, limits: Limits) -> Iterator[tuple[int, int]]:
    size = limits.batch_size or last - first + 1
    if limits.batch_bytes is None:
        yield from ((start, min(start + size - 1, last)) for start in range(first, last + 1, size))
        return
    start, held = first, 0
    for row, length in file.lengths(first, last):
        if row > start and (held + length > limits.batch_bytes or row - start >= size):
            yield start, row - 1
            start, held = row, 0
        held += length
    yield start, last


def halves(batch: BatchRow, next_number: int) -> tuple[BatchRow, BatchRow]:
    """The two smaller batches that replace a refused one."""
    middle = (batch.first + batch.last) // 2
    return tuple(  # type: ignore[return-value]
        replace(
            batch,
            number=next_number + index,
            id=key_of(batch.run, first, last),
            first=first,
            last=last,
            state=BatchState.PLANNED,
            parent=batch.number,
            attempts=0,
        )
        for index, (first, last) in enumerate(((batch.first, middle), (middle + 1, batch.last)))
    )


class PlanFile:
    """A plan file opened for reading. Not for use by two threads at once."""

    def __init__(self, settings: EngineSettings, path: Path) -> None:
        self._connection: duckdb.DuckDBPyConnection = open_database(replace(settings, threads=1))
        lock_down(self._connection)
        with translate("reading the plan", StateError):
            self._file = source(self._connection, path)
            self._types = {
                str(name): str(type_)
                for name, type_, *_ in self._connection.execute(f"DESCRIBE SELECT * FROM {self._file}").fetchall()
            }
        self.identifiers = [n.removeprefix("id.") for n in self._types if n.startswith("id.")]
        self.fields = [n.removeprefix("field.") for n in self._types if n.startswith("field.")]

    def __enter__(self) -> PlanFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @property
    def types(self) -> Mapping[str, str]:
        """Field or identifier -> warehouse type."""
        return {
            name.partition(".")[2]: type_
            for name, type_ in self._types.items()
            if name.startswith(("id.", "field."))
        }

    def ranges(self) -> list[tuple[str, int, int]]:
        """(op, first row, last row), in delivery order, without the rows that are not sent."""
        sent = f"op NOT IN ({', '.join(map(literal, NOT_SENT))})"
        query = f"SELECT op, min(row), max(row) FROM {self._file} WHERE {sent} GROUP BY op ORDER BY 2"
        return [(str(op), int(first), int(last)) for op, first, last in self._connection.execute(query).fetchall()]

    def lengths(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """(row, JSON bytes of its record and of the comma after it)."""
        own = [name for name in self._types if name.startswith(("id.", "field."))]
        record = ", ".join(f"{identifier(n.partition('.')[2])} := {json_sql(n, self._types[n])}" for n in own)
        query = (
            f"SELECT row, strlen(to_json(struct_pack({record}))::VARCHAR) + 1 FROM {self._file} "
            f"WHERE row BETWEEN {first} AND {last} ORDER BY row"
        )
        cursor = self._connection.execute(query)
        while rows := cursor.fetchmany(4096):
            yield from rows

    def changes(self, first: int, last: int) -> list[Change]:
        """The changes of one range."""
        return list(self.stream(f"row BETWEEN {first} AND {last}"))

    def batches(
        self, rows: Sequence[BatchRow], sync: str, object: str, audience: str | None
    ) -> Iterator[tuple[BatchRow, Batch]]:
        """The batches with their changes, in the order given (by first row), from one pass over the file."""
        if not rows:
            return
        types = self.types
        stream = self._rows(f"row BETWEEN {rows[0].first} AND {rows[-1].last}")
        for batch in rows:
            changes = []
            for values in stream:
                if values[0] >= batch.first:
                    changes.append(self._change(values))
                if values[0] == batch.last:
                    break
            yield batch, Batch(batch.id, sync, object, audience, changes, types)

    def snapshot(self, row: BatchRow, sync: str, object: str, audience: str | None) -> Batch:
        """Everybody who is to be there, as one batch that reads the file while it is iterated."""
        present = f"row BETWEEN {row.first} AND {row.last} AND op <> 'remove'"
        (count,) = self._connection.execute(f"SELECT count(*) FROM {self._file} WHERE {present}").fetchall()[0]
        return Batch(row.id, sync, object, audience, _Lazy(self, present, count), self.types)

    def samples(self, per_op: int) -> list[dict[str, Any]]:
        """The first rows of each op, unmasked."""
        query = f"SELECT min(row), least(max(row), min(row) + {per_op} - 1) FROM {self._file} GROUP BY op"
        ranges = self._connection.execute(query).fetchall()  # an op's rows stand together
        first = " OR ".join(f"row BETWEEN {start} AND {end}" for start, end in ranges)
        return self._sampled(f"WHERE {first or 'false'}")

    def sample(self, row: int) -> dict[str, Any]:
        """One row, unmasked; empty where there is none."""
        return next(iter(self._sampled(f"WHERE row = {row}")), {})

    def _sampled(self, which: str) -> list[dict[str, Any]]:
        own = [n for n in self._types if n.startswith(("id.", "field."))]
        select = ", ".join(f"{wire_sql(n, self._types[n])}" for n in own)
        query = (
            f"SELECT op, source_key, why{', ' + select if select else ''} FROM {self._file} {which} ORDER BY row"
        )
        reading = decoders(["op", "source_key", "why", *(self._types[n] for n in own)])
        with translate("reading the plan", StateError):
            rows = self._connection.execute(query).fetchall()
        return [_sample(own, _decoded(row, reading)) for row in rows]

    def stream(self, where: str) -> Iterator[Change]:
        """The changes of the rows that a condition names, in plan order."""
        return map(self._change, self._rows(where))

    def _rows(self, where: str) -> Iterator[tuple[Any, ...]]:
        """Rows in plan order: the file was written in it, and DuckDB keeps the order of a file it scans."""
        own = [f"id.{n}" for n in self.identifiers] + [f"field.{n}" for n in self.fields]
        select = ["row", "op", "key::VARCHAR", "remote_id"] + [wire_sql(n, self._types[n]) for n in own]
        reading = decoders([*_META, *(self._types[n] for n in own)])
        with translate("reading the plan", StateError):
            cursor = self._connection.execute(f"SELECT {', '.join(select)} FROM {self._file} WHERE {where}")
            while rows := cursor.fetchmany(2048):
                if reading:
                    yield from (_decoded(row, reading) for row in rows)
                else:
                    yield from rows

    def _change(self, row: tuple[Any, ...]) -> Change:
        end = 4 + len(self.identifiers)
        identifiers = dict(zip(self.identifiers, row[4:end], strict=True))
        op = _OPS[row[1]]
        fields = {} if op is Op.REMOVE else dict(zip(self.fields, row[end:], strict=True))
        return Change(op, row[2], identifiers, fields, row[3])


_OPS = {str(op): op for op in Op} | {"keep": Op.UPDATE}


def _decoded(row: tuple[Any, ...], reading: Sequence[tuple[int, Any]]) -> tuple[Any, ...]:
    values = list(row)
    for index, read in reading:
        if values[index] is not None:
            values[index] = read(values[index])
    return tuple(values)


def _sample(own: Sequence[str], row: tuple[Any, ...]) -> dict[str, Any]:
    values = dict(zip(own, row[3:], strict=True))
    return {
        "op": row[0],
        "source_key": row[1],
        "why": row[2],
        "identifiers": {n.removeprefix("id."): v for n, v in values.items() if n.startswith("id.")},
        "fields": {n.removeprefix("field."): v for n, v in values.items() if n.startswith("field.")},
    }


class _Lazy(Sequence[Change]):
    """The changes of a snapshot, read from the plan file each time they are iterated."""

    def __init__(self, file: PlanFile, where: str, count: int) -> None:
        self._file = file
        self._where = where
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Change]:
        return self._file.stream(self._where)

    @overload
    def __getitem__(self, index: int) -> Change: ...

    @overload
    def __getitem__(self, index: slice) -> list[Change]: ...

    def __getitem__(self, index: int | slice) -> Change | list[Change]:
        """By position; costs a pass over the file, so iterate instead."""
        if isinstance(index, slice):
            return list(self)[index]
        found = next(islice(self, index % self._count if self._count else 0, None), None)
        if found is None or not -self._count <= index < self._count:
            raise IndexError(index)
        return found
