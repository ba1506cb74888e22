"""From a mapping to keys, fingerprints and reasons, on real tables."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.engine.compile import PROBE, problems
from sync.errors import CohortError
from sync.sdk.nouns import Field, ObjectSpec, Op
from sync.sources.base import Column
from tests.engine_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, fields=[])
    yield made
    made.close()


def table(bench: Bench, *rows: str) -> None:
    bench.warehouse("CREATE OR REPLACE TABLE people AS " + " UNION ALL ".join(f"SELECT {row}" for row in rows))


def whys(bench: Bench) -> dict[str, str | None]:
    return {r["source_key"]: r["why"] for r in bench.rows(bench.plan())}


# --- keys -----------------------------------------------------------------------------------------------------


def test_a_number_and_its_text_are_the_same_identifier(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "who", "from": "n"}]
    table(bench, "1 AS id, 1::BIGINT AS n")
    bench.deliver(bench.plan())
    for sql in ("'1'", "1::TINYINT", "1::HUGEINT", "1::DECIMAL(38, 0)", "1::UHUGEINT"):
        table(bench, f"1 AS id, {sql} AS n")
        assert bench.difference().nothing_to_do, sql
    table(bench, "1 AS id, '01' AS n")
    assert bench.difference().diff.changes == 2


def test_which_identifier_holds_a_value_matters(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "email", "from": "a"}, {"to": "phone", "from": "b"}]
    table(bench, "1 AS id, 'x' AS a, NULL::VARCHAR AS b", "2, NULL, 'x'", "3, 'x', 'x'", "4, 'xx', ''")
    plan = bench.plan()
    assert (plan.counts.add, plan.counts.invalid) == (4, 0)
    assert len({c.key for c in bench.changes(plan)}) == 4


def test_an_empty_identifier_is_as_good_as_none(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "email", "from": "a"}, {"to": "phone", "from": "b"}]
    table(bench, "1 AS id, 'x' AS a, '' AS b")
    bench.deliver(bench.plan())
    table(bench, "1 AS id, 'x' AS a, NULL::VARCHAR AS b")
    assert bench.difference().nothing_to_do


@pytest.mark.parametrize(
    "sql",
    [
        "NULL::VARCHAR",
        "''",
        "NULL::INTEGER",
        f"'{hashlib.sha256(b'').hexdigest()}'",  # somebody hashed an empty text
        f"'{hashlib.md5(b'').hexdigest()}'",
    ],
)
def test_a_row_without_an_identifier_is_invalid(bench: Bench, sql: str) -> None:
    table(bench, "1 AS id, 'ann@x' AS email")
    bench.warehouse(f"CREATE OR REPLACE TABLE people AS SELECT 1 AS id, {sql} AS email")
    assert whys(bench) == {"1": "identifier email is empty"}


def test_an_identifier_that_transforms_leave_empty_is_invalid_even_if_hashed(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "email", "from": "email", "transform": ["trim"]}]
    bench.with_(fields=(Field("email", identifier=True, normalise="email", hash="sha256"),))
    table(bench, "1 AS id, '  ' AS email", "2, ' Ann@X '")
    assert whys(bench) == {"1": "identifier email is empty", "2": None}
    (change,) = bench.changes(bench.plan())
    assert change.identifiers == {"email": hashlib.sha256(b"ann@x").hexdigest()}


def test_of_several_identifiers_one_is_enough_unless_it_is_required(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "email", "from": "a"}, {"to": "phone", "from": "b"}]
    table(bench, "1 AS id, 'x' AS a, NULL::VARCHAR AS b", "2, NULL, '5'", "3, NULL, ''")
    assert whys(bench) == {"1": None, "2": None, "3": "every identifier is empty"}
    bench.with_(fields=(Field("email", identifier=True, required=True), Field("phone", identifier=True)))
    assert whys(bench) == {"1": None, "2": "identifier email is empty", "3": "every identifier is empty"}


def test_a_required_field_that_is_null_makes_a_row_invalid(bench: Bench) -> None:
    bench.mapping["fields"] = [{"to": "name", "from": "name"}]
    bench.with_(fields=(Field("email", identifier=True), Field("name", required=True)))
    table(bench, "1 AS id, 'a@x' AS email, NULL AS name", "2, 'b@x', 'Ben'")
    assert whys(bench) == {"1": "field name is empty", "2": None}


# --- fingerprints ---------------------------------------------------------------------------------------------


def test_only_mapped_columns_count(bench: Bench) -> None:
    bench.mapping["fields"] = [{"to": "city", "from": "city"}]
    table(bench, "1 AS id, 'a@x' AS email, 'Rome' AS city, 1 AS noise")
    bench.deliver(bench.plan())
    table(bench, "1 AS id, 'a@x' AS email, 'Rome' AS city, 2 AS noise")
    assert bench.difference().nothing_to_do


@pytest.mark.parametrize(
    "field",
    [
        {"to": "town", "from": "city"},
        {"to": "city", "from": "city", "transform": ["upper"]},
        {"to": "city", "expr": "city || '!'"},
        {"to": "city", "value": "Oslo"},
        {"to": "city", "value": None},
    ],
)
def test_another_mapping_of_a_field_updates_everybody(bench: Bench, field: dict[str, Any]) -> None:
    bench.mapping["fields"] = [{"to": "city", "from": "city"}]
    table(bench, "1 AS id, 'a@x' AS email, 'Rome' AS city")
    bench.deliver(bench.plan())
    bench.mapping["fields"] = [field]
    assert bench.difference().diff.update == 1


def test_constants_arrive_as_they_were_written(bench: Bench) -> None:
    constants = {"text": "it's", "number": -1.5, "yes": True, "no": False, "none": None, "big": 2**70, "zero": 0}
    bench.mapping["fields"] = [{"to": name, "value": value} for name, value in constants.items()]
    table(bench, "1 AS id, 'a@x' AS email")
    (change,) = bench.changes(bench.plan())
    assert {k: v for k, v in change.fields.items() if k != "big"} == {
        k: v for k, v in constants.items() if k != "big"
    }
    assert int(change.fields["big"]) == 2**70


def test_names_of_columns_and_fields_may_be_anything(bench: Bench) -> None:
    names = ["first name", 'we"ird', "it's", "select", "Größe", "a.b", "id.email", "why", "key", "{x}", "newest"]
    bench.mapping["fields"] = [{"to": name, "from": name} for name in names]
    quoted = ", ".join("'{}' AS \"{}\"".format(n.replace("'", "''"), n.replace('"', '""')) for n in names)
    table(bench, f"1 AS id, 'a@x' AS email, {quoted}")
    plan = bench.plan()
    (change,) = bench.changes(plan)
    assert dict(change.fields) == {name: name for name in names}
    with bench.file(plan) as file:
        ((row, length),) = file.lengths(0, 0)
    assert (row, length > 100) == (0, True)
    bench.deliver(plan)
    assert bench.difference().nothing_to_do


def test_columns_are_found_whatever_their_case(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "email", "from": "EMAIL"}]
    bench.cohort["source"] = {**bench.cohort["source"], "key": "ID"}
    table(bench, "1 AS id, 'a@x' AS Email")
    assert bench.plan().counts.add == 1


# --- what is refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "code", "message"),
    [
        ({"to": "c", "from": "citty"}, "HG212", "no column 'citty'"),
        ({"to": "c", "expr": "upper(citty)"}, "HG212", "no column 'citty'"),
        ({"to": "c", "expr": "(SELECT 1)"}, "HG124", "not allowed"),
        ({"to": "c", "from": "city", "transform": [{"round": 2}]}, "HG213", "a mapped expression failed"),
        ({"to": "c", "from": "city", "transform": ["shout"]}, "HG122", "unknown transform"),
    ],
)
def test_a_mapping_that_does_not_fit_the_table_sends_nothing(
    bench: Bench, field: dict[str, Any], code: str, message: str
) -> None:
    bench.mapping["fields"] = [field]
    table(bench, "1 AS id, 'a@x' AS email, 'Rome' AS city")
    with pytest.raises(CohortError, match=message) as caught:
        bench.plan()
    assert caught.value.code == code
    assert caught.value.fix or code == "HG213"


def test_a_value_that_does_not_fit_its_cast_is_told_without_the_value(bench: Bench) -> None:
    from sync.errors import SourceError

    bench.mapping["fields"] = [{"to": "c", "expr": "CAST(city AS INTEGER)"}]
    table(bench, "1 AS id, 'a@x' AS email, 'secret-town' AS city")
    with pytest.raises(SourceError) as caught:
        bench.plan()
    assert caught.value.code == "HG215"
    assert "secret-town" not in caught.value.message


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("TIMESTAMPTZ '2020-01-01 02:00:00+02'", 1577836800.0),
        ("'2020-01-01'", 1577836800.0),
        ("5", None),
        ("'x'", None),
    ],
)
def test_the_newest_row_is_found_in_whatever_says_when(bench: Bench, sql: str, expected: float | None) -> None:
    bench.cohort["source"] = {**bench.cohort["source"], "updated_at": "at"}
    table(bench, f"1 AS id, 'a@x' AS email, {sql} AS at")
    assert bench.difference().seen.refresh.newest == expected


def test_problems_are_told_with_their_place_before_any_warehouse_is_asked(bench: Bench) -> None:
    bench.mapping["identifiers"] = [{"to": "email", "from": "email", "transform": ["trimm"]}]
    bench.mapping["fields"] = [{"to": "c", "expr": "sum(x)"}, {"to": "d", "from": "citi"}]
    job = bench.job
    spec = ObjectSpec("contact", "C", frozenset(Op), open_fields=True)
    offline = [(where, code) for where, code, _, _ in problems(job.sync, job.cohort, None, spec)]
    assert offline == [(("identifiers", 0, "transform", 0), "HG121"), (("fields", 0, "expr"), "HG124")]
    columns = [Column("id", "INTEGER"), Column("email", "VARCHAR"), Column("city", "VARCHAR")]
    online = list(problems(job.sync, job.cohort, columns, spec))
    assert (online[-1][0], online[-1][1], "city" in online[-1][3]) == (("fields", 1, "from"), "HG212", True)
    fixes = [fix for _, code, _, fix in online if code == "HG121"]
    assert fixes == ["did you mean 'trim'?"]


def test_the_probe_tells_hash_functions_apart() -> None:
    (answer,) = duckdb.connect().execute(PROBE).fetchall()[0]
    assert len(answer.split(",")) == 2


def test_keys_made_by_another_hash_function_are_made_again_and_everybody_is_held(bench: Bench) -> None:
    bench.mapping["fields"] = [{"to": "city", "from": "city"}]
    table(bench, "1 AS id, 'a@x' AS email, 'Rome' AS city", "2, 'b@x', 'Oslo'")
    bench.deliver(bench.plan())
    lease = bench.lease()
    now = bench.generation
    bench.ledger.reset(lease, replace(now, number=now.number + 1, probe="another function"))
    bench.ledger.release(lease)
    table(bench, "1 AS id, 'a@x' AS email, 'Kiel' AS city", "2, 'b@x', 'Oslo'")
    plan = bench.plan()
    assert [v.guardrail for v in plan.verdicts] == ["fingerprint_function"]
    assert (plan.counts.add, plan.counts.remove) == (0, 0)
