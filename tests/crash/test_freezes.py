"""Frozen for longer than the lease: another takes over, and the frozen one, let go, sends and writes nothing."""

from __future__ import annotations

import signal
import sqlite3
import time

import pytest

from tests.crash.forge import Forked
from tests.crash.ground import Ground, GroundOf

BRIEF = """\
[engine]
lease_ttl = "6s"
[delivery]
request_timeout = "2s"
"""
OWN = (
    "run",
    "batch",
    "attempt",
    "exception",
    "dirty",
    "rejected",
    "generation",
    "plan",
    "refresh",
    "lease",
    "note",
)

pytestmark = pytest.mark.timeout(180)


def freeze(ground: Ground, fault: str) -> Forked:
    """Start a run that stops itself at the fault, and wait until it did."""
    ground.project.extra = BRIEF
    ground.project.concurrency = 1  # a thread frozen in the midst of a transaction would keep the ledger locked
    ground.project.write()
    frozen = ground.start("run", "--json", fault=fault)
    until = time.monotonic() + 60
    while frozen.state != "T":
        assert frozen.state != "Z", "it ended instead"
        assert time.monotonic() < until
        time.sleep(0.02)
    ground.figures.add("freezes")
    return frozen


def take_over(ground: Ground) -> None:
    """Run until the lease has ended and the run is done."""
    until = time.monotonic() + 90
    while True:
        done = ground.run()
        if done.code == 0:
            break
        assert "is being run by process" in done.text, done.text
        assert time.monotonic() < until
        time.sleep(0.5)


def rows(ground: Ground) -> dict[str, list[tuple[object, ...]]]:
    """Everything in the ledger but the audit log, which may tell that somebody was refused."""
    with sqlite3.connect(ground.project.root / ".headgate" / "ledger.db") as connection:
        return {table: sorted(connection.execute(f"SELECT * FROM {table}"), key=repr) for table in OWN}


@pytest.mark.parametrize(
    "point",
    [
        "open.before",
        "request.leaving",
        "acknowledge.before",
        "finish.before",
        *(
            pytest.param(one, marks=pytest.mark.endless)
            for one in ("intend.after", "request.answered", "members_file.named")
        ),
    ],
)
def test_a_frozen_run_that_was_overtaken_neither_sends_nor_writes(ground_of: GroundOf, point: str) -> None:
    ground = ground_of().change()
    frozen = freeze(ground, f"{point}:1:stop")

    take_over(ground)
    # Whom the frozen one would add is removed meanwhile: a late request would undo that.
    ground.project.sql("DELETE FROM vip_cohort WHERE user_id BETWEEN 201 AND 210")
    take_over(ground)
    count, before = ground.sink.count, rows(ground)
    frozen.send(signal.SIGCONT)
    done = frozen.wait()

    assert done.code == 1, done.text
    assert ground.sink.count == count, "it sent something under a lease that it had lost"
    assert rows(ground) == before, "it wrote something under a lease that it had lost"
    assert ground.at_the_destination() == ground.truth()
    assert ground.members() == set(ground.truth())
    ground.looked_after()


def test_a_run_frozen_for_less_than_its_lease_goes_on(ground_of: GroundOf) -> None:
    ground = ground_of().change()
    frozen = freeze(ground, "request.leaving:2:stop")
    frozen.send(signal.SIGCONT)

    done = frozen.wait()

    assert done.code == 0, done.text
    ground.in_step()


def test_a_frozen_run_that_is_then_killed_is_taken_over_at_once(ground_of: GroundOf) -> None:
    ground = ground_of().change()
    frozen = freeze(ground, "acknowledge.before:3:stop")
    assert ground.run().code == 1
    frozen.kill()
    ground.killed(frozen.wait())

    assert ground.again().code == 0
    ground.in_step()
