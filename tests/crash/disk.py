"""Small disks: a tmpfs mounted over a folder where that is allowed, or else a limit of a file's size."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Disk]:
    """A disk of so many KiB in the folder's place, with its content. Skips where none can be mounted."""
    folder.parent.mkdir(exist_ok=True, mode=0o700)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    moved = folder.with_name(f"{folder.name}-before")
    folder.rename(moved)
    folder.mkdir()
    made = _mount("-t", "tmpfs", "-o", f"size={kib}k,mode=700", "none", str(folder))
    if made.returncode:
        folder.rmdir()
        moved.rename(folder)
        pytest.skip(f"no disk can be mounted here: {made.stderr.strip()}")
    try:
        subprocess.run(["cp", "-a", f"{moved}/.", str(folder)], check=True)
        yield Disk(folder)
    finally:
        # A process that ends late may still stand in it: then it goes when that process does.
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        with contextlib.suppress(OSError):
            folder.rmdir()
            moved.rename(folder)


class Disk:
    """A mounted one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def fill(self, leave: int = 0) -> None:
        """Take all the space but so many bytes."""
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        with contextlib.suppress(OSError), self._filler.open("ab", buffering=0) as file:
            while file.write(bytes(1 << 9)):
                pass
        if leave:
            with self._filler.open("r+b") as file:
                file.truncate(max(0, self._filler.stat().st_size - leave))

    def free(self) -> None:
        """Give the space back, and more of it."""
        self._filler.unlink(missing_ok=True)
        _mount("-o", "remount,size=128m", str(self.folder))


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)


def no_file_larger(pid: int, size: int) -> None:
    """From now on no file of that process grows past so many bytes; other files are as they were."""
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, size))
