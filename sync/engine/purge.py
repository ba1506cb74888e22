"""Rewriting a sync's files without one person: written aside, named in the ledger, and only then removed.

A crash leaves either the files of before, or files that no row of the ledger names. To repeat it finishes it: what
was rewritten has nothing to erase any more, and files that nobody names are removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sync.engine.job import EngineSettings
from sync.engine.kept import members_of, tables
from sync.engine.settle import exceptions_file
from sync.engine.sql import literal
from sync.engine.traces import Trace, plan_files
from sync.faultpoints import reached
from sync.state.base import State
from sync.state.erasures import REMOVED_TEXT, Rewrite, Rewritten, quoting
from sync.state.members import collect_orphans, digest_file, folder_of, publish
from sync.state.nouns import Generation, Lease
from sync.state.parquet import source, write

if TYPE_CHECKING:
    import duckdb

__all__ = ["purge", "unquote"]


def purge(
    connection: duckdb.DuckDBPyConnection,
    state: State,
    settings: EngineSettings,
    lease: Lease,
    found: Trace,
    *,
    leaving: bool,
) -> dict[str, int]:
    """Erase a person's rows from a sync's files and from the ledger; returns how many, by kind.

    `leaving`: the destination has yet to remove the person, so that the members of now stay as they are, and the
    copies that have the identifiers of a record whose outcome is unknown.
    """
    sync = found.sync
    current = state.generation(sync)
    kept = {current.base, current.delta} if leaving else set()
    needed = {run for key, run, *_ in state.dirty(sync) if key in found.keys} if leaving else set()
    members = {name: keys for name, keys in found.members.items() if name not in kept}
    copies = {run: tuple(sorted(rows)) for run, rows in found.copies.items() if run not in needed}
    rewrite = Rewrite(
        members=list(_members(connection, state, settings, sync, members)),
        counts=_counts(connection, settings, state.generations(sync), members),
        plans=[_plan_file(connection, settings, name, rows) for name, rows in found.plans.items()],
        copies=copies,
        keys=frozenset(found.keys),
        rejected=frozenset(f"row:{key}" for key in found.source_keys),
        uncertain=not leaving,
    )
    state.rewrite(lease, rewrite)
    for run, rows in copies.items():
        _copy(connection, exceptions_file(settings, sync, run), rows)
    _sweep(state, settings, sync)
    _sweep_places(state, settings, found)
    return {
        "members": len({key for keys in members.values() for key in keys}),
        "plans": sum(len(rows) for rows in found.plans.values()),
        "rejected": sum(len(rows) for rows in copies.values()),
    }


def _members(
    connection: duckdb.DuckDBPyConnection,
    state: State,
    settings: EngineSettings,
    sync: str,
    found: dict[str, set[str]],
) -> Iterator[Rewritten]:
    """Each file or part that has one of these keys, without them."""
    places = {name: one.place for one in state.generations(sync) for name in one.digests}
    for name, keys in found.items():
        if not places[name]:
            yield _member_file(connection, folder_of(settings.folder, sync), name, keys)
            continue
        with tables(settings, sync, places[name]) as there:
            part = there.without(name, keys)
        reached("erasure_part.named")
        yield Rewritten(name, part.name, part.digest)


def _member_file(connection: duckdb.DuckDBPyConnection, folder: Path, name: str, keys: Iterable[str]) -> Rewritten:
    """A file of members without these keys; named like the other, by its own content."""
    select = f"SELECT * FROM {source(connection, folder / name)} WHERE key NOT IN ({', '.join(sorted(keys))})"
    stem = name.rpartition("-")[0]
    temporary = folder / f".{stem}-{os.getpid()}.tmp"
    write(connection, select, temporary)
    digest = digest_file(temporary)
    new = f"{stem}-{digest[:8]}.parquet"
    _publish(temporary, folder / new)
    return Rewritten(name, new, digest)


def _counts(
    connection: duckdb.DuckDBPyConnection,
    settings: EngineSettings,
    generations: Iterable[Generation],
    members: dict[str, set[str]],
) -> dict[int, int]:
    """How many members the generations have without the person: looked up by key in those that had them."""
    counts = {}
    for generation in generations:
        keys = {key for name in generation.digests for key in members.get(name, ())}
        if keys:
            select = members_of(connection, settings, generation, keys=sorted(keys))
            query = f"SELECT count(*) FROM ({select}) WHERE key IN ({', '.join(sorted(keys))})"
            (there,) = connection.execute(query).fetchall()[0]
            counts[generation.number] = generation.members - int(there)
    return counts


def _publish(temporary: Path, final: Path) -> None:
    reached("erasure_file.written")
    publish(temporary, final)
    reached("erasure_file.named")


def _without(connection: duckdb.DuckDBPyConnection, path: Path, rows: Iterable[int]) -> str:
    """The rows that stay, with the numbers they have."""
    return f"SELECT * FROM {source(connection, path)} WHERE row NOT IN ({', '.join(map(str, sorted(rows)))})"


def _plan_file(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, name: str, rows: set[int]
) -> Rewritten:
    path = settings.folder / name
    temporary = path.with_name(f".{os.getpid()}.tmp")
    write(connection, _without(connection, path, rows), temporary, row_group_size=20480)
    digest = digest_file(temporary)
    new = path.with_name(f"{digest[:16]}.parquet")
    _publish(temporary, new)
    return Rewritten(name, str(new.relative_to(settings.folder)), digest, tuple(sorted(rows)))


def _copy(connection: duckdb.DuckDBPyConnection, path: Path, rows: Iterable[int]) -> None:
    """A copy keeps its name; one without rows goes."""
    select = _without(connection, path, rows)
    if connection.execute(f"SELECT 1 FROM ({select}) LIMIT 1").fetchall():
        _replace(connection, select, path)
    else:
        path.unlink()


def unquote(
    connection: duckdb.DuckDBPyConnection,
    state: State,
    settings: EngineSettings,
    syncs: Iterable[str],
    words: set[str],
    *,
    compact: bool = False,
) -> int:
    """Take a person's identifiers out of what destinations said of others; returns in how many texts they were."""
    pattern = quoting(words)
    count, test = 0, f"regexp_matches(reason, {literal(pattern)}, 'i')"
    for sync in syncs if pattern else ():
        for path in sorted((settings.folder / "rejected" / sync).glob("*.parquet")):
            table = source(connection, path)
            (found,) = connection.execute(f"SELECT count(*) FROM {table} WHERE {test}").fetchall()[0]
            if found:
                count += int(found)
                clean = f"regexp_replace(reason, {literal(pattern)}, {literal(REMOVED_TEXT)}, 'gi')"
                _replace(connection, f"SELECT * REPLACE ({clean} AS reason) FROM {table}", path)
    return count + state.unquote(words, compact=compact)


def _replace(connection: duckdb.DuckDBPyConnection, select: str, path: Path) -> None:
    temporary = path.with_name(f".{path.stem}-{os.getpid()}.tmp")
    write(connection, select, temporary)
    _publish(temporary, path)


def _sweep_places(state: State, settings: EngineSettings, found: Trace) -> None:
    """The same in each warehouse that keeps members of the sync, and what was seen there of the person's rows."""
    generations = state.generations(found.sync)
    known = {name for one in generations for name in one.digests}
    for place in sorted({one.place for one in generations if one.place}):
        with tables(settings, found.sync, place) as there:
            there.unsee(found.keys, found.source_keys)
            there.sweep(known, generations[-1].number)
        reached("erasure_part.swept")


def _sweep(state: State, settings: EngineSettings, sync: str) -> None:
    """Remove the files of before, and what crashes left: none of it is named by the ledger."""
    collect_orphans(folder_of(settings.folder, sync), state.generations(sync))
    named = set(plan_files(state, settings, sync).values())
    plans, copies = settings.folder / "plans" / sync, settings.folder / "rejected" / sync
    for path in [*plans.glob("*"), *plans.glob(".*.tmp"), *copies.glob(".*.tmp")]:
        if path.is_file() and path not in named:
            path.unlink(missing_ok=True)
    reached("erasure_file.swept")
