"""The audit log: who did what and why, append-only, chained by hash, vouched for by signed checkpoints.

An event's hash is SHA-256 over `audit-v1`, the hash of the event before it, and the RFC 8785 JSON of its seq, at,
actor, action, object and data. The chain alone finds whatever was changed without rewriting the rest; the
checkpoints, which stand in a second place, find the rest.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import orjson
import rfc8785
from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    desc,
    insert,
    or_,
    select,
)
from sqlalchemy.exc import DBAPIError

from sync.audit_chain import Row, Verification, event_hash, plain_number, verify
from sync.checkpoints import NOTHING, Checkpoint, Checkpoints, Finding
from sync.errors import StateError
from sync.state.nouns import Event

__all__ = ["Audit", "AuditEvent", "Finding", "Verification", "event_hash"]

_NAMES = ("seq", "at", "actor", "action", "object", "data", "prev", "hash")
_TYPES = (Integer, Float, *[String] * 6)
_TABLE = Table("audit_event", MetaData(), *(Column(n, t) for n, t in zip(_NAMES, _TYPES, strict=True)))
_CHUNK = 5000
_UNREADABLE = (DBAPIError, UnicodeDecodeError)  # text that is not UTF-8, say
_OPEN = "headgate.audit.open"  # in Connection.info: the transaction that appended and may yet be rolled back


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An event as the log keeps it. `at` is in seconds since the epoch, UTC; `prev` and `hash` are hex."""

    seq: int
    at: float
    actor: str
    action: str
    object: str
    data: Mapping[str, Any]
    prev: str
    hash: str


class Audit:
    """The log of one ledger.

    `folder` holds the signing key, `checkpoints` is the second place: a folder that whoever can write the
    ledger had better not be able to rewrite. `every` is the number of events after which one is due.
    """

    def __init__(
        self, folder: Path, checkpoints: Path, every: int = 100, *, clock: Callable[[], float] = time.time
    ) -> None:
        self.every = every
        self._checkpoints = Checkpoints(folder, checkpoints)
        self._clock = clock
        self._appended = 0

    @property
    def due(self) -> bool:
        """Did this process append `every` events since its last checkpoint."""
        return self._appended >= self.every

    def append(self, connection: Connection, *events: Event) -> None:
        """Append inside the caller's transaction, which must be the ledger's only writer."""
        if not events:
            return
        seq, prev = self._head(connection)
        rows = []
        for number, event in enumerate(events, seq + 1):
            at = round(self._clock(), 6)
            data = _canonical(event.data)
            row = (number, at, _text(event.actor), event.action, _text(event.object), data, prev)
            prev = event_hash(*row)
            rows.append(dict(zip(_NAMES, (*row, prev), strict=True)))
        connection.execute(insert(_TABLE), rows)
        transaction = connection.get_transaction()
        connection.info[_OPEN] = weakref.ref(transaction) if transaction is not None else None
        self._appended += len(rows)

    def ready(self) -> None:
        """Can checkpoints be signed; raises `StateError` (HG321) before anything is done that needs one."""
        self._checkpoints.ready()

    def checkpoint(self, connection: Connection) -> Checkpoint | None:
        """Sign the committed log into the second place; None where the last checkpoint says it all.

        Raises `StateError`: HG320 where the place cannot be written, HG321 where the signing key was replaced,
        HG322 inside a transaction that appended, whose events may yet be rolled back.
        """
        if _appended_here(connection):
            raise StateError("a checkpoint cannot be made inside the transaction that appends", code="HG322")
        note = self._checkpoints.write(lambda: self._head(connection), self._clock())
        self._appended = 0
        return note

    def verify(self, connection: Connection) -> Verification:
        """Read the whole log and the second place, and say what is wrong: at most some hundred findings.

        The connection's transaction must be a new one: an older snapshot would look like a cut tail.
        """
        evidence = self._checkpoints.read()
        result = verify(_rows(connection), evidence)
        if result.events > self.every and not evidence.checkpoints and not evidence.findings:
            message = f"there is no checkpoint, although the log holds {result.events} events: they were removed"
            return Verification(result.events, 0, 0, (*result.findings, Finding("missing", message)))
        return result

    def search(
        self,
        connection: Connection,
        *,
        actor: str | None = None,
        action: str | None = None,
        object: str | None = None,
        since: float | None = None,
        text: str | None = None,
        limit: int = 100,
    ) -> Sequence[AuditEvent]:
        """The newest events that match, newest first.

        `actor`, `action` and `object` match exactly, or with `*` for any letters (`plan.*`); `since` is in
        seconds since the epoch; `text` is looked for in all columns, whatever its case.
        """
        query = select(_TABLE).order_by(desc(_TABLE.c.seq)).limit(limit)
        for column, value in (("actor", actor), ("action", action), ("object", object)):
            if value is not None and "*" in value:
                query = query.where(_TABLE.c[column].like(_like(value), escape="\\"))
            elif value is not None:
                query = query.where(_TABLE.c[column] == value)
        if since is not None:
            query = query.where(_TABLE.c.at >= since)
        if text is not None:
            columns = [_TABLE.c[n] for n in ("actor", "action", "object", "data")]
            query = query.where(or_(*(c.icontains(text, autoescape=True) for c in columns)))
        return list(_events(connection, query))

    def export(self, connection: Connection, out: TextIO) -> int:
        """Write every event as a line of JSON, oldest first, with its hashes; returns how many."""
        count = 0
        query = select(_TABLE).order_by(_TABLE.c.seq)
        for row in connection.execute(query.execution_options(yield_per=_CHUNK)):
            count += 1
            record = dict(zip(_NAMES, row, strict=True)) | {
                "at": plain_number(row.at),
                "data": orjson.Fragment(row.data),
            }
            out.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE).decode())
        return count

    def _head(self, connection: Connection) -> tuple[int, str]:
        row = connection.execute(select(_TABLE.c.seq, _TABLE.c.hash).order_by(desc(_TABLE.c.seq)).limit(1)).first()
        return (row.seq, row.hash) if row else (0, NOTHING)


def _canonical(data: Mapping[str, Any]) -> str:
    try:
        return rfc8785.dumps(dict(data)).decode()
    except rfc8785.CanonicalizationError:
        return rfc8785.dumps(_plain(data)).decode()


def _plain(value: Any) -> Any:
    """What JSON cannot say, as text: an event must not fail for the type of a detail."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    try:
        rfc8785.dumps(value)
    except rfc8785.CanonicalizationError:
        return _text(str(value))
    return value


def _text(value: str) -> str:
    """User and file names of the system may hold bytes that are no text."""
    return value.encode(errors="replace").decode()


def _appended_here(connection: Connection) -> bool:
    transaction = connection.get_transaction()
    appended = connection.info.get(_OPEN)
    return transaction is not None and appended is not None and appended() is transaction


def _like(pattern: str) -> str:
    escaped = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return escaped.replace("*", "%")


def _events(connection: Connection, query: Select[Any]) -> Iterator[AuditEvent]:
    for row in connection.execute(query):
        values = row._asdict()
        yield AuditEvent(**values | {"data": orjson.loads(values["data"])})


def _rows(connection: Connection) -> Iterator[Row]:
    """All events, oldest first; one that the database cannot even give us comes as its number and nothing else."""
    query, last = select(_TABLE).order_by(_TABLE.c.seq), 0
    try:
        for row in connection.execute(query.execution_options(yield_per=_CHUNK)):
            yield tuple(row)
            last = row.seq
    except _UNREADABLE:
        numbers = connection.execute(select(_TABLE.c.seq).where(_TABLE.c.seq > last).order_by(_TABLE.c.seq))
        yield from (_row(connection, seq) for seq in numbers.scalars().all())


def _row(connection: Connection, seq: int) -> Row:
    try:
        return tuple(connection.execute(select(_TABLE).where(_TABLE.c.seq == seq)).one())
    except _UNREADABLE:
        return (seq, *[None] * 7)
