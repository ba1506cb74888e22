"""Snowflake as a source: one SELECT of the needed columns, streamed in Arrow batches into a Parquet file."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from sync.errors import SourceError
from sync.sources.base import Column, Reading, Relation, Source, Staged, Version
from sync.sources.options import SnowflakeOptions
from sync.sources.queries import once_each, pick, quoted
from sync.sources.snowflake_access import query_tag
from sync.sources.snowflake_session import Session
from sync.sources.snowflake_spool import spooled, written
from sync.sources.snowflake_sql import from_clause, parts, text
from sync.sources.snowflake_types import arrow_schema, duckdb_type, selected, shown
from sync.sources.snowflake_writing import Writer, WritingSession
from sync.sources.spool import passing

__all__ = ["SnowflakeSource"]

_TABLES = """
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_schema <> 'INFORMATION_SCHEMA' ORDER BY 1, 2 LIMIT 1000
"""
_COST = """
SELECT bytes_scanned, total_elapsed_time, credits_used_cloud_services
FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY_BY_SESSION(RESULT_LIMIT => 100)) WHERE query_id = '{query}'
"""
_CHANGED = """
SELECT last_altered FROM {catalogue}information_schema.tables
WHERE table_schema = {schema} AND table_name = {table} AND table_type = 'BASE TABLE'
"""
_WHO = "SELECT CURRENT_USER(), CURRENT_ROLE(), CURRENT_WAREHOUSE()"


class SnowflakeSource(Source):
    """One sign-in, kept while the source is used, for any number of statements; it only reads.

    Rows leave Snowflake as declared: NUMBER as DECIMAL (BIGINT up to 18 digits without a fraction), VARIANT,
    OBJECT and ARRAY as JSON, TIMESTAMP_LTZ and _TZ as instants in UTC. Times have microseconds, because
    dates such as 9999-12-31 do not fit into 64 bits of nanoseconds.
    """

    type = "snowflake"

    def __init__(self, name: str, options: SnowflakeOptions, purpose: str = "") -> None:
        self.name = name
        self.options = options
        self.purpose = purpose
        self.reader = Session(name, options, self._tag)
        self._lock = threading.Lock()
        self._writing: set[Session] = set()

    def check(self) -> str:
        """Sign in and ask who we are; raises `SourceError` HG205 where Snowflake does not let us in."""
        ((user, role, warehouse),) = self.reader.rows(_WHO, "signing in")
        if not warehouse:
            raise SourceError(
                f"source {self.name}: there is no warehouse to run queries on",
                code="HG206",
                fix=f"name `warehouse` under [sources.{self.name}], and grant USAGE on it to {role}",
            )
        return f"Snowflake {self.options.account}: {user} as {role} on {warehouse}"

    def tables(self) -> Sequence[str]:
        """`schema.table` of the current database; lower case where Snowflake folded it to upper case."""
        rows = self.reader.rows(_TABLES, "listing tables")
        return [f"{shown(schema)}.{shown(table)}" for schema, table in rows]

    def columns(self, relation: Relation) -> tuple[Column, ...]:
        """The relation's columns, without running it; raises `SourceError` HG202 where it does not exist."""
        return tuple(Column(m.name, duckdb_type(m)) for m in self._describe(relation))

    @contextmanager
    def stage(
        self,
        connection: duckdb.DuckDBPyConnection,  # noqa: ARG002 - it reads the file like any other
        relation: Relation,
        columns: Sequence[str],
        spool: Path,
    ) -> Iterator[Staged]:
        """Stream the columns into a file in `spool` that only we can read, and remove it at the end."""
        there = {m.name: m for m in self._describe(relation)}
        picked = pick(columns, list(there), relation.title)
        chosen = [there[name] for name in picked]
        schema = arrow_schema(chosen, relation.title)
        sql = f"SELECT {', '.join(map(selected, chosen))} FROM {from_clause(relation)}"
        with passing(spool) as file:
            changed = self._last_change(relation)
            with closing(self.reader.tables(sql, f"reading {relation.title}")) as tables:
                spooled(tables, schema, file)
            self.reading = self._told(self.reader.last_query, changed)
            yield written(file, chosen)

    @contextmanager
    def session(self, what: str) -> Iterator[WritingSession]:
        """A session that may write to the schema Headgate owns there; `what` it does stands in messages."""
        own = Writer(self.name, self.options, self._tag)
        with self._lock:
            self._writing.add(own)
        try:
            yield WritingSession(own, what)
        finally:
            with self._lock:
                self._writing.discard(own)
            own.close()

    def version(self, relation: Relation) -> Version:
        """When a table was last altered; raises `SourceError` where Snowflake does not answer.

        `LAST_ALTERED` moves with DML, DDL and reclustering (SQL reference, "TABLES view"). Views and queries have
        none of their own.
        """
        sql = self._asking_change(relation)
        if sql is None:
            return Version(untold="a query has no last change")
        found = self.reader.rows(sql, "asking when the table was changed")
        if not found:
            return Version(untold="Snowflake tells no last change of it: it is a view, or a table of a share")
        return Version(str(found[0][0]))

    def close(self) -> None:
        """Sign out; the next question signs in anew."""
        self.reader.close()

    def interrupt(self) -> None:
        """Cancel what runs, in the warehouse too; from another thread."""
        with self._lock:
            sessions = [self.reader, *self._writing]
        for session in sessions:
            session.interrupt()

    def _tag(self) -> str:
        return query_tag(self.options.query_tag, self.purpose, self.refresh)

    def _last_change(self, relation: Relation) -> float | None:
        """When a table was last changed; nothing of a view or a query, which change with what is under them.

        It is told and not trusted: reclustering moves it without a change, and a shared database may not have it.
        """
        sql = self._asking_change(relation)
        with suppress(SourceError):
            for (at,) in self.reader.rows(sql, "asking when the table was changed") if sql else ():
                return float(at.timestamp())
        return None

    def _asking_change(self, relation: Relation) -> str | None:
        names = parts(relation.table or "")
        if relation.table is None or len(names) > 3:
            return None
        *catalogue, schema, table = [None] * (2 - len(names)) + names
        return _CHANGED.format(
            catalogue="".join(f"{quoted(part)}." for part in catalogue if part),
            schema=text(schema) if schema else "CURRENT_SCHEMA()",
            table=text(table or ""),
        )

    def _told(self, query: str, changed: float | None) -> Reading:
        """What the account tells of the query's cost. It is no reason to fail that it does not."""
        with suppress(SourceError):
            for scanned, elapsed, credits in self.reader.rows(_COST.format(query=query), "asking what it cost"):
                took = elapsed / 1000 if elapsed is not None else None
                used = float(credits) if credits is not None else None
                return Reading(query, int(scanned) if scanned is not None else None, took, used, changed)
        return Reading(query, changed_at=changed)

    def _describe(self, relation: Relation) -> list[Any]:
        """The columns, each name once; raises `SourceError` HG204 for a query with two of a name."""
        with self.hinted(relation):
            found = self.reader.describe(f"SELECT * FROM {from_clause(relation)}", f"reading {relation.title}")
        once_each([m.name for m in found], relation.title)
        return found
