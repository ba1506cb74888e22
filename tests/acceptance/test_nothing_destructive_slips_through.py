"""Whatever happens to the source, nobody is removed without a person's word."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.acceptance.evidence import sent
from tests.acceptance.project import Done, Project
from tests.acceptance.sink import Sink

Held = tuple[Project, str]


def assert_held(project: Project, *guardrails: str) -> dict[str, Any]:
    """A run waits; its words name the guardrails and what to type next. Gives what `--json` says of it."""
    words, done = project.headgate("run"), project.run()
    assert (words.code, done.code) == (3, 3), words.text + done.text
    assert [h["guardrail"] for h in done.sync["held"]] == list(guardrails)
    assert all({"limit", "value"} <= h.keys() for h in done.sync["held"])
    for name in guardrails:
        assert name in words.out
    assert re.search("next: headgate approve [0-9a-f]{12} --reason", words.out)
    return done.sync


def assert_refused(done: Done, *words: str) -> None:
    """The command failed, and its message has these words and a code."""
    assert done.code == 1, done.text
    said = " ".join(done.text.split())
    assert "HG2" in said
    for word in words:
        assert word in said


def test_an_emptied_source_removes_nobody(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort")

    assert_held(synced, "removals", "removals_pct", "source_empty")
    assert len(sink.members) == 10_000


def test_a_source_that_shrank_by_two_thirds_removes_nobody(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id % 3 > 0")

    assert_held(synced, "removals", "removals_pct", "source_shrunk")
    assert len(sink.members) == 10_000


def test_a_dropped_table_fails_and_sends_nothing(synced: Project, sink: Sink) -> None:
    synced.sql("DROP TABLE vip_cohort")

    done = synced.run()

    assert_refused(done, "vip_cohort")
    assert len(sink.members) == 10_000


@pytest.mark.parametrize("change", ["DROP COLUMN country", "RENAME COLUMN country TO country_code"])
def test_a_lost_column_fails_and_sends_nothing(synced: Project, sink: Sink, change: str) -> None:
    synced.sql(f"ALTER TABLE vip_cohort {change}")

    done = synced.run()

    assert_refused(done, "country")
    assert sink.count == 0


def test_a_missing_warehouse_fails_and_sends_nothing(synced: Project, sink: Sink) -> None:
    (synced.root / "warehouse.duckdb").unlink()

    done = synced.run()

    assert_refused(done, "warehouse")
    assert sink.count == 0


def test_a_key_that_is_no_longer_unique_fails_and_sends_nothing(synced: Project, sink: Sink) -> None:
    synced.sql(
        "INSERT INTO vip_cohort SELECT * REPLACE ('x' || email AS email) FROM vip_cohort WHERE user_id <= 3"
    )

    done = synced.run()

    assert_refused(done, "user_id")
    assert sink.count == 0


def test_a_field_that_turns_null_is_held(synced: Project, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET email = NULL WHERE user_id % 4 = 0")

    assert_held(synced, "nulled")
    assert sink.count == 0


@pytest.fixture
def held(synced: Project, sink: Sink) -> Held:
    """30 % are gone from the source, 50 changed, 10 are new; the plan is held."""
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 7000")
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 50")
    synced.more_people(20_001, 10)

    plan = assert_held(synced, "removals", "removals_pct")

    assert (plan["remove"], plan["update"], plan["add"]) == (3_000, 50, 10)
    assert sink.count == 0
    return synced, plan["plan"]


def test_thirty_percent_removed_is_held_and_stays_held(held: Held, sink: Sink) -> None:
    project, _ = held

    assert_held(project, "removals", "removals_pct")
    assert sink.count == 0


def test_an_approval_releases_exactly_the_held_plan(held: Held, sink: Sink) -> None:
    project, plan = held

    done = project.headgate("approve", plan, "--reason", "The cohort was cut on purpose.", "--json")

    assert done.code == 0, done.text
    expected = {"add": range(20_001, 20_011), "update": range(1, 51), "remove": range(7_001, 10_001)}
    assert sent(sink.requests) == {op: list(ids) for op, ids in expected.items()}
    assert project.run().sync["requests"] == 0


def test_an_approval_without_removals_sends_the_rest_and_removes_nobody(held: Held, sink: Sink) -> None:
    project, plan = held

    project.headgate("approve", plan, "--no-removals", "--reason", "Only the additions, please.")

    assert sent(sink.requests) == {"add": list(range(20_001, 20_011)), "update": list(range(1, 51))}
    assert len(sink.members) == 10_010
    assert_held(project, "removals", "removals_pct", "kept_back")


def test_a_rejected_plan_cannot_be_approved_any_more(held: Held, sink: Sink) -> None:
    project, plan = held

    rejected = project.headgate("reject", plan, "--reason", "A partition is missing.")
    approved = project.headgate("approve", plan, "--reason", "Never mind.")

    assert rejected.code == 0, rejected.text
    assert approved.code == 1, approved.text
    assert sink.count == 0


def test_an_approval_is_void_once_the_source_moved(held: Held, sink: Sink) -> None:
    project, plan = held
    project.sql("DELETE FROM vip_cohort WHERE user_id > 6000 AND user_id <= 7000")

    done = project.headgate("approve", plan, "--reason", "The cohort was cut on purpose.")

    assert done.code in (1, 3), done.text
    assert sink.count == 0


def test_an_approval_needs_a_reason(held: Held, sink: Sink) -> None:
    project, plan = held

    done = project.headgate("approve", plan)

    assert done.code == 2, done.text
    assert sink.count == 0


def test_a_decision_made_for_later_is_carried_out_by_the_next_run(held: Held, sink: Sink) -> None:
    project, plan = held

    project.headgate("approve", plan, "--later", "--reason", "Tonight.")
    waiting = sink.count
    done = project.run()

    assert waiting == 0
    assert done.code == 0, done.text
    assert len(sink.members) == 7_010


def test_what_a_person_decided_is_in_the_audit_log(held: Held) -> None:
    project, plan = held
    project.environment["HEADGATE_ACTOR"] = "jo@acme.example"

    project.headgate("approve", plan, "--reason", "The cohort was cut on purpose.")
    found = project.headgate("audit", "search", "--json")
    verified = project.headgate("audit", "verify")

    assert "The cohort was cut on purpose." in found.out
    assert "jo@acme.example" in found.out
    assert verified.code == 0, verified.text
