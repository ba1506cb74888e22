"""Jobs: work the platform finishes later, asked about until it says that it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import httpx
from pydantic import Field

from sync.errors import ProtocolError
from sync.sdk.manifest.answer import body_of, prove, read, reason_of, unproven
from sync.sdk.manifest.auth import Strict
from sync.sdk.manifest.forms import Answer, Proof, Scalar, Silent
from sync.sdk.manifest.request import Call
from sync.sdk.manifest.text import ABSENT, dig, is_one_of
from sync.sdk.nouns import Batch, Change, Job, Op, Outcome, Receipt, Status
from sync.sdk.values import text

__all__ = ["JobAnswer", "Poll", "begun", "changes_of", "poll"]

Send = Callable[[Call, str], httpx.Response]


class Poll(Call):
    """How a job is asked about: a request with `{job}`, every `after` seconds. Without `path`, the job's id is an
    address on the same host.

    `state` is where its state stands; a state in none of the lists is an error that decides nothing. Statuses of
    HTTP can say that it is running, too; without `state`, any other good answer means done. A job that `failed`
    rejects its records with the reason at `reason`; one in an `uncertain` state leaves them unknown. `answer` says
    what the answer has of each record when it is done, or with `result` what the answer to that request has;
    without it all of them were applied.
    """

    path: str = ""
    after: float = Field(default=5.0, gt=0, le=86400)
    state: str = ""
    running: tuple[Scalar, ...] = ()
    done: tuple[Scalar, ...] = ()
    failed: tuple[Scalar, ...] = ()
    uncertain: tuple[Scalar, ...] = ()
    running_statuses: tuple[int, ...] = ()
    reason: str = ""
    result: Call | None = None
    answer: Answer | None = None

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        yield bool(self.state) and not self.done, "`done` is missing: which states mean that the job is over?"
        yield not self.state and not self.running_statuses, "give `state`, or `running_statuses`"
        yield not self.state and self.answer is None, "without `state` an `answer` has to prove that it is done"
        yield self.result is not None and self.answer is None, "`result` needs an `answer` that reads it"
        lists = [*self.running, *self.done, *self.failed, *self.uncertain]
        yield len(lists) != len({(type(one), one) for one in lists}), "a state stands in two of the lists"


class JobAnswer(Strict):
    """The answer names a job: its id stands at `id`, or in the `header`, where it may be an address; or it is what
    the action's `open` began, with `opened`: then the answer has to prove its success as a silent one does.

    `at_once` reads refusals that the answer has already; the others wait for the job.
    """

    kind: Literal["job"]
    statuses: tuple[int, ...] = ()
    success: Proof | None = None
    accepted: bool = False
    id: str = ""
    header: str = ""
    opened: bool = False
    at_once: Answer | None = None
    poll: Poll


def begun(
    answer: JobAnswer,
    plain: Sequence[str],
    changes: Sequence[Change],
    settled: Sequence[Receipt],
    response: httpx.Response,
    opened: str = "",
) -> Job:
    """The job that an answer names; `settled` are receipts of changes that were not sent, `opened` is the id of
    what was begun before."""
    if answer.opened:
        read(Silent(kind="silent", success=answer.success), plain, changes, response)
    elif answer.success is not None:
        prove(answer.success, response)
    id: Any = opened
    if not answer.opened:
        id = response.headers.get(answer.header, "") if answer.header else dig(body_of(response), answer.id)
    if isinstance(id, bool) or not isinstance(id, str | int) or not text(id).strip():
        raise unproven(answer.header or answer.id, response)
    refused: list[Receipt] = []
    if answer.at_once is not None:
        found = read(answer.at_once, plain, changes, response)
        refused = [receipt for receipt in found if receipt.status is Status.REJECTED]
    data = {
        "op": changes[0].op.value,
        "unsent": [receipt.key for receipt in settled],
        "ids": {c.key: c.remote_id for c in changes if c.remote_id is not None},
    }
    return Job(text(id), data, (*settled, *refused), answer.poll.after)


def changes_of(job: Job, batch: Batch) -> list[Change]:
    """What was sent when the job began, in that order, with the ids it was sent with."""
    unsent, ids = set(job.data.get("unsent", ())), job.data.get("ids", {})
    sent = [change for change in batch.changes if change.key not in unsent]
    return [replace(c, remote_id=ids.get(c.key, c.remote_id)) for c in sent]


def op_of(job: Job, batch: Batch) -> Op:
    """The op whose request began the job."""
    return Op(job.data.get("op", batch.changes[0].op.value))


def poll(answer: JobAnswer, plain: Sequence[str], job: Job, batch: Batch, send: Send) -> Outcome:
    """Ask once. Raises `ProtocolError` where the answer names no state that the manifest knows."""
    spec = answer.poll
    response = send(spec, job.id)
    if response.status_code in spec.running_statuses:
        return replace(job, poll_after=spec.after)
    changes = changes_of(job, batch)
    known = {receipt.key for receipt in job.settled}
    left = [change for change in changes if change.key not in known]
    if spec.state:
        body = body_of(response)
        state = dig(body, spec.state)
        if is_one_of(state, spec.running):
            return replace(job, poll_after=spec.after)
        if is_one_of(state, spec.failed):
            why = reason_of(body, spec.reason, f"the platform's job ended as {text(state)}")
            return [Receipt(change.key, Status.REJECTED, why) for change in left]
        if is_one_of(state, spec.uncertain):
            why = reason_of(body, spec.reason, f"the platform's job ended as {text(state)}")
            return [Receipt(change.key, Status.UNKNOWN, why) for change in left]
        if state is ABSENT or not is_one_of(state, spec.done):
            raise ProtocolError(
                f"the job is in a state that the manifest does not know ('{spec.state}')", response.text
            )
    return [receipt for receipt in _over(answer, plain, changes, job, response, send) if receipt.key not in known]


def _over(
    answer: JobAnswer, plain: Sequence[str], changes: Sequence[Change], job: Job, response: httpx.Response,
    send: Send,
) -> list[Receipt]:  # fmt: skip
    spec = answer.poll
    if spec.result is not None:
        response = send(spec.result, job.id)
    if spec.answer is not None:
        return read(spec.answer, plain, changes, response)
    good = Status.ACCEPTED if answer.accepted else Status.APPLIED
    return [Receipt(change.key, good, remote_id=change.remote_id) for change in changes]
