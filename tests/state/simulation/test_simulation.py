"""The commit protocol, simulated: nothing is lost, doubled, overtaken, or green before it is delivered."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.engine.dispatch import Dispatch
from sync.state import holder
from tests.figures import Figures
from tests.state.simulation import stand_ins
from tests.state.simulation.destination import Moods
from tests.state.simulation.history import KINDS, History, Script, machine, play
from tests.state.simulation.machine import EVERYBODY
from tests.state.simulation.network import FATES, TIMEOUT
from tests.state.simulation.scheduler import Scheduler, Trouble
from tests.state.simulation.witness import MARGIN

HISTORIES = 1000
"""How many seeds the default suite plays; the mutants are played with the same."""

_AT_ONCE = 50


def _count(figures: Figures, history: History) -> None:
    figures.add("simulated histories")
    figures.add("simulated histories planned by DuckDB", history.script.duckdb)
    figures.add("simulated steps", history.scheduler.steps)
    figures.add("simulated crashes", history.scheduler.crashes)
    figures.add("simulated stalls", history.scheduler.stalls)
    figures.add("simulated processes", len(history.processes))
    figures.add("simulated requests", history.witness.requests)
    for name, count in (history.network.fates + history.seen).items():
        figures.add(f"simulated trouble: {name}", count)


@pytest.mark.parametrize("first", range(0, HISTORIES, _AT_ONCE))
def test_whatever_happens_the_members_are_what_the_destination_has(first: int, figures: Figures) -> None:
    for seed in range(first, first + _AT_ONCE):
        _count(figures, play(Script.of(seed)))


@pytest.mark.endless
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("first", range(100_000, 110_000, 1000))
def test_in_many_more_histories_too(first: int, figures: Figures) -> None:
    for seed in range(first, first + 1000):
        _count(figures, play(Script.of(seed)))


def _chances(*sampled: float) -> st.SearchStrategy[float]:
    return st.sampled_from((0.0, *sampled))


SCRIPTS = st.builds(
    Script,
    seed=st.integers(0, 2**32),
    kind=st.sampled_from(sorted(set(KINDS))),
    rounds=st.integers(1, 3),
    batch_size=st.integers(1, 3),
    concurrency=st.integers(1, 3),
    requests=st.just(1),
    jobs=st.just(False),
    trouble=st.builds(Trouble, crash=_chances(0.004, 0.01), stall=_chances(0.005, 0.02), slow=_chances(0.02)),
    moods=st.builds(Moods, rejects=_chances(0.2), defers=_chances(0.2), refuses=_chances(0.2)),
    network=_chances(0.3, 0.7),
    fates=st.lists(st.sampled_from([f for f in FATES if f != "twice"]), min_size=1, unique=True).map(tuple),
    hasty=st.booleans(),
    people=st.lists(st.sampled_from(EVERYBODY), min_size=2, unique=True).map(tuple),
    ledger=_chances(0.02),
    moves=st.booleans(),
    duckdb=st.just(False),
    undone=_chances(0.4),
)


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
@given(SCRIPTS)
def test_whatever_script_is_thought_up(figures: Figures, script: Script) -> None:
    """The same with scripts that hypothesis makes smaller where one fails."""
    _count(figures, play(script))


# --- the simulation itself ------------------------------------------------------------------------------------


def _trace(history: History) -> tuple[object, ...]:
    scheduler, runs = history.scheduler, machine().ledger.runs("vips-crm", limit=100)
    told = [(run.id, run.status, run.started_at, sorted(run.counts.items())) for run in runs]
    return scheduler.steps, scheduler.now, scheduler.crashes, history.destination.audience, told


@pytest.mark.parametrize("seed", [3, 8, 21])
def test_a_seed_always_gives_the_same_history(seed: int) -> None:
    assert _trace(play(Script.of(seed))) == _trace(play(Script.of(seed)))


def test_every_module_of_the_engine_has_the_schedulers_threads_and_clock() -> None:
    import random

    ours = (threading, time, holder.boot_clock, holder.me, ThreadPoolExecutor)
    scheduler = Scheduler(random.Random(0), Trouble())

    with stand_ins.installed(scheduler, {}):
        left = [
            f"{module.__name__}.{name}"
            for module in stand_ins.MODULES
            for name, value in vars(module).items()
            if any(value is one for one in ours)
        ]

    assert left == []


def test_a_request_lives_as_long_as_the_engine_believes() -> None:
    given = machine().settings.delivery.request_timeout
    dispatch = Dispatch.__new__(Dispatch)
    dispatch.settings = machine().settings.delivery

    assert (given, dispatch.lifetime) == (TIMEOUT, TIMEOUT + MARGIN)
