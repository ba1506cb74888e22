"""Reverting a run: what it was acknowledged for is put back, and what cannot be is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.engine.approvals import decide
from sync.engine.job import GuardrailLimits
from sync.engine.report import SyncReport, exit_code
from sync.errors import ProtocolError, Unavailable
from sync.mapping import Mode
from sync.sdk.nouns import Delivery, Op, Status
from sync.state.nouns import Decision, Generation, PlanKind, PlanStatus, RunStatus
from tests.figures import Figures
from tests.state.fragile import Crash, Fragile
from tests.state.test_resume import as_a_process_that_is_gone
from tests.state.world import SYNC, World, dead_holder, some

MOVES = (
    "DELETE FROM vips WHERE id < 4",
    "UPDATE vips SET name = 'Wrong', score = nullif(id, 11) WHERE id BETWEEN 10 AND 15",
    "INSERT INTO vips SELECT i, 'p' || i || '@x.example', 'Late', 1 FROM range(100, 105) t(i)",
)


def revert(world: World, run: str, state: Any = None, **options: Any) -> SyncReport:
    """Ask for it as a person does."""
    return world.runner(state).revert(world.job, run, "it was wrong", **options)


def ran(world: World, *moves: str) -> str:
    """The id of a run that delivered these moves of the warehouse."""
    report = world.sql(*moves).run()
    assert report.status in ("completed", "completed_with_errors", "stopped"), report
    assert report.run is not None
    return report.run


def left_out(report: SyncReport) -> dict[tuple[str, str], int]:
    """(op of the run, why) -> records."""
    return {(op, why): records for op, why, records in report.counts.left_out}


@pytest.fixture
def thirty(world: World) -> World:
    """Thirty members."""
    ran(world.people(30))
    world.desk.pushes.clear()
    return world


def test_everything_a_run_did_is_put_back_as_it_was(thirty: World, figures: Figures) -> None:
    before = dict(thirty.desk.members)
    run = ran(thirty, *MOVES)
    assert thirty.desk.members != before

    report = revert(thirty, run)

    assert (report.status, report.applied, exit_code([report])) == ("completed", 15, 0)
    assert thirty.desk.members == before
    assert set(thirty.members()) == set(before)
    assert (report.counts.add, report.counts.update, report.counts.remove) == (4, 6, 5)
    assert report.plan is not None
    assert (report.plan.kind, report.plan.origin) == (PlanKind.REVERT, run)
    figures.add("records put back by reverts", report.applied)


def test_the_next_run_sends_the_newer_values_again_once_the_sync_is_resumed(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    report = revert(thirty, run)
    assert thirty.ledger.paused() == {SYNC: f"run {run} is reverted by ann: it was wrong"}
    assert any(f"headgate resume {SYNC}" in note for note in report.notes)

    refused = thirty.run()
    assert (refused.code, refused.requests) == ("HG525", 0)

    thirty.ledger.pause(SYNC, None)
    assert thirty.run().applied == 15
    assert thirty.in_step


def test_a_revert_can_be_reverted(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    after = dict(thirty.desk.members)
    undone = revert(thirty, run)
    assert undone.run is not None

    report = revert(thirty, undone.run)

    assert (report.status, report.applied) == ("completed", 15)
    assert thirty.desk.members == after


def test_asked_for_twice_it_is_done_once(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    revert(thirty, run)
    thirty.desk.pushes.clear()

    report = revert(thirty, run)

    assert (report.status, report.code, exit_code([report])) == ("unchanged", "", 0)
    assert report.notes == (f"everything that run {run} changed is as it was before",)
    assert thirty.desk.pushes == []


def test_only_what_was_acknowledged_is_undone(thirty: World) -> None:
    before = dict(thirty.desk.members)
    thirty.desk.answers.append(some(Status.REJECTED, Status.UNKNOWN, Status.ACCEPTED, Status.DEFERRED))
    run = ran(thirty, "UPDATE vips SET name = 'Wrong' WHERE id < 9")

    report = revert(thirty, run)

    assert report.applied == 6  # five applied and one accepted
    assert (report.status, exit_code([report])) == ("completed_with_errors", 4)
    assert left_out(report) == {("update", "nobody can tell whether the run applied it"): 1}
    wrong = {e for e, row in thirty.desk.members.items() if row != before[e]}
    assert wrong == set()  # the scripted unknown was not applied either


def test_what_changed_since_is_left_as_it_is(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    ran(
        thirty,
        "INSERT INTO vips VALUES (0, 'p0@x.example', 'Back', 1)",
        "DELETE FROM vips WHERE id IN (10, 100)",
        "UPDATE vips SET name = 'Newer' WHERE id IN (11, 101)",
    )

    report = revert(thirty, run)

    assert left_out(report) == {
        ("remove", "a later run added it again"): 1,
        ("update", "it is no member any more"): 1,
        ("update", "a later run changed it"): 1,
        ("add", "a later run changed it"): 1,
    }
    assert report.counts.unchanged == 1  # p100 was added, and is gone: as before
    assert report.applied == 10
    assert thirty.desk.members["p0@x.example"]["name"] == "Back"
    assert thirty.desk.members["p11@x.example"]["name"] == "Newer"
    assert "p10@x.example" not in thirty.desk.members


def test_the_values_are_those_that_were_last_acknowledged(thirty: World) -> None:
    ran(thirty, "UPDATE vips SET name = 'Second' WHERE id = 5")
    thirty.desk.answers.append(some(Status.REJECTED))
    ran(thirty, "UPDATE vips SET name = 'Refused' WHERE id = 5")
    run = ran(thirty, "UPDATE vips SET name = 'Third' WHERE id = 5")

    assert revert(thirty, run).applied == 1

    assert thirty.desk.members["p5@x.example"]["name"] == "Second"


def test_values_that_no_file_has_any_more_are_named(thirty: World) -> None:
    (first,) = thirty.ledger.plans(SYNC)
    run = ran(thirty, *MOVES)
    (thirty.settings.folder / first.file).unlink()

    report = revert(thirty, run)

    assert report.applied == 5  # the additions need no values to be removed
    assert left_out(report) == {
        ("update", "no plan file has the values it had before"): 6,
        ("remove", "no plan file has the values it had before"): 4,
    }
    plan = thirty.ledger.plan(report.plan.id) if report.plan else None
    assert plan is not None
    assert plan.counts.left_out == report.counts.left_out


def test_an_altered_plan_file_is_not_believed(thirty: World) -> None:
    (first,) = thirty.ledger.plans(SYNC)
    run = ran(thirty, "UPDATE vips SET name = 'Wrong' WHERE id = 5")
    path = thirty.settings.folder / first.file
    path.write_bytes(path.read_bytes() + b" ")

    report = revert(thirty, run)

    assert report.code == "HG529"
    assert "1 update: no plan file has the values it had before" in report.error


def test_without_its_own_plan_file_a_run_is_not_reverted(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    plan = thirty.ledger.plans(SYNC)[0]
    (thirty.settings.folder / plan.file).unlink()

    report = revert(thirty, run)

    assert (report.code, thirty.ledger.paused()) == ("HG526", {})
    assert "missing or was altered" in report.error


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"irreversible": frozenset({Op.ADD})}, "the destination cannot undo it"),
        ({"ops": frozenset({Op.ADD, Op.UPDATE})}, "the object does not take the op that would undo it"),
    ],
)
def test_what_the_object_cannot_undo_is_left_out(world: World, spec: dict[str, Any], why: str) -> None:
    world.spec = replace(world.spec, **spec)
    world.mode = Mode.UPSERT
    world.guardrails = replace(world.guardrails, allow_irreversible=frozenset({Op.ADD}))
    ran(world.people(30))
    run = ran(world, *MOVES[1:])

    report = revert(world, run)

    assert left_out(report) == {("add", why): 5}
    assert (report.applied, report.counts.update) == (6, 6)


def test_an_addition_of_an_upsert_is_removed_though_the_mode_removes_nobody(world: World) -> None:
    world.mode = Mode.UPSERT
    ran(world.people(30))
    run = ran(world, MOVES[2])

    report = revert(world, run)

    assert (report.status, report.counts.remove, len(world.desk.members)) == ("completed", 5, 30)


def test_an_object_without_updates_is_told_an_addition(world: World) -> None:
    world.spec = replace(world.spec, ops=frozenset({Op.ADD, Op.REMOVE}))
    ran(world.people(30))
    before = dict(world.desk.members)
    run = ran(world, *MOVES)

    report = revert(world, run)

    assert (report.counts.add, report.counts.remove) == (4, 5)
    assert {e: world.desk.members[e] for e in before} == before


def test_members_that_were_there_before_a_reset_are_not_removed(thirty: World) -> None:
    number = thirty.ledger.generation(SYNC).number
    lease = thirty.ledger.acquire(SYNC, "me", 30)
    thirty.ledger.reset(lease, Generation(SYNC, number + 1, 0))
    thirty.ledger.release(lease)
    run = ran(thirty, "INSERT INTO vips VALUES (99, 'p99@x.example', 'New', 1)")

    report = revert(thirty, run)

    assert left_out(report) == {("add", "it was a member before the members were reset"): 30}
    assert (report.applied, len(thirty.desk.members)) == (1, 30)


def test_a_run_under_another_mapping_is_undone_with_the_fields_of_before(thirty: World) -> None:
    before = dict(thirty.desk.members)
    thirty.digest = "mapping-2"
    job, both = thirty.job, thirty.job.sync.fields
    only_name = replace(job, sync=job.sync.model_copy(update={"fields": [f for f in both if f.to == "name"]}))
    report = thirty.runner().run(only_name)
    assert report.applied == 30
    assert report.run is not None

    undone = thirty.runner().revert(only_name, report.run, "it was wrong")

    assert (undone.status, undone.applied) == ("completed", 30)
    assert thirty.desk.members == before


def test_a_whole_audience_is_sent_as_it_was(world: World) -> None:
    world.spec = replace(
        world.spec, delivery=Delivery.SNAPSHOT, limits=replace(world.spec.limits, batch_size=None)
    )
    world.desk.snapshot = True
    ran(world.people(30))
    before = dict(world.desk.members)
    run = ran(world, *MOVES)
    ran(world, "UPDATE vips SET name = 'Newer' WHERE id IN (20, 11)")

    report = revert(world, run)

    assert report.status == "completed_with_errors"
    assert left_out(report) == {("update", "a later run changed it"): 1}
    newer = {f"p{i}@x.example": {**before[f"p{i}@x.example"], "name": "Newer"} for i in (20, 11)}
    newer["p11@x.example"]["score"] = None
    assert world.desk.members == {**before, **newer}
    assert set(world.members()) == set(world.desk.members)


def test_a_whole_audience_with_a_hole_is_not_sent(world: World) -> None:
    world.spec = replace(
        world.spec, delivery=Delivery.SNAPSHOT, limits=replace(world.spec.limits, batch_size=None)
    )
    world.desk.snapshot = True
    ran(world.people(30))
    run = ran(world, "DELETE FROM vips WHERE id < 4")
    ran(world, "UPDATE vips SET name = 'Newer' WHERE id = 20")
    plans = world.ledger.plans(SYNC)
    (world.settings.folder / plans[0].file).unlink()
    pushes = len(world.desk.pushes)

    report = revert(world, run)

    assert (report.code, len(world.desk.pushes)) == ("HG526", pushes)
    assert "1 of its members" in report.error


def test_a_revert_is_held_by_the_guardrails_and_delivered_once_approved(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    thirty.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    pushes = len(thirty.desk.pushes)

    held = revert(thirty, run)
    again = revert(thirty, run)

    assert (held.status, exit_code([held]), len(thirty.desk.pushes)) == ("held", 3, pushes)
    assert [v.guardrail for v in held.held] == ["removals"]
    assert held.plan is not None
    assert again.plan is not None
    assert again.plan.id == held.plan.id
    thirty.sql("DROP TABLE vips")  # the source is not asked
    decide(thirty.ledger, thirty.job, held.plan, Decision.APPROVE, "bob", "yes")
    report = thirty.run(plan=held.plan.digest)
    assert (report.status, report.applied, len(thirty.desk.members)) == ("completed", 15, 30)


def test_an_approved_revert_is_delivered_by_asking_again(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    thirty.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    held = revert(thirty, run)
    assert held.plan is not None
    decide(thirty.ledger, thirty.job, held.plan, Decision.APPROVE, "bob", "yes")

    assert (revert(thirty, run).applied, len(thirty.desk.members)) == (15, 30)


def test_a_held_revert_is_not_replaced_by_a_plan_of_the_cohort_and_void_once_the_members_move(
    thirty: World,
) -> None:
    run = ran(thirty, *MOVES)
    thirty.guardrails = GuardrailLimits(max_removed=2, max_removed_pct=100)
    held = revert(thirty, run)
    assert held.plan is not None
    thirty.sql("INSERT INTO vips VALUES (300, 'p300@x.example', 'New', 1)")
    assert thirty.runner().plan(thirty.job).status == "ready"
    found = thirty.ledger.plan(held.plan.id)
    assert found is not None
    assert found.status is PlanStatus.HELD

    thirty.ledger.pause(SYNC, None)
    assert thirty.run().applied == 1
    decide_again = pytest.raises(Exception, match="another run changed the members")
    with decide_again:
        decide(thirty.ledger, thirty.job, held.plan, Decision.APPROVE, "bob", "yes")


def test_a_plan_that_is_only_made_sends_nothing_and_pauses(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    pushes = len(thirty.desk.pushes)

    report = revert(thirty, run, deliver=False)

    assert (report.status, len(thirty.desk.pushes)) == ("ready", pushes)
    assert SYNC in thirty.ledger.paused()
    assert report.plan is not None
    assert thirty.run(plan=report.plan.digest).applied == 15


def test_a_paused_destination_is_told_nothing_and_a_paused_sync_keeps_its_reason(thirty: World) -> None:
    run = ran(thirty, *MOVES)
    thirty.ledger.pause("destination:crm", "the token expired")
    assert revert(thirty, run).code == "HG525"

    thirty.ledger.pause("destination:crm", None)
    thirty.ledger.pause(SYNC, "look at this")
    assert revert(thirty, run).applied == 15
    assert thirty.ledger.paused() == {SYNC: "look at this"}


def test_an_interrupted_run_is_ended_where_it_is_and_what_it_did_is_put_back(thirty: World) -> None:
    before = dict(thirty.desk.members)
    thirty.desk.answers.extend([None, *[Unavailable("down", applied=False)] * 20])
    broken = thirty.sql("UPDATE vips SET name = 'Wrong'").run()
    assert thirty.ledger.open_run(SYNC) is not None
    assert broken.run is not None
    thirty.desk.answers.clear()

    report = revert(thirty, broken.run)

    ended = thirty.ledger.run(broken.run)
    assert ended is not None
    assert ended.status is RunStatus.CANCELLED
    assert report.applied == 10
    assert thirty.desk.members == before


def test_an_uncertain_member_is_left_to_the_next_run(thirty: World) -> None:
    first = ran(thirty, "UPDATE vips SET name = 'Wrong' WHERE id < 5")
    thirty.desk.answers.extend([ProtocolError("what?")] * 5)
    thirty.sql("UPDATE vips SET name = 'Other' WHERE id = 0").run()
    thirty.desk.answers.clear()

    report = revert(thirty, first)

    assert report.applied == 4
    why = "its state at the destination is uncertain until a run asserts it again"
    assert left_out(report) == {("update", why): 1}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (lambda world: "nothing", "there is no run 'nothing' of 'vips-crm'"),
        (lambda world: str(world.run().run), "sent nothing"),
    ],
)
def test_a_run_that_cannot_be_reverted_is_refused_and_nothing_is_paused(
    thirty: World, name: Callable[[World], str], said: str
) -> None:
    report = revert(thirty, name(thirty))

    assert (report.status, report.code) == ("failed", "HG526")
    assert said in report.error
    assert report.fix
    assert thirty.ledger.paused() == {}


def test_a_run_that_was_acknowledged_for_nothing_is_refused(thirty: World) -> None:
    thirty.desk.always = some(*[Status.REJECTED] * 10)
    run = ran(thirty, "UPDATE vips SET name = 'Wrong' WHERE id = 1")

    report = revert(thirty, run)

    assert report.code == "HG526"
    assert "acknowledged for nothing" in report.error


def test_the_first_run_can_be_undone_too(world: World) -> None:
    run = ran(world.people(30))

    report = revert(world, run)

    assert (report.status, report.applied) == ("completed", 30)
    assert (world.desk.members, world.members()) == ({}, {})


def test_a_revert_is_audited_with_its_reason(thirty: World) -> None:
    revert(thirty, ran(thirty, *MOVES))

    assert thirty.actions()[-5:] == ["run.revert", "sync.paused", "plan.ready", "run.started", "run.completed"]


@pytest.mark.parametrize(
    "committed",
    [
        pytest.param((False, True), id="before-or-after"),
        pytest.param((False, False), id="before", marks=pytest.mark.endless),
        pytest.param((True, True), id="after", marks=pytest.mark.endless),
    ],
)
def test_a_crash_at_any_write_of_a_revert_is_made_good_by_asking_again(
    tmp_path: Path, thirty: World, monkeypatch: pytest.MonkeyPatch, figures: Figures, committed: tuple[bool, bool]
) -> None:
    before = dict(thirty.desk.members)
    run = ran(thirty, *MOVES)
    after = dict(thirty.desk.members)
    thirty.close()
    gone = dead_holder()
    for at in range(1, 60):
        folder = tmp_path / f"crash-{at}"
        shutil.copytree(thirty.root, folder)
        world = World(folder)
        world.desk.members = {email: dict(row) for email, row in after.items()}
        fragile = Fragile(world.ledger, at, committed=committed[at % 2])
        with as_a_process_that_is_gone(monkeypatch, gone):
            try:
                revert(world, run, fragile)
            except Crash:
                assert fragile.crashed
        report = revert(world, run)

        assert report.status in ("completed", "unchanged"), report
        assert world.desk.members == before
        assert set(world.members()) == set(before)
        assert SYNC in world.ledger.paused()
        assert sum(len(push.changes) for push in world.desk.pushes) <= 15 + 10  # at most a batch again
        world.close()
        if not fragile.crashed:
            break
        figures.add("crashes in a revert, made good")
    else:
        pytest.fail("the revert never got through")
