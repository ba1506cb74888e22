"""Polling: jobs that a platform finishes later are asked about until they are done, or left to the next run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from sync.engine.dispatch import Dispatch, Halt
from sync.errors import AuthError, DestinationError, HeadgateError, ProtocolError, RequestError, Unavailable
from sync.faultpoints import reached
from sync.sdk.connector import Connector, Polls
from sync.sdk.nouns import Batch, Job, Receipt
from sync.spans import span
from sync.state.nouns import Attempt, BatchRow, BatchState, RunStatus

__all__ = ["Poller"]

Read = Callable[[list[BatchRow]], Iterator[tuple[BatchRow, Batch]]]


class Poller:
    """Asks about the jobs of one run.

    `old` are the numbers of batches whose job an earlier process was given: they are asked about at once.
    """

    def __init__(self, dispatch: Dispatch, connector: Connector[Any], read: Read, old: Iterable[int]) -> None:
        self._dispatch = dispatch
        self._connector = connector
        self._read = read
        self._due = dict.fromkeys(old, 0.0)  # batch -> when to ask, by the monotonic clock
        self._state, self._keeper, self._job = dispatch.state, dispatch.keeper, dispatch.job

    def finish(self, phase: int) -> None:
        """Poll until every job of a phase is done. Raises `Halt` where that takes longer than a run waits."""
        until = time.monotonic() + self._dispatch.settings.job_wait
        waiting = self._waiting(phase)
        if not waiting:
            return
        self._state.set_run(self._keeper.lease, self._dispatch.run.id, RunStatus.WAITING)
        while waiting:
            self._sleep(waiting, until)
            now = time.monotonic()
            for row, batch in self._read([row for row in waiting if self._due_at(row) <= now]):
                with span("batch", batch=row.id, number=row.number, op=row.op, records=row.size):
                    self._ask(row, batch)
            waiting = self._waiting(phase)
        self._state.set_run(self._keeper.lease, self._dispatch.run.id, RunStatus.SENDING)

    def _waiting(self, phase: int) -> list[BatchRow]:
        rows = self._state.batches(self._dispatch.run.id, BatchState.JOB)
        return [row for row in rows if row.phase == phase]

    def _due_at(self, row: BatchRow) -> float:
        return self._due.setdefault(row.number, time.monotonic() + (row.job.poll_after if row.job else 0.0))

    def _sleep(self, waiting: list[BatchRow], until: float) -> None:
        due = min(self._due_at(row) for row in waiting)
        if due > until:
            raise Halt(
                RunStatus.WAITING,
                f"{self._job.destination} is still working on {len(waiting)} batches",
                code="HG523",
                fix=f"the next `headgate run {self._job.name}` asks again",
            )
        if self._dispatch.wait(due - time.monotonic()):
            raise self._dispatch.stopped()

    def _ask(self, row: BatchRow, batch: Batch) -> None:
        """Poll once. What says nothing of the job leaves it as it is, for this run or the next."""
        attempt = Attempt(0, row.run, row.number, self._keeper.lease.epoch, 0.0)
        self._due.pop(row.number, None)
        try:
            self._poll(attempt, row, batch)
        except Unavailable as error:
            self._later(row, error)
        except RequestError as error:
            self._dispatch.unclear(attempt, row, batch, str(error))
        except AuthError as error:
            raise self._dispatch.refused(error) from error
        except DestinationError as error:
            raise self._unread(error.message, error.code) from error
        except HeadgateError:
            raise
        except Exception as error:  # a connector's own mistake decides nothing
            raise self._unread(f"the connector failed ({type(error).__name__})", ProtocolError.code) from error
        self._dispatch.progress()

    def _poll(self, attempt: Attempt, row: BatchRow, batch: Batch) -> None:
        if row.job is None or not isinstance(self._connector, Polls):
            raise ProtocolError(f"connector '{self._connector.name}' gave a job and cannot poll")
        outcome = self._connector.poll(row.job, batch)
        self._dispatch.pacer.answered()
        reached("poll.answered")
        if isinstance(outcome, Job):
            kept = replace(outcome, settled=_merged(row.job, outcome))
            self._state.keep_job(self._keeper.lease, attempt, kept)
        else:
            outcomes = self._dispatch.read(row, batch, [*row.job.settled, *outcome])
            self._dispatch.acknowledge(attempt, batch, outcomes)

    def _later(self, row: BatchRow, error: Unavailable) -> None:
        self._dispatch.pacer.failed(error)
        after = self._dispatch.settings.backoff_first if error.retry_after is None else error.retry_after
        self._due[row.number] = time.monotonic() + max(after, row.job.poll_after if row.job else 0.0)

    def _unread(self, why: str, code: str) -> Halt:
        return Halt(
            RunStatus.FAILED,
            f"{self._job.destination} does not say what became of a job: {why}",
            code=code,
            fix=f"the next `headgate run {self._job.name}` asks again",
        )


def _merged(before: Job, after: Job) -> tuple[Receipt, ...]:
    known = {receipt.key for receipt in before.settled}
    return (*before.settled, *(r for r in after.settled if r.key not in known))
