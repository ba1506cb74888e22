"""Settling a run: what was acknowledged becomes members, what was not is kept as what it is.

Acknowledged changes become the next generation. Rejected records and members whose outcome is unknown are kept
with their values in `rejected/SYNC/RUN.parquet`, a copy of their rows of the plan file with status and reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sync.engine.compile import PROBE
from sync.engine.database import insert, literal, lock_down, open_database, translate
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import advance
from sync.errors import StateError
from sync.faultpoints import reached
from sync.sdk.nouns import Delivery, Op, Status
from sync.state.base import State, StateReader
from sync.state.members import publish, scratch
from sync.state.nouns import (
    BatchRow,
    BatchState,
    Event,
    Generation,
    Plan,
    PlanKind,
    PlanStatus,
    RejectedRecord,
    Run,
    RunStatus,
    Settlement,
)
from sync.state.parquet import source, write

if TYPE_CHECKING:
    import duckdb

__all__ = ["Answered", "answered_of", "exceptions_file", "load", "next_try", "settlement"]

_PATIENT_TRIES = 3  # rejections that are simply tried again by the next run
_HOUR, _DAY = 3600.0, 86400.0
_NEVER = 4_000_000_000.0  # a person decides
_LISTED_INVALID = 10_000  # invalid rows the ledger lists; the file has all

_UNRESOLVED = (BatchState.INTENT, BatchState.PARKED, BatchState.JOB)

_NEVER_SENT = (BatchState.PLANNED, BatchState.CANCELLED)

_DELIVERED = (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)

Exception_ = tuple[int, str, Op, Status, str]


def exceptions_file(settings: EngineSettings, sync: str, run: str) -> Path:
    """Where the values of a run's rejected and uncertain records are."""
    return settings.folder / "rejected" / sync / f"{run}.parquet"


def next_try(attempts: int, now: float) -> float:
    """When a record that was rejected so often is tried again: at once, then after an hour, doubling to a day."""
    if attempts <= _PATIENT_TRIES:
        return now
    return now + min(_DAY, _HOUR * 2.0 ** (attempts - _PATIENT_TRIES - 1))


@dataclass(frozen=True, slots=True)
class Answered:
    """What the ledger has of a run's batches."""

    batches: Sequence[BatchRow]
    exceptions: Sequence[Exception_]
    remote_ids: dict[int, str]
    uncertain: frozenset[int]  # batches with an attempt that was never answered


@dataclass(frozen=True, slots=True)
class _Ground:
    """What every part of a settlement looks at."""

    connection: duckdb.DuckDBPyConnection
    job: SyncJob
    plan: Plan
    run: Run
    answered: Answered
    now: float


def answered_of(state: StateReader, run: str) -> Answered:
    """What became of a run's batches, as far as the ledger was told."""
    return Answered(
        batches=state.batches(run),
        exceptions=state.exceptions(run),
        remote_ids=state.remote_ids(run),
        uncertain=frozenset(attempt.batch for attempt in state.attempts(run)),
    )


def settlement(
    state: State,
    settings: EngineSettings,
    job: SyncJob,
    plan: Plan,
    run: Run,
    path: Path,
    status: RunStatus,
    *,
    actor: str,
    counts: dict[str, int],
    error: dict[str, str] | None = None,
) -> Settlement:
    """Write the files of a run's end, and return what the ledger is to record of it in one transaction.

    Safe to repeat after a crash: files that no ledger row names are orphans. Raises `StateError` where a run is to
    be completed and not every record of it has an outcome.
    """
    answered = answered_of(state, run.id)
    if status is RunStatus.COMPLETED:
        _refuse_unanswered(job, plan, run, answered.batches)
    now = state.now()
    connection = open_database(settings)
    lock_down(connection)
    try:
        with translate("settling the run", StateError):
            load(connection, path, answered)
            generation = _next_generation(connection, state, settings, job, plan, run, now)
            _write_exceptions(connection, settings, job.name, run.id)
            ground = _Ground(connection, job, plan, run, answered, now)
            return _settlement(ground, state, status, generation, actor=actor, counts=counts, error=error)
    finally:
        connection.close()


def _refuse_unanswered(job: SyncJob, plan: Plan, run: Run, batches: Sequence[BatchRow]) -> None:
    """Planned records are as many as those with an outcome; the file of a snapshot has unchanged ones besides."""
    planned = sum(getattr(plan.counts, op) for op in run.ops)
    answered = sum(b.size for b in batches if b.state in (BatchState.ACKED, BatchState.PARKED))
    snapshot = planned > 0 and job.spec.delivery is Delivery.SNAPSHOT
    if answered < planned or (answered > planned and not snapshot):
        raise StateError(
            f"run {run.id} planned {planned:,} records and has an outcome for {answered:,}: it is not complete",
            code="HG318",
            fix="nothing is lost, the run is kept open: report this",
        )


def load(connection: duckdb.DuckDBPyConnection, path: Path, answered: Answered) -> None:
    """Tables of what was answered: `undone` rows, `exceptions`, `remote`; and the views `plan` and `applied`."""
    connection.execute(f"CREATE TEMP VIEW plan AS SELECT * FROM {source(connection, path)}")
    connection.execute("CREATE TEMP TABLE gaps (first BIGINT, last BIGINT)")
    # Numbers, not a count: a person may have been erased from the file of a run that is over.
    (rows,) = connection.execute('SELECT coalesce(max("row") + 1, 0) FROM plan').fetchall()[0]
    insert(connection, "gaps", _gaps([b for b in answered.batches if b.state is BatchState.ACKED], rows))
    connection.execute('CREATE TEMP TABLE undone AS SELECT unnest(range(first, last + 1)) AS "row" FROM gaps')
    connection.execute('CREATE TEMP TABLE exceptions ("row" BIGINT, status VARCHAR, reason VARCHAR)')
    insert(connection, "exceptions", [(n, str(status), reason) for n, _, _, status, reason in answered.exceptions])
    connection.execute("CREATE TEMP TABLE open_ranges (first BIGINT, last BIGINT)")
    insert(connection, "open_ranges", [(b.first, b.last) for b in _unresolved(answered)])
    connection.execute(
        "INSERT INTO exceptions SELECT p.row, 'unknown', 'nobody can tell what became of this record' "
        "FROM plan p JOIN open_ranges o ON p.row BETWEEN o.first AND o.last"
    )
    connection.execute('CREATE TEMP TABLE remote ("row" BIGINT, id VARCHAR)')
    insert(connection, "remote", list(answered.remote_ids.items()))
    connection.execute(
        "CREATE TEMP VIEW applied AS SELECT p.* FROM plan p ANTI JOIN undone u ON p.row = u.row "
        "ANTI JOIN exceptions e ON p.row = e.row"
    )


def _unresolved(answered: Answered) -> list[BatchRow]:
    """Batches of which nobody can tell what became: sent and not answered; or never sent, but a part of one that
    was, and of which a request was never answered."""
    parents = {b.number: b.parent for b in answered.batches}

    def in_doubt(number: int | None) -> bool:
        while number is not None:
            if number in answered.uncertain:
                return True
            number = parents[number]
        return False

    return [
        b
        for b in answered.batches
        if b.state in _UNRESOLVED or (b.state in _NEVER_SENT and answered.uncertain and in_doubt(b.parent))
    ]


def _gaps(done: Sequence[BatchRow], rows: int) -> list[tuple[int, int]]:
    """Ranges of the plan's rows that no acknowledged batch covers: few, where most were acknowledged."""
    gaps, start = [], 0
    for batch in sorted(done, key=lambda b: b.first):
        if batch.first > start:
            gaps.append((start, batch.first - 1))
        start = max(start, batch.last + 1)
    return [*gaps, (start, rows - 1)] if start < rows else gaps


def _next_generation(
    connection: duckdb.DuckDBPyConnection,
    state: State,
    settings: EngineSettings,
    job: SyncJob,
    plan: Plan,
    run: Run,
    now: float,
) -> Generation | None:
    """The members after this run; None where nothing was acknowledged."""
    before = state.generation(run.sync)
    columns = [row[0] for row in connection.execute("DESCRIBE SELECT * FROM plan").fetchall()]
    identifiers = [name.removeprefix("id.") for name in columns if name.startswith("id.")]
    fields = tuple(name.removeprefix("field.") for name in columns if name.startswith("field."))
    own = "".join(f', "id.{n.replace(chr(34), chr(34) * 2)}"' for n in identifiers)
    refresh = literal(plan.refresh)
    changed = (
        "SELECT a.key, a.fingerprint, a.nulls, a.source_key, coalesce(r.id, a.remote_id) AS remote_id, "
        f"coalesce(a.first_refresh, {refresh}) AS first_refresh, coalesce(a.first_at, {now}) AS first_at, "
        f"{refresh} AS last_refresh, {now}::DOUBLE AS last_at{own}, a.op = 'remove' AS removed "
        "FROM applied a LEFT JOIN remote r ON a.row = r.row WHERE a.op IN ('add', 'update', 'remove')"
    )
    after = Generation(
        sync=run.sync,
        number=before.number + 1,
        members=0,
        fields=fields,
        probe=str(connection.execute(PROBE).fetchall()[0][0]),
        run=run.id,
        refresh=plan.refresh,
        at=now,
        place=job.place if before.blank else before.place,
    )
    made = advance(connection, settings, before, after, changed, identifiers, state.generations(run.sync))
    same = made.base == before.base and made.delta == before.delta
    return None if same else made


def _write_exceptions(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, sync: str, run: str
) -> None:
    select = (
        "SELECT p.*, coalesce(e.status, 'invalid') AS status, coalesce(e.reason, p.why) AS reason "
        "FROM plan p LEFT JOIN exceptions e ON p.row = e.row "
        "WHERE (e.row IS NOT NULL AND p.op <> 'keep') OR p.op = 'invalid'"
    )
    if not connection.execute(f"SELECT 1 FROM ({select}) LIMIT 1").fetchall():
        return
    final = exceptions_file(settings, sync, run)
    with scratch(final.parent) as temporary:
        write(connection, select, temporary)
        reached("rejected_file.written")
        publish(temporary, final)
    reached("rejected_file.named")


def _settlement(
    ground: _Ground,
    state: State,
    status: RunStatus,
    generation: Generation | None,
    *,
    actor: str,
    counts: dict[str, int],
    error: dict[str, str] | None,
) -> Settlement:
    before = {record.key: record for record in state.rejected(ground.job.name)}
    observed = ground.plan.observed
    refused = _refused(ground, before)
    invalid = _invalid(ground, before)
    still = {record.key for record in (*refused, *invalid)}
    # A plan that is not from the source says nothing of its invalid rows, nor of what was given up.
    told = before if observed else {k: r for k, r in before.items() if r.given_up_at is None}
    resolved = _applied_keys(ground, told) | {k for k, r in before.items() if observed and r.code == "invalid"}
    dirty = _dirty(ground)
    again = {key for key, *_ in dirty}
    ended = _status(status, counts, len(dirty) + len(refused), ground.plan)
    data = {"sync": ground.job.name, "plan": ground.plan.id, **counts, **(error or {})}
    return Settlement(
        status=ended,
        counts=counts,
        generation=generation,
        accept_refresh=ground.plan.refresh if ended in _DELIVERED and not _kept_back(ground) else None,
        rejected=[*refused, *invalid],
        resolved=resolved - still,
        dirty=dirty,
        clean=_applied_keys(ground, {key for key, *_ in state.dirty(ground.job.name)}) - again,
        plan_status=PlanStatus.EXECUTED,
        error=error,
        events=[Event(actor, f"run.{ended}", ground.run.id, data)],
    )


def _kept_back(ground: _Ground) -> bool:
    """Was only a part of the refresh sent: then it is not what others are to be compared with."""
    if ground.plan.kind is not PlanKind.DIFF:
        return True
    removes = Op.REMOVE in ground.job.spec.ops and Op.REMOVE in ground.job.sync.mode.ops
    return ground.plan.counts.removals_kept_back > 0 or (removes and Op.REMOVE not in ground.run.ops)


def _status(status: RunStatus, counts: dict[str, int], uncertain: int, plan: Plan) -> RunStatus:
    """Never green while a record is undelivered."""
    undelivered = counts["rejected"] + counts["deferred"] + counts["unknown"] + uncertain
    c = plan.counts
    if status is RunStatus.COMPLETED and undelivered + c.invalid + c.backed_off + c.not_undone:
        return RunStatus.COMPLETED_WITH_ERRORS
    return status


def _refused(ground: _Ground, before: dict[str, RejectedRecord]) -> list[RejectedRecord]:
    """Rejected records, and those of unknown outcome where sending them again could double them."""
    kept, now = ("rejected",) if ground.job.spec.idempotent else ("rejected", "unknown"), ground.now
    rows = ground.connection.execute(
        "SELECT p.key::VARCHAR, p.op, p.row, e.status, e.reason, coalesce(p.fingerprint::VARCHAR, '') "
        "FROM exceptions e JOIN plan p ON p.row = e.row WHERE list_contains(?, e.status)",
        [list(kept)],
    ).fetchall()
    records = []
    for key, op, number, status, reason, fingerprint in rows:
        old = before.get(key)
        attempts = (old.attempts if old else 0) + 1
        records.append(
            RejectedRecord(
                sync=ground.job.name,
                key=key,
                op=op,
                code=status,
                reason=reason,
                fingerprint="" if op == "remove" else fingerprint,
                run=ground.run.id,
                row=number,
                attempts=attempts,
                first_at=old.first_at if old else now,
                last_at=now,
                next_at=_NEVER if status == "unknown" else next_try(attempts, now),
            )
        )
    return records


def _invalid(ground: _Ground, before: dict[str, RejectedRecord]) -> list[RejectedRecord]:
    sync, run, now = ground.job.name, ground.run.id, ground.now
    rows = ground.connection.execute(
        f"SELECT row, source_key, why FROM plan WHERE op = 'invalid' ORDER BY row LIMIT {_LISTED_INVALID}"
    ).fetchall()
    records = []
    for number, source_key, why in rows:
        key = f"row:{source_key}" if source_key is not None else f"row:#{number}"
        old = before.get(key)
        attempts, first = (old.attempts + 1, old.first_at) if old else (1, now)
        records.append(
            RejectedRecord(sync, key, "invalid", "invalid", why, "", run, number, attempts, first, now, now)
        )
    return records


def _applied_keys(ground: _Ground, keys: Iterable[str]) -> set[str]:
    """Those of the keys that this run delivered."""
    known = [key for key in keys if not key.startswith("row:")]
    if not known:
        return set()
    rows = ground.connection.execute(
        "SELECT key::VARCHAR FROM applied WHERE key IN (SELECT unnest(?::DECIMAL(38, 0)[]))", [known]
    ).fetchall()
    return {row[0] for row in rows}


def _dirty(ground: _Ground) -> list[tuple[str, int, Op]]:
    """Members whose state at the destination is uncertain.

    That is an unknown outcome; and a failure of a batch that has a request never answered, which may still have
    been applied. Of a whole audience one member is enough: it makes the next run send the whole again.
    """
    if not ground.job.spec.idempotent:
        return []
    ranges = [(b.first, b.last) for b in ground.answered.batches if b.number in ground.answered.uncertain]
    ground.connection.execute("CREATE TEMP TABLE uncertain (first BIGINT, last BIGINT)")
    insert(ground.connection, "uncertain", ranges)
    rows = ground.connection.execute(
        "SELECT p.key::VARCHAR, p.row, p.op FROM exceptions e JOIN plan p ON p.row = e.row "
        "WHERE e.status = 'unknown' "
        "OR EXISTS (SELECT 1 FROM uncertain u WHERE p.row BETWEEN u.first AND u.last)"
    ).fetchall()
    dirty = [(key, number, Op(op)) for key, number, op in rows if op in ("add", "update", "remove")]
    return dirty[:1] if ground.job.spec.delivery is Delivery.SNAPSHOT else dirty
