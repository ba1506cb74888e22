"""The system's clock set by a day, back and forth: no lease is lost, no barrier falls, no daemon stops."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from sync.state.ledger import open_ledger
from tests.crash.clock import DAY, WallClock
from tests.crash.ground import SYNC, Ground, GroundOf

pytestmark = pytest.mark.timeout(180)

ALIVE = 10.0 + 3.0 + 2.0  # seconds that an intended request can be alive: its slack, its time limit, a margin


@pytest.fixture
def wall(tmp_path: Path) -> WallClock:
    """A clock that is right."""
    return WallClock(tmp_path / "clock")


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.05)


@pytest.mark.parametrize("jump", [DAY, -DAY], ids=["a day ahead", "a day back"])
def test_a_run_keeps_its_lease_when_the_clock_is_set(ground_of: GroundOf, wall: WallClock, jump: float) -> None:
    ground = ground_of().change()
    ground.project.environment = wall.environment
    ground.sink.latency = 1.5
    first = ground.start("run", "--json")
    until(lambda: ground.sink.count >= 2)

    wall.jump(jump)
    second = ground.run()
    ground.sink.latency = 0.0
    one = first.wait()

    assert (one.code, second.code) == (0, 1), one.text + second.text
    assert f"process {first.pid}" in second.text
    ground.in_step()


@pytest.mark.parametrize("jump", [DAY / 2, -DAY], ids=["half a day ahead", "a day back"])
def test_the_next_run_waits_for_requests_of_a_killed_one_as_long_as_they_can_live(
    ground_of: GroundOf, wall: WallClock, jump: float
) -> None:
    ground = ground_of().change()
    ground.project.environment = wall.environment
    assert ground.run("request.answered:1:kill").code == -9
    killed = time.time()

    wall.jump(jump)
    assert ground.run().code == 0  # finishes the killed run
    ground.project.sql("DELETE FROM vip_cohort WHERE user_id BETWEEN 201 AND 210")
    count = ground.sink.count
    done = ground.again()

    assert done.code == 0, done.text
    waited = ground.sink.requests[count].time - killed
    assert ALIVE - 5.0 < waited < ALIVE + 45.0
    assert ground.at_the_destination() == ground.truth()


def test_a_plan_that_expired_in_a_jump_is_given_up_and_nobody_is_lost(
    ground_of: GroundOf, wall: WallClock
) -> None:
    ground = ground_of().change()
    ground.project.environment = wall.environment
    assert ground.run("request.answered:2:kill").code == -9

    wall.jump(2 * DAY)
    done = ground.again()

    assert done.code == 0, done.text
    assert ground.at_the_destination() == ground.truth()
    assert ground.members() == set(ground.truth())


@pytest.mark.endless
def test_a_daemon_goes_on_when_the_clock_is_set_back_and_forth(ground_of: GroundOf, wall: WallClock) -> None:
    ground = scheduled(ground_of())
    ground.project.environment = wall.environment
    daemon = ground.start("daemon")

    for number, jump in enumerate((DAY, 0.0, -DAY, 0.0)):
        delivered(ground, number)
        wall.jump(jump)
    delivered(ground, 4)
    daemon.send(signal.SIGTERM)
    done = daemon.wait()

    assert done.code == 0, done.text
    assert ground.members() == set(ground.truth())
    slots_once(ground)
    ground.looked_after()


def scheduled(ground: Ground) -> Ground:
    """Its sync runs every two seconds."""
    ground.project.more = "    schedule: { every: 2s }\n"
    ground.project.write()
    return ground


def delivered(ground: Ground, number: int) -> None:
    """Change the source, while no process has it open, and wait until the destination has the change."""
    new = set(range(1000 + 5 * number, 1005 + 5 * number))

    def changed() -> bool:
        with contextlib.suppress(duckdb.IOException):
            ground.project.more_people(min(new), len(new))
            return True
        return False

    until(changed)
    until(lambda: new <= set(ground.sink.members), 120)


def slots_once(ground: Ground) -> None:
    """Every slot of the schedule was asked for once, and taken once."""
    with open_ledger(ground.project.root / ".headgate" / "ledger.db") as ledger:
        slots = [r.slot for r in ledger.requests(SYNC, open_only=False)]
    assert len(slots) == len(set(slots))
