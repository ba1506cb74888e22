"""A person who is forgotten: erased from every file, removed at the destination, and never sent again."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.engine.forget import Forgetting, forget, remember
from sync.engine.report import exit_code
from sync.errors import HeadgateError, Unavailable, UsageError
from sync.health import Health, standing
from sync.mapping import Mode
from sync.sdk.nouns import Delivery, Op, Status
from sync.state.erasures import Erasure, ErasureOutcome, ErasurePart, ErasureState
from sync.state.nouns import PlanStatus
from tests.state.world import SYNC, World, some

WHO = "p3@x.example"


def asked(world: World, identifier: str = WHO, *, state: Any = None, **options: Any) -> Forgetting:
    """What `headgate person WHO --forget --reason R` asks."""
    return Forgetting(
        state or world.ledger, world.settings, {SYNC: world.job}, identifier, "ann", "ticket 77", **options
    )


def part(world: World, erasure: Erasure) -> ErasurePart:
    """The one part there is."""
    (only,) = world.ledger.erasure_parts(erasure=erasure.id)
    return only


def where(world: World, text: str) -> list[str]:
    """The files of the state folder that hold a text: every byte is looked at, in Parquet files every value."""
    files = [path for path in sorted((world.root / "state").rglob("*")) if path.is_file()]
    holding = [path for path in files if text.encode() in path.read_bytes() or text in _values(world, path)]
    return [str(path.relative_to(world.root)) for path in holding]


def _values(world: World, path: Path) -> str:
    if not path.read_bytes().endswith(b"PAR1"):
        return ""
    return repr(world.warehouse.execute(f"SELECT * FROM read_parquet('{path}')").fetchall())


def test_a_member_is_removed_at_the_destination_and_then_erased_from_every_file(world: World) -> None:
    world.people(30).run()
    world.sql("UPDATE vips SET name = 'New' WHERE id IN (3, 4)").run()
    assert len(where(world, WHO)) >= 3

    erasure = forget(asked(world))

    assert part(world, erasure).state is ErasureState.QUEUED
    found = standing(world.ledger, world.job.cohort, world.job.sync)
    assert (found.health, found.reasons) == (Health.WARNING, ("a forgotten person is still to be removed",))
    assert all("members" in name for name in where(world, WHO))
    world.desk.forget()
    report = world.run()
    assert [(push.ops, push.who) for push in world.desk.pushes] == [({Op.REMOVE}, [WHO])]
    assert (report.status, report.applied, report.counts.forgotten) == ("completed", 1, 1)
    assert WHO not in world.desk.members
    assert where(world, WHO) == []
    done = part(world, erasure)
    assert (done.state, done.outcome, done.keys) == (ErasureState.ERASED, ErasureOutcome.REMOVED, ())
    assert world.ledger.generation(SYNC).members == len(world.members()) == 29


def test_who_is_forgotten_is_never_sent_again_and_an_unchanged_cohort_asks_nobody(world: World) -> None:
    world.people(30).run()
    forget(asked(world))
    world.run()
    world.desk.forget()

    idle = world.run()
    world.sql("UPDATE vips SET name = 'New'", "UPDATE vips SET id = 300 WHERE id = 3").run()
    world.sql("UPDATE vips SET email = 'other@x.example', id = 3 WHERE id = 300").run()

    assert (idle.status, idle.requests, idle.counts.unchanged, idle.counts.forgotten) == ("completed", 0, 29, 1)
    assert {who for push in world.desk.pushes for who in push.who}.isdisjoint({WHO, "other@x.example"})
    assert where(world, WHO) == where(world, "other@x.example") == []


@pytest.mark.parametrize("mode", [Mode.UPSERT, Mode.INSERT, Mode.UPDATE])
def test_the_mode_does_not_stand_in_the_way(world: World, mode: Mode) -> None:
    world.people(30).run()
    world.mode = mode
    erasure = forget(asked(world))
    world.desk.forget()

    world.sql("DELETE FROM vips WHERE id = 5").run()

    assert [push.who for push in world.desk.pushes if Op.REMOVE in push.ops] == [[WHO]]
    assert part(world, erasure).state is ErasureState.ERASED
    assert where(world, WHO) == []
    assert "p5@x.example" in world.members()


def test_where_the_object_has_no_removal_the_person_is_erased_at_once_and_somebody_is_told_to_act(
    world: World,
) -> None:
    world.spec, world.mode = replace(world.spec, ops=frozenset({Op.ADD, Op.UPDATE})), Mode.UPSERT
    world.people(30).run()
    world.desk.forget()

    erasure = forget(asked(world))

    assert part(world, erasure).outcome is ErasureOutcome.BY_HAND
    assert where(world, WHO) == []
    assert (world.run().requests, world.desk.pushes) == (0, [])


def test_a_broken_cohort_does_not_stand_in_the_way(world: World) -> None:
    world.people(30).run()
    erasure = forget(asked(world))
    world.sql("DELETE FROM vips")

    report = world.run()

    assert report.status == "held"
    assert part(world, erasure).state is ErasureState.ERASED
    assert (WHO in world.desk.members, len(world.desk.members)) == (False, 29)


def test_more_removals_than_the_guardrails_allow_wait_for_a_decision(world: World) -> None:
    world.people(30).run()
    world.guardrails = replace(world.guardrails, max_removed=1)
    forget(asked(world))
    forget(asked(world, "p4@x.example"))

    report = world.run()

    (plan,) = world.ledger.plans(SYNC, PlanStatus.HELD)
    assert (report.status, [v.guardrail for v in report.held], plan.kind) == ("held", ["removals"], "erasure")
    assert WHO in world.desk.members


def test_a_held_plan_with_the_person_is_void(world: World) -> None:
    world.people(30)
    held = world.run(first_run=False)
    assert held.plan is not None

    erasure = forget(asked(world))

    plan = world.ledger.plan(held.plan.id)
    assert plan is not None
    assert (plan.status, plan.reason) == (PlanStatus.VOID, "a person in it was forgotten")
    assert (plan.digest, plan.file_sha256 == held.plan.file_sha256) == (held.plan.digest, False)
    assert (part(world, erasure).outcome, where(world, WHO)) == (ErasureOutcome.ABSENT, [])
    world.run()
    assert (WHO in world.desk.members, len(world.desk.members)) == (False, 29)


def test_who_is_known_nowhere_is_kept_out_nevertheless(world: World) -> None:
    erasure = forget(asked(world, "  P3@X.example "))

    assert world.ledger.erasure_parts(erasure=erasure.id) == []
    assert world.people(30).run().counts.forgotten == 1
    assert (WHO in world.desk.members, where(world, WHO)) == (False, [])


def test_rejected_records_and_what_the_destination_said_of_them_are_erased(world: World) -> None:
    world.people(30)
    said = f"{WHO} is blocked; so is everybody at x.example"
    world.desk.always = some(*[Status.REJECTED] * 4, reason=said)
    world.run()
    assert len(where(world, WHO)) > 2

    erasure = forget(asked(world))

    assert part(world, erasure).outcome is ErasureOutcome.ABSENT
    assert where(world, WHO) == []
    left = world.ledger.rejected(SYNC)
    assert {record.reason for record in left} == {"••• is blocked; so is everybody at x.example"}
    assert (len(left), world.ledger.exceptions(left[0].run)[3][1]) == (11, "")


def test_an_invalid_row_is_found_by_the_cohorts_key_and_erased(world: World) -> None:
    world.people(30).sql("UPDATE vips SET email = '', id = 333333 WHERE id = 3").run()
    assert len(where(world, "333333")) > 2

    forget(asked(world, "333333"))

    assert where(world, "333333") == []
    assert world.ledger.rejected(SYNC) == []
    report = world.run()
    assert (report.status, report.counts.invalid, report.counts.forgotten) == ("completed", 0, 1)


def test_somebody_who_may_have_been_added_is_removed_before_they_are_erased(world: World) -> None:
    world.people(5)
    world.desk.always = some(*[Status.UNKNOWN] * 5)
    world.run()
    assert len(world.ledger.dirty(SYNC)) == 5
    world.desk.always = None
    world.desk.members[WHO] = {}

    erasure = forget(asked(world))
    assert part(world, erasure).state is ErasureState.QUEUED
    world.run()

    assert part(world, erasure).state is ErasureState.ERASED
    assert (WHO in world.desk.members, where(world, WHO)) == (False, [])
    assert world.ledger.dirty(SYNC) == []


def test_a_run_is_not_green_until_the_removal_is_acknowledged(world: World) -> None:
    world.people(30).run()
    erasure = forget(asked(world))
    world.desk.answers.append(some(Status.REJECTED, reason=f"{WHO} has an open case"))

    refused = world.run()
    assert (refused.status, refused.rejected, exit_code([refused])) == ("completed_with_errors", 1, 4)
    assert part(world, erasure).state is ErasureState.QUEUED
    world.desk.answers.append(Unavailable("down"))
    world.desk.always = Unavailable("down")
    assert exit_code([world.run()]) == 1
    world.desk.answers.clear()
    world.desk.always = None
    world.run()

    assert part(world, erasure).state is ErasureState.ERASED
    assert where(world, WHO) == []


def test_only_other_ops_leave_the_removal_for_a_later_run(world: World) -> None:
    world.people(30).run()
    forget(asked(world))

    report = world.run(only=[Op.ADD])

    assert (report.forgotten_waiting, WHO in world.desk.members, exit_code([report])) == (1, True, 4)


def test_of_a_whole_audience_the_next_one_has_them_no_more(world: World) -> None:
    world.spec = replace(world.spec, delivery=Delivery.SNAPSHOT)
    world.limited(batch_size=None)
    world.desk.snapshot = True
    world.people(30).run()
    erasure = forget(asked(world))
    world.desk.forget()

    report = world.run()

    assert (report.status, len(world.desk.pushes)) == ("completed", 1)
    assert (WHO in world.desk.members, len(world.desk.members)) == (False, 29)
    assert (part(world, erasure).state, where(world, WHO)) == (ErasureState.ERASED, [])


def test_who_is_remembered_is_sent_again(world: World) -> None:
    world.people(30).run()
    forget(asked(world))
    world.run()

    (known,) = remember(asked(world, WHO.upper()))
    world.run()

    taken = world.ledger.erasure(known)
    assert taken is not None
    assert (taken.remembered_by, taken.remembered_reason) == ("ann", "ticket 77")
    assert (WHO in world.desk.members, world.in_step) == (True, True)
    assert remember(asked(world)) == []


def test_who_is_remembered_before_the_removal_is_not_removed(world: World) -> None:
    world.people(30).run()
    erasure = forget(asked(world))
    remember(asked(world))
    world.desk.forget()

    report = world.run()

    assert (report.status, world.desk.pushes, world.in_step) == ("completed", [], True)
    assert part(world, erasure).state is ErasureState.WITHDRAWN


def test_the_reason_must_not_say_who(world: World) -> None:
    with pytest.raises(UsageError) as error:
        forget(replace(asked(world), reason=f"{WHO.upper()} asked for it"))
    assert (error.value.code, WHO in str(error.value).lower()) == ("HG352", False)


def test_an_identifier_that_several_have_is_refused(world: World) -> None:
    world.people(30).sql("UPDATE vips SET email = 'p3@x.example ' WHERE id = 4").run()

    with pytest.raises(UsageError) as error:
        forget(asked(world))
    assert error.value.code == "HG353"
    assert world.ledger.erasures() == []
    forget(asked(world, members=2))
    world.run()
    assert (len(world.desk.members), where(world, WHO)) == (28, [])


def test_an_interrupted_run_is_finished_first(world: World) -> None:
    world.people(30)
    world.desk.always = Unavailable("down")
    world.run()

    with pytest.raises(HeadgateError) as error:
        forget(asked(world))
    assert (error.value.code, world.ledger.erasures()) == ("HG524", [])


def test_without_the_secret_nothing_is_sent(world: World) -> None:
    world.people(30)
    forget(asked(world))
    (world.root / "state" / "forgotten.key").unlink()

    report = world.run()

    assert (report.status, report.code, world.desk.pushes) == ("failed", "HG350", [])


def test_another_hash_function_costs_time_and_lets_nobody_in(world: World) -> None:
    forget(asked(world))
    with world.ledger._db.write() as connection:
        connection.exec_driver_sql("UPDATE forgotten SET probe = 'another', bucket = 0")

    assert world.people(30).run().counts.forgotten == 1


def test_the_ledger_alone_does_not_tell_who_was_forgotten(world: World) -> None:
    """A digest of the identifier without the secret is in none of its rows."""
    forget(asked(world))
    kept = {one.digest for one in world.ledger.forgotten(SYNC)}

    guesses = {
        hashlib.sha256(text.encode()).hexdigest()
        for text in (WHO, f"identifier\x1f{WHO}", hashlib.sha256(WHO.encode()).hexdigest())
    }

    assert kept.isdisjoint(guesses)
    assert (world.root / "state" / "forgotten.key").stat().st_mode & 0o777 == 0o600
