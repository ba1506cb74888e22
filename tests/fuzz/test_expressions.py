"""Names and expressions cannot leave the row: the white-list refuses, and behind it DuckDB refuses.

Each attack is tried twice: as written in a mapping, where it is refused with a code; and compiled past the
white-list, where the locked-down DuckDB must still reach no file outside the state folder, no network, no
setting, no second statement and no secret.
"""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sync.engine import expressions
from sync.engine.columns import BadExpression
from sync.engine.database import identifier, lock_down, open_database
from sync.engine.expressions import to_sql
from sync.engine.job import EngineSettings
from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.command import MAPPING, Project

CANARY = "canary-4711-secret"
COLUMNS = ["id", "email", "name", "score", "phone", "seen"]

# {file}: a file outside the state folder, {new}: one that is not there, {url}: a server that listens.
ATTACKS = [
    "read_text('{file}')",
    "(SELECT content FROM read_text('{file}'))",
    "(SELECT * FROM '{file}')",
    "(FROM read_csv('{file}'))",
    "(SELECT a FROM read_csv_auto('{file}') t(a))",
    "(SELECT list(x) FROM read_json('{file}') t(x))",
    "(SELECT list(x) FROM read_parquet('{file}') t(x))",
    "(SELECT content::VARCHAR FROM read_blob('{file}'))",
    "(SELECT list(file) FROM glob('{folder}/*'))",
    "(SELECT content FROM read_text('{url}'))",
    "(SELECT list(a) FROM read_csv('{url}') t(a))",
    "(SELECT list(a) FROM sniff_csv('{file}') t(a))",
    "name); COPY (SELECT 1) TO '{new}'; --",
    "name; COPY (SELECT 1) TO '{new}'",
    "name FROM people; COPY people TO '{new}'; SELECT 1",
    "name; ATTACH '{new}' AS x",
    "name; ATTACH '{file}' AS x",
    "name; EXPORT DATABASE '{new}'",
    "name; INSTALL httpfs; LOAD httpfs",
    "name; SET enable_external_access = true",
    "name; SET lock_configuration = false",
    "name; RESET lock_configuration",
    "name; PRAGMA enable_profiling",
    "name; SET profiling_output = '{new}'",
    "name; SET log_query_path = '{new}'",
    "name; SET temp_directory = '{folder}'",
    "name; SET allowed_directories = ['/']",
    "name; SET GLOBAL memory_limit = '900GB'",
    "name; CREATE MACRO f() AS (SELECT 1)",
    "name; CREATE SECRET s (TYPE s3, KEY_ID 'x', SECRET 'y')",
    "name; CALL pragma_version()",
    "name; CHECKPOINT",
    "name; VACUUM",
    "name; DROP TABLE people",
    "name; DELETE FROM people",
    "name; PREPARE p AS SELECT 1",
    "name; EXECUTE p",
    "name; IMPORT DATABASE '{folder}'",
    "name; DETACH warehouse",
    "name; USE system",
    "getenv('{variable}')",
    "getvariable('x')",
    "current_setting('temp_directory')",
    "current_setting('secret_directory')",
    "(SELECT list(value) FROM duckdb_settings())",
    "(SELECT list(secret_string) FROM duckdb_secrets())",
    "(SELECT list(path) FROM duckdb_databases())",
    "(SELECT list(sql) FROM duckdb_tables())",
    "(SELECT list(sql) FROM sqlite_master)",
    "(SELECT list(table_name) FROM information_schema.tables)",
    "(SELECT list(relname) FROM pg_catalog.pg_class)",
    "(SELECT list(x) FROM query('SELECT 1') t(x))",
    "(SELECT list(x) FROM query_table('people') t(x))",
    "(SELECT list(message) FROM duckdb_logs())",
    "(SELECT string_agg(email) FROM people)",
    "(SELECT email FROM people LIMIT 1)",
    "EXISTS (SELECT 1 FROM people)",
    "id IN (SELECT id FROM people)",
    "id = ANY (SELECT id FROM people)",
    "(WITH x AS (SELECT 1 AS a) SELECT a FROM x)",
    "(VALUES (1))",
    "(TABLE people)",
    "(FROM people SELECT email)",
    "(PIVOT people ON id USING count(*))",
    "(SUMMARIZE people)",
    "(DESCRIBE people)",
    "(SHOW TABLES)",
    "unnest([1, 2])",
    "generate_series(1, 100)",
    "count(*)",
    "sum(id) OVER ()",
    "list_transform([1], lambda x: x)",
    "list_reduce([1], lambda x, y: x)",
    "[x FOR x IN [1]]",
    "COLUMNS(*)",
    "COLUMNS('.*')",
    "*",
    "people",
    "people.email",
    "main.people.email",
    "warehouse.main.people.email",
    "rowid",
    "$1",
    "?",
    "$name",
    "nextval('s')",
    "currval('s')",
    "random()",
    "now()",
    "uuid()",
    "current_user",
    "current_schema()",
    "current_database()",
    "current_query()",
    "version()",
    "pg_typeof(1)",
    "error('{variable}')",
    "write_log('x')",
    "json_execute_serialized_sql('x')",
    "json_serialize_sql('SELECT 1')",
    "from_json_strict('[1]', '[\"INT\"]')",
    "parse_path('{file}')",
    "file_exists('{file}')",
    "read_duckdb('{file}')",
    "checkpoint()",
    "force_checkpoint()",
    "enable_logging()",
    "set_config('threads', '1')",
    "add_parquet_key('k', '0123456789112345')",
    "getattr",
    "hash(name)",
    "encode(name)",
    "create_sort_key(name, 'ASC')",
    "sleep_ms(1)",
    "test_all_types()",
    "repeat_row(1, num_rows := 10)",
    "range(10)",
    "extract(\"year FROM seen) || (SELECT content FROM read_text('{file}')) || extract(year\" FROM seen)",
    "date_trunc(\"x') || (SELECT 1) || date_trunc('year\", seen)",
    'INTERVAL 1 "day) || (SELECT 1"',
    'CAST(name AS STRUCT("x) || (SELECT 1) || (" INT))',
    "CAST(name AS ENUM (SELECT email FROM people))",
    'name COLLATE "x) || (SELECT 1"',
    "'x' || $$ || (SELECT 1) || $$",
    "E'\\' || (SELECT 1) || \\''",
    "x'41' || (SELECT 1)",
    "name /* */ || /* ; */ (SELECT 1) --",
    "name -- \n || (SELECT content FROM read_text('{file}'))",
    "name\u00a0||(SELECT\u00a01)",
    "name || ( SELECT\u20281)",
    "CASE WHEN true THEN (SELECT 1) END",
    "coalesce((SELECT 1), 2)",
    "try((SELECT 1))",
    "struct_pack(a := (SELECT 1))",
    "{{'a': (SELECT 1)}}",
    "MAP {{'a': (SELECT 1)}}",
    "[1, (SELECT 1)]",
    "name || (name IN (FROM people))",
    "name AT TIME ZONE (SELECT 'UTC')",
    "name SIMILAR TO (SELECT 'x')",
    "name BETWEEN (SELECT 'a') AND 'z'",
    "array(SELECT email FROM people)",
    "id OPERATOR(main.+) 1",
    "id::main.people",
    "nullif(email, getenv('{variable}'))",
    "getenv ('{variable}')",
    "\"getenv\"('{variable}')",
    "main.getenv('{variable}')",
    "system.main.getenv('{variable}')",
    "'{variable}'.getenv()",
    "name.read_text()",
    "'{file}'.read_text()",
    "lower(name).query()",
    "SELECT content FROM read_text('{file}')",
    "FROM read_text('{file}')",
    "1 UNION ALL SELECT content FROM read_text('{file}')",
    "1) FROM people UNION ALL SELECT (content FROM read_text('{file}')",
]


class _Counting(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 1
        self.send_response(200)
        self.end_headers()
        self.wfile.write(CANARY.encode())

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What must not be reached: a file, a folder, a server, a variable."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "secret.txt").write_text(CANARY)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["FUZZ_CANARY"] = CANARY
    yield {
        "file": str(folder / "secret.txt"),
        "folder": str(folder),
        "new": str(folder / "new.file"),
        "url": f"http://127.0.0.1:{server.server_port}/secret.txt",
        "variable": "FUZZ_CANARY",
    }
    del os.environ["FUZZ_CANARY"]
    server.shutdown()
    server.server_close()


def _untouched(outside: dict[str, str]) -> None:
    assert sorted(p.name for p in Path(outside["folder"]).iterdir()) == ["secret.txt"]
    assert Path(outside["file"]).read_text() == CANARY
    assert _Counting.requests == 0


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: ascii(a)[:50])
def test_the_white_list_refuses_an_attack(outside: dict[str, str], figures: Figures, attack: str) -> None:
    figures.add("attacks by expression")
    text = attack.format(**outside)
    with pytest.raises(BadExpression) as refused:
        to_sql(text, COLUMNS)
    assert refused.value.code in ("HG123", "HG124", "HG212")


# --- past the white-list --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The engine's DuckDB as it is while a cohort is read, with a table in it."""
    settings = EngineSettings(tmp_path_factory.mktemp("state"), threads=1)
    connection = open_database(settings)
    connection.execute(
        "CREATE TABLE people AS SELECT 1 AS id, 'a@x.example' AS email, 'Ann' AS name, 2.5 AS score, "
        "'0412' AS phone, TIMESTAMP '2026-01-01' AS seen"
    )
    connection.execute("USE memory")
    lock_down(connection)
    yield connection
    connection.close()


def _settings(connection: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Every setting, and what is attached."""
    attached = connection.execute("SELECT 'attached ' || database_name, path FROM duckdb_databases()").fetchall()
    return dict(attached + connection.execute("SELECT name, value FROM duckdb_settings()").fetchall())


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: ascii(a)[:50])
def test_duckdb_refuses_what_gets_past_the_white_list(
    locked: duckdb.DuckDBPyConnection, outside: dict[str, str], attack: str
) -> None:
    before = _settings(locked)
    text = attack.format(**outside)
    for statement in (f"SELECT {text} FROM people", f"SELECT ({text}) FROM people LIMIT 5", text):
        try:
            said = repr(locked.execute(statement).fetchmany(5))
        except duckdb.Error as error:
            said = str(error).replace(statement, "")
        assert CANARY not in said, statement
        locked.execute("DROP MACRO IF EXISTS f")
        locked.execute("CREATE TABLE IF NOT EXISTS people AS SELECT 1 AS id")
        locked.execute("USE memory")
    after = _settings(locked)
    assert {name: value for name, value in after.items() if before.get(name) != value} == {}
    assert set(after) == set(before)
    _untouched(outside)


PAST = [a for a in ATTACKS if "{file}" in a or "{url}" in a or "{variable}" in a or "{new}" in a]


@pytest.mark.parametrize("attack", PAST, ids=lambda a: ascii(a)[:50])
def test_a_run_past_the_white_list_fails_with_a_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: dict[str, str], attack: str
) -> None:
    """The compiled SQL as it is run, were the white-list gone: nothing of the outside gets into a plan."""
    monkeypatch.setattr(expressions, "to_sql", lambda text, columns: f"({text})")
    monkeypatch.setattr(expressions, "columns_of", lambda text: ["name"])
    text = attack.format(**outside).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    mapping = MAPPING.replace('"round(score / 100, 2)"', f'"{text}"')
    project = Project(tmp_path / "p", mapping=mapping).write().people()

    answer = project.headgate("run", "--first-run", "--json")

    assert CANARY not in answer.out + answer.err
    assert answer.code in (0, 1)
    delivered = b"".join(path.read_bytes() for path in (project.root / "out").iterdir())
    assert CANARY.encode() not in delivered
    assert project.sql("SELECT count(*) FROM people")
    _untouched(outside)


# --- a grammar ------------------------------------------------------------------------------------------------

_LEAVES = st.sampled_from(
    ["name", "id", "score", '"email"', "'x'", "'it''s'", "1", "2.5", "NULL", "TRUE", "seen", "DATE '2024-01-01'"]
)
_EVIL = st.sampled_from(
    [
        "(SELECT email FROM people)",
        "read_text('/etc/passwd')",
        "getenv('FUZZ_CANARY')",
        "current_setting('threads')",
        "count(*)",
        "now()",
        "random()",
        "people.email",
        "$1",
        "unnest([1])",
        "query('SELECT 1')",
        "(FROM people)",
        "EXISTS (SELECT 1)",
        "row_number() OVER ()",
        "COLUMNS(*)",
        "list_transform([1], lambda x: x)",
    ]
)
_FRAMES = [
    "({})",
    "lower({})",
    "coalesce({}, 'x')",
    "CASE WHEN id > 1 THEN {} ELSE NULL END",
    "CASE {} WHEN 1 THEN 2 END",
    "name || {}",
    "-{}",
    "NOT {}",
    "{} IS NULL",
    "{} IN (1, 2)",
    "1 IN (2, {})",
    "{} BETWEEN 1 AND 2",
    "CAST({} AS VARCHAR)",
    "TRY_CAST({} AS INTEGER)",
    "{}::DOUBLE",
    "[1, {}][1]",
    "substr(name, {})",
    "concat({}, {})",
    "date_trunc('month', {})",
    "date_diff('day', seen, {})",
    "extract(year FROM {})",
    "if({}, 1, 2)",
    "{} LIKE 'x%'",
    "regexp_replace({}, 'a', 'b')",
    "greatest(1, {})",
    "round({}, 2)",
    "'{{}}'::JSON -> {}",
    "seen + INTERVAL ({}) DAY",
    "nullif({}, 1)",
    "split_part({}, ',', 1)",
    "strftime(seen, {})",
    "/* x */ {} -- y\n",
]


def _framed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(lambda frame, x, y: frame.format(x, y), st.sampled_from(_FRAMES), inner, inner)


@given(st.data(), st.recursive(_LEAVES, _framed, max_leaves=6), _EVIL)
@examples(250)
def test_evil_is_found_however_deep_it_is_hidden(
    figures: Figures, data: st.DataObject, harmless: str, evil: str
) -> None:
    figures.add("expressions tried")
    text = evil
    for _ in range(data.draw(st.integers(0, 4))):
        text = data.draw(st.sampled_from(_FRAMES)).format(text, harmless)
    with pytest.raises(BadExpression):
        to_sql(text, COLUMNS)


@given(st.recursive(_LEAVES, _framed, max_leaves=8))
@examples(300)
def test_what_the_grammar_makes_is_taken_and_means_the_same(
    locked: duckdb.DuckDBPyConnection, figures: Figures, text: str
) -> None:
    figures.add("expressions tried")
    meant = _said(locked, text + "\n")
    try:
        sql = to_sql(text, COLUMNS)
    except BadExpression:
        return
    assert meant in ("refused", _said(locked, sql)), text


def _said(connection: duckdb.DuckDBPyConnection, expression: str) -> Any:
    try:
        return repr(connection.execute(f"SELECT {expression} FROM people").fetchall())
    except duckdb.Error:
        return "refused"


# --- names ----------------------------------------------------------------------------------------------------


@given(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
    | st.sampled_from(
        ['"; DROP TABLE people; --', '" || (SELECT 1) || "', "a'b", "select", "x\ny", "a;b", "*", "$1"]
    )
)
@examples(60)
def test_a_name_stays_a_name(figures: Figures, name: str) -> None:
    figures.add("expressions tried")
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute(f"CREATE TABLE t AS SELECT 'v' AS {identifier(name)}")
        quoted = identifier(name)
        sql = to_sql(quoted, [name])
        assert connection.execute(f"SELECT {sql} FROM t").fetchall() == [("v",)]
