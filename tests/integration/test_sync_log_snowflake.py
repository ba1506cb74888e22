"""The sync log in Snowflake: the same tables, the same six queries, nobody left of who is forgotten."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.sources import open_source
from tests.acceptance.conftest import session_sink, sink  # noqa: F401 - fixtures
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.acceptance.test_sync_log import QUERIES
from tests.snowflake import Snowflake

PEOPLE = """
    SELECT 'customer-' || n AS user_id, 'person' || n || '@mail.example' AS email, '+61' || n AS phone,
        'Name' || n AS first_name, 'AU' AS country, n AS ltv, n AS score, 'vip' AS cohort,
        CURRENT_TIMESTAMP()::TIMESTAMP_TZ AS updated_at
    FROM (SELECT ROW_NUMBER() OVER (ORDER BY 1) AS n FROM TABLE(GENERATOR(ROWCOUNT => 20)))
"""


class Warehouse:
    """A cohort of twenty people, and a schema for the log."""

    def __init__(self, server: Snowflake, folder: Path) -> None:
        suffix = uuid.uuid4().hex[:8]
        self.marts, self.log = f"marts_{suffix}", f"headgate_{suffix}"
        given = server.options(warehouse="WH", schema=self.marts)
        self.source: Any = open_source("warehouse", given, folder)
        options = given | {"password": "env:SNOWFLAKE_PASSWORD", "sync_log": True, "sync_log_schema": self.log}
        self.config = "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
        self.ask(*(f"CREATE SCHEMA IF NOT EXISTS {name}" for name in (self.marts, self.log)))
        self.ask(f"CREATE TABLE {self.marts}.vip_cohort AS {PEOPLE}")

    def ask(self, *statements: str) -> None:
        for statement in statements:
            self.source.reader.execute(statement, "setting up")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a query of the page, with our schemas in the place of its."""
        sql = sql.replace("headgate.", f"{self.log}.").replace("marts.vip", f"{self.marts}.vip")
        return list(self.source.reader.rows(sql, "asking"))


@pytest.fixture
def warehouse(snowflake: Snowflake, tmp_path: Path) -> Iterator[Warehouse]:
    made = Warehouse(snowflake, tmp_path)
    yield made
    made.source.reader.close()


@pytest.fixture
def project(warehouse: Warehouse, sink: Sink, tmp_path: Path) -> Project:
    environment = {"SNOWFLAKE_PASSWORD": "canary-password"}
    return Project(tmp_path / "project", sink.url, warehouse=warehouse.config, environment=environment).write()


def test_runs_and_records_are_in_the_log_and_the_documented_queries_answer(
    warehouse: Warehouse, project: Project
) -> None:
    table = f"{warehouse.marts}.vip_cohort"
    first = project.run("--first-run")
    warehouse.ask(
        f"DELETE FROM {table} WHERE user_id = 'customer-8'",
        f"UPDATE {table} SET user_id = '4711' WHERE user_id = 'customer-9'",
        f"CREATE VIEW {warehouse.marts}.vip AS SELECT user_id AS customer_id, country FROM {table}",
    )
    second = project.run()

    assert (first.code, first.sync["notes"], second.code) == (0, [], 0), first.text + second.text
    by_day, customer, present, undelivered, growth, joined = (warehouse.rows(query) for query in QUERIES)
    assert [row[2:] for row in by_day] == [(21, 21, 21, 0, 2)]
    assert [row[2:4] for row in customer] == [("add", "acknowledged")]
    assert {row[1] for row in present} == {f"customer-{i}" for i in (*range(1, 8), *range(10, 21))} | {"4711"}
    assert undelivered == []
    assert [row[4:] for row in growth] == [(20, 20, None), (19, 19, -1)]
    assert len(joined) == 19


@pytest.mark.slow
def test_a_forgotten_person_is_gone_from_it_and_named_in_no_statement(
    warehouse: Warehouse, project: Project, snowflake: Snowflake
) -> None:
    assert project.run("--first-run").code == 0
    before = len(snowflake.seen()["queries"])

    forgotten = project.headgate("person", "customer-7", "--forget", "--reason", "ticket 77", "--json")
    told = json.dumps(snowflake.seen()["queries"][before:])

    assert (forgotten.code, forgotten.json["notes"]) == (0, []), forgotten.text
    assert ("DELETE FROM" in told, "customer-7" in told) == (True, False)
    assert warehouse.rows("SELECT count(*) FROM headgate.records WHERE source_key = 'customer-7'") == [(0,)]
    assert project.run().code == 0
    assert warehouse.rows("SELECT count(*), count(DISTINCT source_key) FROM headgate.records") == [(19, 19)]
    assert warehouse.rows("SELECT succeeded_remove FROM headgate.runs WHERE kind = 'erasure'") == [(1,)]
