"""The traces of one person in a sync's files: members of all generations, plans, copies of rejected records.

Whoever is found by an identifier is then looked for by member key and by source key, until nothing new turns up:
somebody whose address changed was two members, and an invalid row has no member key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.engine.forms import plain
from sync.engine.job import EngineSettings
from sync.engine.kept import part_of
from sync.engine.sql import identifier as quoted
from sync.state.base import StateReader
from sync.state.members import folder_of
from sync.state.parquet import source

if TYPE_CHECKING:
    import duckdb

__all__ = ["Trace", "Wanted", "plan_files", "trace"]

_EVERY = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person is looked for by. Texts are plain: no white space around them, lower case."""

    identifiers: frozenset[str] = frozenset()
    fields: frozenset[str] = frozenset()  # in columns of fields too
    keys: frozenset[str] = frozenset()
    source_keys: frozenset[str] = frozenset()  # as they are


@dataclass(slots=True)
class Trace:
    """Where a person was found in one sync; file names are as the ledger has them."""

    sync: str
    keys: set[str] = field(default_factory=set)
    source_keys: set[str] = field(default_factory=set)
    direct: set[str] = field(default_factory=set)  # whom the identifier itself found, by source key or key
    identities: set[tuple[tuple[str, str], ...]] = field(default_factory=set)  # (name, plain value) of each
    members: dict[str, set[str]] = field(default_factory=dict)  # file -> keys
    plans: dict[str, set[int]] = field(default_factory=dict)  # file -> rows
    copies: dict[str, set[int]] = field(default_factory=dict)  # run -> rows

    @property
    def found(self) -> bool:
        """Is the person anywhere in the sync's files."""
        return bool(self.members or self.plans or self.copies)

    @property
    def words(self) -> set[str]:
        """The person's identifiers, as a destination may have quoted them."""
        return {value for identity in self.identities for _, value in identity if len(value) > 4}


@dataclass(frozen=True, slots=True)
class _File:
    kind: str  # members, plans, copies
    name: str
    table: str  # what stands for it after FROM


def trace(
    connection: duckdb.DuckDBPyConnection,
    state: StateReader,
    settings: EngineSettings,
    sync: str,
    wanted: Wanted,
) -> Trace:
    """Look for a person in every file of a sync."""
    found = Trace(sync, keys=set(wanted.keys), source_keys=set(wanted.source_keys))
    files = list(_files(connection, state, settings, sync))
    new = wanted
    while new.identifiers or new.fields or new.keys or new.source_keys:
        _load(connection, new)
        before = set(found.keys), set(found.source_keys)
        for file in files:
            _search(connection, file, found, direct=new is wanted)
        new = Wanted(keys=frozenset(found.keys - before[0]), source_keys=frozenset(found.source_keys - before[1]))
    if not found.found:
        found.keys, found.source_keys = set(wanted.keys), set()
    return found


def plan_files(state: StateReader, settings: EngineSettings, sync: str) -> dict[str, Path]:
    """The files of a sync's plans that there are, by the name the ledger has."""
    names = {plan.file for plan in state.plans(sync, limit=_EVERY) if plan.file}
    return {name: path for name in sorted(names) if (path := settings.folder / name).is_file()}


def _files(
    connection: duckdb.DuckDBPyConnection, state: StateReader, settings: EngineSettings, sync: str
) -> Iterator[_File]:
    folder = folder_of(settings.folder, sync)
    names = {name: one.place for one in state.generations(sync) for name in one.digests}
    for name, place in sorted(names.items()):
        if place:
            yield _File("members", name, part_of(connection, settings, sync, place, name))
        elif (folder / name).is_file():
            yield _File("members", name, source(connection, folder / name))
    for name, path in plan_files(state, settings, sync).items():
        yield _File("plans", name, source(connection, path))
    for path in sorted((settings.folder / "rejected" / sync).glob("*.parquet")):
        yield _File("copies", path.stem, source(connection, path))


def _load(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> None:
    lists: dict[str, Iterable[str]] = {
        "identifier": wanted.identifiers,
        "field": wanted.fields,
        "key": wanted.keys,
        "source_key": wanted.source_keys,
    }
    connection.execute("CREATE OR REPLACE TEMP TABLE wanted (what VARCHAR, text VARCHAR)")
    for what, texts in lists.items():
        if texts:
            connection.execute("INSERT INTO wanted SELECT ?, unnest(?::VARCHAR[])", [what, sorted(texts)])


def _search(connection: duckdb.DuckDBPyConnection, file: _File, found: Trace, *, direct: bool) -> None:
    table = file.table
    types = {str(n): str(t) for n, t, *_ in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}
    tests = dict(_tests(types))
    whats = [row[0] for row in connection.execute("SELECT DISTINCT what FROM wanted").fetchall()]
    asked = [
        f"{sql} IN (SELECT text FROM wanted WHERE what = '{what}')" for sql, what in tests.items() if what in whats
    ]
    if not asked:
        return
    names = sorted(name for name in types if name.startswith("id."))
    own = "".join(f", {plain(f'CAST({quoted(name)} AS VARCHAR)')}" for name in names)
    row = "row" if "row" in types else "NULL"
    rows = connection.execute(
        f"SELECT key::VARCHAR, source_key, {row}{own} FROM {table} WHERE {' OR '.join(asked)}"
    ).fetchall()
    for values in rows:
        _note(found, file, names, values, direct=direct)


def _tests(types: dict[str, str]) -> Iterator[tuple[str, str]]:
    """SQL of a column's text -> what it is compared with."""
    yield "CAST(key AS VARCHAR)", "key"
    yield "source_key", "source_key"
    for name, type_ in types.items():
        if name.startswith("id."):
            yield plain(f"CAST({quoted(name)} AS VARCHAR)"), "identifier"
        elif name.startswith("field.") and type_ == "VARCHAR":
            yield plain(quoted(name)), "field"


def _note(found: Trace, file: _File, names: list[str], values: tuple[Any, ...], *, direct: bool) -> None:
    key, source_key, row, *own = values
    found.keys |= {key} - {None}
    found.source_keys |= {source_key} - {None}
    if direct:
        found.direct.add(source_key or key or f"{file.name}:{row}")
    if any(own):
        found.identities.add(tuple((n.removeprefix("id."), v or "") for n, v in zip(names, own, strict=True)))
    if file.kind == "members":
        found.members.setdefault(file.name, set()).add(key)
    else:
        where = found.plans if file.kind == "plans" else found.copies
        where.setdefault(file.name, set()).add(int(row))
