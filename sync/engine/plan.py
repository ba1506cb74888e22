"""Freezing a changeset: a Parquet file of changes in delivery order, and the digest that an approval signs.

The file has, besides `id.NAME` and `field.NAME`, the columns

    row          BIGINT    position in delivery order, from 0
    op           VARCHAR   add, update, remove; `keep` for unchanged members, in the file of a snapshot only;
                           and, at the end, for rows that are not sent: `left_out` of a revert or a repair, and
                           `invalid`
    key, fingerprint, nulls, source_key, remote_id, first_refresh, first_at    as members have them
    was_nulls    VARCHAR   the member's `nulls` before
    why          VARCHAR   why a row is not sent

What is explained and what is delivered are read from this one file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.engine.compile import Compiled, key_sql
from sync.engine.database import one_thread, translate
from sync.engine.draft import CARRIED, ROW_GROUP
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.sql import identifier, literal
from sync.errors import CohortError, Corrupt
from sync.faultpoints import reached
from sync.sdk.nouns import Delivery, Op, Order
from sync.state.members import digest_file, publish, scratch
from sync.state.nouns import Counts, Plan, PlanKind, PlanStatus, Refresh, Verdict
from sync.state.parquet import source, write

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "NOT_SENT",
    "Frozen",
    "freeze",
    "freeze_changes",
    "inputs_digest",
    "make_plan",
    "phase_of",
    "plan_path",
    "samples",
    "verify_file",
]

NOT_SENT = ("left_out", "invalid")
"""The ops of rows that tell what is not sent, and why."""

_NULLS: Mapping[str, str] = {
    "fingerprint": "UBIGINT",
    "nulls": "VARCHAR",
    "source_key": "VARCHAR",
    **CARRIED,
    "why": "VARCHAR",
}


@dataclass(frozen=True, slots=True)
class Frozen:
    """A written plan file."""

    file: str  # relative to the state folder
    sha256: str
    counts: Mapping[str, int]  # op -> rows


def phase_of(op: str, order: Order) -> int:
    """0 for what is sent first, 1 for what waits until that is done."""
    first = op == "remove" if order is Order.REMOVALS_FIRST else op != "remove"
    return 0 if first else 1


def freeze(
    connection: duckdb.DuckDBPyConnection,
    settings: EngineSettings,
    job: SyncJob,
    compiled: Compiled,
    cohort: str,
    members: str,
    ops: Iterable[Op],
    refresh: Refresh,
    remembered: Sequence[Path] = (),
    *,
    few: str = "",
    draft: Path | None = None,
) -> Frozen:
    """Write the changes of the given ops, and the invalid rows, to a plan file.

    Where one op is about every row that is fit to be sent, nothing is joined; where that is what the file `draft`
    has, it becomes the plan's. `few` is the cohort without most of the rows that no change is about.
    `remembered` are exceptions files of earlier runs: they have the identifiers of members that neither the cohort
    nor the members know any more, but that may still be at the destination.
    """
    invalid = refresh.invalid
    rows = refresh.rows - invalid
    snapshot = job.spec.delivery is Delivery.SNAPSHOT
    sequence = Order.REMOVALS_LAST if snapshot else job.spec.order
    wanted = {str(op) for op in ops} | ({"keep"} if snapshot else set())
    order = sorted(wanted, key=lambda op: (phase_of(op, sequence), op))
    counts: dict[str, int] = dict(connection.execute("SELECT op, count(*) FROM changes GROUP BY op").fetchall())
    if draft is not None and counts == {"add": rows} and "add" in wanted and not invalid:
        frozen = _published(connection, settings, job, lambda temporary: _linked(draft, temporary))
        if snapshot:
            _refuse_crowd(job, rows)
        return frozen
    changed = few if few and 4 * sum(counts.values()) < rows else cohort
    branches = []
    for op in order:
        if counts.get(op) and op == "remove":
            branches += _removals(connection, compiled, members, remembered)
        elif counts.get(op) or op == "keep":
            which = cohort if op == "keep" else changed
            branches.append(_payload(compiled, which, members, op, everybody=counts.get(op) == rows))
    branches.append(_invalid(compiled, cohort, invalid))
    frozen = _write(connection, settings, job, branches)
    if snapshot:
        _refuse_crowd(job, sum(frozen.counts.get(op, 0) for op in ("add", "update", "keep")))
    if "remove" in wanted:
        _refuse_lost(job, counts.get("remove", 0) - frozen.counts.get("remove", 0))
    return frozen


def _refuse_crowd(job: SyncJob, people: int) -> None:
    """An audience that is taken whole has one request to be in. Raises `CohortError`."""
    most = job.spec.limits.batch_size
    if most is not None and people > most:
        raise CohortError(
            f"{job.destination} takes at most {most:,} records as a whole '{job.spec.name}', "
            f"and there would be {people:,}; nothing was sent",
            code="HG217",
            fix="narrow the cohort; some destinations have an option that says how many they take",
        )


def _refuse_lost(job: SyncJob, lost: int) -> None:
    """A removal whose identifiers nobody has must not be dropped in silence. Raises `Corrupt`."""
    if lost > 0:
        raise Corrupt(
            f"{lost:,} records that may still be at {job.destination} are to be removed, and the copy in "
            f"rejected/{job.name} that has their identifiers is missing or was altered; "
            "nothing is sent on a doubt",
            fix=f"restore that folder from a backup, or start again: headgate state reset {job.name} --reason ...",
        )


def freeze_changes(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, job: SyncJob, select: str
) -> Frozen:
    """Write the changes of a SELECT to a plan file, in delivery order.

    It has `op`, `key`, the identifiers, and whatever it knows of the file's other columns; those it has not are
    null. It is evaluated once an op: let it read a table where it is dear, in an order that is always the same
    where the same changes are to have the same digest.
    """
    sequence = Order.REMOVALS_LAST if job.spec.delivery is Delivery.SNAPSHOT else job.spec.order
    found = [str(op) for (op,) in connection.execute(f"SELECT DISTINCT op FROM ({select})").fetchall()]
    order = sorted(found, key=lambda op: (op in NOT_SENT, phase_of(op, sequence), op))
    columns = ", ".join(f"NULL::{t} AS {c}" for c, t in _NULLS.items())
    branches = [f"SELECT * FROM ({select}) WHERE op = {literal(op)}" for op in order]
    empty = f"SELECT NULL::VARCHAR AS op, NULL::DECIMAL(38, 0) AS key, {columns} WHERE false"
    return _write(connection, settings, job, [*branches, f"SELECT * FROM ({select}) WHERE false", empty])


def _write(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, job: SyncJob, branches: Sequence[str]
) -> Frozen:
    """Number the rows of the SELECTs, one after the other, and write them to a file named by its content."""
    select = "SELECT (row_number() OVER ()) - 1 AS row, * FROM (" + " UNION ALL BY NAME ".join(branches) + ")"

    def make(temporary: Path) -> None:
        with one_thread(connection):
            write(connection, select, temporary, row_group_size=ROW_GROUP)

    return _published(connection, settings, job, make)


def _linked(draft: Path, temporary: Path) -> None:
    """Give a file a second name; a copy of it where the disk has no such thing."""
    try:
        temporary.hardlink_to(draft)
    except OSError:
        shutil.copyfile(draft, temporary)


def _published(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, job: SyncJob, make: Callable[[Path], None]
) -> Frozen:
    """Have a file made, and name it by its content."""
    folder = settings.folder / "plans" / job.name
    with scratch(folder) as temporary:
        make(temporary)
        sha256 = digest_file(temporary)
        final = folder / f"{sha256[:16]}.parquet"
        reached("plan_file.written")
        publish(temporary, final)
    reached("plan_file.named")
    written = connection.execute(f"SELECT op, count(*) FROM {source(connection, final)} GROUP BY op").fetchall()
    return Frozen(str(final.relative_to(settings.folder)), sha256, dict(written))


_ABSENT = "SELECT key FROM changes UNION ALL SELECT key FROM held_out WHERE op = 'add'"
"""Whom a snapshot's unchanged rows leave out: a member whose update waits stays in the audience."""


def _payload(compiled: Compiled, cohort: str, members: str, op: str, *, everybody: bool) -> str:
    """The changed rows of the cohort; an update carries what the member had."""
    own = ", ".join(identifier(f"id.{n}") for n in compiled.identifiers)
    own += "".join(f", {identifier(f'field.{n}')}" for n in compiled.fields)
    which = (
        f"SEMI JOIN (SELECT key FROM changes WHERE op = '{op}') c ON s.key = c.key"
        if op != "keep"
        else f"ANTI JOIN ({_ABSENT}) c ON s.key = c.key"
    )
    which = "" if everybody else which
    base = (
        f"SELECT '{op}' AS op, s.key AS key, s.fingerprint AS fingerprint, {compiled.nulls} AS nulls, "
        f"s.source_key AS source_key, {own} FROM ({cohort}) s {which} WHERE s.why IS NULL"
    )
    if op != "update":
        return base
    return (
        "SELECT p.*, m.nulls AS was_nulls, m.remote_id AS remote_id, m.first_refresh AS first_refresh, "
        f"m.first_at AS first_at FROM ({base}) p LEFT JOIN (SELECT key, nulls, remote_id, first_refresh, first_at "
        f"FROM ({members})) m ON p.key = m.key"
    )


def _removals(
    connection: duckdb.DuckDBPyConnection, compiled: Compiled, members: str, remembered: Sequence[Path]
) -> list[str]:
    """Members to remove with their identifiers as last acknowledged; then those only an earlier run knows."""
    gone = "SELECT key FROM changes WHERE op = 'remove'"
    known = (
        "SELECT 'remove' AS op, m.* EXCLUDE (last_refresh, last_at, nulls), m.nulls AS was_nulls "
        f"FROM ({members}) m SEMI JOIN ({gone}) c ON m.key = c.key"
    )
    if not remembered:
        return [known]
    files = source(connection, *remembered)
    wanted = "c IN ('key', 'remote_id', 'source_key') OR starts_with(c, 'id.')"
    # No digest of these files is kept: whose identifiers do not make the key is not that person any more.
    theirs = key_sql([identifier(f"id.{name}") for name in compiled.identifiers])
    with translate("reading the copy of earlier records", Corrupt):
        connection.execute(
            "CREATE OR REPLACE TEMP TABLE remembered AS "
            f"SELECT DISTINCT ON (key) COLUMNS(lambda c: {wanted}) FROM {files} "
            f"WHERE key IN ({gone}) AND key NOT IN (SELECT key FROM ({members})) AND key = {theirs}"
        )
    return [known, "SELECT 'remove' AS op, * FROM remembered"]


def _invalid(compiled: Compiled, cohort: str, count: int) -> str:
    """The rows that are not sent; without any, only their columns, which every plan file has."""
    own = "".join(f", {identifier(f'id.{n}')}" for n in compiled.identifiers)
    own += "".join(f", {identifier(f'field.{n}')}" for n in compiled.fields)
    empty = ", ".join(f"NULL::{t} AS {c}" for c, t in _NULLS.items() if c not in ("source_key", "why"))
    return (
        f"SELECT 'invalid' AS op, NULL::DECIMAL(38, 0) AS key, {empty}, source_key, why{own} "
        f"FROM ({cohort}) WHERE {'why IS NOT NULL' if count else 'false'}"
    )


def inputs_digest(job: SyncJob, generation: int, source_version: str, extra: Sequence[str] = ()) -> str:
    """Digest of what a plan is made from: from equal inputs a held plan need not be made again."""
    return _digest(
        {
            "sync": job.name,
            "mapping": job.mapping_digest,
            "generation": generation,
            "source": source_version,
            "guardrails": repr(job.guardrails),
            "extra": list(extra),
        }
    )


def make_plan(
    settings: EngineSettings,
    job: SyncJob,
    frozen: Frozen,
    refresh: Refresh,
    generation: int,
    counts: Counts,
    verdicts: Sequence[Verdict],
    *,
    status: PlanStatus,
    inputs: str,
    needs: int,
    now: float,
    kind: PlanKind = PlanKind.DIFF,
    origin: str = "",
) -> Plan:
    """Bind a frozen file to its inputs and verdicts under one digest."""
    signed = {
        "v": 2,
        "kind": str(kind),
        "origin": origin,
        "sync": job.name,
        "destination": job.destination,
        "object": job.spec.name,
        "audience": job.sync.audience,
        "mode": str(job.sync.mode),
        "changes": frozen.sha256,
        "mapping": job.mapping_digest,
        "generation": generation,
        "source": refresh.version,
        "counts": {name: getattr(counts, name) for name in ("add", "update", "remove", "invalid", "members")},
        "verdicts": [[v.guardrail, str(v.answer), v.limit, v.value] for v in verdicts],
    }
    digest = _digest(signed)
    return Plan(
        id=digest[:12],
        digest=digest,
        sync=job.name,
        destination=job.destination,
        object=job.spec.name,
        audience=job.sync.audience,
        cohort=job.cohort.name,
        status=status,
        file=frozen.file,
        file_sha256=frozen.sha256,
        inputs=inputs,
        mapping_digest=job.mapping_digest,
        generation=generation,
        refresh=refresh.id,
        source_version=refresh.version,
        counts=counts,
        verdicts=tuple(verdicts),
        created_at=now,
        expires_at=now + settings.expire_after,
        needs=needs,
        author=job.author,
        kind=kind,
        origin=origin,
    )


def with_counts(counts: Counts, frozen: Frozen) -> Counts:
    """Counts as the file has them: what was frozen is what is reported."""
    return replace(
        counts,
        add=frozen.counts.get("add", 0),
        update=frozen.counts.get("update", 0),
        remove=frozen.counts.get("remove", 0),
        invalid=frozen.counts.get("invalid", 0),
    )


def plan_path(settings: EngineSettings, plan: Plan) -> Path:
    """Where the plan's file is."""
    return settings.folder / plan.file


def verify_file(settings: EngineSettings, plan: Plan) -> Path:
    """The plan's file, proven to be what was judged. Raises `Corrupt`."""
    path = plan_path(settings, plan)
    if not path.is_file() or digest_file(path) != plan.file_sha256:
        raise Corrupt(
            f"the file of plan {plan.id} is missing or was altered; nothing is sent on a doubt",
            fix=f"look at the disk of the state folder; then make a new plan: headgate plan {plan.sync}",
        )
    return path


def samples(settings: EngineSettings, plan: Plan, per_op: int = 5) -> list[dict[str, Any]]:
    """A few rows of each op, as the destination would be told them: op, source_key, identifiers, fields, why.

    Unmasked: whoever shows them masks them.
    """
    from sync.engine.batches import PlanFile

    with PlanFile(settings, verify_file(settings, plan)) as file:
        return file.samples(per_op)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
