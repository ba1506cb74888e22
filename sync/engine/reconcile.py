"""Reconciling: what a destination says of its audience, compared with the members it has acknowledged."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.engine.audience import Audience, load
from sync.engine.database import lock_down, open_database, translate
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import members_of, verify
from sync.engine.report import SyncReport
from sync.engine.sql import identifier
from sync.engine.transforms import apply
from sync.errors import StateError
from sync.mapping import Transform
from sync.state.base import StateReader
from sync.state.nouns import Generation
from sync.state.parquet import write

if TYPE_CHECKING:
    import duckdb

__all__ = ["Compared", "Reconciliation", "Verified", "compared"]


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """How a destination's audience and the members differ, in records.

    `members` = in step + `missing`. Of those `found` that match no member, `extra` can be named, and `unknown`
    lack an identifier: neither is wrong where the sync does not remove.
    """

    generation: int
    members: int
    found: int
    missing: int
    extra: int
    unknown: int
    uncertain: int  # members whose last change has no certain outcome
    requests: int

    @property
    def in_step(self) -> int:
        """Members that the destination has."""
        return self.members - self.missing


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of a reconciliation; `repair` reports the plan of a repair that was asked for."""

    result: Reconciliation
    removes: bool  # may the sync remove: then whoever else is there does not belong there
    samples: list[dict[str, Any]]  # unmasked: `finding` and `identifiers`
    repair: SyncReport | None = None

    @property
    def same(self) -> bool:
        """Is there nothing to repair."""
        result = self.result
        return not result.missing and not (self.removes and (result.extra or result.unknown))


@dataclass(frozen=True, slots=True)
class Compared:
    """The comparison, open in DuckDB: tables `missing` (key, identifiers) and `extra` (remote id, identifiers)."""

    connection: duckdb.DuckDBPyConnection
    names: Sequence[str]
    result: Reconciliation

    @contextmanager
    def saved(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        """Files of `missing` and `extra`, for the engine that makes a plan of them; gone at the end."""
        missing, extra = (folder / f"{uuid.uuid4().hex}.parquet" for _ in range(2))
        try:
            for table, path in (("missing", missing), ("extra", extra)):
                write(self.connection, f"SELECT * FROM {table}", path)
            yield missing, extra
        finally:
            missing.unlink(missing_ok=True)
            extra.unlink(missing_ok=True)

    def samples(self, count: int) -> list[dict[str, Any]]:
        """A few of each kind, unmasked: `finding` and `identifiers`."""
        return [
            {"finding": table, "identifiers": dict(zip(self.names, row, strict=True))}
            for table in ("missing", "extra")
            for row in self.connection.execute(f"SELECT {_list(self.names)} FROM {table} LIMIT {count}").fetchall()
        ]


@contextmanager
def compared(state: StateReader, settings: EngineSettings, job: SyncJob, audience: Audience) -> Iterator[Compared]:
    """Read the audience and compare it with the current members.

    Raises `Corrupt` where a members file is not what the ledger says, and the errors of a destination.
    """
    generation = state.generation(job.name)
    verify(settings, generation)
    names = [mapping.to for mapping in job.sync.identifiers]
    with (
        closing(open_database(settings)) as connection,
        translate("comparing members with the destination", StateError),
    ):
        lock_down(connection)
        load(connection, names, audience.members())
        _match(connection, job, names, members_of(connection, settings, generation, names))
        dirty = len(state.dirty(job.name))
        yield Compared(connection, names, _counted(connection, generation, dirty, audience.requests))


def _match(connection: duckdb.DuckDBPyConnection, job: SyncJob, names: Sequence[str], members: str) -> None:
    """Tables of what is on one side only. A member is there if its remote id is, or one of its identifiers."""
    forms = ", ".join(f"{_form(job, name)} AS {_column(name)}" for name in names)
    connection.execute(f"CREATE TEMP TABLE there AS SELECT DISTINCT remote_id, {forms} FROM found")
    connection.execute(
        f"CREATE TEMP TABLE ours AS SELECT key, remote_id, {forms} FROM (SELECT key, remote_id, "
        f"{', '.join(f'CAST({_column(n)} AS VARCHAR) AS {_column(n)}' for n in names)} FROM ({members}))"
    )
    connection.execute(f"CREATE TEMP TABLE missing AS SELECT * FROM ours a WHERE {_nowhere('there', names)}")
    connection.execute(f"CREATE TEMP TABLE extra AS SELECT * FROM there a WHERE {_nowhere('ours', names)}")
    connection.execute(f"CREATE TEMP TABLE unnamed AS SELECT * FROM extra WHERE {_absent(names)}")
    connection.execute(f"DELETE FROM extra WHERE {_absent(names)}")


def _nowhere(other: str, names: Sequence[str]) -> str:
    """SQL that is true of a row `a` of which the other table knows neither remote id nor identifier."""
    columns = ["remote_id", *map(_column, names)]
    return " AND ".join(f"NOT EXISTS (SELECT 1 FROM {other} b WHERE b.{c} = a.{c})" for c in columns)


def _form(job: SyncJob, name: str) -> str:
    """SQL of an identifier as the platform's own normalising would make it."""
    field = next((f for f in job.spec.fields if f.name == name), None)
    column = _column(name)
    return apply(column, Transform(name=field.normalise)) if field and field.normalise else column


def _counted(
    connection: duckdb.DuckDBPyConnection, generation: Generation, dirty: int, requests: int
) -> Reconciliation:
    found, missing, extra, unknown = (
        int(connection.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])
        for table in ("there", "missing", "extra", "unnamed")
    )
    return Reconciliation(generation.number, generation.members, found, missing, extra, unknown, dirty, requests)


def _column(name: str) -> str:
    return identifier(f"id.{name}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(_column(name) for name in names)


def _absent(names: Sequence[str]) -> str:
    return " AND ".join(f"{_column(name)} IS NULL" for name in names)
