"""Killed, stopped, or run twice at once: nobody is lost, and what is repeated is repeated under the same key."""

from __future__ import annotations

import time

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests, sent
from tests.acceptance.project import Process, Project
from tests.acceptance.sink import Sink

EVERYBODY = list(range(1, 10_001))


def until(sink: Sink, requests: int, timeout: float = 30.0) -> None:
    """Wait until the sink has seen so many requests."""
    deadline = time.monotonic() + timeout
    while sink.count < requests:
        assert time.monotonic() < deadline, f"only {sink.count} requests in {timeout} s"
        time.sleep(0.005)


def start_and_interrupt(project: Project, sink: Sink, number: int, how: str) -> Process:
    """Start the first run and do `how` to it when request `number` arrives, before it is applied."""
    started: list[Process] = []
    sink.faults = (faults.when(number, lambda: getattr(started[0], how)()),)
    sink.latency = 0.02
    started.append(project.start("run", "--first-run", "--json"))
    return started[0]


@pytest.mark.parametrize("number", [1, 50, 100])
def test_kill_9_repeats_at_most_the_batches_in_flight_under_their_keys(
    project: Project, sink: Sink, number: int
) -> None:
    killed = start_and_interrupt(project, sink, number, "kill").wait()

    done = project.run()

    assert killed.code == -9
    assert done.code == 0, done.text
    assert sorted(sink.members) == EVERYBODY
    assert repeated_requests(sink.requests) <= project.concurrency
    assert project.run().sync["requests"] == 0


def test_kill_9_twice_and_then_a_source_that_moved(project: Project, sink: Sink) -> None:
    # A removal waits until no request of the killed runs can be alive: the lease plus the time limit of a request.
    project.extra = '[engine]\nlease_ttl = "6s"\n[delivery]\nrequest_timeout = "2s"'
    project.write()
    start_and_interrupt(project, sink, 30, "kill").wait()
    start_and_interrupt(project, sink, 60, "kill").wait()
    project.sql("DELETE FROM vip_cohort WHERE user_id <= 100")
    sink.faults = ()

    done = project.run()
    if done.sync["remove"] == 0:  # what was interrupted was finished first; the next run sees the difference
        done = project.run()

    assert done.code == 0, done.text
    assert sorted(sink.members) == EVERYBODY[100:]


def test_sigterm_finishes_what_is_in_flight_and_the_next_run_sends_the_rest(project: Project, sink: Sink) -> None:
    stopped = start_and_interrupt(project, sink, 50, "terminate").wait()
    first = sink.count

    done = project.run()

    assert stopped.code not in (0, 3, 4), stopped.text
    assert first < 100
    assert done.code == 0, done.text
    assert sent(sink.requests) == {"add": EVERYBODY}


def test_of_two_runs_at_once_one_works_and_one_says_who_holds_the_lease(project: Project, sink: Sink) -> None:
    sink.latency = 2.0
    first = project.start("run", "--first-run", "--json")
    until(sink, 4)

    second = project.run()
    sink.latency = 0.0
    one = first.wait()

    assert (one.code, second.code) == (0, 1), one.text + second.text
    assert str(first.pid) in second.text
    assert sent(sink.requests) == {"add": EVERYBODY}


def test_two_runs_started_together_send_nothing_twice(project: Project, sink: Sink) -> None:
    sink.latency = 0.05
    both = [project.start("run", "--first-run", "--json") for _ in range(2)]

    codes = sorted(p.wait().code for p in both)

    assert codes in ([0, 1], [0, 0])
    assert sent(sink.requests) == {"add": EVERYBODY}
