"""Members: what a destination has acknowledged, as immutable Parquet generations of a base and a delta over it.

A row has

    key            DECIMAL(38,0)  digest of the identifiers
    fingerprint    UBIGINT        hash of the mapped fields as last acknowledged
    nulls          VARCHAR        names of the fields that were null, joined by the unit separator
    source_key     VARCHAR        the cohort's key
    remote_id      VARCHAR        the platform's own id, where a receipt told it
    first_refresh, first_at       since when it is a member
    last_refresh, last_at         when it last changed
    id.NAME                       the identifiers as last acknowledged, to remove somebody who is gone

and in a delta also `removed`. A delta replaces the base's row with the same key. Files are written aside, synced
and renamed; the ledger names the current generation by compare-and-set, so a crash leaves orphans and no damage.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from sync.errors import Corrupt, StateError
from sync.faultpoints import reached
from sync.state.nouns import Generation
from sync.state.parquet import source, write

if TYPE_CHECKING:
    import duckdb

__all__ = [
    "COMPACT_AT",
    "collect_orphans",
    "digest_file",
    "fold",
    "folder_of",
    "publish",
    "relation",
    "scratch",
    "verify",
]

COMPACT_AT = 0.1
"""A delta that passes this share of the base is merged into a new base."""

_EMPTY = (
    "SELECT NULL::DECIMAL(38,0) AS key, NULL::UBIGINT AS fingerprint, NULL::VARCHAR AS nulls, "
    "NULL::VARCHAR AS source_key, NULL::VARCHAR AS remote_id, NULL::VARCHAR AS first_refresh, "
    "NULL::DOUBLE AS first_at, NULL::VARCHAR AS last_refresh, NULL::DOUBLE AS last_at"
)


def folder_of(state: Path, sync: str) -> Path:
    """Where a sync's generations are; made on first use, for the owner only."""
    folder = state / "members" / sync
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def relation(
    connection: duckdb.DuckDBPyConnection, folder: Path, generation: Generation, identifiers: Iterable[str] = ()
) -> str:
    """A SELECT of the generation's members; `identifiers` are there even if no file has them.

    Raises `StateError` where a file is encrypted with a key that the connection does not have.
    """
    empty = _EMPTY + "".join(f', NULL AS "id.{_quoted(name)}"' for name in identifiers) + " WHERE false"
    if generation.base is None and generation.delta is None:
        return empty
    base = source(connection, folder / generation.base) if generation.base else ""
    delta = source(connection, folder / generation.delta) if generation.delta else ""
    if generation.delta is None:
        members = f"SELECT * FROM {base}"
    elif generation.base is None:
        members = f"SELECT * EXCLUDE (removed) FROM {delta} WHERE NOT removed"
    else:
        members = (
            f"SELECT b.* FROM {base} b ANTI JOIN {delta} d ON b.key = d.key "
            f"UNION ALL BY NAME SELECT * EXCLUDE (removed) FROM {delta} WHERE NOT removed"
        )
    wanted = [f"id.{name}" for name in identifiers]
    return f"SELECT * FROM ({members})" if not wanted else f"{members} UNION ALL BY NAME {empty}"


def verify(folder: Path, generation: Generation) -> None:
    """Check that the generation's files are, byte for byte, what the ledger recorded. Raises `Corrupt`.

    They are read whole every time, at more than a gigabyte a second: a disk that flips a bit changes neither a
    file's length nor its times, and a twentieth of the cost of a scan is little for never sending on a doubt.
    """
    for name in filter(None, (generation.base, generation.delta)):
        path, recorded = folder / name, generation.digests.get(name, "")
        try:
            whole = path.stat().st_size == int(recorded.partition(":")[2]) and digest_file(path) == recorded
        except (OSError, ValueError):
            whole = False
        if not whole:
            raise Corrupt(
                f"members file {name} of '{generation.sync}' is missing or was altered; "
                "nothing is sent on a doubt",
                fix="restore the state folder from a backup, or start again: headgate state reset "
                f"{generation.sync} --members {generation.members} --reason ...",
            )


def fold(
    connection: duckdb.DuckDBPyConnection,
    folder: Path,
    before: Generation,
    after: Generation,
    changed: str,
    identifiers: Iterable[str],
) -> Generation:
    """Write the next generation: `before` with the rows of the SELECT `changed`, and return it with its files.

    `changed` has the columns of a delta. `after` says everything about the generation but its files and members.
    Raises `Corrupt` where a file of `before` is damaged: it must not become part of a sound one.
    """
    verify(folder, before)
    names = list(identifiers)
    first = before.base is None and before.delta is None
    kind = "VIEW" if first else "TABLE"  # a first load is read twice rather than held in memory
    connection.execute(f"CREATE OR REPLACE TEMP {kind} folded AS {changed}")
    (changes,) = connection.execute("SELECT count(*) FROM folded").fetchall()[0]
    if not changes:
        return replace(after, base=before.base, delta=before.delta, members=before.members, digests=before.digests)
    old_delta = source(connection, folder / before.delta) if before.delta else None
    delta = "SELECT * FROM folded" + (
        f" UNION ALL BY NAME SELECT d.* FROM {old_delta} d ANTI JOIN folded f ON d.key = f.key"
        if old_delta
        else ""
    )
    base_rows = _rows(connection, folder, before.base)
    delta_rows = changes + (_rows(connection, folder, before.delta) if before.delta else 0)
    if base_rows == 0 or delta_rows > base_rows * COMPACT_AT:
        current = relation(connection, folder, before, names)
        kept = f"SELECT c.* FROM ({current}) c ANTI JOIN folded f ON c.key = f.key UNION ALL BY NAME "
        whole = f"{'' if first else kept}SELECT * EXCLUDE (removed) FROM folded WHERE NOT removed"
        made = replace(after, base=_write(connection, folder, f"base-{after.number}", whole), delta=None)
    else:
        made = replace(after, base=before.base, delta=_write(connection, folder, f"delta-{after.number}", delta))
    files = [name for name in (made.base, made.delta) if name is not None]
    same = {name: before.digests[name] for name in files if name in before.digests}
    fresh = {name: digest_file(folder / name) for name in files if name not in same}
    (members,) = connection.execute(f"SELECT count(*) FROM ({relation(connection, folder, made)})").fetchall()[0]
    return replace(made, members=members, digests={**same, **fresh})


def _write(connection: duckdb.DuckDBPyConnection, folder: Path, stem: str, select: str) -> str:
    """Write a SELECT to a file named by what it is and by its content, and return the name."""
    with scratch(folder) as temporary:
        write(connection, select, temporary)
        name = f"{stem}-{digest_file(temporary)[:8]}.parquet"
        reached("members_file.written")
        publish(temporary, folder / name)
    reached("members_file.named")
    return name


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """A file to write aside, in a folder of one sync whose lease is held; what is left of it is removed.

    So is what a process that was killed left there. Raises `StateError` where the folder cannot be written.
    """
    temporary = folder / f".{os.getpid()}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        yield temporary
    except OSError as error:
        raise StateError(
            f"a file in {folder} could not be written: {(error.strerror or 'the disk failed').lower()}",
            code="HG341",
            fix="check free space and permissions of the state folder, then run again",
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def publish(temporary: Path, final: Path) -> None:
    """Make a written file durable and give it its name: file synced, renamed, folder synced."""
    temporary.chmod(0o600)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(final)
    folder = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def digest_file(path: Path) -> str:
    """SHA-256 of a file in hex, and its length in bytes, joined by a colon."""
    with path.open("rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}:{path.stat().st_size}"


def collect_orphans(folder: Path, generations: Iterable[Generation]) -> int:
    """Remove temporary files, and generations that no ledger row names, as a crash leaves them."""
    named = {name for generation in generations for name in (generation.base, generation.delta)}
    orphans = [p for p in folder.iterdir() if p.is_file() and p.name not in named]
    for path in orphans:
        path.unlink(missing_ok=True)
    return len(orphans)


def _rows(connection: duckdb.DuckDBPyConnection, folder: Path, name: str | None) -> int:
    if name is None:
        return 0
    (rows,) = connection.execute(f"SELECT count(*) FROM {source(connection, folder / name)}").fetchall()[0]
    return int(rows)


def _quoted(name: str) -> str:
    return name.replace('"', '""')
