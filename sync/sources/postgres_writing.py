"""Transactions that write to the schema Headgate owns in PostgreSQL: statements, and rows by COPY from Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sync.errors import SourceError
from sync.sources.postgres_session import Session, assignments
from sync.sources.queries import split_name

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["WritingSession"]

_REFUSED = {
    "42501": "the user may not write there",
    "25006": "the server is a standby, which only reads",
}
"""By SQLSTATE (PostgreSQL manual, appendix A)."""


class WritingSession(Session):
    """A session each statement of which is a transaction, unless several are put into one."""

    indexes = True
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
        with self._in_transaction():
            self._execute(sql)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with self._in_transaction():
            return super().rows(sql)

    def load(self, table: str, batches: pa.RecordBatchReader) -> None:
        """Append record batches to a table, as they come: one COPY in binary form."""
        from adbc_driver_manager import INGEST_OPTION_MODE, INGEST_OPTION_MODE_APPEND, INGEST_OPTION_TARGET_TABLE

        parts = [name for name, _ in split_name(table)]
        options = {INGEST_OPTION_TARGET_TABLE: parts[-1], INGEST_OPTION_MODE: INGEST_OPTION_MODE_APPEND}
        if len(parts) > 1:
            options["adbc.ingest.target_db_schema"] = parts[0]
        with self._in_transaction(), self._statement(None) as statement:
            statement.set_options(**options)
            statement.bind_stream(batches)
            statement.execute_update()

    def _interrupted(self) -> SourceError:
        return SourceError(f"source {self._name}: {self.what} was interrupted", code="HG218", fix="run it again")

    def _explained(self, error: Exception) -> SourceError:
        why = _REFUSED.get(str(getattr(error, "sqlstate", None) or ""))
        if why is None:
            return super()._explained(error)
        return SourceError(
            f"source {self._name}: {self.what}: {why}",
            code="HG231",
            fix="grant what the page on it says (docs/reference/sync-log.md)",
        )
