"""The runner: what is held, what a decision releases, and what a plan by name delivers."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from sync.engine.approvals import decide
from sync.engine.job import GuardrailLimits
from sync.engine.report import SyncReport, exit_code
from sync.errors import AuthError, DecisionError, RequestError, StateError
from sync.sdk.nouns import Batch, Delivery, Op, Outcome, Status
from sync.state.nouns import Decision, Plan, PlanStatus, RunStatus
from tests.state.world import SYNC, Desk, World, some

CAREFUL = GuardrailLimits(max_removed_pct=5, small_removal=3)


def approve(world: World, report: SyncReport, decision: Decision = Decision.APPROVE) -> Plan:
    """A person decides on the plan that a report holds."""
    assert report.plan is not None
    return decide(world.ledger, world.job, report.plan, decision, "ben", "looked at it")


@pytest.fixture
def careful(world: World) -> World:
    """Forty members, of whom five leave: more than five per cent."""
    world.guardrails = CAREFUL
    world.people(40).run()
    world.desk.forget()
    return world.sql("DELETE FROM vips WHERE id < 5")


@pytest.fixture
def shrunk(world: World) -> World:
    """Forty members, of whom thirty leave, and one who is new: the cohort looks broken."""
    world.people(40).run()
    world.desk.forget()
    return world.sql("DELETE FROM vips WHERE id < 30", "INSERT INTO vips VALUES (99, 'p99@x.example', 'New', 1)")


# --- first runs -----------------------------------------------------------------------------------------------


def test_a_first_run_is_held_until_it_is_approved(world: World) -> None:
    first = world.run(first_run=False)
    again = world.run(first_run=False)
    approve(world, again)
    approved = world.run(first_run=False)

    assert (first.status, exit_code([first]), [v.guardrail for v in first.held]) == ("held", 3, ["first_run"])
    assert first.plan is not None
    assert again.plan is not None
    assert first.plan.digest == again.plan.digest
    assert (approved.status, approved.applied, world.in_step) == ("completed", 10, True)


def test_asking_for_a_first_run_is_harmless_later(careful: World) -> None:
    report = careful.run(first_run=True)

    assert (report.status, careful.desk.pushes) == ("held", [])


# --- held plans -----------------------------------------------------------------------------------------------


def test_a_held_plan_sends_nothing_and_keeps_its_name_over_reruns(careful: World) -> None:
    reports = [careful.run() for _ in range(3)]

    assert {r.plan.digest for r in reports if r.plan} == {reports[0].plan.digest if reports[0].plan else ""}
    assert (careful.desk.pushes, {exit_code([r]) for r in reports}) == ([], {3})
    assert len(careful.ledger.plans(SYNC, PlanStatus.HELD)) == 1


def test_an_approved_plan_is_delivered_by_the_next_run_where_nothing_moved(careful: World) -> None:
    approve(careful, careful.run())

    report = careful.run()

    assert (report.status, report.applied, careful.in_step) == ("completed", 5, True)
    assert report.plan is not None
    kept = careful.ledger.plan(report.plan.id)
    assert kept is not None
    assert kept.status is PlanStatus.EXECUTED
    assert careful.ledger.removed_since(SYNC, 0.0) == 0  # a person approved them


def test_an_approved_plan_whose_source_moved_is_void_and_says_why(careful: World) -> None:
    plan = approve(careful, careful.run())
    careful.sql("DELETE FROM vips WHERE id = 5")

    report = careful.run()

    kept = careful.ledger.plan(plan.id)
    assert kept is not None
    assert (kept.status, kept.reason) == (PlanStatus.VOID, "the cohort was refreshed with other rows")
    assert (report.status, careful.desk.pushes) == ("held", [])
    assert "plan.void" in careful.actions()


def test_an_approved_plan_is_void_too_where_there_is_nothing_left_to_do(careful: World) -> None:
    plan = approve(careful, careful.run())
    careful.people(40)

    report = careful.run()

    kept = careful.ledger.plan(plan.id)
    assert kept is not None
    assert (kept.status, report.status) == (PlanStatus.VOID, "completed")


def test_approved_without_removals_sends_the_rest_and_holds_the_removals(careful: World) -> None:
    careful.sql("INSERT INTO vips VALUES (99, 'p99@x.example', 'New', 1)")
    approve(careful, careful.run(), Decision.APPROVE_WITHOUT_REMOVALS)

    report = careful.run()
    again = careful.run()

    assert [push.who for push in careful.desk.pushes] == [["p99@x.example"]]
    assert (report.status, report.applied, report.counts.remove, exit_code([report])) == ("held", 1, 5, 3)
    assert report.plan is not None
    assert again.plan is not None
    assert (again.status, again.plan.id) == ("held", report.plan.id)
    approve(careful, again)
    assert (careful.run().status, careful.in_step) == ("completed", True)


def test_removals_that_a_person_kept_back_wait_though_no_limit_holds_them(world: World) -> None:
    world.people(40).run()
    world.desk.forget()
    world.sql("DELETE FROM vips WHERE id < 3", "UPDATE vips SET name = NULL WHERE id > 5")
    held = world.run()
    assert [v.guardrail for v in held.held] == ["nulled"]
    approve(world, held, Decision.APPROVE_WITHOUT_REMOVALS)

    first = world.run()
    world.sql("INSERT INTO vips VALUES (99, 'p99@x.example', 'New', 1)")
    second = world.run()
    third = world.run()

    assert all(Op.REMOVE not in push.ops for push in world.desk.pushes)
    for report, applied in ((first, 34), (second, 1), (third, 0)):
        assert (report.status, report.applied, report.counts.remove) == ("held", applied, 3)
        assert [v.guardrail for v in report.held] == ["kept_back"]
    approve(world, third)
    assert (world.run().applied, world.in_step) == (3, True)


def test_a_rejected_plan_is_made_again_and_held_again(careful: World) -> None:
    first = careful.run()
    approve(careful, first, Decision.REJECT)

    report = careful.run()

    assert (report.status, careful.desk.pushes) == ("held", [])


# --- held removals --------------------------------------------------------------------------------------------


def test_held_removals_let_the_additions_go_and_keep_their_name_over_reruns(shrunk: World) -> None:
    first = shrunk.run()
    pushes = [push.who for push in shrunk.desk.pushes]
    reports = [shrunk.run(), shrunk.run()]

    assert (first.status, first.applied, exit_code([first]), pushes) == ("held", 1, 3, [["p99@x.example"]])
    assert {v.guardrail for v in first.held} >= {"source_shrunk"}
    assert first.plan is not None
    assert (first.plan.counts.remove, first.plan.counts.add) == (30, 0)
    assert {r.plan.id for r in reports if r.plan} == {first.plan.id}
    assert len(shrunk.desk.pushes) == 1


def test_held_removals_go_out_once_they_are_approved(shrunk: World) -> None:
    approve(shrunk, shrunk.run())

    report = shrunk.run()

    assert (report.status, report.applied, shrunk.in_step) == ("completed", 30, True)


def test_held_removals_keep_their_approval_while_an_addition_is_rejected_again_and_again(shrunk: World) -> None:
    shrunk.desk.always = lambda desk, batch: (
        desk.take(batch) if batch.changes[0].op is Op.REMOVE else some(Status.REJECTED)(desk, batch)
    )
    first = shrunk.run()
    again = shrunk.run()
    assert first.plan is not None
    assert again.plan is not None
    assert (first.plan.id, first.status) == (again.plan.id, "held")
    approve(shrunk, again)

    report = shrunk.run()

    assert (report.applied, report.rejected, report.status) == (30, 1, "completed_with_errors")
    assert set(shrunk.desk.members) == set(shrunk.source()) - {"p99@x.example"}


def test_an_approval_binds_the_same_changes_even_where_they_were_planned_another_way(shrunk: World) -> None:
    """Removals planned apart, for an addition was rejected; then all there is to do, for it was given up."""
    shrunk.desk.answers.append(some(Status.REJECTED))
    approve(shrunk, shrunk.run())
    keys = [r.key for r in shrunk.ledger.rejected(SYNC)]
    shrunk.ledger.set_rejected(SYNC, keys, retry=False, actor="ann", reason="a test account")

    report = shrunk.run()

    assert (report.status, report.applied) == ("completed", 30)


def test_a_shrunken_cohort_does_not_become_the_usual_size_by_being_sent_in_part(shrunk: World) -> None:
    """Each additions-only run would else pull the trailing median down, until the removals pass."""
    for n in range(7):
        shrunk.sql(f"INSERT INTO vips VALUES ({200 + n}, 'q{n}@x.example', 'New', 1)")
        report = shrunk.run()
        assert (report.status, report.applied) == ("held", 2 if n == 0 else 1)

    assert [r.rows for r in shrunk.ledger.refreshes(SYNC, accepted=True)] == [40]


def test_only_some_ops_are_planned_and_sent_and_accept_no_refresh(world: World) -> None:
    world.run()
    world.desk.forget()
    world.sql("DELETE FROM vips WHERE id = 1", "UPDATE vips SET name = 'New' WHERE id = 2")
    world.sql("INSERT INTO vips VALUES (99, 'p99@x.example', 'New', 1)")

    report = world.run(only=[Op.ADD, Op.UPDATE])
    accepted = len(world.ledger.refreshes(SYNC, accepted=True))
    rest = world.run()

    assert (report.status, report.applied, accepted) == ("completed", 2, 1)
    assert [push.ops for push in world.desk.pushes] == [{Op.ADD}, {Op.UPDATE}, {Op.REMOVE}]
    assert (rest.applied, world.in_step) == (1, True)


# --- plans by name --------------------------------------------------------------------------------------------


def test_a_plan_by_name_is_delivered_exactly(world: World) -> None:
    planned = world.runner().plan(world.job, first_run=True)
    assert planned.plan is not None

    report = world.run(plan=planned.plan.digest)

    assert (planned.status, report.status, report.applied) == ("ready", "completed", 10)
    assert report.plan is not None
    assert report.plan.id == planned.plan.id


@pytest.mark.parametrize("what", ["source", "mapping", "members"])
def test_a_plan_by_name_whose_inputs_moved_is_void_and_nothing_is_sent(world: World, what: str) -> None:
    world.run()
    world.sql("UPDATE vips SET name = 'New' WHERE id = 1")
    planned = world.runner().plan(world.job)
    assert planned.plan is not None
    if what == "source":
        world.sql("UPDATE vips SET name = 'Newer' WHERE id = 1")
    elif what == "mapping":
        world.digest = "mapping-2"
    else:
        world.run()
    world.desk.forget()

    report = world.run(plan=planned.plan.id)

    assert (report.status, report.run, exit_code([report]), world.desk.pushes) == ("failed", None, 1, [])
    assert report.code in ("HG505", "HG502")


@pytest.mark.parametrize("name", ["abcdef123456", "0"])
def test_a_plan_that_is_not_there_is_not_delivered(world: World, name: str) -> None:
    report = world.run(plan=name)

    assert (report.code, world.desk.pushes, world.ledger.runs(SYNC)) == ("HG501", [], [])


def test_a_held_plan_by_name_stays_held(careful: World) -> None:
    held = careful.run()
    assert held.plan is not None

    report = careful.run(plan=held.plan.id)

    assert (report.status, exit_code([report]), careful.desk.pushes) == ("held", 3, [])


def test_a_plan_is_not_delivered_twice(world: World) -> None:
    first = world.run()
    assert first.plan is not None

    report = world.run(plan=first.plan.id)

    assert (report.status, report.code, world.desk.sent) == ("failed", "HG502", 10)


def test_a_plan_approved_without_removals_by_name_leaves_the_removals_held(careful: World) -> None:
    careful.sql("UPDATE vips SET name = 'New' WHERE id = 20")
    plan = approve(careful, careful.run(), Decision.APPROVE_WITHOUT_REMOVALS)

    report = careful.run(plan=plan.id)

    assert (report.status, report.applied, report.counts.remove) == ("held", 1, 5)
    assert len(careful.desk.members) == 40


def test_a_whole_audience_is_approved_with_its_removals_or_not_at_all(careful: World) -> None:
    limits = replace(careful.spec.limits, batch_size=None)
    careful.spec = replace(careful.spec, delivery=Delivery.SNAPSHOT, limits=limits)
    careful.desk.snapshot = True
    held = careful.run()

    with pytest.raises(DecisionError, match="whole audiences"):
        approve(careful, held, Decision.APPROVE_WITHOUT_REMOVALS)
    approve(careful, held)

    assert (careful.run().status, careful.in_step) == ("completed", True)


# --- plans only -----------------------------------------------------------------------------------------------


def test_a_plan_sends_nothing_and_connects_nowhere(world: World) -> None:
    report = world.runner().plan(world.job, first_run=True)

    assert (report.status, report.counts.add, world.desk.connects) == ("ready", 10, 0)
    assert world.ledger.runs(SYNC) == []


def test_a_plan_of_an_unchanged_cohort_says_so(world: World) -> None:
    world.run()

    report = world.runner().plan(world.job)

    assert (report.status, report.plan, report.counts.unchanged) == ("unchanged", None, 10)


# --- runs that fail -------------------------------------------------------------------------------------------


def test_a_run_that_failed_before_it_sent_anything_is_recorded(world: World) -> None:
    world.sql("DROP TABLE vips", "CREATE TABLE vips (id INTEGER, email VARCHAR)")

    report = world.run()

    (run,) = world.ledger.runs(SYNC)
    assert (report.status, exit_code([report]), report.run) == ("failed", 1, run.id)
    assert (run.status, dict(run.error or {})["code"]) == (RunStatus.FAILED, report.code)
    assert world.actions()[-1] == "run.failed"


def test_a_destination_that_cannot_be_connected_leaves_the_run_open_and_makes_no_other(world: World) -> None:
    def missing(before: Any) -> Any:
        raise AuthError("[destinations.crm] token: the variable CRM_TOKEN is not set")

    world.connector = missing
    first = world.run()
    runs = world.ledger.runs(SYNC)
    world.connector = None
    second = world.run()

    assert (first.status, first.code, [run.id for run in runs]) == ("failed", "HG401", [first.run])
    assert (second.resumed, second.status, world.in_step) == (first.run, "completed", True)


def test_a_ledger_that_cannot_even_keep_the_failure_is_reported_not_raised(world: World) -> None:
    class Full:
        def __getattr__(self, name: str) -> Any:
            def refuse(*arguments: Any, **options: Any) -> Any:
                raise StateError("the disk is full", code="HG313")

            return refuse if name in ("add_refresh", "add_run", "record") else getattr(world.ledger, name)

    state: Any = Full()
    report = world.run(state)

    assert (report.status, report.code, report.run) == ("failed", "HG313", None)


def test_syncs_may_run_from_several_threads(world: World) -> None:
    runner = world.people(100).limited(concurrency=4).runner()
    reports: list[SyncReport] = []
    jobs = [replace(world.job, name=f"sync-{n}") for n in range(3)]

    threads = [
        threading.Thread(target=lambda job=job: reports.append(runner.run(job, first_run=True))) for job in jobs
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [(r.status, r.applied) for r in reports] == [("completed", 100)] * 3


def test_whoever_looks_on_is_told_of_phases_progress_and_notes(world: World) -> None:
    told: list[tuple[str, ...]] = []

    class Looker:
        def phase(self, sync: str, phase: str, detail: str = "") -> None:
            told.append(("phase", phase))

        def progress(self, sync: str, done: int, total: int) -> None:
            told.append(("progress", f"{done} of {total}"))

        def note(self, sync: str, message: str) -> None:
            told.append(("note", message))

    runner = world.people(20).runner(observer=Looker())
    world.desk.answers.append(RequestError("refused"))
    runner.run(world.job, first_run=True)

    phases = [name for kind, name in told if kind == "phase"]
    assert phases == ["refresh", "diff", "guard", "deliver", "record"]
    assert ("progress", "20 of 20") in told


def test_a_run_says_how_long_it_took(world: World) -> None:
    def slow(desk: Desk, batch: Batch) -> Outcome:
        time.sleep(0.1)
        return desk.take(batch)

    world.desk.always = slow

    assert 0.1 <= world.run().wall_s < 10
