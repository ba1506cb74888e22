"""The difference between a cohort and the members: checksums first, then digests, then nothing more.

The payload of what changed is fetched afterwards, by the plan. Everything here happens inside DuckDB; the results
are the temporary tables

    changes   key, op, fingerprint, source   what is to be sent; `source` is a hash of the cohort's key
    held_out  key                            rejected before, and not tried again by this run
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sync.engine.database import load_keys
from sync.errors import CohortError
from sync.mapping import Mode
from sync.sdk.nouns import Op
from sync.state.nouns import RejectedRecord

if TYPE_CHECKING:
    import duckdb

__all__ = ["BUCKETS", "Diff", "Scan", "Sides", "compare", "differing", "nothing", "scan"]

BUCKETS = 4096
_INVALID = BUCKETS  # the bucket of rows that must not be sent
_FORGOTTEN = BUCKETS + 1  # the bucket of people who were forgotten: counted, and otherwise not there


@dataclass(frozen=True, slots=True)
class Sides:
    """The two sides of a diff: SELECTs of the digested cohort and of the members."""

    cohort: str
    members: str


@dataclass(frozen=True, slots=True)
class Scan:
    """What one scan of the cohort shows."""

    rows: int
    invalid: int
    null_keys: int
    newest: float | None  # seconds since the epoch
    version: str
    key_sum: str
    forgotten: int = 0  # rows of people who were forgotten; none of the others count them


@dataclass(frozen=True, slots=True)
class Diff:
    """How many changes of each kind there are, and how many of the cohort's rows the destination has as they are.

    A row whose change is rejected and waits counts as backed off or given up, and as nothing else.
    """

    add: int = 0
    update: int = 0
    remove: int = 0
    unchanged: int = 0
    backed_off: int = 0
    given_up: int = 0

    @property
    def changes(self) -> int:
        """Records to send."""
        return self.add + self.update + self.remove


def _sums(select: str, bucket: str, extra: str = "") -> str:
    return (
        f"SELECT {bucket} AS bucket, count(*) AS n, bit_xor(h) AS x, sum(h) AS s{extra} "
        f"FROM (SELECT *, hash(key, fingerprint) AS h FROM ({select})) GROUP BY 1"
    )


def scan(connection: duckdb.DuckDBPyConnection, cohort: str, *, marked: bool = False) -> Scan:
    """Read the cohort once, into 4,096 checksums (table `source_sums`) and the facts of the refresh.

    `marked`: the cohort has a column `forgotten`, which is true of rows that are left out.
    """
    out = f"WHEN forgotten THEN {_FORGOTTEN} " if marked else ""
    bucket = f"CASE {out}WHEN why IS NULL THEN hash(key) % {BUCKETS} ELSE {_INVALID} END::USMALLINT"
    extra = ", count(source_key) AS k, sum(hash(source_key)) AS ks, max(epoch(newest)) AS newest"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE source_sums AS {_sums(cohort, bucket, extra)}")
    (forgotten,) = _one(
        connection, f"SELECT coalesce(sum(n), 0)::BIGINT FROM source_sums WHERE bucket = {_FORGOTTEN}"
    )
    connection.execute(f"DELETE FROM source_sums WHERE bucket = {_FORGOTTEN}")
    digest = hashlib.sha256()
    for row in connection.execute("SELECT bucket, n, x, s FROM source_sums ORDER BY bucket").fetchall():
        digest.update(repr(row).encode())
    rows, invalid, keys, key_sum, newest = _one(
        connection,
        f"SELECT coalesce(sum(n), 0)::BIGINT, coalesce(sum(n) FILTER (bucket = {_INVALID}), 0)::BIGINT, "
        "coalesce(sum(k), 0)::BIGINT, coalesce(sum(ks), 0)::VARCHAR, max(newest) FROM source_sums",
    )
    return Scan(rows, invalid, rows - keys, newest, digest.hexdigest(), key_sum, forgotten)


def differing(connection: duckdb.DuckDBPyConnection, members: str) -> int:
    """How many of the buckets differ (table `differing`); 0 settles an unchanged cohort."""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE member_sums AS {_sums(members, f'(hash(key) % {BUCKETS})::USMALLINT')}"
    )
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE differing AS SELECT bucket FROM "
        f"(SELECT * FROM source_sums WHERE bucket < {_INVALID}) a FULL JOIN member_sums b USING (bucket) "
        "WHERE a.n IS DISTINCT FROM b.n OR a.x IS DISTINCT FROM b.x OR a.s IS DISTINCT FROM b.s"
    )
    return int(_one(connection, "SELECT count(*) FROM differing")[0])


def compare(
    connection: duckdb.DuckDBPyConnection,
    sides: Sides,
    permitted: Iterable[Op],
    mode: Mode,
    *,
    dirty: Sequence[str] = (),
    rejected: Sequence[RejectedRecord] = (),
    now: float = 0.0,
) -> Diff:
    """Join key digests and fingerprints of the differing buckets into `changes`.

    Every dirty member is asserted again, whatever the digests say. Raises `Duplicates` where rows share a key.
    """
    ops = {str(op) for op in permitted}
    load_keys(connection, "dirty", dirty)
    _join(connection, sides)
    _refuse_duplicates(connection)
    _reassert(connection, ops)
    _keep_unfit(connection, sides)
    keep = sorted(ops | ({"add"} if mode is Mode.UPDATE else set()))
    connection.execute("DELETE FROM changes WHERE NOT list_contains(?::VARCHAR[], op)", [keep])
    if mode is Mode.UPDATE:
        connection.execute("UPDATE changes SET op = 'update' WHERE op = 'add'")
    rows, touched = _one(
        connection,
        f"SELECT (SELECT coalesce(sum(n), 0) FROM source_sums WHERE bucket < {_INVALID})::BIGINT, "
        "count(*) FILTER (op <> 'remove') FROM changes",
    )
    backed_off, given_up = _hold_out(connection, rejected, now)
    counts = dict(connection.execute("SELECT op, count(*) FROM changes GROUP BY op").fetchall())
    return Diff(
        add=counts.get("add", 0),
        update=counts.get("update", 0),
        remove=counts.get("remove", 0),
        unchanged=rows - touched,
        backed_off=backed_off,
        given_up=given_up,
    )


def nothing(connection: duckdb.DuckDBPyConnection) -> None:
    """The tables of a comparison that found no change, for a plan that only tells of invalid rows."""
    columns = "key DECIMAL(38, 0), op VARCHAR, fingerprint UBIGINT, source UBIGINT"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE changes ({columns})")
    connection.execute("CREATE OR REPLACE TEMP TABLE held_out (key DECIMAL(38, 0), op VARCHAR)")


class Duplicates(CohortError):
    """Rows of the cohort share identifiers."""

    code = "HG214"


def without_duplicates(cohort: str) -> str:
    """The digested cohort with one row a key fit to be sent; the others say why not. Costs a sort."""
    order = "ORDER BY why NULLS FIRST, source_key, fingerprint"
    return (
        "SELECT * EXCLUDE (copy) REPLACE (CASE WHEN why IS NULL AND copy > 1 "
        "THEN 'another row has the same identifiers' ELSE why END AS why) "
        f"FROM (SELECT *, row_number() OVER (PARTITION BY key {order}) AS copy FROM ({cohort}))"
    )


def duplicate_keys(connection: duckdb.DuckDBPyConnection, cohort: str) -> int:
    """How many rows repeat a source key that another row has."""
    (repeats,) = _one(connection, f"SELECT count(source_key) - count(DISTINCT source_key) FROM ({cohort})")
    return int(repeats)


def _join(connection: duckdb.DuckDBPyConnection, sides: Sides) -> None:
    """Only the buckets that differ, unless most do, and those of dirty members."""
    connection.execute(
        "INSERT INTO differing SELECT DISTINCT (hash(key) % 4096)::USMALLINT FROM dirty "
        "WHERE (hash(key) % 4096)::USMALLINT NOT IN (SELECT bucket FROM differing)"
    )
    (buckets,) = _one(connection, "SELECT count(*) FROM differing")
    only = f"hash(key) % {BUCKETS} IN (SELECT bucket FROM differing)" if buckets < BUCKETS // 2 else "true"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE joined AS SELECT {buckets} < {BUCKETS // 2} AS partial")
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE changes AS "
        "SELECT coalesce(w.key, k.key) AS key, w.fingerprint AS fingerprint, "
        "CASE WHEN k.key IS NULL THEN 'add' WHEN w.key IS NULL THEN 'remove' ELSE 'update' END AS op, w.source "
        "FROM (SELECT key, fingerprint, hash(source_key) AS source "
        f"FROM ({sides.cohort}) WHERE why IS NULL AND {only}) w "
        f"FULL JOIN (SELECT key, fingerprint FROM ({sides.members}) WHERE {only}) k ON w.key = k.key "
        "WHERE k.key IS NULL OR w.key IS NULL OR w.fingerprint <> k.fingerprint "
        "OR w.key IN (SELECT key FROM dirty)"
    )


def _refuse_duplicates(connection: duckdb.DuckDBPyConnection) -> None:
    """Rows that match a member must be as many as members that are matched; added keys must be distinct."""
    (partial,) = _one(connection, "SELECT partial FROM joined")
    only = "bucket IN (SELECT bucket FROM differing)" if partial else "true"
    rows, members, adds, distinct, removes = _one(
        connection,
        f"SELECT (SELECT coalesce(sum(n), 0) FROM source_sums WHERE bucket < {_INVALID} AND {only}), "
        f"(SELECT coalesce(sum(n), 0) FROM member_sums WHERE {only}), "
        "count(*) FILTER (op = 'add'), count(DISTINCT key) FILTER (op = 'add'), count(*) FILTER (op = 'remove') "
        "FROM changes",
    )
    if rows - adds != members - removes or adds != distinct:
        raise Duplicates("rows of the cohort share the same identifiers")


def _keep_unfit(connection: duckdb.DuckDBPyConnection, sides: Sides) -> None:
    """A member whose row is there but unfit to be sent has not left: an emptied e-mail removes nobody."""
    (unfit,) = _one(connection, f"SELECT count(*) FROM source_sums WHERE bucket = {_INVALID}")
    if unfit:
        connection.execute(
            "DELETE FROM changes WHERE op = 'remove' AND key IN (SELECT m.key FROM "
            f"(SELECT key, source_key FROM ({sides.members})) m SEMI JOIN "
            f"(SELECT source_key FROM ({sides.cohort}) WHERE why IS NOT NULL) u ON m.source_key = u.source_key)"
        )


def _reassert(connection: duckdb.DuckDBPyConnection, ops: set[str]) -> None:
    """A dirty member that neither side knows may still be at the destination: remove it.

    One that both sides know is set again, as an addition where the object has no update.
    """
    if not _one(connection, "SELECT count(*) FROM dirty")[0]:
        return
    connection.execute(
        "INSERT INTO changes (key, op) SELECT key, 'remove' FROM dirty WHERE key NOT IN (SELECT key FROM changes)"
    )
    if "update" not in ops:
        connection.execute("UPDATE changes SET op = 'add' WHERE op = 'update' AND key IN (SELECT key FROM dirty)")


def _hold_out(
    connection: duckdb.DuckDBPyConnection, rejected: Sequence[RejectedRecord], now: float
) -> tuple[int, int]:
    """Take out what was given up, whatever changed since; and what waits after a rejection, unchanged."""
    columns = "key DECIMAL(38, 0), op VARCHAR, fingerprint VARCHAR, given_up BOOL"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE held_out ({columns})")
    waiting = [r for r in rejected if r.code != "invalid" and (r.given_up_at is not None or r.next_at > now)]
    if waiting:
        connection.execute(
            "INSERT INTO held_out SELECT unnest(?::DECIMAL(38, 0)[]), unnest(?::VARCHAR[]), "
            "unnest(?::VARCHAR[]), unnest(?::BOOL[])",
            [
                [r.key for r in waiting],
                [r.op for r in waiting],
                [None if r.code == "unknown" else r.fingerprint for r in waiting],
                [r.given_up_at is not None for r in waiting],
            ],
        )
    same = (
        "FROM changes c JOIN held_out h ON c.key = h.key AND c.op = h.op "
        "AND (h.given_up OR h.fingerprint IS NULL OR coalesce(c.fingerprint::VARCHAR, '') = h.fingerprint)"
    )
    backed_off, given_up = _one(
        connection, f"SELECT count(*) FILTER (NOT given_up), count(*) FILTER (given_up) {same}"
    )
    connection.execute(f"DELETE FROM changes WHERE (key, op) IN (SELECT (c.key, c.op) {same})")
    return int(backed_off), int(given_up)


def changed_keys(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The keys in `changes` and `held_out`, for small sets of rejected records to be looked up in."""
    rows = connection.execute(
        "SELECT key::VARCHAR FROM changes UNION SELECT key::VARCHAR FROM held_out"
    ).fetchall()
    return {row[0] for row in rows}


def _one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row: tuple[Any, ...] = connection.execute(query).fetchall()[0]
    return row
