"""Plans whose changes are not the cohort's: frozen from a SELECT and judged without a source.

A revert proposes the inverse of a run, a repair what the destination lacks. Both are plans like any other from
here on; what they were made over are the members, whose generation they bind.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync.engine.database import literal, lock_down, open_database, translate
from sync.engine.forgotten import leaving_of
from sync.engine.guardrails import HOLDS, Facts, answer, judge, objection
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.plan import freeze_changes, inputs_digest, make_plan, verify_file, with_counts
from sync.errors import StateError
from sync.sdk.nouns import Op
from sync.state.base import StateReader
from sync.state.nouns import Counts, Generation, Plan, PlanKind, PlanStatus, Refresh, Verdict
from sync.state.parquet import source

if TYPE_CHECKING:
    import duckdb

__all__ = ["WEEK", "Ground", "judged_again", "nulled", "propose", "rest_of"]

WEEK = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Ground:
    """What a proposal stands on: the members it was made over, in a connection that has its changes."""

    state: StateReader
    settings: EngineSettings
    job: SyncJob
    connection: duckdb.DuckDBPyConnection
    generation: Generation


def propose(
    ground: Ground,
    select: str,
    kind: PlanKind,
    origin: str = "",
    *,
    counts: Counts | None = None,
    inputs: str = "",
    kept_back: bool = False,
) -> Plan:
    """Freeze the rows of a SELECT (see `freeze_changes`), judge them and bind them to the members.

    `counts` has what the rows do not tell, and `inputs` is a digest of what they were made from. Removals that
    are `kept_back` wait for a decision whatever else is said of them. Nothing is written to the ledger.
    """
    state, settings, job = ground.state, ground.settings, ground.job
    frozen = freeze_changes(ground.connection, settings, job, _without_forgotten(state, job, select))
    counts = with_counts(counts or Counts(members=ground.generation.members), frozen)
    verdicts = _judged(ground, kind, counts, frozen.file, kept_back=kept_back)
    return make_plan(
        settings,
        job,
        frozen,
        _no_refresh(job, counts, state.now()),
        ground.generation.number,
        counts,
        verdicts,
        status=PlanStatus.HELD if answer(verdicts) in HOLDS else PlanStatus.READY,
        inputs=inputs or inputs_digest(job, ground.generation.number, "", [str(kind), origin, frozen.sha256]),
        needs=2 if any(v.guardrail == "protected_cohort" for v in verdicts) else 1,
        now=state.now(),
        kind=kind,
        origin=origin,
    )


def _without_forgotten(state: StateReader, job: SyncJob, select: str) -> str:
    """Whoever an erasure is about to remove is not added or updated meanwhile."""
    keys = leaving_of(state, job.name)
    if not keys:
        return select
    return f"SELECT * FROM ({select}) WHERE op = 'remove' OR key NOT IN ({', '.join(keys)})"


def judged_again(state: StateReader, settings: EngineSettings, job: SyncJob, plan: Plan) -> str:
    """What would hold the plan now that did not before; empty where nothing would."""
    verify_file(settings, plan)
    with _opened(state, settings, job) as ground:
        return objection(plan, _judged(ground, plan.kind, plan.counts, plan.file))


def rest_of(state: StateReader, settings: EngineSettings, job: SyncJob, plan: Plan) -> Plan:
    """The removals of a plan whose other changes went out, over the members as they are now; always held."""
    path = verify_file(settings, plan)
    with _opened(state, settings, job) as ground:
        file = source(ground.connection, path)
        select = f"SELECT * EXCLUDE (row) FROM {file} WHERE op = {literal(Op.REMOVE)}"
        return propose(ground, select, plan.kind, plan.origin, kept_back=True)


@contextmanager
def _opened(state: StateReader, settings: EngineSettings, job: SyncJob) -> Iterator[Ground]:
    with closing(open_database(settings)) as connection, translate("reading the plan", StateError):
        lock_down(connection)
        yield Ground(state, settings, job, connection, state.generation(job.name))


def _judged(
    ground: Ground, kind: PlanKind, counts: Counts, file: str, *, kept_back: bool = False
) -> tuple[Verdict, ...]:
    state, job, now = ground.state, ground.job, ground.state.now()
    turned = nulled(ground.connection, ground.settings, file, ground.generation) if counts.update else {}
    return judge(
        Facts(
            job=job,
            counts=counts,
            refresh=_no_refresh(job, counts, now),
            accepted=(),
            nulled=turned,
            removed_7d=state.removed_since(job.name, now - WEEK),
            first_run=False,
            first_run_allowed=True,
            same_function=True,
            definition_moved="",
            now=now,
            kind=kind,
            kept_back=kept_back,
        )
    )


def _no_refresh(job: SyncJob, counts: Counts, now: float) -> Refresh:
    """Nothing was observed. What a protected cohort is asked is whether anybody is left."""
    left = max(0, counts.members + counts.add - counts.remove)
    return Refresh(
        id="",
        sync=job.name,
        cohort=job.cohort.name,
        at=now,
        rows=left,
        invalid=0,
        version="",
        definition="",
        cause="",
    )


def nulled(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, plan_file: str, members: Generation
) -> dict[str, int]:
    """Members by field that turns null; fields mapped since count for nothing."""
    path = source(connection, settings.folder / plan_file)
    rows = connection.execute(
        f"SELECT nulls, coalesce(was_nulls, ''), count(*) FROM {path} "
        "WHERE op = 'update' AND nulls IS DISTINCT FROM was_nulls GROUP BY ALL"
    ).fetchall()
    found: dict[str, int] = {}
    for nulls, before, count in rows:
        for name in set((nulls or "").split("\x1f")) - set(before.split("\x1f")) - {""}:
            if name in members.fields:
                found[name] = found.get(name, 0) + int(count)
    return found
