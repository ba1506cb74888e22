"""Cohorts in PostgreSQL: from the table to the destination, only the difference, ended when told to, and small."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink, running
from tests.servers import Postgres

ROOT = Path(__file__).parents[2]

PEOPLE = """
    SELECT i::bigint AS user_id, 'Person' || i || '@mail.example ' AS email,
    '+6141' || lpad(i::text, 7, '0') AS phone, 'Name' || (i % 1000) AS first_name,
    (ARRAY['AU', 'NZ', 'GB', 'NO'])[1 + i % 4] AS country, ((i % 90000) / 100.0)::numeric(10, 2) AS ltv,
    (i::bigint * 7919) % 1000 AS score, 'vip' AS cohort, now() - interval '1 hour' AS updated_at
    FROM generate_series(1, {count}) i
"""
READING = "COPY (SELECT %vip_cohort"  # settings are asked for by a COPY, too


class Warehouse:
    """A database of the cluster that has the cohort's table."""

    def __init__(self, server: Postgres) -> None:
        self.server, self.name = server, server.database()
        self.config = "\n".join(
            (
                'type = "postgres"',
                f'host = "{server.host}"\nport = {server.port}\ndatabase = "{self.name}"',
                f'user = "{server.user}"\npassword = "env:PG_PASSWORD"\nssl_root_cert = "{server.certificate}"',
            )
        )

    def ask(self, *statements: str) -> str:
        return self.server.ask(self.name, *statements)

    def people(self, count: int) -> None:
        """Make the table of so many people."""
        self.ask(f"CREATE TABLE vip_cohort AS {PEOPLE.format(count=count)}", "VACUUM ANALYZE vip_cohort")

    def slow_down(self, seconds: float) -> None:
        """Make the table a view that takes so long for each row."""
        slow = f"CASE WHEN pg_sleep({seconds}) IS NOT NULL THEN first_name END AS first_name"
        self.ask(
            "ALTER TABLE vip_cohort RENAME TO all_people",
            f"CREATE VIEW vip_cohort AS SELECT user_id, email, phone, {slow}, country, ltv, score, cohort, "
            "updated_at FROM all_people",
        )

    def project(self, folder: Path, sink: Sink, **more: int) -> Project:
        environment = {"PG_PASSWORD": self.server.password}
        return Project(folder, sink.url, warehouse=self.config, environment=environment, **more).write()  # type: ignore[arg-type]

    def busy(self, words: str) -> bool:
        """Does the server work on a statement with these words for somebody else."""
        return self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND datname = current_database() "
            f"AND query LIKE '%{words}%' AND application_name LIKE 'headgate%'"
        ) != "0"  # fmt: skip


@pytest.fixture
def warehouse(postgres: Postgres) -> Iterator[Warehouse]:
    made = Warehouse(postgres)
    yield made
    made.server.ask("postgres", f"DROP DATABASE {made.name} WITH (FORCE)")


def eventually(true: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_cohort_in_postgres_is_kept_at_the_destination(warehouse: Warehouse, sink: Sink, tmp_path: Path) -> None:
    warehouse.people(3_000)
    project = warehouse.project(tmp_path / "project", sink)

    checked = project.headgate("validate"), project.headgate("doctor")
    first = project.run("--first-run")
    requests = sink.count
    unchanged = project.run()
    same = sink.count
    warehouse.ask(
        "UPDATE vip_cohort SET score = -1 WHERE user_id = 7",
        "DELETE FROM vip_cohort WHERE user_id = 8",
        "INSERT INTO vip_cohort (user_id, email) VALUES (9000, 'new@mail.example')",
        "UPDATE vip_cohort SET updated_at = now()",
    )
    changed = project.run()

    assert [done.code for done in checked] == [0, 0], checked
    assert f"{warehouse.name} as headgate, TLSv1" in checked[1].text
    assert (first.code, first.sync["applied"]) == (0, 3_000), first.text
    assert (unchanged.code, unchanged.sync["unchanged"], same) == (0, 3_000, requests), unchanged.text
    assert [changed.sync[op] for op in ("add", "update", "remove", "unchanged")] == [1, 1, 1, 2_998], changed.text
    assert sink.members[7]["score"] == -1
    assert (8 in sink.members, sink.members[9000]["email"]) == (False, "new@mail.example")
    assert (sink.members[10]["email"], sink.members[10]["ltv"]) == ("person10@mail.example", 0.1)


@pytest.mark.parametrize("lost", ["cancelled", "restarted"])
def test_a_table_that_breaks_off_sends_nothing(
    warehouse: Warehouse, sink: Sink, tmp_path: Path, lost: str
) -> None:
    warehouse.people(100)
    project = warehouse.project(tmp_path / "project", sink)
    assert project.run("--first-run").code == 0
    requests = sink.count
    warehouse.slow_down(0.5)

    running = project.start("run", "--json")
    eventually(lambda: warehouse.busy(READING))
    end = {"cancelled": "pg_cancel_backend", "restarted": "pg_terminate_backend"}[lost]
    warehouse.ask(
        f"SELECT {end}(pid) FROM pg_stat_activity WHERE query LIKE '{READING}%' AND datname = current_database()"
    )
    done = running.wait()

    assert (done.code, sink.count) == (1, requests), done.text
    assert "HG208" in done.text if lost == "cancelled" else "HG200" in done.text


def test_a_run_that_is_told_to_stop_ends_its_query_on_the_server(
    warehouse: Warehouse, sink: Sink, tmp_path: Path
) -> None:
    warehouse.people(10)
    project = warehouse.project(tmp_path / "project", sink)
    warehouse.slow_down(600)

    running = project.start("run", "--json")
    eventually(lambda: warehouse.busy(READING))
    assert (
        warehouse.ask(f"SELECT application_name FROM pg_stat_activity WHERE query LIKE '{READING}%'")
        == "headgate sink-vip"
    )
    running.terminate()
    done = running.wait()

    assert (done.code, sink.count, "HG520" in done.text) == (1, 0, True), done.text
    assert not warehouse.busy(READING)


@pytest.mark.slow
def test_a_run_that_is_killed_leaves_no_query_behind(warehouse: Warehouse, sink: Sink, tmp_path: Path) -> None:
    project = warehouse.project(tmp_path / "project", sink)
    warehouse.people(10)
    warehouse.slow_down(600)

    running = project.start("run")
    eventually(lambda: warehouse.busy(READING))
    running.kill()
    running.wait()

    eventually(lambda: not warehouse.busy(READING), 25)


def floor(warehouse: Warehouse) -> float:
    """CPU-seconds of the driver's reading and DuckDB's hashing alone, the lesser of two."""
    uri = warehouse.server.url(warehouse.name) + "?sslmode=require"
    command = [sys.executable, "-m", "benchmarks.floor", "postgres", uri]
    return min(float(subprocess.check_output(command, cwd=ROOT, text=True)) for _ in range(2))


@pytest.mark.slow
@pytest.mark.measured
def test_a_plan_of_a_million_costs_at_most_twice_reading_and_hashing_them(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    warehouse.people(1_000_000)
    with running(tmp_path / "sink.jsonl", counts_only=True) as sink:
        planned = [warehouse.project(tmp_path / f"p{i}", sink).headgate("plan", "--json") for i in range(3)]
        project = warehouse.project(tmp_path / "project", sink, batch_size=1_000)
        first = project.run("--first-run", timeout=170)
        before = sink.count
        unchanged = [project.headgate("plan", "--json") for _ in range(2)]
        warehouse.ask("UPDATE vip_cohort SET score = score + 1000 WHERE user_id % 100 = 0")
        changed = [project.headgate("plan", "--json") for _ in range(2)]
        least = floor(warehouse)
        warehouse.ask("DELETE FROM vip_cohort WHERE user_id > 1")
        singles = [warehouse.project(tmp_path / f"single{i}", sink) for i in range(2)]
        of_one = min(single.headgate("plan", "--json").cpu_s for single in singles)
        assert singles[0].run("--first-run").code == 0
        start = min(singles[0].headgate("plan", "--json").cpu_s for _ in range(2))

    assert (first.code, sink.count - before) == (0, 1), first.text
    assert [one.code for one in (*planned, *unchanged, *changed)] == [3, 3, 3, 0, 0, 0, 0], planned[0].text
    assert (planned[0].sync["add"], unchanged[0].sync["unchanged"]) == (1_000_000, 1_000_000)
    assert changed[0].sync["update"] == 10_000
    for done, begun in ((planned, of_one), (unchanged, start), (changed, start)):
        assert min(one.cpu_s for one in done) - begun <= 2 * least, (done[0].text, begun, least)
        assert max(one.rss_mb for one in (first, *done)) < 400


READ = """
import sys, duckdb
from pathlib import Path
from sync.sources import open_source
from sync.sources.base import Relation

host, port, name, user, password, spool = sys.argv[1:]
given = {"host": host, "port": port, "database": name, "user": user, "password": password, "sslmode": "require"}
source = open_source("warehouse", {"type": "postgres", **given}, Path())
with duckdb.connect(config={"memory_limit": "128MB", "threads": 2}) as connection:
    with source.stage(connection, Relation(table="vip_cohort"), [], Path(spool)) as staged:
        print(connection.execute(f"SELECT count(DISTINCT user_id) FROM {staged.sql}").fetchall()[0][0])
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.measured
def test_reading_five_million_rows_stays_under_500_mb(warehouse: Warehouse, tmp_path: Path) -> None:
    warehouse.ask(f"CREATE VIEW vip_cohort AS {PEOPLE.format(count=5_000_000)}")
    server = warehouse.server
    where = [server.host, str(server.port), warehouse.name, server.user, server.password, str(tmp_path / "spool")]

    said = subprocess.check_output([sys.executable, "-c", READ, *where], cwd=ROOT, text=True).split()

    assert said[0] == "5000000"
    assert int(said[1]) / 1024 < 500


@pytest.mark.endless
def test_a_plan_of_five_million_rows_stays_under_500_mb(warehouse: Warehouse, sink: Sink, tmp_path: Path) -> None:
    warehouse.ask(f"CREATE VIEW vip_cohort AS {PEOPLE.format(count=5_000_000)}")

    done = warehouse.project(tmp_path / "project", sink).headgate("plan", "--json", timeout=170)

    assert (done.code, done.sync["add"]) == (3, 5_000_000), done.text
    assert done.rss_mb < 500
