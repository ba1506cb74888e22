"""Another process holds the ledger's write lock for longer than anybody waits: nothing is sent, nothing lost."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.acceptance import faults
from tests.acceptance.evidence import repeated_requests, sent
from tests.acceptance.sink import Sink
from tests.crash.small import PEOPLE, QUICK, SYNC, Small
from tests.figures import Figures

EVERYBODY = list(range(1, PEOPLE + 1))
IMPATIENT = f'[state]\nbusy_timeout = "300ms"\n{QUICK}'


@pytest.fixture
def impatient(settled: Small) -> Small:
    """A project that waits for the ledger for 300 ms, with changes due."""
    settled.extra = IMPATIENT
    settled.write()
    settled.sql("UPDATE vip_cohort SET score = score + 1000")
    return settled


class Lock:
    """A backup tool, say, that took the write lock and keeps it."""

    def __init__(self, project: Small) -> None:
        self._connection = sqlite3.connect(
            project.state / "ledger.db", isolation_level=None, timeout=10, check_same_thread=False
        )

    def take(self) -> None:
        """Wait for the others, then keep them out."""
        self._connection.execute("BEGIN IMMEDIATE")

    def release(self) -> None:
        """Let them in again."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


@contextmanager
def locking(project: Small) -> Iterator[Lock]:
    """A lock that is let go at the end."""
    lock = Lock(project)
    try:
        yield lock
    finally:
        lock.release()
        lock._connection.close()


@pytest.mark.parametrize(
    "command", [["run"], ["plan"], ["state", "reset", SYNC, "--members", "300", "--reason", "why"]]
)
def test_a_ledger_that_is_locked_from_the_start_is_an_error_and_nothing_is_sent(
    impatient: Small, sink: Sink, figures: Figures, command: list[str]
) -> None:
    with locking(impatient) as lock:
        lock.take()
        failed = impatient.process(*command).failed("HG311")
        assert "locked" in failed.text
        assert sink.count == 0

    impatient.here("run").succeeded()
    assert repeated_requests(sink.requests) == 0
    figures.add("ledger locks")


def test_looking_needs_no_lock(impatient: Small) -> None:
    with locking(impatient) as lock:
        lock.take()
        assert impatient.here("state", "show").succeeded().json["syncs"][0]["members"] == PEOPLE


@pytest.mark.parametrize("number", [1, 6])
def test_a_ledger_locked_while_a_run_is_sending_stops_it_and_the_next_run_goes_on(
    impatient: Small, sink: Sink, figures: Figures, number: int
) -> None:
    with locking(impatient) as lock:
        sink.faults = (faults.when(number, lock.take),)
        impatient.process("run").failed("HG311")
        at_the_end = sink.count
        # Two at once: what was intended before the lock may have left, and nothing else.
        assert at_the_end <= number + impatient.concurrency - 1
        impatient.process("run").failed("HG311")
        assert sink.count == at_the_end
    sink.faults = ()

    impatient.here("run").succeeded()

    assert repeated_requests(sink.requests) <= impatient.concurrency
    assert {who for ids in sent(sink.requests).values() for who in ids} == set(EVERYBODY)
    assert impatient.here("run").succeeded().sync["requests"] == 0
    figures.add("ledger locks")


def test_a_run_that_cannot_renew_its_lease_sends_nothing_past_its_end(
    settled: Small, sink: Sink, figures: Figures
) -> None:
    # It waits for the ledger for far longer than its lease lasts, so only the lease can stop it.
    settled.extra = f'[state]\nbusy_timeout = "60s"\n{QUICK}'.replace('"6s"', '"4s"')
    settled.write()
    settled.sql("UPDATE vip_cohort SET score = score + 1000")
    with locking(settled) as lock:
        sink.faults = (faults.when(2, lock.take),)
        running = settled.start("run", "--json")
        deadline = time.monotonic() + 60
        while sink.count < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        locked = time.time()
        time.sleep(6.0)  # the lease is over, and nobody could take it
        during = [entry for entry in sink.requests if entry.time > locked + 4.0]
    done = settled.ended(running)

    assert during == []
    assert done.code == 0, done.text  # nobody overtook it: it renewed and went on
    assert repeated_requests(sink.requests) <= settled.concurrency
    assert {who for ids in sent(sink.requests).values() for who in ids} == set(EVERYBODY)
    figures.add("ledger locks")
