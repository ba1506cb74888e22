"""A platform as a history needs it: what it does with a request that reached it, and everything it ever did.

set         adding twice is adding once; the same request may be answered differently the second time
keyed       remembers the key of every request with its answer, and applies none twice
counting    every request that reaches it counts: the object is declared not idempotent
snapshot    a request is the whole audience
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sync.sdk.nouns import Change, Op, Receipt, Status
from tests.state.simulation.witness import Witness

__all__ = ["Destination", "Moods", "Reply", "Request", "email_of"]

_POISON = 7  # scores that leave this remainder with it are refused for ever
_POISONED = 3


@dataclass(frozen=True)
class Moods:
    """How often a destination refuses what is well, and how it refuses what is not."""

    rejects: float = 0.0  # a record
    defers: float = 0.0
    refuses: float = 0.0  # a request, whole
    poison: bool = False  # are some values refused for ever
    refuses_whole: bool = False  # a request with such a value, rather than the record

    def poisoned(self, fields: dict[str, Any] | Any) -> bool:
        """Is this record refused whenever it is sent."""
        return self.poison and fields.get("score", 0) % _POISON == _POISONED


@dataclass(frozen=True)
class Request:
    """Changes under way together; `ends` is when the client gives the request up."""

    run: str
    key: str
    changes: tuple[Change, ...]
    ends: float


@dataclass(frozen=True)
class Reply:
    """What the destination answers: receipts, or that it refuses the request as a whole."""

    receipts: tuple[Receipt, ...] = ()
    refused: bool = False


def email_of(change: Change) -> str:
    """Whom a change is about."""
    return str(change.identifiers["email"])


@dataclass
class Destination:
    """`audience` is its state: e-mail -> fields."""

    kind: str
    moods: Moods
    rng: random.Random
    witness: Witness
    audience: dict[str, dict[str, Any]] = field(default_factory=dict)
    calm: bool = False  # does it refuse nothing any more but what is poison
    _answered: dict[str, Reply] = field(default_factory=dict)

    def receive(self, request: Request) -> Reply:
        """A request reaches it."""
        self.witness.same_bytes(request.key, request.changes)
        if self.kind == "keyed" and request.key in self._answered:
            return self._answered[request.key]
        reply = self._reply(request)
        self._answered[request.key] = reply
        return reply

    def receive_twice(self, request: Request) -> Reply:
        """A request and a copy of it reach it: it takes the copy as it took the first."""
        first = self.receive(request)
        taken = {receipt.key for receipt in first.receipts if receipt.status is Status.APPLIED}
        again = [change for change in request.changes if change.key in taken]
        if self.kind == "set":
            for change in again:
                self._apply(request.run, change)
        elif self.kind == "snapshot" and again:
            self._replaced(request.run, request.changes, Moods())
        return first

    def partly(self, request: Request) -> None:
        """A request reaches it, and it breaks down in the middle of it."""
        if self.kind in ("set", "counting"):
            half = request.changes[: self.rng.randint(0, len(request.changes))]
            self._reply(replace(request, changes=half))
        else:
            self.receive(request)

    def _reply(self, request: Request) -> Reply:
        moods = replace(self.moods, rejects=0.0, defers=0.0, refuses=0.0) if self.calm else self.moods
        poison = any(moods.poisoned(c.fields) for c in request.changes)
        if self.rng.random() < moods.refuses or (poison and moods.refuses_whole):
            return Reply(refused=True)
        if self.kind == "snapshot":
            return self._replaced(request.run, request.changes, moods)
        return Reply(tuple(self._one(request.run, change, moods) for change in request.changes))

    def _one(self, run: str, change: Change, moods: Moods) -> Receipt:
        chance = self.rng.random()
        if moods.poisoned(change.fields) or chance < moods.rejects:
            return Receipt(change.key, Status.REJECTED, "it will not have it")
        if chance < moods.rejects + moods.defers:
            return Receipt(change.key, Status.DEFERRED, "not now")
        self._apply(run, change)
        return Receipt(change.key, Status.APPLIED, remote_id=f"id-{email_of(change)}")

    def _apply(self, run: str, change: Change) -> None:
        email = email_of(change)
        self.witness.applied(run, email, counted=self.kind in ("keyed", "counting"))
        if change.op is Op.REMOVE:
            self.audience.pop(email, None)
        else:
            self.audience[email] = dict(change.fields)

    def _replaced(self, run: str, changes: Sequence[Change], moods: Moods) -> Reply:
        if self.rng.random() < moods.rejects:
            return Reply(tuple(Receipt(c.key, Status.REJECTED, "it will not have it") for c in changes))
        self.witness.applied(run, "the whole audience", counted=False)
        self.audience = {email_of(change): dict(change.fields) for change in changes}
        return Reply(tuple(Receipt(change.key, Status.APPLIED) for change in changes))
