"""The pulse of a daemon: a file that its main thread writes again and again, for health checks to look at."""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from sync.state.holder import boot, boot_clock, is_over, me

__all__ = ["EVERY", "FRESH", "beat", "since"]

EVERY, FRESH = 5.0, 90.0
"""Seconds between two beats; and since the last one at most, where a locked ledger may be waited for meanwhile."""


def beat(folder: Path) -> None:
    """Say that this process is alive. Raises `OSError`."""
    file = _file(folder)
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = file.with_name(f".{file.name}-{os.getpid()}.tmp")
    draft.write_text(json.dumps({"who": me(), "boot": boot(), "at": boot_clock()}), encoding="utf-8")
    draft.replace(file)  # not synced: after a power loss nobody is alive


def since(folder: Path) -> float | None:
    """Seconds since a daemon of this machine said so; None where none ever did, or it is certainly gone."""
    try:
        said = json.loads(_file(folder).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    if said["boot"] != boot() or is_over(said["who"]):
        return None
    return boot_clock() - float(said["at"])


def _file(folder: Path) -> Path:
    return folder / "pulse" / platform.node().replace("/", "-")
