"""What a daemon leaves for others to see while it refuses changed files and goes on with those of before."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sync.state.holder import describe, is_over, me

__all__ = ["Refusal"]

_FILE = "refused.json"
_MOST = 10


@dataclass(frozen=True, slots=True)
class Refusal:
    """Who refused the files, when (seconds since the epoch), and why: at most ten sentences of `count`."""

    holder: str
    at: float
    why: tuple[str, ...]
    count: int

    @property
    def who(self) -> str:
        """The daemon, for messages: `process 1234 on host x`."""
        return describe(self.holder)

    @classmethod
    def write(cls, folder: Path, at: float, why: Iterable[str]) -> None:
        """Leave word in the state folder. Raises `OSError`."""
        sentences = list(why)
        data = {"holder": me(), "at": at, "why": sentences[:_MOST], "count": len(sentences)}
        draft = folder / f"{_FILE}.{os.getpid()}"
        draft.write_text(json.dumps(data))
        draft.replace(folder / _FILE)

    @classmethod
    def withdraw(cls, folder: Path) -> None:
        """The files are those in force again. Raises `OSError`."""
        (folder / _FILE).unlink(missing_ok=True)

    @classmethod
    def read(cls, folder: Path) -> Refusal | None:
        """The refusal of a daemon that is not known to be gone."""
        try:
            data = json.loads((folder / _FILE).read_bytes())
            why = tuple(map(str, data["why"]))
            found = cls(str(data["holder"]), float(data["at"]), why, int(data["count"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if is_over(found.holder) else found
