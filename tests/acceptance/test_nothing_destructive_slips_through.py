"""Whatever happens to the source, nobody is removed without a person's word."""

from __future__ import annotations

import pytest

from tests.acceptance.evidence import sent
from tests.acceptance.project import Done, Project
from tests.acceptance.sink import Sink


@pytest.fixture
def synced(project: Project, sink: Sink) -> Project:
    """A project whose 10,000 people stand at the destination; the record begins after that."""
    project.first_run()
    return project


def assert_held(done: Done) -> None:
    """The command waits, and says which guardrail, limit and value, and what to type next."""
    assert done.code == 3, done.text
    (rule, *_) = done.sync["held"]
    assert rule["guardrail"]
    assert "limit" in rule
    assert "value" in rule
    words = " ".join(done.err.split())
    assert rule["guardrail"] in words
    assert f"headgate approve {done.sync['plan']}" in words


def assert_refused(done: Done, *words: str) -> None:
    """The command failed, and its message has these words and a code."""
    assert done.code == 1, done.text
    said = " ".join(done.text.split())
    assert "HG2" in said
    for word in words:
        assert word in said


def test_an_emptied_source_removes_nobody(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort")

    done = synced.run()

    assert_held(done)
    assert len(sink.members) == 10_000


def test_a_source_that_shrank_by_two_thirds_removes_nobody(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id % 3 > 0")

    done = synced.run()

    assert_held(done)
    assert len(sink.members) == 10_000


def test_a_dropped_table_fails_and_sends_nothing(synced: Project, sink: Sink) -> None:
    synced.sql("DROP TABLE vip_cohort")

    done = synced.run()

    assert_refused(done, "vip_cohort")
    assert len(sink.members) == 10_000


@pytest.mark.parametrize("change", ["DROP COLUMN country", "RENAME COLUMN country TO country_code"])
def test_a_lost_column_fails_and_sends_nothing(synced: Project, sink: Sink, change: str) -> None:
    before = sink.count
    synced.sql(f"ALTER TABLE vip_cohort {change}")

    done = synced.run()

    assert_refused(done, "country")
    assert sink.count == before


def test_a_missing_warehouse_fails_and_sends_nothing(synced: Project, sink: Sink) -> None:
    before = sink.count
    (synced.root / "warehouse.duckdb").unlink()

    done = synced.run()

    assert_refused(done, "warehouse")
    assert sink.count == before


def test_a_key_that_is_no_longer_unique_fails_and_sends_nothing(synced: Project, sink: Sink) -> None:
    before = sink.count
    synced.sql(
        "INSERT INTO vip_cohort SELECT * REPLACE ('x' || email AS email) FROM vip_cohort WHERE user_id <= 3"
    )

    done = synced.run()

    assert_refused(done, "user_id")
    assert sink.count == before


def test_a_field_that_turns_null_is_held(synced: Project, sink: Sink) -> None:
    before = sink.count
    synced.sql("UPDATE vip_cohort SET email = NULL WHERE user_id % 4 = 0")

    done = synced.run()

    assert_held(done)
    assert sink.count == before


@pytest.fixture
def held(synced: Project, sink: Sink) -> tuple[Project, str, int]:
    """30 % are gone from the source, 50 changed, 10 are new; the plan is held."""
    before = sink.count
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 7000")
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 50")
    synced.more_people(20_001, 10)

    done = synced.run()

    assert_held(done)
    assert (done.sync["remove"], done.sync["update"], done.sync["add"]) == (3_000, 50, 10)
    assert sink.count == before
    return synced, done.sync["plan"], before


def test_thirty_percent_removed_is_held_and_stays_held(held: tuple[Project, str, int], sink: Sink) -> None:
    project, _, before = held

    again = project.run()

    assert_held(again)
    assert sink.count == before


def test_an_approval_releases_exactly_the_held_plan(held: tuple[Project, str, int], sink: Sink) -> None:
    project, plan, before = held

    done = project.headgate("approve", plan, "--reason", "The cohort was cut on purpose.", "--json")

    assert done.code == 0, done.text
    expected = {"add": range(20_001, 20_011), "update": range(1, 51), "remove": range(7_001, 10_001)}
    assert sent(sink.since(before)) == {op: list(ids) for op, ids in expected.items()}
    assert project.run().sync["requests"] == 0


def test_an_approval_without_removals_sends_the_rest_and_removes_nobody(
    held: tuple[Project, str, int], sink: Sink
) -> None:
    project, plan, before = held

    project.headgate("approve", plan, "--no-removals", "--reason", "Only the additions, please.")

    assert sent(sink.since(before)) == {"add": list(range(20_001, 20_011)), "update": list(range(1, 51))}
    assert len(sink.members) == 10_010
    assert_held(project.run())


def test_a_rejected_plan_cannot_be_approved_any_more(held: tuple[Project, str, int], sink: Sink) -> None:
    project, plan, before = held

    rejected = project.headgate("reject", plan, "--reason", "A partition is missing.")
    approved = project.headgate("approve", plan, "--reason", "Never mind.")

    assert rejected.code == 0, rejected.text
    assert approved.code == 1, approved.text
    assert sink.count == before


def test_an_approval_is_void_once_the_source_moved(held: tuple[Project, str, int], sink: Sink) -> None:
    project, plan, before = held
    project.sql("DELETE FROM vip_cohort WHERE user_id > 6000 AND user_id <= 7000")

    done = project.headgate("approve", plan, "--reason", "The cohort was cut on purpose.")

    assert done.code in (1, 3), done.text
    assert sink.count == before


def test_an_approval_needs_a_reason(held: tuple[Project, str, int], sink: Sink) -> None:
    project, plan, before = held

    done = project.headgate("approve", plan)

    assert done.code == 2, done.text
    assert sink.count == before


def test_a_decision_made_for_later_is_carried_out_by_the_next_run(
    held: tuple[Project, str, int], sink: Sink
) -> None:
    project, plan, before = held

    project.headgate("approve", plan, "--later", "--reason", "Tonight.")
    waiting = sink.count
    done = project.run()

    assert waiting == before
    assert done.code == 0, done.text
    assert len(sink.members) == 7_010


def test_what_a_person_decided_is_in_the_audit_log(held: tuple[Project, str, int]) -> None:
    project, plan, _ = held
    project.environment["HEADGATE_ACTOR"] = "jo@acme.example"

    project.headgate("approve", plan, "--reason", "The cohort was cut on purpose.")
    found = project.headgate("audit", "search", "--json")
    verified = project.headgate("audit", "verify")

    assert "The cohort was cut on purpose." in found.out
    assert "jo@acme.example" in found.out
    assert verified.code == 0, verified.text
