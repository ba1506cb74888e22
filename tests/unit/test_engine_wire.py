"""Values of every DuckDB type: from the warehouse through the plan file to what a connector is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.engine.wire import decoders, json_sql, wire_sql
from sync.sdk.values import dumps
from tests.engine_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


BIG = 170141183460469231731687303715884105
UUID = "4ac7a9e9-607c-4c8a-84f3-843f0191e3fd"

VALUES: dict[str, tuple[str, Any]] = {
    "boolean": ("TRUE", True),
    "tinyint": ("(-128)::TINYINT", -128),
    "integer": ("7::INTEGER", 7),
    "ubigint": ("18446744073709551615::UBIGINT", 18446744073709551615),
    "hugeint": (f"{BIG}::HUGEINT", BIG),
    "hugeint_small": ("5::HUGEINT", 5),
    "uhugeint": ("340282366920938463463374607431768211455::UHUGEINT", "340282366920938463463374607431768211455"),
    "bignum": ("'12345678901234567890123'::BIGNUM", "12345678901234567890123"),
    "double": ("0.1::DOUBLE", 0.1),
    "float": ("1.5::FLOAT", 1.5),
    "decimal": ("12.34::DECIMAL(5, 2)", 12.34),
    "decimal_whole": ("123::DECIMAL(18, 0)", 123),
    "decimal_whole_long": ("12345678901234567890123::DECIMAL(38, 0)", 12345678901234567890123),
    "decimal_long": ("12345678901234567890.125::DECIMAL(38, 3)", "12345678901234567890.125"),
    "varchar": ("'Zoë ''x'' \U0001f600'", "Zoë 'x' \U0001f600"),
    "enum": ("'b'::ENUM('a', 'b')", "b"),
    "uuid": (f"'{UUID}'::UUID", UUID),
    "blob": (r"'\xAA\x00b'::BLOB", "qgBi"),
    "bit": ("'10110'::BIT", "10110"),
    "date": ("DATE '2020-02-29'", "2020-02-29"),
    "time": ("TIME '10:11:12.5'", "10:11:12.5"),
    "timetz": ("'10:11:12+02'::TIMETZ", "08:11:12+00"),
    "timestamp": ("TIMESTAMP '2020-01-02 03:04:05.123456'", "2020-01-02T03:04:05.123456"),
    "timestamp_s": ("'2020-01-02 03:04:05'::TIMESTAMP_S", "2020-01-02T03:04:05"),
    "timestamp_ms": ("'2020-01-02 03:04:05.123'::TIMESTAMP_MS", "2020-01-02T03:04:05.123"),
    "timestamp_ns": ("'2020-01-02 03:04:05.123456789'::TIMESTAMP_NS", "2020-01-02T03:04:05.123456789"),
    "timestamptz": ("TIMESTAMPTZ '2020-01-02 03:04:05.5+05:30'", "2020-01-01T21:34:05.5Z"),
    "interval": ("INTERVAL '14 months 3 days 90.5 seconds'", "P14M3DT90.5S"),
    "interval_negative": ("INTERVAL '-14 months -90 seconds'", "P-14M0DT-90.0S"),
    "list": ("['a', NULL]", ["a", None]),
    "list_empty": ("[]::INTEGER[]", []),
    "list_nested": ("[[1], [], [2, 3]]", [[1], [], [2, 3]]),
    "array": ("['a', 'b']::VARCHAR[2]", ["a", "b"]),
    "struct": ("{'a': 1, 'b b\"': {'c': NULL::INTEGER}}", {"a": 1, 'b b"': {"c": None}}),
    "map": ("MAP {'k': 1}", {"k": 1}),
    "map_of_numbers": ("MAP {1: 2}", {"1": 2}),
    "json": ("""'{"a": [1, null, "x"]}'::JSON""", {"a": [1, None, "x"]}),
    "json_scalar": ("""'"x"'::JSON""", "x"),
    "union": ("union_value(num := 2)", {"num": 2}),
    "nested_times": (
        "{'at': [TIMESTAMPTZ '2020-01-02 03:04:05Z', NULL], 'b': '\\xAA'::BLOB, 'for': MAP {'x': INTERVAL 1 DAY}}",
        {"at": ["2020-01-02T03:04:05Z", None], "b": "qg==", "for": {"x": "P0M1DT0.0S"}},
    ),
    "nested_wide": (
        f"{{'h': {BIG}::HUGEINT, 'd': 12345678901234567890.125::DECIMAL(38, 3), 'f': 0.1::DOUBLE, "
        f"'u': '{UUID}'::UUID}}",
        {"h": BIG, "d": "12345678901234567890.125", "f": 0.1, "u": UUID},
    ),
    "null": ("NULL", None),
    "null_list": ("NULL::INTEGER[]", None),
    "null_struct": ("NULL::STRUCT(a TIMESTAMP)", None),
    "null_timestamptz": ("NULL::TIMESTAMPTZ", None),
}
TABLE = "CREATE TABLE people AS SELECT 'k' AS id, 'ann@x' AS email, " + ", ".join(
    f"{sql} AS {name}" for name, (sql, _) in VALUES.items()
)


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Fields of one addition, after a trip through a plan file, and the types they came from."""
    bench = Bench(tmp_path_factory.mktemp("wire"), fields=[{"to": name, "from": name} for name in VALUES])
    bench.warehouse(TABLE)
    plan = bench.plan()
    (change,) = bench.changes(plan)
    with bench.file(plan) as file:
        yield dict(change.fields), dict(file.types)
    bench.close()


@pytest.mark.parametrize("name", VALUES)
def test_a_value_of_the_type_arrives(sent: tuple[dict[str, Any], dict[str, str]], name: str) -> None:
    value, expected = sent[0][name], VALUES[name][1]
    assert value == expected
    assert type(value) is type(expected)
    assert json.loads(dumps(value)) == expected


def test_the_types_of_the_warehouse_are_told(sent: tuple[dict[str, Any], dict[str, str]]) -> None:
    types = sent[1]
    assert (types["email"], types["timestamptz"], types["list_nested"], types["decimal_long"]) == (
        "VARCHAR",
        "TIMESTAMP WITH TIME ZONE",
        "INTEGER[][]",
        "DECIMAL(38,3)",
    )


def test_identifiers_of_every_type_are_known_again_and_removed_as_they_were(bench: Bench) -> None:
    names = [n for n in VALUES if not n.startswith("null")]
    bench.mapping["identifiers"] = [{"to": name, "from": name} for name in names]
    bench.mapping["fields"] = []
    bench.warehouse(TABLE)
    first = bench.plan()
    bench.deliver(first)
    assert bench.difference().nothing_to_do
    bench.warehouse("DELETE FROM people")
    (gone,) = bench.changes(bench.plan())
    assert (str(gone.op), gone.key) == ("remove", bench.changes(first)[0].key)
    assert gone.identifiers == {name: VALUES[name][1] for name in names}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[]::INTEGER[]", "NULL::INTEGER[]"),
        ("[NULL]::INTEGER[]", "[]::INTEGER[]"),
        ("[[]]::INTEGER[][]", "[NULL]::INTEGER[][]"),
        ("[[1, 2], [3]]", "[[1], [2, 3]]"),
        ("{'a': NULL::INTEGER}", "NULL::STRUCT(a INTEGER)"),
        ("MAP {}::MAP(VARCHAR, INTEGER)", "NULL::MAP(VARCHAR, INTEGER)"),
        ("''", "NULL::VARCHAR"),
        ("FALSE", "NULL::BOOLEAN"),
        ("0", "NULL::INTEGER"),
    ],
)
def test_a_change_between_values_that_look_alike_is_seen(bench: Bench, before: str, after: str) -> None:
    bench.mapping["fields"] = [{"to": "v", "from": "v"}]
    bench.warehouse(f"CREATE TABLE people AS SELECT 1 AS id, 'ann@x' AS email, {before} AS v")
    bench.deliver(bench.plan())
    bench.warehouse(f"CREATE OR REPLACE TABLE people AS SELECT 1 AS id, 'ann@x' AS email, {after} AS v")
    assert bench.difference().diff.update == 1


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("field", "'nan'::DOUBLE"),
        ("identifier", "'inf'::DOUBLE"),
        ("field", "'-inf'::FLOAT"),
        ("field", "[1.5, 'nan'::DOUBLE]"),
        ("field", "{'a': 'Infinity'::DOUBLE, 'b': 'x'}"),
        ("identifier", "170141183460469231731687303715884105727::HUGEINT"),
    ],
)
def test_what_json_has_no_number_for_is_invalid(bench: Bench, value: str, place: str) -> None:
    bench.mapping[f"{place}s"] = [{"to": "v", "from": "v"}]
    bench.warehouse(f"CREATE TABLE people AS SELECT 1 AS id, 'ann@x' AS email, {value} AS v, 'x' AS city")
    plan = bench.plan()
    assert [r["why"] for r in bench.rows(plan)] == [f"{place} v is no number"]
    assert (plan.counts.add, plan.counts.invalid) == (0, 1)


def test_text_that_only_speaks_of_infinity_is_valid(bench: Bench) -> None:
    bench.mapping["fields"] = [{"to": "v", "from": "v"}]
    value = """{'a': 1.5::DOUBLE, 'b': 'to NaN, "Infinity" \\ and'}"""
    bench.warehouse(f"CREATE TABLE people AS SELECT 1 AS id, 'ann@x' AS email, {value} AS v")
    (change,) = bench.changes(bench.plan())
    assert change.fields["v"]["b"] == 'to NaN, "Infinity" \\ and'


def test_lengths_are_those_of_the_json_that_is_sent() -> None:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    for name, (sql, _) in VALUES.items():
        if name in (
            "null",
            "uhugeint",
            "hugeint",
            "union",
            "bignum",
            "interval",
            "nested_wide",
            "json",
        ):  # kept as another type
            continue
        (type_,) = connection.execute(f"SELECT typeof({sql})").fetchall()[0]
        relation = f"(SELECT {sql} AS v)"
        (value,) = connection.execute(f"SELECT {wire_sql('v', type_)} FROM {relation}").fetchall()[0]
        if value is not None and decoders([type_]):
            value = decoders([type_])[0][1](value)
        sized = f"SELECT strlen(to_json(struct_pack(v := {json_sql('v', type_)}))::VARCHAR) FROM {relation}"
        assert connection.execute(sized).fetchall()[0][0] == len(dumps({"v": value})), name
