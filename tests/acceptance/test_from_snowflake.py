"""Cohorts in Snowflake: from the table to the destination with what it costs, ended when told to."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.sources import open_source
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.snowflake import Snowflake

PEOPLE = """
    SELECT n::NUMBER(18, 0) AS user_id, 'Person' || n || '@mail.example ' AS email,
        '+61' || (411000000 + n) AS phone,
        'Name' || n AS first_name, 'AU' AS country, (n / 100.0)::NUMBER(10, 2) AS ltv, n::NUMBER(18, 0) AS score,
        'vip' AS cohort, CURRENT_TIMESTAMP()::TIMESTAMP_TZ AS updated_at
    FROM (SELECT ROW_NUMBER() OVER (ORDER BY 1) AS n FROM TABLE(GENERATOR(ROWCOUNT => {count})))
"""
SLOW = """
    SELECT user_id, email, phone, first_name, country, ltv, score, cohort, updated_at FROM {table} WHERE 0 < (
        SELECT SUM(LENGTH(a::VARCHAR || b::VARCHAR)) FROM TABLE(GENERATOR(ROWCOUNT => 100000000)) a,
            TABLE(GENERATOR(ROWCOUNT => 100000000)) b)
"""


class Warehouse:
    """A schema of the server that has the cohort's table."""

    def __init__(self, server: Snowflake, folder: Path) -> None:
        self.server, self.schema = server, f"s_{uuid.uuid4().hex[:8]}"
        given = server.options(warehouse="WH", schema=self.schema)
        self.source: Any = open_source("warehouse", given, folder)
        lines = given | {"password": "env:SNOWFLAKE_PASSWORD"}
        self.config = "\n".join(f"{key} = {json.dumps(value)}" for key, value in lines.items())
        self.ask(f"CREATE SCHEMA IF NOT EXISTS {self.schema}")

    def ask(self, *statements: str) -> None:
        for statement in statements:
            self.source.reader.execute(statement, "setting up")

    def project(self, folder: Path, sink: Sink) -> Project:
        environment = {"SNOWFLAKE_PASSWORD": "canary-password"}
        return Project(folder, sink.url, warehouse=self.config, environment=environment).write()


@pytest.fixture
def warehouse(snowflake: Snowflake, tmp_path: Path) -> Iterator[Warehouse]:
    made = Warehouse(snowflake, tmp_path)
    yield made
    made.source.reader.close()


def eventually(true: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_cohort_in_snowflake_is_kept_at_the_destination(
    warehouse: Warehouse, sink: Sink, tmp_path: Path
) -> None:
    warehouse.ask(f"CREATE TABLE vip_cohort AS {PEOPLE.format(count=300)}")
    project = warehouse.project(tmp_path / "project", sink)

    checked = project.headgate("doctor")
    first = project.run("--first-run")
    requests = sink.count
    unchanged = project.run()
    same = sink.count
    warehouse.ask("UPDATE vip_cohort SET score = -1 WHERE user_id = 7", "DELETE FROM vip_cohort WHERE user_id = 8")
    changed, said = project.run(), project.headgate("plan")

    assert (checked.code, "user as role on warehouse" in checked.text) == (0, True), checked.text
    assert (first.code, first.sync["applied"]) == (0, 300), first.text
    assert (unchanged.code, unchanged.sync["unchanged"], same) == (0, 300, requests), unchanged.text
    assert [changed.sync[op] for op in ("add", "update", "remove", "unchanged")] == [0, 1, 1, 298], changed.text
    assert (sink.members[7]["score"], 8 in sink.members) == (-1, False)
    assert (sink.members[10]["email"], sink.members[10]["ltv"]) == ("person10@mail.example", 0.1)
    told = changed.sync["source"]
    assert (told["bytes_scanned"], told["seconds"], told["changed_at"]) == (4096, 1.25, "1970-01-01T00:00:00Z")
    assert "the warehouse scanned 4.1 kB" in said.text
    logins = [login["SESSION_PARAMETERS"] for login in warehouse.server.seen()["logins"]]  # some are other tests'
    tags = [json.loads(one["QUERY_TAG"]) for one in logins if "QUERY_TAG" in one]
    assert {"app", "sync", "refresh"} in [set(tag) for tag in tags if tag.get("sync") == "sink-vip"]


def test_a_run_that_is_told_to_stop_ends_its_query_in_the_warehouse(
    warehouse: Warehouse, sink: Sink, tmp_path: Path
) -> None:
    warehouse.ask(f"CREATE TABLE everybody AS {PEOPLE.format(count=3)}")
    warehouse.ask(f"CREATE VIEW vip_cohort AS {SLOW.format(table='everybody')}")
    project = warehouse.project(tmp_path / "project", sink)
    before = len(warehouse.server.seen()["aborted"])

    running = project.start("run", "--json")
    eventually(lambda: any(f'FROM "{"vip_cohort".upper()}"' in q and "LTV" in q for q in queries(warehouse)))
    running.terminate()
    done = running.wait()

    assert (done.code, sink.count, "HG520" in done.text) == (1, 0, True), done.text
    assert len(warehouse.server.seen()["aborted"]) == before + 1


def queries(warehouse: Warehouse) -> list[str]:
    """What was asked since the view was made."""
    asked = warehouse.server.seen()["queries"]
    made = max(i for i, query in enumerate(asked) if query.startswith("CREATE VIEW vip_cohort"))
    return list(asked[made + 1 :])
