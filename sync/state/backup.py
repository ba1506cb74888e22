"""Backups: the ledger as it is at one moment, and the files that it names then, in one archive.

The archive is a ZIP: Parquet files as they are (encrypted ones stay encrypted), the ledger, the keys of the state
folder, and last `manifest.json` with the SHA-256 and length of each. Whoever works meanwhile is not kept waiting:
the ledger is copied by SQLite's own backup, and what it names is immutable.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from sync.errors import Corrupt, StateError
from sync.faultpoints import reached
from sync.state.members import publish
from sync.state.nouns import LIVE_PLANS
from sync.state.schema import HEAD
from sync.state.tables import OPEN_RUN

__all__ = ["Manifest", "back_up", "extract", "read_backup", "refuse_incomplete"]

_FORMAT = 1
_MANIFEST = "manifest.json"
_LEDGER = "ledger.db"
_NAME = re.compile(r"ledger\.db|[a-z]+\.(key|pub|notes)|(members|plans|rejected)/[^/\\\0]+/[^/\\\0]+\.parquet")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NOT_WHOLE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # it says that it is encrypted, or patched
    ValueError,
    KeyError,
    TypeError,
)
"""What an archive with a byte that is not what was written raises somewhere."""
_CHUNK = 1 << 20
_TRIES = 3

_NAMED = """
    SELECT 'members/' || sync || '/' || base FROM generation WHERE base IS NOT NULL AND place = ''
    UNION SELECT 'members/' || sync || '/' || delta FROM generation WHERE delta IS NOT NULL AND place = ''
    UNION SELECT file FROM plan WHERE file <> ''
    UNION SELECT 'rejected/' || sync || '/' || id || '.parquet' FROM run
"""
_LIVE, _OPEN = (", ".join(f"'{status}'" for status in statuses) for statuses in (LIVE_PLANS, OPEN_RUN))
_NEEDED = f"""
    WITH newest AS (SELECT sync, base, delta, place, max(number) FROM generation GROUP BY sync)
    SELECT 'members/' || sync || '/' || base FROM newest WHERE base IS NOT NULL AND place = ''
    UNION SELECT 'members/' || sync || '/' || delta FROM newest WHERE delta IS NOT NULL AND place = ''
    UNION SELECT file FROM plan WHERE file <> '' AND (
        status IN ({_LIVE}) AND expires_at > :at
        OR id IN (SELECT plan FROM run WHERE status IN ({_OPEN}))
    )
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


class _Incomplete(Corrupt):
    """A file without which the ledger is of no use is not there."""


def back_up(folder: Path, target: Path, at: float) -> Manifest:
    """Write the state of `folder` to the new file `target`, which shows when it is whole.

    Raises `StateError` HG347 where the file cannot be written, and `Corrupt` where the ledger is damaged or a file
    that it needs is missing.
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
            except (FileNotFoundError, _Incomplete):  # rewritten or deleted since: the ledger names others by now
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
    names, needed, places = _named(copy, at)
    sources = {name: folder / name for name in names if (folder / name).is_file()}
    for name in sorted(needed - sources.keys()):
        raise _incomplete(folder, name)
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
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _damaged(ledger) from error
        raise OSError(errno.EIO, str(error)) from error  # a full disk, say: the ledger itself is sound
    if found != [("ok",)]:
        raise _damaged(ledger)


def _damaged(ledger: Path) -> Corrupt:
    return Corrupt(
        f"the ledger {ledger} cannot be read whole: there is nothing sound to back up",
        code="HG315",
        fix="stop every headgate process and restore the newest backup",
    )


def _incomplete(folder: Path, name: str) -> _Incomplete:
    """`name` is that of a file of members or of a plan."""
    kind, sync, file = name.split("/")
    mend = f"headgate state reset {sync} --members N --reason ..."
    if kind == "plans":
        mend = f"headgate plan {sync}; or, where a run was interrupted, {mend}"
    return _Incomplete(
        f"{file} of '{sync}' is missing in {folder / kind}, and the ledger needs it: nothing was backed up",
        fix=f"put it back from an earlier backup, or go on without it: {mend}",
    )


def _named(ledger: Path, at: float) -> tuple[set[str], set[str], list[str]]:
    """The files that a ledger names; those of them that it needs at that time, to go on; and places elsewhere.

    It needs the current members, the plans that may be delivered yet, and those of open runs. What else it names
    may have been deleted for its age, or was never there.
    """
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as connection:
        named, needed = (
            {row[0] for row in connection.execute(query, {"at": at}) if _NAME.fullmatch(row[0])}
            for query in (_NAMED, _NEEDED)
        )
        return named, needed, [row[0] for row in connection.execute(_PLACES)]


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
        if error.errno == errno.EINVAL:  # it says that something begins before the file does
            raise _altered(path, "it is not a whole archive") from error
        raise StateError(
            f"the backup {path} cannot be read: {(error.strerror or 'the disk failed').lower()}",
            code="HG347",
            fix="name a file that `headgate state backup` wrote; nothing was changed",
        ) from error
    except _NOT_WHOLE as error:
        raise _altered(path, "it is not a whole archive") from error
    if manifest.schema > HEAD:
        raise StateError(
            f"the backup {path} was made by a later headgate (schema {manifest.schema}, this one knows {HEAD})",
            code="HG316",
            fix="upgrade headgate; nothing was changed",
        )
    return manifest


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    if any(info.compress_type not in _PACKED for info in archive.infolist()):
        raise ValueError("packed as no backup is")  # another unpacker may fail with the error of a disk
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


def refuse_incomplete(path: Path, manifest: Manifest, folder: Path) -> None:
    """Raise `Corrupt` HG348 where an archive that was read lacks a file that its ledger needs.

    The ledger is in `folder` for as long as that is looked at.
    """
    copy = folder / f".{_LEDGER}.tmp"
    try:
        with zipfile.ZipFile(path) as archive, archive.open(_LEDGER) as source, copy.open("wb") as target:
            _through(source, target)
        _, needed, _ = _named(copy, manifest.made_at)
    finally:
        copy.unlink(missing_ok=True)
    for name in sorted(needed - manifest.files.keys()):
        raise _altered(path, f"{name} is not in it, and its ledger needs it")


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
