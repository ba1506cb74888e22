"""Who may use the API: tokens, and the requests that a caller named by an idempotency key.

A token is 256 random bits, so what is kept of it is a plain SHA-256: a slow hash protects what can be guessed, and
would only let anybody keep the daemon busy with guesses.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy import delete, insert, select, update

from sync.errors import StateError, UsageError
from sync.faultpoints import durable
from sync.state import rows, tables
from sync.state.database import Database, upsert
from sync.state.nouns import Event, RunRequest
from sync.state.tables import NOW

__all__ = ["KEY_KEPT", "Access", "Scope", "Token"]

KEY_KEPT = 86400.0
"""Seconds for which the same key means the same request."""

_COARSE = 3600.0  # seconds: when a token was last used is kept no finer than this
_TOKEN = re.compile(r"hg_([0-9a-f]{8})_([A-Za-z0-9_-]{43})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)

_token = tables.token.c
_keyed = tables.idempotency_key.c


class Scope(StrEnum):
    """What a token may do."""

    READ = "read"  # look at syncs, runs, plans' counts and verdicts
    RUN = "run"  # ask for runs and plans, pause and resume
    APPROVE = "approve"  # decide on plans
    SAMPLES = "samples"  # see records of plans, which are personal data


@dataclass(frozen=True, slots=True)
class Token:
    """A machine's leave to use the API. Times are seconds since the epoch; `used_at` is right to the hour.

    `syncs` are selectors (a name, a glob, `tag:`, `destination:`, `owner:`); none means every sync.
    """

    id: str
    name: str
    scopes: frozenset[Scope]
    syncs: tuple[str, ...]
    created_at: float
    created_by: str
    expires_at: float
    used_at: float | None = None
    revoked_at: float | None = None

    @property
    def actor(self) -> str:
        """Its name in the audit log."""
        return f"token:{self.name}"

    def valid(self, now: float) -> bool:
        """Is it neither revoked nor expired."""
        return self.revoked_at is None and now < self.expires_at


class Access:
    """The tokens of one ledger, and what was asked for by them."""

    def __init__(self, database: Database, record: Callable[[sa.Connection, Iterable[Event]], None]) -> None:
        self._db, self._record = database, record

    def tokens(self) -> list[Token]:
        """All of them, those that are over too, by name."""
        query = select(tables.token).order_by(_token.name)
        with self._db.read() as connection:
            return [_read(row) for row in connection.execute(query)]

    def usable(self) -> bool:
        """Is there a token that anybody can use."""
        query = select(_token.id).where(_token.revoked_at.is_(None), _token.expires_at > NOW).limit(1)
        with self._db.read() as connection:
            return connection.execute(query).first() is not None

    @durable
    def create(
        self, name: str, scopes: Iterable[Scope], *, syncs: Sequence[str] = (), ttl: float, actor: str
    ) -> tuple[Token, str]:
        """Make a token that is good for `ttl` seconds; the text is given once and never kept.

        Raises `UsageError` (HG812) where the name is none, or was ever used.
        """
        if not _NAME.fullmatch(name):
            fix = "use letters, digits, `.`, `_` and `-`, at most 64 of them"
            raise UsageError(f"`{name}` is no name for a token", code="HG812", fix=fix)
        id, secret = secrets.token_hex(4), secrets.token_urlsafe(32)
        with self._db.write() as connection:
            now = float(connection.execute(select(NOW)).scalar_one())
            token = Token(id, name, frozenset(scopes), tuple(syncs), now, actor, now + ttl)
            put = upsert(tables.token).values(hash=_hash(secret), **rows.values(token)).on_conflict_do_nothing()
            if not connection.execute(put).rowcount:
                raise UsageError(
                    f"there is, or was, a token `{name}`",
                    code="HG812",
                    fix="take another name: the audit log knows tokens by theirs",
                )
            data = {"scopes": sorted(token.scopes), "syncs": list(token.syncs), "expires_at": token.expires_at}
            self._record(connection, [Event(actor, "token.created", name, data)])
        return token, f"hg_{id}_{secret}"

    @durable
    def revoke(self, name: str, *, actor: str, reason: str) -> Token:
        """End a token at once. Raises `UsageError` (HG812) where there is none, or it is revoked already."""
        with self._db.write() as connection:
            move = update(tables.token).where(_token.name == name, _token.revoked_at.is_(None))
            if not connection.execute(move.values(revoked_at=NOW)).rowcount:
                fix = "`headgate token list` shows those there are"
                raise UsageError(f"there is no token `{name}` to revoke", code="HG812", fix=fix)
            self._record(connection, [Event(actor, "token.revoked", name, {"reason": reason})])
            return _read(connection.execute(select(tables.token).where(_token.name == name)).one())

    def known(self, text: str) -> Token | None:
        """The valid token that has this text; None for every other text, without saying why."""
        match = _TOKEN.fullmatch(text)
        query = select(tables.token, NOW.label("now")).where(_token.id == (match[1] if match else ""))
        with self._db.read() as connection:
            row = connection.execute(query).first()
        given = _hash(match[2] if match else text)
        if not hmac.compare_digest(given, row.hash if row is not None else "0" * 64) or row is None:
            return None
        token = _read(row)
        if not token.valid(row.now):
            return None
        if token.used_at is None or row.now - token.used_at > _COARSE:
            self.touch(token.id)
        return token

    @durable
    def touch(self, id: str) -> None:
        """Keep that a token is used now."""
        with self._db.write() as connection:
            connection.execute(update(tables.token).where(_token.id == id).values(used_at=NOW))

    @durable
    def ask(self, token: Token, request: RunRequest, event: Event, key: str = "", digest: str = "") -> RunRequest:
        """Keep a request; with a `key` that this token used within `KEY_KEPT`, give the request of then.

        `digest` is of what is asked for. Raises `StateError` (HG807) where the key was used for something else.
        """
        with self._db.write() as connection:
            if key:
                connection.execute(delete(tables.idempotency_key).where(_keyed.at < NOW - KEY_KEPT))
                used = select(tables.idempotency_key).where(_keyed.token == token.id, _keyed.key == key)
                before = connection.execute(used).first()
                if before is not None:
                    return _same(connection, before, digest)
                kept = {"token": token.id, "key": key, "digest": digest, "sync": request.sync}
                connection.execute(insert(tables.idempotency_key).values(**kept, slot=request.slot, at=NOW))
            connection.execute(insert(tables.run_request).values(rows.values(request)))
            self._record(connection, [event])
        return request


def _same(connection: sa.Connection, before: sa.Row[tuple[str, ...]], digest: str) -> RunRequest:
    if before.digest != digest:
        raise StateError(
            "the idempotency key was used for another request",
            code="HG807",
            fix="take a new key for each thing that is asked for",
        )
    table = tables.run_request
    found = select(table).where(table.c.sync == before.sync, table.c.slot == before.slot)
    row = connection.execute(found).first()
    if row is not None:
        return rows.request(row)
    return RunRequest(before.sync, before.slot, "api", "", before.at, taken_at=before.at)  # pruned since


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _read(row: sa.Row[tuple[str, ...]]) -> Token:
    plain = {name: value for name, value in row._mapping.items() if name not in ("hash", "now")}
    plain["scopes"] = frozenset(Scope(scope) for scope in json.loads(plain["scopes"]))
    return Token(**plain | {"syncs": tuple(json.loads(plain["syncs"]))})
