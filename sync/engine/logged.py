"""A run as the sync log has it: one row of the run, and one of each record, from the ledger and the plan file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sync.engine.database import insert, literal, lock_down, open_database, translate
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.plan import plan_path
from sync.engine.settle import answered_of, load
from sync.errors import StateError
from sync.sdk.nouns import Op
from sync.state.base import StateReader
from sync.state.nouns import Plan, Run, RunStatus

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["Logged", "logged", "run_row"]

_OPS = (Op.ADD, Op.UPDATE, Op.REMOVE)
_ENDED = (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)
_BATCH = 20_000  # rows of a record batch: what is in memory at a time

_RECORDS = """
SELECT p.row AS number, p.op, p.source_key, p.key::VARCHAR AS member_key,
    CASE WHEN p.op IN ('invalid', 'left_out') THEN p.op WHEN e.row IS NOT NULL THEN e.status
        WHEN u.row IS NOT NULL THEN 'not_sent' ELSE 'acknowledged' END AS outcome,
    coalesce(e.reason, p.why) AS reason, coalesce(r.id, p.remote_id) AS remote_id
FROM plan p
LEFT JOIN (SELECT DISTINCT ON (row) row, status, reason FROM exceptions) e ON p.row = e.row
LEFT JOIN undone u ON p.row = u.row
LEFT JOIN (SELECT DISTINCT ON (row) row, id FROM remote) r ON p.row = r.row
WHERE p.op IN ({ops})
"""


@dataclass(frozen=True)
class Logged:
    """What is logged of a run: `row` by column; `records` are read while its context lasts, in record batches."""

    row: Mapping[str, Any]
    records: pa.RecordBatchReader | None = None


@dataclass(slots=True)
class _Counts:
    """Records of a run: op -> outcome -> how many."""

    by_op: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, op: str, outcome: str, count: int) -> None:
        """Count so many more."""
        outcomes = self.by_op.setdefault(op, {})
        outcomes[outcome] = outcomes.get(outcome, 0) + count

    def of(self, op: str, *outcomes: str) -> int:
        """Records of an op with one of the outcomes; with any, where none is named."""
        held = self.by_op.get(op, {})
        return sum(held.get(o, 0) for o in outcomes) if outcomes else sum(held.values())

    def all(self, outcome: str) -> int:
        """Records of the three ops with the outcome."""
        return sum(self.of(op, outcome) for op in _OPS)


@contextmanager
def logged(state: StateReader, settings: EngineSettings, job: SyncJob, run: Run) -> Iterator[Logged]:
    """A run that sent something: its row and its records. Raises `StateError` where its plan file cannot be read.

    Whoever was erased from the plan file has no record; they stay in the counts.
    """
    plan = state.plan(run.plan or "")
    path = plan_path(settings, plan) if plan is not None else None
    if plan is None or path is None or not path.is_file():
        yield Logged(run_row(state, job, run, plan))
        return
    with closing(open_database(settings)) as connection, translate("reading what a run sent", StateError):
        lock_down(connection)
        load(connection, path, answered_of(state, run.id))
        ops = ", ".join(literal(str(op)) for op in (*sorted(run.ops), "invalid", "left_out"))
        connection.execute(f"CREATE TEMP VIEW records AS {_RECORDS.format(ops=ops)}")
        counts = _counted(connection, state, plan, run)
        yield Logged(run_row(state, job, run, plan, counts), _reader(connection, run))


def _reader(connection: duckdb.DuckDBPyConnection, run: Run) -> pa.RecordBatchReader:
    return connection.sql(
        f"SELECT {literal(run.id)} AS run, {literal(run.sync)} AS sync, source_key, member_key, op, outcome, "
        f"reason, remote_id, to_timestamp({run.finished_at or 0.0!r}) AS ended_at FROM records"
    ).to_arrow_reader(_BATCH)


def _counted(connection: duckdb.DuckDBPyConnection, state: StateReader, plan: Plan, run: Run) -> _Counts:
    """Records by op and outcome. Rows of people who were erased count by what the ledger still has of them."""
    counts = _Counts()
    for op, outcome, rows in connection.execute(
        "SELECT op, outcome, count(*) FROM records GROUP BY ALL"
    ).fetchall():
        counts.add(op, outcome, rows)
    told = [(number, str(op), str(status)) for number, _, op, status, _ in state.exceptions(run.id)]
    connection.execute("CREATE TEMP TABLE told (number BIGINT, op VARCHAR, status VARCHAR)")
    insert(connection, "told", told)
    erased = "SELECT op, status, count(*) FROM told ANTI JOIN records USING (number) GROUP BY ALL"
    for op, outcome, rows in connection.execute(erased).fetchall():
        if op in run.ops:
            counts.add(op, outcome, rows)
    for op in sorted(run.ops):
        lost = getattr(plan.counts, op) - counts.of(op)
        if lost > 0:
            counts.add(op, "acknowledged" if run.status in _ENDED else "not_sent", lost)
    return counts


def run_row(
    state: StateReader, job: SyncJob, run: Run, plan: Plan | None = None, counts: _Counts | None = None
) -> dict[str, Any]:
    """The run's row of the table `runs`.

    `counts` are those of its records; without them nothing was attempted, unless the ledger says otherwise: then
    what was attempted is not known by op, and null.
    """
    plan = plan or (state.plan(run.plan) if run.plan else None)
    row: dict[str, Any] = {
        "run": run.id,
        "sync": run.sync,
        "cohort": plan.cohort if plan else job.cohort.name,
        "destination": plan.destination if plan else job.destination,
        "object": plan.object if plan else job.spec.name,
        "audience": plan.audience if plan else job.sync.audience,
        "plan": run.plan,
        "kind": str(plan.kind) if plan else None,
        "cause": run.trigger,
        "status": str(run.status),
        "code": (run.error or {}).get("code"),
        "started_at": run.started_at,
        "ended_at": run.finished_at,
    }
    sent = bool(run.ops) and plan is not None
    for op in _OPS:
        planned = getattr(plan.counts, op) if plan and (op in run.ops or not run.ops) else 0
        row |= {f"planned_{op}": planned, **_by_op(op, counts, known=counts is not None or not sent)}
    removals = plan.counts.removals_kept_back if plan else 0
    if plan and sent and Op.REMOVE not in run.ops:
        removals += plan.counts.remove
    said = counts or _Counts()
    row |= {name: said.all(name) for name in ("rejected", "deferred", "unknown", "not_sent")}
    row |= {
        "invalid": plan.counts.invalid if plan else 0,
        "removals_kept_back": removals,
        "cohort_rows": _cohort_rows(state, run, plan),
        "members_after": _members_after(state, run),
    }
    return row


def _by_op(op: Op, counts: _Counts | None, *, known: bool) -> dict[str, int | None]:
    names = (f"attempted_{op}", f"succeeded_{op}")
    if counts is None:
        return dict.fromkeys(names, 0 if known else None)
    return dict(
        zip(names, (counts.of(op) - counts.of(op, "not_sent"), counts.of(op, "acknowledged")), strict=True)
    )


def _cohort_rows(state: StateReader, run: Run, plan: Plan | None) -> int | None:
    """Rows of the refresh that the run looked at; none where it did not look, or failed to."""
    if plan is not None:
        refresh = state.refresh(plan.refresh)
        return refresh.rows if refresh is not None else None
    if run.status not in _ENDED:
        return None
    seen = state.refreshes(run.sync, limit=50)
    end = run.finished_at or run.started_at
    return next((r.rows for r in seen if r.at <= end), None)


def _members_after(state: StateReader, run: Run) -> int:
    """Members of the generation that was current when the run ended."""
    generation = state.generation(run.sync)
    while generation.number > 0 and generation.at > (run.finished_at or run.started_at):
        generation = state.generation(run.sync, generation.number - 1)
    return generation.members
