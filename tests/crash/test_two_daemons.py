"""Two daemons on one ledger, killed by turns: slots are asked for once, runs never overlap, nobody is lost."""

from __future__ import annotations

import contextlib
import itertools
import random
import signal
import time
from collections.abc import Callable

import duckdb
import pytest

from sync.state.ledger import open_ledger
from tests.crash.ground import SYNC, Ground, GroundOf

pytestmark = pytest.mark.timeout(240)

KILLS = 10


def until(done: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


def add(ground: Ground, new: range) -> None:
    """Add people while no process has the source open."""

    def changed() -> bool:
        with contextlib.suppress(duckdb.IOException):
            ground.project.more_people(new.start, len(new))
            return True
        return False

    until(changed)


def test_two_daemons_killed_by_turns_lose_nobody_and_double_nothing(ground_of: GroundOf) -> None:
    ground = ground_of()
    ground.project.more = "    schedule: { every: 1s }\n"
    ground.project.write()
    ground.sink.latency = 0.05
    dice = random.Random(20)
    daemons = [ground.start("daemon") for _ in range(2)]

    for number in range(KILLS):
        new = range(1000 + 40 * number, 1040 + 40 * number)
        add(ground, new)
        until(lambda new=new: new.start in ground.sink.members)
        time.sleep(dice.uniform(0.0, 0.3))
        one = number % 2
        daemons[one].kill()
        ground.killed(daemons[one].wait())
        daemons[one] = ground.start("daemon")
    until(lambda: set(range(1000, 1000 + 40 * KILLS)) <= set(ground.sink.members))
    for daemon in daemons:
        until(lambda daemon=daemon: '"started"' in daemon.stem.with_suffix(".err").read_text())
        daemon.send(signal.SIGTERM)
    for daemon in daemons:
        done = daemon.wait()
        assert done.code == 0, done.text

    ground.sink.latency = 0.0
    assert ground.again().code == 0
    ground.in_step()
    with open_ledger(ground.project.root / ".headgate" / "ledger.db") as ledger:
        requests = ledger.requests(SYNC, open_only=False)
        runs = sorted((r for r in ledger.runs(SYNC, limit=1000) if r.finished_at), key=lambda r: r.started_at)
    assert len({r.slot for r in requests}) == len(requests) > KILLS
    assert all(a.finished_at <= b.finished_at for a, b in itertools.pairwise(runs))
    sent = [r for r in runs if r.counts.get("applied")]
    assert sum(r.counts["applied"] for r in sent) == 200 + 40 * KILLS, "each addition was acknowledged once"
