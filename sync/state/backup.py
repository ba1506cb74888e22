"""Backups: the ledger as it is at one moment, and the files that it names then, in one archive.

The archive is a ZIP: Parquet files as they are (encrypted ones stay encrypted), the ledger, the keys of the state
folder, and last `manifest.json` with the SHA-256 and length of each. Whoever works meanwhile is not kept waiting:
the ledger is copied by SQLite's own backup, and what it names is immutable.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import zipfile
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from sync.errors import Corrupt, StateError
from sync.faultpoints import reached
from sync.state.members import publish
from sync.state.schema import HEAD

__all__ = ["Manifest", "back_up", "extract", "read_backup"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_LEDGER = "ledger.db"
_NAME = re.compile(r"ledger\.db|[a-z]+\.(key|pub|notes)|(members|plans|rejected)/[^/\\\0]+/[^/\\\0]+\.parquet")
_CHUNK = 1 << 20
_TRIES = 3

_NAMED = """
    SELECT 'members/' || sync || '/' || base FROM generation WHERE base IS NOT NULL AND place = ''
    UNION SELECT 'members/' || sync || '/' || delta FROM generation WHERE delta IS NOT NULL AND place = ''
    UNION SELECT file FROM plan WHERE file <> ''
    UNION SELECT 'rejected/' || sync || '/' || id || '.parquet' FROM run
"""
_PLACES = "SELECT DISTINCT place FROM generation WHERE place <> '' ORDER BY place"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an archive has. `made_at` is in seconds since the epoch; `files` has name -> `SHA-256:length`.

    `elsewhere` are places in warehouses that keep members: these are not in the archive.
    """

    made_at: float
    schema: str
    files: dict[str, str]
    elsewhere: tuple[str, ...] = ()
    format: int = _FORMAT


def back_up(folder: Path, target: Path, at: float) -> Manifest:
    """Write the state of `folder` to the new file `target`, which shows when it is whole.

    Raises `StateError` HG347 where the file cannot be written, and `Corrupt` where the ledger is damaged.
    """
    temporary = target.with_name(f".{target.name}-{os.getpid()}.tmp")
    copy = target.with_name(f".{target.name}-{os.getpid()}-ledger.tmp")
    try:
        for left in target.parent.glob(f".{target.name}-*.tmp"):  # by a crash
            left.unlink(missing_ok=True)
        for attempt in range(_TRIES):
            try:
                manifest = _written(folder, temporary, copy, at)
                break
            except FileNotFoundError:  # rewritten or deleted since: the ledger names others by now
                if attempt == _TRIES - 1:
                    raise
        publish(temporary, target)
    except OSError as error:
        raise StateError(
            f"the backup {target} could not be written: {(error.strerror or 'the disk failed').lower()}",
            code="HG347",
            fix="name a file in a folder that is there and has room; nothing was changed",
        ) from error
    finally:
        for path in (temporary, copy):
            with suppress(OSError):
                path.unlink(missing_ok=True)
    return manifest


def _written(folder: Path, temporary: Path, copy: Path, at: float) -> Manifest:
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    _copy_ledger(folder / _LEDGER, copy)
    reached("backup.snapshot")
    names, places = _named(copy)
    sources = {name: folder / name for name in names if (folder / name).is_file()}
    sources |= {path.name: path for path in sorted(folder.glob("*.*")) if _NAME.fullmatch(path.name)}
    sources[_LEDGER] = copy
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w+b") as raw, zipfile.ZipFile(raw, "w", zipfile.ZIP_STORED) as archive:
        files = {name: _packed(archive, name, path) for name, path in sorted(sources.items())}
        manifest = Manifest(at, HEAD, files, tuple(places))
        archive.writestr(_MANIFEST, json.dumps(asdict(manifest), indent=1))
    reached("backup.written")
    return manifest


def _copy_ledger(ledger: Path, copy: Path) -> None:
    """All pages in one step: those of one moment, whoever writes meanwhile."""
    try:
        with closing(sqlite3.connect(ledger, timeout=30.0)) as live, closing(sqlite3.connect(copy)) as still:
            live.backup(still, pages=-1)
            still.execute("PRAGMA journal_mode = DELETE")  # one file, without a log beside it
            found = still.execute("PRAGMA quick_check(1)").fetchall()
    except sqlite3.DatabaseError as error:
        raise _damaged(ledger) from error
    if found != [("ok",)]:
        raise _damaged(ledger)


def _damaged(ledger: Path) -> Corrupt:
    return Corrupt(
        f"the ledger {ledger} cannot be read whole: there is nothing sound to back up",
        code="HG315",
        fix="stop every headgate process and restore the newest backup",
    )


def _named(ledger: Path) -> tuple[list[str], list[str]]:
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        names = [row[0] for row in connection.execute(_NAMED) if _NAME.fullmatch(row[0])]
        return names, [row[0] for row in connection.execute(_PLACES)]


def _packed(archive: zipfile.ZipFile, name: str, path: Path) -> str:
    """Add a file; only the ledger is worth packing tight, Parquet is already."""
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = zipfile.ZIP_DEFLATED if name == _LEDGER else zipfile.ZIP_STORED
    with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        return _through(source, target)


def _through(source: IO[bytes], target: IO[bytes] | None) -> str:
    """Copy to the end; returns `SHA-256:length`."""
    digest, length = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        length += len(chunk)
        if target is not None:
            target.write(chunk)
    return f"{digest.hexdigest()}:{length}"


# --- reading ---------------------------------------------------------------------------------------------------


def read_backup(path: Path) -> Manifest:
    """Read a whole archive and check every byte of it. Raises `StateError` HG347, and `Corrupt` HG348."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = _manifest(archive)
            if {info.filename for info in archive.infolist()} != {*manifest.files, _MANIFEST}:
                raise _altered(path, "it has other files than its manifest says")
            for name, recorded in manifest.files.items():
                with archive.open(name) as file:
                    if _through(file, None) != recorded:
                        raise _altered(path, f"{name} is not what was backed up")
    except OSError as error:
        raise StateError(
            f"the backup {path} cannot be read: {(error.strerror or 'the disk failed').lower()}",
            code="HG347",
            fix="name a file that `headgate state backup` wrote; nothing was changed",
        ) from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, ValueError, KeyError, TypeError) as error:
        raise _altered(path, "it is not a whole archive") from error
    if manifest.schema > HEAD:
        raise StateError(
            f"the backup {path} was made by a later headgate (schema {manifest.schema}, this one knows {HEAD})",
            code="HG316",
            fix="upgrade headgate; nothing was changed",
        )
    return manifest


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    plain = json.loads(archive.read(_MANIFEST))
    manifest = Manifest(**{**plain, "elsewhere": tuple(plain["elsewhere"])})
    if manifest.format != _FORMAT or _LEDGER not in manifest.files:
        raise ValueError("not of this format")
    if not all(_NAME.fullmatch(name) and ".." not in name.split("/") for name in manifest.files):
        raise ValueError("a name that no state folder has")
    return manifest


def _altered(path: Path, what: str) -> Corrupt:
    return Corrupt(
        f"the backup {path} is damaged: {what}; nothing was changed",
        code="HG348",
        fix="take an older one",
    )


def extract(path: Path, folder: Path, manifest: Manifest) -> Iterator[str]:
    """Write the files of an archive that was read, the ledger as `ledger.db.restored`; yields their names."""
    with zipfile.ZipFile(path) as archive:
        for name, recorded in manifest.files.items():
            final = folder / (f"{name}.restored" if name == _LEDGER else name)
            final.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            temporary = final.with_name(f".{final.name}-{os.getpid()}.tmp")
            with archive.open(name) as source, temporary.open("wb") as target:
                written = _through(source, target)
            if written != recorded:
                raise _altered(path, f"{name} changed while it was read")
            publish(temporary, final)
            yield name
