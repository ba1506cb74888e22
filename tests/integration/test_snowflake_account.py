"""The same on a true Snowflake account, where the environment names one: `pytest -m snowflake`.

Each `HEADGATE_SNOWFLAKE_NAME` is the option `name` of `[sources.NAME]`: ACCOUNT, USER, PRIVATE_KEY_FILE (a path)
or another way to sign in, WAREHOUSE, DATABASE and SCHEMA, where the role may create tables; and in the database it
should be allowed to create schemas, which members are tried in.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sync.errors import SourceError
from sync.sources import open_source
from sync.sources.base import Column, Relation
from tests.parity.playing import differences, played
from tests.parity.scenarios import SCENARIOS, Scenario
from tests.parity.test_equal_plans import THERE_TOO
from tests.parity.warehouses import DuckDB, Warehouse

_PREFIX = "HEADGATE_SNOWFLAKE_"
GIVEN = {
    name.removeprefix(_PREFIX).lower(): value for name, value in os.environ.items() if name.startswith(_PREFIX)
}

pytestmark = [
    pytest.mark.snowflake,
    pytest.mark.skipif("account" not in GIVEN, reason="no HEADGATE_SNOWFLAKE_ACCOUNT: there is no account to try"),
]

# Column, type, value as SQL, type here, value here. What the local server has not is asked here alone.
KINDS: list[tuple[str, str, str, str, Any]] = [
    ("id", "NUMBER(38, 0)", "99999999999999999999999999999999999998", "DECIMAL(38,0)", Decimal("9" * 37 + "8")),
    ("small", "NUMBER(18, 0)", "-7", "BIGINT", -7),
    ("amount", "NUMBER(20, 4)", "1234567890123456.7891", "DECIMAL(20,4)", Decimal("1234567890123456.7891")),
    ("score", "FLOAT", "0.1::FLOAT", "DOUBLE", 0.1),
    ("name", "VARCHAR", "'Zoë ''x'' \\\\\\n'", "VARCHAR", "Zoë 'x' \\\n"),
    ("born", "DATE", "'0001-01-01'::DATE", "DATE", date(1, 1, 1)),
    ("at_time", "TIME", "'10:00:01.123456'::TIME", "TIME", clock_time(10, 0, 1, 123456)),
    (
        "ntz",
        "TIMESTAMP_NTZ",
        "'9999-12-31 23:59:59.999999'::TIMESTAMP_NTZ",
        "TIMESTAMP",
        datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001 - the column has no zone
    ),
    (
        "tz",
        "TIMESTAMP_TZ",
        "'2020-01-01 10:00:00 +02:00'::TIMESTAMP_TZ",
        "TIMESTAMP WITH TIME ZONE",
        datetime(2020, 1, 1, 8, tzinfo=UTC),
    ),
    (
        "ltz",
        "TIMESTAMP_LTZ",
        "'2020-01-01 10:00:00'::TIMESTAMP_LTZ",
        "TIMESTAMP WITH TIME ZONE",
        datetime(2020, 1, 1, 10, tzinfo=UTC),
    ),
    ("ok", "BOOLEAN", "TRUE", "BOOLEAN", True),
    ("tags", "VARIANT", "PARSE_JSON('{\"a\":[1,null]}')", "JSON", '{"a":[1,null]}'),
    ("list", "ARRAY", "ARRAY_CONSTRUCT(1, 'a')", "JSON", '[1,"a"]'),
    ("raw", "BINARY", "TO_BINARY('AB', 'HEX')", "BLOB", b"\xab"),
    ("place", "GEOGRAPHY", "TO_GEOGRAPHY('POINT(1 2)')", "VARCHAR", '{"coordinates":[1,2],"type":"Point"}'),
    ("near", "VECTOR(INT, 3)", "[1, 2, 3]::VECTOR(INT, 3)", "JSON", "[1,2,3]"),
]
LOCAL = GIVEN.get("protocol") == "http"
if LOCAL:  # the suite itself, tried on the server that the other tests use
    KINDS = [kind for kind in KINDS if kind[0] not in ("id", "list", "place", "near", "ltz")]


def options() -> dict[str, Any]:
    given: dict[str, Any] = {"type": "snowflake", **GIVEN}
    if path := given.pop("private_key_file", None):
        given["private_key"] = Path(path).read_text()
    return given


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Any]:
    made: Any = open_source("account", options(), tmp_path, "trial")
    yield made
    made.reader.close()


@pytest.fixture
def name(source: Any) -> Iterator[str]:
    """A table's name; the table is dropped at the end."""
    made = f"headgate_{uuid.uuid4().hex[:8]}"
    yield made
    source.reader.execute(f"DROP TABLE IF EXISTS {made}", "clearing up")


def staged(source: Any, relation: Relation, spool: Path) -> tuple[tuple[Column, ...], list[Any]]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        with source.stage(connection, relation, [], spool) as found:
            return found.columns, connection.execute(f"SELECT * FROM {found.sql}").fetchall()


def test_the_account_says_who_we_are(source: Any) -> None:
    assert source.check().startswith("Snowflake ")


def test_every_type_arrives_without_loss(source: Any, name: str, tmp_path: Path) -> None:
    source.reader.execute(
        f"CREATE TRANSIENT TABLE {name} ({', '.join(f'{k[0]} {k[1]}' for k in KINDS)})", "setting up"
    )
    source.reader.execute(f"INSERT INTO {name} SELECT {', '.join(k[2] for k in KINDS)}", "setting up")
    columns, (row,) = staged(source, Relation(table=name), tmp_path)

    assert [c.type for c in columns] == [k[3] for k in KINDS]
    assert list(row) == [k[4] for k in KINDS]


def test_nulls_arrive_as_nulls(source: Any, name: str, tmp_path: Path) -> None:
    source.reader.execute(
        f"CREATE TRANSIENT TABLE {name} ({', '.join(f'{k[0]} {k[1]}' for k in KINDS)})", "setting up"
    )
    source.reader.execute(f"INSERT INTO {name} ({KINDS[0][0]}) VALUES (NULL)", "setting up")
    _, (row,) = staged(source, Relation(table=name), tmp_path)

    assert set(row) == {None}


def test_a_missing_table_is_told(source: Any, name: str) -> None:
    with pytest.raises(SourceError) as caught:
        source.columns(Relation(table=f"{name}_not_there"))
    assert caught.value.code == "HG202"


def test_what_reading_costs_is_told(source: Any, name: str, tmp_path: Path) -> None:
    source.reader.execute(f"CREATE TRANSIENT TABLE {name} AS SELECT 1 AS a", "setting up")
    staged(source, Relation(table=name), tmp_path)

    assert source.reading.bytes_scanned is not None
    assert source.reading.seconds is not None
    assert source.reading.changed_at is not None


def test_an_interrupted_query_is_cancelled(source: Any, tmp_path: Path) -> None:
    caught: list[SourceError] = []
    endless = "SELECT COUNT(*) AS n, SUM(LENGTH(a::VARCHAR || b::VARCHAR)) AS m FROM "
    endless += ", ".join(f"(SELECT SEQ8() AS {n} FROM TABLE(GENERATOR(ROWCOUNT => 10000000)))" for n in "ab")

    def read() -> None:
        try:
            staged(source, Relation(query=endless), tmp_path)
        except SourceError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    while reader.is_alive():
        reader.join(0.5)
        source.interrupt()

    assert [error.code for error in caught] == ["HG218"]


def half_done(session: Any, name: str, rows: pa.Table) -> None:
    with session.transaction():
        session.execute(f"DELETE FROM {name}")
        session.load(name, rows.to_reader())
        raise ZeroDivisionError


def test_rows_are_written_whole_or_not_at_all(source: Any, name: str) -> None:
    schema = pa.schema([("key", pa.string()), ("raw", pa.binary()), ("at", pa.timestamp("us", tz="UTC"))])
    at = datetime(2020, 2, 29, 1, 2, 3, 4, tzinfo=UTC)
    rows = pa.Table.from_pylist([{"key": "Zoë '\n", "raw": b"\xff", "at": at}, {"key": "b"}], schema)
    with source.session("trying") as session:
        session.execute(f'CREATE TRANSIENT TABLE {name} ("key" VARCHAR, "raw" BINARY, "at" TIMESTAMP_TZ)')
        with session.transaction():
            session.load(name, rows.to_reader())
        with pytest.raises(ZeroDivisionError):
            half_done(session, name, rows)

        assert sorted(session.rows(f'SELECT "key", "raw", "at" FROM {name}')) == [
            ("Zoë '\n", b"\xff", at),
            ("b", None, None),
        ]


class Account(Warehouse):
    """A schema of the account, for a cohort's tables."""

    type = "snowflake"

    def __init__(self, source: Any) -> None:
        self.source_of_all = source
        self.schema = f"headgate_{uuid.uuid4().hex[:8]}"
        self.ask(f"CREATE SCHEMA {self.schema}")

    def ask(self, *statements: str) -> None:
        for statement in statements:
            self.source_of_all.reader.execute(statement, "setting up")

    def make_schema(self, name: str) -> None:
        self.ask(f"CREATE SCHEMA {name}", f"USE SCHEMA {self.schema}")

    def options(self) -> dict[str, Any]:
        return {**options(), "schema": self.schema}

    def close(self) -> None:
        self.ask(f"DROP SCHEMA {self.schema} CASCADE")


@pytest.fixture
def account(source: Any) -> Iterator[Account]:
    try:
        made = Account(source)
    except SourceError as error:
        pytest.skip(f"the role may not create a schema: {error.message}")
    yield made
    made.close()


@pytest.mark.parametrize(
    "play", [play for play in SCENARIOS if play.__name__ in THERE_TOO], ids=lambda play: play.__name__
)
def test_plans_are_equal_where_the_account_keeps_the_members(
    play: Scenario, account: Account, tmp_path: Path
) -> None:
    expected = played(play, DuckDB(tmp_path), tmp_path / "duckdb")
    found = played(play, account, tmp_path / "account", pushed=True)

    assert differences(expected, found, pushed=True) == []
