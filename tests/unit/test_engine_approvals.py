"""Who may decide on a held plan, what the decision binds, and when it is void: on a real ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.engine.approvals import decide, find_plan, moved, refuse_unfit
from sync.engine.job import GuardrailLimits
from sync.errors import DecisionError
from sync.sdk.nouns import Delivery
from sync.state.nouns import Counts, Decision, Generation, Plan, PlanStatus
from tests.engine_bench import NAME, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def held(bench: Bench, name: str = "p", **fields: Any) -> Plan:
    digest = hashlib.sha256(name.encode()).hexdigest()
    now = bench.ledger.now()
    given: dict[str, Any] = {
        "id": digest[:12],
        "digest": digest,
        "sync": NAME,
        "destination": "crm",
        "object": "contact",
    }
    given |= {"audience": None, "cohort": "people", "status": PlanStatus.HELD, "file": "f", "file_sha256": "0"}
    given |= {"inputs": "i", "mapping_digest": "m1", "generation": 0, "refresh": "f", "source_version": "v"}
    given |= {"counts": Counts(add=1, remove=2), "verdicts": (), "created_at": now, "expires_at": now + 3600}
    plan = Plan(**{**given, **fields})
    lease = bench.lease()
    bench.ledger.add_plan(lease, plan)
    bench.ledger.release(lease)
    return plan


def approve(bench: Bench, plan: Plan, actor: str = "ann@acme", **given: Any) -> Plan:
    decision, reason = given.get("decision", Decision.APPROVE), given.get("reason", "looks right")
    return decide(bench.ledger, bench.job, plan, decision, actor, reason)


def refused(bench: Bench, plan: Plan, actor: str = "ann@acme", **given: Any) -> DecisionError:
    with pytest.raises(DecisionError) as caught:
        approve(bench, plan, actor, **given)
    return caught.value


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        (Decision.APPROVE, PlanStatus.APPROVED),
        (Decision.APPROVE_WITHOUT_REMOVALS, PlanStatus.APPROVED_WITHOUT_REMOVALS),
        (Decision.REJECT, PlanStatus.REJECTED),
    ],
)
def test_a_decision_moves_the_plan_and_is_kept_with_its_reason(
    bench: Bench, decision: Decision, status: PlanStatus
) -> None:
    plan = held(bench)
    assert approve(bench, plan, decision=decision, reason="  asked Ben ").status is status
    (kept,) = bench.ledger.approvals(plan.id)
    assert (kept.decision, kept.actor, kept.reason, kept.digest) == (
        decision,
        "ann@acme",
        "asked Ben",
        plan.digest,
    )


@pytest.mark.parametrize("reason", ["", "  \n"])
@pytest.mark.parametrize("decision", Decision)
def test_a_decision_needs_a_reason(bench: Bench, decision: Decision, reason: str) -> None:
    assert refused(bench, held(bench), decision=decision, reason=reason).code == "HG504"


@pytest.mark.parametrize(
    "what", ["the mapping, or where its destination is, was changed", "another run changed the members"]
)
def test_an_approval_is_void_where_an_input_moved(bench: Bench, what: str) -> None:
    plan = held(bench)
    if "mapping" in what:
        bench.mapping_digest = "m2"
    else:
        lease = bench.lease()
        bench.ledger.reset(lease, Generation(NAME, 1, 5, base="b"))
        bench.ledger.release(lease)
    error = refused(bench, plan)
    assert (error.code, what in error.message) == ("HG505", True)
    stands = bench.ledger.plan(plan.id)
    assert (stands.status, stands.reason) == (PlanStatus.VOID, what)


def test_a_plan_whose_inputs_moved_can_still_be_rejected(bench: Bench) -> None:
    plan = held(bench)
    bench.mapping_digest = "m2"
    assert approve(bench, plan, decision=Decision.REJECT).status is PlanStatus.REJECTED


def test_what_moved_is_told_in_words(bench: Bench) -> None:
    plan, job = held(bench), bench.job
    assert moved(plan, job, 0) == moved(plan, job, 0, "v") == ""
    assert moved(plan, job, 0, "w") == "the cohort was refreshed with other rows"


def test_only_approvers_may_approve_and_anybody_may_reject(bench: Bench) -> None:
    bench.guardrails = GuardrailLimits(approvers=frozenset({"Ben@acme", "cat@acme"}))
    plan = held(bench)
    error = refused(bench, plan)
    assert (error.code, "Ben@acme, cat@acme" in error.fix) == ("HG506", True)
    assert refused(bench, plan, decision=Decision.APPROVE_WITHOUT_REMOVALS).code == "HG506"
    assert approve(bench, plan, "ben@ACME").status is PlanStatus.APPROVED
    assert approve(bench, held(bench, "q"), decision=Decision.REJECT).status is PlanStatus.REJECTED


def test_four_eyes_see_more_than_two(bench: Bench) -> None:
    bench.guardrails = GuardrailLimits(four_eyes=True)
    plan = held(bench, author="Ann@acme")
    assert refused(bench, plan, "ann@ACME").code == "HG507"
    assert approve(bench, plan, "ben@acme").status is PlanStatus.APPROVED


@pytest.mark.parametrize(("four_eyes", "author"), [(False, "ann@acme"), (True, "")])
def test_an_author_may_approve_where_four_eyes_are_not_asked_for_or_nobody_is_known(
    bench: Bench, four_eyes: bool, author: str
) -> None:
    bench.guardrails = GuardrailLimits(four_eyes=four_eyes)
    assert approve(bench, held(bench, author=author)).status is PlanStatus.APPROVED


def test_a_plan_that_needs_two_persons_waits_for_the_second(bench: Bench) -> None:
    plan = held(bench, needs=2)
    assert approve(bench, plan).status is PlanStatus.HELD
    refused(bench, plan)
    assert approve(bench, plan, "ben@acme").status is PlanStatus.APPROVED


def test_one_rejection_is_enough(bench: Bench) -> None:
    plan = held(bench, needs=2)
    approve(bench, plan)
    assert approve(bench, plan, "ben@acme", decision=Decision.REJECT).status is PlanStatus.REJECTED


def test_a_plan_that_expired_cannot_be_decided_on(bench: Bench) -> None:
    error = refused(bench, held(bench, expires_at=bench.ledger.now() - 7200))
    assert (error.code, "2h ago" in error.message) == ("HG503", True)


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (PlanStatus.REJECTED, "was rejected: why"),
        (PlanStatus.EXECUTED, "was delivered already"),
        (PlanStatus.EXPIRED, "has expired"),
        (PlanStatus.VOID, "is void: why"),
        (PlanStatus.READY, "is not held"),
        (PlanStatus.APPROVED, "is not held"),
    ],
)
def test_only_a_held_plan_can_be_decided_on(bench: Bench, status: PlanStatus, word: str) -> None:
    error = refused(bench, held(bench, status=status, reason="why"))
    assert (error.code, word in error.message) == ("HG502", True)


def test_a_plan_that_waits_is_fit(bench: Bench) -> None:
    refuse_unfit(held(bench), bench.ledger.now())


@pytest.mark.parametrize("delivery", Delivery)
def test_a_whole_audience_cannot_be_approved_without_its_removals(bench: Bench, delivery: Delivery) -> None:
    bench.with_(delivery=delivery)
    plan = held(bench)
    if delivery is Delivery.DELTA:
        approve(bench, plan, decision=Decision.APPROVE_WITHOUT_REMOVALS)
        return
    assert refused(bench, plan, decision=Decision.APPROVE_WITHOUT_REMOVALS).code == "HG508"
    assert bench.ledger.plan(plan.id).status is PlanStatus.HELD
    assert approve(bench, plan).status is PlanStatus.APPROVED


def test_a_plan_is_found_by_id_digest_or_the_sync_that_has_one(bench: Bench) -> None:
    plan = held(bench)
    for name in (plan.id, plan.digest, plan.digest[:8], NAME):
        assert find_plan(bench.ledger, name).id == plan.id
    with pytest.raises(DecisionError) as caught:
        find_plan(bench.ledger, "nothing")
    assert (caught.value.code, plan.id in caught.value.fix) == ("HG501", True)
    approve(bench, plan, decision=Decision.REJECT)
    with pytest.raises(DecisionError) as caught:
        find_plan(bench.ledger, NAME)
    assert "no plan is held" in caught.value.fix


def test_a_rejected_plan_made_again_from_the_same_inputs_waits_again(bench: Bench) -> None:
    plan = held(bench)
    approve(bench, plan, decision=Decision.REJECT)
    again = held(bench, expires_at=replace(plan).expires_at + 60)
    assert approve(bench, again).status is PlanStatus.APPROVED


def test_a_token_is_one_more_hand_of_whoever_made_it(bench: Bench) -> None:
    for name in ("ci", "other"):
        bench.ledger.access.create(name, ["approve"], ttl=60, actor="Ann@acme")
    plan = held(bench, needs=2)

    assert approve(bench, plan, "token:ci").status is PlanStatus.HELD
    for actor in ("token:other", "ann@acme"):
        error = refused(bench, plan, actor)
        assert error.code == "HG507"
        assert "are one person" in error.message
    assert approve(bench, plan, "bob@acme").status is PlanStatus.APPROVED


def test_whoever_changed_the_mapping_may_not_approve_by_a_token_either(bench: Bench) -> None:
    bench.ledger.access.create("ci", ["approve"], ttl=60, actor="ann@acme")
    bench.guardrails = GuardrailLimits(four_eyes=True)

    assert refused(bench, held(bench, author="ann@acme"), "token:ci").code == "HG507"
