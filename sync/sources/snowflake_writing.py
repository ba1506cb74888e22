"""Sessions that write to the schema Headgate owns in Snowflake: statements, and rows by PUT and COPY."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.errors import SourceError
from sync.sources.base import Relation, Staged
from sync.sources.pushed import Dialect
from sync.sources.queries import quoted, split_name
from sync.sources.snowflake_dialect import SnowflakeDialect
from sync.sources.snowflake_errors import explained
from sync.sources.snowflake_session import Session
from sync.sources.snowflake_spool import spooled, written
from sync.sources.snowflake_sql import from_clause
from sync.sources.snowflake_types import arrow_schema, folded, selected

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Writer", "WritingSession"]

_NOT_ALLOWED = 3001
_PUT = "PUT 'file://{file}' @~/{folder} AUTO_COMPRESS = FALSE SOURCE_COMPRESSION = NONE OVERWRITE = TRUE"
_COPY = (
    "COPY INTO {table} FROM @~/{folder} "
    "FILE_FORMAT = (TYPE = PARQUET USE_LOGICAL_TYPE = TRUE BINARY_AS_TEXT = FALSE) "
    "MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE PURGE = TRUE"
)


class Writer(Session):
    """A sign-in whose refusals are about what Headgate writes."""

    def _explained(self, error: Exception, what: str) -> SourceError:
        found = explained(error, self.name, what)
        if found.code != "HG207" or getattr(error, "errno", None) != _NOT_ALLOWED:
            return found
        return SourceError(
            f"source {self.name}: {what}: the role may not do that there",
            code="HG231",
            fix="grant what the page on it says (docs/reference/snowflake-source.md)",
        )


class WritingSession:
    """A sign-in of its own. Each statement is a transaction, unless several are put into one.

    A transaction reads what is committed when each of its statements begins, and a statement that makes or drops
    something commits it (SQL reference, "Transactions": READ COMMITTED, and DDL).
    """

    dialect: Dialect = SnowflakeDialect()
    indexes = False
    one_version = False

    def __init__(self, session: Session, what: str) -> None:
        self._session = session
        self._what = what
        self.received = 0  # bytes of answers, as Arrow has them
        self.sent = 0  # bytes of what was loaded and asked

    def execute(self, sql: str) -> None:
        """Run a statement."""
        self.sent += len(sql)
        self._session.execute(sql, self._what)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""
        columns = ([column.to_pylist() for column in table.columns] for table in self._tables(sql))
        return [row for table in columns for row in zip(*table, strict=True)]

    def fetch(self, sql: str, spool: Path) -> Staged:
        """The rows of a SELECT in a file of the folder `spool`, typed as a cohort's are; the caller removes it."""
        found = self._session.describe(sql, self._what)
        schema = arrow_schema(found, "the members' schema")
        select = f"SELECT {', '.join(map(selected, found))} FROM ({sql}\n) AS wanted"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = spool / f"{uuid.uuid4().hex}.parquet"
        with closing(self._tables(select)) as tables:
            spooled(tables, schema, file)
        return written(file, found)

    def load(self, table: str, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:  # noqa: ARG002
        """Append record batches to a table, by the columns' names, as they come.

        They go through the user's own stage, which every user has and nobody else reads ("Choosing an internal
        stage for local files"), and are gone from it when they are in the table. Nothing here ends a transaction.
        """
        name = ".".join(quoted(folded(part, written)) for part, written in split_name(table))
        folder = f"headgate/{uuid.uuid4().hex}"
        with tempfile.TemporaryDirectory(prefix="headgate-") as local:
            file = Path(local) / "rows.parquet"
            if not spooled(batches, batches.schema, file):
                return
            self.sent += file.stat().st_size
            try:
                self._session.execute(_PUT.format(file=file, folder=folder), self._what, wait=True)
                self.execute(_COPY.format(table=name, folder=folder))
            except SourceError:
                with suppress(SourceError):  # the first failure is the one to tell
                    self.execute(f"REMOVE @~/{folder}")
                raise

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything inside, or nothing of it. Statements that make or drop something commit by themselves."""
        self._session.execute("BEGIN", self._what, wait=True)
        self._session.waits = True
        try:
            yield
            self._session.execute("COMMIT", self._what, wait=True)
        except BaseException:
            with suppress(SourceError):  # of a session that is lost nothing is left to take back
                self.execute("ROLLBACK")
            raise
        finally:
            self._session.waits = False

    def named(self, relation: Relation) -> str:
        """What stands for a cohort's table or query after FROM."""
        return from_clause(relation)

    def interrupt(self) -> None:
        """End what is under way, in the warehouse too; from another thread."""
        self._session.interrupt()

    def _tables(self, sql: str) -> Generator[pa.Table, None, None]:
        self.sent += len(sql)
        with closing(self._session.tables(sql, self._what)) as tables:
            for table in tables:
                self.received += table.nbytes
                yield table
