"""Where members are kept: in files of the state folder, or in tables of our schema in a warehouse.

Whoever works with members asks here, with a generation, which says where it is. What is in a warehouse is fetched
into a temporary table with the columns of a file; see `sync.state.members`.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from sync.engine.job import EngineSettings
from sync.engine.scratch import scratch
from sync.engine.sql import identifier, literal
from sync.errors import StateError
from sync.sources.member_tables import MemberTables, rows_of
from sync.state import members as files
from sync.state.members import folder_of
from sync.state.nouns import Generation

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from sync.sources.base import Source
    from sync.sources.pushed import Session

__all__ = [
    "advance",
    "decoded",
    "digests_of",
    "encoded",
    "fetched",
    "members_of",
    "migrated",
    "part_of",
    "parts",
    "session_of",
    "source_of",
    "tables",
    "verify",
]

_BATCH = 50_000  # rows of a record batch that is loaded
_KEPT = ("nulls", "source_key", "remote_id", "first_refresh", "first_at", "last_refresh", "last_at")


def source_of(settings: EngineSettings, place: str) -> Source:
    """The warehouse of a place. Raises `StateError` HG345 where config.toml has it no more."""
    name, _, _ = place.partition("/")
    if name not in settings.sources:
        raise StateError(
            f"members are kept in the warehouse '{name}', and config.toml has no [sources.{name}]",
            code="HG345",
            fix="put it back; members move with: headgate state migrate SYNC --to local --reason ...",
        )
    return settings.sources[name]()


@contextmanager
def session_of(source: Source, what: str) -> Iterator[Session]:
    """A session that can keep members. Raises `StateError` HG345 where a source of this type cannot."""
    from sync.sources.pushed import Session

    with source.session(what) as opened:
        if not isinstance(opened, Session):
            raise StateError(
                f"source {source.name}: a source of the type {source.type} cannot keep members",
                code="HG345",
                fix="keep them in the state folder",
            )
        yield opened


@contextmanager
def tables(
    settings: EngineSettings, sync: str, place: str, session: Session | None = None
) -> Iterator[MemberTables]:
    """A sync's tables in a warehouse, made where they are not there."""
    schema = place.partition("/")[2]
    if session is not None:
        yield MemberTables(session, schema, sync)
        return
    with session_of(source_of(settings, place), f"the members of {sync}") as opened:
        found = MemberTables(opened, schema, sync)
        found.make()
        yield found


def verify(settings: EngineSettings, generation: Generation, session: Session | None = None) -> None:
    """Check that the generation is what the ledger recorded. Raises `Corrupt`."""
    if not generation.place:
        files.verify(folder_of(settings.folder, generation.sync), generation)
        return
    with tables(settings, generation.sync, generation.place, session) as there:
        there.verify(generation.sync, parts(generation), generation.digests)


def parts(generation: Generation) -> list[str]:
    """The names of the files or parts that have the generation's members."""
    return [name for name in (generation.base, generation.delta) if name is not None]


def members_of(
    connection: duckdb.DuckDBPyConnection,
    settings: EngineSettings,
    generation: Generation,
    identifiers: Iterable[str] = (),
    keys: Sequence[str] | None = None,
) -> str:
    """A SELECT of the generation's members; `identifiers` are there even if it has none.

    Those with one of the `keys` alone, where they are given and have to be fetched.
    """
    names = list(identifiers)
    if not generation.place:
        return files.relation(connection, folder_of(settings.folder, generation.sync), generation, names)
    with tables(settings, generation.sync, generation.place) as there:
        select = there.current(generation.base, generation.delta)
        if keys is not None:
            some = ", ".join(literal(key) for key in sorted(keys)) or "''"
            select = f"SELECT * FROM ({select}) c WHERE key IN ({some})"
        return decoded(connection, fetched(connection, settings, there.session, [select]), names)


def part_of(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, sync: str, place: str, name: str
) -> str:
    """All rows of one part, also of an earlier generation, as what may stand after FROM."""
    with tables(settings, sync, place) as there:
        return f"({decoded(connection, fetched(connection, settings, there.session, [there.part(name)]))})"


def fetched(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, session: Session, selects: Sequence[str]
) -> str:
    """The temporary table that has the rows of these SELECTs, which have the same columns."""
    table = f"kept_{uuid.uuid4().hex[:12]}"
    spool = scratch(settings) / uuid.uuid4().hex
    try:
        staged = [session.fetch(select, spool) for select in selects]
        union = " UNION ALL ".join(f"SELECT * FROM {one.sql}" for one in staged)
        connection.execute(f"CREATE TEMP TABLE {table} AS {union}")
    finally:
        for file in spool.glob("*"):
            file.unlink(missing_ok=True)
        if spool.is_dir():
            spool.rmdir()
    return table


def decoded(connection: duckdb.DuckDBPyConnection, table: str, identifiers: Iterable[str] = ()) -> str:
    """A SELECT of fetched members with the columns of a file; a part's `removed` is there where it was fetched."""
    columns = [str(row[0]).lower() for row in connection.execute(f"DESCRIBE {table}").fetchall()]
    own = ["CAST(key AS DECIMAL(38, 0)) AS key", "CAST(fingerprint AS UBIGINT) AS fingerprint"]
    own += [
        f"{name} AS {name}" for name in (*_KEPT, "removed") if name in columns
    ]  # in our spelling, not in theirs
    selects = [
        f"SELECT {', '.join(own)}{_typed(str(types))} FROM {table} WHERE types = {literal(str(types))}"
        for (types,) in connection.execute(f"SELECT DISTINCT types FROM {table} ORDER BY 1").fetchall()
    ]
    empty = "".join(f", NULL AS {identifier(f'id.{name}')}" for name in identifiers)
    selects.append(f"SELECT {', '.join(own)}{empty} FROM {table} WHERE false")
    return f"SELECT * FROM ({' UNION ALL BY NAME '.join(selects)})"


def _typed(types: str) -> str:
    """The identifiers' columns, each read back as the type it had."""
    found = ""
    for name, type_ in json.loads(types).items():
        pointer = "/" + name.replace("~", "~0").replace("/", "~1")
        found += f", CAST(json_extract_string(identifiers, {literal(pointer)}) AS {type_}) "
        found += f"AS {identifier(f'id.{name}')}"
    return found


def encoded(connection: duckdb.DuckDBPyConnection, select: str) -> pa.RecordBatchReader:
    """The rows of a SELECT with the columns of a delta, as a part has them."""
    described = connection.execute(f"DESCRIBE {select}").fetchall()
    types = {str(n).removeprefix("id."): str(t) for n, t, *_ in described if str(n).startswith("id.")}
    values = ", ".join(f"{literal(n)}, CAST({identifier(f'id.{n}')} AS VARCHAR)" for n in types)
    kept = ", ".join(_KEPT)
    return connection.sql(
        f"SELECT CAST(key AS VARCHAR) AS key, CAST(fingerprint AS VARCHAR) AS fingerprint, {kept}, "
        f"CAST(json_object({values}) AS VARCHAR) AS identifiers, {literal(json.dumps(types))} AS types, removed "
        f"FROM ({select})"
    ).to_arrow_reader(_BATCH)


def advance(
    connection: duckdb.DuckDBPyConnection,
    settings: EngineSettings,
    before: Generation,
    after: Generation,
    changed: str,
    identifiers: Iterable[str],
    named: Iterable[Generation] = (),
) -> Generation:
    """Write the next generation: `before` with the rows of the SELECT `changed`, which has the columns of a delta.

    `after` says everything about it but its files and members, and also where it is kept. `named` are all
    generations that there are: parts of none of them, as crashes leave them, are removed. Raises `Corrupt` where
    what there is is damaged.
    """
    if not after.place:
        folder = folder_of(settings.folder, after.sync)
        return files.fold(connection, folder, before, after, changed, identifiers)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE folded AS {changed}")
    (changes,) = connection.execute("SELECT count(*) FROM folded").fetchall()[0]
    if not changes:
        return replace(after, base=before.base, delta=before.delta, members=before.members, digests=before.digests)
    with tables(settings, after.sync, after.place) as there:
        verify(settings, before, there.session)
        known = {name for one in named for name in one.digests}
        if known or before.blank:
            there.sweep(known, before.number)
        under = rows_of(before.digests.get(before.base or "", ""))
        rows = encoded(connection, "SELECT * FROM folded")
        (part,), members = there.advance(after.number, before.base, before.delta, under, rows)
    if part.name.startswith("base"):
        return replace(after, base=part.name, delta=None, members=members, digests={part.name: part.digest})
    kept = {name: digest for name, digest in before.digests.items() if name == before.base}
    return replace(
        after, base=before.base, delta=part.name, members=members, digests={**kept, part.name: part.digest}
    )


def migrated(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, before: Generation, place: str, now: float
) -> Generation:
    """The same members, kept in another place, as the next generation; what there was stays where it is."""
    verify(settings, before)
    blank = Generation(before.sync, before.number, 0)
    after = replace(before, number=before.number + 1, place=place, at=now, base=None, delta=None, digests={})
    members = members_of(connection, settings, before)
    return advance(connection, settings, blank, after, f"SELECT *, false AS removed FROM ({members})", [])


def digests_of(generations: Iterable[Generation]) -> Mapping[str, str]:
    """Where each file or part is that a generation has: its name, and the place."""
    return {name: one.place for one in generations for name in one.digests}
