"""What the served pages look at: the ledger, and the syncs as the daemon has them in force."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sync.engine.job import EngineSettings, SyncJob
from sync.state.access import Access
from sync.state.base import State

__all__ = ["Site"]


@dataclass(frozen=True, slots=True)
class Site:
    """One project that is served.

    `jobs` gives its syncs by name; `hosts` are names it may be called by besides addresses and `localhost`.
    """

    state: State
    access: Access
    engine: EngineSettings
    jobs: Callable[[], Mapping[str, SyncJob]]
    hosts: tuple[str, ...] = ()
