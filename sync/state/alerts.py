"""The ledger's nouns of alerts: what people believe of a condition, and what they are still to be told.

Times are seconds since the epoch, UTC, but for those that say otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sync.conditions import Condition

__all__ = ["Alert", "AlertMessage", "MessageKind", "Mute", "Telling"]


class MessageKind(StrEnum):
    """What a message tells of an alert."""

    OPENED = "opened"
    REMINDER = "reminder"  # it is still open
    CHANGED = "changed"  # it is open, and of something else than what people were told of
    RECOVERED = "recovered"
    FLAPPING = "flapping"  # it changes so often that only the end of that is told
    SETTLED = "settled"  # it does not any more


@dataclass(frozen=True, slots=True)
class Alert:
    """A condition of one subject: of a sync, a `cohort:NAME` or a `destination:NAME`.

    `facts` are counts, codes and names of ours, and nothing of a person.
    """

    subject: str
    condition: Condition
    number: int = 0  # how often it was written
    open: bool = False
    since: float = 0.0  # when it last opened or closed
    told: tuple[str, ...] = ()  # the notifiers that were told that it is open, and not yet that it is over
    told_at: float = 0.0
    flapping: bool = False
    changes: tuple[float, ...] = ()  # when it opened or closed within the last hour
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Names this version of it: messages of one change have the same, whoever sends them."""
        return hashlib.sha256(f"{self.subject}\n{self.condition}\n{self.number}".encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Telling:
    """That some notifiers are to be told of an alert; `since` is when what they are told of began."""

    kind: MessageKind
    targets: frozenset[str]
    since: float


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A message that one notifier is to take, or took."""

    seq: int
    id: str  # the alert's, as it was then
    target: str  # the notifier's name
    subject: str
    condition: Condition
    kind: MessageKind
    at: float
    since: float
    facts: Mapping[str, Any] = field(default_factory=dict)
    attempts: int = 0
    problem: str = ""  # why the last attempt failed
    sent_at: float | None = None
    gave_up_at: float | None = None

    @property
    def key(self) -> str:
        """Names what it is about: all messages of one condition of one subject have the same."""
        return hashlib.sha256(f"{self.subject}\n{self.condition}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Mute:
    """Nobody is told of a subject for a while; `condition` is empty where all of its are meant."""

    subject: str
    condition: str
    until: float
    reason: str
    actor: str
    at: float
