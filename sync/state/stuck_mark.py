"""A run that showed no sign of life, as the ledger remembers it: one note of a sync, true of one lease's epoch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

__all__ = ["NOTE", "StuckMark"]

NOTE = "stuck"
"""What the ledger calls the note of a sync."""


@dataclass(frozen=True, slots=True)
class StuckMark:
    """The run under the lease of `epoch` has been silent since then (seconds since the epoch), in that step."""

    epoch: int
    since: float
    step: str

    @classmethod
    def read(cls, note: str | None) -> StuckMark | None:
        """What the ledger's note says."""
        return None if note is None else cls(**json.loads(note))

    def text(self) -> str:
        """As the ledger keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))
