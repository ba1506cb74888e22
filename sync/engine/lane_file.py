"""Where a lane keeps its numbers: in this process, or in a file that all processes of one state folder share.

A file is a row of doubles, sparse where none was written; one that another boot wrote is begun anew, because its
times are of another clock. It is locked for microseconds at a time. A process frozen in that moment must not stop
the others: after a second they go on without the lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sync.state.holder import boot

__all__ = ["FileCells", "MemoryCells", "lane_path"]

_DOUBLE = struct.Struct("<d")
_PATIENCE = 1.0
_BOOT = 0  # the cell that says which boot's clock the times are of


class MemoryCells:
    """Numbers of this process alone."""

    def __init__(self) -> None:
        self._cells: defaultdict[int, float] = defaultdict(float)
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile."""
        with self._lock:
            yield

    def get(self, cell: int) -> float:
        """A number; 0 where none was put."""
        return self._cells[cell]

    def put(self, cell: int, value: float) -> None:
        """Keep a number."""
        self._cells[cell] = value


class FileCells:
    """Numbers in a file; those that a full disk does not take stay in this process.

    Raises `OSError` where the file cannot be opened or read.
    """

    def __init__(self, path: Path, *, make: bool = True) -> None:
        self._file = -1
        self._unwritten: dict[int, float] = {}
        if make:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT if make else os.O_RDONLY
        self._file = os.open(path, flags | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        if make:
            with self.held():
                self._begin()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    __del__ = close

    @property
    def current(self) -> bool:
        """Are its times of this boot."""
        return self.get(_BOOT) == _this_boot()

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile, unless somebody is frozen with the lock."""
        with self._lock:
            locked = self._flock()
            try:
                yield
            finally:
                if locked:
                    fcntl.flock(self._file, fcntl.LOCK_UN)

    def get(self, cell: int) -> float:
        """A number; 0 where none was put."""
        if cell in self._unwritten:
            return self._unwritten[cell]
        found = os.pread(self._file, _DOUBLE.size, cell * _DOUBLE.size)
        value: float = _DOUBLE.unpack(found)[0] if len(found) == _DOUBLE.size else 0.0
        return value

    def put(self, cell: int, value: float) -> None:
        """Keep a number."""
        try:
            os.pwrite(self._file, _DOUBLE.pack(value), cell * _DOUBLE.size)
        except OSError:
            self._unwritten[cell] = value
        else:
            self._unwritten.pop(cell, None)

    def _begin(self) -> None:
        if not self.current:
            os.ftruncate(self._file, 0)
            self.put(_BOOT, _this_boot())

    def _flock(self) -> bool:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                if time.monotonic() >= until:
                    return False
                time.sleep(0.001)
            else:
                return True


def lane_path(folder: Path, account: str) -> Path:
    """The file of an account's lane in a state folder; its name tells nothing of the account."""
    return folder / "lanes" / f"{hashlib.sha256(account.encode()).hexdigest()[:16]}.lane"


def _this_boot() -> float:
    return float(zlib.crc32(boot().encode()) + 1)
