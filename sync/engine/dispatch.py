"""What every part of a delivery shares: whether it goes on, how answers are read, and where they are kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sync.engine.job import DeliverySettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.pacing import Pacer
from sync.engine.receipts import discreet, read, the_same_for_all
from sync.engine.report import Observer
from sync.engine.tally import Tally, by_op
from sync.errors import AuthError, HeadgateError, ProtocolError
from sync.logging import hide_secrets
from sync.sdk.nouns import Batch, Delivery, Receipt, Status
from sync.sdk.values import mask
from sync.spans import happened, watched
from sync.state.base import State
from sync.state.nouns import Attempt, BatchRow, Outcomes, Run, RunStatus

__all__ = ["Dispatch", "Halt", "lifetime"]

_MARGIN = 2.0  # seconds for clocks and for the kernel to close a connection
_BREAKER_MIN = 50  # rejected records before a share means anything
_TELL_WAITING = 5.0  # seconds between two signs of life of a run that waits
_REMARKS, _REMARK = 20, 300  # of a run, and characters of each


def lifetime(settings: DeliverySettings) -> float:
    """Seconds that a request can be alive once it left."""
    return settings.request_timeout + _MARGIN


class Halt(HeadgateError):
    """Delivery ends early; what was not sent is kept.

    `status` is what the run reports. `ends`: the run is over for good, and the next one plans anew; else the next
    one goes on with it.
    """

    def __init__(self, status: RunStatus, message: str, *, code: str, fix: str = "", ends: bool = False) -> None:
        super().__init__(message, code=code, fix=fix)
        self.status = status
        self.ends = ends


@dataclass
class Dispatch:
    """One run's delivery, as seen by everything that sends or polls for it. Any thread may call it."""

    state: State
    keeper: LeaseKeeper
    job: SyncJob
    run: Run
    settings: DeliverySettings
    pacer: Pacer
    observer: Observer
    stop: threading.Event
    tally: Tally
    planned: Mapping[str, int] = field(default_factory=dict)  # op -> changes of the plan that this run sends
    cause: BaseException | None = None  # why it halts
    _halted: threading.Event = field(default_factory=threading.Event)
    _remarked: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def lifetime(self) -> float:
        """Seconds that a request can be alive once it left."""
        return lifetime(self.settings)

    @property
    def private(self) -> frozenset[str]:
        """Identifiers and fields that the mapping marks as personal data."""
        return frozenset(m.to for m in (*self.job.sync.identifiers, *self.job.sync.fields) if m.pii)

    @property
    def snapshot(self) -> bool:
        """Is the whole audience sent at once."""
        return self.job.spec.delivery is Delivery.SNAPSHOT

    # --- whether to go on ---------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Is nothing more to be sent."""
        return self.stop.is_set() or self._halted.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep; True where sending is to end. Whoever waits on purpose says so: it is a sign of life."""
        until = told = time.monotonic()
        until += seconds
        while not self.over and (remaining := until - time.monotonic()) > 0:
            self.stop.wait(min(remaining, 0.2))
            if time.monotonic() - told > _TELL_WAITING:
                told = time.monotonic()
                self.progress()
        return self.over

    def halt(self, error: BaseException) -> None:
        """The first thing that goes wrong is the cause; what follows from it is not."""
        with self._lock:
            self.cause = self.cause or error
        self._halted.set()

    def stopped(self) -> Halt:
        """The end of a run that somebody stopped."""
        return Halt(
            RunStatus.CANCELLED,
            "the run was interrupted; what was not sent is kept",
            code="HG520",
            fix=f"the next `headgate run {self.job.name}` goes on where this one ended",
        )

    def refused(self, error: AuthError) -> Halt:
        """The end of a run whose credentials are not accepted."""
        return Halt(RunStatus.FAILED, error.message, code=error.code, fix=error.fix or "check its secret")

    # --- what was answered --------------------------------------------------------------------------------

    def read(self, row: BatchRow, batch: Batch, receipts: Iterable[Receipt]) -> Outcomes:
        """The outcomes that receipts tell; a whole audience is taken whole or not at all."""
        receipts = list(receipts)
        self._remark(receipts)
        outcomes = read(row, batch, receipts)
        if not self.snapshot:
            return discreet(outcomes, row, batch, self.private)
        if outcomes.exceptions:
            raise ProtocolError("the destination did not take the whole audience")
        return Outcomes(applied=row.size)

    def _remark(self, receipts: Iterable[Receipt]) -> None:
        """Tell, once a run, what a connector remarks of accepted records: none is blamed for it, or keeps it."""
        said = {receipt.reason for receipt in receipts if receipt.status is Status.ACCEPTED and receipt.reason}
        with self._lock:
            fresh = sorted(said - self._remarked)[: _REMARKS - len(self._remarked)]
            self._remarked.update(fresh)
        for remark in fresh:
            self.observer.note(self.job.name, f"{self.job.destination}: {mask(hide_secrets(remark[:_REMARK]))}")

    def alike(self, row: BatchRow, batch: Batch, status: Status, reason: str) -> Outcomes:
        """One outcome for every record of a batch."""
        return discreet(the_same_for_all(row, batch, status, reason), row, batch, self.private)

    def acknowledge(self, attempt: Attempt, batch: Batch, outcomes: Outcomes) -> None:
        """Keep the answer, count it, tell of it, and stop where too much goes wrong."""
        self.state.acknowledge(self.keeper.lease, attempt, outcomes)
        self.tally.add(outcomes)
        if watched():
            self._tell(self._whole("applied") if self.snapshot else by_op(batch.changes, outcomes))
        self._break()

    def unclear(self, attempt: Attempt, row: BatchRow, batch: Batch, why: str) -> None:
        """Nobody can tell what became of these records."""
        self.observer.note(self.job.name, f"{why}: the outcome of {row.size:,} records is unknown")
        if self.snapshot:
            self.park(row)
        else:
            self.acknowledge(attempt, batch, self.alike(row, batch, Status.UNKNOWN, why))

    def park(self, row: BatchRow) -> None:
        """Keep the batch as it is for the end of the run; it is not sent again."""
        self.state.park(self.keeper.lease, row.run, row.number)
        self.tally.park(row.size)
        self._tell(self._whole("unknown") if self.snapshot else {(row.op, "unknown"): row.size})

    def _whole(self, outcome: str) -> dict[tuple[str, str], int]:
        """A whole audience has one outcome; what changed in it has it, too."""
        return {(op, outcome): changes for op, changes in self.planned.items()}

    def _tell(self, outcomes: Mapping[tuple[str, str], int]) -> None:
        for (op, outcome), changes in outcomes.items():
            if changes:
                happened("changes", sync=self.job.name, op=op, outcome=outcome, changes=changes)

    def progress(self) -> None:
        """Tell how far it is."""
        self.observer.progress(self.job.name, self.tally.answered, self.tally.planned)

    def _break(self) -> None:
        """Stop where the destination rejects too much, or nobody understands it."""
        tally, limit = self.tally, self.job.guardrails.stop_rejected_pct
        bad = tally.rejected + tally.unknown
        if bad < _BREAKER_MIN or bad * 100 <= tally.answered * limit:
            return
        share = 100 * bad / tally.answered
        raise Halt(
            RunStatus.STOPPED,
            f"{self.job.destination} did not take {bad:,} of {tally.answered:,} records ({share:.0f} %), "
            f"more than {limit:g} %: guardrail rejected_share stopped the run",
            code="HG522",
            fix=f"see why: headgate rejected list {self.job.name}; nothing that failed is marked as synced",
            ends=True,
        )
