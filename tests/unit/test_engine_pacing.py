"""Pacing: windows of an account's rates, and pauses, whoever asks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tenacity import RetryCallState, Retrying

from sync.engine.job import DeliverySettings
from sync.engine.lane import Lane
from sync.engine.lane_file import MemoryCells
from sync.engine.pacing import Pacer, Pacers
from sync.engine.patience import Patience
from sync.errors import RateLimited
from sync.sdk.nouns import Rate


class Clock:
    """Time that passes only while somebody waits."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now += seconds
        return False


def pacer_of(rates: Iterable[Rate], clock: Callable[[], float]) -> Pacer:
    return Pacer(Lane(MemoryCells(), clock), rates)


def granted(pacer: Pacer, clock: Clock, requests: int) -> list[float]:
    """When so many requests left."""
    times = []
    for _ in range(requests):
        assert pacer.acquire(clock.wait)
        times.append(clock.now)
    return times


def test_without_rates_nothing_waits() -> None:
    clock = Clock()

    granted(pacer_of((), clock), clock, 100)

    assert clock.waits == []


@given(
    st.lists(st.builds(Rate, st.integers(1, 8), st.floats(0.1, 60)), min_size=1, max_size=3),
    st.lists(st.floats(0, 5), max_size=10),
)
def test_no_window_ever_holds_more_than_its_rate(rates: list[Rate], pauses: list[float]) -> None:
    clock = Clock()
    pacer = pacer_of(rates, clock)
    times: list[float] = []
    for pause in [*pauses, *[0.0] * 20]:
        clock.now += pause
        times += granted(pacer, clock, 1)

    for rate in rates:
        spans = [b - a for a, b in zip(times, times[rate.requests :], strict=False)]
        assert all(span >= rate.per for span in spans)


def test_a_full_window_lets_a_burst_through_at_once() -> None:
    clock = Clock()

    granted(pacer_of([Rate(10, 1.0)], clock), clock, 10)

    assert clock.waits == []


def test_a_pause_is_waited_for_in_full_and_the_longest_counts() -> None:
    clock = Clock()
    pacer = pacer_of((), clock)

    pacer.pause(30.0)
    pacer.pause(5.0)
    paused = pacer.paused
    times = granted(pacer, clock, 1)

    assert (paused, times, pacer.paused) == (pytest.approx(30), [pytest.approx(1030)], 0.0)


def test_who_is_told_to_stop_takes_no_turn() -> None:
    clock = Clock()
    pacer = pacer_of([Rate(1, 10.0)], clock)
    stop: Callable[[float], bool] = lambda seconds: True  # noqa: E731

    first, second = pacer.acquire(stop), pacer.acquire(stop)
    clock.now += 10.3

    assert (first, second, pacer.acquire(stop)) == (True, False, True)


def test_syncs_of_one_account_share_its_windows_and_its_pauses_whatever_their_own_rates() -> None:
    clock = Clock()
    pacers = Pacers(clock)
    ours, theirs = pacers.of("crm", (Rate(2, 10.0),)), pacers.of("crm", (Rate(2, 10.0), Rate(100, 1.0)))
    other = pacers.of("elsewhere", (Rate(2, 10.0),))

    granted(ours, clock, 2)
    (late,) = granted(theirs, clock, 1)
    theirs.pause(60)

    assert late >= 1010
    assert ours.paused == pytest.approx(60)
    assert other.paused == 0


def test_threads_that_ask_at_once_are_granted_no_more_than_the_rate() -> None:
    pacer = pacer_of([Rate(5, 0.2)], time.monotonic)
    times: list[float] = []
    lock = threading.Lock()

    def ask() -> None:
        for _ in range(3):
            pacer.acquire(lambda seconds: time.sleep(min(seconds, 0.02)) is not None)
            with lock:
                times.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    times.sort()
    assert len(times) == 18
    assert times[-1] - times[0] >= 3 * 0.2 - 0.05


def test_an_absurd_pause_is_cut_to_a_day() -> None:
    pacer = pacer_of((), lambda: 100.0)

    for seconds in (float("inf"), 315_360_000.0, float("nan"), -5.0):
        pacer.pause(seconds)

    assert pacer.paused == 86400.0


@pytest.mark.parametrize("asked", [0.0, 0.01, None])
def test_who_asks_for_less_than_our_own_patience_is_not_hammered(asked: float | None) -> None:
    patience = Patience(DeliverySettings(backoff_first=0.5, backoff_max=30.0))
    state = RetryCallState(Retrying(), None, (), {})
    state.set_exception((RateLimited, RateLimited("wait", retry_after=asked), None))

    assert patience.delay(state) == 0.5


def test_who_asks_for_more_is_obeyed_by_the_pacer() -> None:
    state = RetryCallState(Retrying(), None, (), {})
    state.set_exception((RateLimited, RateLimited("wait", retry_after=7.0), None))

    assert Patience(DeliverySettings(backoff_first=0.5)).delay(state) == 0.0
