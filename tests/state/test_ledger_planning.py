"""Refreshes, plans and decisions, as the ledger keeps them."""

from __future__ import annotations

import pytest

from sync.errors import DecisionError, Fenced, StateError
from sync.state.nouns import Decision, Event, PlanStatus, RunRequest

SYNC = "orders_to_crm"
HELD = Event("ann", "plan.held", SYNC)


def test_a_refresh_comes_back_as_it_was_kept(ledger, lease, make):
    refresh = make.refresh()

    ledger.add_refresh(lease, refresh)

    assert ledger.refresh("f1") == refresh
    assert ledger.refresh("f2") is None


def test_refreshes_come_newest_first_and_can_be_limited(ledger, lease, make):
    for name in ("f1", "f2", "f3"):
        ledger.add_refresh(lease, make.refresh(name, accepted=name != "f2"))

    assert [r.id for r in ledger.refreshes(SYNC, limit=2)] == ["f3", "f2"]
    assert [r.id for r in ledger.refreshes(SYNC, accepted=True)] == ["f3", "f1"]
    assert [r.id for r in ledger.refreshes(SYNC, accepted=False)] == ["f2"]
    assert ledger.refreshes("another") == []


def test_a_plan_comes_back_as_it_was_kept(ledger, lease, make, events):
    plan = make.plan()

    ledger.add_plan(lease, plan, [HELD])

    assert ledger.plan(plan.id) == plan
    assert events() == ["plan.held"]


def test_a_plan_is_found_by_its_digest_and_by_a_prefix_of_six_digits(ledger, lease, make):
    plan = make.plan()
    ledger.add_plan(lease, plan)

    assert ledger.plan(plan.digest) == plan
    assert ledger.plan(plan.digest[:30].upper()) == plan
    assert ledger.plan(plan.digest[:6]) == plan
    assert ledger.plan(plan.digest[:5]) is None
    assert ledger.plan("%%%%%%") is None


def test_a_prefix_that_two_plans_share_finds_neither(ledger, lease, make):
    for name in ("a", "b"):
        digest = "abcdef" + make.plan(name).digest[6:]
        ledger.add_plan(lease, make.plan(name, id=digest[:12], digest=digest))

    assert ledger.plan("abcdef") is None
    assert ledger.plan("abcdef" + make.plan("a").digest[6:10]) is not None


def test_a_new_plan_voids_undecided_ones_of_its_sync_and_says_why(ledger, lease, make):
    other = ledger.acquire("other", "me", 30)
    ledger.add_plan(other, make.plan("elsewhere", sync="other"))
    ledger.add_plan(lease, make.plan("decided", status=PlanStatus.APPROVED))
    ledger.add_plan(lease, make.plan("old"))

    ledger.add_plan(lease, make.plan("new", status=PlanStatus.READY))

    old = ledger.plan(make.plan("old").id)
    assert (old.status, make.plan("new").id in old.reason) == (PlanStatus.VOID, True)
    assert ledger.plan(make.plan("decided").id).status is PlanStatus.APPROVED
    assert ledger.plan(make.plan("elsewhere").id).status is PlanStatus.HELD


def test_plans_come_newest_first_by_sync_and_status(ledger, lease, make):
    ledger.add_plan(lease, make.plan("old"))
    ledger.add_plan(lease, make.plan("new"))

    assert [p.id for p in ledger.plans(SYNC)] == [make.plan("new").id, make.plan("old").id]
    assert [p.id for p in ledger.plans(None, PlanStatus.VOID)] == [make.plan("old").id]
    assert len(ledger.plans(limit=1)) == 1
    assert ledger.plans("another") == []


def test_the_same_plan_made_again_keeps_its_first_approval(ledger, lease, make):
    plan = make.plan(needs=2)
    ledger.add_plan(lease, plan)
    ledger.decide(make.approval(plan, "ann"))

    ledger.add_plan(lease, make.plan(needs=2, created_at=9.0))

    assert ledger.plan(plan.id).created_at == 1.0
    assert ledger.decide(make.approval(plan, "bob")).status is PlanStatus.APPROVED


@pytest.mark.parametrize("over", [PlanStatus.VOID, PlanStatus.EXPIRED])
def test_the_same_plan_made_again_after_it_was_over_starts_without_approvals(ledger, lease, make, over):
    plan = make.plan(needs=2)
    ledger.add_plan(lease, plan)
    ledger.decide(make.approval(plan, "ann"))
    ledger.set_plan(plan.id, over)
    ledger.add_plan(lease, make.plan("between", status=PlanStatus.REJECTED))

    ledger.add_plan(lease, plan)

    assert ledger.plan(plan.id) == plan
    assert ledger.approvals(plan.id) == []
    assert ledger.decide(make.approval(plan, "ann")).status is PlanStatus.HELD
    assert ledger.plans(SYNC)[0].id == plan.id


def test_a_held_plan_that_ran_out_starts_anew(ledger, lease, make):
    plan = make.plan(needs=2, expires_at=1.0)
    ledger.add_plan(lease, plan)

    ledger.add_plan(lease, make.plan(needs=2))

    assert ledger.plan(plan.id).expires_at == 4e9


def test_a_plan_is_moved_to_void_once_and_a_second_move_changes_nothing(ledger, lease, make, events):
    plan = make.plan()
    ledger.add_plan(lease, plan)

    ledger.set_plan(plan.id, PlanStatus.VOID, "the source moved", [Event("ann", "plan.voided", plan.id)])
    ledger.set_plan(plan.id, PlanStatus.EXPIRED, "too late", [Event("ann", "plan.expired", plan.id)])

    assert (ledger.plan(plan.id).status, ledger.plan(plan.id).reason) == (PlanStatus.VOID, "the source moved")
    assert events() == ["plan.voided"]


def test_a_plan_is_not_approved_behind_the_decisions(ledger, lease, make):
    ledger.add_plan(lease, make.plan())

    with pytest.raises(StateError, match="by a decision"):
        ledger.set_plan(make.plan().id, PlanStatus.APPROVED)


def test_one_approval_is_enough_by_default_and_is_kept(ledger, lease, make, events):
    plan = make.plan()
    ledger.add_plan(lease, plan)

    decided = ledger.decide(make.approval(plan), [Event("ann", "plan.approved", plan.id)])

    assert decided.status is PlanStatus.APPROVED
    assert ledger.plan(plan.id) == decided
    assert ledger.approvals(plan.id) == [make.approval(plan)]
    assert events() == ["plan.approved"]


def test_the_run_of_an_approval_is_asked_for_with_it_or_neither_is_kept(ledger, lease, make, monkeypatch):
    plan, request = make.plan(needs=2), RunRequest(SYNC, "api-1", "approval", "ann", 1.0)
    ledger.add_plan(lease, plan)

    ledger.decide(make.approval(plan, "ann"), [], request)
    assert ledger.requests() == []
    with monkeypatch.context() as broken:
        broken.setattr(ledger, "_record", fails)
        with pytest.raises(StateError):
            ledger.decide(make.approval(plan, "bob"), [HELD], request)
    assert (ledger.plan(plan.id).status, ledger.requests()) == (PlanStatus.HELD, [])
    ledger.decide(make.approval(plan, "bob"), [HELD], request)

    assert [r.slot for r in ledger.requests()] == ["api-1"]


def fails(*_: object) -> None:
    raise StateError("the ledger is locked", code="HG311")


def test_a_rejection_asks_for_no_run(ledger, lease, make):
    plan, request = make.plan(), RunRequest(SYNC, "api-1", "approval", "ann", 1.0)
    ledger.add_plan(lease, plan)

    ledger.decide(make.approval(plan, "ann", Decision.REJECT), [], request)

    assert ledger.requests() == []


def test_two_different_persons_are_needed_where_the_plan_says_so(ledger, lease, make):
    plan = make.plan(needs=2)
    ledger.add_plan(lease, plan)
    assert ledger.decide(make.approval(plan, "ann")).status is PlanStatus.HELD

    with pytest.raises(DecisionError, match=r"ann decided on plan .* already"):
        ledger.decide(make.approval(plan, "ann"))

    assert ledger.decide(make.approval(plan, "bob")).status is PlanStatus.APPROVED
    assert [a.actor for a in ledger.approvals(plan.id)] == ["ann", "bob"]


@pytest.mark.parametrize("first", [Decision.APPROVE, Decision.APPROVE_WITHOUT_REMOVALS])
def test_the_stricter_of_two_approvals_keeps_the_removals_back(ledger, lease, make, first):
    plan = make.plan(needs=2)
    ledger.add_plan(lease, plan)
    second = ({Decision.APPROVE, Decision.APPROVE_WITHOUT_REMOVALS} - {first}).pop()
    ledger.decide(make.approval(plan, "ann", first))

    decided = ledger.decide(make.approval(plan, "bob", second))

    assert decided.status is PlanStatus.APPROVED_WITHOUT_REMOVALS


def test_one_rejection_ends_it_whoever_approved_before(ledger, lease, make):
    plan = make.plan(needs=3)
    ledger.add_plan(lease, plan)
    ledger.decide(make.approval(plan, "ann"))

    assert ledger.decide(make.approval(plan, "bob", Decision.REJECT)).status is PlanStatus.REJECTED

    with pytest.raises(DecisionError, match="it is rejected"):
        ledger.decide(make.approval(plan, "cid"))


def test_a_decision_needs_a_held_plan_with_the_same_content_and_time_left(ledger, lease, make, events):
    ready = make.plan("ready", status=PlanStatus.READY)
    ledger.add_plan(lease, ready)
    with pytest.raises(DecisionError, match="it is ready"):
        ledger.decide(make.approval(ready), [HELD])

    late = make.plan("late", expires_at=1.0)
    ledger.add_plan(lease, late)
    with pytest.raises(DecisionError, match="expired"):
        ledger.decide(make.approval(late), [HELD])

    with pytest.raises(DecisionError, match="no plan"):
        ledger.decide(make.approval(make.plan("unknown")), [HELD])

    held = make.plan("held")
    ledger.add_plan(lease, held)
    with pytest.raises(DecisionError, match="another content"):
        ledger.decide(make.approval(make.plan("held", digest="0" * 64)), [HELD])

    assert ledger.approvals(held.id) == []
    assert events() == []


def test_planning_stops_at_a_lost_lease(ledger, lease, make, events):
    ledger.acquire(SYNC, "somebody else", 30, dead=lease.holder)

    with pytest.raises(Fenced):
        ledger.add_plan(lease, make.plan(), [HELD])
    with pytest.raises(Fenced):
        ledger.add_refresh(lease, make.refresh())

    assert ledger.plans() == []
    assert ledger.refreshes(SYNC) == []
    assert events() == []
