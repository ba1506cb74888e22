"""One record that the destination refuses does not keep back its neighbours, and is never forgotten."""

from __future__ import annotations

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import sent
from tests.acceptance.project import Done, Project
from tests.acceptance.sink import Sink

POISON = 4_321
SHAPES = {
    "422 for the whole batch": faults.poison_batch([POISON]),
    "207 with an error per record": faults.poison_records([POISON], 207),
    "422 with an error per record": faults.poison_records([POISON], 422),
}


@pytest.fixture(params=SHAPES)
def poisoned(request: pytest.FixtureRequest, project: Project, sink: Sink) -> Done:
    """The first run, in batches of 1,000, one of which holds the poison record."""
    project.batch_size = 1_000
    project.write()
    sink.faults = (SHAPES[request.param],)
    return project.run("--first-run")


def test_the_others_are_delivered_and_the_run_is_not_green(poisoned: Done, sink: Sink) -> None:
    assert poisoned.code == 4, poisoned.text
    assert (poisoned.sync["applied"], poisoned.sync["rejected"]) == (9_999, 1)
    assert poisoned.sync["status"] == "completed_with_errors"
    assert sorted(sink.members) == [i for i in range(1, 10_001) if i != POISON]


def test_the_rejected_record_is_listed_with_its_reason(poisoned: Done, project: Project) -> None:
    listed = project.headgate("rejected", "list", "--json")

    assert listed.code == 0, listed.text
    (record,) = listed.json["records"]
    assert record["sync"] == project.sync
    assert record["reason"]


def test_it_is_delivered_by_the_next_run_once_the_destination_takes_it(
    poisoned: Done, project: Project, sink: Sink
) -> None:
    before = sink.count
    sink.faults = ()

    done = project.run()

    assert done.code == 0, done.text
    assert sent(sink.since(before)) == {"add": [POISON]}
    assert project.headgate("rejected", "list", "--json").json["records"] == []


def test_a_run_stays_not_green_while_the_destination_refuses_the_record(
    poisoned: Done, project: Project, sink: Sink
) -> None:
    again = project.run()

    assert again.code == 4, again.text
    assert POISON not in sink.members


def test_a_destination_that_refuses_most_records_stops_the_run(project: Project, sink: Sink) -> None:
    sink.faults = (faults.poison_records(range(1, 10_001), 207),)

    done = project.run("--first-run")

    assert done.code in (1, 4), done.text
    assert done.sync["status"] == "stopped"
    assert sink.count < 100
