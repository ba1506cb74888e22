"""What is done inside a warehouse for members that are kept there: a session, and where dialects differ.

Every other statement is one that PostgreSQL and Snowflake both speak; it names columns of ours without quotes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sync.sources.base import Column, Relation, Staged

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Dialect", "Session"]


class Dialect(ABC):
    """Where the warehouses' SQL is not the same."""

    name: str
    table = "TABLE"  # what a table of ours is made as

    @abstractmethod
    def digest(self, columns: Sequence[Column], salt: str) -> str:
        """The MD5, 32 hexadecimal digits, of a salt and of these columns' values: two rows differ where one value
        does, and a null is not an empty text. The session's settings must not show in it.
        """

    @abstractmethod
    def number(self, digits: str) -> str:
        """The whole number (64 bits are enough) that a text of 8 hexadecimal digits is."""

    def temporary(self, schema: str, name: str) -> str:  # noqa: ARG002 - of some it is a part
        """How a temporary table is named; `schema`, as SQL names it, is where we may make one."""
        return name

    def text(self, column: str) -> str:
        """A value as text."""
        return f"CAST({column} AS VARCHAR)"

    def latest(self, column: str, type: str) -> str:
        """The latest moment in a column of that DuckDB type; of texts, of those that begin like a date."""
        if type.startswith(("TIMESTAMP", "DATE")):
            return f"max({column})"
        text = self.text(column)
        return f"max(CASE WHEN {text} LIKE '____-__-__%' THEN {text} END)"


@runtime_checkable
class Session(Protocol):
    """A connection that may write to the schema Headgate owns there. Each statement is a transaction of its own,
    unless several are put into one. Raises `SourceError`.
    """

    dialect: Dialect
    received: int  # bytes of answers, as Arrow has them
    sent: int  # bytes of what was loaded and asked

    @property
    def indexes(self) -> bool:
        """Are tables there searched by an index."""

    @property
    def one_version(self) -> bool:
        """Is everything that is read inside a transaction of one version, and may tables be made inside."""

    def execute(self, sql: str) -> None:
        """Run a statement."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a small answer."""

    def fetch(self, sql: str, spool: Path) -> Staged:
        """The rows of a SELECT in a file of the folder `spool`, typed as a cohort's are; the caller removes it."""

    def load(self, table: str, batches: pa.RecordBatchReader, *, temporary: bool = False) -> None:
        """Append Arrow record batches to a table, or to a temporary one of the session, as they come."""

    def transaction(self) -> AbstractContextManager[None]:
        """Everything inside, or nothing of it. Tables are made and dropped inside if it reads one version."""

    def named(self, relation: Relation) -> str:
        """What stands for a cohort's table or query after FROM."""
