"""Keeping forgotten people out: keyed digests of what they would be known by, and SQL that finds them in a cohort.

A text is looked at twice: the fast hash of every row says which may be somebody forgotten, and only of those a
SHA-256 over a secret and the text is made and compared. The secret stands in `forgotten.key`, apart from the
ledger, so that a copy of the ledger alone does not tell whether a given person was forgotten.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sync.engine.compile import PROBE, Compiled
from sync.engine.database import insert
from sync.engine.forms import plain
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.sql import identifier, literal
from sync.errors import Corrupt
from sync.state.base import StateReader
from sync.state.erasures import OPEN_ERASURES, Forgotten

if TYPE_CHECKING:
    import duckdb

__all__ = ["FIELD", "IDENTIFIER", "TOGETHER", "digests", "keep_out", "key_of", "known_by", "secret_of", "together"]

IDENTIFIER, FIELD, TOGETHER = "identifier", "field", "together"
"""What a text was: an identifier; a field that holds an address; all identifiers of a record together."""

_BUCKETS = 1 << 24
_SEPARATOR = "\x1f"


def key_of(cohort: str) -> str:
    """What a text was that is a cohort's own key."""
    return f"key of {cohort}"


def known_by(what: str, value: str) -> str:
    """The text that digests are made of."""
    return f"{what}{_SEPARATOR}{value}"


def together(values: Sequence[str | None]) -> str:
    """Several identifiers as one text, in the order of their names."""
    return _SEPARATOR.join(value or "" for value in values)


def secret_of(folder: Path, *, make: bool = False) -> str:
    """The secret of a state folder; `make` makes it where there is none yet. Empty where there is none."""
    path = folder / "forgotten.key"
    if make:
        for left in folder.glob(f".{path.name}-*.tmp"):  # by a crash
            left.unlink(missing_ok=True)
    if make and not path.exists():
        with contextlib.suppress(FileExistsError):
            _write(path, secrets.token_hex(32))
    return path.read_text().strip() if path.exists() else ""


def _write(path: Path, text: str) -> None:
    """Whole or not at all, for the owner only; the first of two processes wins."""
    aside = path.with_name(f".{path.name}-{os.getpid()}.tmp")
    handle = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
    try:
        os.link(aside, path)
    finally:
        aside.unlink()


def _name(secret: str) -> str:
    return hashlib.sha256(f"headgate forgotten {secret}".encode()).hexdigest()[:16]


def digests(
    connection: duckdb.DuckDBPyConnection, secret: str, texts: Iterable[str], *, sync: str, erasure: str
) -> list[Forgotten]:
    """The texts as the ledger keeps them."""
    wanted = sorted(set(texts))
    ((probe,),) = connection.execute(PROBE).fetchall()
    rows = connection.execute(
        f"SELECT t, (hash(t) % {_BUCKETS})::INTEGER FROM (SELECT unnest(?::VARCHAR[]) AS t)", [wanted]
    ).fetchall()
    return [
        Forgotten(
            sync, hashlib.sha256((secret + text).encode()).hexdigest(), bucket, probe, _name(secret), erasure
        )
        for text, bucket in rows
    ]


def leaving_of(state: StateReader, sync: str) -> list[str]:
    """Keys of the members that an erasure is about to remove."""
    parts = state.erasure_parts(*OPEN_ERASURES, sync=sync)
    return sorted({key for part in parts for key in part.keys})


def keep_out(
    connection: duckdb.DuckDBPyConnection,
    settings: EngineSettings,
    state: StateReader,
    job: SyncJob,
    compiled: Compiled,
) -> str:
    """SQL over the compiled columns that is true of whoever was forgotten; empty where nobody was.

    Fills the temporary table `forgotten`. Raises `Corrupt` where the secret of the digests is gone: then nobody
    can tell who was forgotten, and nothing may be sent.
    """
    known = state.forgotten(job.name)
    if not known:
        return ""
    secret = secret_of(settings.folder)
    if any(one.secret != _name(secret) for one in known):
        raise Corrupt(
            "people were forgotten, and the secret that tells who (forgotten.key) is missing or another",
            code="HG350",
            fix="restore forgotten.key in the state folder from a backup; nothing is sent before that",
        )
    connection.execute("CREATE OR REPLACE TEMP TABLE forgotten (bucket UBIGINT, digest VARCHAR)")
    insert(connection, "forgotten", [(one.bucket, one.digest) for one in known])
    ((probe,),) = connection.execute(PROBE).fetchall()
    fast = all(one.probe == probe for one in known)  # buckets of another hash function tell nothing
    return " OR ".join(_test(text, secret, fast=fast) for text in _texts(job, compiled))


def _texts(job: SyncJob, compiled: Compiled) -> list[str]:
    """SQL of every text that somebody forgotten may be known by."""
    held = {name: plain(f"CAST({identifier(f'id.{name}')} AS VARCHAR)") for name in compiled.identifiers}
    found = [_text(IDENTIFIER, value) for value in held.values()]
    found.append(_text(key_of(job.cohort.name), "source_key"))
    if len(held) > 1:
        values = ", ".join(f"coalesce({held[name]}, '')" for name in sorted(held))
        found.append(_text(TOGETHER, f"concat_ws(chr(31), {values})"))
    private = {mapping.to for mapping in job.sync.fields if mapping.pii}
    texts = [n for n in compiled.fields if n in private and compiled.types[f"field.{n}"] == "VARCHAR"]
    return [*found, *(_text(FIELD, plain(identifier(f"field.{name}"))) for name in texts)]


def _text(what: str, value: str) -> str:
    return f"({literal(what)} || chr(31) || {value})"


def _test(text: str, secret: str, *, fast: bool) -> str:
    digest = f"sha256({literal(secret)} || {text})"
    if fast:
        digest = f"CASE WHEN hash({text}) % {_BUCKETS} IN (SELECT bucket FROM forgotten) THEN {digest} END"
    return f"coalesce({digest} IN (SELECT digest FROM forgotten), false)"
