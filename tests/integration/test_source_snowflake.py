"""The Snowflake source through the real connector, against a local server that speaks its protocol."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from datetime import time as clock_time
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from sync.cli.daemon import nobody_there
from sync.errors import SourceError
from sync.sources import open_source
from sync.sources.base import Column, Relation, Source
from sync.sources.snowflake_types import arrow_schema, duckdb_type, selected
from sync.sources.snowflake_types import staged as staged_sql
from tests.snowflake import Snowflake

TABLE = """
CREATE OR REPLACE TABLE {name} (id NUMBER, big NUMBER(30, 0), small NUMBER(9, 0), amount NUMBER(20, 4),
    email VARCHAR, born DATE, seen TIMESTAMP_NTZ, at_ TIMESTAMP_TZ, ok BOOLEAN, score FLOAT, tags VARIANT,
    raw BINARY, hour TIME, "Mixed ""x" VARCHAR)
"""
ROW = """
INSERT INTO {name} SELECT 987654321098, 987654321098765432109876543210, 7, 1234567890123456.7891,
    'ann@acme.example', '2020-02-29'::DATE,
    '2020-01-01 10:00:00.123456'::TIMESTAMP_NTZ, '2020-01-01 10:00:00 +02:00'::TIMESTAMP_TZ, TRUE, 1.5,
    PARSE_JSON('{{"a":[1,2]}}'), TO_BINARY('AB', 'HEX'), '10:00:01'::TIME, 'odd'
"""


@pytest.fixture
def port(snowflake: Snowflake) -> int:
    return snowflake.port


def seen(port: int) -> dict[str, Any]:
    return Snowflake(port).seen()


def options(port: int, **more: Any) -> dict[str, Any]:
    return Snowflake(port).options(**more)


@pytest.fixture
def source(port: int, tmp_path: Path) -> Iterator[Any]:
    made: Any = open_source("warehouse", options(port, role="READER", warehouse="WH"), tmp_path, "crm-vips")
    made.refresh = "r-1"
    yield made
    made.reader.close()


def run(source: Any, *statements: str) -> None:
    """Write to the warehouse as somebody else would."""
    for statement in statements:
        source.reader.execute(statement, "setting up")


@pytest.fixture
def table(source: Any) -> str:
    name = f"vip_{uuid.uuid4().hex[:6]}"
    run(source, TABLE.format(name=name), ROW.format(name=name))
    return name


def staged(source: Source, relation: Relation, columns: list[str], spool: Path) -> tuple[Any, list[Any]]:
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET TimeZone = 'UTC'")
        with source.stage(connection, relation, columns, spool) as found:
            cursor = connection.execute(f"SELECT * FROM {found.sql}")
            types = [Column(d[0], str(d[1])) for d in cursor.description or []]
            rows = cursor.fetchall()
            assert connection.execute(f"SELECT count(*) FROM {found.sql}").fetchall() == [(len(rows),)]
            assert tuple(types) == found.columns
        return found, rows
    finally:
        connection.close()


def refused(source: Source, relation: Relation) -> SourceError:
    with pytest.raises(SourceError) as caught:
        source.columns(relation)
    return caught.value


def test_check_says_who_we_are(source: Source) -> None:
    assert source.check() == "Snowflake test: user as role on warehouse"


def test_the_session_is_as_configured(source: Source, port: int) -> None:
    source.check()
    login = seen(port)["logins"][-1]

    assert login["LOGIN_NAME"] == "loader"
    assert login["url"]["warehouse"] == "WH"
    assert login["url"]["roleName"] == "READER"
    parameters = login["SESSION_PARAMETERS"]
    assert json.loads(parameters["QUERY_TAG"]) == {"app": "headgate", "sync": "crm-vips", "refresh": "r-1"}
    assert parameters["TIMEZONE"] == "UTC"
    assert parameters["CLIENT_SESSION_KEEP_ALIVE"] == "true"
    assert parameters["CLIENT_RESULT_CHUNK_SIZE"] == "32"
    assert parameters["CLIENT_TELEMETRY_ENABLED"] == "false"
    assert str(parameters["STATEMENT_TIMEOUT_IN_SECONDS"]) == "3600"


def test_columns_have_the_types_their_values_arrive_in(source: Source, table: str) -> None:
    assert source.columns(Relation(table=f"marts.{table}")) == (
        Column("ID", "DECIMAL(38,0)"),
        Column("BIG", "DECIMAL(30,0)"),
        Column("SMALL", "BIGINT"),
        Column("AMOUNT", "DECIMAL(20,4)"),
        Column("EMAIL", "VARCHAR"),
        Column("BORN", "DATE"),
        Column("SEEN", "TIMESTAMP"),
        Column("AT_", "TIMESTAMP WITH TIME ZONE"),
        Column("OK", "BOOLEAN"),
        Column("SCORE", "DOUBLE"),
        Column("TAGS", "JSON"),
        Column("RAW", "BLOB"),
        Column("HOUR", "TIME"),
        Column('Mixed "x', "VARCHAR"),
    )


def test_every_type_arrives_without_loss(source: Source, table: str, tmp_path: Path) -> None:
    _, rows = staged(source, Relation(table=table), [], tmp_path / "spool")

    assert rows == [
        (
            Decimal(987654321098),
            Decimal("987654321098765432109876543210"),
            7,
            Decimal("1234567890123456.7891"),
            "ann@acme.example",
            date(2020, 2, 29),
            datetime(2020, 1, 1, 10, 0, 0, 123456),  # noqa: DTZ001 - the column has no zone
            datetime(2020, 1, 1, 8, 0, tzinfo=UTC),
            True,
            1.5,
            '{"a":[1,2]}',
            b"\xab",
            clock_time(10, 0, 1),
            "odd",
        )
    ]


def test_far_dates_arrive_as_they_are(source: Source, tmp_path: Path) -> None:
    query = "SELECT '9999-12-31 23:59:59'::TIMESTAMP_NTZ AS a, '0001-01-01 00:00:00'::TIMESTAMP_NTZ AS b"
    _, rows = staged(source, Relation(query=query), [], tmp_path)

    assert rows == [(datetime(9999, 12, 31, 23, 59, 59), datetime(1, 1, 1))]  # noqa: DTZ001


def test_nulls_arrive_as_nulls(source: Source, tmp_path: Path) -> None:
    query = "SELECT NULL::NUMBER(9, 0) AS a, NULL::NUMBER(9, 2) AS b, NULL::VARCHAR AS c, NULL::DATE AS d"
    _, rows = staged(source, Relation(query=query), [], tmp_path)

    assert rows == [(None, None, None, None)]


@pytest.mark.parametrize(
    ("shown", "arrives"),
    [
        ('{"a":[1.10,null]}', '{"a":[1.10,null]}'),
        ('["NaN","an infant"]', '["NaN","an infant"]'),
        ("null", "null"),
        ("NaN", '"NaN"'),
        ('{"a":-Infinity}', '"{\\"a\\":-Infinity}"'),
        ("[1,undefined]", '"[1,undefined]"'),
        (None, None),
    ],
)
def test_what_json_has_no_word_for_is_a_text_in_it(shown: str | None, arrives: str | None) -> None:
    column = SimpleNamespace(name='odd "name', type_code=5)
    with duckdb.connect() as connection:
        query = f"""SELECT {staged_sql(column)} FROM (SELECT $1::VARCHAR AS "odd ""name")"""
        cursor = connection.execute(query, [shown])

        assert [str(d[1]) for d in cursor.description or []] == ["JSON"]
        assert cursor.fetchall() == [(arrives,)]


def test_no_rows_still_have_their_types(source: Source, table: str, tmp_path: Path) -> None:
    found, rows = staged(source, Relation(query=f"SELECT * FROM {table} WHERE id = 0"), [], tmp_path)

    assert rows == []
    assert found.columns[1:3] == (Column("BIG", "DECIMAL(30,0)"), Column("SMALL", "BIGINT"))


def test_only_the_columns_asked_for_leave_the_warehouse(
    source: Source, table: str, tmp_path: Path, port: int
) -> None:
    found, rows = staged(source, Relation(table=table), ["email", 'Mixed "x'], tmp_path)

    assert rows == [("ann@acme.example", "odd")]
    assert [c.name for c in found.columns] == ["EMAIL", 'Mixed "x']
    assert seen(port)["queries"][-2] == f'SELECT "EMAIL", "Mixed ""x" FROM "{table.upper()}"'


def test_the_spool_file_is_ours_alone_and_goes(source: Source, table: str, tmp_path: Path) -> None:
    connection = duckdb.connect(":memory:")
    with source.stage(connection, Relation(table=table), ["id"], tmp_path / "spool"):
        (file,) = (tmp_path / "spool").iterdir()
        mode = stat.S_IMODE(file.stat().st_mode)
    connection.close()

    assert mode == 0o600
    assert list((tmp_path / "spool").iterdir()) == []


def test_many_rows_are_streamed(source: Source, tmp_path: Path) -> None:
    query = "SELECT seq4() AS n, 'p' || seq4() AS name FROM TABLE(GENERATOR(ROWCOUNT => 50000))"
    _, rows = staged(source, Relation(query=query), [], tmp_path)

    assert len(rows) == 50_000
    assert len({r[0] for r in rows}) == 50_000


@pytest.mark.parametrize(
    "query", ["SELECT email FROM {table};", "WITH v AS (SELECT * FROM {table}) SELECT email FROM v -- the end"]
)
def test_a_query_is_a_relation(source: Source, table: str, tmp_path: Path, query: str) -> None:
    _, rows = staged(source, Relation(query=query.format(table=table)), ["email"], tmp_path)

    assert rows == [("ann@acme.example",)]


@pytest.mark.parametrize("query", ["DELETE FROM {table}", "SELECT 1; DROP TABLE {table}", "SHOW TABLES"])
def test_only_a_single_select_is_a_query(source: Source, table: str, query: str) -> None:
    assert refused(source, Relation(query=query.format(table=table))).code == "HG204"


def test_tables_are_listed_as_mappings_write_them(source: Any, table: str) -> None:
    run(source, 'CREATE OR REPLACE TABLE "Odd one" (a NUMBER)')
    names = source.tables()

    assert f"marts.{table}" in names
    assert 'marts."Odd one"' in names
    assert source.columns(Relation(table='marts."Odd one"')) == (Column("A", "DECIMAL(38,0)"),)


def test_a_missing_table_is_named_with_the_nearest(source: Source, table: str) -> None:
    error = refused(source, Relation(table=f"marts.{table}x"))

    assert error.code == "HG202"
    assert error.fix == f"did you mean 'marts.{table}'?"


def test_a_missing_column_is_named_with_the_nearest(source: Source, table: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no column 'emial'") as caught:
        staged(source, Relation(table=table), ["emial"], tmp_path)

    assert (caught.value.code, caught.value.fix) == ("HG212", "did you mean 'EMAIL'?")


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("000606", "HG206", "no warehouse"),
        ("090064", "HG206", "suspended"),
        ("090073", "HG206", "quota of its resource monitor"),
        ("000630", "HG208", "took too long"),
        ("003001", "HG207", "may not read"),
    ],
)
def test_a_refused_query_says_why_and_what_to_do(source: Source, number: str, code: str, words: str) -> None:
    error = refused(source, Relation(query=f"SELECT 1 AS refuse_{number}"))

    assert error.code == code
    assert words in error.message
    assert f"error {number}" in error.message
    assert error.fix


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        ("390100", "HG205", "password is wrong"),
        ("390101", "HG205", "disabled"),
        ("390102", "HG205", "locked"),
        ("390120", "HG205", "second factor was not confirmed"),
        ("390144", "HG205", "the key is not accepted"),
        ("390186", "HG207", "the user may not take it"),
        ("390189", "HG207", "role does not exist"),
        ("390201", "HG202", "does not exist"),
        ("390303", "HG205", "token is invalid or has expired"),
        ("390318", "HG205", "token is invalid or has expired"),
        ("390422", "HG205", "network policy does not let"),
        ("390432", "HG205", "needs a network policy"),
        ("390913", "HG206", "trial has ended"),
        ("394301", "HG205", "the key is not accepted: expired"),
        ("394304", "HG205", "another user's"),
        ("394400", "HG205", "programmatic access token is not accepted"),
        ("394508", "HG205", "a second factor is required"),
    ],
)
def test_a_refused_sign_in_says_why_and_what_to_do(
    port: int, tmp_path: Path, number: str, code: str, words: str
) -> None:
    source = open_source("warehouse", options(port, user=f"refuse_{number}"), tmp_path)
    with pytest.raises(SourceError) as caught:
        source.check()
    error = caught.value

    assert error.code == code
    assert words in error.message
    assert error.message.startswith("source warehouse: signing in: ")
    assert "canary-password" not in f"{error.message} {error.fix} {error.__cause__}"


def test_an_unreachable_server_is_told_within_the_limit(tmp_path: Path) -> None:
    source = open_source("warehouse", options(1, login_timeout=1), tmp_path)
    start = time.monotonic()
    with pytest.raises(SourceError, match="cannot be reached") as caught:
        source.check()

    assert caught.value.code == "HG200"
    assert time.monotonic() - start < 10


def key_pem(passphrase: bytes | None) -> str:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    encryption = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption).decode()


@pytest.mark.parametrize("passphrase", [None, "canary phrase"])
def test_a_key_pair_signs_in(port: int, tmp_path: Path, passphrase: str | None) -> None:
    pem = key_pem(passphrase.encode() if passphrase else None)
    given = options(port, password=None, private_key=pem, private_key_passphrase=passphrase)
    source: Any = open_source("warehouse", given, tmp_path)
    source.check()
    source.reader.close()
    login = seen(port)["logins"][-1]

    assert login["AUTHENTICATOR"] == "SNOWFLAKE_JWT"
    assert login["TOKEN"] == "given"
    assert "PASSWORD" not in login


def test_an_oauth_token_signs_in(port: int, tmp_path: Path) -> None:
    source: Any = open_source("warehouse", options(port, password=None, token="canary-token"), tmp_path)
    source.check()
    source.reader.close()

    assert seen(port)["logins"][-1]["AUTHENTICATOR"] == "OAUTH"


@pytest.mark.parametrize(
    ("passphrase", "given", "words"),
    [
        (b"right", "wrong", "passphrase do not fit"),
        (b"right", None, "needs `private_key_passphrase`"),
        (None, "one too many", "needs no passphrase"),
    ],
)
def test_a_key_that_cannot_be_read_is_told(
    tmp_path: Path, passphrase: bytes | None, given: str | None, words: str
) -> None:
    chosen = options(1, password=None, private_key=key_pem(passphrase), private_key_passphrase=given)
    with pytest.raises(SourceError, match=words) as caught:
        open_source("warehouse", chosen, tmp_path).check()

    assert caught.value.code == "HG205"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"password": None}, "give `private_key`, `token` or `password`"),
        ({"authenticator": "oauth"}, "needs `token`"),
        ({"authenticator": "externalbrowser"}, "does not take `password`"),
        ({"passcode": "1", "password": None, "token": "t"}, "`passcode` goes with `password`"),
        ({"oauth_client_secret": "s", "password": None}, "'oauth_client_credentials'"),
        ({"token": "t"}, "not `token` and `password`"),
        ({"authenticator": "snowflake_jwt"}, "needs `private_key`"),
        ({"host": "example.com"}, "shows the secret"),
        ({"user": None}, "give `user`"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source("warehouse", options(1, **more), tmp_path)

    assert words in caught.value.message
    assert "canary" not in caught.value.message


def test_one_sign_in_serves_many_statements(source: Any, table: str, port: int) -> None:
    before = len(seen(port)["logins"])
    for _ in range(3):
        source.columns(Relation(table=table))

    assert len(seen(port)["logins"]) == before


def test_nothing_is_told_to_the_vendor(source: Source, port: int) -> None:
    source.check()

    assert "telemetry" not in seen(port)["queries"]


@pytest.mark.parametrize(
    ("code", "type", "sql"),
    [
        (10, "JSON", '"Odd ""one"'),  # ARRAY
        (14, "VARCHAR", '"Odd ""one"'),  # GEOGRAPHY
        (16, "JSON", '"Odd ""one"::ARRAY AS "Odd ""one"'),  # VECTOR
        (19, "VARCHAR", '"Odd ""one"::VARCHAR AS "Odd ""one"'),  # INTERVAL YEAR TO MONTH
        (20, "VARCHAR", '"Odd ""one"::VARCHAR AS "Odd ""one"'),  # INTERVAL DAY TO SECOND
    ],
)
def test_types_that_the_local_server_has_not_are_asked_for_as_text(code: int, type: str, sql: str) -> None:
    column = described(code)

    assert (duckdb_type(column), selected(column)) == (type, sql)


@pytest.mark.parametrize(("code", "name"), [(0, "DECFLOAT"), (17, "MAP"), (18, "FILE"), (99, "newer Snowflake")])
def test_a_type_that_cannot_be_read_is_told_with_what_to_write(code: int, name: str) -> None:
    with pytest.raises(SourceError, match=name) as caught:
        arrow_schema([described(code)], "marts.vip")

    assert caught.value.code == "HG209"
    assert "TO_JSON" in caught.value.fix


def described(code: int) -> Any:
    from snowflake.connector.cursor import ResultMetadata

    return ResultMetadata('Odd "one', code, None, None, None, None, True)


# --- a query that is told to end ------------------------------------------------------------------------------

ENDLESS = """
SELECT COUNT(*) AS n, SUM(LENGTH(a::VARCHAR || b::VARCHAR || c::VARCHAR)) AS m
FROM TABLE(GENERATOR(ROWCOUNT => 1000000)) a, TABLE(GENERATOR(ROWCOUNT => 1000000)) b,
    TABLE(GENERATOR(ROWCOUNT => 1000000)) c
"""


def until(happened: Callable[[], Any]) -> Any:
    limit = time.monotonic() + 30
    while not (found := happened()):
        assert time.monotonic() < limit, "it did not happen"
        time.sleep(0.02)
    return found


def test_an_interrupted_query_is_cancelled_in_the_warehouse(source: Any, port: int, tmp_path: Path) -> None:
    caught: list[SourceError] = []

    def read() -> None:
        try:
            staged(source, Relation(query=ENDLESS), [], tmp_path / "spool")
        except SourceError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    query = until(lambda: source.reader.last_query)
    source.interrupt()
    reader.join(30)

    assert [error.code for error in caught] == ["HG218"]
    assert caught[0].message == "source warehouse: reading the cohort's query was interrupted; nothing was sent"
    assert query in seen(port)["aborted"]
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_interrupted_source_can_be_asked_again(source: Any, table: str) -> None:
    source.interrupt()

    assert source.columns(Relation(table=table))


def test_rows_that_come_are_stopped_too(source: Any) -> None:
    tables = source.reader.tables("SELECT seq4() AS n FROM TABLE(GENERATOR(ROWCOUNT => 2000000))", "reading")
    next(tables)
    source.interrupt()

    with pytest.raises(SourceError) as caught:
        list(tables)
    assert caught.value.code == "HG218"


def test_a_query_that_somebody_cancels_is_told(source: Any, tmp_path: Path) -> None:
    caught: list[SourceError] = []

    def read() -> None:
        try:
            staged(source, Relation(query=ENDLESS), [], tmp_path / "spool")
        except SourceError as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    query = until(lambda: source.reader.last_query)
    with source.reader._signed_in().cursor() as cursor:
        until(lambda: cursor.abort_query(query))
    reader.join(30)

    assert [error.code for error in caught] == ["HG208"]
    assert "error 000604" in caught[0].message


# --- what the account tells ------------------------------------------------------------------------------------


def test_what_reading_costs_is_told(source: Any, table: str, tmp_path: Path, port: int) -> None:
    staged(source, Relation(table=table), ["email"], tmp_path)

    told = source.reading
    assert (told.bytes_scanned, told.seconds, told.credits) == (4096, 1.25, 0.0001)
    assert told.changed_at == 0.0  # as the local server has it of every table
    assert told.query in seen(port)["queries"][-1]


def test_a_view_has_no_last_change(source: Any, table: str, tmp_path: Path) -> None:
    run(source, f"CREATE OR REPLACE VIEW {table}_v AS SELECT email FROM {table}")
    staged(source, Relation(table=f"marts.{table}_v"), [], tmp_path)

    assert source.reading.changed_at is None


def test_a_query_has_no_last_change(source: Any, tmp_path: Path, port: int) -> None:
    staged(source, Relation(query="SELECT 1 AS a"), [], tmp_path)

    assert source.reading.changed_at is None
    assert not [query for query in seen(port)["queries"][-3:] if "last_altered" in query]


def test_cost_that_is_not_told_fails_nothing(source: Any, table: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("sync.sources.snowflake._COST", "SELECT 1 AS refuse_003001 -- {query}")
    staged(source, Relation(table=table), ["email"], tmp_path)

    assert source.reading.bytes_scanned is None
    assert source.reading.query


# --- who signs in ---------------------------------------------------------------------------------------------


@contextmanager
def somebody_there() -> Iterator[None]:
    """A terminal, as the standard input of the test."""
    before = sys.stdin
    ours, theirs = os.openpty()
    try:
        with os.fdopen(theirs) as sys.stdin:
            yield
    finally:
        sys.stdin = before
        os.close(ours)


def test_a_programmatic_access_token_signs_in(port: int, tmp_path: Path) -> None:
    given = options(port, password=None, token="canary-token", authenticator="programmatic_access_token")
    source: Any = open_source("warehouse", given, tmp_path)
    source.check()
    source.reader.close()
    login = seen(port)["logins"][-1]

    assert (login["AUTHENTICATOR"], login["TOKEN"]) == ("PROGRAMMATIC_ACCESS_TOKEN", "given")


def test_a_second_factor_is_asked_of_somebody_at_a_terminal(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    given = options(port, authenticator="username_password_mfa", passcode="123456")
    source: Any = open_source("warehouse", given, tmp_path)
    with somebody_there():
        source.check()
    source.reader.close()
    login = seen(port)["logins"][-1]

    assert login["AUTHENTICATOR"] == "USERNAME_PASSWORD_MFA"
    assert login["PASSCODE"] == "given"
    assert login["SESSION_PARAMETERS"]["CLIENT_REQUEST_MFA_TOKEN"] is True


@pytest.mark.parametrize("way", ["externalbrowser", "username_password_mfa"])
def test_nobody_is_asked_where_nobody_is(port: int, tmp_path: Path, way: str) -> None:
    given = options(port, authenticator=way, password="p" if way == "username_password_mfa" else None)
    before = len(seen(port)["logins"])

    with pytest.raises(SourceError, match="nobody is there to answer") as caught:
        open_source("warehouse", given, tmp_path).check()
    assert caught.value.code == "HG205"
    assert len(seen(port)["logins"]) == before


def test_a_daemon_asks_nobody_though_it_was_started_at_a_terminal(port: int, tmp_path: Path) -> None:
    source = open_source("warehouse", options(port, authenticator="username_password_mfa"), tmp_path)

    with somebody_there(), nobody_there(), pytest.raises(SourceError, match="nobody is there"):
        source.check()


def test_a_client_gets_its_token_from_where_it_is_told(port: int, tmp_path: Path) -> None:
    given = options(
        port,
        password=None,
        user=None,
        authenticator="oauth_client_credentials",
        oauth_client_id="headgate",
        oauth_client_secret="canary-secret",
        oauth_token_request_url=f"http://127.0.0.1:{port}/oauth/token",
    )
    source: Any = open_source("warehouse", given, tmp_path)
    source.check()
    source.reader.close()
    login = seen(port)["logins"][-1]

    assert (login["AUTHENTICATOR"], login["TOKEN"]) == ("OAUTH", "given")
    assert seen(port)["queries"].count("oauth: headgate") == 1


def test_a_table_has_the_version_of_its_last_change(source: Any, table: str, port: int) -> None:
    found = source.version(Relation(table=table))

    assert (found.mark[:10], found.untold) == ("1970-01-01", "")  # as the local server has it of every table
    assert "last_altered" in seen(port)["queries"][-1]
    source.close()
    assert source.version(Relation(table=table)) == found


def test_of_a_view_or_a_query_it_says_that_it_cannot_tell(source: Any, table: str) -> None:
    run(source, f"CREATE OR REPLACE VIEW {table}_v AS SELECT email FROM {table}")

    assert "a view" in source.version(Relation(table=f"{table}_v")).untold
    assert "a query" in source.version(Relation(query="SELECT 1 AS a")).untold


# --- as much as there is, and no more memory ------------------------------------------------------------------

READER = """
import json, sys, pathlib, resource, duckdb
from sync.sources import open_source
from sync.sources.base import Relation
options, rows, folder = json.loads(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
source = open_source("warehouse", options, folder)
query = f"SELECT seq4() AS n, 'p-' || seq4() || '@acme.example' AS e FROM TABLE(GENERATOR(ROWCOUNT => {rows}))"
with source.stage(duckdb.connect(), Relation(query=query), [], folder / "spool"):
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def resident(port: int, rows: int, folder: Path) -> int:
    """MB that a process has resident at most, to stage so many rows."""
    command = [sys.executable, "-c", READER, json.dumps(options(port)), str(rows), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.slow
@pytest.mark.measured
def test_memory_does_not_grow_with_the_rows(port: int, tmp_path: Path) -> None:
    few, many = (resident(port, rows, tmp_path) for rows in (300_000, 3_000_000))

    assert many < few + 100, f"{few} MB for 300,000 rows, {many} MB for ten times as many"
