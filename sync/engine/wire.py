"""Wire values: how a value of any DuckDB type is given to a connector.

Text forms are made in SQL, in bulk: turning a timestamp with a zone into a Python object costs ten times as much
as reading it as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from sync.engine.database import identifier

__all__ = ["decoders", "wire_sql"]

_INTEGERS = ["TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"]
_NATIVE = frozenset(["BOOLEAN", "FLOAT", "DOUBLE", "VARCHAR", *_INTEGERS])
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_EXACT_DIGITS = 15  # what a double holds without loss


def _decimal(column: str, width: int, scale: int) -> str:
    if scale == 0 and width <= 18:
        return f"{column}::BIGINT"
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
    if match := _DECIMAL.fullmatch(type):
        return _decimal(column, int(match[1]), int(match[2]))
    if is_nested(type):
        return f"to_json({column})::VARCHAR"
    if type == "TIMESTAMP WITH TIME ZONE":
        return f"replace(replace({column}::VARCHAR, ' ', 'T'), '+00', 'Z')"
    if type.startswith("TIMESTAMP"):
        return f"replace({column}::VARCHAR, ' ', 'T')"
    if type == "BLOB":
        return f"to_base64({column})"
    if type == "INTERVAL":
        return _interval(column)
    return f"{column}::VARCHAR"


def is_nested(type: str) -> bool:
    """Does the wire value come as JSON text that has to be read."""
    return type.endswith("]") or type == "JSON" or type.startswith(("STRUCT(", "MAP(", "UNION("))


def decoders(types: Sequence[str]) -> list[tuple[int, Callable[[str], Any]]]:
    """Positions of the columns whose wire value has to be read from JSON text."""
    return [(index, json.loads) for index, type in enumerate(types) if is_nested(type)]
