"""A destination that is slow, busy, broken or gone: nothing is lost, nothing is called done that is not."""

from __future__ import annotations

import threading

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests, sent
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink

QUICK_RETRIES = '[delivery]\nbackoff_first = "100ms"'
EVERYBODY = list(range(1, 10_001))


def test_retry_after_is_honoured_in_full(project: Project, sink: Sink) -> None:
    sink.faults = (faults.first(1, faults.rate_limited(3)),)

    done = project.first_run()

    refused, *rest = sink.requests
    assert refused.status == 429
    waited = [e.time - refused.time for e in rest]
    assert [w for w in waited if 0.5 < w < 3.0] == []  # half a second for what was in flight already
    assert len(sink.members) == 10_000
    assert done.sync["retries"] == 1


@pytest.mark.endless
def test_a_destination_that_asks_to_wait_again_and_again_gets_everything_once(
    project: Project, sink: Sink
) -> None:
    sink.faults = (faults.every(20, faults.rate_limited(0.2)),)

    project.first_run()

    taken = [e for e in sink.requests if e.status == 200]
    assert sent(taken) == {"add": EVERYBODY}


@pytest.mark.parametrize("answer", [faults.SERVER_ERROR, faults.RESET_BEFORE, faults.RESET_AFTER])
def test_every_tenth_request_failing_loses_nobody(project: Project, sink: Sink, answer: faults.Answer) -> None:
    sink.faults = (faults.every(10, answer),)

    done = project.first_run()

    assert sorted(sink.members) == EVERYBODY
    assert done.sync["applied"] == 10_000
    assert repeated_requests(sink.requests) == done.sync["retries"] > 0


def test_a_destination_that_is_down_gets_everything_when_it_is_back(project: Project, sink: Sink) -> None:
    project.extra = QUICK_RETRIES
    project.write()
    sink.down()

    failed = project.run("--first-run")
    sink.up()
    done = project.run("--first-run")

    assert failed.code == 1, failed.text
    assert failed.sync["applied"] == 0
    assert done.code == 0, done.text
    assert sent(sink.requests) == {"add": EVERYBODY}


def test_a_destination_that_goes_down_half_way_gets_the_rest_when_it_is_back(project: Project, sink: Sink) -> None:
    project.extra = QUICK_RETRIES
    project.write()
    sink.faults = (faults.when(50, lambda: threading.Thread(target=sink.down).start()),)
    sink.latency = 0.1  # so that it is down before the rest is through

    failed = project.run("--first-run")
    sink.latency = 0.0
    sink.up()
    done = project.run()

    assert failed.code == 1, failed.text
    assert 0 < failed.sync["applied"] < 10_000
    assert done.code == 0, done.text
    assert sorted(sink.members) == EVERYBODY
    assert repeated_requests(sink.requests) <= project.concurrency


@pytest.mark.parametrize("answer", [faults.HTML, faults.HALF])
def test_an_answer_that_makes_no_sense_is_never_taken_for_success(
    project: Project, sink: Sink, answer: faults.Answer
) -> None:
    project.extra = QUICK_RETRIES
    project.write().people(200)
    sink.faults = (faults.always(answer),)

    strange = project.run("--first-run")
    sink.faults = ()
    sink.members.clear()
    done = project.run("--first-run")

    assert strange.code in (1, 4), strange.text
    assert strange.sync["applied"] == 0
    assert done.code == 0, done.text
    assert sorted(sink.members) == EVERYBODY[:200]


def test_wrong_credentials_stop_the_run_at_once(project: Project, sink: Sink) -> None:
    sink.faults = (faults.always(faults.Answer(status=401, apply=False)),)

    failed = project.run("--first-run")
    asked = sink.count
    sink.faults = ()
    done = project.run("--first-run")

    assert failed.code == 1, failed.text
    assert asked <= project.concurrency
    assert done.code == 0, done.text
    assert sorted(sink.members) == EVERYBODY
