"""One sign-in to Snowflake, kept for any number of statements, each of which another thread may end."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sync.errors import SourceError
from sync.sources.options import SnowflakeOptions
from sync.sources.snowflake_access import credentials, parameters
from sync.sources.snowflake_errors import explained

__all__ = ["Session", "Statement"]

_FIRST_LOOK, _LONGEST_PAUSE = 0.02, 2.0  # seconds between two looks at whether a query is done
_UNHEARD = 10  # looks in a row that may find nothing about a query that was just accepted


@dataclass(eq=False, slots=True)
class Statement:
    """A statement that is under way, and whether it was told to end."""

    what: str
    cursor: Any = None
    told: threading.Event = field(default_factory=threading.Event)


class Session:
    """The sign-in, made when it is first needed, which is when `tag` is asked what its queries are tagged with.

    Every query is submitted without waiting for its result ("Performing an asynchronous query", Python Connector
    guide): so its id is known while it runs, and it can be cancelled. Nothing it is asked outlives `close`, or the
    session's end.
    """

    def __init__(self, name: str, options: SnowflakeOptions, tag: Callable[[], str]) -> None:
        self.name = name
        self.options = options
        self._tag = tag
        self.waits = False  # for each result, as inside a transaction: then a query cannot be cancelled
        self.last_query = ""  # the id of the query that was submitted last
        self._connection: Any = None
        self._connecting = threading.Lock()
        self._lock = threading.Lock()
        self._under_way: set[Statement] = set()

    def describe(self, sql: str, what: str) -> list[Any]:
        """The connector's metadata of each column; nothing is run (`describeOnly`), so it costs nothing."""
        with self._statement(what) as statement:
            return list(statement.cursor.describe(sql) or ())

    def execute(self, sql: str, what: str, *, wait: bool = False) -> None:
        """Run a statement whose answer is not wanted.

        With `wait` it is not to be interrupted: PUT, which is done here, and COMMIT, after which it is too late.
        """
        with self._statement(what) as statement:
            self._run(statement, sql, wait=wait)

    def rows(self, sql: str, what: str) -> list[tuple[Any, ...]]:
        """All rows of a small result."""
        with self._statement(what) as statement:
            self._run(statement, sql)
            return [tuple(row) for row in statement.cursor.fetchall()]

    def tables(self, sql: str, what: str) -> Generator[Any, None, None]:
        """The rows of a SELECT as Arrow tables, as they come. Whoever stops early closes it."""
        with self._statement(what) as statement:
            self._run(statement, sql)
            for table in statement.cursor.fetch_arrow_batches(force_microsecond_precision=True):
                if statement.told.is_set():
                    raise self._interrupted(statement)
                yield table

    def interrupt(self) -> None:
        """End what is under way, in the warehouse too; from another thread."""
        with self._lock:
            for statement in self._under_way:
                statement.told.set()

    def close(self) -> None:
        """End the session; a statement that comes later signs in anew."""
        with self._connecting:
            connection, self._connection = self._connection, None
        _close(connection)

    def _run(self, statement: Statement, sql: str, *, wait: bool = False) -> None:
        """Submit the query, wait for its end, and have its result at hand."""
        if statement.told.is_set():
            raise self._interrupted(statement)
        if self.waits or wait:
            statement.cursor.execute(sql)
            if statement.told.is_set() and not wait:
                raise self._interrupted(statement)
            return
        query = str(statement.cursor.execute_async(sql)["queryId"])
        self.last_query = query
        pause, unheard = _FIRST_LOOK, 0
        while (status := self._status(query)) != "SUCCESS":
            unheard = unheard + 1 if status == "NO_DATA" else 0
            if unheard > _UNHEARD:
                raise SourceError(
                    f"source {self.name}: {statement.what}: Snowflake knows nothing of query {query}",
                    code="HG200",
                    fix="run again",
                )
            if statement.told.wait(pause):
                with suppress(_errors()):  # it may have ended by itself
                    statement.cursor.abort_query(query)
                raise self._interrupted(statement)
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        statement.cursor.query_result(query)

    def _status(self, query: str) -> str:
        return str(self._signed_in().get_query_status_throw_if_error(query).name)

    @contextmanager
    def _statement(self, what: str) -> Iterator[Statement]:
        statement = Statement(what)
        with self._lock:
            self._under_way.add(statement)
        try:
            with self._signed_in().cursor() as statement.cursor:
                yield statement
        except _errors() as error:
            found = self._interrupted(statement) if statement.told.is_set() else self._explained(error, what)
            if found.code in ("HG200", "HG205"):
                self.close()
            raise found from error
        finally:
            with self._lock:
                self._under_way.discard(statement)

    def _signed_in(self) -> Any:
        with self._connecting:
            if self._connection is None:
                self._connection = _connect(self.name, self.options, self._tag())
                weakref.finalize(self, _close, self._connection)
            return self._connection

    def _explained(self, error: Exception, what: str) -> SourceError:
        return explained(error, self.name, what)

    def _interrupted(self, statement: Statement) -> SourceError:
        return SourceError(
            f"source {self.name}: {statement.what} was interrupted; nothing was sent",
            code="HG218",
            fix="run it again",
        )


def _errors() -> type[Exception]:
    from snowflake.connector.errors import Error

    found: type[Exception] = Error
    return found


def _connect(name: str, options: SnowflakeOptions, tag: str) -> Any:
    import snowflake.connector

    given: dict[str, Any] = {
        "account": options.account,
        "user": options.user or None,
        "role": options.role,
        "warehouse": options.warehouse,
        "database": options.database,
        "schema": options.schema_,
        "host": options.host,
        "port": options.port,
        "protocol": options.protocol if options.host else None,
        **credentials(name, options),
    }
    if hasattr(snowflake.connector, "ConnectionConfig"):  # the connector's 5.x line
        given["enable_server_session_keep_alive_auto_detection"] = False  # no query outlives its session
        given["auto_cleanup"] = False  # it is closed by us at exit, too
    return snowflake.connector.connect(
        **{key: value for key, value in given.items() if value is not None},
        application="Headgate",
        arrow_number_to_decimal=True,
        login_timeout=max(1, round(options.login_timeout)),
        session_parameters=parameters(options, tag),
    )


def _close(connection: Any) -> None:
    with suppress(_errors()):
        if connection is not None:
            connection.close()
