"""A DuckDB database file as a source: the engine attaches it, so its rows are never copied."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import duckdb

from sync.errors import SourceError
from sync.sources.base import Column, Relation, Source, Staged, Version
from sync.sources.options import DuckDBOptions
from sync.sources.queries import closest, literal, pick, qualify, quoted, split_name

__all__ = ["DuckDBSource"]

_NAMES = """
SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = $1 AND NOT internal
UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = $1 AND NOT internal
ORDER BY ALL
"""
_RESERVED = {"memory", "temp", "system", "main"}


class DuckDBSource(Source):
    """The file at `options.path`, relative to `root`.

    While its rows are read no other process can write the file: a lock of our own is held besides DuckDB's,
    because DuckDB's is the process's (POSIX `fcntl`, F_SETLK) and ends when any other connection of this process
    to the same file closes.
    """

    type = "duckdb"

    def __init__(self, name: str, options: DuckDBOptions, root: Path) -> None:
        self.name = name
        self.path = (root / options.path.expanduser()).absolute()
        self.directories = [str((root / d.expanduser()).absolute()) for d in options.directories]

    def check(self) -> str:
        """Open the file; raises `SourceError` HG201 where it is none, HG203 where another process writes it."""
        with self._open() as (connection, catalog):
            count = len(connection.execute(_NAMES, [catalog]).fetchall())
        return f"DuckDB {duckdb.__version__}, {self.path.name}: {count} tables and views"

    def tables(self) -> Sequence[str]:
        """`table` for the schema `main`, else `schema.table`."""
        with self._open() as (connection, catalog):
            names = connection.execute(_NAMES, [catalog]).fetchmany(1000)
        return [_shown(schema, name) for schema, name in names]

    def columns(self, relation: Relation) -> tuple[Column, ...]:
        """The relation's columns; raises `SourceError` HG202 (no such table) or HG204 (a query that fails)."""
        return self._look(relation)[1]

    def version(self, relation: Relation) -> Version:  # noqa: ARG002 - the file is one for all its tables
        """The file's and its write-ahead log's size and time: they move with every table of it, and so may a view.

        Raises `SourceError` HG201 where there is no file.
        """
        if self.directories:
            return Version(untold="views of this database may read files outside of it (`directories`)")
        found = [_looks(path) for path in (self.path, self.path.with_name(f"{self.path.name}.wal"))]
        if not self.path.is_file():
            raise self._no_file()
        return Version("/".join(found))

    @contextmanager
    def stage(
        self,
        connection: duckdb.DuckDBPyConnection,
        relation: Relation,
        columns: Sequence[str],
        spool: Path,  # noqa: ARG002 - nothing is copied
    ) -> Iterator[Staged]:
        """Attach the file, read-only, and detach it at the end. Call it before the connection is locked down."""
        with self._held():
            target, found = self._look(relation)
            catalog = _free_name(connection, self.path.stem)
            self._allow(connection)
            self._attach(connection, catalog)
            try:
                yield Staged(_placed(target, catalog, self.path.stem), _named(columns, found, relation))
            finally:
                connection.execute(f"DETACH {quoted(catalog)}")

    def _look(self, relation: Relation) -> tuple[tuple[str, str] | str, tuple[Column, ...]]:
        """Schema and table, or the query's text; and the columns.

        A connection of its own, closed to everything but the warehouse, finds them: binding a query may open
        whatever files it names.
        """
        with self._open() as (connection, catalog):
            query, table = relation.query, relation.table or ""
            target = self._find(connection, catalog, table) if query is None else query
            sql = _placed(target, catalog, self.path.stem)
            try:
                rows = connection.execute(f"DESCRIBE SELECT * FROM {sql}").fetchall()
            except duckdb.Error as error:
                raise self._bad_relation(relation, error) from error
        return target, tuple(Column(row[0], row[1]) for row in rows)

    def _find(self, connection: duckdb.DuckDBPyConnection, catalog: str, table: str) -> tuple[str, str]:
        """Schema and name as the warehouse spells them; raises `SourceError` HG202."""
        there: list[tuple[str, str]] = connection.execute(_NAMES, [catalog]).fetchall()
        for schema, name in self._readings(table):
            if (schema, name) in there:
                return schema, name
            folded = [t for t in there if (t[0].lower(), t[1].lower()) == (schema.lower(), name.lower())]
            if folded:
                return folded[0]
        shown = [_shown(*t) for t in there]
        raise SourceError(
            f"source {self.name}: {self.path.name} has no table or view '{table}'",
            code="HG202",
            fix=closest(table, shown) or f"it has {', '.join(shown[:20]) or 'no tables'}",
        )

    def _readings(self, table: str) -> Iterator[tuple[str, str]]:
        """What `table:` may mean, the likeliest first."""
        parts = [part for part, _ in split_name(table)]
        if len(parts) == 3 and parts[0].lower() == self.path.stem.lower():
            yield parts[1], parts[2]
        if len(parts) == 2:
            yield parts[0], parts[1]
            if parts[0].lower() == self.path.stem.lower():
                yield "main", parts[1]
        if len(parts) == 1:
            yield "main", parts[0]
        yield "main", table

    @contextmanager
    def _open(self) -> Iterator[tuple[duckdb.DuckDBPyConnection, str]]:
        """A short connection with the file attached, and the name it has there."""
        with _closing(duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB"})) as connection:
            for setting in ("autoinstall_known_extensions", "autoload_known_extensions"):
                connection.execute(f"SET {setting} = false")
            self._allow(connection)
            catalog = _free_name(connection, self.path.stem)
            self._attach(connection, catalog)
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection, catalog

    def _allow(self, connection: duckdb.DuckDBPyConnection) -> None:
        if not self.directories:
            return
        row = connection.execute("SELECT current_setting('allowed_directories')").fetchone()
        allowed = [*(row[0] if row else []), *self.directories]
        listed = ", ".join(map(literal, dict.fromkeys(allowed)))
        connection.execute(f"SET allowed_directories = [{listed}]")

    def _attach(self, connection: duckdb.DuckDBPyConnection, catalog: str) -> None:
        if not self.path.is_file():
            raise self._no_file()
        try:
            connection.execute(f"ATTACH {literal(str(self.path))} AS {quoted(catalog)} (READ_ONLY, TYPE duckdb)")
        except duckdb.Error as error:
            raise self._bad_file(str(error)) from error

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Keep writers out until the end, whatever else this process opens and closes."""
        try:
            handle = os.open(self.path, os.O_RDONLY)
        except OSError:
            yield  # attaching says what is wrong
            return
        try:
            locked = _lock_shared(handle)
            if not locked:
                self.check()  # names the process that writes
                raise self._locked("this very process")
            yield
        finally:
            os.close(handle)

    def _no_file(self) -> SourceError:
        if self.path.exists():
            return SourceError(
                f"source {self.name}: {self.path} is a folder", code="HG201", fix="name the database file in it"
            )
        near = sorted(p.name for p in self.path.parent.glob("*.d*b") if p.is_file())
        hint = closest(self.path.name, near) or (f"there are {', '.join(near[:5])}" if near else "")
        return SourceError(
            f"source {self.name}: there is no file {self.path}",
            code="HG201",
            fix=hint or f"make it, or mend `path` under [sources.{self.name}] in config.toml",
        )

    def _bad_file(self, message: str) -> SourceError:
        if holder := re.search(r"Conflicting lock is held in (.*?) \(PID (\d+)\)", message):
            return self._locked(f"process {holder[2]} ({Path(holder[1]).name})")
        if "already attached by database" in message:
            return self._locked("this very process")
        if "older version of DuckDB" in message or "newer version" in message or "version number" in message:
            return SourceError(
                f"source {self.name}: {self.path} was written by a DuckDB that is newer than ours, "
                f"{duckdb.__version__}, or too old for it",
                code="HG201",
                fix="update Headgate's duckdb package, or write the file with an older STORAGE_VERSION",
            )
        if "not a valid DuckDB" in message or "Corrupt database" in message:
            what = "damaged" if "Corrupt" in message else "not a DuckDB database"
            return SourceError(
                f"source {self.name}: {self.path} is {what}",
                code="HG201",
                fix=f"mend `path` under [sources.{self.name}] in config.toml, or bring the file back",
            )
        first = message.splitlines()[0] if message else "no reason given"
        return SourceError(f"source {self.name}: {self.path} cannot be opened: {first}", code="HG201")

    def _locked(self, holder: str) -> SourceError:
        return SourceError(
            f"source {self.name}: {self.path.name} is open for writing in {holder}",
            code="HG203",
            fix="wait until it is done (a dbt run, a notebook, a shell?) or close it there; then run again",
        )

    def _bad_relation(self, relation: Relation, error: duckdb.Error) -> SourceError:
        """DuckDB's words on a query are about names and types: at this point no row was read."""
        message = _first_lines(str(error))
        code = "HG202" if isinstance(error, duckdb.CatalogException) else "HG204"
        fix = "try it in the DuckDB shell"
        if isinstance(error, duckdb.PermissionException):
            fix = f"list the folder it reads from under `directories` in [sources.{self.name}]"
        return SourceError(f"source {self.name}: {relation.title} cannot be read: {message}", code=code, fix=fix)


def _looks(path: Path) -> str:
    """What a file looks like from outside; empty where there is none."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"


def _placed(target: tuple[str, str] | str, catalog: str, own: str) -> str:
    """What stands for the relation in a FROM, whatever the connection's search path is."""
    if isinstance(target, tuple):
        return f"{quoted(catalog)}.{quoted(target[0])}.{quoted(target[1])}"
    return f"({qualify(target, catalog, own)}\n)"


def _named(wanted: Sequence[str], there: Sequence[Column], relation: Relation) -> tuple[Column, ...]:
    columns = {c.name: c for c in there}
    return tuple(columns[name] for name in pick(wanted, list(columns), relation.title))


def _free_name(connection: duckdb.DuckDBPyConnection, stem: str) -> str:
    """The name the file has in a shell, which views in it may spell out; another one where it is taken."""
    taken = {r[0].lower() for r in connection.execute("SELECT database_name FROM duckdb_databases()").fetchall()}
    return f"{stem}_{uuid.uuid4().hex[:8]}" if stem.lower() in taken | _RESERVED else stem


def _lock_shared(handle: int) -> bool:
    """A lock that other processes' DuckDBs respect and that nobody else can end; False where somebody writes.

    Linux has locks of the open file description (fcntl(2), F_OFD_SETLK); elsewhere `flock` and `fcntl` locks
    see each other. A file system without locks gives none.
    """
    try:
        if hasattr(fcntl, "F_OFD_SETLK"):
            fcntl.fcntl(handle, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0))
        else:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


@contextmanager
def _closing(connection: duckdb.DuckDBPyConnection) -> Iterator[duckdb.DuckDBPyConnection]:
    try:
        yield connection
    finally:
        connection.close()


def _shown(schema: str, name: str) -> str:
    """The shortest text that `table:` takes for it."""
    parts = [name] if schema == "main" else [schema, name]
    return ".".join(quoted(p) if re.search(r'[".]', p) else p for p in parts)


def _first_lines(message: str) -> str:
    """DuckDB's message without the excerpt of the SQL."""
    return message.split("\n\nLINE ")[0].strip().replace("\n", " ")
