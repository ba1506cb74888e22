"""Lanes: one quota for every process, the slow-down, and the breaker."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.engine.lane import BREAKS_AFTER, Lane
from sync.engine.lane_file import FileCells, MemoryCells, lane_path
from sync.engine.pacing import Pacer, Pacers, room_left
from sync.errors import RateLimited, Unavailable
from sync.sdk.nouns import Rate
from sync.state.holder import boot_clock

LIFETIME = 17.0


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Road:
    """A pacer on a clock of its own."""

    def __init__(self, *rates: Rate) -> None:
        self.clock = Clock()
        self.lane = Lane(MemoryCells(), self.clock)
        self.rates = rates
        self.pacer = Pacer(self.lane, rates, LIFETIME)

    def go(self, seconds: float = 0.0) -> float:
        """Wait for a turn and take it, some time later; how long that took."""
        self.clock.now += seconds
        began = self.clock.now

        def wait(delay: float) -> bool:
            self.clock.now += delay
            return False

        assert self.pacer.acquire(wait)
        return self.clock.now - began

    def fail(self, times: int = 1) -> int:
        """So many requests are not answered, a second apart."""
        failures = 0
        for _ in range(times):
            self.clock.now += 1.5
            failures = self.pacer.failed(Unavailable("down"))
        return failures


@pytest.fixture
def road() -> Road:
    return Road()


# -- the slow-down


def at_ten_a_second(road: Road) -> None:
    for _ in range(50):
        road.go(0.1)


def test_a_429_halves_the_pace(road: Road) -> None:
    at_ten_a_second(road)

    road.pacer.failed(RateLimited("slower"))

    room = road.lane.room(())
    assert room.pace == pytest.approx(5, rel=0.05)
    assert road.go() == pytest.approx(0.2, rel=0.05)


def test_the_pace_grows_again_until_it_is_what_it_was(road: Road) -> None:
    at_ten_a_second(road)
    road.pacer.failed(RateLimited("slower"))

    paces = []
    for _ in range(16):
        paces.append(road.lane.room(()).pace)
        road.clock.now += 1

    grown = [pace for pace in paces if pace is not None]
    steps = [after - before for before, after in itertools.pairwise(grown)]
    assert steps == pytest.approx([steps[0]] * len(steps))
    assert paces[-1] is None


def test_requests_that_fail_at_the_same_moment_slow_down_once(road: Road) -> None:
    at_ten_a_second(road)

    for _ in range(8):
        road.pacer.failed(RateLimited("slower"))

    assert road.lane.room(()).pace == pytest.approx(5, rel=0.05)


def test_one_request_in_ten_that_fails_by_chance_costs_less_than_half_the_pace(road: Road) -> None:
    at_ten_a_second(road)
    began = road.clock.now

    for number in range(600):
        road.go(0.1)
        if number % 10 == 0:
            road.pacer.failed(Unavailable("busy"))
        else:
            road.pacer.answered()

    assert 600 / (road.clock.now - began) > 5


def test_trouble_that_goes_on_slows_down_further_but_never_to_a_standstill(road: Road) -> None:
    at_ten_a_second(road)

    paces = []
    for _ in range(12):
        road.pacer.failed(RateLimited("slower"))
        paces.append(road.lane.room(()).pace or 99.0)
        road.clock.now += 1.01

    assert paces[1] < paces[0]
    assert min(paces) == pytest.approx(10 / 16, rel=0.1)


def test_a_destination_with_half_the_rate_we_were_told_is_soon_met_at_its_own() -> None:
    road = Road(Rate(100, 10.0))
    answered: list[float] = []

    for _ in range(1500):
        road.go()
        recent = [at for at in answered if at > road.clock.now - 10]
        if len(recent) >= 50:
            road.pacer.failed(RateLimited("slower"))
            road.clock.now += 0.05
        else:
            answered.append(road.clock.now)
            road.pacer.answered()

    last = [at for at in answered if at > road.clock.now - 60]
    refused = 1500 - len(answered)
    assert len(last) >= 0.6 * 5 * 60
    assert refused < 0.5 * 1500


def test_a_handful_of_requests_is_no_pace_to_slow_down(road: Road) -> None:
    for _ in range(5):
        road.go()
    road.pacer.failed(RateLimited("slower"))

    assert road.go() == 0


# -- the breaker


def test_five_failures_in_a_row_open_the_breaker_and_an_answer_closes_it(road: Road) -> None:
    road.go()
    road.fail(BREAKS_AFTER - 1)
    assert road.lane.room(()).down is None

    road.fail()
    assert road.lane.room(()).down is not None

    road.pacer.answered()
    assert road.lane.room(()).down is None


def test_an_answer_between_failures_keeps_the_breaker_closed(road: Road) -> None:
    for _ in range(10):
        road.fail(BREAKS_AFTER - 1)
        road.pacer.answered()

    assert road.lane.room(()).down is None


def test_a_429_is_an_answer_and_never_opens_the_breaker(road: Road) -> None:
    for _ in range(20):
        road.pacer.failed(RateLimited("slower"))
        road.clock.now += 2

    assert road.lane.room(()).down is None


def test_through_an_open_breaker_goes_one_probe_at_a_time(road: Road) -> None:
    road.fail(BREAKS_AFTER)
    road.go()  # the probe of a new process
    probed = road.clock.now

    turns = [road.lane.take((), LIFETIME)[0] for _ in range(4)]
    road.clock.now = probed + LIFETIME - 0.1
    late, _ = road.lane.take((), LIFETIME)

    assert all(turn > 0 for turn in turns)
    assert late > 0


def test_a_new_process_probes_at_once_and_then_waits_as_the_others_do(road: Road) -> None:
    road.fail(BREAKS_AFTER + 6)

    first, _ = road.lane.take((), LIFETIME)
    road.fail()
    second, _ = road.lane.take((), LIFETIME)

    assert first <= road.clock.now
    assert first == 0.0
    assert second > 60


def test_the_pause_before_a_probe_doubles_up_to_five_minutes(road: Road) -> None:
    road.fail(BREAKS_AFTER - 1)

    pauses = []
    for _ in range(12):
        road.fail()
        pauses.append(road.lane.room(()).probe_in)

    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300])


def test_the_first_answer_lets_everybody_through(road: Road) -> None:
    road.fail(BREAKS_AFTER)
    road.go()
    road.pacer.answered()
    road.clock.now += 60  # slowed down no more

    assert [road.lane.take((), LIFETIME)[0] for _ in range(5)] == [0.0] * 5


# -- one lane for all processes


def test_two_processes_share_the_windows_of_an_account(tmp_path: Path) -> None:
    rate = Rate(10, 60.0)
    ours = Pacers(folder=tmp_path).of("crm", (rate,))
    child = multiprocessing.get_context("spawn").Process(target=_take_six, args=(tmp_path,))
    child.start()
    child.join()

    granted = 0
    while granted < 10 and ours.acquire(lambda _: True):
        granted += 1

    assert child.exitcode == 0
    assert granted == 4


def _take_six(folder: Path) -> None:
    pacer = Pacers(folder=folder).of("crm", (Rate(10, 60.0),))
    for _ in range(6):
        assert pacer.acquire(lambda _: True)


def test_a_pause_is_known_to_the_next_process(tmp_path: Path) -> None:
    Pacers(folder=tmp_path).of("crm", ()).pause(500)

    assert Pacers(folder=tmp_path).of("crm", ()).paused == pytest.approx(500, abs=5)


def test_accounts_have_lanes_of_their_own_and_files_that_do_not_name_them(tmp_path: Path) -> None:
    pacers = Pacers(folder=tmp_path)
    pacers.of("https://crm.example#ada", ()).pause(500)

    assert pacers.of("https://crm.example#bob", ()).paused == 0
    (one, two) = sorted((tmp_path / "lanes").iterdir())
    assert not any(word in f"{one} {two}" for word in ("crm", "ada", "bob"))
    assert one.stat().st_mode & 0o777 == 0o600


def test_times_of_another_boot_are_forgotten(tmp_path: Path) -> None:
    Pacers(folder=tmp_path).of("crm", ()).pause(500)
    path = lane_path(tmp_path, "crm")
    with path.open("r+b") as file:
        file.write(struct.pack("<d", 12345.0))

    assert room_left(tmp_path, "crm", ()) is None
    assert Pacers(folder=tmp_path).of("crm", ()).paused == 0


@given(st.binary(min_size=8, max_size=400))
def test_a_damaged_lane_never_silences_an_account(noise: bytes) -> None:
    cells = MemoryCells()
    for at in range(0, len(noise) - 7, 8):
        cells.put(1 + at // 8, struct.unpack_from("<d", noise, at)[0])
    clock = Clock()
    lane = Lane(cells, clock)

    lane.room((Rate(10, 1.0),))
    for _ in range(2000):
        delay, _ = lane.take((Rate(10, 1.0),), LIFETIME)
        if delay <= 0:
            break
        clock.now += delay
    assert delay <= 0
    assert clock.now < 1000 + 90_000


def test_a_process_frozen_with_the_lock_does_not_stop_the_others(tmp_path: Path) -> None:
    frozen = FileCells(lane_path(tmp_path, "crm"))
    pacer = Pacers(folder=tmp_path).of("crm", (Rate(5, 60.0),))
    began = time.monotonic()

    with frozen.held():
        assert pacer.acquire(lambda _: True)

    assert 0.9 < time.monotonic() - began < 10


@pytest.fixture
def full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on whose disk nothing more fits."""
    Pacers(folder=tmp_path).of("crm", ())

    def refuse(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", refuse)
    return tmp_path


def test_on_a_full_disk_the_rate_is_kept_all_the_same(full: Path) -> None:
    pacer = Pacers(folder=full).of("crm", (Rate(3, 60.0),))

    granted = [pacer.acquire(lambda _: True) for _ in range(5)]

    assert granted == [True] * 3 + [False] * 2


def test_where_no_lane_can_be_made_each_process_keeps_its_own(tmp_path: Path) -> None:
    (tmp_path / "lanes").write_text("in the way")
    pacer = Pacers(folder=tmp_path).of("crm", (Rate(3, 60.0),))

    assert [pacer.acquire(lambda _: True) for _ in range(4)] == [True] * 3 + [False]


def test_a_window_counts_from_when_a_request_leaves_not_from_when_it_was_its_turn() -> None:
    road = Road(Rate(2, 10.0))
    for _ in range(2):
        road.go()
        road.clock.now += 3  # the intent is committed, a connection is made
        road.pacer.leave()
    first_left = road.clock.now - 3

    road.go()

    assert road.clock.now >= first_left + 10


# -- what there is room for


def test_the_room_that_is_left_is_seen_from_outside(tmp_path: Path) -> None:
    rates = (Rate(100, 10.0), Rate(40_000, 60.0))
    pacer = Pacers(folder=tmp_path).of("crm", rates)
    for _ in range(37):
        pacer.acquire(lambda _: True)

    room = room_left(tmp_path, "crm", rates)

    assert room is not None
    assert [(one.rate, one.used, one.left) for one in room.windows] == [
        (rates[0], 37, 63),
        (rates[1], 37, 39_963),
    ]
    assert (room.paused, room.pace, room.down) == (0.0, None, None)


def test_nobody_has_sent_anything_so_there_is_nothing_to_see(tmp_path: Path) -> None:
    assert room_left(tmp_path, "crm", (Rate(1, 1.0),)) is None
    assert not (tmp_path / "lanes").exists()


@given(st.lists(st.floats(0, 3), min_size=1, max_size=60), st.integers(1, 12), st.floats(0.5, 20))
def test_what_is_used_is_what_left_within_the_window(gaps: list[float], requests: int, per: float) -> None:
    road, rate = Road(), Rate(requests, per)
    times = []
    for gap in gaps:
        road.go(gap)
        times.append(road.clock.now)

    (window,) = road.lane.room((rate,)).windows

    held = per * 1.01 + min(per * 0.03, 0.15)
    inside = sum(at + held > road.clock.now for at in times)
    assert window.used == min(inside, requests)


def test_a_turn_costs_little(tmp_path: Path) -> None:
    lane = Lane(FileCells(lane_path(tmp_path, "crm")), boot_clock)
    rates = (Rate(100_000, 1.0), Rate(1_000_000, 60.0))
    began = time.process_time()
    for _ in range(1000):
        lane.take(rates, LIFETIME)

    assert time.process_time() - began < 0.5
