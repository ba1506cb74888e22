"""Killed between the warehouse and the ledger: the sync log has every run once, and nobody who was forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.faultpoints import VARIABLE
from tests.acceptance.conftest import session_sink, sink  # noqa: F401 - fixtures
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.acceptance.test_sync_log import LoggedWarehouse
from tests.servers import Postgres

OF_THE_LOG = ("sync_log.written", "sync_log.erased")

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def warehouse(postgres: Postgres) -> Iterator[LoggedWarehouse]:
    made = LoggedWarehouse(postgres)
    made.people(20)
    made.grant()
    yield made
    made.drop()


@pytest.fixture
def project(warehouse: LoggedWarehouse, sink: Sink, tmp_path: Path) -> Project:
    return warehouse.project(tmp_path / "project", sink)


def killed(project: Project, point: str, *words: str) -> None:
    project.environment[VARIABLE] = f"{point}:1:kill"
    assert project.headgate(*words).code == -9
    del project.environment[VARIABLE]


def test_what_was_done_there_and_not_noted_is_done_again_to_the_same_end(
    warehouse: LoggedWarehouse, project: Project
) -> None:
    counted = "SELECT count(*), count(DISTINCT source_key) FROM headgate.records"
    warehouse.ask("ALTER TABLE vip_cohort ALTER user_id TYPE text USING 'customer-' || user_id")

    killed(project, "sync_log.written", "run", "--first-run")
    assert warehouse.rows(counted) == [["20", "20"]]
    again = project.run()
    assert (again.code, again.sync["applied"], again.sync["notes"]) == (0, 0, []), again.text
    assert warehouse.rows(counted) == [["20", "20"]]
    assert warehouse.rows("SELECT planned_add FROM headgate.runs ORDER BY ended_at") == [["20"], ["0"]]

    killed(project, "sync_log.erased", "person", "customer-7", "--forget", "--reason", "ticket 77")
    assert project.run().code == 0
    assert warehouse.rows(counted) == [["19", "19"]]
    assert "customer-7" not in warehouse.ask("SELECT source_key FROM headgate.records")
