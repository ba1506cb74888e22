"""The sync log in a real PostgreSQL: its documented grants, queries and promises, through the command."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.acceptance.test_from_postgres import Warehouse, eventually
from tests.servers import Postgres

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGE = (REFERENCE / "sync-log.md").read_text()
SQL = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
QUERIES = [sql for sql in SQL if sql.startswith("SELECT")]
(GRANTS,) = (sql for sql in SQL if sql.startswith("CREATE SCHEMA headgate;"))


class LoggedWarehouse(Warehouse):
    """A database whose user may read one table, and what the page says."""

    def __init__(self, server: Postgres) -> None:
        super().__init__(server)
        self.role = f"reader_{self.name}"
        self.ask(f"CREATE ROLE {self.role} LOGIN PASSWORD 'only-reads'")
        self.config = self.config.replace(f'user = "{server.user}"', f'user = "{self.role}"') + "\nsync_log = true"

    def people(self, count: int) -> None:
        super().people(count)
        self.ask(f"GRANT SELECT ON vip_cohort TO {self.role}")

    def grant(self) -> None:
        """Do as the page says."""
        self.ask(*(s for s in GRANTS.replace("headgate_reader", self.role).strip().split(";") if s.strip()))

    def project(self, folder: Path, sink: Sink, **more: int) -> Project:
        made = super().project(folder, sink, **more)
        made.environment["PG_PASSWORD"] = "only-reads"
        return made

    @contextmanager
    def locked(self, table: str) -> Iterator[None]:
        """A lock that nobody gets past, held by somebody else."""
        held = f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)"
        psql = [str(self.server.programs / "psql"), "-X", "-q", "-U", self.server.user, "-d", self.name]
        psql += ["-h", str(self.server.sockets), "-p", str(self.server.port), "-c", held]
        holder = subprocess.Popen(psql, stdout=subprocess.DEVNULL)
        try:
            asked = f"SELECT count(*) FROM pg_locks WHERE granted AND relation = '{table}'::regclass"
            eventually(lambda: self.ask(f"{asked} AND mode = 'AccessExclusiveLock'") == "1")
            yield
        finally:
            self.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'BEGIN; LOCK%'")
            holder.wait(30)

    def drop(self) -> None:
        self.server.ask("postgres", f"DROP DATABASE {self.name} WITH (FORCE)", f"DROP ROLE {self.role}")

    def rows(self, sql: str) -> list[list[str]]:
        return [line.split("|") for line in self.ask(sql).splitlines()]


@pytest.fixture
def warehouse(postgres: Postgres) -> Iterator[LoggedWarehouse]:
    made = LoggedWarehouse(postgres)
    yield made
    made.drop()


OUTCOMES = "SELECT op, outcome, count(*) FROM headgate.records GROUP BY 1, 2 ORDER BY 1, 2"


def test_the_documented_grants_are_enough_and_without_them_the_run_is_green_and_caught_up_with(
    warehouse: LoggedWarehouse, sink: Sink, tmp_path: Path
) -> None:
    warehouse.people(50)
    project = warehouse.project(tmp_path / "project", sink)

    refused = project.run("--first-run")
    warehouse.grant()
    warehouse.ask("DELETE FROM vip_cohort WHERE user_id = 8", "UPDATE vip_cohort SET score = -1 WHERE user_id = 7")
    caught_up = project.run()
    doctor = project.headgate("doctor")

    assert (refused.code, refused.sync["applied"]) == (0, 50), refused.text
    assert "the user may not write there" in refused.text
    assert "HG231" in refused.text
    assert (caught_up.code, caught_up.sync["notes"]) == (0, []), caught_up.text
    assert "up to date, in warehouse, headgate" in doctor.text
    assert warehouse.rows(OUTCOMES) == [
        ["add", "acknowledged", "50"],
        ["remove", "acknowledged", "1"],
        ["update", "acknowledged", "1"],
    ]
    asked = (
        "SELECT status, cause, succeeded_add, succeeded_update, succeeded_remove, members_after FROM headgate.runs"
    )
    assert warehouse.rows(f"{asked} ORDER BY ended_at") == [
        ["completed", "cli", "50", "0", "0", "50"],
        ["completed", "cli", "0", "1", "1", "49"],
    ]


def test_the_documented_queries_answer(warehouse: LoggedWarehouse, sink: Sink, tmp_path: Path) -> None:
    warehouse.people(20)
    warehouse.grant()
    project = warehouse.project(tmp_path / "project", sink)
    project.run("--first-run")
    warehouse.ask(
        "DELETE FROM vip_cohort WHERE user_id = 8", "UPDATE vip_cohort SET user_id = 4711 WHERE user_id = 9"
    )
    assert project.run().code == 0
    warehouse.ask(
        "CREATE SCHEMA marts",
        "CREATE VIEW marts.vip AS SELECT user_id AS customer_id, country FROM public.vip_cohort",
    )

    answers = [warehouse.rows(query) for query in QUERIES]

    assert len(QUERIES) == 6
    by_day, customer, present, undelivered, growth, joined = answers
    assert [row[2:] for row in by_day] == [["21", "21", "21", "0", "2"]]
    assert [row[2:4] for row in customer] == [["add", "acknowledged"]]
    assert {row[1] for row in present} == {str(i) for i in [*range(1, 8), *range(10, 21), 4711]}
    assert undelivered == []
    assert [row[4:] for row in growth] == [["20", "20", ""], ["19", "19", "-1"]]
    assert len(joined) == 19


def test_a_forgotten_person_is_gone_from_the_log_and_from_what_the_server_was_asked(
    warehouse: LoggedWarehouse, sink: Sink, tmp_path: Path
) -> None:
    warehouse.people(20)
    warehouse.ask("ALTER TABLE vip_cohort ALTER user_id TYPE text USING 'customer-' || user_id")
    warehouse.grant()
    project = warehouse.project(tmp_path / "project", sink)
    assert project.run("--first-run").code == 0

    forgotten = project.headgate("person", "customer-7", "--forget", "--reason", "ticket 77", "--json")
    assert project.run().code == 0

    assert (forgotten.code, forgotten.json["notes"]) == (0, []), forgotten.text
    assert "customer-7" not in sink.members
    assert warehouse.rows("SELECT count(*) FROM headgate.records WHERE source_key = 'customer-7'") == [["0"]]
    assert warehouse.rows("SELECT count(*) FROM headgate.records") == [["19"]]
    assert warehouse.rows("SELECT succeeded_remove FROM headgate.runs WHERE kind = 'erasure'") == [["1"]]


def test_the_columns_with_personal_data_are_those_that_are_documented(
    warehouse: LoggedWarehouse, sink: Sink, tmp_path: Path
) -> None:
    """The cohort's key is an address here; everything else of the person must stay where it is."""
    warehouse.people(20)
    mail, name = "zoe.canary@leak.example", "Zoe-Canary"
    warehouse.ask(
        "ALTER TABLE vip_cohort ALTER user_id TYPE text",
        f"UPDATE vip_cohort SET user_id = '{mail}', email = 'x{mail}', first_name = '{name}', phone = '{name}' "
        "WHERE user_id IN ('7', '8')",
    )
    warehouse.grant()
    project = warehouse.project(tmp_path / "project", sink)
    project.extra = "[guardrails]\nmax_bad_keys = 5\n"
    project.write()
    assert project.run("--first-run").code in (0, 4)

    columns = warehouse.rows(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'headgate'"
    )
    holding = {
        f"{table}.{column}"
        for table, column in columns
        if any(canary in warehouse.ask(f'SELECT "{column}" FROM headgate.{table}') for canary in (mail, name))
    }

    page = (REFERENCE / "personal-data.md").read_text()
    assert holding == set(re.findall(r"^\| sync log `([^`]+)` \|", page, re.MULTILINE))
    assert all(set(re.findall(rf"`{column}`", PAGE)) for _, column in columns), "the page has every column"


@pytest.mark.slow
def test_a_run_that_is_told_to_end_while_the_log_waits_for_a_lock_ends_and_is_logged_later(
    warehouse: LoggedWarehouse, sink: Sink, tmp_path: Path
) -> None:
    warehouse.people(20)
    warehouse.grant()
    project = warehouse.project(tmp_path / "project", sink)
    assert project.run("--first-run").code == 0
    warehouse.ask("DELETE FROM vip_cohort WHERE user_id = 8")

    with warehouse.locked("headgate.runs"):
        running = project.start("run", "--json")
        eventually(lambda: warehouse.busy("headgate.runs"))
        running.terminate()
        stopped = running.wait(60)
    again = project.run()

    assert (stopped.sync["status"], stopped.sync["applied"]) == ("completed", 1), stopped.text
    assert "writing the sync log was interrupted [HG218]" in stopped.text
    assert again.sync["notes"] == []
    assert [row[0] for row in warehouse.rows("SELECT planned_remove FROM headgate.runs ORDER BY ended_at")] == [
        "0",
        "1",
        "0",
    ]
