"""The chain of the audit log: how an event is hashed, and how a walk along all of them finds what was changed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson

from sync.checkpoints import NOTHING, Checkpoint, Evidence, Finding, runs

__all__ = ["Row", "Verification", "event_hash", "verify"]

Row = tuple[Any, ...]
"""seq, at, actor, action, object, data, prev, hash: as the database gives them, whatever they were made into."""

_SEARCH = 1000  # how far a renumbered event is looked for
_SUSPECTS = 50  # how many events are looked at so closely
_FINDINGS = 100


@dataclass(frozen=True, slots=True)
class Verification:
    """What a look at the whole log found. The newest checkpoint vouches for the first `witnessed` events."""

    events: int
    checkpoints: int
    witnessed: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Is the log what it was."""
        return not self.findings


def event_hash(seq: int, at: float, actor: str, action: str, object: str, data: str, prev: str) -> str:
    """The hash of one event, hex; `data` is RFC 8785 JSON already.

    The keys stand in the order of RFC 8785 §3.2.3, and orjson writes texts and numbers of this size as §3.2.2
    wants them.
    """
    record = {
        "action": action,
        "actor": actor,
        "at": plain_number(at),
        "data": orjson.Fragment(data),
        "object": object,
        "seq": seq,
    }
    return hashlib.sha256(b"audit-v1" + prev.encode() + orjson.dumps(record)).hexdigest()


def plain_number(at: float) -> float | int:
    """RFC 8785 §3.2.2.3: a whole number has no fraction."""
    return int(at) if float.is_integer(at) else at


def verify(rows: Iterable[Row], evidence: Evidence) -> Verification:
    """Walk along the chain, oldest first, and hold it against the checkpoints."""
    walk = _Walk({c.size for c in evidence.checkpoints})
    for row in rows:
        walk.take(row)
    findings = [*walk.finish(), *evidence.findings]
    findings += _disagreements(walk, evidence.checkpoints, findings)
    witnessed = max((c.size for c in evidence.checkpoints), default=0)
    return Verification(walk.count, len(evidence.checkpoints), witnessed, tuple(findings[:_FINDINGS]))


@dataclass(frozen=True, slots=True)
class _Move:
    """A run of events that fit their hash with a number that is `by` higher."""

    first: int
    last: int
    by: int
    linked: bool  # to the event that stands before it now

    @property
    def origin(self) -> int:
        return self.first + self.by


class _Walk:
    """What is known after each event; `heads` has the hashes that a checkpoint speaks of."""

    def __init__(self, sizes: set[int]) -> None:
        self.sizes = sizes
        self.heads: dict[int, str] = {}
        self.count = 0
        self.last = 0  # the seq before
        self.prev = NOTHING  # the hash before
        self.missing: list[tuple[int, int]] = []
        self.suspects: list[Row] = []  # events that do not fit their hash
        self.edited: list[int] = []  # the same, beyond those that are looked at closely
        self.moved: list[_Move] = []
        self.findings: list[Finding] = []

    def take(self, row: Row) -> None:
        """The next event; nearly always it is as it should be."""
        seq = row[0]
        self.count += 1
        if seq != self.last + 1 or row[6] != self.prev or not _fits(row):
            self._odd(row)
        if seq in self.sizes:
            self.heads[seq] = row[7]
        self.last, self.prev = seq, row[7]

    def finish(self) -> list[Finding]:
        """All findings of the chain, in the order of the events."""
        findings = [*self.findings, *_explain(self.suspects, self.missing), *_moves(self.moved)]
        findings += [_edited(a, b) for a, b in runs(self.edited)]
        findings += [_deleted(a, b) for a, b in self.missing]
        return sorted(findings, key=lambda f: (f.first or 0, f.kind))

    def _odd(self, row: Row) -> None:
        seq, gap = row[0], row[0] != self.last + 1
        if gap and seq > self.last:
            self._gap(row)
        elif gap:
            self.findings.append(Finding("renumbered", f"the number {seq} was given to two events", seq, seq))
        if not _fits(row):
            self._misfit(row)
        elif not gap and row[6] != self.prev and not self._explained(self.last):
            self._unlinked(seq)

    def _gap(self, row: Row) -> None:
        first, last = self.last + 1, row[0] - 1
        if row[6] == self.prev and _fits(row):
            message = (
                f"the numbers {_span(first, last)} are missing, but not from the chain: {row[0]} was renumbered"
            )
            self.findings.append(Finding("renumbered", message, row[0], row[0]))
        else:
            self.missing.append((first, last))

    def _misfit(self, row: Row) -> None:
        seq = row[0]
        by = self._moved_by(row)
        if by and self.moved and (self.moved[-1].last, self.moved[-1].by) == (seq - 1, by):
            self.moved[-1] = replace(self.moved[-1], last=seq)
        elif by:
            self.moved.append(_Move(seq, seq, by, linked=row[6] == self.prev))
        elif len(self.suspects) < _SUSPECTS:
            self.suspects.append(row)
        else:
            self.edited.append(seq)

    def _moved_by(self, row: Row) -> int:
        """How much higher its number was when it was written; 0 where it was not merely renumbered."""
        if self.moved and self.moved[-1].last == row[0] - 1 and _fits(row, row[0] + self.moved[-1].by):
            return self.moved[-1].by
        if len(self.suspects) >= _SUSPECTS or len(self.moved) >= _SUSPECTS:
            return 0
        near = (by for distance in range(1, _SEARCH + 1) for by in (distance, -distance))
        return next((by for by in near if row[0] + by > 0 and _fits(row, row[0] + by)), 0)

    def _unlinked(self, seq: int) -> None:
        if seq == 1:
            message = "the first event is chained to one before it, which is not there"
            self.findings.append(Finding("deleted", message, 1, 1))
        else:
            message = (
                f"event {self.last} was edited and hashed anew: event {seq} is chained to what stood there before"
            )
            self.findings.append(Finding("edited", message, self.last, self.last))

    def _explained(self, seq: int) -> bool:
        """Is something known about this event that breaks the link to the next."""
        return (
            bool(self.suspects and self.suspects[-1][0] == seq)
            or bool(self.edited and self.edited[-1] == seq)
            or bool(self.moved and self.moved[-1].last == seq)
        )


def _fits(row: Row, seq: int | None = None, prev: str | None = None, digest: str | None = None) -> bool:
    """Does the event have its hash, or would it have with another number, chained elsewhere."""
    if type(row[1]) is not float or type(row[5]) is not str:
        return False
    try:
        _, at, actor, action, object, data, own = row[:7]
        return event_hash(seq or row[0], at, actor, action, object, data, prev or own) == (digest or row[7])
    except (TypeError, AttributeError, ValueError):
        return False


def _explain(suspects: list[Row], missing: list[tuple[int, int]]) -> Iterator[Finding]:
    """Of the events that do not fit: which were swapped, which took a deleted one's number, which were edited."""
    origins = {row[0]: _origin(row, suspects, missing) for row in suspects}
    for seq, origin in origins.items():
        if origin is None:
            yield _edited(seq, seq)
        elif origins.get(origin) == seq:
            if seq < origin:
                yield _swapped(seq, origin)
        else:
            yield Finding("renumbered", f"event {seq} was renumbered: it was written as {origin}", seq, seq)


def _origin(row: Row, suspects: list[Row], missing: list[tuple[int, int]]) -> int | None:
    for other in suspects:
        whole = other is not row and _fits(row, other[0])
        if whole or (other is not row and _fits(row, other[0], other[6], other[7])):
            return int(other[0])
    gaps = (seq for a, b in missing for seq in range(a, min(b, a + _SEARCH) + 1))
    return next((seq for seq in gaps if _fits(row, seq)), None)


def _disagreements(walk: _Walk, checkpoints: Iterable[Checkpoint], findings: list[Finding]) -> Iterator[Finding]:
    """Where a signed checkpoint and the log differ: a cut tail, or a chain that was written anew."""
    claims = sorted(checkpoints, key=lambda c: c.size)
    known = [f for f in findings if f.first is not None and f.last is not None]
    agreed = 0
    for claim in (c for c in claims if c.size in walk.heads):
        if walk.heads[claim.size] == claim.head:
            agreed = claim.size
        elif not any((f.first or 0) <= claim.size <= (f.last or 0) for f in known):
            message = (
                f"the log was written anew: event {claim.size} is not the one that {claim.title} vouches for, "
            )
            message += f"so {_span(agreed + 1, claim.size)} cannot be trusted, nor what follows"
            yield Finding("rewritten", message, agreed + 1, claim.size)
            break
    moved = walk.moved[-1].by if walk.moved and walk.moved[-1].last == walk.last else 0
    if claims and claims[-1].size > walk.last + moved:
        top = claims[-1]
        message = f"the log ends with event {walk.last}, but {top.title} vouches for {top.size}: "
        message += f"{_events(walk.last + 1, top.size)} cut off"
        yield Finding("cut", message, walk.last + 1, top.size)


def _moves(moves: list[_Move]) -> Iterator[Finding]:
    """Two that took each other's place were swapped; a run that closed up hides a deletion."""
    origins = {m.origin: m for m in moves}
    for move in moves:
        other = origins.get(move.first)
        if other is not None and other.first == move.origin and move.first == move.last:
            if move.by > 0:
                yield _swapped(move.first, move.origin)
            continue
        was = f"{_was(move.first, move.last)} written as {_span(move.origin, move.last + move.by)}"
        message = f"{_events(move.first, move.last)} renumbered: {was}"
        yield Finding("renumbered", message, move.first, move.last)
        if move.by > 0 and not move.linked and other is None:
            yield _deleted(move.first, move.origin - 1)


def _swapped(one: int, other: int) -> Finding:
    return Finding("swapped", f"the events {one} and {other} were swapped", one, other)


def _deleted(first: int, last: int) -> Finding:
    return Finding("deleted", f"{_events(first, last)} deleted", first, last)


def _edited(first: int, last: int) -> Finding:
    them = "it does not" if first == last else "they do not"
    return Finding("edited", f"{_events(first, last)} edited: {them} have the hash that was kept", first, last)


def _events(first: int, last: int) -> str:
    return f"event {first} was" if first == last else f"the events {first} to {last} were"


def _was(first: int, last: int) -> str:
    return "it was" if first == last else "they were"


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"
