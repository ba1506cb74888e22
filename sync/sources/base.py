"""What the engine asks of a warehouse: the columns of a cohort, and its rows as a relation in DuckDB."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from sync.errors import SourceError
from sync.sources.queries import closest

if TYPE_CHECKING:
    from sync.sources.log_tables import LogSession

__all__ = ["Column", "Reading", "Relation", "Source", "Staged", "Version"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column as the warehouse names it; `type` is the DuckDB type that its values arrive in."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Relation:
    """Where a cohort's rows come from: a table (`schema.table`) or a query, one of the two."""

    table: str | None = None
    query: str | None = None

    @property
    def title(self) -> str:
        """How messages call it."""
        return self.table or "the cohort's query"


@dataclass(frozen=True, slots=True)
class Staged:
    """The cohort's rows inside the engine's DuckDB connection: `sql` stands where a table name may stand."""

    sql: str
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a warehouse tells of the query that read a cohort; None where it does not tell."""

    query: str  # its id in the warehouse's own history
    bytes_scanned: int | None = None
    seconds: float | None = None  # from being submitted to its end
    credits: float | None = None  # of cloud services, on top of the warehouse's time
    changed_at: float | None = None  # when the table was last changed, in any way: seconds since 1970


@dataclass(frozen=True, slots=True)
class Version:
    """What differs as soon as a relation's rows may have changed; where a source cannot tell, why it cannot.

    It may differ without a change: it is a reason to look at the rows, and nothing is concluded from it.
    """

    mark: str = ""
    untold: str = ""  # a sentence: "a view changes with what is under it"


class Source(ABC):
    """A warehouse connection. It reads; what it may write is in the schema that Headgate owns there."""

    name: str
    type: str
    refresh: str = ""  # the one that it reads for, which a warehouse with tags on its queries is told
    reading: Reading | None = None  # the last one, of a warehouse that keeps a history

    @abstractmethod
    def check(self) -> str:
        """Connect, and return a line that says to what; raises `SourceError`."""

    @abstractmethod
    def columns(self, relation: Relation) -> tuple[Column, ...]:
        """The relation's columns; raises `SourceError` (code HG202) where it does not exist."""

    @abstractmethod
    def tables(self) -> Sequence[str]:
        """Names that `table:` may take, for "did you mean"; at most 1,000."""

    @abstractmethod
    def stage(
        self, connection: duckdb.DuckDBPyConnection, relation: Relation, columns: Sequence[str], spool: Path
    ) -> AbstractContextManager[Staged]:
        """Make the relation's named columns readable from `connection`, as one consistent version.

        A source that DuckDB can read itself attaches it; another streams its rows into a Parquet file in the
        folder `spool`, which the context manager removes. The rows may be read several times inside the
        context.
        """

    def version(self, relation: Relation) -> Version:  # noqa: ARG002 - those that can tell look at it
        """The relation's version, asked for cheaply: no row is read. Raises `SourceError`."""
        return Version(untold=f"a source of the type {self.type} does not tell of changes")

    @contextmanager
    def hinted(self, relation: Relation) -> Iterator[None]:
        """Name the nearest table in the error for one that is not there."""
        try:
            yield
        except SourceError as error:
            if error.code == "HG202" and relation.table:
                with suppress(SourceError):
                    error.fix = closest(relation.table, self.tables()) or error.fix
            raise

    def session(self, what: str) -> AbstractContextManager[LogSession]:
        """A session that may write to the schema Headgate owns there; `what` it does stands in messages.

        Raises `SourceError`: HG230 where a source of this type has none.
        """
        raise SourceError(
            f"source {self.name}: {what} is nothing that a source of the type {self.type} can do", code="HG230"
        )

    def close(self) -> None:  # noqa: B027 - most sources keep nothing open
        """End what is kept open between two questions; harmless when repeated."""

    def interrupt(self) -> None:  # noqa: B027 - a source that reads a file on this machine has nothing to end
        """End what the source does for us, in the warehouse too; from another thread, at any time.

        Whoever waits for it gets a `SourceError`, HG218.
        """
