"""Where files are published: a file appears under its name only when all of it is there.

Each kind of folder has `check`, which raises `AuthError` or `Unavailable` where files cannot be written, and
`published`, which gives a file to write; it is published where the block ends well, and never where it does not.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from sync.errors import AuthError, Unavailable

__all__ = ["Folder", "LocalFolder", "spooled"]

_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS}
_IN_MEMORY = 16 * 1024 * 1024  # bytes of a file that is on its way elsewhere; a larger one goes to the disk


class Folder(Protocol):
    """A place for files."""

    def check(self) -> None:
        """Prove that files can be written, or come as near to that as reading does."""

    def published(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """A file that appears under `name`, in place of one that is there."""


@contextlib.contextmanager
def spooled(send: Callable[[IO[bytes]], None]) -> Iterator[IO[bytes]]:
    """A file to write that `send` is given, from its beginning, where the block ends well; `send` raises
    `DestinationError` and nothing else.

    What does not fit into memory is on the disk without a name, so that nothing of it is left behind by a crash.
    """
    try:
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY) as out:
            yield out
            out.seek(0)
            send(out)
    except OSError as error:  # also of closing it: what was not written yet
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        fix = f"make room in {tempfile.gettempdir()}, where a file is before it is sent"
        raise Unavailable(f"cannot write a temporary file: {reason}", applied=False, fix=fix) from error


@dataclass(frozen=True, slots=True)
class LocalFolder:
    """A folder of this machine, which has to exist: it may be a mount. Its files are their owner's alone."""

    path: Path

    def check(self) -> None:
        """Write and remove an empty file; raise `AuthError` where the folder is not writable."""
        with _errors(self.path), tempfile.TemporaryFile(dir=self.path):
            pass

    @contextlib.contextmanager
    def published(self, name: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name, mode 0600, when everything in it is on the disk."""
        with _errors(self.path):
            for stale in self.path.glob(f".{name}.*.part"):  # of an attempt that was cut short
                stale.unlink(missing_ok=True)
            handle, aside = tempfile.mkstemp(dir=self.path, prefix=f".{name}.", suffix=".part")
            part = Path(aside)
            try:
                with os.fdopen(handle, "wb", buffering=1 << 20) as out:
                    yield out
                    out.flush()
                    os.fsync(out.fileno())
                part.replace(self.path / name)
            finally:
                part.unlink(missing_ok=True)
        with _errors(self.path, applied=None):
            _sync_folder(self.path)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the file system offers that for folders."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


@contextlib.contextmanager
def _errors(folder: Path, *, applied: bool | None = False) -> Iterator[None]:
    """What a failing folder means to the engine; `applied` as in `Unavailable`."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else type(error).__name__
        if error.errno in _REFUSED:
            fix = "let the user that runs Headgate write there"
            raise AuthError(f"cannot write to the folder {folder}: {reason}", fix=fix) from error
        hint = "; make it, or mount it" if error.errno in (errno.ENOENT, errno.ENOTDIR) else ""
        raise Unavailable(f"cannot write to the folder {folder}: {reason}{hint}", applied=applied) from error
