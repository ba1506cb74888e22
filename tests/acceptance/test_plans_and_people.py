"""A plan travels as a file, a person can be looked up, and nobody's address stands in words or logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import sent
from tests.acceptance.faults import Answer, Request
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink

ADDRESS = "person42@mail.example"


def test_a_plan_in_a_file_is_delivered_exactly(synced: Project, sink: Sink, tmp_path: Path) -> None:
    file = str(tmp_path / "plan.json")
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 7")
    synced.headgate("plan", "--out", file)

    done = synced.run("--plan", file)

    assert done.code == 0, done.text
    assert sent(sink.requests) == {"update": list(range(1, 8))}


def test_a_plan_in_a_file_is_refused_once_the_source_moved(synced: Project, sink: Sink, tmp_path: Path) -> None:
    file = str(tmp_path / "plan.json")
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 7")
    synced.headgate("plan", "--out", file)
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 8")

    done = synced.run("--plan", file)

    assert done.code == 1, done.text
    assert sink.count == 0


def test_a_person_is_found_by_the_identifier_the_destination_knows(synced: Project) -> None:
    known = synced.headgate("person", "42")
    unknown = synced.headgate("person", "424242")

    assert synced.sync in known.out
    assert synced.sync not in unknown.out


def test_status_says_that_a_plan_waits(synced: Project) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 7000")
    held = synced.run().sync["plan"]

    status = synced.headgate("status", "--json")

    (sync,) = status.json["syncs"]
    assert sync["health"] == "held"
    assert sync["members"] == 10_000
    assert f"headgate approve {held}" in synced.headgate("status").out


def quotes_the_request(request: Request) -> Answer | None:
    """Refuse person 42, and say so with the address."""
    refused = frozenset(i for i, r in enumerate(request.records) if r["user_id"] == 42)
    errors = b",".join(
        b'{"message": "%s bounces"}' % ADDRESS.encode() if i in refused else b"null"
        for i in range(len(request.records))
    )
    return Answer(status=207, body=b'{"errors": [' + errors + b"]}", refused=refused)


@pytest.fixture
def refused(project: Project, sink: Sink) -> Project:
    """200 people, of whom the destination refuses one, with her address in its words."""
    sink.faults = (quotes_the_request,)
    return project.people(200)


def test_no_address_stands_in_words_or_logs(refused: Project) -> None:
    run = refused.headgate("run", "--first-run", "-v")
    listed = refused.headgate("rejected", "list")
    planned = refused.headgate("plan")
    audited = refused.headgate("audit", "search")

    assert run.code == 4, run.text
    assert "bounces" in listed.out
    assert ADDRESS not in run.text + listed.text + planned.text + audited.text


def test_an_address_is_shown_to_whoever_says_why_and_that_is_audited(refused: Project) -> None:
    refused.run("--first-run")
    (record,) = refused.headgate("rejected", "list", "--json").json["records"]
    show = ("rejected", "show", refused.sync, record["key"])

    masked = refused.headgate(*show)
    bare = refused.headgate(*show, "--reveal")
    revealed = refused.headgate(*show, "--reveal", "--reason", "She asked why she gets no mail.")

    assert ADDRESS not in masked.text
    assert bare.code == 2
    assert ADDRESS in revealed.out
    assert "She asked why she gets no mail." in refused.headgate("audit", "search").out


def test_an_answer_that_drips_is_given_up_and_asserted_again(project: Project, sink: Sink) -> None:
    project.extra = '[delivery]\nrequest_timeout = "1s"\nbackoff_first = "100ms"'
    project.write().people(100)
    sink.faults = (faults.first(1, faults.DRIP),)

    done = project.run("--first-run")

    assert done.code == 0, done.text
    assert [e.key for e in sink.requests] == [sink.requests[0].key] * 2
