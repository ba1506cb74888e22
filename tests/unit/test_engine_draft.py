"""A first plan is written down once, and a plan of few changes looks at few rows; both are what they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.engine.observe import Observed, observe
from sync.engine.plan import Frozen, freeze
from sync.engine.planner import permitted
from sync.engine.scratch import scratch
from sync.sdk.nouns import Delivery
from sync.state.parquet import key_of
from tests.engine_bench import Bench

ANN, BOB, CAT = ("1", "ann@x", "Rome"), ("2", "bob@x", "Oslo"), ("3", "cat@x", None)

TYPES = {
    "int": "7",
    "huge": "170141183460469231731687303715884105727 // 1000",
    "decimal": "1.50::DECIMAL(18, 2)",
    "double": "0.1",
    "time": "TIMESTAMP '2024-02-29 12:00:00.123456'",
    "zoned": "'2024-02-29 12:00:00.123456+05'::TIMESTAMPTZ",
    "seconds": "TIMESTAMP_S '2024-02-29 12:00:00'",
    "nanos": "TIMESTAMP_NS '2024-02-29 12:00:00.123456789'",
    "day": "DATE '2024-02-29'",
    "clock": "TIME '12:00:01.5'",
    "bytes": "'\\x00\\xFF'::BLOB",
    "uuid": "'6f1c4b0e-7f2d-4c55-9b64-0d1c3a1b2c3d'::UUID",
    "mood": "'ok'::ENUM('ok', 'ko')",
    "json": """'{"a": [1, null]}'::JSON""",
    "list": "[1, 2, NULL]",
    "struct": "{'a': 1, 'b': [{'c': 'x'}]}",
    "bits": "'0101'::BIT",
    "span": "INTERVAL 3 DAY",
}


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@contextmanager
def compared(bench: Bench) -> Iterator[Observed]:
    """Both sides observed, and `changes` filled."""
    with observe(bench.ledger, bench.settings, bench.job, "test") as seen:
        yield bench.planner().difference(seen).seen


def frozen(bench: Bench, seen: Observed, **shortcuts: Any) -> Frozen:
    job = bench.job
    sides = seen.cohort, seen.members
    ops = permitted(job)
    return freeze(seen.connection, bench.settings, job, seen.compiled, *sides, ops, seen.refresh, **shortcuts)


def content(bench: Bench, frozen: Frozen) -> tuple[list[Any], list[Any]]:
    """Columns with their types, and rows."""
    file = f"read_parquet('{bench.settings.folder / frozen.file}')"
    with duckdb.connect() as connection:
        columns = [row[:2] for row in connection.execute(f"DESCRIBE SELECT * FROM {file}").fetchall()]
        return columns, connection.execute(f"SELECT * FROM {file} ORDER BY row").fetchall()


def of_many_types(bench: Bench) -> None:
    values = ", ".join(f"{sql} AS {name}" for name, sql in TYPES.items())
    nulls = ", ".join("NULL" for _ in TYPES)
    bench.warehouse(
        f"CREATE TABLE people AS SELECT '1' AS id, 'ann@x' AS email, {values}",
        f"INSERT INTO people VALUES ('2', 'bob@x', {nulls})",
    )
    bench.mapping["fields"] = [{"to": name, "from": name} for name in TYPES]


def test_a_draft_is_the_plan_that_would_be_made_without_it(bench: Bench) -> None:
    of_many_types(bench)

    with compared(bench) as seen:
        short = frozen(bench, seen, draft=seen.draft)
        over = frozen(bench, seen)
        whole = frozen(bench, replace(seen, cohort=seen.compiled.digested))

    assert short.counts == over.counts == whole.counts == {"add": 2}
    assert content(bench, short) == content(bench, over) == content(bench, whole)


@pytest.mark.parametrize(
    "people",
    [
        [("9", "", "Rome"), ANN, ("8", None, "Kiel"), BOB],
        [ANN, ("9", "ann@x", "Kiel"), BOB],
    ],
    ids=["not fit to be sent", "two with one identifier"],
)
def test_what_is_no_draft_is_made_from_it(bench: Bench, people: list[Any]) -> None:
    bench.people(people)

    with compared(bench) as seen:
        short = frozen(bench, seen, draft=seen.draft)
        mapped = seen.compiled.digested
        whole = frozen(bench, replace(seen, cohort=mapped) if seen.draft else seen)

    assert content(bench, short) == content(bench, whole)
    assert short.counts.get("invalid", 0) == seen.refresh.invalid


def test_a_snapshot_is_drafted_too(bench: Bench) -> None:
    bench.with_(delivery=Delivery.SNAPSHOT)
    bench.people([ANN, BOB, CAT])
    assert [row["op"] for row in bench.rows(bench.plan())] == ["add", "add", "add"]


def test_the_newest_row_of_a_draft_is_known(bench: Bench) -> None:
    bench.warehouse(
        "CREATE TABLE people AS SELECT '1' AS id, 'ann@x' AS email, 'Rome' AS city, "
        "'2024-02-29 12:00:00+02'::TIMESTAMPTZ AS seen",
        "INSERT INTO people VALUES ('2', 'bob@x', 'Oslo', 'infinity'), ('3', 'cat@x', 'Kiel', NULL)",
    )
    bench.cohort["source"] = {**bench.cohort["source"], "updated_at": "seen"}
    assert bench.difference().seen.refresh.newest == 1709200800.0


def test_a_draft_is_encrypted_where_files_are_and_is_gone_with_its_observation(bench: Bench) -> None:
    bench.settings = replace(bench.settings, keys=(b"k" * 32,))
    bench.people([ANN, BOB])

    with compared(bench) as seen:
        made = frozen(bench, seen, draft=seen.draft)
        assert seen.draft is not None
        draft_key = key_of(seen.draft)

    assert draft_key is not None
    assert key_of(bench.settings.folder / made.file) == draft_key
    assert not list(scratch(bench.settings).iterdir())
    assert oct((bench.settings.folder / made.file).stat().st_mode)[-3:] == "600"


def test_only_changed_rows_are_mapped_again_for_a_plan_of_few_changes(bench: Bench) -> None:
    people = [(str(i), f"p{i}@x", "Rome") for i in range(100)]
    bench.synced(people)
    bench.people([*people[2:], ("1", "p1@x", "Kiel"), ("new", "new@x", None), ("x", "", "Rome")])

    with compared(bench) as seen:
        looked_at = seen.connection.execute(f"SELECT source_key FROM ({seen.few}) ORDER BY 1").fetchall()
        short = frozen(bench, seen, few=seen.few)
        whole = frozen(bench, seen)

    assert looked_at == [("1",), ("new",)]
    assert short.counts == {"add": 1, "update": 1, "remove": 1, "invalid": 1}
    assert content(bench, short) == content(bench, whole)


def test_few_changes_among_rows_with_one_identifier_are_told_apart(bench: Bench) -> None:
    people = [(str(i), f"p{i}@x", "Rome") for i in range(20)]
    bench.synced(people)
    bench.people([*people[:-1], ("19", "p19@x", "Kiel"), ("20", "p19@x", "Oslo")])

    plan = bench.plan()

    told = [(row["op"], row["source_key"], row["field.city"]) for row in bench.rows(plan)]
    assert told == [("update", "19", "Kiel"), ("invalid", "20", "Oslo")]
