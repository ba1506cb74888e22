"""Kinds of columns that all warehouses have: how each declares one, what it arrives as, how a value is written."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

__all__ = ["KINDS", "Column", "Kind", "Table", "literal"]

WAREHOUSES = ("duckdb", "postgres", "snowflake")


@dataclass(frozen=True)
class Kind:
    """A kind of column: its type in each warehouse, and the DuckDB type that it arrives as."""

    duckdb: str
    postgres: str
    snowflake: str
    arrives: str

    def type(self, warehouse: str) -> str:
        """What CREATE TABLE says there."""
        return str(getattr(self, warehouse))


KINDS = {
    "integer": Kind("BIGINT", "bigint", "NUMBER(18, 0)", "BIGINT"),
    # 37: of 38 digits without a fraction the server that stands for Snowflake makes 64 bits.
    "whole": Kind("DECIMAL(37, 0)", "numeric(37, 0)", "NUMBER(37, 0)", "DECIMAL(37,0)"),
    "exact": Kind("DECIMAL(38, 12)", "numeric(38, 12)", "NUMBER(38, 12)", "DECIMAL(38,12)"),
    "money": Kind("DECIMAL(12, 2)", "numeric(12, 2)", "NUMBER(12, 2)", "DECIMAL(12,2)"),
    "double": Kind("DOUBLE", "double precision", "FLOAT", "DOUBLE"),
    "boolean": Kind("BOOLEAN", "boolean", "BOOLEAN", "BOOLEAN"),
    "date": Kind("DATE", "date", "DATE", "DATE"),
    "time": Kind("TIME", "time", "TIME", "TIME"),
    "timestamp": Kind("TIMESTAMP", "timestamp", "TIMESTAMP_NTZ", "TIMESTAMP"),
    "instant": Kind("TIMESTAMPTZ", "timestamptz", "TIMESTAMP_TZ", "TIMESTAMP WITH TIME ZONE"),
    "text": Kind("VARCHAR", "text", "VARCHAR", "VARCHAR"),
    "bytes": Kind("BLOB", "bytea", "BINARY", "BLOB"),
    "json": Kind("JSON", "json", "VARIANT", "JSON"),
    "list": Kind("VARCHAR[]", "text[]", "ARRAY", "JSON"),
}


@dataclass(frozen=True)
class Column:
    """A column of a table. `quoted`: its name is not to be folded."""

    name: str
    kind: str = "text"
    quoted: bool = False

    def sql(self, warehouse: str) -> str:
        """Its name and type in CREATE TABLE."""
        name = '"' + self.name.replace('"', '""') + '"' if self.quoted else self.name
        return f"{name} {KINDS[self.kind].type(warehouse)}"


@dataclass(frozen=True)
class Table:
    """A table with its rows; `name` as SQL writes it."""

    columns: tuple[Column, ...]
    rows: Sequence[Sequence[Any]] = field(default=())
    name: str = "vips"

    def made(self, warehouse: str) -> list[str]:
        """The statements that make it (anew)."""
        columns = ", ".join(column.sql(warehouse) for column in self.columns)
        statements = [f"DROP TABLE IF EXISTS {self.name}", f"CREATE TABLE {self.name} ({columns})"]
        if self.rows:
            # VALUES would do, but Snowflake takes no PARSE_JSON in it.
            selects = (f"SELECT {', '.join(self._values(row, warehouse))}" for row in self.rows)
            statements.append(f"INSERT INTO {self.name} {' UNION ALL '.join(selects)}")
        return statements

    def _values(self, row: Sequence[Any], warehouse: str) -> list[str]:
        return [literal(value, column.kind, warehouse) for value, column in zip(row, self.columns, strict=True)]


def literal(value: Any, kind: str, warehouse: str) -> str:
    """SQL of a value of that kind, as the warehouse's own language writes it."""
    type = KINDS[kind].type(warehouse)
    if value is None:
        return f"CAST(NULL AS {type})"
    if kind in ("json", "list"):
        return _document(value, kind, warehouse)
    if isinstance(value, bytes):
        return {
            "duckdb": f"from_hex('{value.hex()}')",
            "postgres": f"decode('{value.hex()}', 'hex')",
            "snowflake": f"TO_BINARY('{value.hex()}', 'HEX')",
        }[warehouse]
    if isinstance(value, str) and len(value) > 10_000:  # a statement has a limit, too
        piece = value[:4]
        assert value == piece * (len(value) // 4)
        return f"repeat({_text(piece, warehouse)}, {len(value) // 4})"
    return f"CAST({_text(_written(value), warehouse)} AS {type})"


def _document(value: Any, kind: str, warehouse: str) -> str:
    text = _text(json.dumps(value, separators=(",", ":"), ensure_ascii=False), warehouse)
    if warehouse == "snowflake":
        return f"PARSE_JSON({text})" + ("::ARRAY" if kind == "list" else "")
    if kind == "json":
        return f"{text}::json"
    if warehouse == "duckdb":
        return f"from_json({text}, '[\"VARCHAR\"]')"
    items = ", ".join(_text(item, warehouse) for item in value)
    return f"ARRAY[{items}]::text[]"


def _text(value: str, warehouse: str) -> str:
    """A text literal; of the three only Snowflake reads backslashes in one."""
    if warehouse == "snowflake":
        value = value.replace("\\", "\\\\")
    return "'" + value.replace("'", "''") + "'"


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _double(value)
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            return value.astimezone(UTC).isoformat(" ")
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    return str(value)


def _double(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
