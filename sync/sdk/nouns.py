"""What a connector is given and what it answers: frozen data, no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sync.sdk.objects import Delivery, Field, Limits, ObjectSpec, Op, Order, Rate

__all__ = [
    "Batch",
    "Change",
    "Delivery",
    "Field",
    "Job",
    "Limits",
    "Member",
    "ObjectSpec",
    "Op",
    "Order",
    "Outcome",
    "Page",
    "Rate",
    "Receipt",
    "Status",
    "Value",
]

Value = Any
"""A wire value: None, bool, int, float, str, or a list or dict of wire values.

Before a connector sees them, dates, times and timestamps became ISO 8601 text (timestamps with a zone in UTC,
ending in `Z`), UUIDs text, blobs Base64 text, intervals ISO 8601 durations, whole decimals integers, other
decimals of up to 15 digits numbers and longer ones text. `Batch.types` has the types they came from.
"""


class Status(StrEnum):
    """What the destination did with one change."""

    APPLIED = "applied"
    ACCEPTED = "accepted"  # the platform decides later
    REJECTED = "rejected"
    DEFERRED = "deferred"  # certainly not applied; try again in a later run
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Change:
    """One op on one member. `identifiers` and `fields` are keyed by the destination's names.

    A removal has identifiers as they were last acknowledged and no fields.
    """

    op: Op
    key: str  # opaque; a receipt repeats it
    identifiers: Mapping[str, Value]
    fields: Mapping[str, Value]
    remote_id: str | None = None  # the platform's own id, from an earlier receipt


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that go to the destination together.

    `id` is the same whenever this batch is sent again: use it as the idempotency key. `types` maps a field to
    the warehouse type its values came from (DuckDB's names).
    """

    id: str
    sync: str
    object: str
    audience: str | None
    changes: Sequence[Change]
    types: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of one change. A rejection says why; what the destination said is evidence.

    The reason of an accepted one is told once a run, and is in the connector's own words: counts of failures
    where the destination does not say whose they are, for example.
    """

    key: str
    status: Status
    reason: str = ""
    remote_id: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """Work the platform finishes later. Plain data: it survives a restart as JSON.

    `settled` has the receipts that are already known; a poll never asks about those again. `poll_after` is in
    seconds from now.
    """

    id: str
    data: Mapping[str, Value] = field(default_factory=dict)
    settled: tuple[Receipt, ...] = ()
    poll_after: float = 5.0


Outcome = Iterable[Receipt] | Job


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody who is in an audience, as the platform has them; `identifiers` may lack what it does not know."""

    identifiers: Mapping[str, Value]
    remote_id: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some members of an audience. `next` is what the page after it is asked for with; None: there is none."""

    members: Sequence[Member]
    next: str | None = None
