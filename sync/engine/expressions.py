"""Scalar SQL expressions in mappings, held to a white-list: no subqueries, tables, files, settings or clocks."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

import sqlglot
from sqlglot import exp
from sqlglot.errors import ErrorLevel, SqlglotError, UnsupportedError

from sync.engine.columns import BadExpression, spelled

__all__ = ["columns_of", "to_sql"]


_SYNTAX = (
    "Column Identifier Literal Boolean Null Paren Var DataType DataTypeParam Case If Cast TryCast "
    "Interval Not Neg And Or EQ NEQ GT GTE LT LTE Is In Between Like ILike Add Sub Mul Div IntDiv "
    "Mod DPipe Bracket Tuple NullSafeEQ NullSafeNEQ Distinct JSONPath JSONPathRoot JSONPathKey "
    "JSONPathSubscript Escape"
)
_FUNCTIONS = (
    "Abs Ceil Floor Round Sign Sqrt Exp Ln Log Pow Greatest Least Coalesce Nullif Lower Upper Trim "
    "Length Left Right Substring Replace Concat ConcatWs SplitPart Split RegexpReplace RegexpExtract "
    "RegexpLike RegexpFullMatch StartsWith EndsWith Contains Pad Reverse Repeat StrPosition Initcap "
    "MD5 SHA2 DateDiff DateAdd DateSub DateTrunc TimestampTrunc Extract Year Month Day DayOfWeek "
    "DayOfMonth DayOfYear Week Quarter TimeToStr StrToTime TimeToUnix UnixToTime LastDay "
    "TsOrDsToDate Date JSONExtract JSONExtractScalar ArraySize ArrayContains ArrayToString Unicode "
    "Chr Translate Hex Unhex ToBase64"
)
_ALLOWED = frozenset((_SYNTAX + " " + _FUNCTIONS).split())
_BY_NAME = frozenset(
    {"strip_accents", "regexp_matches", "ends_with", "suffix", "prefix", "ltrim", "rtrim", "lpad"}
)
_WORD = re.compile(r"\w+")
_LONGEST = 10_000
_UNSTABLE = frozenset({"Rand", "CurrentDate", "CurrentTimestamp", "CurrentTime", "Uuid", "now", "today", "random"})


def _parse(text: str) -> exp.Expr:
    try:
        statements = sqlglot.parse(text, read="duckdb")
    except RecursionError:
        raise BadExpression("the expression is nested too deeply", code="HG123") from None
    except SqlglotError as error:
        raise BadExpression(
            f"the expression cannot be read: {_where(error)}",
            code="HG123",
            fix="write one scalar SQL expression, such as round(ltv_cents / 100, 2)",
        ) from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Expr):
        raise BadExpression("the expression must be one scalar SQL expression", code="HG123")
    return statements[0]


def _where(error: SqlglotError) -> str:
    first = (getattr(error, "errors", None) or [{}])[0]
    column = first.get("col")
    description = str(first.get("description") or "unexpected text").rstrip(".")
    return f"{description} at character {column}" if column else description


def _check(node: exp.Expr) -> None:
    name = type(node).__name__
    _check_words(node)
    _check_size(node)
    called = node.name.lower() if isinstance(node, exp.Anonymous) else name
    if called in _UNSTABLE:
        raise BadExpression(
            f"`{called.lower()}` gives another answer each time, so every member would change at every run",
            fix="compute it in the warehouse, or use the cohort's updated_at column",
        )
    if isinstance(node, exp.Anonymous):
        if called not in _BY_NAME:
            near = difflib.get_close_matches(called, sorted(_BY_NAME | {n.lower() for n in _FUNCTIONS.split()}), 1)
            raise BadExpression(
                f"function `{called}` is not allowed in expressions",
                fix=f"did you mean `{near[0]}`?" if near else "compute it in the warehouse instead",
            )
        return
    if isinstance(node, exp.Column) and len(node.parts) != 1:
        raise BadExpression(f"`{node.sql('duckdb')}`: name a column without its table")
    if name not in _ALLOWED:
        raise BadExpression(
            f"`{_title(node)}` is not allowed in expressions",
            fix="expressions are scalar: columns, constants, operators, CASE and plain functions",
        )


def _check_words(node: exp.Expr) -> None:
    """What sqlglot writes as it stands, without quotes: type names, parts of dates. SQL could hide in them."""
    if isinstance(node, exp.DataType) and (node.this is exp.DType.USERDEFINED or node.args.get("kind")):
        raise BadExpression("a cast to a type that is not DuckDB's own is not allowed in expressions")
    if isinstance(node, exp.Var) and not _WORD.fullmatch(node.name):
        raise BadExpression(f"`{node.name}` is not allowed in expressions", fix="write a plain word, such as year")


def _check_size(node: exp.Expr) -> None:
    """How long a text may be made: DuckDB makes it outside of its memory limit, all of it, before it fails."""
    if type(node).__name__ not in ("Pad", "Repeat"):
        return
    count = node.args.get("expression" if isinstance(node, exp.Pad) else "times")
    if not isinstance(count, exp.Literal) or count.is_string or not count.name.isdigit():
        raise BadExpression(f"`{_title(node)}` needs its length as a whole number, not as an expression")
    if len(count.name) > 6 or int(count.name) > _LONGEST:
        raise BadExpression(f"`{_title(node)}` would make a text of more than {_LONGEST:,} characters or copies")


def _title(node: exp.Expr) -> str:
    if isinstance(node, exp.AggFunc):
        return f"the aggregate {node.sql_name().lower()}"
    if isinstance(node, exp.Func):
        return node.sql_name().lower()
    return {"Select": "a subquery", "Subquery": "a subquery", "Star": "*"}.get(
        type(node).__name__, type(node).__name__.lower()
    )


def columns_of(text: str) -> list[str]:
    """The columns an expression reads, in order of appearance. Raises `BadExpression`."""
    tree = _parse(text)
    for node in tree.walk():
        _check(node)
    return list(dict.fromkeys(column.name for column in tree.find_all(exp.Column, bfs=False)))


def to_sql(text: str, columns: Sequence[str]) -> str:
    """The expression as DuckDB SQL with every column quoted as the source spells it. Raises `BadExpression`."""
    tree = _parse(text)
    for node in list(tree.walk()):
        _check(node)
        if isinstance(node, exp.Column):
            node.this.replace(exp.to_identifier(spelled(node.name, columns), quoted=True))
    try:
        return f"({tree.sql('duckdb', comments=False, unsupported_level=ErrorLevel.RAISE)})"
    except UnsupportedError as error:
        raise BadExpression(f"the expression is not DuckDB's SQL: {error}") from None
