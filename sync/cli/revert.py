"""Which sync a run belongs to that is to be reverted, for `run --revert` and `plan --revert`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sync.errors import DecisionError, UsageError

if TYPE_CHECKING:
    from sync.cli.context import Session
    from sync.engine.job import SyncJob

__all__ = ["job_of"]


def job_of(session: Session, syncs: Sequence[str], run: str) -> SyncJob:
    """The run's sync, which may be named. Raises `UsageError` where another or several are."""
    if len(syncs) > 1:
        raise UsageError("a run is of one sync", fix=f"name that one, or none: --revert {run}")
    if syncs:
        return session.job(syncs[0])
    found = session.ledger.run(run)
    if found is None:
        raise DecisionError(
            f"there is no run '{run}'", code="HG526", fix="name its sync too, to see its newest runs"
        )
    return session.job(found.sync)
