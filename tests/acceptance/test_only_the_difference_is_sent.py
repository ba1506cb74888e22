"""A first run sends everybody once; after that only what changed travels."""

from __future__ import annotations

from tests.acceptance.evidence import sent
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink

EVERYBODY = list(range(1, 10_001))


def test_a_first_run_waits_for_a_person(project: Project, sink: Sink) -> None:
    done = project.headgate("run")

    assert done.code == 3, done.text
    assert sink.count == 0
    assert "first_run" in done.out
    assert "headgate approve " in done.out


def test_a_first_run_sends_each_person_once(project: Project, sink: Sink) -> None:
    done = project.first_run()

    assert sent(sink.requests) == {"add": EVERYBODY}
    assert {e.size for e in sink.requests} == {100}
    assert done.sync["status"] == "completed"
    assert (done.sync["add"], done.sync["applied"], done.sync["requests"]) == (10_000, 10_000, 100)


def test_an_unchanged_cohort_costs_no_request(synced: Project, sink: Sink) -> None:

    done = synced.run()

    assert done.code == 0, done.text
    assert sink.count == 0
    counts = {name: done.sync[name] for name in ("add", "update", "remove", "unchanged", "requests")}
    assert counts == {"add": 0, "update": 0, "remove": 0, "unchanged": 10_000, "requests": 0}


def test_a_change_of_what_is_not_mapped_costs_no_request(synced: Project, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET updated_at = now(), cohort = 'other'")

    done = synced.run()

    assert (done.code, sink.count) == (0, 0), done.text


def test_one_percent_changed_removed_and_added_is_exactly_what_is_sent(synced: Project, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 100")
    synced.sql("DELETE FROM vip_cohort WHERE user_id BETWEEN 101 AND 200")
    synced.more_people(10_001, 100)

    done = synced.run()

    assert done.code == 0, done.text
    expected = {"update": range(1, 101), "remove": range(101, 201), "add": range(10_001, 10_101)}
    assert sent(sink.requests) == {op: list(ids) for op, ids in expected.items()}
    assert [e.size for e in sink.requests] == [100, 100, 100]
    assert sorted(sink.members) == [*range(1, 101), *range(201, 10_101)]


def test_a_removal_carries_the_identifier_and_nothing_else(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id <= 3")

    synced.run()

    (removal,) = sink.requests
    assert sorted(removal.records, key=lambda r: r["user_id"]) == [{"user_id": 1}, {"user_id": 2}, {"user_id": 3}]


def test_only_additions_can_be_sent_and_the_rest_follows_later(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id <= 10")
    synced.more_people(10_001, 10)

    synced.run("--only", "add")
    first = sink.requests
    synced.run()

    assert sent(first) == {"add": list(range(10_001, 10_011))}
    assert sent(sink.since(len(first))) == {"remove": list(range(1, 11))}


def test_a_plan_sends_nothing_and_says_what_a_run_would(synced: Project, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id <= 10")

    quiet = synced.headgate("plan", "--json")
    loud = synced.headgate("plan", "--json", "--detailed-exitcode")

    assert (quiet.code, loud.code) == (0, 5), quiet.text + loud.text
    assert (quiet.sync["remove"], quiet.sync["unchanged"]) == (10, 9_990)
    assert sink.count == 0
