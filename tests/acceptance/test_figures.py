"""How fast and how small: limits that hold on two shared cores with room to spare for a noisy neighbour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.project import Done, Project
from tests.acceptance.sink import running


def deliver(folder: Path, people: int, *, latency: float = 0.0, batch_size: int, concurrency: int) -> Done:
    """The first run of so many people."""
    folder.mkdir()
    with running(folder / "sink.jsonl", latency=latency, counts_only=True) as sink:
        project = Project(folder, sink.url, batch_size=batch_size, concurrency=concurrency).write().people(people)
        done = project.run("--first-run", timeout=170)
        assert done.code == 0, done.text
        assert (sink.records_seen, done.sync["applied"]) == (people, people)
    return done


def test_help_takes_less_than_three_tenths_of_a_cpu_second(project: Project) -> None:
    fastest = min(project.headgate("--help").cpu_s for _ in range(4))  # the first may compile bytecode

    assert fastest < 0.3


@pytest.mark.slow
@pytest.mark.measured
def test_a_hundred_thousand_records_cost_at_most_a_cpu_second_per_29000(tmp_path: Path) -> None:
    rates = []
    for attempt in range(3):
        done = deliver(tmp_path / str(attempt), 100_000, batch_size=1_000, concurrency=4)
        rates.append(100_000 / done.cpu_s)

    assert max(rates) >= 29_000, rates


@pytest.mark.slow
@pytest.mark.measured
def test_a_slow_destination_is_given_5000_records_a_second(tmp_path: Path) -> None:
    done = deliver(tmp_path / "slow", 100_000, latency=0.1, batch_size=100, concurrency=16)

    assert 100_000 / done.sync["wall_s"] >= 5_000, done.wall_s


@pytest.mark.slow
@pytest.mark.measured
def test_a_million_rows_stay_under_300_mb(tmp_path: Path) -> None:
    done = deliver(tmp_path / "million", 1_000_000, batch_size=1_000, concurrency=4)

    assert done.rss_mb < 300


@pytest.mark.slow
@pytest.mark.measured
def test_an_unchanged_million_stays_under_300_mb_and_five_cpu_seconds(tmp_path: Path) -> None:
    folder = tmp_path / "million"
    folder.mkdir()
    with running(folder / "sink.jsonl", counts_only=True) as sink:
        project = Project(folder, sink.url, batch_size=1_000).write().people(1_000_000)
        assert project.run("--first-run", timeout=170).code == 0
        before = sink.count

        done = project.run()

        assert (done.code, sink.count) == (0, before), done.text
    assert done.rss_mb < 300
    assert done.cpu_s < 5
