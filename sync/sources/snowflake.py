"""Snowflake as a source: one SELECT of the needed columns, streamed in Arrow batches into a Parquet file."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from sync.errors import SourceError
from sync.sources.base import Column, Relation, Source, Staged
from sync.sources.options import SnowflakeOptions
from sync.sources.queries import Unparsed, closest, pick, quoted, single_select, split_name
from sync.sources.snowflake_access import query_tag
from sync.sources.snowflake_session import Session
from sync.sources.snowflake_types import arrow_schema, duckdb_type, folded, shown, staged

__all__ = ["SnowflakeSource"]

_TABLES = """
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_schema <> 'INFORMATION_SCHEMA' ORDER BY 1, 2 LIMIT 1000
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
        self.reader = Session(name, options, lambda: query_tag(options.query_tag, purpose, self.refresh))

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
        sql = f"SELECT {', '.join(map(quoted, picked))} FROM {_from(relation)}"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = spool / f"{uuid.uuid4().hex}.parquet"
        try:
            with closing(self.reader.tables(sql, f"reading {relation.title}")) as tables:
                _spool(tables, schema, file)
            path = str(file.absolute()).replace("'", "''")
            selected = ", ".join(map(staged, chosen))
            yield Staged(
                f"(SELECT {selected} FROM read_parquet('{path}'))",
                tuple(Column(m.name, duckdb_type(m)) for m in chosen),
            )
        finally:
            file.unlink(missing_ok=True)

    def interrupt(self) -> None:
        """Cancel what runs, in the warehouse too; from another thread."""
        self.reader.interrupt()

    def _describe(self, relation: Relation) -> list[Any]:
        """The columns, each name once; raises `SourceError` HG204 for a query with two of a name."""
        try:
            found = self.reader.describe(f"SELECT * FROM {_from(relation)}", f"reading {relation.title}")
        except SourceError as error:
            if error.code == "HG202" and relation.table:
                error.fix = self._hint(relation.table) or error.fix
            raise
        names = [m.name for m in found]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise SourceError(
                f"{relation.title} has two columns called '{twice}'", code="HG204", fix="name them apart with AS"
            )
        return found

    def _hint(self, table: str) -> str:
        with suppress(SourceError):
            return closest(table, self.tables())
        return ""


def _from(relation: Relation) -> str:
    """What stands for the relation in a FROM; names without quotes are folded as Snowflake does it."""
    if relation.query is not None:
        return f"({_select(relation.query)}\n)"
    return ".".join(quoted(folded(part, name)) for part, name in split_name(relation.table or ""))


def _select(query: str) -> str:
    """The query without its final semicolon; one that our parser cannot read is the warehouse's to judge.

    In the FROM where it stands nothing but a query is understood there.
    """
    try:
        return single_select(query, "snowflake")[1]
    except Unparsed:
        return query.rstrip().removesuffix(";")


def _spool(tables: Iterator[Any], schema: Any, file: Path) -> None:
    """Write the batches as they come, each cast to what the columns are declared as."""
    import pyarrow.parquet

    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as out, pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as writer:  # noqa: PTH123
            for table in tables:
                writer.write_table(table.rename_columns(schema.names).cast(schema))
    except OSError as error:
        raise SourceError(
            f"the cohort's rows cannot be kept in {file.parent}: {error.strerror or 'input or output error'}",
            code="HG208",
            fix="free disk space for the state folder",
        ) from error
