"""Members kept in Snowflake, and the diff made there: through the command, and against races and failures."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sync.errors import SourceError
from sync.sources import open_source
from sync.sources.member_tables import COLUMNS, MemberTables
from sync.sources.snowflake_writing import WritingSession
from tests.acceptance.conftest import session_sink, sink  # noqa: F401 - fixtures
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.integration.test_snowflake_writing import ends_with_interrupts, source  # noqa: F401 - a fixture
from tests.parity.kinds import Table
from tests.parity.scenarios import counts
from tests.parity.stage import PEOPLE, Stage
from tests.parity.warehouses import SnowflakeDB
from tests.snowflake import Snowflake

SYNC = "sink-vip"
COHORT = """
    SELECT 'customer-' || n AS user_id, 'person' || n || '@mail.example' AS email, '+61' || n AS phone,
        'Name' || n AS first_name, 'AU' AS country, n AS ltv, n AS score, 'vip' AS cohort,
        '2026-01-01 00:00:00+00:00'::TIMESTAMP_TZ AS updated_at
    FROM (SELECT ROW_NUMBER() OVER (ORDER BY 1) AS n FROM TABLE(GENERATOR(ROWCOUNT => 20)))
"""

pytestmark = pytest.mark.timeout(180)


class KeepingWarehouse:
    """A cohort of twenty people, and the name of a schema for the members, which is not there yet."""

    def __init__(self, server: Snowflake, folder: Path) -> None:
        suffix = uuid.uuid4().hex[:8]
        self.marts, self.kept = f"marts_{suffix}", f"headgate_{suffix}"
        given = server.options(warehouse="WH", schema=self.marts)
        self.source: Any = open_source("warehouse", given, folder)
        options = given | {
            "password": "env:SNOWFLAKE_PASSWORD",
            "members": "warehouse",
            "members_schema": self.kept,
        }
        self.config = "\n".join(f"{key} = {json.dumps(value)}" for key, value in options.items())
        self.table = f"{self.marts}.vip_cohort"
        self.members, self.seen = (f'{self.kept}."{name}_{SYNC}"' for name in ("members", "seen"))
        self.ask(f"CREATE SCHEMA IF NOT EXISTS {self.marts}", f"CREATE TABLE {self.table} AS {COHORT}")

    def ask(self, *statements: str) -> None:
        for statement in statements:
            self.source.reader.execute(statement, "setting up")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a query answers."""
        return list(self.source.reader.rows(sql, "asking"))

    def project(self, folder: Path, sink: Sink) -> Project:
        """A project that reads from here."""
        environment = {"SNOWFLAKE_PASSWORD": "canary-password"}
        return Project(folder, sink.url, warehouse=self.config, environment=environment).write()

    def change(self) -> None:
        """Remove somebody, and change somebody."""
        self.ask(
            f"DELETE FROM {self.table} WHERE user_id = 'customer-8'",
            f"UPDATE {self.table} SET score = -1 WHERE user_id = 'customer-7'",
        )


@pytest.fixture
def warehouse(snowflake: Snowflake, tmp_path: Path) -> Iterator[KeepingWarehouse]:
    made = KeepingWarehouse(snowflake, tmp_path)
    yield made
    made.source.reader.close()


@pytest.fixture
def project(warehouse: KeepingWarehouse, sink: Sink, tmp_path: Path) -> Project:
    return warehouse.project(tmp_path / "project", sink)


def test_only_what_changed_is_sent_and_the_members_are_there(
    warehouse: KeepingWarehouse,
    project: Project,
    sink: Sink,
    snowflake: Snowflake,
) -> None:
    before = len(snowflake.seen()["queries"])
    first = project.run("--first-run")  # makes the schema, too
    assert (first.code, first.sync["applied"]) == (0, 20), first.text
    assert not list((project.root / ".headgate" / "members").rglob("*.parquet"))
    count = sink.count

    again = project.run()
    assert (again.code, again.sync["applied"], sink.count) == (0, 0, count), again.text

    warehouse.change()
    changed = project.run()
    assert (changed.code, changed.sync["applied"]) == (0, 2), changed.text
    assert warehouse.rows(f"SELECT COUNT(DISTINCT key) FROM {warehouse.members}") == [(20,)]
    assert warehouse.rows(f"SELECT COUNT(*) FROM {warehouse.seen}") == [(19,)]
    only_outside_transactions(snowflake.seen()["queries"][before:])


@pytest.mark.slow
def test_members_move_there_and_back_and_are_forgotten_there(
    warehouse: KeepingWarehouse,
    project: Project,
    sink: Sink,
    snowflake: Snowflake,
) -> None:
    assert project.run("--first-run").code == 0
    count = sink.count
    config = project.root / "config.toml"
    for where in ("local", "warehouse"):
        config.write_text(re.sub(r'members = "\w+"', f'members = "{where}"', config.read_text()))
        moved = project.headgate("state", "migrate", SYNC, "--to", where, "--reason", "a try")
        assert (moved.code, "20 members" in moved.text) == (0, True), moved.text
        assert (project.run().code, sink.count) == (0, count)

    before = len(snowflake.seen()["queries"])
    assert "sink-vip: member" in project.headgate("person", "customer-7").text
    assert project.headgate("person", "customer-7", "--forget", "--reason", "ticket 77").code == 0
    assert project.run().code == 0

    assert "customer-7" not in json.dumps(snowflake.seen()["queries"][before:])
    for table in (warehouse.members, warehouse.seen):
        assert warehouse.rows(f"SELECT COUNT(*) FROM {table} WHERE source_key = 'customer-7'") == [(0,)]


def only_outside_transactions(queries: list[str]) -> None:
    """Fail where a statement that would end a transaction stands in one."""
    inside, seen = False, 0
    for query in queries:
        word = query.split()[0].upper()
        inside = (inside or word == "BEGIN") and word not in ("COMMIT", "ROLLBACK")
        seen += inside
        assert not (inside and word in ("CREATE", "DROP", "ALTER", "TRUNCATE", "GRANT", "USE")), query
    assert seen


# --- races and failures ---------------------------------------------------------------------------------------


@pytest.fixture
def stage(snowflake: Snowflake, tmp_path: Path) -> Iterator[Stage]:
    database = SnowflakeDB(snowflake, schema=f"races_{uuid.uuid4().hex[:6]}")
    made = Stage(database, tmp_path, pushed=True)
    database.make_schema(made.kept_in)
    yield made
    made.close()
    database.close()


def when(monkeypatch: pytest.MonkeyPatch, words: str, then: Callable[[], object]) -> None:
    """Have something happen, once, after a statement with these words was run."""
    execute, over = WritingSession.execute, threading.Event()

    def watched(session: WritingSession, sql: str) -> None:
        execute(session, sql)
        if words in sql and not over.is_set():
            over.set()
            then()

    monkeypatch.setattr(WritingSession, "execute", watched)


JUDGED = "headgate_judged AS SELECT"


def test_a_cohort_that_changes_while_it_is_compared_is_compared_as_it_was(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, ben = (1, "ann@x.example", "Ann", 1), (2, "ben@x.example", "Ben", 2)
    stage.put(Table(PEOPLE, [ann, ben])).run()
    stage.put(Table(PEOPLE, [ann, (*ben[:3], 3)]))
    # Ben takes over the key of Ann, whose row was unchanged a moment ago.
    when(monkeypatch, JUDGED, lambda: stage.put(Table(PEOPLE, [(1, *ben[1:])])))

    stage.run()
    assert counts(stage) == (0, 1, 0, 1)

    stage.run()
    assert counts(stage) == (0, 1, 1, 0)


def test_members_that_are_removed_while_they_are_compared_stop_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.has(1, 2, 3).run()
    table = f'{stage.kept_in}."members_vips-crm"'
    when(monkeypatch, JUDGED, lambda: stage.warehouse.ask(f"DELETE FROM {table}"))

    report = stage.plan()
    assert report.status == "failed"
    assert "missing or were altered" in report.error


def test_a_row_that_two_processes_noted_is_fetched_again(stage: Stage) -> None:
    stage.has(1, 2, 3).run()
    table = f'{stage.kept_in}."seen_vips-crm"'
    stage.warehouse.ask(f"INSERT INTO {table} SELECT * FROM {table}")

    stage.run()

    assert counts(stage) == (0, 0, 0, 3)
    assert isinstance(stage.warehouse, SnowflakeDB)
    assert stage.warehouse.rows(f"SELECT COUNT(*) FROM {table}") == [(3,)]


@pytest.fixture
def tables(source: Any) -> Iterator[MemberTables]:
    schema = f"kept_{uuid.uuid4().hex[:6]}"
    with source.session("making") as session:
        MemberTables(session, schema, "vips").make()
    with source.session("writing") as session:
        yield MemberTables(session, schema, "vips")


def rows(*keys: str) -> pa.RecordBatchReader:
    columns = [name for name in COLUMNS if name != "part"]
    plain = dict.fromkeys(columns) | {"types": "{}", "identifiers": "{}", "first_at": 1.5, "removed": False}
    types = {"removed": pa.bool_(), "first_at": pa.float64(), "last_at": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in columns])
    return pa.Table.from_pylist([{**plain, "key": key} for key in keys], schema).to_reader()


def test_a_person_finds_the_tables_without_quotes(tables: MemberTables, source: Any) -> None:
    tables.advance(1, None, None, 0, rows("17"))
    plain = tables.members.upper()

    assert '"' not in plain
    assert source.reader.rows(f"SELECT key, first_at FROM {plain}", "asking") == [("17", 1.5)]


@pytest.mark.parametrize("code", ["000630", "390111"])
def test_a_part_is_there_whole_or_not_at_all(
    tables: MemberTables, source: Any, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """A statement that takes too long, and a session that is gone."""
    ((base,), _) = tables.advance(1, None, None, 0, rows("17", "18"))
    when(monkeypatch, "COPY INTO", lambda: tables.session.execute(f"SELECT 1 AS refuse_{code}"))

    with pytest.raises(SourceError) as caught:
        tables.advance(2, base.name, None, 2, rows("19"))

    assert caught.value.code == {"000630": "HG208", "390111": "HG205"}[code]
    with source.session("looking") as session:
        left = MemberTables(session, tables.members.split(".")[0], "vips")
        left.verify("vips", [base.name], {base.name: base.digest})
        assert session.rows(f"SELECT COUNT(*) FROM {left.members}") == [(2,)]


def test_a_transaction_that_is_told_to_stop_leaves_nothing(tables: MemberTables, source: Any) -> None:
    caught: list[SourceError] = []
    long = "SELECT COUNT(*) AS n, SUM(a.seq * b.seq) AS m FROM " + ", ".join(
        f"(SELECT SEQ4() AS seq FROM TABLE(GENERATOR(ROWCOUNT => 20000))) {name}" for name in "ab"
    )

    def write() -> None:
        try:
            with tables.session.transaction():
                tables.session.execute(f"INSERT INTO {tables.seen} (source_key) VALUES ('a')")
                inside.set()
                tables.session.execute(long)
        except SourceError as error:
            caught.append(error)

    inside = threading.Event()
    writer = threading.Thread(target=write)
    writer.start()
    assert inside.wait(60)
    ends_with_interrupts(source.interrupt, writer)

    assert [error.code for error in caught] == ["HG218"]
    assert source.reader.rows(f"SELECT COUNT(*) FROM {tables.seen}", "asking") == [(0,)]
