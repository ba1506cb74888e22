"""Plans that are not about the source: frozen from a SELECT, then judged and delivered like any other."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from sync.engine.approvals import decide
from sync.engine.database import open_database
from sync.engine.execution import Execution
from sync.engine.job import GuardrailLimits
from sync.engine.lease import LeaseKeeper
from sync.engine.pacing import Pacers
from sync.engine.proposal import Ground, propose
from sync.engine.report import SilentObserver, SyncReport
from sync.engine.running import Means
from sync.mapping import Mode
from sync.sdk.nouns import Op
from sync.state.members import folder_of, relation
from sync.state.nouns import Decision, Plan, PlanKind, PlanStatus
from tests.state.world import SYNC, World

REMOVE = "SELECT 'remove' AS op, * EXCLUDE (nulls, last_refresh, last_at) FROM members WHERE \"id.email\" < 'p3' "
RENAME = (
    "SELECT 'update' AS op, key, 7::UBIGINT AS fingerprint, source_key, first_refresh, first_at, \"id.email\", "
    '\'Other\' AS "field.name", 5 AS "field.score" FROM members WHERE "id.email" >= \'p3\''
)
BOTH = f"{REMOVE} UNION ALL BY NAME {RENAME}"


@pytest.fixture
def settled(world: World) -> World:
    """Five members, and a warehouse that does not answer any more."""
    assert world.people(5).run().status == "completed"
    world.desk.pushes.clear()
    return world.sql("DROP TABLE vips")


def made(world: World, select: str, kind: PlanKind = PlanKind.REPAIR, origin: str = "") -> Plan:
    """A plan of a SELECT over the members."""
    generation = world.ledger.generation(SYNC)
    with closing(open_database(world.settings)) as connection:
        members = relation(connection, folder_of(world.settings.folder, SYNC), generation, ["email"])
        connection.execute(f"CREATE TEMP TABLE members AS SELECT * FROM ({members}) ORDER BY key")
        ground = Ground(world.ledger, world.settings, world.job, connection, generation)
        return propose(ground, select, kind, origin)


def proposed(world: World, select: str) -> SyncReport:
    """What becomes of such a plan."""
    means = Means(world.ledger, world.settings, "ann", "cli", SilentObserver(), world.stop, Pacers())
    with LeaseKeeper(world.ledger, SYNC, world.lease_ttl) as keeper:
        return Execution(means, world.job, keeper, first_run=False).proposed(made(world, select))


def test_changes_of_a_select_are_delivered_though_the_source_is_gone(settled: World) -> None:
    report = proposed(settled, BOTH)

    assert (report.status, report.applied) == ("completed", 5)
    assert set(settled.desk.members) == {"p3@x.example", "p4@x.example"}
    assert settled.desk.members["p3@x.example"] == {"name": "Other", "score": 5}
    assert set(settled.members()) == set(settled.desk.members)
    assert report.plan is not None
    assert report.plan.kind is PlanKind.REPAIR


def test_the_object_says_what_a_proposal_may_do_and_not_the_mode(settled: World) -> None:
    settled.mode = Mode.INSERT

    assert proposed(settled, REMOVE).applied == 3


def test_a_proposal_is_held_by_the_guardrails_and_delivered_once_approved(settled: World) -> None:
    settled.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    held = proposed(settled, BOTH)
    assert held.status == "held"
    assert settled.desk.pushes == []
    assert held.plan is not None

    decide(settled.ledger, settled.job, held.plan, Decision.APPROVE, "bob", "it is right")
    report = settled.run(plan=held.plan.digest)

    assert (report.status, report.applied) == ("completed", 5)


def test_approved_without_removals_its_removals_are_held_as_a_plan_of_their_own(settled: World) -> None:
    settled.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    held = proposed(settled, BOTH)
    assert held.plan is not None
    decide(settled.ledger, settled.job, held.plan, Decision.APPROVE_WITHOUT_REMOVALS, "bob", "not these")
    settled.guardrails = GuardrailLimits(max_removed_pct=100)

    report = settled.run(plan=held.plan.digest)

    assert (report.status, report.applied) == ("held", 2)
    assert report.plan is not None
    assert (report.plan.counts.remove, report.plan.kind) == (3, PlanKind.REPAIR)
    assert len(settled.desk.members) == 5

    decide(settled.ledger, settled.job, report.plan, Decision.APPROVE, "bob", "now these")
    assert settled.run(plan=report.plan.digest).applied == 3


def test_a_proposal_is_void_once_the_members_moved(settled: World) -> None:
    settled.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    held = proposed(settled, BOTH)
    assert held.plan is not None
    decide(settled.ledger, settled.job, held.plan, Decision.APPROVE, "bob", "it is right")
    assert settled.people(9).run().status == "completed"

    report = settled.run(plan=held.plan.digest)

    assert report.code == "HG505"
    found = settled.ledger.plan(held.plan.id)
    assert found is not None
    assert (found.status, found.reason) == (PlanStatus.VOID, "another run changed the members")


def test_a_proposal_and_a_plan_of_the_cohort_do_not_replace_each_other(settled: World) -> None:
    settled.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    held = proposed(settled, REMOVE)
    settled.people(1)

    again = settled.run()

    assert again.status == "held"
    waiting = {p.kind for p in settled.ledger.plans(SYNC, PlanStatus.HELD)}
    assert waiting == {PlanKind.DIFF, PlanKind.REPAIR}
    assert held.plan is not None


def test_equal_changes_of_another_kind_or_origin_have_another_digest(settled: World) -> None:
    plan = made(settled, BOTH)

    assert made(settled, BOTH).digest == plan.digest
    others = {made(settled, BOTH, PlanKind.REVERT, origin).digest for origin in ("", "one", "two")}
    assert len(others | {plan.digest}) == 4


def test_rejected_rows_that_a_proposal_is_not_about_stay_as_they_are(world: World) -> None:
    world.people(5).sql("INSERT INTO vips VALUES (7, NULL, 'Nobody', 1)").run()
    assert [r.code for r in world.ledger.rejected(SYNC)] == ["invalid"]

    assert proposed(world, REMOVE).applied == 3

    assert [r.code for r in world.ledger.rejected(SYNC)] == ["invalid"]


def test_a_proposal_accepts_no_refresh_and_moves_no_definition(settled: World) -> None:
    before = settled.ledger.note(SYNC, "definition")
    accepted = settled.ledger.refreshes(SYNC, accepted=True)

    proposed(settled, REMOVE)

    assert settled.ledger.note(SYNC, "definition") == before
    assert settled.ledger.refreshes(SYNC, accepted=True) == accepted


def test_a_protected_cohort_that_a_proposal_would_empty_needs_two_persons(settled: World) -> None:
    job = settled.job
    cohort = job.cohort.model_copy(update={"protected": True})
    generation = settled.ledger.generation(SYNC)
    with closing(open_database(settled.settings)) as connection:
        members = relation(connection, folder_of(settled.settings.folder, SYNC), generation, ["email"])
        ground = Ground(settled.ledger, settled.settings, replace(job, cohort=cohort), connection, generation)
        plan = propose(ground, f"SELECT '{Op.REMOVE}' AS op, key, \"id.email\" FROM ({members})", PlanKind.REPAIR)

    assert (plan.status, plan.needs) == (PlanStatus.HELD, 2)
    assert [v.guardrail for v in plan.verdicts] == ["protected_cohort"]
