"""Expressions: scalar SQL gets through and means what DuckDB means by it; nothing else gets through."""

from __future__ import annotations

import json
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sync.engine.columns import BadExpression
from sync.engine.expressions import columns_of, to_sql

COLUMNS = ["a", "b", "n", "d", "select", "first name", 'we"ird', "Größe", "tags"]
ROW = (
    "SELECT ' Ann Lee ' AS a, 'x,y' AS b, 1250 AS n, DATE '2024-02-29' AS d, 's' AS \"select\", "
    "'f' AS \"first name\", 'w' AS \"we\"\"ird\", 'g' AS \"Größe\", ['p', 'q'] AS tags"
)


@pytest.fixture(scope="module")
def db() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


GOOD = [
    "a",
    "A",
    '"first name"',
    '"we""ird"',
    '"select"',
    "größe",
    "round(n / 100, 2)",
    "n // 7 + n % 7 - -n * 2",
    "n ** 2",
    "a || '-' || b",
    "concat(a, NULL, b)",
    "concat_ws('/', a, b)",
    "trim(lower(a))",
    "ltrim(a)",
    "CASE WHEN n > 1000 THEN 'gold' ELSE 'new' END",
    "CASE n WHEN 1 THEN 2 END",
    "if(n > 5, a, b)",
    "coalesce(NULL, a)",
    "ifnull(a, b)",
    "nullif(a, b)",
    "a IS NULL OR NOT (n BETWEEN 1 AND 5)",
    "b IN ('x,y', 'z')",
    "a LIKE ' A%'",
    "a ILIKE ' a%' ESCAPE '$'",
    "regexp_replace(a, '[^a-z]', '', 'g')",
    "regexp_extract(a, 'A(n+)', 1)",
    "regexp_matches(a, 'Lee')",
    "a ~ '.*Lee.*'",
    "split_part(b, ',', 2)",
    "string_split(b, ',')",
    "string_split(b, ',')[1]",
    "left(a, 3) || right(a, 3)",
    "substr(a, 2, 3)",
    "lpad(n::VARCHAR, 8, '0')",
    "rpad(b, 5, '.')",
    "reverse(b)",
    "repeat(b, 2)",
    "replace(a, 'Ann', 'Bob')",
    "strip_accents('é')",
    "position('e' in a)",
    "instr(a, 'e')",
    "contains(a, 'Ann')",
    "starts_with(a, ' A')",
    "ends_with(a, 'x')",
    "length(a)",
    "md5(a)",
    "sha256(a)",
    "to_base64(a::BLOB)",
    "hex(b)",
    "date_trunc('month', d)",
    "date_diff('day', d, DATE '2024-03-01')",
    "extract(year FROM d)",
    "year(d)",
    "dayofweek(d)",
    "d + 1",
    "d - INTERVAL 1 MONTH",
    "d + INTERVAL '3' DAY",
    "strftime(d, '%d.%m.%Y')",
    "strptime('2024', '%Y')",
    "last_day(d)",
    "epoch(d)",
    "to_timestamp(n)",
    "n::DECIMAL(10, 2)",
    "TRY_CAST(a AS INTEGER)",
    "CAST(n AS HUGEINT)",
    "greatest(n, 3)",
    "least(n, 3)",
    "abs(-n)",
    "ceil(n / 7)",
    "floor(n / 7)",
    "sqrt(n)",
    "ln(n)",
    "log(n)",
    "log10(n)",
    "exp(1)",
    "sign(n)",
    "pow(n, 2)",
    "a IS DISTINCT FROM b",
    "list_contains(tags, 'p')",
    "array_to_string(tags, '+')",
    "len(tags)",
    "'{\"k\": 1}'::JSON -> '$.k'",
    "'{\"k\": \"v\"}'::JSON ->> 'k'",
    "1e3",
    ".5",
    "1_000",
    "'it''s'",
    "TRUE",
    "NULL",
    "a -- a remark",
    "/* why */ n + 1",
    "chr(65)",
    "unicode('A')",
    "translate(b, 'x', 'z')",
]


@pytest.mark.parametrize("text", GOOD)
def test_an_expression_means_what_duckdb_means_by_it(db: duckdb.DuckDBPyConnection, text: str) -> None:
    said = db.execute(f"SELECT {text}\n FROM ({ROW})").fetchall()
    assert db.execute(f"SELECT {to_sql(text, COLUMNS)} FROM ({ROW})").fetchall() == said


BAD = [
    "(SELECT 1)",
    "a IN (SELECT a FROM t)",
    "EXISTS (SELECT 1)",
    "a = ANY (SELECT 1)",
    "SELECT 1",
    "FROM t",
    "VALUES (1)",
    "a UNION SELECT b",
    "a; b",
    "a; DROP TABLE t",
    "DROP TABLE t",
    "ATTACH 'x.db'",
    "COPY t TO 'f'",
    "SET threads = 1",
    "PRAGMA version",
    "CALL f()",
    "INSTALL httpfs",
    "LOAD httpfs",
    "EXPORT DATABASE 'x'",
    "read_text('/etc/passwd')",
    "read_csv('f')",
    "read_parquet('f')",
    "glob('*')",
    "getenv('HOME')",
    "current_setting('threads')",
    "getvariable('x')",
    "query('SELECT 1')",
    "query_table('t')",
    "unnest([1])",
    "range(3)",
    "generate_series(1, 2)",
    "now()",
    "today()",
    "current_date",
    "CURRENT_TIMESTAMP",
    "localtimestamp",
    "random()",
    "uuid()",
    "gen_random_uuid()",
    "get_current_timestamp()",
    "transaction_timestamp()",
    "txid_current()",
    "nextval('s')",
    "current_user",
    "version()",
    "sum(n)",
    "count(*)",
    "max(n)",
    "string_agg(a, ',')",
    "row_number() OVER ()",
    "sum(n) OVER (PARTITION BY a)",
    "lag(a) OVER ()",
    "*",
    "COLUMNS(*)",
    "COLUMNS('a')",
    "t.a",
    "main.t.a",
    "$1",
    "?",
    "$name",
    "a AS b",
    "a, b",
    "rowid",
    "missing",
    "list_transform(tags, x -> x)",
    "[x FOR x IN tags]",
    "getattr",
    "error('x')",
    "sleep(1)",
    "write_log('x')",
    'a::"no type"',
    'extract("year FROM d) || (SELECT 1" FROM d)',
    'date_diff("x y", d, d)',
    "a COLLATE NOCASE",
    "",
    " ",
    "-- nothing",
    "a +",
    "((a)",
    "'open",
    '"open',
    "`a`",
    "a[",
    "levenshtein(a, b)",
    "lpad(a, n, 'x')",
    "rpad(a, 2000000000, 'x')",
    "repeat(a, 1000000)",
    "repeat(a, 100 * n)",
    'INTERVAL 1 "day) x"',
    'CAST(a AS STRUCT("x y" INT))',
    'a::MAP(INT, "z z")',
    "(" * 3000 + "a" + ")" * 3000,
]


@pytest.mark.parametrize("text", BAD, ids=lambda t: t[:40])
def test_what_is_not_scalar_sql_is_refused(text: str) -> None:
    with pytest.raises(BadExpression):
        to_sql(text, COLUMNS)


@pytest.mark.parametrize(
    ("text", "code", "message", "fix"),
    [
        ("reg_replace(a)", "HG124", "`reg_replace`", "did you mean"),
        ("frist_name", "HG212", "no column 'frist_name'", "did you mean 'first name'"),
        ("zzz", "HG212", "no column 'zzz'", "it has a, b"),
        ("now()", "HG124", "another answer each time", "warehouse"),
        ("sum(n)", "HG124", "the aggregate sum", "scalar"),
        ("a +", "HG123", "cannot be read", "write one scalar"),
        ("t.a", "HG124", "without its table", ""),
    ],
)
def test_a_refusal_says_what_and_how_to_mend_it(text: str, code: str, message: str, fix: str) -> None:
    with pytest.raises(BadExpression, match=message) as caught:
        to_sql(text, COLUMNS)
    assert (caught.value.code, fix in caught.value.fix) == (code, True)


def test_columns_are_told_in_order_and_once() -> None:
    assert columns_of('b || a || "first name" || b') == ["b", "a", "first name"]


# --- everything DuckDB knows ----------------------------------------------------------------------------------


def test_no_function_of_duckdb_that_is_not_pure_and_scalar_gets_through(db: duckdb.DuckDBPyConnection) -> None:
    """Each function by each spelling: those with side effects, answers that vary, files, tables, aggregates."""
    kinds_and_stability = "list(DISTINCT function_type), list(DISTINCT stability)"
    query = f"SELECT function_name, {kinds_and_stability} FROM duckdb_functions() GROUP BY 1"
    through, impure = [], []
    for name, kinds, stability in db.execute(query).fetchall():
        if not name.isidentifier():
            continue
        for call in (f"{name}()", f"{name}(a)", f"{name}(a, b)", f"{name}(a, b, n)"):
            try:
                to_sql(call, COLUMNS)
            except BadExpression:
                continue
            through.append(name)
            if set(kinds) - {"scalar", "macro"} or set(stability) - {"CONSISTENT", None}:
                impure.append((call, kinds, stability))
    assert impure == []
    assert len(set(through)) > 60, "the white-list is still of use"


def _nodes(tree: Any) -> Any:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


_FORBIDDEN = {"SUBQUERY", "STAR", "WINDOW", "PARAMETER", "DEFAULT", "POSITIONAL_REFERENCE"}
_CALLS = {
    "now",
    "random",
    "getenv",
    "read_text",
    "read_csv",
    "current_setting",
    "today",
    "uuid",
    "query",
    "count",
    "sum",
}
_ATOMS = [
    "a",
    "n",
    "d",
    "'x'",
    "1",
    '"first name"',
    '"we""ird"',
    "NULL",
    "(SELECT 1)",
    "SELECT",
    "FROM t",
    ")",
    "(",
    ",",
    ";",
    "--",
    "/*",
    "*/",
    "::",
    '"INT) || (SELECT 1) || CAST(1 AS INT"',
    '"year FROM d) || (SELECT 1"',
    "extract",
    "cast",
    "AS",
    "INTEGER",
    "interval",
    "date_trunc",
    "date_diff",
    "coalesce",
    "now",
    "random",
    "getenv",
    "read_text",
    "IN",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "->",
    "->>",
    "'$.x'",
    "[",
    "]",
    "{",
    "}",
    ":",
    "||",
    "+",
    "*",
    ".",
    "x'41'",
    "$$",
    "E'\\''",
    "'",
    '"',
    "\\",
    "unnest",
    "OVER",
    "EXISTS",
    "count",
    "sum",
    "a.b",
    "lambda",
    "year",
    "TRY_CAST",
    "MAP",
    "STRUCT",
    "ENUM",
    "DECIMAL",
    "t",
    "\n",
    "\x00",
    "\u00a0",
]


@given(st.lists(st.one_of(st.sampled_from(_ATOMS), st.text(max_size=3)), min_size=1, max_size=10).map(" ".join))
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@example("a::\"INT) || (SELECT 1) || CAST('1' AS wow\"")
@example('extract("year FROM d) || (SELECT 1" FROM d)')
@example("a -> '$.\"x'' || (SELECT 1) || ''\"'")
def test_nothing_but_scalar_sql_gets_through(text: str) -> None:
    """DuckDB's own parser is the judge of what was let through."""
    try:
        sql = to_sql(text, COLUMNS)
    except BadExpression:
        return
    statement = f"SELECT {sql}"
    tree = json.loads(DB.execute("SELECT json_serialize_sql(?::VARCHAR)", [statement]).fetchall()[0][0])
    if tree["error"]:  # DuckDB refuses it as well, before anything is read
        return
    assert len(tree["statements"]) == 1
    (select,) = tree["statements"][0]["node"]["select_list"]
    for node in _nodes(select):
        assert node.get("class") not in _FORBIDDEN, sql
        assert node.get("function_name") not in _CALLS, sql
        if node.get("class") == "COLUMN_REF":
            assert len(node["column_names"]) == 1
            assert node["column_names"][0] in COLUMNS, sql


DB = duckdb.connect()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_a_column_may_have_any_name(name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    sql = to_sql(f"upper({quoted})", [name])
    assert DB.execute(f"SELECT {sql} FROM (SELECT 'v' AS {quoted})").fetchall() == [("V",)]
