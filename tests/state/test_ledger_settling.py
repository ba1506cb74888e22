"""The end of a run, and the small things the ledger remembers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync.errors import Fenced, StateError
from sync.sdk.nouns import Job, Op
from sync.state.nouns import BatchState, Event, Outcomes, PlanStatus, RunRequest, RunStatus, Settlement

SYNC = "orders_to_crm"
DONE = Settlement(RunStatus.COMPLETED, {"applied": 10})
ENDED = Event("ann", "run.ended", "r1")


@pytest.fixture
def planned(ledger, lease, make):
    """An open run of an approved plan on a refresh, its first batch acknowledged."""
    ledger.add_refresh(lease, make.refresh())
    ledger.add_plan(lease, make.plan(status=PlanStatus.APPROVED))
    ledger.open(lease, make.run(plan=make.plan().id), make.batches())
    ledger.acknowledge(lease, ledger.intend(lease, "r1", 0, 5), Outcomes(10))
    return ledger.run("r1")


def test_everything_a_run_settles_becomes_true_at_once(ledger, lease, make, planned, events):
    settlement = Settlement(
        RunStatus.COMPLETED_WITH_ERRORS,
        {"applied": 10, "rejected": 1},
        generation=make.generation(1, run="r1", refresh="f1"),
        accept_refresh="f1",
        rejected=[make.rejected("k1")],
        dirty=[("k2", 5, Op.ADD)],
        plan_status=PlanStatus.EXECUTED,
        error={"code": "HG403", "message": "gone"},
        events=[ENDED],
    )

    ledger.finish(lease, "r1", settlement)

    run = ledger.run("r1")
    assert (run.status, run.counts, run.error) == (settlement.status, settlement.counts, settlement.error)
    assert abs(run.finished_at - ledger.now()) < 5
    assert ledger.open_run(SYNC) is None
    assert ledger.generation(SYNC) == settlement.generation
    assert ledger.refresh("f1").accepted
    assert ledger.rejected(SYNC) == [make.rejected("k1")]
    assert ledger.dirty(SYNC) == [("k2", "r1", 5, Op.ADD)]
    assert ledger.plan(make.plan().id).status is PlanStatus.EXECUTED
    assert [b.state for b in ledger.batches("r1")] == [
        BatchState.ACKED,
        BatchState.CANCELLED,
        BatchState.CANCELLED,
    ]
    assert events() == ["run.ended"]


def test_a_failure_half_way_leaves_the_run_as_it_was(ledger, lease, make, planned, events):
    twice = replace(DONE, rejected=[make.rejected()], generation=make.generation(7), events=[ENDED])

    with pytest.raises(Fenced):
        ledger.finish(lease, "r1", twice)

    assert ledger.open_run(SYNC) == planned
    assert ledger.rejected() == []
    assert ledger.generations(SYNC) == []
    assert events() == []


def test_what_an_audit_log_cannot_keep_did_not_happen(ledger, lease, planned):
    with pytest.raises(TypeError):
        ledger.finish(lease, "r1", replace(DONE, events=[Event("ann", "run.ended", "r1", {"what": object()})]))

    assert ledger.open_run(SYNC) == planned


def test_a_run_ends_once(ledger, lease, planned):
    ledger.finish(lease, "r1", DONE)

    with pytest.raises(StateError, match="not open"):
        ledger.finish(lease, "r1", DONE)


def test_a_run_is_not_completed_while_a_request_may_be_under_way(ledger, lease, planned):
    ledger.intend(lease, "r1", 1, 5)
    with pytest.raises(StateError, match="batch 1 may still be under way"):
        ledger.finish(lease, "r1", DONE)

    ledger.park(lease, "r1", 1)
    ledger.keep_job(lease, ledger.intend(lease, "r1", 2, 5), Job("j"))
    with pytest.raises(StateError, match="batch 2 may still be under way"):
        ledger.finish(lease, "r1", DONE)

    assert ledger.open_run(SYNC) is not None


def test_a_run_that_is_stopped_parks_what_has_no_answer(ledger, lease, make, planned):
    attempt = ledger.intend(lease, "r1", 1, 5)

    ledger.finish(lease, "r1", Settlement(RunStatus.STOPPED, {}))

    states = [(b.state, b.unknown) for b in ledger.batches("r1")]
    assert states == [(BatchState.ACKED, 0), (BatchState.PARKED, 10), (BatchState.CANCELLED, 0)]
    assert ledger.attempts("r1") == [attempt]
    assert ledger.barrier(SYNC, "r2") == attempt.alive_until


def test_a_lost_lease_ends_no_run(ledger, lease, planned, make):
    ledger.acquire(SYNC, "somebody else", 30, dead=lease.holder)

    with pytest.raises(Fenced):
        ledger.finish(lease, "r1", DONE)
    with pytest.raises(Fenced):
        ledger.reset(lease, make.generation(1))
    with pytest.raises(Fenced):
        ledger.drop_rejected(lease, ["k1"])
    with pytest.raises(Fenced):
        ledger.remember(lease, "definition", "x")

    assert ledger.open_run(SYNC) == planned
    assert ledger.note(SYNC, "definition") is None


def test_generations_follow_each_other_without_gaps(ledger, lease, make):
    for number in (1, 2):
        run = f"r{number}"
        ledger.open(lease, make.run(run), [])
        ledger.finish(lease, run, replace(DONE, generation=make.generation(number)))
    ledger.open(lease, make.run("r3"), [])

    for wrong in (make.generation(2), make.generation(4), make.generation(3, sync="other")):
        with pytest.raises(Fenced):
            ledger.finish(lease, "r3", replace(DONE, generation=wrong))

    assert ledger.generation(SYNC) == make.generation(2)
    assert ledger.generation(SYNC, 1) == make.generation(1)
    assert ledger.generations(SYNC) == [make.generation(1), make.generation(2)]


def test_a_sync_without_members_is_at_generation_0(ledger):
    assert ledger.generation(SYNC) == ledger.generation(SYNC, 0)
    assert (ledger.generation(SYNC).number, ledger.generation(SYNC).base) == (0, None)
    with pytest.raises(StateError, match="no generation 5"):
        ledger.generation(SYNC, 5)


def test_a_rejected_record_is_replaced_by_key_and_dropped_when_resolved(ledger, lease, make):
    ledger.open(lease, make.run("r1"), [])
    ledger.finish(lease, "r1", replace(DONE, rejected=[make.rejected("k1"), make.rejected("k2")]))
    ledger.open(lease, make.run("r2"), [])
    again = make.rejected("k1", attempts=2, last_at=9.0)

    ledger.finish(lease, "r2", replace(DONE, rejected=[again], resolved=iter(["k1", "k2", "unknown"])))

    assert ledger.rejected(SYNC) == [again]


def test_a_member_that_is_clean_and_dirty_is_dirty(ledger, lease, make):
    ledger.open(lease, make.run("r1"), [])
    ledger.finish(lease, "r1", replace(DONE, dirty=[("a", 1, Op.ADD), ("b", 2, Op.REMOVE)]))
    ledger.open(lease, make.run("r2"), [])

    ledger.finish(lease, "r2", replace(DONE, clean=iter(["a", "b"]), dirty=[("b", 8, Op.ADD)]))

    assert ledger.dirty(SYNC) == [("b", "r2", 8, Op.ADD)]


def test_rejected_records_are_given_up_with_a_name_and_a_reason_and_taken_up_again(ledger, lease, make, events):
    ledger.open(lease, make.run("r1"), [])
    ledger.finish(
        lease, "r1", replace(DONE, rejected=[make.rejected(k, last_at=float(i)) for i, k in enumerate("abc")])
    )

    given = ledger.set_rejected(
        SYNC,
        ["a", "b", "x"],
        retry=False,
        actor="ann",
        reason="moved away",
        events=[Event("ann", "x.given_up", SYNC)],
    )

    assert given == 2
    assert [r.key for r in ledger.rejected(SYNC)] == ["c", "b", "a"]
    assert [r.key for r in ledger.rejected(given_up=False)] == ["c"]
    up = ledger.rejected(given_up=True)[0]
    assert (up.given_up_by, up.given_up_reason) == ("ann", "moved away")
    assert abs(up.given_up_at - ledger.now()) < 5
    assert events() == ["x.given_up"]

    assert ledger.set_rejected(SYNC, ["a"], retry=True, actor="ann", reason="back") == 1
    back = next(r for r in ledger.rejected(SYNC) if r.key == "a")
    assert (back.next_at, back.given_up_by, back.given_up_at) == (0.0, None, None)


def test_rejected_records_in_step_with_the_source_are_dropped(ledger, lease, make):
    ledger.open(lease, make.run("r1"), [])
    other = make.rejected("k1", sync="other")
    ledger.finish(lease, "r1", replace(DONE, rejected=[make.rejected("k1"), make.rejected("k2"), other]))

    ledger.drop_rejected(lease, ["k1", "unknown"])

    assert [(r.sync, r.key) for r in ledger.rejected()] == [(SYNC, "k2"), ("other", "k1")]


def _removals(ledger, lease, make, run, approved=False, counts=None, op="remove"):
    ledger.open(lease, make.run(run, approved=approved), make.batches(run, 2, 10, op))
    ledger.acknowledge(lease, ledger.intend(lease, run, 0, 5), Outcomes(7, 3))
    ledger.finish(lease, run, Settlement(RunStatus.STOPPED, counts or {}))


def test_acknowledged_removals_that_nobody_approved_add_up(ledger, lease, make):
    before = ledger.now()
    _removals(ledger, lease, make, "r1")
    _removals(ledger, lease, make, "r2", approved=True)
    _removals(ledger, lease, make, "r3", op="add")
    _removals(ledger, lease, make, "r4", op="mixed", counts={"remove": 4})
    _removals(ledger, lease, make, "r5", op="mixed", counts={"remove": 400})

    assert ledger.removed_since(SYNC, before) == 10 + 4 + 10
    assert ledger.removed_since(SYNC, ledger.now() + 1) == 0
    assert ledger.removed_since("another", before) == 0


def test_a_reset_names_a_generation_and_clears_what_hung_on_the_old_one(ledger, lease, make, events):
    ledger.open(lease, make.run("r0"), [])
    ledger.finish(lease, "r0", replace(DONE, rejected=[make.rejected()], dirty=[("k", 1, Op.ADD)]))
    ledger.open(lease, make.run("r1"), make.batches())
    attempt = ledger.intend(lease, "r1", 1, 5)

    ledger.reset(lease, make.generation(1, base=None), [Event("ann", "state.reset", SYNC)])

    assert ledger.generation(SYNC) == make.generation(1, base=None)
    assert (ledger.rejected(SYNC), ledger.dirty(SYNC)) == ([], [])
    assert ledger.open_run(SYNC) is None
    assert ledger.run("r1").status is RunStatus.CANCELLED
    states = [(b.state, b.unknown) for b in ledger.batches("r1")]
    assert states == [(BatchState.CANCELLED, 0), (BatchState.PARKED, 10), (BatchState.CANCELLED, 0)]
    assert ledger.barrier(SYNC, "r2") == attempt.alive_until
    assert events() == ["state.reset"]


def test_a_slot_is_asked_for_once_and_taken_once(ledger):
    request = RunRequest(SYNC, "2026-03-01T09:00:00Z", "schedule", "daemon", 5.0)

    assert ledger.request_run(request)
    assert not ledger.request_run(replace(request, actor="another daemon"))
    assert ledger.requests() == [request]

    assert ledger.take_request(SYNC, request.slot)
    assert not ledger.take_request(SYNC, request.slot)
    assert ledger.requests(SYNC) == []
    assert abs(ledger.requests(SYNC, open_only=False)[0].taken_at - ledger.now()) < 5
    assert not ledger.take_request(SYNC, "unknown")


def test_the_last_slot_is_the_schedules_and_requests_come_oldest_first(ledger):
    asked = {
        "2026-03-01T10:00:00Z": "schedule",
        "manual-1": "console",
        "2026-03-01T09:00:00Z": "schedule",
        "2026-03-01T10:30:00Z#resume": "resume",
    }
    for at, (slot, why) in enumerate(asked.items()):
        ledger.request_run(RunRequest(SYNC, slot, why, "ann", float(at)))

    assert ledger.last_slot(SYNC) == "2026-03-01T10:00:00Z"
    assert ledger.last_slot("another") is None
    assert [r.slot for r in ledger.requests()] == list(asked)


def test_syncs_and_destinations_are_paused_with_a_reason_and_resumed(ledger, events):
    ledger.pause(SYNC, "broken", [Event("ann", "sync.paused", SYNC)])
    ledger.pause(SYNC, "still broken")
    ledger.pause("destination:crm", "401")
    assert ledger.paused() == {SYNC: "still broken", "destination:crm": "401"}

    ledger.pause(SYNC, None, [Event("ann", "sync.resumed", SYNC)])
    ledger.pause("never paused", None)

    assert ledger.paused() == {"destination:crm": "401"}
    assert events() == ["sync.paused", "sync.resumed"]


def test_a_fact_is_remembered_until_it_changes(ledger, lease):
    ledger.remember(lease, "definition", "a")
    ledger.remember(lease, "definition", "b")

    assert ledger.note(SYNC, "definition") == "b"
    assert ledger.note(SYNC, "other") is None


def test_events_are_kept_in_order(ledger, events):
    ledger.record(Event("ann", "one.done", "x"), Event("ann", "two.done", "x"))

    assert events() == ["one.done", "two.done"]
