"""What a connector says of the kinds of thing it writes: frozen data, no I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Delivery", "Field", "Limits", "ObjectSpec", "Op", "Order", "Rate"]


class Op(StrEnum):
    """What happens to one member."""

    ADD = "add"
    UPDATE = "update"
    REMOVE = "remove"


class Delivery(StrEnum):
    """What an object wants to be given."""

    DELTA = "delta"  # the changes
    SNAPSHOT = "snapshot"  # every member, whenever there is any change


class Order(StrEnum):
    """Which ops of a plan are sent first; the second kind waits until the first is done."""

    REMOVALS_LAST = "removals_last"
    REMOVALS_FIRST = "removals_first"


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an object, as the destination names it."""

    name: str
    type: str = "string"  # string, integer, number, boolean, date, timestamp, json
    required: bool = False
    identifier: bool = False
    normalise: str | None = None  # a named transform, applied by the engine before the diff
    hash: str | None = None  # sha256 or md5 in lower-case hex, applied by the engine after `normalise`
    description: str = ""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `requests` in any window of `per` seconds."""

    requests: int
    per: float


@dataclass(frozen=True, slots=True)
class Limits:
    """What the destination takes at once. The engine never exceeds it."""

    batch_size: int | None = None  # records in a batch, or in a whole audience; None: no limit
    batch_bytes: int | None = None  # JSON bytes of the records of a batch; None: no limit
    concurrency: int = 1  # requests at the same time
    rates: tuple[Rate, ...] = ()
    mixed_ops: bool = False  # may a batch hold more than one op


@dataclass(frozen=True, slots=True)
class ObjectSpec:
    """The kind of thing a connector writes, and what the platform promises about it."""

    name: str
    title: str
    ops: frozenset[Op]
    fields: tuple[Field, ...] = ()
    limits: Limits = field(default_factory=Limits)
    delivery: Delivery = Delivery.DELTA
    audience: bool = True  # is there a named audience that the members belong to
    idempotent: bool = True  # the same batch sent twice has the effect of one
    irreversible: frozenset[Op] = frozenset()
    order: Order = Order.REMOVALS_LAST
    open_fields: bool = False  # does it take fields that `fields` does not name
    readable: bool = True  # can a connector that reads audiences read this one

    @property
    def identifiers(self) -> tuple[Field, ...]:
        """The fields that say whom a change is about."""
        return tuple(f for f in self.fields if f.identifier)
