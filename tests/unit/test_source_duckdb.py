"""A DuckDB file as a source: attached read-only, its names resolved, its errors told in plain words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.errors import SourceError
from sync.sources import open_source, option_models
from sync.sources.base import Column, Relation, Source
from sync.sources.queries import qualify, split_name

SETUP = """
CREATE SCHEMA marts;
CREATE TABLE marts.vip AS SELECT range AS user_id, 'p' || range || '@acme.example' AS email, 'AU' AS "Country"
    FROM range(10);
CREATE TABLE people (id INTEGER, name VARCHAR);
INSERT INTO people VALUES (1, 'Ann'), (2, 'Bob');
CREATE VIEW adults AS SELECT * FROM marts.vip WHERE user_id > 4;
CREATE VIEW warehouse_view AS FROM warehouse.marts.vip;
CREATE TABLE "odd.na""me x" (a INTEGER);
CREATE SCHEMA "Mixed";
CREATE TABLE "Mixed"."Case" (a INTEGER);
"""


def write(path: Path, sql: str) -> None:
    connection = duckdb.connect(str(path))
    try:
        connection.execute(sql)
    finally:
        connection.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "warehouse.duckdb", SETUP)
    return tmp_path


@pytest.fixture
def source(root: Path) -> Source:
    return open_source("warehouse", {"type": "duckdb", "path": "warehouse.duckdb"}, root)


@contextmanager
def engine() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(":memory:")
    try:
        yield connection
    finally:
        connection.close()


def lock_down(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def rows(source: Source, relation: Relation, columns: list[str], select: str = "*") -> list[Any]:
    with engine() as connection, source.stage(connection, relation, columns, Path()) as staged:
        lock_down(connection)
        return connection.execute(f"SELECT {select} FROM {staged.sql} ORDER BY ALL").fetchall()


def refused(source: Source, relation: Relation) -> SourceError:
    with pytest.raises(SourceError) as caught:
        source.columns(relation)
    return caught.value


def test_check_says_what_it_is_connected_to(source: Source) -> None:
    assert source.check() == f"DuckDB {duckdb.__version__}, warehouse.duckdb: 6 tables and views"


def test_columns_have_duckdb_types(source: Source) -> None:
    assert source.columns(Relation(table="marts.vip")) == (
        Column("user_id", "BIGINT"),
        Column("email", "VARCHAR"),
        Column("Country", "VARCHAR"),
    )


def test_tables_are_listed_as_mappings_write_them(source: Source) -> None:
    assert list(source.tables()) == [
        "Mixed.Case",
        "adults",
        '"odd.na""me x"',
        "people",
        "warehouse_view",
        "marts.vip",
    ]


def test_every_listed_table_can_be_read(source: Source) -> None:
    for table in source.tables():
        assert source.columns(Relation(table=table))


@pytest.mark.parametrize(
    "table",
    ["marts.vip", "MARTS.Vip", "warehouse.marts.vip", 'marts."vip"', '"marts"."vip"'],
)
def test_a_table_is_found_however_it_is_written(source: Source, table: str) -> None:
    assert len(rows(source, Relation(table=table), ["user_id"])) == 10


@pytest.mark.parametrize("table", ['odd.na"me x', '"odd.na""me x"', "mixed.case", "warehouse.people"])
def test_odd_names_are_found(source: Source, table: str) -> None:
    assert source.columns(Relation(table=table))


@pytest.mark.parametrize("view", ["adults", "warehouse_view"])
def test_views_are_read_like_tables(source: Source, view: str) -> None:
    assert rows(source, Relation(table=view), ["user_id"], "count(*) > 4") == [(True,)]


def test_staged_rows_can_be_read_twice_and_columns_are_those_asked_for(source: Source) -> None:
    with engine() as connection:
        relation = Relation(table="marts.vip")
        with source.stage(connection, relation, ["email", "COUNTRY"], Path()) as staged:
            lock_down(connection)
            counts = [connection.execute(f"SELECT count(*) FROM {staged.sql}").fetchall() for _ in range(2)]

    assert counts == [[(10,)], [(10,)]]
    assert staged.columns == (Column("email", "VARCHAR"), Column("Country", "VARCHAR"))


def test_nothing_stays_attached(source: Source) -> None:
    with engine() as connection:
        with source.stage(connection, Relation(table="people"), ["id"], Path()):
            lock_down(connection)
        names = connection.execute("SELECT database_name FROM duckdb_databases() WHERE NOT internal").fetchall()

    assert names == [("memory",)]


def test_the_warehouse_cannot_be_written(source: Source) -> None:
    relation = Relation(table="people")
    with (
        engine() as connection,
        source.stage(connection, relation, ["id"], Path()) as staged,
        pytest.raises(duckdb.Error, match="read-only"),
    ):
        connection.execute(f"DELETE FROM {staged.sql}")


def test_two_syncs_may_stage_the_same_file_on_one_connection(source: Source) -> None:
    with (
        engine() as connection,
        source.stage(connection, Relation(table="people"), ["id"], Path()) as one,
        source.stage(connection, Relation(query="SELECT * FROM people"), ["id"], Path()) as other,
    ):
        lock_down(connection)
        found = connection.execute(f"SELECT count(*) FROM {one.sql} JOIN {other.sql} USING (id)").fetchall()

    assert found == [(2,)]


# --- queries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("SELECT * FROM people", [(1, "Ann"), (2, "Bob")]),
        ("FROM people;", [(1, "Ann"), (2, "Bob")]),
        ("SELECT id FROM people -- all of them", [(1,), (2,)]),
        ("WITH people AS (SELECT * FROM people WHERE id = 2) SELECT name FROM people", [("Bob",)]),
        (
            "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 3) FROM n",
            [(1,), (2,), (3,)],
        ),
        ("SELECT count(*) FROM marts.vip v JOIN people p ON v.user_id = p.id", [(2,)]),
        ("SELECT count(*) FROM warehouse.marts.vip", [(10,)]),
        ("SELECT count(*) FROM warehouse.people", [(2,)]),
        ("SELECT 'é' AS \"tést\", (SELECT max(id) FROM people) FROM people LIMIT 1", [("é", 2)]),
        ("SELECT name FROM people WHERE id IN (FROM adults SELECT user_id - 3)", [("Bob",)]),
        ("SELECT 1 UNION ALL SELECT id FROM PEOPLE WHERE EXISTS (FROM marts.vip)", [(1,), (1,), (2,)]),
        ("SELECT user_id FROM adults QUALIFY row_number() OVER (ORDER BY user_id) = 1", [(5,)]),
        ("SELECT x.range FROM range(2) x, people WHERE id = 1", [(0,), (1,)]),
        ("PIVOT (SELECT id, name FROM people) ON name USING count(*) GROUP BY id", None),
    ],
)
def test_a_query_reads_the_warehouse_as_its_own(source: Source, query: str, expected: list[Any] | None) -> None:
    if expected is None:
        assert refused(source, Relation(query=query)).code == "HG204"
    else:
        assert rows(source, Relation(query=query), []) == expected


def test_a_query_is_the_same_where_the_files_own_name_is_taken(source: Source) -> None:
    with engine() as connection:
        connection.execute("ATTACH ':memory:' AS warehouse")
        relation = Relation(query="SELECT count(*) FROM warehouse.marts.vip, people, warehouse.people")
        with source.stage(connection, relation, [], Path()) as staged:
            assert connection.execute(f"FROM {staged.sql}").fetchall() == [(40,)]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM people",
        "SELECT 1; SELECT 2",
        "SELECT 1; DROP TABLE people",
        "ATTACH 'x.db'",
        "COPY people TO 'people.csv'",
        "INSERT INTO people VALUES (3, 'Cy') RETURNING id",
        "SELECT FROM WHERE (",
        "",
    ],
)
def test_only_a_single_select_is_a_query(source: Source, query: str) -> None:
    error = refused(source, Relation(query=query))

    assert error.code == "HG204"
    assert "SELECT" in error.fix


@pytest.mark.parametrize("query", ["FROM read_csv('{file}')", "FROM '{file}'", "FROM glob('{folder}/*')"])
def test_a_query_reads_no_file_unless_its_folder_is_listed(root: Path, source: Source, query: str) -> None:
    folder = root / "extracts"
    folder.mkdir()
    (folder / "people.csv").write_text("id\n7\n")
    relation = Relation(query=query.format(file=folder / "people.csv", folder=folder))

    error = refused(source, relation)
    options = {"type": "duckdb", "path": "warehouse.duckdb", "directories": ["extracts"]}
    allowed = open_source("warehouse", options, root)

    assert error.code == "HG204"
    assert "directories" in error.fix
    assert len(rows(allowed, relation, [])) == 1


def test_qualify_changes_nothing_but_table_names() -> None:
    query = "SELECT a.b /* of t */, 't' FROM t AS a, s.t, own.s.t, own.t, 'f.csv', range(3) WHERE a.b = 't'"

    assert qualify(query, "c", "own") == (
        'SELECT a.b /* of t */, \'t\' FROM "c"."main".t AS a, "c".s.t, "c".s.t, "c"."main".t, \'f.csv\', range(3)'
        " WHERE a.b = 't'"
    )


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("a", ["a"]),
        ("a.b", ["a", "b"]),
        ('"a.b".c', ["a.b", "c"]),
        ('a."b""c"', ["a", 'b"c']),
        ('a"b', ['a"b']),
        ("a..b", ["a..b"]),
        ("a b.c-d", ["a b", "c-d"]),
    ],
)
def test_names_are_split_at_dots_outside_quotes(name: str, parts: list[str]) -> None:
    assert [part for part, _ in split_name(name)] == parts


# --- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "fix"),
    [
        ("marts.vipp", "did you mean 'marts.vip'?"),
        ("vip", "did you mean 'marts.vip'?"),
        ("mart.vip", "did you mean 'marts.vip'?"),
        ("qqqqqq", "it has Mixed.Case, adults"),
    ],
)
def test_a_missing_table_is_named_with_the_nearest(source: Source, table: str, fix: str) -> None:
    error = refused(source, Relation(table=table))

    assert error.code == "HG202"
    assert f"'{table}'" in error.message
    assert error.fix.startswith(fix)


def test_a_missing_table_in_a_query_is_named(source: Source) -> None:
    error = refused(source, Relation(query="SELECT * FROM nowhere"))

    assert error.code == "HG202"
    assert "nowhere" in error.message


def test_a_missing_column_is_named_with_the_nearest(source: Source) -> None:
    with pytest.raises(SourceError, match="no column 'emial'") as caught:
        rows(source, Relation(table="marts.vip"), ["emial"])

    assert caught.value.code == "HG212"
    assert caught.value.fix == "did you mean 'email'?"


def opened(root: Path, path: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_source("warehouse", {"type": "duckdb", "path": path}, root).check()
    assert caught.value.message.startswith("source warehouse: ")
    return caught.value


def test_a_missing_file_is_named_with_the_nearest(root: Path) -> None:
    error = opened(root, "warehuose.duckdb")

    assert error.code == "HG201"
    assert error.fix == "did you mean 'warehouse.duckdb'?"


def test_a_missing_file_is_not_made(root: Path) -> None:
    opened(root, "new.duckdb")

    assert not (root / "new.duckdb").exists()


@pytest.mark.parametrize("content", [b"", b"id,name\n1,Ann\n" * 100])
def test_a_file_of_another_kind_is_named(root: Path, content: bytes) -> None:
    (root / "x.duckdb").write_bytes(content)

    assert "is not a DuckDB database" in opened(root, "x.duckdb").message


def test_a_database_of_another_kind_is_not_opened_by_an_extension(root: Path) -> None:
    import sqlite3

    connection = sqlite3.connect(root / "x.db")
    connection.execute("CREATE TABLE t (a)")
    connection.commit()
    connection.close()

    assert "is not a DuckDB database" in opened(root, "x.db").message


def test_a_damaged_file_is_named(root: Path) -> None:
    content = bytearray((root / "warehouse.duckdb").read_bytes())
    content[20] ^= 255
    (root / "x.duckdb").write_bytes(content)

    assert "is damaged" in opened(root, "x.duckdb").message


def test_a_folder_is_no_database(root: Path) -> None:
    assert "is a folder" in opened(root, ".").message


WRITER = """
import sys, duckdb
connection = duckdb.connect(sys.argv[1])
connection.execute("CREATE OR REPLACE TABLE scratch (a INTEGER)")
print("writing", flush=True)
sys.stdin.read()
"""


def test_a_file_open_for_writing_elsewhere_is_told_with_the_process(root: Path, source: Source) -> None:
    command = [sys.executable, "-c", WRITER, str(root / "warehouse.duckdb")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        with pytest.raises(SourceError) as checked:
            source.check()
        with pytest.raises(SourceError) as staged:
            rows(source, Relation(table="people"), ["id"])
        writer.communicate()

    assert checked.value.code == staged.value.code == "HG203"
    assert f"process {writer.pid} (python" in checked.value.message
    assert source.check()


def test_no_other_process_writes_while_rows_are_read(root: Path, source: Source) -> None:
    command = [sys.executable, "-c", WRITER, str(root / "warehouse.duckdb")]
    with engine() as connection, source.stage(connection, Relation(table="people"), ["id"], Path()):
        source.check()  # another connection to the file is opened and closed by this process
        writer = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    after = subprocess.run(command, input="", capture_output=True, text=True, check=False)

    assert "Conflicting lock" in writer.stderr
    assert after.stdout == "writing\n"


def test_a_writer_in_this_process_is_noticed(root: Path, source: Source) -> None:
    writer = duckdb.connect(str(root / "warehouse.duckdb"))
    try:
        with pytest.raises(SourceError, match="this very process"):
            rows(source, Relation(table="people"), ["id"])
    finally:
        writer.close()


@pytest.mark.parametrize("path", [":memory:", "s3://bucket/x.duckdb"])
def test_a_warehouse_is_a_file(root: Path, path: str) -> None:
    with pytest.raises(SourceError, match=r"path: .*file on this machine"):
        open_source("warehouse", {"type": "duckdb", "path": path}, root)


def test_unknown_types_and_options_are_named(root: Path) -> None:
    with pytest.raises(SourceError, match="no type 'oracle'"):
        open_source("warehouse", {"type": "oracle"}, root)
    with pytest.raises(SourceError, match="pth: Extra inputs"):
        open_source("warehouse", {"type": "duckdb", "path": "x", "pth": "y"}, root)


def test_option_models_are_had_without_any_driver() -> None:
    code = (
        "import sys; from sync.sources import option_models; option_models();"
        "heavy = ('duckdb', 'adbc_driver_manager', 'snowflake.connector', 'pyarrow', 'sqlglot'); "
        "print([m for m in heavy if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
    assert set(option_models()) == {"duckdb", "postgres", "snowflake"}


def test_the_version_moves_with_the_file_and_with_nothing_else(source: Source, root: Path) -> None:
    where = Relation("marts.vip")
    before = source.version(where)
    rows(source, where, [])

    assert before.mark
    assert source.version(where) == before
    write(root / "warehouse.duckdb", "INSERT INTO marts.vip VALUES (11, 'x', 'NZ')")
    assert source.version(where) != before


def test_the_version_moves_with_what_is_committed_and_not_yet_in_the_file(source: Source, root: Path) -> None:
    where = Relation("marts.vip")
    before = source.version(where)
    writing = duckdb.connect(str(root / "warehouse.duckdb"))
    writing.execute("SET checkpoint_threshold = '1GB'; INSERT INTO marts.vip VALUES (11, 'x', 'NZ')")
    changed = source.version(where)
    writing.close()

    assert changed != before


def test_of_a_database_whose_views_read_other_files_it_says_that_it_cannot_tell(root: Path) -> None:
    source = open_source("w", {"type": "duckdb", "path": "warehouse.duckdb", "directories": ["data"]}, root)

    assert "outside of it" in source.version(Relation("marts.vip")).untold


def test_a_file_that_is_not_there_has_no_version(tmp_path: Path) -> None:
    source = open_source("w", {"type": "duckdb", "path": "nothing.duckdb"}, tmp_path)

    with pytest.raises(SourceError) as caught:
        source.version(Relation("vip"))
    assert caught.value.code == "HG201"
