"""Killed at random moments, again and again in one run: it converges, nobody is lost, all is explained."""

from __future__ import annotations

import random
import threading

import pytest

from tests.acceptance import faults
from tests.crash.forge import Forked
from tests.crash.ground import Ground, GroundOf

QUICK, SLOW = range(12), range(100, 220)
KILLS = 9  # of each seed

pytestmark = pytest.mark.timeout(300)


def kill_somewhere(ground: Ground, dice: random.Random, longest: float) -> bool:
    """Start a run, kill it after a while or a while after one of its requests; False where it had ended."""
    arrived = threading.Event()
    if dice.random() < 0.5:
        number = ground.sink.count + dice.randint(1, 10)
        ground.sink.faults = (faults.when(number, arrived.set),)
        after = dice.uniform(0.0, 0.03)
    else:
        arrived.set()
        after = dice.uniform(0.0, longest)
    running = ground.start("run", "--json")
    killed = not over_before(running, arrived) and not running.over(after)
    running.kill()
    done = running.wait()
    if killed and done.code == -9:
        ground.killed(done)
        return True
    ground.believe(done)
    return False


def over_before(running: Forked, arrived: threading.Event) -> bool:
    """Did it end before the request that was waited for."""
    while not arrived.wait(0.005):
        if running.over(0.0):
            return True
    return False


def kill_at_random(ground_of: GroundOf, seed: int) -> None:
    dice = random.Random(seed)
    print(f"seed {seed}")
    kills, longest = 0, 1.0
    while kills < KILLS:
        ground = ground_of().change()
        ground.sink.latency = 0.01
        for _ in range(4):
            if not kill_somewhere(ground, dice, longest):
                break
            kills += 1
        ground.sink.faults = ()
        done = ground.again()
        longest = max(0.2, min(3.0, done.wall_s))  # as fast as this machine is now

        assert done.code == 0, done.text
        ground.in_step()


@pytest.mark.parametrize("seed", QUICK)
def test_killed_at_random_moments(ground_of: GroundOf, seed: int) -> None:
    kill_at_random(ground_of, seed)


@pytest.mark.endless
@pytest.mark.parametrize("seed", SLOW)
def test_killed_at_many_more_random_moments(ground_of: GroundOf, seed: int) -> None:
    kill_at_random(ground_of, seed)
