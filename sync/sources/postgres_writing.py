"""Transactions that write to the schema Headgate owns in PostgreSQL: statements, and rows by COPY from Arrow."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.errors import SourceError
from sync.sources.base import Column, Relation, Staged
from sync.sources.postgres_session import Session, assignments
from sync.sources.postgres_sql import from_clause
from sync.sources.postgres_types import arrived, arrow_schema, leaving
from sync.sources.pushed import Dialect
from sync.sources.queries import literal, quoted, split_name
from sync.sources.spool import QUICK, rows_in, spooled

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PostgresDialect", "WritingSession"]

_REFUSED = {
    "42501": "the user may not write there",
    "25006": "the server is a standby, which only reads",
}
"""By SQLSTATE (PostgreSQL manual, appendix A)."""


class PostgresDialect(Dialect):
    """PostgreSQL's.

    The text form of a row quotes what could be taken for something else, and tells null from the empty text
    (manual, section 8.16.6); that of each value is exact under the settings of our sessions.
    """

    name = "postgres"

    def digest(self, columns: Sequence[Column], salt: str) -> str:
        """See `Dialect`."""
        return f"md5({literal(salt)} || ROW({', '.join(quoted(c.name) for c in columns)})::text)"

    def number(self, digits: str) -> str:
        """See `Dialect`; a cast from hexadecimal text to bits, as `bit_in` reads it (manual, section 8.10)."""
        return f"('x' || {digits})::bit(32)::bigint"


class WritingSession(Session):
    """A session each statement of which is a transaction, unless several are put into one."""

    dialect: Dialect = PostgresDialect()
    indexes = True
    one_version = True
    received = 0
    sent = 0
    _inside = False

    def prepare(self, settings: dict[str, str]) -> None:
        """What every transaction is set to. Nothing is sent yet."""
        self._settings = settings
        self._connection.set_autocommit(False)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside, or nothing of it."""
        self._inside = True
        try:
            self._execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            super().rows(assignments(self._settings))
            yield
            with self._statement(None):  # for what the server says of it, as of any statement
                self._connection.commit()
        except BaseException:
            with suppress(Exception):  # of a connection that is lost nothing is left to take back
                self._connection.rollback()
            raise
        finally:
            self._inside = False

    @contextmanager
    def _in_transaction(self) -> Iterator[None]:
        if self._inside:
            yield
            return
        with self.transaction():
            yield

    def execute(self, sql: str) -> None:
        """Run a statement."""
        self.sent += len(sql)
        with self._in_transaction():
            self._execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with self._in_transaction():
            return super().rows(sql)

    def batches(self, sql: str) -> Generator[Any, None, None]:
        """The rows of a SELECT as record batches, counted; inside a transaction."""
        self.sent += len(sql)
        with closing(super().batches(sql)) as batches:
            for batch in batches:
                self.received += batch.nbytes
                yield batch

    def fetch(self, sql: str, spool: Path) -> Staged:
        """The rows of a SELECT in a file of the folder `spool`, typed as a cohort's are; the caller removes it."""
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = spool / f"{uuid.uuid4().hex}.parquet"
        with self._in_transaction():
            chosen = leaving(self.schema(sql))
            schema = arrow_schema(chosen, "the members' schema")
            select = ", ".join(f"{c.sql} AS {quoted(c.name)}" for c in chosen)
            with closing(self.batches(f"SELECT {select} FROM ({sql}\n) AS wanted")) as batches:
                spooled(
                    (arrived(batch, schema, "the members' schema") for batch in batches), schema, file, **QUICK
                )
        staged = ", ".join(c.staged for c in chosen)
        return Staged(f"(SELECT {staged} FROM {rows_in(file)})", tuple(Column(c.name, c.type) for c in chosen))

    def named(self, relation: Relation) -> str:
        """What stands for a cohort's table or query after FROM."""
        return from_clause(relation)

    def load(self, table: str, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        """Append record batches to a table, as they come: one COPY in binary form."""
        from adbc_driver_manager import INGEST_OPTION_MODE, INGEST_OPTION_MODE_APPEND, INGEST_OPTION_TARGET_TABLE

        parts = [name for name, _ in split_name(table)]
        options = {INGEST_OPTION_TARGET_TABLE: parts[-1], INGEST_OPTION_MODE: INGEST_OPTION_MODE_APPEND}
        if temporary:
            options["adbc.ingest.temporary"] = "true"
        if len(parts) > 1:
            options["adbc.ingest.target_db_schema"] = parts[0]
        with self._in_transaction(), self._statement(None) as statement:
            statement.set_options(**options)
            statement.bind_stream(self._counted(batches))
            statement.execute_update()

    def _interrupted(self) -> SourceError:
        return SourceError(f"source {self._name}: {self.what} was interrupted", code="HG218", fix="run it again")

    def _counted(self, batches: pa.RecordBatchReader) -> pa.RecordBatchReader:
        import pyarrow as pa

        def each() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                self.sent += batch.nbytes
                yield batch

        return pa.RecordBatchReader.from_batches(batches.schema, each())

    def _explained(self, error: Exception) -> SourceError:
        why = _REFUSED.get(str(getattr(error, "sqlstate", None) or ""))
        if why is None:
            return super()._explained(error)
        return SourceError(
            f"source {self._name}: {self.what}: {why}",
            code="HG231",
            fix="grant what the page on it says (docs/reference/sync-log.md)",
        )
