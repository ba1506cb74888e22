"""Members kept in a real PostgreSQL, and the diff made there: grants, every command, and crashes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.acceptance.test_sync_log import LoggedWarehouse
from tests.servers import Postgres

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "pushed-down-members.md").read_text()
SQL = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
(GRANTS,) = (sql for sql in SQL if sql.startswith("CREATE SCHEMA headgate;"))
SYNC = "sink-vip"
MEMBERS = f'headgate."members_{SYNC}"'
SEEN = f'headgate."seen_{SYNC}"'

pytestmark = pytest.mark.timeout(180)


class KeepingWarehouse(LoggedWarehouse):
    """A database whose user may read one table, and what the page says."""

    def __init__(self, server: Postgres) -> None:
        super().__init__(server)
        self.config = self.config.replace("sync_log = true", 'members = "warehouse"')

    def grant(self) -> None:
        """Do as the page says."""
        self.ask(*(s for s in GRANTS.replace("headgate_reader", self.role).strip().split(";") if s.strip()))

    def kept(self, project: Project, where: str) -> None:
        """Say in config.toml where members are kept."""
        path = project.root / "config.toml"
        path.write_text(re.sub(r'members = "\w+"', f'members = "{where}"', path.read_text()))


@pytest.fixture
def warehouse(postgres: Postgres) -> Iterator[KeepingWarehouse]:
    made = KeepingWarehouse(postgres)
    made.people(200)
    made.grant()
    yield made
    made.drop()


@pytest.fixture
def project(warehouse: KeepingWarehouse, sink: Sink, tmp_path: Path) -> Project:
    return warehouse.project(tmp_path / "project", sink)


def change(warehouse: KeepingWarehouse) -> None:
    warehouse.ask("DELETE FROM vip_cohort WHERE user_id = 8", "UPDATE vip_cohort SET score = -1 WHERE user_id = 7")


def test_only_what_changed_is_sent_and_the_members_are_there(
    warehouse: KeepingWarehouse, project: Project, sink: Sink
) -> None:
    first = project.run("--first-run")
    assert (first.code, first.sync["applied"]) == (0, 200), first.text
    assert not list((project.root / ".headgate" / "members").rglob("*.parquet"))
    count = sink.count

    again = project.run()
    assert (again.code, again.sync["applied"], sink.count) == (0, 0, count), again.text

    change(warehouse)
    changed = project.run()
    assert (changed.code, changed.sync["applied"]) == (0, 2), changed.text
    shown = project.headgate("state", "show")
    assert "199 members" in shown.text
    assert "headgate" in shown.text


def test_members_move_there_and_back_and_nobody_is_sent_again(
    warehouse: KeepingWarehouse, project: Project, sink: Sink
) -> None:
    warehouse.kept(project, "local")
    assert project.run("--first-run").code == 0
    count = sink.count

    warehouse.kept(project, "warehouse")
    refused = project.run()
    assert refused.code == 1
    assert "HG346" in refused.text
    assert "state migrate sink-vip --to warehouse" in refused.text

    for where in ("warehouse", "local"):
        warehouse.kept(project, where)
        if where == "local":  # it is moved from where config.toml does not say any more
            assert "HG346" in project.run().text
        moved = project.headgate("state", "migrate", SYNC, "--to", where, "--reason", "a try")
        assert moved.code == 0, moved.text
        assert "200 members" in moved.text
        unchanged = project.run()
        assert (unchanged.code, unchanged.sync["applied"], sink.count) == (0, 0, count), unchanged.text
        twice = project.headgate("state", "migrate", SYNC, "--to", where, "--reason", "again")
        assert twice.code == 2, twice.text

    change(warehouse)
    assert project.run().sync["applied"] == 2


def test_a_person_is_found_there_and_forgotten_there(warehouse: KeepingWarehouse, project: Project) -> None:
    warehouse.ask("ALTER TABLE vip_cohort ALTER user_id TYPE text USING 'customer-' || user_id")
    assert project.run("--first-run").code == 0

    assert "sink-vip: member" in project.headgate("person", "customer-7").text
    done = project.headgate("person", "customer-7", "--forget", "--reason", "ticket 77")
    assert done.code in (0, 4), done.text
    project.headgate("approve", "--all", "--reason", "ticket 77")
    assert project.run().code in (0, 3), done.text
    project.run()

    for table in (MEMBERS, SEEN):
        columns = "source_key" if table == SEEN else "source_key || identifiers"
        assert (
            warehouse.ask(
                f"SELECT count(*) FROM {table} WHERE {columns} LIKE '%customer-7%' "
                f"AND {columns} NOT LIKE '%customer-7_%'"
            )
            == "0"
        )


def test_members_that_somebody_altered_stop_everything(
    warehouse: KeepingWarehouse, project: Project, sink: Sink
) -> None:
    assert project.run("--first-run").code == 0
    warehouse.ask(f"DELETE FROM {MEMBERS} WHERE source_key = '9'")
    count = sink.count

    refused = project.run()

    assert refused.code == 1
    assert "altered" in refused.text
    assert sink.count == count
