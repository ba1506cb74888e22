"""Killed between the warehouse and the ledger: members in a warehouse are those that were acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync.faultpoints import VARIABLE
from tests.acceptance.conftest import session_sink, sink  # noqa: F401 - fixtures
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.acceptance.test_members_in_the_warehouse import (
    MEMBERS,
    SYNC,
    KeepingWarehouse,
    change,
    project,  # noqa: F401 - fixture
    warehouse,  # noqa: F401 - fixture
)
from tests.integration.test_members_in_snowflake import KeepingWarehouse as KeptInSnowflake
from tests.snowflake import Snowflake

OF_A_PART = ("members_part.written", "members_part.named")
OF_A_MOVE = ("move.before", "move.after")
OF_AN_ERASED_PART = ("erasure_part.named", "erasure_part.swept")

pytestmark = pytest.mark.timeout(180)


def killed(project: Project, point: str, *words: str) -> None:
    project.environment[VARIABLE] = f"{point}:1:kill"
    assert project.headgate(*words).code == -9
    del project.environment[VARIABLE]


@pytest.mark.parametrize("point", OF_A_PART)
def test_a_crash_between_the_warehouse_and_the_ledger_is_made_good(
    warehouse: KeepingWarehouse,
    project: Project,
    sink: Sink,
    point: str,
) -> None:
    assert project.run("--first-run").code == 0
    change(warehouse)

    project.environment[VARIABLE] = f"{point}:1:kill"
    assert project.run().code == -9
    del project.environment[VARIABLE]
    count = sink.count
    done = project.run()

    assert done.code == 0, done.text
    assert sink.count == count  # what was acknowledged is not sent again
    assert "199 members" in project.headgate("state", "show").text
    warehouse.ask("UPDATE vip_cohort SET score = -2 WHERE user_id = 9")
    assert project.run().sync["applied"] == 1
    parts = f"SELECT count(DISTINCT part) FROM {MEMBERS}"
    assert int(warehouse.ask(parts)) <= 4  # a base, and a delta for each generation that is known


@pytest.mark.slow
@pytest.mark.parametrize("point", OF_A_PART)
def test_the_same_is_made_good_in_snowflake(
    snowflake: Snowflake,
    sink: Sink,
    tmp_path: Path,
    point: str,
) -> None:
    kept = KeptInSnowflake(snowflake, tmp_path)
    project = kept.project(tmp_path / "project", sink)
    assert project.run("--first-run").code == 0
    kept.change()

    killed(project, point, "run")
    count = sink.count
    done = project.run()

    assert (done.code, sink.count) == (0, count), done.text
    assert "19 members" in project.headgate("state", "show").text
    kept.ask(f"UPDATE {kept.table} SET score = -2 WHERE user_id = 'customer-9'")
    assert project.run().sync["applied"] == 1
    ((parts,),) = kept.rows(f"SELECT COUNT(DISTINCT part) FROM {kept.members}")
    assert parts <= 4
    kept.source.reader.close()


@pytest.mark.parametrize("point", OF_A_MOVE)
def test_members_are_moved_or_are_where_they_were(
    warehouse: KeepingWarehouse, project: Project, point: str
) -> None:
    warehouse.kept(project, "local")
    assert project.run("--first-run").code == 0
    warehouse.kept(project, "warehouse")
    move = ("state", "migrate", SYNC, "--to", "warehouse", "--reason", "a try")

    killed(project, point, *move)

    moved = project.headgate(*move)
    assert moved.code == (0 if point == "move.before" else 2), moved.text
    unchanged = project.run()
    assert (unchanged.code, unchanged.sync["applied"]) == (0, 0), unchanged.text


@pytest.mark.parametrize("point", OF_AN_ERASED_PART)
def test_an_erasure_that_was_killed_is_finished(warehouse: KeepingWarehouse, project: Project, point: str) -> None:
    warehouse.ask("ALTER TABLE vip_cohort ALTER user_id TYPE text USING 'customer-' || user_id")
    assert project.run("--first-run").code == 0
    change_of = "UPDATE vip_cohort SET user_id = 'somebody' WHERE user_id = 'customer-7'"
    warehouse.ask(change_of)  # an earlier part has them, the current one does not
    assert project.run().code == 0

    killed(project, point, "person", "customer-7", "--forget", "--reason", "ticket 77")
    project.headgate("person", "customer-7", "--forget", "--reason", "ticket 77")
    assert project.run().code == 0

    assert warehouse.ask(f"SELECT count(*) FROM {MEMBERS} WHERE source_key = 'customer-7'") == "0"
