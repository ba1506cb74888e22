"""Snowflake's types and names, and what becomes of them.

Type codes: Snowflake documentation, Python Connector API, "Type codes", and the connector's own table for later
ones; what may be cast: SQL reference, "Data type conversion"; folding: "Identifier requirements".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sync.errors import SourceError
from sync.sources.queries import quoted

__all__ = ["arrow_schema", "duckdb_type", "folded", "selected", "shown", "staged"]

_FIXED = 0
_BIGINT_DIGITS = 18  # as many as always fit into 64 bits

_PLAIN = {
    1: "DOUBLE",  # REAL
    2: "VARCHAR",  # TEXT
    3: "DATE",
    4: "TIMESTAMP",
    5: "JSON",  # VARIANT
    6: "TIMESTAMP WITH TIME ZONE",  # TIMESTAMP_LTZ
    7: "TIMESTAMP WITH TIME ZONE",  # TIMESTAMP_TZ
    8: "TIMESTAMP",  # TIMESTAMP_NTZ
    9: "JSON",  # OBJECT
    10: "JSON",  # ARRAY
    11: "BLOB",  # BINARY
    12: "TIME",
    13: "BOOLEAN",
    14: "VARCHAR",  # GEOGRAPHY, as GeoJSON
    15: "VARCHAR",  # GEOMETRY, as GeoJSON
    16: "JSON",  # VECTOR
    19: "VARCHAR",  # INTERVAL YEAR TO MONTH, as Snowflake writes it
    20: "VARCHAR",  # INTERVAL DAY TO SECOND
}
_CAST = {16: "ARRAY", 19: "VARCHAR", 20: "VARCHAR"}  # in the warehouse, because the connector has no text of them
_UNREADABLE = {_FIXED: "DECFLOAT", 17: "MAP", 18: "FILE"}
_ODD = "(?i)nan|inf"  # numbers to DuckDB, and not to JSON
_STRING = '"(?:[^"\\\\]|\\\\.)*"'
_SIMPLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")


def duckdb_type(column: Any) -> str:
    """The DuckDB type of a column, from the connector's metadata of it; UNKNOWN where it cannot be read."""
    if column.type_code != _FIXED or column.scale is None:
        return _PLAIN.get(column.type_code, "UNKNOWN")
    digits, scale = _number(column)
    return "BIGINT" if scale == 0 and digits <= _BIGINT_DIGITS else f"DECIMAL({digits},{scale})"


def selected(column: Any) -> str:
    """The column in a SELECT, under its own name."""
    name = quoted(column.name)
    cast = _CAST.get(column.type_code)
    return f"{name}::{cast} AS {name}" if cast else name


def staged(column: Any) -> str:
    """SQL of the column over the file that its values were written to.

    A VARIANT may hold what JSON has no word for, such as NaN: that value is then the text that Snowflake shows.
    """
    name = quoted(column.name)
    if duckdb_type(column) != "JSON":
        return name
    bare = f"regexp_replace({name}, '{_STRING}', '', 'g')"
    odd = f"regexp_matches({name}, '{_ODD}') AND regexp_matches({bare}, '{_ODD}')"
    return f"CASE WHEN json_valid({name}) AND NOT ({odd}) THEN {name}::JSON ELSE to_json({name}) END AS {name}"


def arrow_schema(columns: Sequence[Any], title: str) -> Any:
    """The Arrow schema of the columns as they are declared; raises `SourceError` HG209 for a type we cannot read.

    Snowflake's batches have narrower types, and other ones from batch to batch, as the values in them allow.
    """
    import pyarrow

    return pyarrow.schema([(column.name, _arrow_type(column, title)) for column in columns])


def _arrow_type(column: Any, title: str) -> Any:
    import pyarrow as pa

    types = {
        "BIGINT": pa.int64(),
        "DOUBLE": pa.float64(),
        "VARCHAR": pa.string(),
        "JSON": pa.string(),
        "DATE": pa.date32(),
        "TIMESTAMP": pa.timestamp("us"),
        "TIMESTAMP WITH TIME ZONE": pa.timestamp("us", tz="UTC"),
        "BLOB": pa.binary(),
        "TIME": pa.time64("us"),
        "BOOLEAN": pa.bool_(),
    }
    name = duckdb_type(column)
    if name.startswith("DECIMAL"):
        return pa.decimal128(*_number(column))
    if name not in types:
        theirs = _UNREADABLE.get(column.type_code, "of a newer Snowflake")
        raise SourceError(
            f"column {column.name} of {title} has the type {theirs}, which cannot be read",
            code="HG209",
            fix="cast it in a view or in the cohort's query: TO_JSON(...) or ::VARCHAR",
        )
    return types[name]


def _number(column: Any) -> tuple[int, int]:
    digits = 38 if column.precision is None else column.precision
    return digits, column.scale or 0


def folded(name: str, written: str) -> str:
    """The name of a part: in upper case, unless it was written in quotes or could not do without."""
    return name if written.startswith('"') or not _SIMPLE.fullmatch(name) else name.upper()


def shown(name: str) -> str:
    """How `table:` in a mapping writes it: quoted where folding would not lead back to it."""
    return name.lower() if _SIMPLE.fullmatch(name) and name == name.upper() else quoted(name)
