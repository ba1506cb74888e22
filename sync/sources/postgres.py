"""PostgreSQL as a source: one SELECT of the needed columns at one snapshot, streamed in Arrow batches into a file.

Rows are read with COPY in binary form, by the Arrow Database Connectivity driver. Columns and rows are of the same
snapshot (REPEATABLE READ, READ ONLY), which ends when the rows are in the file: it is not held while they are
compared and sent. Made for PostgreSQL 13 and later, tested with 15.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from sync.errors import SourceError
from sync.sources.base import Column, Relation, Source, Staged, Version
from sync.sources.options import PostgresOptions
from sync.sources.postgres_session import Session, connected, opened, settings
from sync.sources.postgres_sql import from_clause
from sync.sources.postgres_types import Leaving, arrived, arrow_schema, leaving
from sync.sources.postgres_writing import WritingSession
from sync.sources.queries import literal, once_each, pick, quoted
from sync.sources.spool import QUICK, passing, rows_in, spooled

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
_VERSION = """
WITH RECURSIVE family AS (
    SELECT c.oid, c.relkind FROM pg_class c WHERE c.oid = to_regclass({table})
    UNION ALL
    SELECT c.oid, c.relkind FROM family JOIN pg_inherits i ON i.inhparent = family.oid
        JOIN pg_class c ON c.oid = i.inhrelid
)
SELECT coalesce((SELECT relkind::text FROM family WHERE oid = to_regclass({table})), ''),
    bool_or(family.relkind NOT IN ('r', 'm', 'p')), pg_is_in_recovery(), current_setting('track_counts') = 'on',
    pg_postmaster_start_time()::text || ' ' || coalesce(md5(string_agg(concat_ws(' ', family.oid,
        pg_relation_filenode(family.oid), s.n_tup_ins, s.n_tup_upd, s.n_tup_del), ',' ORDER BY family.oid)), '')
FROM family LEFT JOIN pg_stat_all_tables s ON s.relid = family.oid
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
        with self.hinted(relation), self._session(f"reading {relation.title}") as session:
            return tuple(Column(c.name, c.type) for c in _described(session, relation))

    def version(self, relation: Relation) -> Version:
        """The counters of changed rows of a table and its partitions, and which files they are in.

        A change is counted a second after its commit at the latest (documentation, "The Cumulative Statistics
        System"). A server that starts anew, which may have lost its counters, counts as a change. Raises
        `SourceError`.
        """
        if relation.table is None:
            return Version(untold="a query has no counters of its own")
        with self.hinted(relation), self._session("asking whether the table changed") as session:
            name = literal(from_clause(relation))
            ((kind, foreign, replica, counted, mark),) = session.rows(_VERSION.format(table=name))
            if not kind:
                raise SourceError(f"source {self.name}: there is no table {relation.table}", code="HG202")
        if kind not in "rmp" or foreign:
            return Version(untold="PostgreSQL counts changes of tables and materialized views, and this is none")
        if replica:
            return Version(untold="this server is a replica: changes are counted where they are made")
        if not counted:
            return Version(untold="this server counts no changes (`track_counts` is off)")
        return Version(mark)

    @contextmanager
    def stage(
        self,
        connection: duckdb.DuckDBPyConnection,  # noqa: ARG002 - it reads the file like any other
        relation: Relation,
        columns: Sequence[str],
        spool: Path,
    ) -> Iterator[Staged]:
        """Stream the columns into a file in `spool` that only we can read, and remove it at the end."""
        with passing(spool) as file:
            chosen = self._read(relation, columns, file)
            selected = ", ".join(c.staged for c in chosen)
            yield Staged(
                f"(SELECT {selected} FROM {rows_in(file)})", tuple(Column(c.name, c.type) for c in chosen)
            )

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
        with self.hinted(relation), self._session(f"reading {title}") as session:
            there = {c.name: c for c in _described(session, relation)}
            chosen = [there[name] for name in pick(columns, list(there), title)]
            schema = arrow_schema(chosen, title)
            sql = (
                f"SELECT {', '.join(f'{c.sql} AS {quoted(c.name)}' for c in chosen)} FROM {from_clause(relation)}"
            )
            with closing(session.batches(sql)) as batches:
                spooled((arrived(batch, schema, title) for batch in batches), schema, file, **QUICK)
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


def _described(session: Session, relation: Relation) -> list[Leaving]:
    """The columns, each name once; raises `SourceError` HG204 for a query with two of a name."""
    found = leaving(session.schema(f"SELECT * FROM {from_clause(relation)}"))
    once_each([c.name for c in found], relation.title)
    return found


def _shown(name: str) -> str:
    """How `table:` in a mapping writes it."""
    return name if _SIMPLE.fullmatch(name) else quoted(name)
