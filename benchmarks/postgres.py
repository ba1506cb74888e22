"""Measure a cohort in PostgreSQL, from its table to a plan, against reading and hashing the same rows.

    python -m benchmarks.postgres [--rows N] [--repeats N]

Starts a cluster of its own. CPU-seconds are the command's own, not the server's; see `benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.__main__ import BATCH, Figure, checked, floor, median, show
from tests.acceptance.project import Done
from tests.acceptance.sink import running
from tests.acceptance.test_from_postgres import Warehouse
from tests.servers import _cluster, postgres_programs


@contextmanager
def cluster() -> Iterator[Warehouse]:
    """A server that ends with the benchmark."""
    programs = postgres_programs()
    if programs is None:
        raise SystemExit("PostgreSQL is not installed (Debian: postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="hg-pg-"))
    servers = _cluster(programs, folder)
    try:
        yield Warehouse(next(servers))
    finally:
        servers.close()
        shutil.rmtree(folder, ignore_errors=True)


def figures(warehouse: Warehouse, folder: Path, rows: int, repeats: int) -> list[Figure]:
    """In the order of a cohort's life; what starting the command costs is taken off."""
    uri = warehouse.server.url(warehouse.name) + "?sslmode=require"
    found = []
    with running(folder / "sink.jsonl", counts_only=True) as sink:
        project = warehouse.project(folder / "project", sink, batch_size=BATCH)

        def once(*, anew: bool) -> Done:
            if anew:  # a plan that waits already is not made again
                for state in (".headgate", "checkpoints"):
                    shutil.rmtree(project.root / state, ignore_errors=True)
            return checked(project.headgate("plan", "--json", timeout=600), 0, 3)

        def plan(name: str, *, anew: bool = False) -> None:
            done = [once(anew=anew) for _ in range(repeats)]
            least = median(repeats, lambda: floor("postgres", uri))
            cpu = sorted(d.cpu_s for d in done)[repeats // 2]
            found.append((name, cpu, max(d.rss_mb for d in done), least))

        warehouse.people(rows)
        plan("the first plan: everybody is added", anew=True)
        checked(project.run("--first-run", timeout=1200), 0)
        plan("unchanged")
        warehouse.ask("UPDATE vip_cohort SET score = score + 1000 WHERE user_id % 100 = 0")
        plan("1 % changed")
        warehouse.ask("DELETE FROM vip_cohort WHERE user_id > 1")
        single = warehouse.project(folder / "single", sink)
        checked(single.run("--first-run"), 0)
        start = median(repeats, lambda: checked(single.headgate("plan", "--json"), 0).cpu_s)
    told = [Figure("a plan of one unchanged row: the start", "CPU-s", start)]
    for name, cpu, memory, least in found:
        told += [Figure(name, "CPU-s", cpu - start, least), Figure(f"{name}, memory", "MB", memory)]
    return told


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.postgres")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, cluster() as warehouse:
        show(figures(warehouse, Path(name), options.rows, options.repeats))


if __name__ == "__main__":
    main()
