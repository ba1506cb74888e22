"""Runs, batches and attempts: the steps of the commit protocol that the ledger permits, and those it refuses."""

from __future__ import annotations

import time

import pytest

from sync.errors import Fenced, StateError
from sync.sdk.nouns import Job, Op, Receipt, Status
from sync.state.nouns import Attempt, BatchRow, BatchState, Event, Outcomes, RunStatus, Settlement

SYNC = "orders_to_crm"
WHOLE = Outcomes(applied=10)
MIXED = Outcomes(
    applied=5,
    accepted=1,
    exceptions=[
        (2, "k2", Op.ADD, Status.REJECTED, "no such city"),
        (5, "k5", Op.ADD, Status.UNKNOWN, ""),
        (3, "k3", Op.ADD, Status.REJECTED, "Zoë's row \ud800 \x00"),
        (4, "k4", Op.ADD, Status.DEFERRED, "busy"),
    ],
    remote_ids={0: "77", 1: "7\u20ac"},
)


def batch(ledger, number=0):
    """The batch as the ledger has it."""
    return next(b for b in ledger.batches("r1") if b.number == number)


def test_an_opened_run_comes_back_with_its_batches_and_epoch(ledger, lease, make, events):
    run = make.run()

    ledger.open(lease, run, make.batches(), [Event("ann", "run.opened", run.id)])

    kept = ledger.run("r1")
    assert (kept.ops, kept.status, kept.epoch) == (run.ops, RunStatus.SENDING, lease.epoch)
    assert ledger.batches("r1") == make.batches()
    assert ledger.open_run(SYNC) == kept
    assert events() == ["run.opened"]


def test_batches_come_in_the_order_of_their_rows_and_by_state(ledger, lease, make):
    backwards = list(reversed(make.batches()))
    ledger.open(lease, make.run(), backwards)
    ledger.intend(lease, "r1", 1, 5)

    assert [b.number for b in ledger.batches("r1")] == [0, 1, 2]
    assert [b.number for b in ledger.batches("r1", BatchState.INTENT)] == [1]
    assert [b.number for b in ledger.batches("r1", BatchState.INTENT, BatchState.PLANNED)] == [0, 1, 2]
    assert ledger.batches("r2") == []


def test_a_sync_has_one_open_run_at_most(ledger, lease, make, sending):
    with pytest.raises(StateError):
        ledger.open(lease, make.run("r2"), make.batches("r2"))

    assert ledger.run("r2") is None
    assert ledger.batches("r2") == []


def test_two_batches_never_share_an_idempotency_key(ledger, lease, make):
    same = [BatchRow("r1", 0, "key", 0, "add", 0, 9), BatchRow("r1", 1, "key", 0, "add", 10, 19)]

    with pytest.raises(StateError):
        ledger.open(lease, make.run(), same)

    assert ledger.run("r1") is None


def test_a_run_is_opened_with_its_own_lease_and_batches_only(ledger, lease, make):
    with pytest.raises(StateError, match="another"):
        ledger.open(lease, make.run(sync="other"), [])
    with pytest.raises(StateError, match="another"):
        ledger.open(lease, make.run(), make.batches("r2"))


def test_a_run_that_sends_nothing_is_kept_and_not_open(ledger, make, events):
    failed = make.run(status=RunStatus.FAILED, finished_at=4.0, error={"code": "HG200", "message": "gone"})

    ledger.add_run(failed, [Event("ann", "run.failed", "r1")])

    assert ledger.run("r1") == failed
    assert ledger.open_run(SYNC) is None
    assert events() == ["run.failed"]


def test_runs_come_newest_first(ledger, make):
    for id in ("r1", "r2", "r3"):
        ledger.add_run(make.run(id, status=RunStatus.HELD, sync="other" if id == "r2" else SYNC))

    assert [r.id for r in ledger.runs()] == ["r3", "r2", "r1"]
    assert [r.id for r in ledger.runs(SYNC, limit=1)] == ["r3"]


def test_an_open_run_moves_to_waiting_and_takes_the_epoch_of_who_resumes_it(ledger, lease, sending):
    later = ledger.acquire(SYNC, "me", 30, dead=lease.holder)

    ledger.set_run(later, "r1", RunStatus.WAITING)

    assert ledger.open_run(SYNC).status is RunStatus.WAITING
    assert ledger.open_run(SYNC).epoch == later.epoch > lease.epoch


def test_a_run_does_not_end_or_come_back_by_a_move(ledger, lease, make, sending):
    with pytest.raises(StateError, match="not a step"):
        ledger.set_run(lease, "r1", RunStatus.COMPLETED)
    assert ledger.run("r1").status is RunStatus.SENDING

    ledger.add_run(make.run("r2", status=RunStatus.FAILED))
    with pytest.raises(StateError, match="not open"):
        ledger.set_run(lease, "r2", RunStatus.SENDING)


def test_an_intent_is_an_unsettled_attempt_by_the_steady_clock(ledger, lease, sending):
    before = ledger.steady()

    attempt = ledger.intend(lease, "r1", 0, 5.0)

    assert before + 5 <= attempt.alive_until <= ledger.steady() + 5
    assert ledger.attempts("r1") == [attempt]
    assert (batch(ledger).state, batch(ledger).attempts) == (BatchState.INTENT, 1)


def test_a_replay_is_a_second_attempt_beside_the_first(ledger, lease, sending):
    first = ledger.intend(lease, "r1", 0, 5)
    second = ledger.intend(lease, "r1", 0, 5)

    ledger.acknowledge(lease, second, WHOLE)

    assert ledger.attempts("r1") == [first]
    assert batch(ledger).attempts == 2


def test_an_answer_that_nothing_was_applied_puts_the_batch_back(ledger, lease, sending):
    attempt = ledger.intend(lease, "r1", 0, 5)

    ledger.settle(lease, attempt)

    assert ledger.attempts("r1") == []
    assert batch(ledger).state is BatchState.PLANNED


def test_a_batch_with_another_attempt_in_the_air_is_not_put_back(ledger, lease, sending):
    first = ledger.intend(lease, "r1", 0, 5)
    second = ledger.intend(lease, "r1", 0, 5)

    ledger.settle(lease, second)

    assert batch(ledger).state is BatchState.INTENT
    assert ledger.attempts("r1") == [first]


def test_an_answer_is_kept_record_by_record(ledger, lease, sending):
    attempt = ledger.intend(lease, "r1", 0, 5)

    ledger.acknowledge(lease, attempt, MIXED)

    kept = batch(ledger)
    assert (kept.applied, kept.accepted, kept.rejected, kept.deferred, kept.unknown) == (5, 1, 2, 1, 1)
    assert kept.state is BatchState.ACKED
    assert ledger.exceptions("r1") == [
        (2, "k2", Op.ADD, Status.REJECTED, "no such city"),
        (3, "k3", Op.ADD, Status.REJECTED, "Zoë's row ? \ufffd"),
        (4, "k4", Op.ADD, Status.DEFERRED, "busy"),
        (5, "k5", Op.ADD, Status.UNKNOWN, ""),
    ]
    assert ledger.remote_ids("r1") == {0: "77", 1: "7\u20ac"}
    assert ledger.attempts("r1") == []


def test_remote_ids_of_all_batches_come_together(ledger, lease, sending):
    for number in (0, 2):
        attempt = ledger.intend(lease, "r1", number, 5)
        ledger.acknowledge(lease, attempt, Outcomes(10, remote_ids={number * 10: f"id{number}"}))

    assert ledger.remote_ids("r1") == {0: "id0", 20: "id2"}


def test_an_answer_counts_once(ledger, lease, sending):
    attempt = ledger.intend(lease, "r1", 0, 5)
    ledger.acknowledge(lease, attempt, WHOLE)

    with pytest.raises(StateError, match="cannot be acknowledged: it is acked"):
        ledger.acknowledge(lease, attempt, MIXED)

    assert batch(ledger).applied == 10
    assert ledger.exceptions("r1") == []


def test_an_answer_without_an_intent_is_refused(ledger, lease, sending):
    with pytest.raises(StateError, match="it is planned"):
        ledger.acknowledge(lease, Attempt(99, "r1", 0, lease.epoch, 0.0), WHOLE)


@pytest.mark.parametrize("outcomes", [Outcomes(9), Outcomes(11), Outcomes(9, 2), Outcomes(0)])
def test_an_answer_that_does_not_add_up_to_the_batch_is_refused(ledger, lease, sending, outcomes):
    attempt = ledger.intend(lease, "r1", 0, 5)

    with pytest.raises(StateError, match="of its 10 records"):
        ledger.acknowledge(lease, attempt, outcomes)

    assert batch(ledger).state is BatchState.INTENT
    assert ledger.attempts("r1") == [attempt]


@pytest.mark.parametrize("state", ["acked", "split", "parked", "cancelled"])
def test_a_batch_that_is_over_is_never_sent_again(ledger, lease, make, sending, state):
    attempt = ledger.intend(lease, "r1", 0, 5)
    if state == "acked":
        ledger.acknowledge(lease, attempt, WHOLE)
    elif state == "split":
        ledger.split(lease, attempt, [BatchRow("r1", 10, "c", 0, "add", 0, 9, parent=0)])
    elif state == "parked":
        ledger.park(lease, "r1", 0)
    else:
        ledger.settle(lease, attempt)
        ledger.finish(lease, "r1", Settlement(RunStatus.STOPPED, {}))

    with pytest.raises(StateError, match=f"cannot be sent: it is {state}"):
        ledger.intend(lease, "r1", 0, 5)


def test_a_batch_that_was_never_planned_is_named(ledger, lease, sending):
    with pytest.raises(StateError, match="run r1 has no batch 7") as refused:
        ledger.intend(lease, "r1", 7, 5)

    assert refused.value.code == "HG319"


def test_a_job_survives_and_is_polled_not_sent_again(ledger, lease, sending):
    job = Job("j1", {"part": [1, 2**80, "\ud800"]}, (Receipt("k", Status.REJECTED, "why", "7"),), 2.5)
    ledger.keep_job(lease, ledger.intend(lease, "r1", 0, 5), job)
    assert (batch(ledger).state, batch(ledger).job) == (BatchState.JOB, job)
    assert ledger.attempts("r1") == []

    poll = ledger.intend(lease, "r1", 0, 5)
    assert (batch(ledger).state, batch(ledger).job) == (BatchState.JOB, job)

    ledger.settle(lease, poll)
    assert batch(ledger).state is BatchState.JOB

    ledger.acknowledge(lease, ledger.intend(lease, "r1", 0, 5), WHOLE)
    assert (batch(ledger).state, batch(ledger).job) == (BatchState.ACKED, None)


def test_a_refused_batch_is_replaced_by_parts_that_have_its_rows(ledger, lease, sending):
    attempt = ledger.intend(lease, "r1", 0, 5)
    parts = [
        BatchRow("r1", 3, "a", 0, "add", 0, 4, parent=0),
        BatchRow("r1", 4, "b", 0, "add", 5, 9, parent=0),
    ]

    ledger.split(lease, attempt, parts)

    assert [b.number for b in ledger.batches("r1")] == [0, 3, 4, 1, 2]
    assert batch(ledger).state is BatchState.SPLIT
    assert [batch(ledger, 3), batch(ledger, 4)] == parts
    assert ledger.attempts("r1") == []


@pytest.mark.parametrize("ranges", [[(0, 4)], [(0, 4), (6, 9)], [(0, 5), (5, 9)], [(0, 4), (5, 10)], []])
def test_parts_that_lose_or_repeat_a_row_are_refused(ledger, lease, sending, ranges):
    attempt = ledger.intend(lease, "r1", 0, 5)
    parts = [BatchRow("r1", 3 + i, f"c{i}", 0, "add", a, b, parent=0) for i, (a, b) in enumerate(ranges)]

    with pytest.raises(StateError, match="do not add up"):
        ledger.split(lease, attempt, parts)

    assert batch(ledger).state is BatchState.INTENT
    assert len(ledger.batches("r1")) == 3


def test_a_parked_batch_is_unknown_as_a_whole_and_its_request_may_live_on(ledger, lease, sending):
    attempt = ledger.intend(lease, "r1", 0, 5)

    ledger.park(lease, "r1", 0)

    assert (batch(ledger).state, batch(ledger).unknown) == (BatchState.PARKED, 10)
    assert ledger.attempts("r1") == [attempt]


def test_the_barrier_is_the_last_living_attempt_of_another_run(ledger, lease, sending):
    ledger.intend(lease, "r1", 0, 5)
    last = ledger.intend(lease, "r1", 1, 9)

    assert ledger.barrier(SYNC, "r2") == last.alive_until
    assert ledger.barrier(SYNC, "r1") == 0.0
    assert ledger.barrier("another", "r2") == 0.0


def test_the_barrier_falls_when_the_attempts_are_answered_or_dead(ledger, lease, sending):
    ledger.settle(lease, ledger.intend(lease, "r1", 0, 5))
    ledger.intend(lease, "r1", 1, 0.05)
    time.sleep(0.06)

    assert ledger.barrier(SYNC, "r2") == 0.0
    assert len(ledger.attempts("r1")) == 1


def test_every_step_of_a_run_stops_at_a_lost_lease(ledger, lease, make, sending):
    attempt = ledger.intend(lease, "r1", 0, 5)
    ledger.acquire(SYNC, "somebody else", 30, dead=lease.holder)
    before = (ledger.batches("r1"), ledger.attempts("r1"), ledger.runs())

    for step in (
        lambda: ledger.open(lease, make.run("r2"), []),
        lambda: ledger.set_run(lease, "r1", RunStatus.WAITING),
        lambda: ledger.intend(lease, "r1", 1, 5),
        lambda: ledger.settle(lease, attempt),
        lambda: ledger.acknowledge(lease, attempt, MIXED),
        lambda: ledger.keep_job(lease, attempt, Job("j")),
        lambda: ledger.split(lease, attempt, [BatchRow("r1", 9, "c", 0, "add", 0, 9, parent=0)]),
        lambda: ledger.park(lease, "r1", 0),
    ):
        with pytest.raises(Fenced):
            step()

    assert (ledger.batches("r1"), ledger.attempts("r1"), ledger.runs()) == before
    assert ledger.exceptions("r1") == []
