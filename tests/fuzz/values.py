"""Values of every DuckDB type as SQL, and what a destination must be told of them.

What is meant is worked out from DuckDB's own text and Python values, without the engine's SQL.
"""

from __future__ import annotations

import base64
import json
import math
from datetime import datetime
from decimal import Context, Decimal
from typing import Any

import duckdb
from hypothesis import strategies as st

__all__ = ["TEXTS", "TYPES", "is_told", "python_value", "sendable", "values"]

TEXTS = [
    "",
    " ",
    "0",
    "a\tb\nc\r",
    'it\'s "quoted"',
    "\\",
    "é",
    "e\u0301",
    "😀👩‍👩‍👧",
    "\U0010ffff",
    "\u200b\u202e\ufeff",
    "\u2028\u0085",
    "\x1b[31m\x07",
    "\x00",
    "null",
    "NaN",
    "=cmd|' /C calc'!A0",
    '{"a": [1]}',
    "<script>",
    "ﷺ",
    "\ufffd\uffff",
]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sampled(type_: str, *texts: str) -> st.SearchStrategy[str]:
    return st.sampled_from([f"{_quoted(t)}::{type_}" for t in texts])


def _whole(type_: str, low: int, high: int) -> st.SearchStrategy[str]:
    numbers = st.sampled_from([low, high, 0, 1]) | st.integers(low, high)
    return numbers.map(lambda n: f"'{n}'::{type_}")


def _decimal(width: int, scale: int) -> st.SearchStrategy[str]:
    most = 10**width - 1
    numbers = st.sampled_from([-most, most, 0, 1]) | st.integers(-most, most)
    return numbers.map(lambda n: f"'{Decimal(n).scaleb(-scale, _CONTEXT):f}'::DECIMAL({width}, {scale})")


_CONTEXT = Context(prec=60)
_TEXT = st.sampled_from(TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
_FLOATS = ["nan", "inf", "-inf", "-0.0", "0.0", "1.1", "1e308", "5e-324", "0.1", "1e15", "123456789.123456789"]
_STAMPS = [
    "infinity",
    "-infinity",
    "1970-01-01",
    "0001-01-01",
    "9999-12-31 23:59:59.999999",
    "2024-02-29 12:30:45.5",
]
_STAMPS += ["0044-03-15 (BC) 10:00:00", "290000-12-31 00:00:00", "1582-10-10"]

TYPES: dict[str, st.SearchStrategy[str]] = {
    "BOOLEAN": st.sampled_from(["true", "false"]),
    "TINYINT": _whole("TINYINT", -(2**7), 2**7 - 1),
    "SMALLINT": _whole("SMALLINT", -(2**15), 2**15 - 1),
    "INTEGER": _whole("INTEGER", -(2**31), 2**31 - 1),
    "BIGINT": _whole("BIGINT", -(2**63), 2**63 - 1),
    "HUGEINT": _whole("HUGEINT", -(2**127), 2**127 - 1),
    "UTINYINT": _whole("UTINYINT", 0, 2**8 - 1),
    "USMALLINT": _whole("USMALLINT", 0, 2**16 - 1),
    "UINTEGER": _whole("UINTEGER", 0, 2**32 - 1),
    "UBIGINT": _whole("UBIGINT", 0, 2**64 - 1),
    "UHUGEINT": _whole("UHUGEINT", 0, 2**128 - 1),
    "DECIMAL(4,1)": _decimal(4, 1),
    "DECIMAL(15,3)": _decimal(15, 3),
    "DECIMAL(18,0)": _decimal(18, 0),
    "DECIMAL(18,4)": _decimal(18, 4),
    "DECIMAL(38,0)": _decimal(38, 0),
    "DECIMAL(38,10)": _decimal(38, 10),
    "FLOAT": _sampled("FLOAT", *_FLOATS[:6], "3.4e38", "1e-45", "16777217"),
    "DOUBLE": _sampled("DOUBLE", *_FLOATS)
    | st.floats(allow_nan=False, allow_infinity=False).map(lambda x: f"'{x!r}'::DOUBLE"),
    "VARCHAR": _TEXT.map(lambda text: " || chr(0) || ".join(map(_quoted, text.split("\0"))).join("()")),
    "BLOB": st.binary(max_size=8).map(lambda raw: f"from_hex('{raw.hex()}')"),
    "BIT": _sampled("BIT", "0", "1", "10101", "0" * 70),
    "DATE": _sampled("DATE", "infinity", "-infinity", "0001-01-01", "9999-12-31", "2024-02-29", "0044-03-15 (BC)"),
    "TIME": _sampled("TIME", "00:00:00", "23:59:59.999999", "24:00:00", "12:30:45.5"),
    "TIME WITH TIME ZONE": _sampled("TIMETZ", "00:00:00+00", "23:59:59.999999+00"),
    "TIMESTAMP": _sampled("TIMESTAMP", *_STAMPS),
    "TIMESTAMP_S": _sampled("TIMESTAMP_S", *_STAMPS[2:6]),
    "TIMESTAMP_MS": _sampled("TIMESTAMP_MS", *_STAMPS[2:6]),
    "TIMESTAMP_NS": _sampled("TIMESTAMP_NS", "1970-01-01", "2024-02-29 12:30:45.123456789", "1700-01-01"),
    "TIMESTAMP WITH TIME ZONE": _sampled("TIMESTAMPTZ", *_STAMPS, "2024-02-29 12:30:45.5+05:30"),
    "INTERVAL": _sampled(
        "INTERVAL", "0 days", "1 month", "-3 months 2 days", "1 year 01:02:03.5", "100 hours", "-1 us"
    ),
    "UUID": _sampled("UUID", "00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
    "ENUM('a', 'é', '')": st.sampled_from(["'a'", "'é'", "''"]),
    "JSON": _sampled(
        "JSON", "null", "{}", "[]", '{"a": [1, 2.50, null, "é"]}', "1", '"x"', "12345678901234567890.5", "true"
    ),
    "INTEGER[]": st.sampled_from(["[]", "[1, NULL, 3]", "[NULL]"]),
    "VARCHAR[][]": st.sampled_from(["[['a'], [], NULL]", "[['it''s \"q\"', NULL]]"]),
    "INTEGER[3]": st.sampled_from(["[1, 2, 3]", "[1, NULL, 3]"]),
    'STRUCT(a INTEGER, "b c" VARCHAR)': st.sampled_from(["{'a': 1, 'b c': 'x'}", "{'a': NULL, 'b c': NULL}"]),
    "MAP(VARCHAR, INTEGER)": st.sampled_from(["MAP {}", "MAP {'k': 1, 'é': NULL}"]),
    "UNION(n INTEGER, t VARCHAR)": st.sampled_from(["union_value(n := 1)", "union_value(t := 'x')"]),
    "DOUBLE[]": st.sampled_from(["[1.5, NULL]", "['nan'::DOUBLE]", "[1, 'inf'::DOUBLE]"]),
    "TIMESTAMP[]": st.sampled_from(["[TIMESTAMP '2024-01-01 10:00:00', NULL]", "[]"]),
    'STRUCT("at" TIMESTAMP, raw BLOB)': st.sampled_from(
        ["{'at': TIMESTAMP '2024-01-01', 'raw': from_hex('00ff')}"]
    ),
}
"""Type -> SQL of values of it."""


def values(type_: str) -> st.SearchStrategy[str]:
    """SQL of a value of the type, cast to it; every fifth or so is null."""
    made = TYPES[type_].map(lambda sql: f"CAST({sql} AS {type_})")
    return st.one_of(made, made, made, made, st.just("NULL"))


def sendable(type_: str, value: Any) -> bool:
    """Has JSON a form for it: NaN, infinities and whole numbers of 39 digits have none."""
    if type_ in ("DOUBLE", "FLOAT"):
        return value is None or math.isfinite(value)
    if type_ == "DOUBLE[]":
        return value is None or all(x is None or math.isfinite(x) for x in value)
    return type_ != "HUGEINT" or value is None or abs(value) < 10**38


def python_value(type_: str) -> bool:
    """Is a value of the type told by its Python value; the others are told by DuckDB's text of them."""
    return not (type_ in _AS_TEXT or type_.startswith(("ENUM", "UNION", "JSON", "INTERVAL")) or _is_moment(type_))


def _is_moment(type_: str) -> bool:
    return type_.startswith("TIMESTAMP") and not type_.endswith("]")


def is_told(type_: str, value: Any, text: str | None, sent: Any) -> bool:
    """Does JSON say of a value what it is; `value` is DuckDB's in Python, `text` its cast to VARCHAR."""
    if text is None or sent is None:
        return sent is None and (text is None or text == "null")
    if type_ in ("DOUBLE", "FLOAT"):
        meant = value if type_ == "DOUBLE" else float(text)
        return float(sent) == meant and math.copysign(1, float(sent)) == math.copysign(1, meant)
    if type_.startswith("DECIMAL"):
        return not isinstance(sent, bool) and Decimal(str(sent)) == value
    if type_ == "INTERVAL":
        return _interval(sent) == text
    meant = _meant(type_, value, text)
    return bool(sent == meant) and isinstance(sent, bool) == isinstance(meant, bool)


def _meant(type_: str, value: Any, text: str) -> Any:
    if type_ == "JSON":
        return json.loads(text, parse_float=lambda digits: digits if len(digits) > 15 else Decimal(digits))
    if type_.startswith("UNION"):
        return {"n": int(text)} if text.isdigit() else {"t": text}
    if _is_moment(type_):
        text = text.replace(" ", "T")
        return text.removesuffix("+00") + "Z" if text.endswith("+00") else text
    return _plain(value) if python_value(type_) else text


def _plain(value: Any) -> Any:
    """A Python value as JSON has it."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return str(value).replace(" ", "T") if isinstance(value, datetime) else value


def _interval(sent: str) -> str:
    """DuckDB's text of an interval that is written in ISO 8601."""
    months, _, rest = sent.removeprefix("P").partition("M")
    days, _, seconds = rest.partition("DT")
    micros = round(Decimal(seconds.removesuffix("S")) * 1_000_000)
    sql = f"SELECT (to_months({months}) + to_days({days}) + to_microseconds({micros}))::VARCHAR"
    return str(duckdb.execute(sql).fetchall()[0][0])


_AS_TEXT = {"UHUGEINT", "BIT", "DATE", "TIME", "TIME WITH TIME ZONE", "UUID"}
