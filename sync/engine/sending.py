"""Sending one batch: a turn, an intent committed before the first byte, a guard, the request, and its answer kept.

There is one retry loop; a refused batch is cut in halves until the record that is refused stands alone.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tenacity import RetryCallState

from sync.durations import format_duration
from sync.engine.batches import halves
from sync.engine.dispatch import Dispatch, Halt
from sync.engine.lane import BREAKS_AFTER
from sync.engine.patience import retrying
from sync.errors import (
    AuthError,
    DestinationError,
    HeadgateError,
    ProtocolError,
    RateLimited,
    RequestError,
    Unavailable,
)
from sync.faultpoints import reached
from sync.sdk.connector import Connector, Polls
from sync.sdk.nouns import Batch, Job, Status
from sync.spans import happened, span
from sync.state.holder import boot_clock
from sync.state.nouns import Attempt, BatchRow, BatchState, Outcomes, RunStatus

__all__ = ["Sender"]

_PROBES = 3  # that fail, of whatever run, after which a run does not go on
_SLACK = 10.0  # seconds between the intent and the last moment its request may leave


@dataclass(slots=True)
class _Push:
    """One push under way in one thread: its attempts, and until when its requests may leave."""

    row: BatchRow
    attempts: list[Attempt]
    leave_until: float  # boot clock
    requests: int = 0  # that left, or tried to

    @property
    def certain(self) -> bool:
        """Does an error of the last request speak for the whole push: not where others went before it."""
        return self.requests <= 1


class Sender:
    """Sends the batches of one run, each from one thread.

    `numbers` gives numbers of batches that no other batch of the run has.
    """

    connector: Connector[Any]  # set once it is connected, with `before_request` as its client's hook

    def __init__(self, dispatch: Dispatch, numbers: Iterator[int]) -> None:
        self._dispatch = dispatch
        self._numbers = numbers
        self._numbering = threading.Lock()
        self._local = threading.local()
        # What a run needs of its dispatch with every batch.
        self._state, self._keeper, self._job = dispatch.state, dispatch.keeper, dispatch.job

    def send(self, row: BatchRow, batch: Batch) -> None:
        """See one batch through; whatever goes wrong halts the others."""
        try:
            if row.state is BatchState.INTENT and not self._job.spec.idempotent:
                self._dispatch.park(row)
            else:
                self._try(row, batch)
            self._dispatch.progress()
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._dispatch.halt(error)

    def before_request(self) -> float:
        """Called in the sending thread before each request of a push: its turn, and the guard.

        The first request of a push has its turn already. One that is late is intended again. Returns when the
        request has to be over, by the boot clock: counted from when the guard looked, so that a process frozen
        right after it sends nothing under a lease that it lost meanwhile.
        """
        dispatch = self._dispatch
        push: _Push | None = getattr(self._local, "push", None)
        if (push is None or push.requests) and not dispatch.pacer.acquire(dispatch.wait):
            raise dispatch.stopped()
        leaves = self._keeper.ensure(dispatch.lifetime)
        while push is not None and leaves > push.leave_until:
            self._intend(push)
            leaves = self._keeper.ensure(dispatch.lifetime)
        if push is not None:
            push.requests += 1
        dispatch.pacer.leave()
        dispatch.tally.request()
        happened("request")
        reached("request.leaving")
        return leaves + dispatch.settings.request_timeout

    # --- tries --------------------------------------------------------------------------------------------

    def _try(self, row: BatchRow, batch: Batch) -> None:
        try:
            with span("batch", batch=row.id, number=row.number, op=row.op, records=row.size):
                for attempt in retrying(self._dispatch.settings, self._dispatch.wait, before=self._note_retry):
                    with attempt:
                        self._attempt(row, batch)
        except Unavailable as error:
            raise self._down(error.message, error.code, error.retry_after) from error

    def _note_retry(self, state: RetryCallState) -> None:
        self._dispatch.tally.retry()
        happened("retry")
        error = state.outcome.exception() if state.outcome else None
        self._dispatch.observer.note(self._job.name, f"{error}; trying again")

    def _down(self, why: str, code: str, asked: float | None) -> Halt:
        wish = f" (it asks for {format_duration(asked)})" if asked else ""
        return Halt(
            RunStatus.FAILED,
            f"{self._job.destination} is unavailable: {why}{wish}; what was not sent is kept",
            code=code,
            fix=f"once it is back, `headgate run {self._job.name}` goes on where this run ended",
        )

    def _await_turn(self) -> None:
        dispatch = self._dispatch
        paused = dispatch.pacer.paused
        if paused > dispatch.settings.rate_limited_for:
            raise self._down("it asked to be left alone for a while", RateLimited.code, paused)
        if not dispatch.pacer.acquire(dispatch.wait) or dispatch.over:
            raise dispatch.stopped()

    def _attempt(self, row: BatchRow, batch: Batch) -> None:
        """Push once, and keep the answer."""
        self._await_turn()
        push = _Push(row, [], 0.0)
        self._intend(push)
        self._local.push = push
        try:
            answer = self._answer(row, batch)
            reached("request.answered")
        except Unavailable as error:
            self._unavailable(push, error)
            raise
        except RequestError as error:
            self._dispatch.pacer.answered()
            self._refused(push, batch, error)
        except AuthError as error:
            self._dispatch.pacer.answered()
            if push.certain:
                self._settle(push, 0)
            raise self._dispatch.refused(error) from error
        except DestinationError as error:
            self._dispatch.pacer.answered()
            self._unclear(push, batch, str(error))
        except HeadgateError:
            raise
        except Exception as error:  # noqa: BLE001 - a connector's own mistake must not decide what was applied
            self._unclear(push, batch, f"the connector failed ({type(error).__name__})")
        else:
            self._dispatch.pacer.answered()
            self._keep(push, batch, answer)
        finally:
            self._local.push = None

    def _answer(self, row: BatchRow, batch: Batch) -> Outcomes | Job:
        """What the connector makes of the destination's answer, read to its end."""
        outcome = self.connector.push(batch)
        if not isinstance(outcome, Job):
            return self._dispatch.read(row, batch, outcome)
        if not isinstance(self.connector, Polls):
            raise ProtocolError(f"connector '{self.connector.name}' gave a job and cannot poll")
        json.dumps(dict(outcome.data))  # it has to survive a restart
        return outcome

    # --- what is kept of it -------------------------------------------------------------------------------

    def _intend(self, push: _Push) -> None:
        """Commit that a request is about to leave, and until when it can be alive."""
        lifetime = self._dispatch.lifetime
        self._keeper.ensure(lifetime)
        leave_until = boot_clock() + _SLACK
        row = push.row
        push.attempts.append(self._state.intend(self._keeper.lease, row.run, row.number, _SLACK + lifetime))
        push.leave_until = leave_until

    def _settle(self, push: _Push, keep: int) -> None:
        """All but the last `keep` attempts of the push are answered: nothing of them is under way any more."""
        for attempt in push.attempts[: len(push.attempts) - keep]:
            self._state.settle(self._keeper.lease, attempt)

    def _keep(self, push: _Push, batch: Batch, answer: Outcomes | Job) -> None:
        self._settle(push, 1)
        if isinstance(answer, Job):
            self._state.keep_job(self._keeper.lease, push.attempts[-1], answer)
        else:
            self._dispatch.acknowledge(push.attempts[-1], batch, answer)

    def _unclear(self, push: _Push, batch: Batch, why: str) -> None:
        self._dispatch.unclear(push.attempts[-1], push.row, batch, why)

    def _unavailable(self, push: _Push, error: Unavailable) -> None:
        """Nothing was applied, or nobody can tell: then the attempt stays open, and the object decides."""
        failures = self._dispatch.pacer.failed(error)
        if error.applied is False and push.certain:
            self._settle(push, 0)
        elif not self._job.spec.idempotent:
            self._dispatch.park(push.row)
            raise Halt(
                RunStatus.FAILED,
                f"nobody can tell whether {self._job.destination} took {push.row.size:,} records: {error.message}",
                code="HG521",
                fix="look there; the records are kept as rejected, and not sent again before a person says so: "
                f"headgate rejected list {self._job.name}",
            ) from error
        if failures >= max(self._dispatch.settings.attempts, BREAKS_AFTER) + _PROBES:
            raise self._down(error.message, error.code, error.retry_after) from error

    def _refused(self, push: _Push, batch: Batch, error: RequestError) -> None:
        """Cut the batch in halves; a record that is refused alone is rejected.

        A snapshot has no halves. It ends the run: what mends it is another cohort, which only a new plan has.
        """
        row = push.row
        if self._dispatch.snapshot:
            if push.certain:
                self._settle(push, 0)
            raise Halt(RunStatus.FAILED, error.message, code=error.code, fix=error.fix, ends=True) from error
        if not push.certain and not self._job.spec.idempotent:
            self._unclear(push, batch, str(error))
        elif row.size == 1:
            why = error.detail.strip() or error.message
            refused = self._dispatch.alike(row, batch, Status.REJECTED, why)
            self._dispatch.acknowledge(self._refusal(push), batch, refused)
        else:
            self._split(push, batch)

    def _refusal(self, push: _Push) -> Attempt:
        """The attempt that a refusal answers. Requests of the push that went before the refused one may have
        changed something: their attempts stay open, so that what was refused is dirty, too."""
        if push.certain:
            self._settle(push, 1)
            return push.attempts[-1]
        return self._state.intend(self._keeper.lease, push.row.run, push.row.number, 0.0)

    def _split(self, push: _Push, batch: Batch) -> None:
        row = push.row
        with self._numbering:
            children = halves(row, next(self._numbers))
            next(self._numbers)
        self._state.split(self._keeper.lease, self._refusal(push), children)
        for child in children:
            start = child.first - row.first
            part: Sequence[Any] = batch.changes[start : start + child.size]
            self._try(child, replace(batch, id=child.id, changes=part))
