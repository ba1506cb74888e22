"""Delivery: batches out, outcomes in, by the commit protocol.

For each batch: a turn from the pacer, an intent committed before the first byte, a guard that the request cannot
outlive what the ledger says of it, the request, and one transaction that keeps what was answered. There is one
retry loop; a refused batch is cut in halves until the record that is refused stands alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import count, groupby
from typing import Any

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from sync.durations import format_duration
from sync.engine.batches import PlanFile, halves
from sync.engine.job import DeliverySettings, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.pacing import Pacer
from sync.engine.receipts import read, the_same_for_all
from sync.engine.report import Observer
from sync.engine.tally import Tally
from sync.errors import (
    AuthError,
    DestinationError,
    HeadgateError,
    ProtocolError,
    RateLimited,
    RequestError,
    Unavailable,
)
from sync.sdk.connector import Connector, Polls
from sync.sdk.nouns import Batch, Delivery, Job, Status
from sync.state.base import Attempt, BatchRow, BatchState, Outcomes, Plan, Run, RunStatus, State
from sync.state.holder import boot_clock

__all__ = ["Deliverer", "Halt"]

_SLACK = 10.0  # seconds between the intent and the last moment its request may leave
_MARGIN = 2.0  # seconds for clocks and for the kernel to close a connection
_BREAKER_MIN = 50  # rejected records before a share means anything


class Halt(HeadgateError):
    """Delivery ends early; what was not sent is kept.

    `status` is what the run reports; `STOPPED` ends the run for good, any other leaves it to be resumed.
    """

    def __init__(self, status: RunStatus, message: str, *, code: str, fix: str = "") -> None:
        super().__init__(message, code=code, fix=fix)
        self.status = status


@dataclass(slots=True)
class _Push:
    """One push under way in one thread: its attempts, and until when its requests may leave."""

    row: BatchRow
    attempts: list[Attempt]
    leave_until: float  # boot clock
    turn: bool = True  # a turn was taken and not used yet


@dataclass(slots=True)
class _Patience:
    """When one batch gives up: after so many tries, or after so long on 429."""

    settings: DeliverySettings
    tries: int = 0
    since: float | None = None

    def stop(self, state: RetryCallState) -> bool:
        """Is it enough."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RateLimited):
            self.since = self.since if self.since is not None else time.monotonic()
            waited = time.monotonic() - self.since + (error.retry_after or 0.0)
            return waited > self.settings.rate_limited_for
        self.tries += 1
        return self.tries >= self.settings.attempts

    def delay(self, state: RetryCallState) -> float:
        """Seconds until the next try; a destination that says when is obeyed by the pacer instead."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Unavailable) and error.retry_after is not None:
            return 0.0
        exponent = max(0, state.attempt_number - 1)
        return float(min(self.settings.backoff_max, self.settings.backoff_first * 2**exponent))


@dataclass
class Deliverer:
    """Sends the batches of one run. Call `deliver` once."""

    state: State
    keeper: LeaseKeeper
    job: SyncJob
    plan: Plan
    run: Run
    file: PlanFile
    settings: DeliverySettings
    pacer: Pacer
    observer: Observer
    stop: threading.Event
    tally: Tally
    _local: threading.local = field(default_factory=threading.local)
    _halted: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _cause: BaseException | None = None
    _connector: Connector[Any] = field(init=False)
    _numbers: Iterator[int] = field(init=False)

    def deliver(self) -> None:
        """Send what is not acknowledged yet. Raises `Halt`, `Fenced`, or another `HeadgateError`."""
        rows = self.state.batches(self.run.id)
        self._numbers = count(max((row.number for row in rows), default=0) + 1)
        self.tally.resume(rows)
        pending = [row for row in rows if row.state in (BatchState.PLANNED, BatchState.INTENT, BatchState.JOB)]
        if not pending:
            return
        self._connector = self.job.connect(self._before_request)
        try:
            self._await_barrier()
            for _, phase in groupby(sorted(pending, key=lambda r: (r.phase, r.first)), key=lambda r: r.phase):
                self._phase(list(phase))
        finally:
            self._connector.http.close()

    # --- the order of things ------------------------------------------------------------------------------

    def _await_barrier(self) -> None:
        """A request of an earlier run that may still be alive could land after ours and undo it."""
        alive_until = self.state.barrier(self.job.name, self.run.id)
        while (remaining := alive_until - self.state.now()) > 0:
            self.observer.note(
                self.job.name, f"waiting {remaining:.0f}s for requests of an interrupted run to end"
            )
            if self._wait(min(remaining, 5.0)):
                raise self._stopped()

    def _phase(self, rows: list[BatchRow]) -> None:
        jobs = [row for row in rows if row.state is BatchState.JOB]
        self._send_all([row for row in rows if row.state is not BatchState.JOB])
        taken = self.state.batches(self.run.id, BatchState.JOB)
        self._await_jobs(jobs + [row for row in taken if row.number not in {j.number for j in jobs}])

    def _send_all(self, rows: list[BatchRow]) -> None:
        """Keep as many batches under way as may be; read no further ahead than that."""
        workers = self.job.limits.concurrency
        under_way: set[Future[None]] = set()
        with ThreadPoolExecutor(workers, thread_name_prefix=f"send-{self.job.name}") as pool:
            for row, batch in self._read(rows):
                if self.stop.is_set() or self._halted.is_set():
                    break
                under_way.add(pool.submit(self._send, row, batch))
                if len(under_way) >= workers * 2:
                    _, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            wait(under_way)
        if self._cause is not None:
            raise self._cause
        if self.stop.is_set():
            raise self._stopped()

    def _read(self, rows: list[BatchRow]) -> Iterator[tuple[BatchRow, Batch]]:
        target = (self.job.name, self.job.spec.name, self.job.sync.audience)
        if self.job.spec.delivery is Delivery.SNAPSHOT:
            return ((row, self.file.snapshot(row, *target)) for row in rows)
        return self.file.batches(rows, *target)

    def _stopped(self) -> Halt:
        return Halt(
            RunStatus.CANCELLED,
            "the run was interrupted; what was not sent is kept",
            code="HG520",
            fix=f"the next `headgate run {self.job.name}` goes on where this one ended",
        )

    def _wait(self, seconds: float) -> bool:
        """Sleep; True where sending is to end."""
        until = time.monotonic() + seconds
        while (remaining := until - time.monotonic()) > 0:
            if self.stop.wait(min(remaining, 0.2)) or self._halted.is_set():
                return True
        return self.stop.is_set() or self._halted.is_set()

    # --- one batch ----------------------------------------------------------------------------------------

    def _send(self, row: BatchRow, batch: Batch) -> None:
        """See one batch through; whatever goes wrong halts the others."""
        try:
            if row.state is BatchState.INTENT and not self.job.spec.idempotent:
                self._park(row)
            else:
                self._try(row, batch)
            self._report()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._halt(error)

    def _halt(self, error: BaseException) -> None:
        """The first thing that goes wrong is the cause; what follows from it is not."""
        with self._lock:
            self._cause = self._cause or error
        self._halted.set()

    def _try(self, row: BatchRow, batch: Batch) -> None:
        patience = _Patience(self.settings)
        try:
            for attempt in Retrying(
                retry=retry_if_exception_type(Unavailable),
                stop=patience.stop,
                wait=patience.delay,
                sleep=self._wait,  # type: ignore[arg-type]
                before_sleep=self._note_retry,
                reraise=True,
            ):
                with attempt:
                    self._attempt(row, batch)
        except Unavailable as error:
            raise self._down(error) from error

    def _note_retry(self, state: RetryCallState) -> None:
        self.tally.retry()
        error = state.outcome.exception() if state.outcome else None
        self.observer.note(self.job.name, f"{error}; trying again")

    def _down(self, error: Unavailable) -> Halt:
        asked = f" (it asks for {format_duration(error.retry_after)})" if error.retry_after else ""
        return Halt(
            RunStatus.FAILED,
            f"{self.job.destination} is unavailable: {error.message}{asked}; what was not sent is kept",
            code=error.code,
            fix=f"once it is back, `headgate run {self.job.name}` goes on where this run ended",
        )

    def _attempt(self, row: BatchRow, batch: Batch) -> None:
        """Push once, and keep the answer."""
        if not self.pacer.acquire(self._wait) or self.stop.is_set() or self._halted.is_set():
            raise self._stopped()
        push = self._intend(row)
        try:
            outcome = self._connector.push(batch)
            if isinstance(outcome, Job):
                self.state.keep_job(self.keeper.lease, push.attempts[-1], outcome)
                return
            outcomes = self._outcomes(row, batch, outcome)
        except Unavailable as error:
            self._unavailable(push, error)
            raise
        except RequestError as error:
            self._refused(push, batch, error)
            return
        except AuthError as error:
            self.state.settle(self.keeper.lease, push.attempts[-1])
            raise Halt(
                RunStatus.FAILED, error.message, code=error.code, fix=error.fix or "check its secret"
            ) from error
        except (ProtocolError, DestinationError) as error:
            outcomes = self._unclear(row, batch, str(error))
        except HeadgateError:
            raise
        except Exception as error:  # noqa: BLE001 - a connector's own mistake must not decide what was applied
            outcomes = self._unclear(row, batch, f"the connector failed ({type(error).__name__})")
        finally:
            self._local.push = None
        self._acknowledge(push, outcomes)

    def _outcomes(self, row: BatchRow, batch: Batch, receipts: Any) -> Outcomes:
        if self.job.spec.delivery is not Delivery.SNAPSHOT:
            return read(row, batch, receipts)
        good = (Status.APPLIED, Status.ACCEPTED)
        if sum(1 for receipt in receipts if receipt.status in good) != len(batch.changes):
            raise ProtocolError("the destination did not take the whole audience")
        c = self.plan.counts
        return Outcomes(applied=c.add + c.update + c.remove)

    def _unclear(self, row: BatchRow, batch: Batch, why: str) -> Outcomes:
        self.observer.note(self.job.name, f"{why}: the outcome of {row.size:,} records is unknown")
        return the_same_for_all(row, batch, Status.UNKNOWN, why)

    def _intend(self, row: BatchRow) -> _Push:
        """Commit that a request is about to leave, and until when it can be alive."""
        lifetime = self.settings.request_timeout + _MARGIN
        self.keeper.ensure(lifetime)
        leave_until = boot_clock() + _SLACK
        attempt = self.state.intend(self.keeper.lease, row.run, row.number, _SLACK + lifetime)
        push = getattr(self._local, "push", None) or _Push(row, [], 0.0)
        push.attempts.append(attempt)
        push.leave_until = leave_until
        self._local.push = push
        return push

    def _before_request(self) -> None:
        """Called in the sending thread before each request of a push: its turn, and the guard."""
        self.tally.request()
        push: _Push | None = getattr(self._local, "push", None)
        if push is not None and push.turn:
            push.turn = False
        elif not self.pacer.acquire(self._wait):
            raise self._stopped()
        if push is not None and boot_clock() > push.leave_until:
            self._intend(push.row)
        self.keeper.ensure(self.settings.request_timeout + _MARGIN)

    def _unavailable(self, push: _Push, error: Unavailable) -> None:
        if error.retry_after is not None:
            self.pacer.pause(error.retry_after)
        if error.applied is False:
            self.state.settle(self.keeper.lease, push.attempts[-1])
        elif not self.job.spec.idempotent:
            self._park(push.row)
            raise Halt(
                RunStatus.FAILED,
                f"nobody can tell whether {self.job.destination} took {push.row.size:,} records: {error.message}",
                code="HG521",
                fix="look at the destination; the records are parked, and are set again by the next plan",
            ) from error

    def _park(self, row: BatchRow) -> None:
        self.state.park(self.keeper.lease, row.run, row.number)
        self.tally.park(row.size)

    def _acknowledge(self, push: _Push, outcomes: Outcomes) -> None:
        for earlier in push.attempts[:-1]:
            self.state.settle(self.keeper.lease, earlier)
        self.state.acknowledge(self.keeper.lease, push.attempts[-1], outcomes)
        self.tally.add(outcomes)
        self._break()

    def _report(self) -> None:
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
        )

    # --- a refused batch ----------------------------------------------------------------------------------

    def _refused(self, push: _Push, batch: Batch, error: RequestError) -> None:
        """Cut the batch in halves; a record that is refused alone is rejected."""
        row = push.row
        if self.job.spec.delivery is Delivery.SNAPSHOT:
            self.state.settle(self.keeper.lease, push.attempts[-1])
            raise Halt(RunStatus.FAILED, error.message, code=error.code, fix=error.fix)
        if row.size == 1:
            why = error.detail.strip() or error.message
            self._acknowledge(push, the_same_for_all(row, batch, Status.REJECTED, why))
            return
        with self._lock:
            children = halves(row, next(self._numbers))
            next(self._numbers)
        self.state.split(self.keeper.lease, push.attempts[-1], children)
        self._local.push = None
        for child in children:
            start = child.first - row.first
            part: Sequence[Any] = batch.changes[start : start + child.size]
            self._try(child, replace(batch, id=child.id, changes=part))

    # --- jobs the platform finishes later -----------------------------------------------------------------

    def _await_jobs(self, rows: list[BatchRow]) -> None:
        """Poll until every job is done, or leave them to the next run."""
        until = time.monotonic() + self.settings.job_wait
        waiting = rows
        while waiting:
            self.state.set_run(self.keeper.lease, self.run.id, RunStatus.WAITING)
            delay = min((row.job.poll_after for row in waiting if row.job), default=0.0)
            if time.monotonic() + delay > until:
                raise Halt(
                    RunStatus.WAITING,
                    f"{self.job.destination} is still working on {len(waiting)} batches",
                    code="HG523",
                    fix=f"the next `headgate run {self.job.name}` asks again",
                )
            if self._wait(delay):
                raise self._stopped()
            for row, batch in list(self._read(waiting)):
                self._poll(row, batch)
            waiting = self.state.batches(self.run.id, BatchState.JOB)
            waiting = [row for row in waiting if row.number in {r.number for r in rows}]

    def _poll(self, row: BatchRow, batch: Batch) -> None:
        if row.job is None or not isinstance(self._connector, Polls):
            raise ProtocolError(f"connector '{self._connector.name}' gave a job and cannot poll")
        attempt = Attempt(0, row.run, row.number, self.keeper.lease.epoch, 0.0)
        try:
            outcome = self._connector.poll(row.job, batch)
            if isinstance(outcome, Job):
                self.state.keep_job(
                    self.keeper.lease, attempt, replace(outcome, settled=_merged(row.job, outcome))
                )
                return
            outcomes = read(row, batch, [*row.job.settled, *outcome])
        except Unavailable as error:
            self.pacer.pause(error.retry_after or self.settings.backoff_first)
            return
        except RequestError as error:
            outcomes = self._unclear(row, batch, str(error))
        self.state.acknowledge(self.keeper.lease, attempt, outcomes)
        self.tally.add(outcomes)
        self._report()


def _merged(before: Job, after: Job) -> tuple[Any, ...]:
    known = {receipt.key for receipt in before.settled}
    return (*before.settled, *(r for r in after.settled if r.key not in known))
