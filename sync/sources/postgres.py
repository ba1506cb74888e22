"""PostgreSQL as a source: one SELECT of the needed columns at one snapshot, streamed in Arrow batches into a file.

Rows are read with COPY in binary form, by the Arrow Database Connectivity driver. Columns and rows are of the same
snapshot (REPEATABLE READ, READ ONLY), which ends when the rows are in the file: it is not held while they are
compared and sent. Made for PostgreSQL 13 and later, tested with 15.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from sync.errors import SourceError
from sync.sources.base import Column, Relation, Source, Staged
from sync.sources.options import PostgresOptions
from sync.sources.postgres_session import Session, connected, opened, settings
from sync.sources.postgres_types import Leaving, arrived, arrow_schema, leaving
from sync.sources.postgres_writing import WritingSession
from sync.sources.queries import Unparsed, closest, pick, quoted, single_select, split_name

__all__ = ["PostgresSource"]

_WHO = """
SELECT current_setting('server_version'), current_user::text, current_database()::text,
    coalesce((SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl), 'no TLS')
"""
_TABLES = """
SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'v', 'm', 'f', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
    AND n.nspname NOT LIKE 'pg\\_t%' AND has_schema_privilege(n.oid, 'USAGE')
    AND has_any_column_privilege(c.oid, 'SELECT')
ORDER BY c.relispartition, 1, 2 LIMIT 1000
"""
_SIMPLE = re.compile(r"[a-z_][a-z0-9_$]*")


class PostgresSource(Source):
    """A connection of its own for each question, so that no snapshot outlives it. Cohorts are only read.

    The refresh's version is a digest of the rows that were read, like every source's. PostgreSQL's own counters
    cannot stand for it: `pg_stat_user_tables` is not transactional and is reset, and `xmin` says nothing of views
    and is lost to a restore.
    """

    type = "postgres"

    def __init__(self, name: str, options: PostgresOptions, root: Path, purpose: str = "") -> None:
        self.name = name
        self.options = options
        self.root = root
        self.purpose = purpose
        self._lock = threading.Lock()
        self._open: set[Session] = set()

    def check(self) -> str:
        """Connect and ask who we are; raises `SourceError` HG200, HG205 or HG207 where that fails."""
        with self._session("asking who we are") as session:
            ((version, user, database, tls),) = session.rows(_WHO)
        return f"PostgreSQL {version.split()[0]}, {database} as {user}, {tls}"

    def tables(self) -> Sequence[str]:
        """`schema.table` of everything the user may read; quoted where PostgreSQL would fold it."""
        with self._session("listing tables") as session:
            return [f"{_shown(schema)}.{_shown(table)}" for schema, table in session.rows(_TABLES)]

    def columns(self, relation: Relation) -> tuple[Column, ...]:
        """The relation's columns, without running it; raises `SourceError` HG202 where it does not exist."""
        with self._hinted(relation), self._session(f"reading {relation.title}") as session:
            return tuple(Column(c.name, c.type) for c in _described(session, relation))

    @contextmanager
    def stage(
        self,
        connection: duckdb.DuckDBPyConnection,  # noqa: ARG002 - it reads the file like any other
        relation: Relation,
        columns: Sequence[str],
        spool: Path,
    ) -> Iterator[Staged]:
        """Stream the columns into a file in `spool` that only we can read, and remove it at the end."""
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = spool / f"{uuid.uuid4().hex}.parquet"
        try:
            chosen = self._read(relation, columns, file)
            path = str(file.absolute()).replace("'", "''")
            selected = ", ".join(c.staged for c in chosen)
            yield Staged(
                f"(SELECT {selected} FROM read_parquet('{path}'))", tuple(Column(c.name, c.type) for c in chosen)
            )
        finally:
            file.unlink(missing_ok=True)

    @contextmanager
    def session(self, what: str) -> Iterator[WritingSession]:
        """A connection that writes to the schema Headgate owns there; each statement is a transaction."""
        session = connected(self.name, self.options, self.root, WritingSession)
        try:
            session.what = what
            session.prepare(settings(self.options, self.purpose))
            with self._known(session):
                yield session
        finally:
            session.close()

    def interrupt(self) -> None:
        """Cancel what runs, here and on the server; from another thread."""
        with self._lock:
            running = list(self._open)
        for session in running:
            session.break_off()

    def _read(self, relation: Relation, columns: Sequence[str], file: Path) -> list[Leaving]:
        title = relation.title
        with self._hinted(relation), self._session(f"reading {title}") as session:
            there = {c.name: c for c in _described(session, relation)}
            chosen = [there[name] for name in pick(columns, list(there), title)]
            schema = arrow_schema(chosen, title)
            sql = f"SELECT {', '.join(f'{c.sql} AS {quoted(c.name)}' for c in chosen)} FROM {_from(relation)}"
            with closing(session.batches(sql)) as batches:
                _spool((arrived(batch, schema, title) for batch in batches), schema, file)
        return chosen

    @contextmanager
    def _session(self, what: str) -> Iterator[Session]:
        with opened(self.name, self.options, self.root, self.purpose, what) as session, self._known(session):
            yield session

    @contextmanager
    def _known(self, session: Session) -> Iterator[None]:
        """Let `interrupt` know of the session."""
        with self._lock:
            self._open.add(session)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(session)

    @contextmanager
    def _hinted(self, relation: Relation) -> Iterator[None]:
        """The nearest name for a table that is not there."""
        try:
            yield
        except SourceError as error:
            if error.code == "HG202" and relation.table:
                with suppress(SourceError):
                    error.fix = closest(relation.table, self.tables()) or error.fix
            raise


def _described(session: Session, relation: Relation) -> list[Leaving]:
    """The columns, each name once; raises `SourceError` HG204 for a query with two of a name."""
    found = leaving(session.schema(f"SELECT * FROM {_from(relation)}"))
    names = [c.name for c in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SourceError(
            f"{relation.title} has two columns called '{twice}'", code="HG204", fix="name them apart with AS"
        )
    return found


def _from(relation: Relation) -> str:
    """What stands for the relation in a FROM; names without quotes are folded as PostgreSQL does it."""
    if relation.query is not None:
        return f"({_select(relation.query)}\n) AS cohort"
    parts = split_name(relation.table or "")
    return ".".join(quoted(name if written.startswith('"') else name.lower()) for name, written in parts)


def _select(query: str) -> str:
    """The query without its final semicolon; one that our parser cannot read is the server's to judge.

    The server, too, takes one statement alone, and none that writes.
    """
    try:
        return single_select(query, "postgres")[1]
    except Unparsed:
        return query.rstrip().removesuffix(";")


def _shown(name: str) -> str:
    """How `table:` in a mapping writes it."""
    return name if _SIMPLE.fullmatch(name) else quoted(name)


def _spool(batches: Iterable[Any], schema: Any, file: Path) -> None:
    """Write the batches as they come."""
    import pyarrow.parquet

    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        # Read a few times and then removed: what would make it smaller costs more than it saves.
        with (
            open(handle, "wb") as out,  # noqa: PTH123
            pyarrow.parquet.ParquetWriter(
                out, schema, compression="lz4", use_dictionary=False, write_statistics=False
            ) as writer,
        ):
            for batch in batches:
                writer.write_batch(batch)
    except OSError as error:
        raise SourceError(
            f"the cohort's rows cannot be kept in {file.parent}: {error.strerror or 'input or output error'}",
            code="HG208",
            fix="free disk space for the state folder",
        ) from error
