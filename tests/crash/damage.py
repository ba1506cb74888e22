"""Ways in which a file comes to harm."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

Harm = Callable[[Path], None]


def truncated(path: Path) -> None:
    """Half of it is gone."""
    os.truncate(path, path.stat().st_size // 2)


def emptied(path: Path) -> None:
    """All of it is gone, but its name."""
    os.truncate(path, 0)


def missing(path: Path) -> None:
    """Somebody tidied up."""
    path.unlink()


def flipped(path: Path) -> None:
    """One bit in the middle is another, as a disk does it: neither length nor times tell."""
    flip(path, path.stat().st_size // 2)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Turn one bit round; the file keeps its times."""
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(offset)
        (byte,) = file.read(1)
        file.seek(offset)
        file.write(bytes([byte ^ 1 << bit]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def flips(path: Path, count: int, seed: int) -> list[tuple[int, int]]:
    """Places (offset, bit) in a file, the same for the same seed."""
    place, size = random.Random(seed), path.stat().st_size
    return [(place.randrange(size), place.randrange(8)) for _ in range(count)]


EVERY: list[Harm] = [truncated, emptied, missing, flipped]
