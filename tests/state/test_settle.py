"""Settling a run: what was acknowledged becomes members, what was not is kept as what it is, and is not green."""

from __future__ import annotations

import time
from dataclasses import replace

import duckdb
import pytest

from sync.engine.report import exit_code
from sync.engine.settle import exceptions_file, next_try, settlement
from sync.errors import ProtocolError, StateError, Unavailable
from sync.mapping import Mode
from sync.sdk.nouns import Batch, Outcome, Status
from sync.state.nouns import RunStatus
from tests.state.world import SYNC, Desk, World, applied_then, some

HOUR = 3600.0


def rejecting(*who: str) -> object:
    """A destination that rejects these."""

    def answer(desk: Desk, batch: Batch) -> Outcome:
        marks = [Status.REJECTED if c.identifiers["email"] in who else Status.APPLIED for c in batch.changes]
        return some(*marks)(desk, batch)

    return answer


def test_rejections_are_tried_again_at_once_three_times_and_then_back_off_up_to_a_day() -> None:
    waits = [next_try(attempts, 1000.0) - 1000.0 for attempts in range(1, 12)]

    assert waits == [0, 0, 0, HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR, 16 * HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR]


def test_a_rejected_record_is_sent_by_every_run_until_it_backs_off(world: World) -> None:
    world.desk.always = rejecting("p3@x.example")  # type: ignore[assignment]
    reports = [world.run() for _ in range(4)]
    (record,) = world.ledger.rejected(SYNC)
    world.desk.forget()
    fifth = world.run()

    assert [r.rejected for r in reports] == [1, 1, 1, 1]
    assert record.attempts == 4
    assert record.next_at == pytest.approx(record.last_at + HOUR, abs=1)
    assert (world.desk.pushes, fifth.status, fifth.counts.backed_off, exit_code([fifth])) == (
        [], "completed_with_errors", 1, 4,
    )  # fmt: skip


def test_a_person_may_have_a_record_that_backs_off_sent_at_once(world: World) -> None:
    world.desk.always = rejecting("p3@x.example")  # type: ignore[assignment]
    for _ in range(4):
        world.run()
    (record,) = world.ledger.rejected(SYNC)
    world.desk.always = None

    world.ledger.set_rejected(SYNC, [record.key], retry=True, actor="ann", reason="mended")
    report = world.run()

    assert (report.status, report.applied, world.ledger.rejected(SYNC), world.in_step) == (
        "completed",
        1,
        [],
        True,
    )


def test_a_record_that_is_given_up_is_green_and_not_sent_until_somebody_asks(world: World) -> None:
    world.desk.always = rejecting("p3@x.example")  # type: ignore[assignment]
    world.run()
    (record,) = world.ledger.rejected(SYNC)
    world.ledger.set_rejected(SYNC, [record.key], retry=False, actor="ann", reason="a test account")
    world.desk.forget()
    given_up = world.run()
    pushed_then = len(world.desk.pushes)
    world.sql("UPDATE vips SET name = 'Mended' WHERE id = 3")
    world.desk.always = None
    changed = world.run()
    world.ledger.set_rejected(SYNC, [record.key], retry=True, actor="ann", reason="mended")
    again = world.run()

    assert (given_up.status, exit_code([given_up]), given_up.counts.given_up, pushed_then) == (
        "completed",
        0,
        1,
        0,
    )
    assert (changed.status, changed.applied, changed.counts.given_up) == ("completed", 0, 1)
    assert (again.applied, world.ledger.rejected(SYNC), world.in_step) == (1, [], True)


def test_a_rejected_record_whose_row_is_gone_is_forgotten(world: World) -> None:
    world.desk.always = rejecting("p3@x.example")  # type: ignore[assignment]
    world.run()
    world.sql("DELETE FROM vips WHERE id = 3")

    report = world.run()

    assert (world.ledger.rejected(SYNC), report.status, exit_code([report])) == ([], "completed", 0)


def test_a_rejected_update_leaves_the_member_as_it_was_acknowledged(world: World) -> None:
    world.run()
    world.sql("UPDATE vips SET name = 'New' WHERE id = 3")
    world.desk.answers.append(some(Status.REJECTED))
    world.run()
    world.sql("UPDATE vips SET name = 'Name 3' WHERE id = 3")

    report = world.run()

    assert (report.requests, report.status, world.ledger.rejected(SYNC)) == (0, "completed", [])


def test_values_of_what_was_not_delivered_are_kept_in_a_file_for_the_owner_only(world: World) -> None:
    world.sql("INSERT INTO vips VALUES (50, NULL, 'Nobody', 1)")
    world.desk.answers.append(some(Status.REJECTED, Status.UNKNOWN, reason="no such city"))

    report = world.run()

    assert report.run is not None
    path = exceptions_file(world.settings, SYNC, report.run)
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT status, reason, \"field.name\" FROM read_parquet('{path}') ORDER BY status"
        ).fetchall()
    assert [(status, reason) for status, reason, _ in rows] == [
        ("invalid", "identifier email is empty"), ("rejected", "no such city"), ("unknown", "no such city"),
    ]  # fmt: skip
    assert rows[0][2] == "Nobody"
    assert path.stat().st_mode & 0o077 == 0


def test_a_run_without_exceptions_writes_no_file_of_them(world: World) -> None:
    report = world.run()

    assert report.run is not None
    assert not exceptions_file(world.settings, SYNC, report.run).exists()


def test_an_invalid_row_makes_no_run_green_until_it_is_mended(world: World) -> None:
    world.sql("INSERT INTO vips VALUES (50, NULL, 'Nobody', 1)")

    first, second = world.run(), world.run()
    listed = [(r.key, r.code, r.attempts) for r in world.ledger.rejected(SYNC)]
    world.sql("UPDATE vips SET email = 'p50@x.example' WHERE id = 50")
    third = world.run()

    assert [(r.status, r.counts.invalid, exit_code([r])) for r in (first, second)] == [
        ("completed_with_errors", 1, 4), ("completed_with_errors", 1, 4),
    ]  # fmt: skip
    assert (second.requests, listed) == (0, [("row:50", "invalid", 2)])
    assert (third.status, exit_code([third]), world.ledger.rejected(SYNC)) == ("completed", 0, [])


def test_a_removal_that_is_rejected_keeps_the_member_and_is_tried_again(world: World) -> None:
    world.run()
    world.sql("DELETE FROM vips WHERE id = 3")
    world.desk.answers.append(some(Status.REJECTED))

    first = world.run()
    members = set(world.members())
    second = world.run()

    assert (first.rejected, "p3@x.example" in members) == (1, True)
    assert (second.status, second.applied, world.in_step) == ("completed", 1, True)


def test_uncertain_members_are_set_again_until_they_are_certain(world: World) -> None:
    world.desk.answers.extend([applied_then(ProtocolError("HTML")), applied_then(ProtocolError("HTML"))])

    statuses = [world.run().status for _ in range(3)]

    assert statuses == ["completed_with_errors", "completed_with_errors", "completed"]
    assert (world.ledger.dirty(SYNC), world.in_step) == ([], True)


def test_what_was_cancelled_unsent_is_not_uncertain(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.engine.dispatch._BREAKER_MIN", 5)
    world.people(40)
    world.desk.answers.append(some(*[Status.REJECTED] * 9))

    report = world.run()

    assert (report.status, report.applied, len(world.desk.pushes)) == ("stopped", 1, 1)
    assert world.ledger.dirty(SYNC) == []
    assert set(world.members()) == {"p9@x.example"} or len(world.members()) == 1


def test_a_stopped_run_does_not_accept_its_refresh(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.engine.dispatch._BREAKER_MIN", 5)
    world.desk.answers.append(some(*[Status.REJECTED] * 9))

    world.run()
    stopped = world.ledger.refreshes(SYNC, accepted=True)
    world.run()

    assert (len(stopped), len(world.ledger.refreshes(SYNC, accepted=True))) == (0, 1)


def test_an_upsert_never_removes_and_accepts_its_refresh(world: World) -> None:
    world.mode = Mode.UPSERT
    world.run()
    world.sql("DELETE FROM vips WHERE id = 3", "UPDATE vips SET name = 'New' WHERE id = 4")

    report = world.run()

    assert (report.status, "p3@x.example" in world.desk.members) == ("completed", True)
    assert len(world.ledger.refreshes(SYNC, accepted=True)) == 2


def test_the_members_are_named_after_the_run_that_made_them(world: World) -> None:
    report = world.run()
    generation = world.ledger.generation(SYNC)

    assert (generation.number, generation.members, generation.run) == (1, 10, report.run)
    assert generation.fields == ("name", "score")


def test_a_run_in_which_nothing_was_acknowledged_makes_no_generation(world: World) -> None:
    world.desk.answers.append(some(*[Status.DEFERRED] * 10))

    world.run()

    assert world.ledger.generation(SYNC).blank


def test_since_when_somebody_is_a_member_survives_an_update(world: World) -> None:
    world.run()
    first = world.ledger.generation(SYNC)
    world.sql("UPDATE vips SET name = 'New'")
    time.sleep(0.01)
    world.run()

    second = world.ledger.generation(SYNC)
    path = world.root / "state" / "members" / SYNC / str(second.base or second.delta)
    with duckdb.connect() as connection:
        rows = connection.execute(
            f"SELECT DISTINCT first_refresh, last_refresh FROM read_parquet('{path}')"
        ).fetchall()
    assert rows == [(first.refresh, second.refresh)]


def test_a_run_is_not_completed_while_a_planned_record_has_no_outcome(world: World) -> None:
    world.people(30)
    world.desk.answers.append(None)
    world.desk.always = Unavailable("down")
    world.run()
    run = world.ledger.open_run(SYNC)
    assert run is not None
    assert run.plan is not None
    plan = world.ledger.plan(run.plan)
    assert plan is not None

    with pytest.raises(StateError, match="planned 30 records and has an outcome for 10"):
        settlement(
            world.ledger, world.settings, world.job, plan, run, world.root / "state" / plan.file,
            RunStatus.COMPLETED, actor="ann", counts={"rejected": 0, "deferred": 0, "unknown": 0},
        )  # fmt: skip


def test_what_a_run_counted_is_kept_with_it_and_told_to_the_audit_log(world: World) -> None:
    world.desk.answers.append(some(Status.REJECTED, Status.DEFERRED))

    report = world.run()

    run = world.ledger.run(report.run or "")
    assert run is not None
    assert {name: run.counts[name] for name in ("applied", "rejected", "deferred", "requests")} == {
        "applied": 8, "rejected": 1, "deferred": 1, "requests": 1,
    }  # fmt: skip
    assert world.actions()[-3:] == ["plan.ready", "run.started", "run.completed_with_errors"]


def test_removals_that_nobody_approved_are_counted_for_the_slow_bleed(world: World) -> None:
    world.run()
    world.sql("DELETE FROM vips WHERE id < 3")
    world.desk.answers.append(some(Status.REJECTED))

    world.run()

    assert world.ledger.removed_since(SYNC, 0.0) == 2


def test_a_rejected_record_of_an_object_that_takes_nothing_twice_is_tried_again(world: World) -> None:
    """A rejection is certain; only what is unknown waits for a person."""
    world.spec = replace(world.spec, idempotent=False)
    world.desk.answers.append(some(Status.REJECTED))

    world.run()

    assert (world.run().applied, world.in_step) == (1, True)
