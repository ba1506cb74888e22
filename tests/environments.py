"""Environments with libraries that do not go together with ours, made once and kept in pytest's cache."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

__all__ = ["alone", "made_environment"]


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Keep the other processes of this run, and of other runs, out until the end."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made_environment(
    config: pytest.Config, name: str, packages: Sequence[str], absent: Callable[[str], NoReturn]
) -> Path:
    """The interpreter of an environment that has the packages; `absent` is told where it cannot be made."""
    cache = Path(config.cache.mkdir(name))  # type: ignore[union-attr]
    wanted = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:8]
    folder = cache / f"py{sys.version_info.minor}-{wanted}"
    python, done = folder / "bin" / "python", folder / "done"
    with alone(cache / "lock"):
        if done.exists():
            return python
        uv = shutil.which("uv")
        if uv is None:
            absent(f"uv is not installed: it makes the environment of {packages[0]}")
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            ["venv", "-q", "--python", sys.executable, str(folder)],
            ["pip", "install", "-q", "--python", str(python), *packages],
        ):
            # The project's own constraints must not reach in, so not from a folder of it.
            made = subprocess.run(
                [uv, *command], capture_output=True, text=True, timeout=170, check=False, cwd=folder.anchor
            )
            if made.returncode:
                absent(f"{packages[0]} cannot be installed: {made.stderr[-300:]}")
        done.touch()
    return python
