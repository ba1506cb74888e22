"""A refresh observed: the cohort staged and compiled, the members beside it, and one scan of what is there."""

from __future__ import annotations

import hashlib
import json
import math
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sync.engine.compile import PROBE, Compiled, compile_sync, key_sql, needed_columns
from sync.engine.database import identifier, lock_down, open_database, translate
from sync.engine.diff import Scan, Sides, duplicate_keys, scan, without_duplicates
from sync.engine.draft import Draft, drafted
from sync.engine.forgotten import keep_out, leaving_of
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import members_of, verify
from sync.engine.pushed import ROWS, Reduced, empty, reduced, salt_of
from sync.engine.scratch import scratch
from sync.errors import CohortError, SourceError, StateError
from sync.sdk.nouns import Delivery
from sync.sources.base import Column, Reading, Relation, Source
from sync.state.base import State, StateReader
from sync.state.nouns import Generation, Lease, Refresh

if TYPE_CHECKING:
    import duckdb

__all__ = ["Observed", "definition_of", "interrupted", "observe", "remember_types"]

_LOOK = 0.1  # seconds between two looks at whether a run was told to stop


@dataclass(frozen=True, slots=True)
class Observed:
    """Both sides of a sync as they are now, open in one DuckDB connection."""

    connection: duckdb.DuckDBPyConnection
    compiled: Compiled
    cohort: str  # the digested SELECT
    members: str  # the members' SELECT
    generation: Generation
    refresh: Refresh
    same_function: bool  # do keys and fingerprints compare with those of the members
    columns: tuple[Column, ...]  # that the sync reads
    forgotten: int = 0  # rows of people who were forgotten, which are on neither side
    reading: Reading | None = None  # of the cohort, as the warehouse tells of it
    leaving: frozenset[str] = frozenset()  # keys of members that an erasure removes, and the diff leaves to it
    few: str = (
        ""  # the rows of `cohort` that `changes` is about, and hardly any others; empty where it cannot tell
    )
    draft: Path | None = (
        None  # what `cohort` reads, in the form of a plan's file; there is none once there are members
    )
    away: Reduced | None = None  # what stayed in the warehouse: rows and members that are unchanged

    @property
    def sides(self) -> Sides:
        """What a diff compares."""
        return Sides(self.cohort, self.members)

    def without_duplicates(self) -> Observed:
        """The same, with one row a key; the rows it leaves out are invalid. Scans once more."""
        cohort = without_duplicates(self.cohort)
        found = scan(self.connection, cohort)
        refresh = _refresh(self.refresh, found, self.away)
        return replace(self, cohort=cohort, refresh=refresh, few="", draft=None)


def definition_of(job: SyncJob) -> str:
    """Where the cohort comes from and what its key is, as JSON."""
    source = job.cohort.source
    where = {"connection": source.connection, "table": source.table, "query": source.query, "key": source.key}
    return json.dumps(where, sort_keys=True)


@contextmanager
def observe(
    state: StateReader,
    settings: EngineSettings,
    job: SyncJob,
    cause: str,
    stop: threading.Event | None = None,
    *,
    whole: bool = False,
) -> Iterator[Observed]:
    """Stage, compile and scan. The source is let go at the end; `stop` interrupts it.

    Where the warehouse keeps the members, rows that are unchanged stay there, unless the `whole` is wanted.

    Raises `SourceError` where the warehouse does not answer, `CohortError` where the cohort is not fit to be
    synced, and `Corrupt` where a members file is not what the ledger says.
    """
    source = job.source()
    source.refresh = uuid.uuid4().hex[:16]
    where = Relation(job.cohort.source.table, job.cohort.source.query)
    with interrupted(source, stop):
        columns = source.columns(where)
    needed = needed_columns(job.cohort, job.sync, [c.name for c in columns])
    generation = state.generation(job.name)
    refuse_other_place(job, generation)
    if not job.place:
        verify(settings, generation)
    spool = scratch(settings)
    with (
        closing(open_database(settings)) as connection,
        translate(f"reading {where.title}", SourceError, "HG215"),
        ExitStack() as stack,
    ):
        if job.place:
            read, rows = tuple(c for c in columns if c.name in needed), ROWS
            empty(connection, read)
        else:
            with interrupted(source, stop):
                staged = stack.enter_context(source.stage(connection, where, needed, spool))
            read, rows = staged.columns, staged.sql
        lock_down(connection)
        if not generation.blank:
            _refuse_new_types(state, job, read)
        compiled = _compile(connection, job, rows, read)
        same = generation.blank or generation.probe == connection.execute(PROBE).fetchall()[0][0]
        away = None
        if job.place:
            away = _pushed(connection, state, settings, job, source, generation, compiled, read, stop, whole=whole)
        members = away.members if away else members_of(connection, settings, generation, compiled.identifiers)
        leaving = _leaving(state, job)
        out = keep_out(connection, settings, state, job, compiled)
        draft = drafted(connection, spool, compiled) if generation.blank and not out else nullcontext()
        with interrupted(connection, stop):  # a DuckDB is read here, by the engine's own connection
            cohort = _read(connection, compiled, out, stack.enter_context(draft))
        seen = Observed(
            connection,
            compiled,
            cohort.select,
            _compared(members, leaving, compiled, same=same),
            generation,
            _refresh(_blank(state, job, source.refresh, cause), cohort.found, away),
            same,
            read,
            cohort.found.forgotten,
            source.reading,
            leaving,
            cohort.few,
            cohort.draft,
            away,
        )
        _refuse_bad_keys(state, job, seen, cohort.found)
        yield seen


def _compared(members: str, leaving: frozenset[str], compiled: Compiled, *, same: bool) -> str:
    """The SELECT of the members as the diff sees them: without those an erasure removes, under keys of today."""
    if leaving:
        keys = ", ".join(sorted(leaving))
        members = f"SELECT * FROM ({members}) WHERE key NOT IN ({keys})"
    if not same:
        members = f"SELECT * REPLACE ({_member_key(compiled)} AS key) FROM ({members})"
    return members


@dataclass(frozen=True, slots=True)
class _Cohort:
    """The cohort's side, read once: what `Observed` has of it."""

    select: str
    found: Scan
    few: str
    draft: Path | None = None


def _read(connection: duckdb.DuckDBPyConnection, compiled: Compiled, out: str, draft: Draft | None) -> _Cohort:
    """Scan the cohort, or its draft where there is one. `out` is SQL that is true of whoever was forgotten."""
    if draft is not None:
        return _Cohort(draft.cohort, scan(connection, draft.cohort), "", draft.file)
    cohort, few = compiled.digested, compiled.among("SELECT source FROM changes").digested
    if not out:
        return _Cohort(cohort, scan(connection, cohort), few)
    found = scan(connection, f"SELECT *, {out} AS forgotten FROM ({cohort})", marked=True)
    kept, few = (f"SELECT * FROM ({select}) WHERE NOT ({out})" for select in (cohort, few))
    return _Cohort(kept, found, few)


def _blank(state: StateReader, job: SyncJob, id: str, cause: str) -> Refresh:
    """The refresh before anything is read."""
    return Refresh(
        id=id,
        sync=job.name,
        cohort=job.cohort.name,
        at=state.now(),
        rows=0,
        invalid=0,
        version="",
        definition=hashlib.sha256(definition_of(job).encode()).hexdigest(),
        cause=cause,
    )


def refuse_other_place(job: SyncJob, generation: Generation) -> None:
    """Raise `StateError` HG346 where the members are not kept where config.toml says."""
    if generation.blank or generation.place == job.place:
        return
    is_, wanted = (f"in {place}" if place else "in the state folder" for place in (generation.place, job.place))
    to = "warehouse" if job.place else "local"
    raise StateError(
        f"the members of '{job.name}' are kept {is_}, and config.toml says {wanted}; nothing was sent",
        code="HG346",
        fix=f"move them: headgate state migrate {job.name} --to {to} --reason ...",
    )


def _pushed(
    connection: duckdb.DuckDBPyConnection,
    state: StateReader,
    settings: EngineSettings,
    job: SyncJob,
    source: Source,
    generation: Generation,
    compiled: Compiled,
    columns: tuple[Column, ...],
    stop: threading.Event | None,
    *,
    whole: bool,
) -> Reduced:
    """Have the warehouse say what is unchanged, and fetch the rest."""
    forgotten = [one.digest for one in state.forgotten(job.name)]
    salt = salt_of(connection, compiled, forgotten)
    apart = {key for key, *_ in state.dirty(job.name)} | set(leaving_of(state, job.name))
    at_once = job.spec.delivery is Delivery.SNAPSHOT
    with (
        interrupted(source, stop),
        reduced(
            connection,
            settings,
            job,
            source,
            generation,
            compiled,
            columns,
            salt,
            apart,
            whole=lambda differs: whole or (at_once and differs),
        ) as (found, remember),
    ):
        out = keep_out(connection, settings, state, job, compiled)
        fit = f"SELECT source_key, key, fingerprint FROM ({compiled.digested}) WHERE why IS NULL"
        remember(fit + (f" AND NOT ({out})" if out else ""))
    return found


@contextmanager
def interrupted(
    source: Source | duckdb.DuckDBPyConnection, stop: threading.Event | None, within: float = math.inf
) -> Iterator[None]:
    """Interrupt the source, or the engine's own reading, when `stop` is set.

    A long query must not keep a run that was told to end. Also after `within` seconds.
    """
    over, late = threading.Event(), time.monotonic() + within

    def watch() -> None:
        while not over.wait(_LOOK):  # again and again: the first may come before there is anything to end
            if (stop is not None and stop.is_set()) or time.monotonic() > late:
                source.interrupt()

    nothing_to_end = type(source).interrupt is Source.interrupt
    if nothing_to_end or (stop is None and within == math.inf):
        yield
        return
    watcher = threading.Thread(target=watch, name="interrupt", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _leaving(state: StateReader, job: SyncJob) -> frozenset[str]:
    """Members whose removal is queued by an erasure. Of a whole audience they simply are no longer a part."""
    if job.spec.delivery is Delivery.SNAPSHOT:
        return frozenset()
    return frozenset(leaving_of(state, job.name))


def _compile(
    connection: duckdb.DuckDBPyConnection, job: SyncJob, sql: str, columns: tuple[Column, ...]
) -> Compiled:
    def describe(select: str) -> dict[str, str]:
        with translate("a mapped expression", CohortError, "HG213"):
            rows = connection.execute(f"DESCRIBE {select}").fetchall()
        return {str(row[0]): str(row[1]) for row in rows}

    return compile_sync(job.cohort, job.sync, job.spec, sql, columns, describe)


def _member_key(compiled: Compiled) -> str:
    """Keys made again from the identifiers, for members whose keys an older hash function made."""
    return key_sql([identifier(f"id.{name}") for name in compiled.identifiers])


def _types(job: SyncJob, columns: tuple[Column, ...]) -> str:
    return json.dumps({"mapping": job.mapping_digest, "types": {c.name: c.type for c in columns}}, sort_keys=True)


def remember_types(state: State, lease: Lease, job: SyncJob, seen: Observed) -> None:
    """Remember the columns' types as a mapping first met them; until something was delivered, as they are now."""
    before, now = state.note(job.name, "types"), _types(job, seen.columns)
    if before != now and (
        before is None or seen.generation.blank or json.loads(before)["mapping"] != job.mapping_digest
    ):
        state.remember(lease, "types", now)


def _refuse_new_types(state: StateReader, job: SyncJob, columns: tuple[Column, ...]) -> None:
    """A column of another type under the same mapping is a broken table, or a change somebody has to confirm."""
    before = json.loads(state.note(job.name, "types") or "{}")
    if before.get("mapping") != job.mapping_digest:
        return
    for column in columns:
        known = before["types"].get(column.name, column.type)
        if known != column.type:
            raise CohortError(
                f"column '{column.name}' was {known} and is {column.type} now; nothing was sent",
                code="HG216",
                fix="mend the table; or, where it is meant, say so in the mapping, as with transform: [text]",
            )


def _refresh(refresh: Refresh, found: Scan, away: Reduced | None) -> Refresh:
    if away is not None:
        found = replace(found, rows=found.rows + away.left, version=away.version, newest=away.newest, key_sum="")
    return replace(
        refresh,
        rows=found.rows,
        invalid=found.invalid,
        version=found.version,
        newest=found.newest,
        key_sum=found.key_sum,
    )


def _refuse_bad_keys(state: StateReader, job: SyncJob, seen: Observed, found: Scan) -> None:
    """Null or repeated keys mean a broken table. Keys that are the same as last time need no second look."""
    last = state.refreshes(job.name, accepted=True, limit=1)
    known = bool(last) and last[0].key_sum == found.key_sum
    repeats = 0 if known or _key_is_identifier(job) else duplicate_keys(seen.connection, seen.cohort)
    refuse_bad_keys(job, found.null_keys, repeats)


def refuse_bad_keys(job: SyncJob, nulls: int, repeats: int) -> None:
    """Raise `CohortError` where more keys are null or repeated than the mapping tolerates."""
    if nulls + repeats <= job.guardrails.max_bad_keys:
        return
    key, title = job.cohort.source.key, job.cohort.source.table or "the query"
    what = " and ".join(
        text for count, text in ((nulls, f"{nulls:,} null"), (repeats, f"{repeats:,} repeated")) if count
    )
    raise CohortError(
        f"{title}: key '{key}' has {what} values, more than max_bad_keys {job.guardrails.max_bad_keys}; "
        "nothing was sent",
        code="HG211",
        fix=f"mend the table (SELECT {key}, count(*) ... GROUP BY 1 HAVING count(*) > 1), or set max_bad_keys",
    )


def _key_is_identifier(job: SyncJob) -> bool:
    """Is the key itself the one identifier: then the diff finds repeats for nothing."""
    first = job.sync.identifiers[0]
    return len(job.sync.identifiers) == 1 and first.from_ == job.cohort.source.key and not first.transform
