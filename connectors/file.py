"""Files in a folder: CSV, JSON Lines or Parquet, holding either the changes or the whole audience.

- A *delta* is one file per batch. Its column `op` says what happened to each row: `add`, `update` or `remove`; a
  removal has the identifiers alone.
- A *snapshot* is one file that always holds every member; it is replaced whenever anything changes.

A file appears under its name only when it is complete and on the disk; names that begin with a dot are files
still being written. Files are readable by their owner alone. The folder has to exist already: it may be a mount.

CSV follows RFC 4180: UTF-8, a header, CRLF, quotes where they are needed. Null and the empty text are both
empty; lists and objects are JSON text. JSON Lines keep null, nesting and numbers. Parquet keeps the types of the
warehouse, as far as it has them (intervals, bit strings and unions are text).

A spreadsheet runs a cell that begins with `=`, `+`, `-` or `@`. To a program a guard against that is damage, for
`'+61...` is no telephone number. So a CSV says what the warehouse says, unless people open it: set
`formula_guard = true`, and an apostrophe is put before such text.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

import httpx
from pydantic import Field, field_validator, model_validator

from sync.errors import AuthError, RequestError, Unavailable
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Change, Delivery, Limits, ObjectSpec, Op, Outcome, Receipt, Status, Value
from sync.sdk.values import dumps, text

__all__ = ["File", "FileConfig"]

Row = Mapping[str, Value]

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_FORMULA = tuple("=+-@\t\r\n＝＋－＠")  # what makes a spreadsheet run a cell (OWASP, "CSV Injection")
_PARQUET_ROWS = 32_768  # rows of a row group; bounds the memory of a snapshot


class FileConfig(Config):
    """Where files go and what they look like."""

    path: Path = Field(description="An existing folder on this machine.")
    format: Literal["csv", "jsonl", "parquet"] = "csv"
    delivery: Delivery = Field(
        Delivery.DELTA,
        description="`delta`: a file of changes for each batch, with a column `op`. "
        "`snapshot`: one file that always holds every member.",
    )
    name: str = Field(
        "", description="File name without extension; may use {sync} and {batch}. A delta needs {batch}."
    )
    rows_per_file: int = Field(10_000, ge=1, le=1_000_000, description="Of a delta; a snapshot is one file.")
    formula_guard: bool = Field(
        False, description="CSV: put an apostrophe before text that a spreadsheet would run as a formula."
    )

    @field_validator("path", mode="before")
    @classmethod
    def _local(cls, value: Any) -> Any:
        if isinstance(value, str) and "://" in value:
            raise ValueError("only folders on this machine are supported: give a path, not a URL")
        return value

    @model_validator(mode="after")
    def _name_is_usable(self) -> FileConfig:
        rest = self.template.replace("{sync}", "").replace("{batch}", "")
        if _UNSAFE.search(rest) or self.template.startswith("."):
            raise ValueError("`name` takes letters, digits, `.`, `_`, `-`, {sync} and {batch}, no leading dot")
        if self.delivery is Delivery.DELTA and "{batch}" not in self.template:
            raise ValueError("`name` needs {batch} in a delta, or each batch would overwrite the one before")
        if self.formula_guard and self.format != "csv":
            raise ValueError("`formula_guard` is for `format: csv` only")
        return self

    @property
    def template(self) -> str:
        """The file name without extension, as configured or by default."""
        return self.name or ("{sync}" if self.delivery is Delivery.SNAPSHOT else "{sync}-{batch}")


def _spec(delivery: Delivery, rows: int) -> ObjectSpec:
    snapshot = delivery is Delivery.SNAPSHOT
    return ObjectSpec(
        name="row",
        title="File row",
        ops=frozenset(Op),
        limits=Limits(batch_size=None if snapshot else rows, mixed_ops=True),
        delivery=delivery,
        audience=False,
        open_fields=True,
    )


class File(Connector[FileConfig]):
    """One file per batch, written aside and published by rename, so that readers never see half of one.

    The same batch always has the same file name, so a replay overwrites its own file.
    """

    name = "file"
    title = "Files (CSV, JSON Lines, Parquet)"
    docs = __doc__ or ""
    config_model = FileConfig
    objects: Mapping[str, ObjectSpec] = {"row": _spec(Delivery.DELTA, 10_000)}

    def __init__(self, config: FileConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = {"row": _spec(config.delivery, config.rows_per_file)}

    @classmethod
    def account(cls, config: FileConfig) -> str:
        """Each folder on its own."""
        return f"file:{config.path}"

    def check(self) -> None:
        """Write and remove an empty file; raise `AuthError` where the folder is not writable."""
        with _errors(self.config.path), tempfile.TemporaryFile(dir=self.config.path):
            pass

    def push(self, batch: Batch) -> Outcome:
        """Publish the batch as one file; raise `AuthError` or `Unavailable` where the folder does not take it."""
        with _published(self.file(batch)) as out:
            self._write(batch, out)
        return (Receipt(change.key, Status.APPLIED) for change in batch.changes)

    def file(self, batch: Batch) -> Path:
        """The file a batch is published as."""
        names = {"sync": _UNSAFE.sub("-", batch.sync), "batch": _UNSAFE.sub("-", batch.id)}
        return self.config.path / f"{self.config.template.format(**names)}.{self.config.format}"

    def _write(self, batch: Batch, out: IO[bytes]) -> None:
        delta = self.config.delivery is Delivery.DELTA
        rows: Iterator[Row] = (_row(change, op=delta) for change in batch.changes)
        if self.config.format == "jsonl":
            out.writelines(dumps(row) + b"\n" for row in rows)
            return
        first = next(rows, {})
        sample = (_row(change, op=True) for change in batch.changes) if delta else iter([first])
        columns = _columns(batch.types, sample, op=delta)
        rows = chain([first], rows) if first else rows
        if self.config.format == "csv":
            _write_csv(columns, rows, out, _guarded if self.config.formula_guard else text)
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


@contextlib.contextmanager
def _published(path: Path) -> Iterator[IO[bytes]]:
    """A file that appears under `path`, mode 0600, when everything in it is on the disk."""
    with _errors(path.parent):
        for stale in path.parent.glob(f".{path.name}.*.part"):  # of an attempt that was cut short
            stale.unlink(missing_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb", buffering=1 << 20) as out:
                yield out
                out.flush()
                os.fsync(out.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    with _errors(path.parent, applied=None):
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system offers that for folders."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _errors(folder: Path, *, applied: bool | None = False) -> Iterator[None]:
    """What a failing folder means to the engine; `applied` as in `Unavailable`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        if error.errno in _REFUSED:
            fix = "let the user that runs Headgate write there"
            raise AuthError(f"cannot write to the folder {folder}: {reason}", fix=fix) from error
        hint = "; make it, or mount it" if error.errno in (errno.ENOENT, errno.ENOTDIR) else ""
        raise Unavailable(f"cannot write to the folder {folder}: {reason}{hint}", applied=applied) from error
