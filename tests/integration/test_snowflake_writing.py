"""What Headgate writes in Snowflake: statements, transactions and rows, through the real connector."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sync.errors import SourceError
from sync.sources import open_source
from sync.sources.base import Column, Relation
from sync.sources.log_tables import RECORDS, RUNS, LogTables
from tests.snowflake import Snowflake

SCHEMA = pa.schema(
    [("key", pa.string()), ("n", pa.int64()), ("raw", pa.binary()), ("at", pa.timestamp("us", tz="UTC"))]
)
ROWS = [("ann", 1, b"\xff\x00", datetime(2020, 2, 29, 1, 2, 3, 4, tzinfo=UTC)), ("b€'\n", None, None, None)]


@pytest.fixture
def source(snowflake: Snowflake, tmp_path: Path) -> Iterator[Any]:
    made: Any = open_source("warehouse", snowflake.options(warehouse="WH"), tmp_path, "crm-vips")
    yield made
    made.reader.close()


@pytest.fixture
def table(source: Any) -> str:
    name = f'"marts"."odd people-{uuid.uuid4().hex[:6]}"'
    with source.session("setting up") as session:
        session.execute('CREATE SCHEMA IF NOT EXISTS "marts"')
        session.execute(
            f'CREATE TRANSIENT TABLE {name} ("key" VARCHAR, "n" BIGINT, "raw" BINARY, "at" TIMESTAMP_TZ)'
        )
    return name


def batches(rows: list[tuple[Any, ...]]) -> pa.RecordBatchReader:
    columns = [
        pa.array(list(values), field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)
    ]
    return pa.RecordBatchReader.from_batches(SCHEMA, [pa.RecordBatch.from_arrays(columns, schema=SCHEMA)])


def count(session: Any, table: str) -> int:
    ((rows,),) = session.rows(f"SELECT COUNT(*) FROM {table}")
    return int(rows)


def test_rows_are_loaded_as_they_are(source: Any, table: str) -> None:
    with source.session("writing") as session:
        session.load(table, batches(ROWS))

        assert sorted(session.rows(f'SELECT "key", "n", "raw", "at" FROM {table}')) == sorted(ROWS)


def test_rows_are_added_to_those_that_are_there(source: Any, table: str) -> None:
    with source.session("writing") as session:
        session.load(table, batches(ROWS))
        session.load(table, batches(ROWS[:1]))

        assert count(session, table) == 3


def test_nothing_is_loaded_of_nothing(source: Any, table: str) -> None:
    with source.session("writing") as session:
        session.load(table, pa.RecordBatchReader.from_batches(SCHEMA, []))

        assert count(session, table) == 0


def test_a_transaction_is_whole_or_nothing(source: Any, table: str) -> None:
    class Crash(Exception):
        pass

    def crash(session: Any) -> None:
        with session.transaction():
            session.execute(f"DELETE FROM {table}")
            session.load(table, batches(ROWS * 2))
            raise Crash

    with source.session("writing") as session:
        session.load(table, batches(ROWS))
        with pytest.raises(Crash):
            crash(session)
        assert count(session, table) == 2
        with session.transaction():
            session.execute(f"DELETE FROM {table}")
            session.load(table, batches(ROWS * 2))
        assert count(session, table) == 4


def test_what_is_fetched_is_typed_as_a_cohort(source: Any, table: str, tmp_path: Path) -> None:
    with source.session("reading") as session:
        session.load(table, batches(ROWS))
        found = session.fetch(f'SELECT "key", "n", "at" FROM {table} WHERE "n" = 1', tmp_path / "spool")
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            rows = connection.execute(f'SELECT "key", "n", "at" AT TIME ZONE \'UTC\' FROM {found.sql}').fetchall()

    assert rows == [("ann", 1, datetime(2020, 2, 29, 1, 2, 3, 4))]  # noqa: DTZ001 - in UTC, as asked
    assert [column.name for column in found.columns] == ["key", "n", "at"]
    assert found.columns[2] == Column("at", "TIMESTAMP WITH TIME ZONE")


def test_bytes_are_counted_both_ways(source: Any, table: str, tmp_path: Path) -> None:
    with source.session("counting") as session:
        session.load(table, batches([("x" * 100, n, None, None) for n in range(100)]))
        sent = session.sent
        session.rows(f'SELECT "key" FROM {table}')

        assert sent > 1000
        assert 10_000 <= session.received < 12_000


def test_a_cohort_is_named_as_it_is_read(source: Any) -> None:
    with source.session("naming") as session:
        assert session.named(Relation(table='marts."Odd one"')) == '"MARTS"."Odd one"'
        assert session.named(Relation(query="SELECT 1 AS a;")) == "(SELECT 1 AS a\n)"


def test_a_refused_statement_says_what_it_was_for(source: Any) -> None:
    with source.session("writing the log") as session, pytest.raises(SourceError) as caught:
        session.execute("SELECT 1 AS refuse_003001")

    assert caught.value.message == "source warehouse: writing the log: the role may not do that there"
    assert caught.value.code == "HG231"


def test_what_is_loaded_is_left_nowhere_else(source: Any, table: str, snowflake: Snowflake) -> None:
    with source.session("writing") as session, pytest.raises(SourceError):
        session.load(f'{table[:-1]}_not_there"', batches(ROWS))

    put, copy, removed = snowflake.seen()["queries"][-3:]
    folder = copy.split("@~/")[1].split()[0]
    assert put.startswith("PUT 'file://")
    assert f"@~/{folder} " in put
    assert removed == f"REMOVE @~/{folder}"


def test_each_session_signs_in_and_out_by_itself(source: Any, table: str) -> None:
    with source.session("one") as one, source.session("two") as two, one.transaction():
        one.execute(f"INSERT INTO {table} (\"key\") VALUES ('a')")
        assert count(two, table) == 0


def test_an_interrupted_session_ends_its_query(source: Any, snowflake: Snowflake) -> None:
    caught: list[SourceError] = []
    endless = "SELECT COUNT(*) AS n, SUM(LENGTH(a::VARCHAR || b::VARCHAR)) AS m FROM " + ", ".join(
        f"TABLE(GENERATOR(ROWCOUNT => 100000000)) {name}" for name in "ab"
    )

    def read() -> None:
        with source.session("comparing") as session:
            opened.set()
            try:
                session.rows(endless)
            except SourceError as error:
                caught.append(error)

    opened = threading.Event()
    reader = threading.Thread(target=read)
    reader.start()
    opened.wait(30)
    ends_with_interrupts(source.interrupt, reader)

    assert [error.code for error in caught] == ["HG218"]


def ends_with_interrupts(interrupt: Callable[[], None], thread: threading.Thread) -> None:
    for _ in range(600):
        interrupt()
        thread.join(0.05)
        if not thread.is_alive():
            return
    pytest.fail("the query was not ended")


def test_the_sync_log_is_kept_here_too(source: Any) -> None:
    schema = f"log_{uuid.uuid4().hex[:6]}"
    run = dict.fromkeys(RUNS, None) | {
        "run": "r1", "sync": "crm-vips", "status": "completed", "started_at": 1.75e9, "ended_at": 1.75e9 + 60,
        "succeeded_add": 2,
    }  # fmt: skip
    kinds = {"TIMESTAMPTZ": pa.timestamp("us", tz="UTC"), "TEXT": pa.string(), "BIGINT": pa.int64()}
    columns = pa.schema([(name, kinds[kind]) for name, kind in RECORDS.items()])
    ended = datetime.fromtimestamp(1.75e9 + 60, UTC)
    records = [
        {
            "run": "r1",
            "sync": "crm-vips",
            "source_key": key,
            "member_key": key,
            "outcome": "applied",
            "ended_at": ended,
        }
        for key in ("ann", "bob")
    ]
    with source.session("writing the log") as session:
        log = LogTables(session, schema)
        log.make()
        log.make()
        for _ in range(2):  # the second time it writes in the place of the first
            log.write([run], pa.Table.from_pylist(records, columns).to_reader())

        assert session.rows(f"SELECT run, succeeded_add, ended_at FROM {log.runs}") == [("r1", 2, ended)]
        assert sorted(session.rows(f"SELECT source_key FROM {log.records}")) == [("ann",), ("bob",)]
        log.erase("crm-vips", keys=["ann"])
        assert session.rows(f"SELECT source_key FROM {log.records}") == [("bob",)]
        log.sweep("crm-vips", 1.75e9 + 61)
        assert count(session, log.runs) == count(session, log.records) == 0
