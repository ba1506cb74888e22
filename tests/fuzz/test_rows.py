"""Cohort rows: every type and every name; what is delivered is what the row says, or the row is called invalid."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.command import Answer, Project
from tests.fuzz.hook import Hook, hooked
from tests.fuzz.values import TYPES, is_told, python_value, sendable, values


def quoted(name: str) -> str:
    """A name as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


@dataclass
class Bench:
    """A project whose destination is a webhook that listens."""

    project: Project
    hook: Hook

    def build(
        self, table: str, fields: Sequence[tuple[str, str]], identifier: str = "id", key: str = "id"
    ) -> None:
        """Write the files for a table; `fields` are (destination's name, column)."""
        source = {"connection": "warehouse", "table": quoted(table), "key": key}
        sync = {
            "name": "hook",
            "destination": "hook",
            "mode": "mirror",
            "identifiers": [{"to": "id", "from": identifier}],
            "fields": [{"to": to, "from": column} for to, column in fields],
        }
        mapping = {"version": 1, "cohort": {"name": "c", "source": source}, "syncs": [sync]}
        self.project.mapping = json.dumps(mapping)
        self.project.config = (
            '[sources.warehouse]\ntype = "duckdb"\npath = "warehouse.duckdb"\n'
            f'[destinations.hook]\ntype = "webhook"\nurl = "{self.hook.url}"\n'
            '[engine]\nthreads = 1\nmemory_limit = "256MB"\n[guardrails]\nmax_bad_keys = 0\n'
        )
        self.project.write()
        self.hook.forget()

    def run(self) -> tuple[Answer, dict[str, Any]]:
        """Run it; what it says of the only sync."""
        answer = self.project.headgate("run", "--first-run", "--json")
        (sync,) = answer.json["syncs"]
        return answer, sync


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with hooked() as hook:
        yield Bench(Project(tmp_path_factory.mktemp("rows") / "p"), hook)


def _create(table: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> list[str]:
    made = ", ".join(f"{quoted(name)} {type_}" for name, type_ in columns)
    lines = ", ".join(f"({', '.join(row)})" for row in rows)
    statements = [f"CREATE TABLE {quoted(table)} ({made})"]
    return [*statements, f"INSERT INTO {quoted(table)} VALUES {lines}"] if rows else statements


@st.composite
def _tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    types = draw(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=8))
    return types, [[draw(values(type_)) for type_ in types] for _ in range(draw(st.integers(1, 6)))]


def _every_type() -> tuple[list[str], list[list[str]]]:
    """A column of each type; first a row of nulls, which no neighbour may be hurt by."""
    types = sorted(TYPES)
    return types, [["NULL"] * len(types)]


def _stored(bench: Bench, types: Sequence[str]) -> dict[int, list[tuple[Any, str | None]]]:
    """What the warehouse holds: id -> (value where it is asked for, text) of each column."""
    asked = []
    for index, type_ in enumerate(types):
        asked += [f"c{index}" if python_value(type_) else "NULL", f"c{index}::VARCHAR"]
    with duckdb.connect(str(bench.project.root / "warehouse.duckdb"), config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        rows = connection.execute(f"SELECT id, {', '.join(asked)} FROM t").fetchall()
    return {row[0]: list(zip(row[1::2], row[2::2], strict=True)) for row in rows}


@given(_tables())
@example(_every_type())
@examples(15)
def test_what_is_delivered_is_what_the_row_says(
    bench: Bench, figures: Figures, table: tuple[list[str], list[list[str]]]
) -> None:
    types, rows = table
    names = [f"c{index}" for index in range(len(types))]
    bench.build("t", [(name, name) for name in names])
    columns = [("id", "INTEGER"), *zip(names, types, strict=True)]
    bench.project.sql(*_create("t", columns, [[str(i), *row] for i, row in enumerate(rows)]))
    stored = _stored(bench, types)
    good = {i for i, row in stored.items() if all(sendable(t, v) for t, (v, _) in zip(types, row, strict=True))}

    answer, sync = bench.run()

    figures.add("rows fuzzed", len(rows))
    figures.add("values fuzzed", len(rows) * len(types))
    assert answer.code == (0 if len(good) == len(rows) else 4), answer
    assert (sync["applied"], sync["invalid"]) == (len(good), len(rows) - len(good))
    sent = {record["id"]: record for record in bench.hook.records()}
    assert set(sent) == good, "a bad record never fails its neighbours"
    for i in good:
        for name, type_, (value, text) in zip(names, types, stored[i], strict=True):
            assert is_told(type_, value, text, sent[i][name]), (type_, value, text, sent[i][name])
    bench.hook.forget()
    again, after = bench.run()
    assert (again.code, bench.hook.bodies) == (answer.code, []), "an unchanged cohort costs no request"
    assert after["unchanged"] == len(good)


_IDENTIFIERS = sorted(set(TYPES) - {"BOOLEAN"})


@given(st.sampled_from(_IDENTIFIERS), st.data())
@examples(10)
def test_an_identifier_of_any_type_is_planned_or_refused_and_known_again(
    bench: Bench, figures: Figures, type_: str, data: st.DataObject
) -> None:
    rows = data.draw(st.lists(values(type_), min_size=1, max_size=4, unique=True))
    bench.build("t", [("n", "id")], identifier="who")
    bench.project.sql(
        *_create("t", [("id", "INTEGER"), ("who", type_)], [[str(i), v] for i, v in enumerate(rows)])
    )

    answer, sync = bench.run()

    figures.add("rows fuzzed", len(rows))
    assert answer.code in (0, 4), answer
    assert sync["applied"] + sync["invalid"] == len(rows)
    bench.hook.forget()
    assert bench.run()[0].code == answer.code
    assert bench.hook.bodies == []
    bench.project.sql("DELETE FROM t")
    emptied = bench.project.headgate("plan", "--json")
    assert emptied.code in (0, 3)
    assert emptied.json["syncs"][0]["remove"] == sync["applied"]


@given(st.sampled_from(sorted(TYPES)), st.data())
@examples(10)
def test_a_key_of_any_type_null_or_twice_is_refused_and_nothing_is_sent(
    bench: Bench, figures: Figures, type_: str, data: st.DataObject
) -> None:
    keys = data.draw(st.lists(values(type_), min_size=1, max_size=3))
    bench.build("t", [("n", "n")], identifier="n", key="k")
    rows = [[key, str(i)] for i, key in enumerate(keys)]
    bench.project.sql(*_create("t", [("k", type_), ("n", "INTEGER")], rows))
    with duckdb.connect(str(bench.project.root / "warehouse.duckdb")) as connection:
        (fit,) = connection.execute("SELECT count(DISTINCT k::VARCHAR) = count(*) FROM t").fetchall()[0]

    answer, sync = bench.run()

    figures.add("rows fuzzed", len(rows))
    if fit:
        assert (answer.code, sync["applied"]) == (0, len(rows)), answer
    else:
        assert answer.code == 1
        assert answer.codes & {"HG211"}
        assert bench.hook.bodies == []


# --- names ----------------------------------------------------------------------------------------------------

_NAMES = st.sampled_from(
    [
        "select",
        "a b",
        'a"b',
        "a'b",
        "a;b",
        "a.b",
        "a\nb",
        "a\tb",
        "--",
        "/*",
        '"; DROP TABLE t; --',
        "é",
        "e\u0301",
        "😀",
        "\u202ea",
        "%s{0}",
        "$1",
        "?",
        "*",
        "id.x",
        "field.x",
        "row",
        "op",
        "key",
        "why",
        "fingerprint",
        "source_key",
        "newest",
        "nulls",
        "rowid",
        "x" * 200,
        "\x1f",
        "[/b]",
        "count(*)",
    ]
) | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@given(_NAMES, st.lists(_NAMES, min_size=1, max_size=5, unique_by=lambda n: n.lower()))
@example("t", ["op", "key", "why", "row", "newest", "source_key"])
@examples(15)
def test_tables_columns_and_fields_may_have_any_name(
    bench: Bench, figures: Figures, table: str, names: list[str]
) -> None:
    names = [n for n in names if n.lower() != "id" and not n.startswith("\ufeff")]
    bench.build(table, [(name, name) for name in names])
    columns = [("id", "INTEGER"), *((name, "VARCHAR") for name in names)]
    try:
        bench.project.sql(*_create(table, columns, [["1", *(f"'v{i}'" for i in range(len(names)))]]))
    except duckdb.Error:  # DuckDB itself does not take them
        return
    figures.add("names fuzzed", len(names) + 1)

    answer, sync = bench.run()

    assert answer.code == 0, (answer, sync)
    (record,) = bench.hook.records()
    assert record == {"id": 1, **{name: f"v{i}" for i, name in enumerate(names)}}


# --- sizes ----------------------------------------------------------------------------------------------------


def test_ten_thousand_columns_of_which_three_are_mapped(bench: Bench) -> None:
    bench.build("wide", [("a", "c1"), ("b", "c5000"), ("z", "c9999")])
    bench.project.sql("CREATE TABLE wide AS SELECT 7 AS id, " + ", ".join(f"{i} AS c{i}" for i in range(10_000)))
    assert bench.run()[0].code == 0
    assert bench.hook.records() == [{"id": 7, "a": 1, "b": 5000, "z": 9999}]


def test_a_thousand_columns_that_are_all_mapped(bench: Bench) -> None:
    bench.build("wide", [(f"f{i}", f"c{i}") for i in range(1_000)])
    bench.project.sql("CREATE TABLE wide AS SELECT 7 AS id, " + ", ".join(f"{i} AS c{i}" for i in range(1_000)))
    assert bench.run()[0].code == 0
    assert bench.hook.records() == [{"id": 7, **{f"f{i}": i for i in range(1_000)}}]


def test_texts_of_a_megabyte(bench: Bench) -> None:
    bench.build("t", [("text", "text")])
    bench.project.sql(
        "CREATE TABLE t AS SELECT i AS id, repeat(chr((128512 + i)::INTEGER), 250000) AS text FROM range(8) r(i)"
    )
    assert bench.run()[0].code == 0
    assert {r["id"]: r["text"] for r in bench.hook.records()} == {i: chr(128512 + i) * 250_000 for i in range(8)}


def test_no_field_is_mapped(bench: Bench) -> None:
    bench.build("t", [])
    bench.project.sql("CREATE TABLE t AS SELECT 1 AS id")
    assert bench.run()[0].code == 0
    assert bench.hook.records() == [{"id": 1}]


def test_an_empty_table_sends_nothing(bench: Bench) -> None:
    bench.build("t", [("n", "n")])
    bench.project.sql("CREATE TABLE t (id INTEGER, n VARCHAR)")
    answer, _ = bench.run()
    assert answer.code in (0, 3)
    assert bench.hook.bodies == []


def test_what_a_destination_says_cannot_command_the_terminal_or_the_table(bench: Bench) -> None:
    bench.build("t", [("n", "id")])
    bench.project.sql("CREATE TABLE t AS SELECT 1 AS id")
    bench.hook.answers.append(json.dumps({"errors": [{"message": "\x1b[2J[/red][bold]\u202e no"}]}).encode())
    assert bench.run()[0].code == 4
    shown = bench.project.headgate("rejected", "list", "hook")
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out
