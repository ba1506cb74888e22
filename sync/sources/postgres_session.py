"""One read-only transaction with PostgreSQL through its Arrow driver (ADBC), which another thread may end."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from sync.errors import SourceError
from sync.sources.options import PostgresOptions
from sync.sources.postgres_errors import explained, unreachable
from sync.sources.queries import literal, quoted

__all__ = ["Session", "assignments", "connected", "opened", "settings"]

S = TypeVar("S", bound="Session")

_BATCH = 8 << 20  # bytes of a record batch, about: what is in memory at a time
_OLDEST = 130_000  # server_version_num of the first with trim_scale()
_BEGINNING = "setting up the session"
_NAME_BYTES = 63  # of an application_name; the server cuts longer ones


def settings(options: PostgresOptions, purpose: str) -> dict[str, str]:
    """What the transaction is set to: limits, the session's zone, and the texts that types are written as."""
    name = f"{options.application_name} {purpose}".strip().encode("ascii", "replace")[:_NAME_BYTES].decode()
    limit = str(max(1, round(options.statement_timeout * 1000)))
    found = {
        "application_name": name,
        "statement_timeout": limit,
        "idle_in_transaction_session_timeout": limit,  # a process that hangs must not hold a snapshot for ever
        "TimeZone": options.timezone,
        "DateStyle": "ISO, YMD",
        "IntervalStyle": "iso_8601",
        "extra_float_digits": "1",
        "bytea_output": "hex",
        "lc_monetary": "C",
    }
    if options.search_path:
        found["search_path"] = ", ".join(map(quoted, options.search_path))
    return ({"role": options.role} if options.role else {}) | found


@contextmanager
def opened(name: str, options: PostgresOptions, root: Path, purpose: str, what: str) -> Iterator[Session]:
    """A transaction on a connection of its own, at one snapshot; it is ended and closed afterwards.

    Raises `SourceError`: HG200, HG205 and HG207 while connecting, and for whatever fails inside.
    """
    session = connected(name, options, root, Session)
    try:
        session.begin(settings(options, purpose))
        session.what = what
        yield session
    finally:
        session.close()


def connected(name: str, options: PostgresOptions, root: Path, kind: type[S]) -> S:
    """A connection of its own. Raises `SourceError`: HG200, HG205 and HG207."""
    from sync.sdk.extras import need

    driver, manager = need("adbc_driver_postgresql", "postgres"), need("adbc_driver_manager", "postgres")
    given = _parameters(options, root)
    try:
        database = driver.connect(" ".join(f"{key}={_escaped(value)}" for key, value in given.items()))
        try:
            return kind(name, database, manager.AdbcConnection(database))
        except manager.Error:
            database.close()
            raise
    except manager.Error as error:
        failure = unreachable(error, name, f"{options.host}:{options.port}/{options.database}")
    raise failure  # out here: the driver's words may have our parameters in them


def _parameters(options: PostgresOptions, root: Path) -> dict[str, str]:
    """libpq's (manual, section 34.1.2); those that it would else take from the environment are given."""
    given = {
        "host": options.host,
        "port": str(options.port),
        "dbname": options.database,
        "user": options.user,
        "password": options.password.get_secret_value() if options.password else "",
        "sslmode": options.sslmode,
        "connect_timeout": str(max(2, round(options.login_timeout))),  # whole seconds; it takes no less than 2
        "client_encoding": "UTF8",
        "application_name": options.application_name,
        "keepalives_idle": "30",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        **dict.fromkeys(("hostaddr", "options", "passfile"), ""),
        "target_session_attrs": "any",
        "gssencmode": "disable",
    }
    files = {"sslrootcert": options.ssl_root_cert, "sslcert": options.ssl_cert, "sslkey": options.ssl_key}
    given |= {key: str(root / path.expanduser()) for key, path in files.items() if path is not None}
    if options.sslmode == "verify-full":
        given.setdefault("sslrootcert", "system")
    return given


def _escaped(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


class Session:
    """The transaction. `what` it does stands in messages."""

    def __init__(self, name: str, database: Any, connection: Any) -> None:
        self.what = _BEGINNING
        self._name, self._database, self._connection = name, database, connection
        self._lock = threading.Lock()
        self._running: Any = None
        self._over = False
        self.broken_off = False

    def begin(self, settings: dict[str, str]) -> None:
        """Start it: one snapshot for everything it reads, and nothing it could write."""
        self._connection.set_autocommit(False)
        self._execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        self.rows(assignments(settings))
        ((version, known),) = self.rows(
            "SELECT current_setting('server_version_num')::int, "
            "EXISTS (SELECT FROM pg_settings WHERE name = 'client_connection_check_interval')"
        )
        if version < _OLDEST:
            raise SourceError(
                f"source {self._name}: PostgreSQL {version // 10_000} is too old to be read",
                code="HG200",
                fix=f"PostgreSQL {_OLDEST // 10_000} and later are read",
            )
        if known:
            self._be_watched()

    def _be_watched(self) -> None:
        """Have the server look, during a long query, whether we are still there; on some systems it cannot."""
        self._execute("SAVEPOINT before")
        try:
            self.rows("SELECT set_config('client_connection_check_interval', '10s', true)")
        except SourceError:
            self._execute("ROLLBACK TO SAVEPOINT before")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        columns = ([column.to_pylist() for column in batch.columns] for batch in self.batches(sql))
        return [row for batch in columns for row in zip(*batch, strict=True)]

    def schema(self, sql: str) -> Any:
        """The columns of a SELECT that is not run (`pyarrow.Schema`, with PostgreSQL's types as metadata)."""
        import pyarrow as pa

        with self._statement(sql) as statement:
            return pa.schema(statement.execute_schema())

    def batches(self, sql: str) -> Generator[Any, None, None]:
        """The rows of a SELECT as record batches, as they come. Whoever stops early closes it."""
        from adbc_driver_manager._reader import AdbcRecordBatchReader  # pyarrow's own loses the SQLSTATE

        with self._statement(sql) as statement:
            statement.set_options(**{"adbc.postgresql.batch_size_hint_bytes": str(_BATCH)})
            handle, _ = statement.execute_query()
            with closing(AdbcRecordBatchReader._import_from_c(handle.address)) as reader:
                yield from reader

    def break_off(self) -> None:
        """End what is running, here and on the server; from another thread."""
        with self._lock:
            self.broken_off = True
            if self._running is not None and not self._over:
                with suppress(Exception):  # it may have ended by itself
                    self._running.cancel()

    def close(self) -> None:
        """End the transaction and the connection."""
        with self._lock:
            self._over = True
        for part in (self._connection, self._database):
            with suppress(Exception):  # a connection that is lost cannot be closed properly
                part.close()

    def _execute(self, sql: str) -> None:
        with self._statement(sql) as statement:
            statement.execute_update()

    @contextmanager
    def _statement(self, sql: str | None) -> Iterator[Any]:
        """A statement to be run inside; without SQL, one that says by options what it does."""
        from adbc_driver_manager import AdbcStatement, Error

        try:
            with AdbcStatement(self._connection) as statement:
                self._started(statement)
                try:
                    if sql is not None:
                        statement.set_sql_query(sql)
                    yield statement
                finally:
                    self._started(None)
        except (Error, OSError) as error:
            failure = self._interrupted() if self.broken_off else self._explained(error)
        else:
            return
        raise failure  # out here: the driver's words may quote a row

    def _explained(self, error: Exception) -> SourceError:
        return explained(error, self._name, self.what, beginning=self.what == _BEGINNING)

    def _started(self, statement: Any) -> None:
        with self._lock:
            self._running = statement
            if statement is not None and self.broken_off:
                raise self._interrupted()

    def _interrupted(self) -> SourceError:
        return SourceError(
            f"source {self._name}: {self.what} was interrupted; nothing was sent",
            code="HG218",
            fix="run it again",
        )


def assignments(settings: dict[str, str]) -> str:
    """The SELECT that makes settings: local to the transaction, so that a pool of connections keeps none."""
    return "SELECT " + ", ".join(f"set_config({literal(k)}, {literal(v)}, true)" for k, v in settings.items())
