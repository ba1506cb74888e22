"""Counting what becomes of a run's records, from many threads."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from sync.sdk.nouns import Change
from sync.state.nouns import BatchRow, BatchState, Outcomes

__all__ = ["Tally", "by_op"]


def by_op(changes: Iterable[Change], outcomes: Outcomes) -> dict[tuple[str, str], int]:
    """(op, outcome) -> how many changes of a batch had it.

    Where some changes of several ops were applied and others accepted, nobody kept which: their op is `mixed`.
    """
    rest = Counter(str(change.op) for change in changes)
    found = Counter((str(op), str(status)) for _, _, op, status, _ in outcomes.exceptions)
    rest.subtract(Counter(str(op) for _, _, op, _, _ in outcomes.exceptions))
    ops = [op for op, left in rest.items() if left > 0]
    if outcomes.applied and outcomes.accepted:
        op = ops[0] if len(ops) == 1 else "mixed"
        return {**found, (op, "applied"): outcomes.applied, (op, "accepted"): outcomes.accepted}
    return {**found, **{(op, "accepted" if outcomes.accepted else "applied"): rest[op] for op in ops}}


@dataclass(slots=True)
class Tally:
    """Counts of a run; every change is made under one lock.

    `kept` are the rows of a snapshot that are no changes: they count for nothing.
    """

    planned: int = 0
    kept: int = 0
    applied: int = 0
    accepted: int = 0
    rejected: int = 0
    deferred: int = 0
    unknown: int = 0
    requests: int = 0
    retries: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def answered(self) -> int:
        """Records with an outcome."""
        return self.applied + self.accepted + self.rejected + self.deferred + self.unknown

    def add(self, outcomes: Outcomes) -> None:
        """Count one batch's outcomes."""
        said = Counter(str(status) for _, _, _, status, _ in outcomes.exceptions)
        with self.lock:
            self.applied += outcomes.applied - self.kept
            self.accepted += outcomes.accepted
            self.rejected += said["rejected"]
            self.deferred += said["deferred"]
            self.unknown += said["unknown"]

    def resume(self, batches: Iterable[BatchRow]) -> None:
        """Count what an interrupted run had achieved."""
        with self.lock:
            for batch in batches:
                if batch.state is BatchState.ACKED:
                    self.applied += batch.applied - self.kept
                    self.accepted += batch.accepted
                    self.rejected += batch.rejected
                    self.deferred += batch.deferred
                    self.unknown += batch.unknown
                elif batch.state is BatchState.PARKED:
                    self.unknown += batch.size - self.kept

    def request(self) -> None:
        """One more request."""
        with self.lock:
            self.requests += 1

    def retry(self) -> None:
        """One more try of a batch."""
        with self.lock:
            self.retries += 1

    def park(self, records: int) -> None:
        """A batch whose outcome nobody can tell."""
        with self.lock:
            self.unknown += records - self.kept

    def outcomes(self) -> dict[str, int]:
        """The counts by name."""
        with self.lock:
            names = ("applied", "accepted", "rejected", "deferred", "unknown", "requests", "retries")
            return {name: getattr(self, name) for name in names}
