"""Measure, and print a table on stderr and one JSON document on stdout.

    python -m benchmarks [--rows N] [--repeats N]

CPU-seconds are those of the command's own process. The cost of starting it (a run of one unchanged row) is
measured too and taken off where a figure says "without the start".
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from tests.acceptance.project import Done, Project
from tests.acceptance.sink import Sink, running

ROOT = Path(__file__).parent.parent
BATCH = 1_000


@dataclass(frozen=True)
class Figure:
    """One line of the table. `ratio` is `value` over `floor`, 1 being as good as it gets."""

    name: str
    unit: str
    value: float
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the floor."""
        return None if not self.floor else self.value / self.floor


def floor(*arguments: str) -> float:
    """The CPU-seconds of a floor."""
    command = [sys.executable, "-m", "benchmarks.floor", *arguments]
    return float(subprocess.check_output(command, cwd=ROOT, text=True))


def median(repeats: int, measure: Callable[[], float]) -> float:
    """The middle of some measurements."""
    return statistics.median(measure() for _ in range(repeats))


def checked(done: Done, *codes: int) -> Done:
    """The command, if it ended as it should."""
    if done.code not in codes:
        raise SystemExit(f"a benchmark's command ended with {done.code}:\n{done.text}")
    return done


class Bench:
    """A project of `rows` people, its destination, and the cost of a start."""

    def __init__(self, folder: Path, sink: Sink, rows: int, repeats: int) -> None:
        self.sink, self.rows, self.repeats = sink, rows, repeats
        self.project = Project(folder / "project", sink.url, batch_size=BATCH).write().people(rows)
        self.single = Project(folder / "single", sink.url).write().people(1)
        checked(self.single.run("--first-run"), 0)

    def cpu(self, project: Project, *arguments: str) -> float:
        """CPU-seconds of a command that must succeed."""
        return checked(project.headgate(*arguments, "--json", timeout=600), 0, 3).cpu_s

    def figures(self) -> list[Figure]:
        """All of them, in the order of a cohort's life."""
        self.start = median(self.repeats, lambda: self.cpu(self.single, "run"))
        return [
            Figure("headgate --help", "CPU-s", self.help()),
            Figure("a run of one unchanged row: the start", "CPU-s", self.start),
            *self.first(),
            *self.unchanged(),
            self.changed(1),
            self.changed(2),
        ]

    def help(self) -> float:
        """What a person waits for first."""
        return median(self.repeats, lambda: checked(self.single.headgate("--help"), 0).cpu_s)

    def first(self) -> list[Figure]:
        """The first load, against posting ready-made rows."""
        done = checked(self.project.run("--first-run", timeout=1200), 0)
        least = median(self.repeats, lambda: floor("post", self.sink.url, str(self.rows), str(BATCH)))
        per = 1e6 / self.rows
        return [
            Figure("first load", "records/CPU-s", self.rows / done.cpu_s),
            Figure("first load, without the start", "µs CPU/record", (done.cpu_s - self.start) * per, least * per),
            Figure("first load, peak memory", "MB", done.rss_mb),
        ]

    def unchanged(self) -> list[Figure]:
        """An unchanged cohort, against scanning and hashing both sides."""
        before = self.sink.count
        done = [checked(self.project.run(timeout=600), 0) for _ in range(self.repeats)]
        if self.sink.count != before:
            raise SystemExit("an unchanged cohort cost requests")
        value = statistics.median(d.cpu_s for d in done)
        return [
            Figure("unchanged, without the start", "CPU-s", value - self.start, self._scan()),
            Figure("unchanged, peak memory", "MB", max(d.rss_mb for d in done)),
        ]

    def changed(self, percent: int) -> Figure:
        """A plan where so many percent changed, against scanning and hashing both sides."""
        self.project.sql(f"UPDATE vip_cohort SET score = score + 1000 WHERE user_id % 100 < {percent}")
        value = median(self.repeats, lambda: self.cpu(self.project, "plan"))
        return Figure(
            f"plan with {percent} % changed, without the start", "CPU-s", value - self.start, self._scan()
        )

    def _scan(self) -> float:
        return median(self.repeats, lambda: floor("scan", str(self.project.root)))


def show(figures: list[Figure]) -> None:
    """The table."""
    print(f"{'':<46}{'':>14}{'value':>12}{'floor':>10}{'ratio':>8}", file=sys.stderr)
    for f in figures:
        least = f"{f.floor:>10,.2f}{f.ratio:>8.1f}" if f.floor else ""
        print(f"{f.name:<46}{f.unit:>14}{f.value:>12,.2f}{least}", file=sys.stderr)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder / "sink.jsonl", counts_only=True) as sink:
            figures = Bench(folder, sink, options.rows, options.repeats).figures()
    show(figures)
    document = {"schema": 1, "rows": options.rows, "figures": [{**asdict(f), "ratio": f.ratio} for f in figures]}
    print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
