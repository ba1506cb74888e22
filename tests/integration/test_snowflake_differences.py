"""Where the server that stands for Snowflake differs from it: each fact is asked, so that none outlives its time.

A test that fails here brings good news: the server has learned something. Take the line out of
docs/reference/snowflake-differences.md, and use what the server can do.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.parity.warehouses import SnowflakeDB
from tests.snowflake import Snowflake, server_python

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "snowflake-differences.md"

SYNTAX, UNKNOWN, NO_FUNCTION, CONVERSION, NOT_MADE = 1003, 2003, 2043, 100035, 9999

Ask = Callable[..., list[Any]]

REFUSED = {
    "wide-numbers": (f"SELECT '{'9' * 38}'::NUMBER(38, 0)", CONVERSION),
    "mixed-arrays": ("SELECT TO_JSON(ARRAY_CONSTRUCT(1, 'a'))", CONVERSION),
    "names-by-case": ('CREATE TEMPORARY TABLE twice ("a" NUMBER, "A" NUMBER)', UNKNOWN),
    "table-history": ("SELECT * FROM facts AT(OFFSET => -1)", SYNTAX),
    "streams": ("CREATE STREAM changes_of_facts ON TABLE facts", SYNTAX),
    "changes": ("SELECT * FROM facts CHANGES(INFORMATION => DEFAULT) AT(OFFSET => -1)", SYNTAX),
    "swap": ("ALTER TABLE facts SWAP WITH others", SYNTAX),
    "hash-agg": ("SELECT HASH_AGG(id) FROM facts", UNKNOWN),
    "md5-number": ("SELECT MD5_NUMBER_LOWER64('a')", UNKNOWN),
    "last-query-id": ("SELECT LAST_QUERY_ID()", UNKNOWN),
    "result-scan": ("SELECT * FROM TABLE(RESULT_SCAN(LAST_QUERY_ID()))", SYNTAX),
    "current-session": ("SELECT CURRENT_SESSION()", UNKNOWN),
    "query-history": ("SELECT * FROM TABLE(INFORMATION_SCHEMA.QUERY_HISTORY())", SYNTAX),
    "grants": ("GRANT SELECT ON TABLE facts TO ROLE reader", SYNTAX),
    "alter-session": ("ALTER SESSION SET QUERY_TAG = 'x'", NOT_MADE),
    "hexadecimal": ("SELECT TO_NUMBER('ff', 'XX')", NOT_MADE),
    "time-formats": ("SELECT TO_VARCHAR('01:02:03'::TIME, 'HH24')", NO_FUNCTION),
    "temporary-in-schema": ('CREATE TEMPORARY TABLE "DIFFERENCES"."PASSING" (id NUMBER)', UNKNOWN),
    "cancel": ("SELECT SYSTEM$CANCEL_QUERY('01b2c3d4-0000-1111-0000-000000000001')", UNKNOWN),
}
ANSWERED = {
    "key-order": ("SELECT TO_JSON(OBJECT_CONSTRUCT('b', 1, 'a', 2))", '{"b":1,"a":2}', '{"a":2,"b":1}'),
    "division": ("SELECT (1 / 3)::VARCHAR", "0.3333333333333333", "0.333333"),
    "binary-as-text": ("SELECT TO_BINARY('AB', 'HEX')::VARCHAR", "\\xAB", "AB"),
}
IN_PYTHON = {
    "null-timestamps": (
        "import pyarrow, fakesnow.arrow as a; "
        "print(a.timestamp_to_sf_struct(pyarrow.array([None], pyarrow.timestamp('us'))).null_count)",
        "0",
    ),
    "hash": (
        "import fakesnow; cursor = fakesnow.instance.FakeSnow().connect('d', 's').cursor(); "
        "cursor.execute(\"SELECT HASH('a')\"); print(cursor._arrow_table.schema.types[0])",
        "uint64",
    ),
    "primary-keys": (
        "import duckdb, fakesnow; cursor = fakesnow.instance.FakeSnow().connect('d', 's').cursor(); "
        "cursor.execute('CREATE TABLE keyed (id NUMBER PRIMARY KEY)')\n"
        "try: cursor.execute('INSERT INTO keyed SELECT column1 FROM VALUES (1), (1)')\n"
        "except duckdb.ConstraintException: print('refused')",
        "refused",
    ),
}
ELSEWHERE = {"ddl-in-transactions", "read-committed", "session-parameters", "who-we-are"}


@pytest.fixture(scope="module")
def warehouse(snowflake: Snowflake) -> Iterator[SnowflakeDB]:
    made = SnowflakeDB(snowflake, schema="differences")
    made.ask("CREATE OR REPLACE TABLE facts (id NUMBER(9, 0))", "CREATE OR REPLACE TABLE others LIKE facts")
    yield made
    made.close()


def refusal(warehouse: SnowflakeDB, *statements: str) -> int | None:
    """The number of the error that the last statement is refused with."""
    from snowflake.connector.errors import ProgrammingError

    warehouse.ask(*statements[:-1])
    with pytest.raises(ProgrammingError) as caught:
        warehouse.ask(statements[-1])
    return caught.value.errno


def test_the_document_lists_what_is_asked_here_and_nothing_else() -> None:
    listed = re.findall(r"^\| `([a-z0-9-]+)` \|", DOCUMENT.read_text(), re.MULTILINE)

    assert len(listed) == len(set(listed))
    assert set(listed) == {*REFUSED, *ANSWERED, *IN_PYTHON, *ELSEWHERE}


@pytest.mark.parametrize("fact", REFUSED)
def test_the_server_refuses_what_snowflake_takes(warehouse: SnowflakeDB, fact: str) -> None:
    statement, number = REFUSED[fact]

    assert refusal(warehouse, statement) == number


@pytest.mark.parametrize("fact", ANSWERED)
def test_the_server_answers_differently(warehouse: SnowflakeDB, fact: str) -> None:
    statement, answer, theirs = ANSWERED[fact]

    assert warehouse.rows(statement) == [(answer,)]
    assert answer != theirs


@pytest.mark.parametrize("fact", IN_PYTHON)
def test_what_the_server_makes_is_not_what_snowflake_sends(request: pytest.FixtureRequest, fact: str) -> None:
    program, answer = IN_PYTHON[fact]
    command = [str(server_python(request.config)), "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.stdout.strip(), done.returncode) == (answer, 0), done.stderr


def test_wide_numbers_with_a_fraction_are_whole(warehouse: SnowflakeDB) -> None:
    digits = "9" * 37

    assert warehouse.rows(f"SELECT '{digits}'::NUMBER(37, 0)::VARCHAR, '{digits}.9'::NUMBER(38, 1)::VARCHAR") == [
        (digits, f"{digits}.9")
    ]


def test_a_table_made_in_a_transaction_goes_with_it(warehouse: SnowflakeDB) -> None:
    warehouse.ask("BEGIN", "CREATE TABLE made_in_one (id NUMBER)", "ROLLBACK")

    assert refusal(warehouse, "SELECT * FROM made_in_one") == UNKNOWN


def test_a_transaction_reads_one_version(warehouse: SnowflakeDB, snowflake: Snowflake) -> None:
    other = SnowflakeDB(snowflake, schema="differences")
    counted = "SELECT COUNT(*) FROM read_twice"
    other.ask("CREATE OR REPLACE TABLE read_twice (id NUMBER)")
    warehouse.ask("BEGIN")
    before = warehouse.rows(counted)
    other.ask("INSERT INTO read_twice SELECT 1")
    within = warehouse.rows(counted)
    warehouse.ask("COMMIT")
    other.close()

    assert (before, within, warehouse.rows(counted)) == ([(0,)], [(0,)], [(1,)])


def test_the_session_is_not_as_its_parameters_say(snowflake: Snowflake) -> None:
    warehouse = SnowflakeDB(snowflake, session_parameters={"TIMEZONE": "Australia/Perth", "JSON_INDENT": 0})
    zone = warehouse.rows("SHOW PARAMETERS LIKE 'TIMEZONE'")[0][1]
    warehouse.close()

    assert zone == "Etc/UTC"


def test_who_we_are_is_answered_by_our_wrapper(warehouse: SnowflakeDB) -> None:
    assert warehouse.rows("SELECT CURRENT_USER(), CURRENT_ROLE(), CURRENT_WAREHOUSE()") == [
        ("user", "role", "warehouse")
    ]
    # As the wrapper does not know them.
    assert warehouse.rows("SELECT CURRENT_USER (), CURRENT_ROLE ()") == [("duckdb", "duckdb")]
    assert refusal(warehouse, "SELECT CURRENT_WAREHOUSE ()") == UNKNOWN
