"""Every type of PostgreSQL arrives as it is, or is refused with its column; also values that nobody picked."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from sync.errors import SourceError
from sync.sources import open_source
from sync.sources.base import Relation
from tests.servers import Postgres

psycopg = pytest.importorskip("psycopg")

SETUP = """
CREATE EXTENSION citext; CREATE EXTENSION hstore;
CREATE TYPE mood AS ENUM ('happy', 'so so');
CREATE TYPE place AS (street text, number int);
CREATE DOMAIN percent AS numeric(8, 3) CHECK (VALUE < 101);
CREATE DOMAIN odd_tags AS mood[];
"""

TYPES: list[tuple[str, str, str]] = [  # SQL, DuckDB type, DuckDB text
    ("(-32768)::smallint", "SMALLINT", "-32768"),
    ("2147483647::int", "INTEGER", "2147483647"),
    ("(-9223372036854775808)::bigint", "BIGINT", "-9223372036854775808"),
    ("4294967295::oid", "BIGINT", "4294967295"),
    ("1.1::real", "FLOAT", "1.1"),
    ("1.1::double precision", "DOUBLE", "1.1"),
    ("'NaN'::float8", "DOUBLE", "nan"),
    ("'-Infinity'::float8", "DOUBLE", "-inf"),
    ("true", "BOOLEAN", "true"),
    ("'it''s é'::text", "VARCHAR", "it's é"),
    ("'x'::varchar(5)", "VARCHAR", "x"),
    ("'x'::char(5)", "VARCHAR", "x    "),
    ("'x'::\"char\"", "VARCHAR", "x"),
    ("'x'::name", "VARCHAR", "x"),
    ("'unknown'", "VARCHAR", "unknown"),
    ("'AbC'::citext", "VARCHAR", "AbC"),
    ("'so so'::mood", "VARCHAR", "so so"),
    ("99.125::percent", "DECIMAL(8,3)", "99.125"),
    ("1.5::numeric(10, 2)", "DECIMAL(10,2)", "1.50"),
    ("repeat('9', 38)::numeric(38, 0)", "DECIMAL(38,0)", "9" * 38),
    ("1234::numeric(2, -2)", "DECIMAL(4,0)", "1200"),
    ("0.00123::numeric(2, 4)", "DECIMAL(4,4)", ".0012"),
    ("repeat('9', 39)::numeric(39, 0)", "VARCHAR", "9" * 39),
    ("1.500::numeric", "VARCHAR", "1.5"),
    ("1e50::numeric", "VARCHAR", "1" + "0" * 50),
    ("'NaN'::numeric", "VARCHAR", "NaN"),
    ("'-Infinity'::numeric", "VARCHAR", "-Infinity"),
    ("'-92233720368547758.08'::money", "DECIMAL(21,2)", "-92233720368547758.08"),
    ("'\\x00ff'::bytea", "BLOB", "\\x00\\xFF"),
    ("'2020-02-29'::date", "DATE", "2020-02-29"),
    ("'4713-01-01 BC'::date", "DATE", "4713-01-01 (BC)"),
    ("'5874897-12-31'::date", "DATE", "5874897-12-31"),
    ("'infinity'::date", "DATE", "infinity"),
    ("'-infinity'::date", "DATE", "-infinity"),
    ("'24:00:00'::time", "TIME", "24:00:00"),
    ("'10:00:01.000001'::time", "TIME", "10:00:01.000001"),
    ("'2020-01-01 10:00:00.123456'::timestamp", "TIMESTAMP", "2020-01-01 10:00:00.123456"),
    ("'4713-01-01 BC'::timestamp", "TIMESTAMP", "4713-01-01 (BC) 00:00:00"),
    ("'294246-12-31 23:59:59'::timestamp", "TIMESTAMP", "294246-12-31 23:59:59"),
    ("'infinity'::timestamp", "TIMESTAMP", "infinity"),
    ("'-infinity'::timestamptz", "TIMESTAMP WITH TIME ZONE", "-infinity"),
    ("'2020-01-01 10:00+02'::timestamptz", "TIMESTAMP WITH TIME ZONE", "2020-01-01 08:00:00+00"),
    ("'12:00:00.5+02'::timetz", "VARCHAR", "12:00:00.5+02"),
    ("'1 year 2 mons -3 days 04:05:06.5'::interval", "VARCHAR", "P1Y2M-3DT4H5M6.5S"),
    (
        "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid",
        "VARCHAR",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ),
    ("""'{"a":  [1.10, null]}'::json""", "JSON", '{"a":  [1.10, null]}'),
    ("""'{"a":  [1.10, null]}'::jsonb""", "JSON", '{"a": [1.10, null]}'),
    ("1e400::text::jsonb", "JSON", "1" + "0" * 400),
    ("'{1,NULL}'::int[]", "JSON", "[1,null]"),
    ("'{{1,2},{3,4}}'::int[]", "JSON", "[[1,2],[3,4]]"),
    ("ARRAY['a b', NULL, '']", "JSON", '["a b",null,""]'),
    ("'{}'::text[]", "JSON", "[]"),
    ("ARRAY['happy'::mood]", "JSON", '["happy"]'),
    ("ARRAY['happy'::mood]::odd_tags", "JSON", '["happy"]'),
    ("ARRAY[1.50, 'NaN']::numeric[]", "JSON", '[1.50,"NaN"]'),
    ("ROW('Main St', 7)::place", "JSON", '{"street":"Main St","number":7}'),
    ("ROW(1, 'x')", "JSON", '{"f1":1,"f2":"x"}'),
    ("ARRAY[ROW('Main St', 7)::place]", "JSON", '[{"street":"Main St","number":7}]'),
    ("'a=>1'::hstore", "VARCHAR", '"a"=>"1"'),
    ("int4range(1, 5)", "VARCHAR", "[1,5)"),
    ("'{[1,3), [5,7)}'::int4multirange", "VARCHAR", "{[1,3),[5,7)}"),
    ("ARRAY[int4range(1, 5)]", "VARCHAR", '{"[1,5)"}'),
    ("'10.0.0.1/8'::inet", "VARCHAR", "10.0.0.1/8"),
    ("'08:00:2b:01:02:03'::macaddr", "VARCHAR", "08:00:2b:01:02:03"),
    ("B'101'::bit(3)", "VARCHAR", "101"),
    ("'(1,2)'::point", "VARCHAR", "(1,2)"),
    ("'<a/>'::xml", "VARCHAR", "<a/>"),
    ("'a fat cat'::tsvector", "VARCHAR", "'a' 'cat' 'fat'"),
    ("'pg_class'::regclass", "VARCHAR", "pg_class"),
]


class Typed:
    """A database whose values are read one column at a time."""

    def __init__(self, server: Postgres, root: Path) -> None:
        self.root, name = root, server.database()
        self.admin = psycopg.connect(server.url(name), autocommit=True)
        self.admin.execute(SETUP)
        given = {"host": "127.0.0.1", "port": server.port, "database": name, "user": server.user}
        given |= {"password": server.password, "sslmode": "disable"}
        self.source = open_source("warehouse", {"type": "postgres", **given}, root)

    def read(self, query: str, select: str = "*") -> tuple[list[str], list[Any]]:
        with duckdb.connect(":memory:") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            with self.source.stage(connection, Relation(query=query), [], self.root / "spool") as staged:
                found = connection.execute(f"SELECT {select} FROM {staged.sql}").fetchall()
                return [c.type for c in staged.columns], found

    def refused(self, query: str) -> SourceError:
        with pytest.raises(SourceError) as caught:
            self.read(query)
        return caught.value

    def fill(self, columns: str, rows: list[tuple[Any, ...]]) -> None:
        """Make the table `t` and put the rows in, as text."""
        self.admin.execute("DROP TABLE IF EXISTS t")
        self.admin.execute(f"CREATE TABLE t ({columns})")
        width = ", ".join(["%s"] * len(rows[0])) if rows else ""
        with self.admin.cursor() as cursor:
            cursor.executemany(f"INSERT INTO t VALUES ({width})", rows)


@pytest.fixture(scope="module")
def typed(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Typed]:
    made = Typed(postgres, tmp_path_factory.mktemp("types"))
    yield made
    made.admin.close()


def test_every_type_arrives_without_loss(typed: Typed) -> None:
    columns = ", ".join(f"{sql} AS c{n}" for n, (sql, _, _) in enumerate(TYPES))
    texts = ", ".join(f"c{n}::VARCHAR" for n in range(len(TYPES)))

    types, (row,) = typed.read(f"SELECT {columns}", texts)

    wrong = [
        (sql, type, text)
        for (sql, wanted, meant), type, text in zip(TYPES, types, row, strict=True)
        if (type, text) != (wanted, meant)
    ]
    assert wrong == []


def test_every_type_has_nulls(typed: Typed) -> None:
    columns = ", ".join(f"(SELECT {sql} WHERE false) AS c{n}" for n, (sql, _, _) in enumerate(TYPES))

    types, (row,) = typed.read(f"SELECT {columns}")

    assert types == [type for _, type, _ in TYPES]
    assert set(row) == {None}


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("'NaN'::numeric(5, 2)", "NaN"),
        ("'294276-12-31'::timestamp", "year 294246"),
        ("'294276-12-31'::timestamptz", "year 294246"),
        ("pg_sleep(0)", "type void"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_column(typed: Typed, sql: str, words: str) -> None:
    error = typed.refused(f"SELECT 1 AS id, {sql} AS first_order UNION ALL SELECT 2, {sql}")

    assert error.code == "HG209"
    assert "column first_order of the cohort's query" in error.message
    assert words in error.message
    assert error.fix


def test_what_the_refusal_says_to_write_is_read(typed: Typed) -> None:
    nan = "'NaN'::numeric(5, 2)"
    query = f"SELECT nullif({nan}, 'NaN') AS a, {nan}::float8::text AS b, {nan}::text AS c"

    assert typed.read(query)[1] == [(None, "NaN", "NaN")]
    assert typed.read("SELECT least('294276-12-31'::timestamp, '9999-12-31') AS t", "t::VARCHAR")[1] == [
        ("9999-12-31 00:00:00",)
    ]


def test_types_that_were_made_a_moment_ago_and_names_that_are_taken_are_read(typed: Typed) -> None:
    typed.admin.execute(
        "DROP SCHEMA IF EXISTS mine CASCADE; CREATE SCHEMA mine; CREATE TYPE mine.date AS ENUM ('x')"
    )
    typed.admin.execute("CREATE TYPE mine.numeric AS (a int); CREATE DOMAIN mine.money AS text")

    types, rows = typed.read("SELECT 'x'::mine.date AS a, row(1)::mine.numeric AS b, '1 $'::mine.money AS c")

    assert (types[0], types[2]) == ("VARCHAR", "VARCHAR")
    assert (rows[0][0], json.loads(rows[0][1]), rows[0][2]) == ("x", {"a": 1}, "1 $")


# --- values that nobody picked --------------------------------------------------------------------------------

RELAXED = settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
NUMBERS = some.decimals(allow_nan=False, allow_infinity=False)


@some.composite
def fitting(draw: some.DrawFn) -> tuple[int, int, list[Decimal | None]]:
    """Precision, scale, and numbers of that many digits."""
    precision = draw(some.integers(1, 38))
    scale = draw(some.integers(0, precision))
    whole = some.integers(-(10**precision) + 1, 10**precision - 1)
    numbers = draw(some.lists(some.none() | whole, min_size=1, max_size=30))
    return (
        precision,
        scale,
        [None if n is None else Decimal(f"{n}E-{scale}") if n else Decimal(0) for n in numbers],  # scaleb rounds
    )


@RELAXED
@given(fitting())
def test_any_decimal_arrives_exactly(typed: Typed, case: tuple[int, int, list[Decimal | None]]) -> None:
    precision, scale, numbers = case
    with_context = [None if n is None else format(n, "f") for n in numbers]
    typed.fill(f"n numeric({precision}, {scale})", [(n,) for n in with_context])

    types, rows = typed.read("SELECT n FROM t")

    assert types == [f"DECIMAL({precision},{scale})"]
    assert [None if r[0] is None else Decimal(r[0]) for r in rows] == [
        None if n is None else Decimal(n) for n in with_context
    ]


@RELAXED
@given(some.lists(some.decimals(allow_infinity=True, allow_nan=False) | some.just(Decimal("NaN")), min_size=1))
def test_any_number_without_a_precision_arrives_as_the_same_number(typed: Typed, numbers: list[Decimal]) -> None:
    small = [n for n in numbers if not n.is_finite() or -400 < n.adjusted() < 400]
    typed.fill("n numeric", [(str(n),) for n in small] or [("0",)])

    _, rows = typed.read("SELECT n FROM t")

    for (text,), meant in zip(rows, small, strict=False):
        assert (text == "NaN") if meant.is_nan() else (Decimal(text) == meant), (text, meant)


FLOATS = some.none() | some.floats() | some.sampled_from([math.inf, -math.inf, math.nan, -0.0])


@RELAXED
@given(
    some.lists(
        some.tuples(
            some.none() | some.integers(-(2**63), 2**63 - 1),
            FLOATS,
            some.none() | some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            some.none() | some.binary(),
            some.none() | some.booleans(),
        ),
        min_size=1,
        max_size=50,
    )
)
def test_any_row_arrives_in_order_and_whole(typed: Typed, rows: list[tuple[Any, ...]]) -> None:
    typed.fill("i bigint, f float8, s text, b bytea, o boolean", rows)

    found = typed.read("SELECT * FROM t")[1]

    assert [tuple(map(repr, row)) for row in found] == [tuple(map(repr, row)) for row in rows]


_FIRST, _LAST = -210_866_803_200_000_000, 2**63 - 2  # 4714-11-24 BC, and DuckDB's last


@RELAXED
@given(
    some.lists(
        some.tuples(
            some.none() | some.integers(_FIRST, _LAST) | some.sampled_from([_FIRST, _LAST, 0, -1]),
            some.none() | some.integers(-2_440_588, 2_145_042_905),
            some.none() | some.integers(0, 86_400_000_000),
        ),
        min_size=1,
        max_size=50,
    ),
    some.booleans(),
)
def test_any_moment_arrives_to_the_microsecond(
    typed: Typed, rows: list[tuple[int | None, ...]], infinite: bool
) -> None:
    typed.admin.execute(
        "DROP TABLE IF EXISTS t; CREATE TABLE t (n int, ts timestamp, tz timestamptz, d date, h time)"
    )
    with typed.admin.cursor() as cursor:
        for n, (at, day, hour) in enumerate(rows):
            # An interval of microseconds is a double's product: take it apart so that every digit counts.
            cursor.execute(
                "INSERT INTO t SELECT %s, ts, ts AT TIME ZONE 'UTC', '1970-01-01'::date + %s::int, "
                "CASE WHEN %s = 86400000000 THEN '24:00' ELSE '00:00'::time + %s::bigint * interval '1 us' END "
                "FROM (SELECT '1970-01-01'::timestamp + (%s::bigint / 86400000000) * interval '1 day' "
                "+ (%s::bigint %% 86400000000) * interval '1 us' AS ts) x",
                (n, day, hour, hour, at, at),
            )
        if infinite:
            cursor.execute("INSERT INTO t VALUES (-1, 'infinity', '-infinity', '-infinity', '01:00')")
    found = typed.read(
        "SELECT * FROM t",
        "n, epoch_us(ts), epoch_us(tz), d - DATE '1970-01-01', epoch_us(h), ts::VARCHAR, tz::VARCHAR, d::VARCHAR",
    )[1]

    by_number = {row[0]: row[1:] for row in found}
    if infinite:
        assert by_number.pop(-1)[4:] == ("infinity", "-infinity", "-infinity")
    assert [by_number[n][:4] for n in range(len(rows))] == [(at, at, day, hour) for at, day, hour in rows]


@RELAXED
@given(
    some.recursive(
        some.none()
        | some.booleans()
        | some.integers()
        | some.text(some.characters(min_codepoint=1, exclude_categories=["Cs"])),
        lambda inner: (
            some.lists(inner, max_size=4) | some.dictionaries(some.text('abé"\\ ', max_size=4), inner, max_size=4)
        ),
        max_leaves=12,
    )
)
def test_any_json_arrives_as_the_same_json(typed: Typed, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    typed.fill("j json, b jsonb, a text[]", [(text, text, [text])])

    types, ((plain, binary, array),) = typed.read("SELECT * FROM t")

    assert types == ["JSON"] * 3
    assert plain == text
    assert (json.loads(binary), json.loads(array)) == (value, [text])
