"""Delivery: the batches of a run sent in order, by the commit protocol, and their jobs waited for.

A request of an earlier run that may still be alive is waited for first. A phase begins when the one before it is
done. As many batches are under way as the limits allow, and the plan file is read no further ahead than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import count, groupby

from sync.engine.batches import PlanFile
from sync.engine.dispatch import Dispatch
from sync.engine.polling import Poller
from sync.engine.sending import Sender
from sync.sdk.nouns import Batch
from sync.spans import carried
from sync.state.nouns import BatchRow, BatchState

__all__ = ["deliver"]

_PENDING = (BatchState.PLANNED, BatchState.INTENT, BatchState.JOB)


def deliver(dispatch: Dispatch, file: PlanFile) -> None:
    """Send what is not acknowledged yet. Raises `Halt`, `Fenced`, or another `HeadgateError`.

    Nothing is connected where there is nothing left to send.
    """
    rows = dispatch.state.batches(dispatch.run.id)
    if dispatch.snapshot:
        dispatch.tally.kept = sum(row.size for row in rows) - dispatch.tally.planned
    dispatch.tally.resume(rows)
    pending = [row for row in rows if row.state in _PENDING]
    if not pending:
        return
    sender = Sender(dispatch, count(max(row.number for row in rows) + 1))
    sender.connector = dispatch.job.connect(sender.before_request)
    try:
        _await_barrier(dispatch)
        jobs = [row.number for row in pending if row.state is BatchState.JOB]
        poller = Poller(dispatch, sender.connector, lambda due: _read(dispatch, file, due), jobs)
        for phase, batches in groupby(sorted(pending, key=lambda r: (r.phase, r.first)), key=lambda r: r.phase):
            unsent = [row for row in batches if row.state is not BatchState.JOB]
            _send(dispatch, sender, _read(dispatch, file, unsent))
            poller.finish(phase)
    finally:
        sender.connector.http.close()


def _await_barrier(dispatch: Dispatch) -> None:
    """A request of an earlier run that may still be alive could land after ours and undo it."""
    alive_until = dispatch.state.barrier(dispatch.job.name, dispatch.run.id)
    while (remaining := alive_until - dispatch.state.steady()) > 0:
        dispatch.observer.note(
            dispatch.job.name, f"waiting {remaining:.0f}s for requests of an interrupted run to end"
        )
        if dispatch.wait(min(remaining, 5.0)):
            raise dispatch.stopped()


def _read(dispatch: Dispatch, file: PlanFile, rows: Sequence[BatchRow]) -> Iterator[tuple[BatchRow, Batch]]:
    target = (dispatch.job.name, dispatch.job.spec.name, dispatch.job.sync.audience)
    if dispatch.snapshot:
        return ((row, file.snapshot(row, *target)) for row in rows)
    return file.batches(rows, *target)


def _send(dispatch: Dispatch, sender: Sender, batches: Iterator[tuple[BatchRow, Batch]]) -> None:
    workers = dispatch.job.limits.concurrency
    under_way: set[Future[None]] = set()
    with ThreadPoolExecutor(workers, thread_name_prefix=f"send-{dispatch.job.name}") as pool:
        for row, batch in batches:
            if dispatch.over:
                break
            under_way.add(pool.submit(carried(sender.send), row, batch))
            if len(under_way) >= workers * 2:
                _, under_way = wait(under_way, return_when=FIRST_COMPLETED)
        wait(under_way)
    cause, dispatch.cause = dispatch.cause, None
    try:
        if cause is not None:
            raise cause
    finally:
        del cause  # its traceback has this frame: neither is to keep the other, and the plan file, in memory
    if dispatch.stop.is_set():
        raise dispatch.stopped()
