"""Erasures in the runs of a sync: queued removals are planned first, and what is acknowledged is erased.

A removal that somebody asked for does not come from the source: its plan is made from the members, so that neither
a broken cohort nor the mode of the sync stands in its way. The guardrails on removals judge it like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from sync.engine.database import lock_down, open_database, translate
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import members_of, verify
from sync.engine.lease import LeaseKeeper
from sync.engine.proposal import Ground, propose
from sync.engine.purge import purge, unquote
from sync.engine.settle import exceptions_file
from sync.engine.sql import identifier as quoted
from sync.engine.sync_log import lose, quotes
from sync.engine.traces import Wanted, trace
from sync.errors import StateError
from sync.sdk.nouns import Delivery, Op
from sync.state.base import State, StateReader
from sync.state.erasures import OPEN_ERASURES, ErasurePart, ErasureState
from sync.state.log_mark import LogErasure
from sync.state.nouns import Event, Generation, Plan, PlanKind
from sync.state.parquet import source

if TYPE_CHECKING:
    import duckdb

__all__ = ["complete", "leaving", "removals", "waiting"]


def waiting(state: StateReader, sync: str) -> list[ErasurePart]:
    """The sync's erasures whose removal the destination has not acknowledged."""
    return state.erasure_parts(ErasureState.QUEUED, sync=sync)


def removals(state: StateReader, settings: EngineSettings, job: SyncJob) -> Plan | None:
    """The plan that removes whoever is forgotten; None where nobody is due.

    Of a whole audience nobody is removed: whoever is forgotten is not in what is sent next.
    """
    parts = waiting(state, job.name)
    keys = {key for part in parts for key in part.keys}
    due = keys - _backed_off(state, job.name) if keys else keys
    if not due or job.spec.delivery is Delivery.SNAPSHOT:
        return None
    with closing(open_database(settings)) as connection, translate("planning an erasure", StateError):
        lock_down(connection)
        generation = state.generation(job.name)
        verify(settings, generation)
        if not _load(connection, state, settings, generation, due):
            return None
        ground = Ground(state, settings, job, connection, generation)
        origin = parts[0].erasure if len(parts) == 1 else f"{len(parts)} erasures"
        return propose(ground, "SELECT * FROM erasing ORDER BY key", PlanKind.ERASURE, origin)


def _backed_off(state: StateReader, sync: str) -> set[str]:
    """Members whose removal was rejected, and is not tried again yet or ever."""
    now, op = state.now(), str(Op.REMOVE)
    return {r.key for r in state.rejected(sync) if r.op == op and (r.given_up_at is not None or r.next_at > now)}


def _load(
    connection: duckdb.DuckDBPyConnection,
    state: StateReader,
    settings: EngineSettings,
    generation: Generation,
    keys: set[str],
) -> int:
    """Table `erasing`: these members, and who is none but may have become one, with what is known of each."""
    wanted = f"key IN ({', '.join(sorted(keys))})"
    members = members_of(connection, settings, generation, keys=sorted(keys))
    # The names of the mapped fields go on from generation to generation; a removal has no values of them.
    fields = "".join(f", NULL::VARCHAR AS {quoted(f'field.{name}')}" for name in generation.fields)
    connection.execute(
        f"CREATE TEMP TABLE erasing AS SELECT 'remove' AS op, * EXCLUDE (last_refresh, last_at, nulls), "
        f"nulls AS was_nulls{fields} FROM ({members}) WHERE {wanted}"
    )
    runs = {run for key, run, *_ in state.dirty(generation.sync) if key in keys}
    files = [p for run in sorted(runs) if (p := exceptions_file(settings, generation.sync, run)).is_file()]
    for path in files:
        table = source(connection, path)
        columns = connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()
        ids = [str(name) for name, *_ in columns if name.startswith("id.")]
        for name, type_, *_ in columns:
            if name in ids:
                connection.execute(f"ALTER TABLE erasing ADD COLUMN IF NOT EXISTS {quoted(name)} {type_}")
        own = "".join(f", {quoted(name)}" for name in ids)
        connection.execute(
            "INSERT INTO erasing BY NAME "
            f"SELECT DISTINCT ON (key) 'remove' AS op, key, source_key, remote_id{own} FROM {table} "
            f"WHERE {wanted} AND key NOT IN (SELECT key FROM erasing)"
        )
    (count,) = connection.execute("SELECT count(*) FROM erasing").fetchall()[0]
    return int(count)


def leaving(
    connection: duckdb.DuckDBPyConnection,
    state: StateReader,
    settings: EngineSettings,
    sync: str,
    keys: Sequence[str],
) -> bool:
    """May the destination still have one of these members: they are members, or nobody knows."""
    if not keys:
        return False
    if set(keys) & {key for key, *_ in state.dirty(sync)}:
        return True
    members = members_of(connection, settings, state.generation(sync), keys=keys)
    query = f"SELECT 1 FROM ({members}) WHERE key IN ({', '.join(sorted(keys))}) LIMIT 1"
    return bool(connection.execute(query).fetchall())


def complete(state: State, settings: EngineSettings, sync: str, keeper: LeaseKeeper, actor: str) -> int:
    """Erase whoever the destination no longer has from the sync's files; returns how many erasures ended.

    Safe to repeat after a crash at any point.
    """
    parts = state.erasure_parts(*OPEN_ERASURES, sync=sync)
    if not parts or state.open_run(sync) is not None:
        return 0
    ended = 0
    with closing(open_database(settings)) as connection, translate("erasing a person", StateError):
        lock_down(connection)
        for part in parts:
            if part.state is ErasureState.QUEUED and leaving(connection, state, settings, sync, part.keys):
                continue
            end(connection, state, settings, keeper, part, actor)
            ended += 1
    return ended


def end(
    connection: duckdb.DuckDBPyConnection,
    state: State,
    settings: EngineSettings,
    keeper: LeaseKeeper,
    part: ErasurePart,
    actor: str,
) -> ErasurePart:
    """Erase what is left of a person in one sync, and with it the keys they were known by."""
    found = trace(connection, state, settings, part.sync, Wanted(keys=frozenset(part.keys)))
    quoting = quotes(connection, settings, part.sync, found.words)
    lose(state, keeper.lease, LogErasure.of(found.keys, found.source_keys, quoting))
    erased = purge(connection, state, settings, keeper.lease, found, leaving=False)
    unquote(connection, state, settings, [part.sync], found.words)
    rows = {kind: part.rows.get(kind, 0) + count for kind, count in erased.items()}
    rows["members"] = max(part.rows.get("members", 0), erased["members"])
    over = replace(part, state=ErasureState.ERASED, keys=(), rows=rows)
    told = {"erasure": part.erasure, "outcome": str(part.outcome), **rows}
    state.end_erasure(keeper.lease, over, [Event(actor, "person.erased", part.sync, told)])
    return over
