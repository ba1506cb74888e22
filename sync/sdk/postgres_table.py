"""The SQL by which rows of a PostgreSQL table are put, removed and read; names are quoted, values never in it."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sync.errors import RequestError
from sync.sdk.nouns import Change, Field, Value
from sync.sdk.postgres import quoted
from sync.sdk.values import dumps, text

if TYPE_CHECKING:
    from sync.sdk.postgres import Cursor

__all__ = ["Column", "columns_of", "copy", "make", "page", "put", "remove", "tables_of"]

_INCOMING = "pg_temp.headgate_incoming"
_NUMBER = quoted("headgate number")  # of the change, in the temporary table
_COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typcategory = 'A',
        a.attnotnull AND NOT a.atthasdef AND a.attidentity = '', a.attgenerated <> '' OR a.attidentity = 'a',
        EXISTS (SELECT FROM pg_index i WHERE i.indisunique AND i.indpred IS NULL AND i.indrelid = a.attrelid
            AND a.attnum = ANY (i.indkey)),
        EXISTS (SELECT FROM pg_index i WHERE i.indisprimary AND i.indrelid = a.attrelid
            AND a.attnum = ANY (i.indkey))
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_TABLES = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND has_table_privilege(c.oid, 'INSERT') ORDER BY 1
"""
_TYPES = (  # of the warehouse, by DuckDB's names, and ours for a table we make
    (r"BOOLEAN", "boolean"),
    (r"U?TINYINT|SMALLINT", "smallint"),
    (r"USMALLINT|INTEGER", "integer"),
    (r"UINTEGER|BIGINT", "bigint"),
    (r"UBIGINT|U?HUGEINT", "numeric"),
    (r"FLOAT|DOUBLE", "double precision"),
    (r"DECIMAL\((\d+), ?(\d+)\)", r"numeric(\1, \2)"),
    (r"DATE", "date"),
    (r"TIME", "time"),
    (r"TIMESTAMP(_S|_MS|_NS)?", "timestamp"),
    (r"TIMESTAMP WITH TIME ZONE", "timestamptz"),
    (r"BLOB", "bytea"),
    (r"UUID", "uuid"),
    (r"INTERVAL", "interval"),
    (r"JSON|.*\[\d*\]|(STRUCT|MAP|UNION)\(.*", "jsonb"),
)
_FIELD_TYPES = (
    (r"boolean", "boolean"),
    (r"smallint|integer|bigint", "integer"),
    (r"real|double precision|numeric.*", "number"),
    (r"date", "date"),
    (r"timestamp.*", "timestamp"),
    (r"jsonb?|.*\[\]", "json"),
)


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, as the catalogue has it."""

    name: str
    type: str
    array: bool
    required: bool
    generated: bool  # by the server: nobody else may write it
    unique: bool  # part of a unique index
    key: bool  # part of the primary key

    @property
    def field(self) -> Field:
        """The same for people."""
        kind = next((ours for pattern, ours in _FIELD_TYPES if re.fullmatch(pattern, self.type)), "string")
        told = f"{self.type}, written by the server" if self.generated else self.type
        return Field(self.name, kind, required=self.required, identifier=self.unique, description=told)


def columns_of(cursor: Cursor, table: str) -> dict[str, Column]:
    """The columns of a table by name; none where there is no such table. `table` is quoted."""
    cursor.execute(_COLUMNS, [table])
    return {row[0]: Column(*row) for row in cursor.fetchall()}


def tables_of(cursor: Cursor, schema: str) -> list[str]:
    """The tables of a schema that the user may write."""
    cursor.execute(_TABLES, [schema])
    return [str(row[0]) for row in cursor.fetchall()]


def make(
    cursor: Cursor, table: str, wanted: Iterable[str], keys: Sequence[str], types: Mapping[str, str]
) -> dict[str, Column]:
    """Make what is missing of the columns `wanted`: a table with `keys` as its primary key, or more columns of it.

    Returns the columns that the table then has. One transaction at a time makes anything of a table.
    """
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('headgate'), hashtext(%s))", [table])
    known = columns_of(cursor, table)  # another transaction may have made them meanwhile
    missing = [f"{quoted(name)} {_type(types.get(name, ''))}" for name in wanted if name not in known]
    if not known:
        columns = ", ".join([*missing, f"PRIMARY KEY ({_list(keys)})"])
        cursor.execute(f"CREATE TABLE {table} ({columns})".encode())
    elif missing:
        cursor.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {one}' for one in missing)}".encode())
    return columns_of(cursor, table)


def _type(warehouse: str) -> str:
    found = ((match, ours) for pattern, ours in _TYPES if (match := re.fullmatch(pattern, warehouse, re.DOTALL)))
    return next((match.expand(ours) for match, ours in found), "text")


def copy(
    cursor: Cursor, table: str, columns: Sequence[Column], changes: Sequence[Change], types: Mapping[str, str]
) -> None:
    """COPY the changes into a temporary table of these columns and the number of each change."""
    names = _list([column.name for column in columns])
    cursor.execute(f"DROP TABLE IF EXISTS {_INCOMING}".encode())
    made = f"SELECT 0 AS {_NUMBER}, {names} FROM {table} WITH NO DATA"
    cursor.execute(f"CREATE TEMP TABLE headgate_incoming ON COMMIT DROP AS {made}".encode())
    kinds = [(column, types.get(column.name, "")) for column in columns]
    with cursor.copy(f"COPY {_INCOMING} FROM STDIN".encode()) as into:
        for number, change in enumerate(changes):
            row = {**change.fields, **change.identifiers}
            into.write_row([number, *(_cell(row[column.name], column, kind) for column, kind in kinds)])


def _cell(value: Value, column: Column, kind: str) -> Value:
    """A wire value as COPY takes it. Raises `RequestError`."""
    if value is None or (column.array and isinstance(value, list)):
        return value
    if kind == "BLOB" and column.type == "bytea":
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise RequestError(f"column {column.name} holds a value that is not Base64") from None
    nested = isinstance(value, dict | list) or (kind == "JSON" and column.type.startswith("json"))
    return dumps(value).decode() if nested else text(value)


def put(cursor: Cursor, table: str, keys: Sequence[str], fields: Sequence[str]) -> list[int]:
    """Insert or update what was copied; the numbers of those that the table then does not have."""
    names = [*keys, *fields]
    sets = ", ".join(f"{quoted(name)} = EXCLUDED.{quoted(name)}" for name in fields or keys[:1])
    back = ", ".join(f"target.{quoted(name)}" for name in keys)
    cursor.execute(
        f"WITH done AS (INSERT INTO {table} AS target ({_list(names)}) SELECT {_list(names)} FROM {_INCOMING} "
        f"ON CONFLICT ({_list(keys)}) DO UPDATE SET {sets} RETURNING {back}) SELECT {_NUMBER} FROM {_INCOMING} i "
        f"WHERE NOT EXISTS (SELECT FROM done t WHERE {_same(keys)}) ORDER BY 1".encode()
    )
    return [row[0] for row in cursor.fetchall()]


def remove(cursor: Cursor, table: str, keys: Sequence[str]) -> list[int]:
    """Delete the rows of what was copied; the numbers of those that the table still has."""
    cursor.execute(f"DELETE FROM {table} t USING {_INCOMING} i WHERE {_same(keys)}".encode())
    still = f"EXISTS (SELECT FROM {table} t WHERE {_same(keys)})"
    cursor.execute(f"SELECT {_NUMBER} FROM {_INCOMING} i WHERE {still} ORDER BY 1".encode())
    return [row[0] for row in cursor.fetchall()]


def page(
    cursor: Cursor, table: str, shown: Sequence[Column], keys: Sequence[Column], after: Sequence[str], size: int
) -> list[tuple[list[Value], list[str]]]:
    """Up to `size` rows by their key, past the one of key `after`: the columns shown, and the key as text."""
    order = _list([c.name for c in keys])
    values = ", ".join(f"to_jsonb({quoted(c.name)})" for c in shown)
    texts = ", ".join(f"{quoted(c.name)}::text" for c in keys)
    there = " AND ".join(f"{quoted(c.name)} IS NOT NULL" for c in keys)
    past = f" AND ({order}) > ({', '.join(f'CAST($ AS {c.type})' for c in keys)})" if after else ""
    sql = f"SELECT {values}, {texts} FROM {table} WHERE {there}".replace("%", "%%")
    past = past.replace("%", "%%").replace("CAST($ AS", "CAST(%s AS")
    cursor.execute(f"{sql}{past} ORDER BY {order.replace('%', '%%')} LIMIT {size}".encode(), list(after))
    return [(list(row[: len(shown)]), list(row[len(shown) :])) for row in cursor.fetchall()]


def _list(names: Sequence[str]) -> str:
    return ", ".join(quoted(name) for name in names)


def _same(keys: Sequence[str]) -> str:
    return " AND ".join(f"t.{quoted(name)} = i.{quoted(name)}" for name in keys)
