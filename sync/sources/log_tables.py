"""The sync log's two tables in a warehouse: made, written a run at a time, and rid of people and of old runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from sync.errors import SourceError
from sync.sources.queries import literal, plain

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RECORDS", "RUNS", "LogSession", "LogTables"]

RUNS: Mapping[str, str] = {
    "run": "TEXT",
    "sync": "TEXT",
    "cohort": "TEXT",
    "destination": "TEXT",
    "object": "TEXT",
    "audience": "TEXT",
    "plan": "TEXT",
    "kind": "TEXT",
    "cause": "TEXT",
    "status": "TEXT",
    "code": "TEXT",
    "started_at": "TIMESTAMPTZ",
    "ended_at": "TIMESTAMPTZ",
    **{
        f"{what}_{op}": "BIGINT"
        for what in ("planned", "attempted", "succeeded")
        for op in ("add", "update", "remove")
    },
    "rejected": "BIGINT",
    "deferred": "BIGINT",
    "unknown": "BIGINT",
    "not_sent": "BIGINT",
    "invalid": "BIGINT",
    "removals_kept_back": "BIGINT",
    "cohort_rows": "BIGINT",
    "members_after": "BIGINT",
}
"""Columns of the table `runs` and their types, as both PostgreSQL and Snowflake know them."""

RECORDS: Mapping[str, str] = {
    "run": "TEXT",
    "sync": "TEXT",
    "source_key": "TEXT",
    "member_key": "TEXT",
    "op": "TEXT",
    "outcome": "TEXT",
    "reason": "TEXT",
    "remote_id": "TEXT",
    "ended_at": "TIMESTAMPTZ",
}
"""Columns of the table `records`."""


_LISTED = 1000  # values in one list of a statement


class LogSession(Protocol):
    """What the log asks of a session with a warehouse."""

    @property
    def indexes(self) -> bool:
        """Are tables there searched by an index."""

    def execute(self, sql: str) -> None:
        """Run a statement."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""

    def load(self, table: str, batches: pa.RecordBatchReader) -> None:
        """Append Arrow record batches to a table, as they come."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside, or nothing of it."""


class LogTables:
    """The tables of one schema, through a session with its warehouse. Every method is one transaction, or reads.

    Raises `SourceError` as the session does. No statement has a source key or a word of a person in it:
    warehouses keep the text of their queries.
    """

    def __init__(self, session: LogSession, schema: str) -> None:
        self._session = session
        self._name = schema
        self._schema = plain(schema)

    @property
    def runs(self) -> str:
        """The table of runs, as SQL names it."""
        return f"{self._schema}.runs"

    @property
    def records(self) -> str:
        """The table of records, as SQL names it."""
        return f"{self._schema}.records"

    def make(self) -> None:
        """Make what is not there: the tables, and the schema where we may."""
        for left in (2, 1, 0):  # two syncs may begin a log at once: whoever is slower looks again
            there = self._there()
            if len(there) == 2:
                return
            try:
                with self._session.transaction() if self._session.indexes else nullcontext():
                    self._make(there)
            except SourceError:
                if not left:
                    raise

    def _make(self, there: Collection[str]) -> None:
        """Never a table IF NOT EXISTS: an index on one that others write to waits for them, and they for us."""
        name = literal(self._name.lower())
        if not self._session.rows(f"SELECT 1 FROM information_schema.schemata WHERE lower(schema_name) = {name}"):
            self._session.execute(f"CREATE SCHEMA IF NOT EXISTS {self._schema}")
        if "records" not in there:
            self._create(self.records, RECORDS, "INDEX records_run")
        if "runs" not in there:
            self._create(self.runs, RUNS, "UNIQUE INDEX runs_run")

    def _create(self, table: str, columns: Mapping[str, str], index: str) -> None:
        defined = ", ".join(f"{column} {type_}" for column, type_ in columns.items())
        self._session.execute(f"CREATE TABLE {table} ({defined})")
        if self._session.indexes:
            self._session.execute(f"CREATE {index} ON {table} (run)")

    def _there(self) -> set[str]:
        found = self._session.rows(
            f"SELECT lower(table_name) FROM information_schema.tables "
            f"WHERE lower(table_schema) = {literal(self._name.lower())} "
            "AND lower(table_name) IN ('records', 'runs')"
        )
        return {str(name) for (name,) in found}

    def write(self, runs: Sequence[Mapping[str, Any]], records: pa.RecordBatchReader | None = None) -> None:
        """Write these runs, and the records of them all, in the place of what is there of them.

        Times in `runs` are seconds since the epoch.
        """
        ends = [row["ended_at"] for row in runs]
        # The times are for Snowflake: by them it knows which partitions it need not read.
        which = (
            f"WHERE run IN ({', '.join(literal(row['run']) for row in runs)}) "
            f"AND ended_at BETWEEN {_instant(min(ends) - 1)} AND {_instant(max(ends) + 1)}"
        )
        with self._session.transaction():
            self._session.execute(f"DELETE FROM {self.runs} {which}")
            self._session.execute(f"DELETE FROM {self.records} {which}")
            if records is not None:
                self._session.load(self.records, records)
            self._session.load(self.runs, _table(runs).to_reader())

    def erase(
        self,
        sync: str,
        keys: Sequence[str] = (),
        salt: str = "",
        people: Sequence[str] = (),
        quoted: Iterable[tuple[str, str]] = (),
    ) -> None:
        """Delete a sync's records of these member keys, and of these MD5 digests of `salt` and source key.

        The reason goes of the records (run, member key) that are `quoted`.
        """
        of_sync = f"sync = {literal(sync)}"
        with self._session.transaction():
            for some in _lists(keys):
                self._session.execute(f"DELETE FROM {self.records} WHERE {of_sync} AND member_key IN ({some})")
            for some in _lists(people):
                digest = f"md5({literal(salt)} || source_key)"
                self._session.execute(f"DELETE FROM {self.records} WHERE {of_sync} AND {digest} IN ({some})")
            for run, some in _by_run(quoted):
                self._session.execute(
                    f"UPDATE {self.records} SET reason = NULL "
                    f"WHERE {of_sync} AND run = {literal(run)} AND member_key IN ({some})"
                )

    def sweep(self, sync: str, before: float) -> None:
        """Delete what a sync logged of runs that ended before then, in seconds since the epoch."""
        which = f"WHERE sync = {literal(sync)} AND ended_at < {_instant(before)}"
        with self._session.transaction():
            self._session.execute(f"DELETE FROM {self.records} {which}")
            self._session.execute(f"DELETE FROM {self.runs} {which}")


def _table(runs: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    types = {"TEXT": pa.string(), "BIGINT": pa.int64(), "TIMESTAMPTZ": pa.timestamp("us", tz="UTC")}
    schema = pa.schema([(column, types[type_]) for column, type_ in RUNS.items()])
    moments = [column for column, type_ in RUNS.items() if type_ == "TIMESTAMPTZ"]
    rows = [{**run, **{name: _moment(run[name]) for name in moments}} for run in runs]
    return pa.Table.from_pylist(rows, schema)


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _instant(seconds: float) -> str:
    return f"CAST({literal(datetime.fromtimestamp(seconds, UTC).isoformat())} AS TIMESTAMPTZ)"


def _by_run(quoted: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    by_run: dict[str, list[str]] = {}
    for run, key in quoted:
        by_run.setdefault(run, []).append(key)
    return ((run, some) for run, keys in by_run.items() for some in _lists(keys))


def _lists(values: Sequence[str]) -> Iterable[str]:
    return (", ".join(map(literal, values[start : start + _LISTED])) for start in range(0, len(values), _LISTED))
