"""Mistakes in the warehouse, the mapping and the answers, which must not slip through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync.engine.job import GuardrailLimits
from sync.engine.receipts import discreet, the_same_for_all
from sync.errors import Unavailable
from sync.health import Health, standing
from sync.logging import register_secret
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.state.nouns import BatchRow
from tests.state.world import SYNC, Desk, World


def refusing(_: Desk, batch: Batch) -> list[Receipt]:
    """Reject every record."""
    return [Receipt(change.key, Status.REJECTED, "no") for change in batch.changes]


@pytest.fixture(autouse=True)
def _people(world: World) -> None:
    world.people(40)


def test_a_column_that_changed_its_type_is_refused_and_nothing_is_sent(world: World) -> None:
    world.run()
    world.desk.forget()
    world.sql("ALTER TABLE vips ALTER score TYPE VARCHAR")

    report = world.run()

    assert (report.status, report.code, world.desk.pushes) == ("failed", "HG216", [])
    assert "score" in report.error


def test_a_changed_mapping_takes_the_types_as_they_are(world: World) -> None:
    world.run()
    world.sql("ALTER TABLE vips ALTER score TYPE VARCHAR")
    world.digest = "mapping-2"

    report = world.run()

    assert (report.status, report.applied, world.in_step) == ("completed", 40, True)


def test_types_may_change_until_something_was_delivered(world: World) -> None:
    world.desk.always = refusing
    world.run()
    world.sql("ALTER TABLE vips ALTER score TYPE VARCHAR")
    world.desk.always = None

    assert world.run().status == "completed"


def test_a_ready_plan_is_void_once_a_guardrail_would_hold_it(world: World) -> None:
    world.run()
    world.sql("DELETE FROM vips WHERE id < 8")
    plan = world.runner().plan(world.job)
    assert plan.plan is not None
    world.desk.forget()
    world.guardrails = GuardrailLimits(max_removed=5, max_removed_pct=100)

    report = world.runner().run(world.job, plan=plan.plan.digest)

    assert (plan.status, report.status, report.code, world.desk.pushes) == ("ready", "failed", "HG505", [])
    assert "removals" in report.error


def test_a_first_run_that_was_refused_whole_is_no_first_run_any_more(world: World) -> None:
    world.desk.always = refusing
    world.run()
    world.desk.always = None

    report = world.runner().run(world.job)  # without --first-run

    assert (report.status, report.applied) == ("completed", 40)


def test_a_member_whose_row_becomes_unfit_is_kept_as_it_is(world: World) -> None:
    world.run()
    before = dict(world.desk.members)
    world.sql("UPDATE vips SET email = NULL WHERE id = 3")

    report = world.run()

    assert (report.status, report.counts.invalid, report.counts.remove) == ("completed_with_errors", 1, 0)
    assert world.desk.members == before


def test_an_interrupted_run_is_not_healthy(world: World) -> None:
    world.desk.always = Unavailable("down", applied=False)
    world.run()

    now = standing(world.ledger, world.job.cohort, world.job.sync)

    assert now.health is Health.FAILING
    assert any("interrupted" in reason for reason in now.reasons)


def test_a_reason_keeps_neither_secrets_nor_private_values() -> None:
    register_secret("canary-secret-4711")
    change = Change(Op.ADD, "1", {"email": "zoe@x.example"}, {"name": "Zoe Canary", "tier": "gold"})
    batch = Batch("b", SYNC, "contact", None, [change])
    row = BatchRow("r", 1, "b", 0, "add", 7, 7)
    said = "Zoe Canary <zoe@x.example> is not gold; you sent Bearer canary-secret-4711"

    outcomes = discreet(
        the_same_for_all(row, batch, Status.REJECTED, said), row, batch, frozenset({"email", "name"})
    )

    ((number, _, _, status, reason),) = outcomes.exceptions
    assert (number, status) == (7, Status.REJECTED)
    assert "is not gold" in reason
    assert not any(part in reason for part in ("Zoe", "zoe@", "canary-secret"))


def test_what_a_mapping_marks_as_personal_is_out_of_the_reasons_that_are_kept(world: World) -> None:
    world.desk.always = lambda _, batch: [
        Receipt(c.key, Status.REJECTED, f"{c.fields['name']} is refused") for c in batch.changes
    ]
    job = world.job
    fields = tuple(m.model_copy(update={"pii": m.to == "name"}) for m in job.sync.fields)
    marked = replace(job, sync=job.sync.model_copy(update={"fields": fields}))

    world.runner().run(marked, first_run=True)

    reasons = {record.reason for record in world.ledger.rejected(SYNC)}
    assert reasons == {"••• is refused"}
