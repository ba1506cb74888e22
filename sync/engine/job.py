"""What the engine is given to run one sync: the mapping bound to its source, destination and limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sync.mapping import Cohort, Sync
from sync.sdk.connector import Connector
from sync.sdk.nouns import Limits, ObjectSpec, Op
from sync.sources.base import Source

__all__ = [
    "DeliverySettings",
    "EngineSettings",
    "GuardrailLimits",
    "LogTarget",
    "RetentionSettings",
    "SyncJob",
    "place_of",
]


@dataclass(frozen=True, slots=True)
class GuardrailLimits:
    """The limits a plan is judged by: the defaults of config.toml, tightened by the mapping."""

    max_removed: int = 1000
    max_removed_pct: float = 5.0
    small_removal: int = 25  # below so many removals no share is judged
    max_removed_pct_7d: float = 15.0
    max_added_pct: float = 50.0
    hold_additions: bool = False
    max_nulled_pct: float = 10.0
    max_bad_keys: int = 0
    warn_rejected_pct: float = 5.0
    stop_rejected_pct: float = 20.0
    allow_irreversible: frozenset[Op] = frozenset()
    approvers: frozenset[str] = frozenset()  # empty: anybody
    four_eyes: bool = False


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How requests are made. Times are in seconds."""

    request_timeout: float = 15.0  # hard limit of one request, from first byte to last
    attempts: int = 5  # tries of one batch while the destination is unavailable
    backoff_first: float = 0.5
    backoff_max: float = 30.0
    rate_limited_for: float = 900.0  # how long in all a batch waits on 429 before the run gives up
    job_wait: float = 600.0  # how long a run waits for jobs before it leaves them to the next


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How long what is over is kept, in seconds."""

    unchanged: float = 7 * 86400.0  # runs that had nothing to do, refreshes, requests
    runs: float = 400 * 86400.0  # all other runs, with their receipts, plans and decisions
    plans: float = 90 * 86400.0  # files of plans, and copies of rejected records
    members: float = 90 * 86400.0  # earlier generations


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Where the engine keeps its files, and how much of the machine it may use."""

    folder: Path  # the state folder: plans/, members/, rejected/, tmp/
    memory_limit: str = "128MB"  # DuckDB's; it spills past it
    threads: int = 2
    expire_after: float = 86400.0  # a plan, in seconds
    lease_ttl: float = 30.0
    keys: tuple[bytes, ...] = field(default=(), repr=False)  # of the state files: the first encrypts, all decrypt
    delivery: DeliverySettings = field(default_factory=DeliverySettings)
    retention: RetentionSettings = field(default_factory=RetentionSettings)
    sources: Mapping[str, Callable[[], Source]] = field(default_factory=dict, repr=False)  # that keep members


@dataclass(frozen=True, slots=True)
class LogTarget:
    """Where a sync is logged to: a schema of a source."""

    source: str
    schema: str
    keep: float | None = None  # seconds that a run stays there after its end; None: for ever


@dataclass(frozen=True, slots=True)
class SyncJob:
    """One sync, ready to run.

    `source` and `connect` open connections, so they are called late; both raise a `HeadgateError` that says
    what is missing. `connect` is given what the client calls before each request it sends (pacing and the send
    guard are the engine's; it says when the request has to be over), and returns a connector whose client is
    authenticated, timed out and classified.
    """

    name: str
    cohort: Cohort
    sync: Sync
    destination: str
    spec: ObjectSpec
    limits: Limits  # the object's, tightened by config and mapping
    account: str  # whose quota requests count against
    guardrails: GuardrailLimits
    mapping_digest: str  # of everything in the mapping that decides what is sent
    author: str  # who last changed the mapping, as git has it; empty where unknown
    source: Callable[[], Source]
    connect: Callable[[Callable[[], float | None]], Connector[Any]]
    log: LogTarget | None = None
    sources: Mapping[str, Callable[[], Source]] = field(default_factory=dict)  # by name, all that config.toml has
    place: str = ""  # SOURCE/SCHEMA of the warehouse that keeps the members; empty: the state folder


def place_of(source: str, schema: str) -> str:
    """How the ledger names a schema of a warehouse that keeps members."""
    return f"{source}/{schema}"
