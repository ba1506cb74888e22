"""What the served pages look at: the ledger, and the syncs as the daemon has them in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync.engine.job import EngineSettings, SyncJob
from sync.state.access import Access
from sync.state.base import State

if TYPE_CHECKING:
    from sync.telemetry.metrics import Metrics
    from sync.telemetry.vitals import Vitals

__all__ = ["Site"]


def _nobody_hears(*_: object) -> tuple[int, str, tuple[str, ...]]:
    return 404, "there is no such webhook", ()


@dataclass(frozen=True, slots=True)
class Site:
    """One project that is served.

    `jobs` gives its syncs by name; `hosts` are names it may be called by besides addresses and `localhost`;
    `hear` judges an event that came to a webhook (its name, the signature, the body): a status, a sentence, and
    the syncs that heard of it.
    """

    state: State
    access: Access
    engine: EngineSettings
    jobs: Callable[[], Mapping[str, SyncJob]]
    hosts: tuple[str, ...] = ()
    hear: Callable[[str, str, bytes], tuple[int, str, tuple[str, ...]]] = _nobody_hears
    vitals: Vitals | None = None  # of the daemon that serves it
    metrics: Metrics | None = None
    open_metrics: bool = False  # to whoever has no token
