"""Wire values: how a value of any DuckDB type is given to a connector.

Text forms are made in SQL, in bulk: turning a timestamp with a zone into a Python object costs ten times as much
as reading it as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from sync.engine.sql import identifier, literal

__all__ = ["decoders", "is_nested", "json_sql", "wire_sql"]

_INTEGERS = ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"]
_NATIVE = frozenset(["BOOLEAN", "DOUBLE", "VARCHAR", *_INTEGERS])
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_EXACT_DIGITS = 15  # what a double holds without loss


def _decimal(column: str, width: int, scale: int) -> str:
    if scale == 0:
        return f"{column}::BIGINT" if width <= 18 else f"{column}::HUGEINT"
    return f"{column}::DOUBLE" if width <= _EXACT_DIGITS else f"{column}::VARCHAR"


def _interval(column: str) -> str:
    """ISO 8601 with the three parts that DuckDB keeps apart: months, days and time."""

    def part(name: str) -> str:
        return f"datepart('{name}', {column})"

    months = f"{part('year')} * 12 + {part('month')}"
    seconds = f"({part('hour')} * 3600 + {part('minute')} * 60 + {part('microsecond')} / 1e6)"
    return f"('P' || ({months}) || 'M' || {part('day')} || 'DT' || {seconds} || 'S')"


def wire_sql(name: str, type: str) -> str:
    """SQL of a column's wire value, still without a name."""
    column = identifier(name)
    if type in _NATIVE:
        return column
    if type == "FLOAT":  # by its shortest text: 1.1 stays 1.1
        return f"{column}::VARCHAR::DOUBLE"
    if match := _DECIMAL.fullmatch(type):
        return _decimal(column, int(match[1]), int(match[2]))
    if is_nested(type):
        return f"{json_sql(name, type)}::VARCHAR"
    return _text(column, type) or f"{column}::VARCHAR"


def json_sql(name: str, type: str) -> str:
    """SQL of a column's wire value, as JSON where it is nested: what a JSON function takes."""
    if type == "JSON":  # as it was written: to read it would cost digits
        return identifier(name)
    return f"to_json({_nested(identifier(name), type)})" if is_nested(type) else wire_sql(name, type)


def _text(column: str, type: str) -> str:
    """SQL of the text of a type whose own is not the wire's; empty for the others."""
    if type == "TIMESTAMP WITH TIME ZONE":
        return f"replace(replace({column}::VARCHAR, ' ', 'T'), '+00', 'Z')"
    if type.startswith("TIMESTAMP"):
        return f"replace({column}::VARCHAR, ' ', 'T')"
    if type == "BLOB":
        return f"to_base64({column})"
    if type == "INTERVAL":
        return _interval(column)
    return ""


def _nested(column: str, type: str) -> str:
    """SQL of a nested value whose parts have their wire texts, where they are not those of `to_json`."""
    if not any(name in type for name in ("TIMESTAMP", "BLOB", "INTERVAL")):
        return column
    import duckdb

    return _rebuilt(column, duckdb.dtype(type))


def _rebuilt(value: str, type: Any, depth: int = 0) -> str:
    """Lists, structs and maps taken apart and put together again; a variable of its own at each depth."""
    item = f"item{depth}"
    if type.id in ("list", "array"):
        inner = _rebuilt(item, type.children[0][1], depth + 1)
        return f"list_transform({value}, lambda {item}: {inner})"
    if type.id == "struct":
        parts = (f"{literal(n)}: {_rebuilt(f'{value}[{literal(n)}]', t, depth + 1)}" for n, t in type.children)
        return f"CASE WHEN {value} IS NOT NULL THEN {{{', '.join(parts)}}} END"
    if type.id == "map":
        key = _rebuilt(f"{item}['key']", type.children[0][1], depth + 1)
        held = _rebuilt(f"{item}['value']", type.children[1][1], depth + 1)
        entries = f"list_transform(map_entries({value}), lambda {item}: {{'k': {key}, 'v': {held}}})"
        return f"map_from_entries({entries})"
    return _text(value, str(type)) or value


def is_nested(type: str) -> bool:
    """Does the wire value come as JSON text that has to be read."""
    return type.endswith("]") or type == "JSON" or type.startswith(("STRUCT(", "MAP(", "UNION("))


def decoders(types: Sequence[str]) -> list[tuple[int, Callable[[str], Any]]]:
    """Positions of the columns whose wire value has to be read from JSON text."""
    return [(index, _read) for index, type in enumerate(types) if is_nested(type)]


def _read(text: str) -> Any:
    return json.loads(text, parse_float=_number)


def _number(text: str) -> float | str:
    """A number where a double holds it without loss, else its text: a decimal of many digits."""
    value = float(text)
    return value if len(text) <= _EXACT_DIGITS or Decimal(repr(value)) == Decimal(text) else text
