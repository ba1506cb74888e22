"""Checks of receipts and jobs, against the author's own answer."""

from __future__ import annotations

import contextlib
import copy
import json
import threading
from dataclasses import asdict
from typing import Any

import httpx

from sync.errors import DestinationError
from sync.sdk.connector import Connector
from sync.sdk.nouns import Batch, Change, Job, Op, Receipt, Status
from sync.testing import samples
from sync.testing.case import SUCCESS, Case, NotApplicable, require, watching
from sync.testing.check import check
from sync.testing.hostile import Wire, cut, shortened

_LARGEST = 5000  # records: a declared size above it is tried with so many


@check("every change of every op gets exactly one receipt, and all is applied")
def one_receipt_a_change(case: Case) -> None:
    """The author's answer says that all is well."""
    for op in case.ops:
        receipts = case.push(case.connect(), case.batch(op))
        failed = [r for r in receipts if r.status not in SUCCESS]
        require(not failed, f"{op}: the answer was good, yet a receipt says {failed[:1]}")


@check("a batch of one works")
def batch_of_one(case: Case) -> None:
    """Bisection ends there."""
    for op in case.ops:
        case.push(case.connect(), case.batch(op, 1))


@check("a full batch of the declared size works")
def full_batch(case: Case) -> None:
    """The limit is a promise."""
    size = min(case.spec.limits.batch_size or 1000, _LARGEST)
    for op in case.ops:
        receipts = case.push(case.connect(), case.batch(op, size, "full"))
        require(all(r.status in SUCCESS for r in receipts), f"{op}: not all of {size} records were applied")


@check("a batch of the declared bytes works")
def full_bytes(case: Case) -> None:
    """One large record is a batch, too."""
    size = min(case.spec.limits.batch_bytes or 1_000_000, case.contract.largest_record)
    made = [c for op in case.ops for c in samples.padded(case.spec, op, size - 2000)][:1]
    if not made:
        raise NotApplicable("no field takes text of any length")
    case.push(case.connect(), case.batch_of(made))


@check("a batch of several ops works where it allows mixed ops")
def mixed_ops(case: Case) -> None:
    """Only where the object says so does the engine send one."""
    if not case.spec.limits.mixed_ops or len(case.ops) < 2:
        raise NotApplicable("ops are not mixed")
    made = [c for op in case.ops for c in case.contract.changes(case.spec, op, 2, "mixed")]
    case.push(case.connect(), case.batch_of(made[: case.spec.limits.batch_size or len(made)]))


@check("odd texts, empty fields and other scripts go through")
def odd_values(case: Case) -> None:
    """Whatever a warehouse holds is sent or refused for that record, never a crash."""
    for op in case.ops:
        made = samples.odd(case.spec, op)
        size = case.spec.limits.batch_size or len(made)
        for start in range(0, len(made), size):
            case.push(case.connect(), case.batch_of(made[start : start + size]))


@check("the batch it is given stays as it was")
def unchanged_batch(case: Case) -> None:
    """It is sent again, and folded into members, from the same data."""
    for op in case.ops:
        batch = case.batch(op)
        before = copy.deepcopy(batch)
        case.push(case.connect(), batch)
        require(batch == before, f"{op}: push changed the batch")


@check("the same batch makes the same requests, byte for byte", http=True)
def same_requests(case: Case) -> None:
    """A replay must be recognisable: no clocks, no random keys."""
    for op in case.ops:
        first, second = _asked(case, op), _asked(case, op)
        keys = [[r.headers.get("idempotency-key") for r in w.requests] for w in (first, second)]
        require(first.bodies == second.bodies, f"{op}: the same batch made different requests")
        require(keys[0] == keys[1], f"{op}: the same batch had two idempotency keys")


def _asked(case: Case, op: Op) -> Wire:
    """What a push asks a destination that is as it was at first."""
    case.contract.begin()
    wire = case.wire()
    case.push(case.connect(wire), case.batch(op))
    return wire


@check("the same batch twice gives the same receipts where it says it is idempotent")
def idempotent(case: Case) -> None:
    """The second time may find the work done; it must not call that an error."""
    if not case.spec.idempotent:
        raise NotApplicable("the object is not idempotent")
    for op in case.ops:
        connector, batch = case.connect(), case.batch(op)
        first = {r.key: r.status for r in case.push(connector, batch)}
        second = {r.key: r.status for r in case.push(connector, batch)}
        require(first == second, f"{op}: sent twice, the receipts differ")


@check("two threads do not mix their batches up")
def two_threads(case: Case) -> None:
    """The engine pushes from `concurrency` threads through one connector."""
    if case.spec.limits.concurrency < 2:
        raise NotApplicable("it takes one request at a time")
    meet, first = threading.Barrier(2), iter(range(2))

    def answer(request: httpx.Request) -> httpx.Response:
        if next(first, None) is not None:  # one of each thread: a thread waits for its answer
            with contextlib.suppress(threading.BrokenBarrierError):
                meet.wait(2)
        return case.answer(request)

    wire = case.wire(answer) if case.uses_http else case.wire()
    connector = case.connect(wire)
    failures: list[BaseException] = []
    threads = [
        threading.Thread(target=_collect, args=(case, connector, case.batch(None, 2, f"thread{n}"), failures))
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    require(not failures, f"pushed from two threads at once: {failures[:1]}")


def _collect(case: Case, connector: Connector[Any], batch: Batch, failures: list[BaseException]) -> None:
    try:
        receipts = case.push(connector, batch)
        require(all(r.status in SUCCESS for r in receipts), "not all was applied")
    except Exception as exc:  # noqa: BLE001 - whatever it was, it is told by the thread that waits
        failures.append(exc)


@check("an answer one entry short is not read as if it were whole", http=True)
def shortened_lists(case: Case) -> None:
    """Exactly one receipt a change, or an error; never fewer receipts."""
    for op in case.ops:
        batch = case.batch(op)
        wire = case.wire(shortened(case.answer, len(batch.changes)))
        with contextlib.suppress(DestinationError):
            case.push(case.connect(wire), batch)


@check("an answer cut in the middle is never read as applied", http=True)
def cut_answers(case: Case) -> None:
    """A body that is half there says nothing."""
    for op in case.ops:
        wire, batch = case.wire(cut(case.answer)), case.batch(op)
        bodies = []
        try:
            receipts = case.push(case.connect(wire), batch)
            bodies = [case.answer(r).content for r in wire.requests]
        except DestinationError:
            continue
        require(
            not any(bodies) or not any(r.status in SUCCESS for r in receipts),
            f"{op}: the answer was cut off in the middle, yet a record counts as applied",
        )


@check("a rejected record has a reason, and the others are applied", http=True)
def reasons(case: Case) -> None:
    """People mend records by the reason."""
    if case.contract.refuse_first(httpx.Request("GET", "https://localhost")) is None:
        raise NotApplicable("the contract has no answer that refuses one record")
    for op in case.ops:
        batch, refusals = case.batch(op), list[httpx.Response]()
        receipts = case.push(case.connect(case.wire(_refusing(case, refusals))), batch)
        if not refusals:
            raise NotApplicable("the contract refuses no record of this object")
        by_key = {r.key: r for r in receipts}
        first, *others = [by_key[c.key] for c in batch.changes]
        require(first.status is Status.REJECTED, f"{op}: the first record was refused, its receipt says {first}")
        require(first.reason.strip(), f"{op}: the rejection has no reason")
        require(all(r.status in SUCCESS for r in others), f"{op}: the others were taken, a receipt says otherwise")


def _refusing(case: Case, refusals: list[httpx.Response]) -> Any:
    def answer(request: httpx.Request) -> httpx.Response:
        refusal = case.contract.refuse_first(request)
        if refusal is None:
            return case.answer(request)
        refusals.append(refusal)
        return case.judged(request, refusal)

    return answer


@check("it never sleeps, reads the environment or opens connections of its own")
def well_behaved(case: Case) -> None:
    """Waiting, settings and connections are the engine's."""
    for op in case.ops:
        connector, batch = case.connect(), case.batch(op)
        with watching(http=case.uses_http) as watch:
            case.push(connector, batch)
        require(not watch.slept, f"{op}: it sleeps")
        require(not watch.environment, f"{op}: it reads the environment ({', '.join(watch.environment[:3])})")
        if case.uses_http:
            require(not watch.connected, f"{op}: it opens a connection beside the client it was given")


@check("a push that goes well writes no personal data and no secret to logs or the terminal")
def discreet(case: Case) -> None:
    """The engine logs what is worth logging."""
    for op in case.ops:
        connector, batch = case.connect(), case.batch(op)
        with watching(http=case.uses_http) as watch:
            case.push(connector, batch)
        require(samples.CANARY not in watch.said, f"{op}: personal data was logged or printed")
        require(not any(s in watch.said for s in case.secrets), f"{op}: a secret was logged or printed")


@check("a job survives JSON, is polled, and never asks again about settled records")
def jobs(case: Case) -> None:
    """A run may end between two polls."""
    seen = [_job(case, op) for op in case.ops]
    if not any(seen):
        raise NotApplicable("it answers with receipts at once")


def _job(case: Case, op: Op) -> bool:
    connector, batch = case.connect(), case.batch(op)
    outcome = connector.push(batch)
    if not isinstance(outcome, Job):
        return False
    for _ in range(25):
        require(outcome.poll_after > 0, "`poll_after` is not above 0")
        outcome, before = _revived(outcome), outcome
        asked = {c.key for c in batch.changes} - {r.key for r in before.settled}
        following = case.poll(connector, outcome, batch)
        if not isinstance(following, Job):
            again = [r.key for r in following if r.key not in asked]
            require(not again, "a poll answers for records that were settled before")
            case.complete(batch, [*before.settled, *following])
            return True
        known = {r.key for r in following.settled}
        require({r.key for r in before.settled} <= known, "a poll forgot records that were settled")
        outcome = following
    require(False, "the job is never over")
    return True


def _revived(job: Job) -> Job:
    """The job as it comes back from the ledger."""
    try:
        plain = json.loads(json.dumps(asdict(job)))
    except (TypeError, ValueError) as exc:
        require(False, f"the job does not survive JSON: {exc}")
        raise
    settled = tuple(Receipt(**{**r, "status": Status(r["status"])}) for r in plain["settled"])
    return Job(plain["id"], plain["data"], settled, plain["poll_after"])


@check("changes and receipts agree on keys, whatever the keys look like")
def opaque_keys(case: Case) -> None:
    """A key is opaque: a connector must not build it anew from identifiers."""
    for op in case.ops:
        made = [
            Change(c.op, f"ключ/{n} \u2028", c.identifiers, c.fields, c.remote_id)
            for n, c in enumerate(case.batch(op).changes)
        ]
        case.push(case.connect(), case.batch_of(made))
