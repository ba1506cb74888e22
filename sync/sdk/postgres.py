"""PostgreSQL for connectors: one transaction a push, over at its deadline, its errors classified.

A transaction holds all of a batch or nothing. Before COMMIT is sent a lost connection means that certainly nothing
was applied; while it is answered, nobody can tell (`Unavailable.applied` is None).

SQLSTATEs are PostgreSQL's own (manual, appendix A). An error while connecting carries none in libpq's interface,
so that one is told by its words, in the English of a server whose `lc_messages` is not set otherwise.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from sync.errors import AuthError, DestinationError, ProtocolError, RequestError, Unavailable
from sync.sdk.extras import need

if TYPE_CHECKING:
    import psycopg

__all__ = ["quoted", "transacted"]

T = TypeVar("T")

if TYPE_CHECKING:
    Cursor = psycopg.Cursor[tuple[Any, ...]]

_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|no password supplied|role \"|database \"|not permitted to log in"
    r"|certificate|does not support SSL|permission denied|SCRAM|private key"
)
_AUTH = ("28", "42501")
_UNSURE = ("08", "53", "55", "57", "58", "XX", "25", "40")  # the server's own trouble: it goes away
_SETTLED = ("21", "22", "23", "40", "44", "P0")  # as an answer to COMMIT: certainly rolled back
_ABSENT = {"42P01": "make the table, or set `create = true`", "3F000": "make the schema"}
_KEYLESS = "42P10"
_COLUMN = re.compile(r"column ([^:\"]{1,63}):")


def quoted(*names: str) -> str:
    """A name, or a qualified one, as SQL takes it (manual, section 4.1.1). Raises `RequestError` for none."""
    for name in names:
        if not name or "\0" in name or len(name.encode("utf-8", "replace")) > 63:
            raise RequestError("a name is empty, has a null character, or has more than 63 bytes", detail=name)
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


def transacted(where: Mapping[str, Any], seconds: float, work: Callable[[Cursor], T]) -> T:
    """What `work` returns, done in a transaction that is committed afterwards; all of it is over within `seconds`.

    `where` has libpq's parameters (manual, section 34.1.2). Raises `DestinationError`, and `ProjectError` where
    the driver is not installed. A function and no context manager: no error may have the driver's as its context.
    """
    driver = need("psycopg", "postgres")
    name = f"{where['host']}:{where['port']}"
    try:
        connection = driver.connect(**where, **_fixed(driver, seconds))
    except driver.Error as error:
        failure = _unreachable(error, name)
    else:
        with connection:
            return _committed(connection, seconds, name, work)
    raise failure


def _fixed(driver: ModuleType, seconds: float) -> dict[str, Any]:
    """Settings of every session; those that libpq would else take from the environment are given."""
    plain = {"hostaddr": "", "options": "", "passfile": "", "target_session_attrs": "any", "gssencmode": "disable"}
    balance = {"load_balance_hosts": "disable"} if driver.pq.version() >= 160000 else {}
    wait = max(2, int(seconds))  # whole seconds; libpq takes no less
    ours = {"connect_timeout": wait, "autocommit": True, "prepare_threshold": None}
    return {"application_name": "headgate", **plain, **balance, **ours}


def _committed(connection: psycopg.Connection[Any], seconds: float, name: str, work: Callable[[Cursor], T]) -> T:
    import psycopg as driver

    committing = False
    try:
        with _cut_after(connection, seconds), connection.cursor() as cursor:
            cursor.execute(_begin(seconds))
            done = work(cursor)
            committing = True
            cursor.execute("COMMIT")
            if cursor.statusmessage == "COMMIT":
                return done
            failure: DestinationError = ProtocolError(f"{name} did not say that it committed")
    except driver.Error as error:
        failure = _failed(error, name, committing=committing)
    except UnicodeError as error:
        failure = RequestError(f"a text cannot be written as {name} takes it", str(error))
    raise failure  # out here, so that no cause or context can quote the peer


def _begin(seconds: float) -> bytes:
    """The server, too, ends what is not over: a client that froze must not commit when it wakes up."""
    limit = max(1, int(seconds * 1000))
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    limits = "; ".join(f"SET LOCAL {name} = {limit}" for name in names)
    return f"BEGIN; {limits}; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO'".encode()


@contextlib.contextmanager
def _cut_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Close the connection's socket at the deadline, whatever it waits for."""

    def cut() -> None:
        with contextlib.suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as twin:
            twin.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


# --- what an error means ----------------------------------------------------------------------------------------


def _unreachable(error: psycopg.Error, name: str) -> DestinationError:
    said = str(error)
    if _REFUSED.search(said):
        fix = "Check user, password, database and `sslmode`, and the server's pg_hba.conf."
        return AuthError(f"{name} refused the connection", said, fix=fix)
    return Unavailable(f"cannot connect to {name}", said, applied=False)


def _failed(error: psycopg.Error, name: str, *, committing: bool) -> DestinationError:
    state = error.sqlstate
    if state is None and not _is_operational(error):  # the driver could not write the values down
        return RequestError(f"the rows cannot be written as {name} takes them", str(error))
    detail, code = _said(error), state or ""
    if committing and not code.startswith(_SETTLED):
        return Unavailable(f"{name} was lost while it committed", detail)
    if state is None:
        return Unavailable(f"{name} broke the connection off, or its time was up", detail, applied=False)
    message = f"{name} says: {_words(error)} ({code})"
    if code.startswith(_AUTH):
        return AuthError(message, detail, fix="Grant the user what the connector's documentation lists.")
    if code in _ABSENT:
        return Unavailable(message, detail, applied=False, fix=_ABSENT[code])
    if code == _KEYLESS:
        fix = "give the table a primary key, or a unique index, of exactly the mapping's identifiers"
        return Unavailable(message, detail, applied=False, fix=fix)
    if code.startswith(_UNSURE):
        return Unavailable(message, detail, applied=False)
    return RequestError(message, detail)


def _is_operational(error: psycopg.Error) -> bool:
    import psycopg as driver

    return isinstance(error, driver.OperationalError | driver.InterfaceError)


def _words(error: psycopg.Error) -> str:
    """What kind of error it is and where; names of columns and constraints, no values."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__).lower()
    about = error.diag
    column = about.column_name or next(iter(_COLUMN.findall(about.context or "")), None)
    named = (("column", column), ("constraint", about.constraint_name), ("table", about.table_name))
    return ", ".join([words, *(f"{kind} {name}" for kind, name in named if name)])


def _said(error: psycopg.Error) -> str:
    about = error.diag
    parts = (about.message_primary or str(error), about.message_detail, about.context)
    return "; ".join(part for part in parts if part)
