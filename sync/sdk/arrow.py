"""Wire values as Arrow columns, with the types they had in the warehouse."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import lru_cache
from typing import Any

import pyarrow as pa

from sync.errors import RequestError
from sync.sdk.nouns import Value

__all__ = ["arrow_type", "record_batch", "schema"]

Convert = Callable[[Value], Any]

_AS_TEXT = ("BIT", "UHUGEINT", "TIMETZ", "TIME WITH TIME ZONE")  # Arrow has no type that keeps them whole
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def schema(columns: Iterable[str], types: Mapping[str, str]) -> pa.Schema:
    """A schema of `columns`, in that order; those without a DuckDB type in `types` are text."""
    return pa.schema([(name, arrow_type(types.get(name, "VARCHAR"))) for name in columns])


@lru_cache(maxsize=256)
def arrow_type(name: str) -> pa.DataType:
    """The Arrow type, storable in Parquet, of a DuckDB type by name; text where there is none."""
    import duckdb

    if name.upper().startswith(_AS_TEXT):
        return pa.string()
    with duckdb.connect() as connection:
        try:
            field = connection.sql(f"select null::{name} as v").to_arrow_table().schema.field(0)
        except duckdb.Error:
            return pa.string()
    return _storable(field.type)


def _storable(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_struct(kind):
        return pa.struct([(f.name, _storable(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_storable(kind.key_type), _storable(kind.item_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return pa.list_(_storable(kind.value_type))
    plain = pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_binary(kind)
    return kind if plain and not pa.types.is_interval(kind) else pa.string()


def record_batch(rows: Sequence[Mapping[str, Value]], into: pa.Schema) -> pa.RecordBatch:
    """Rows of wire values as one record batch; a column that a row lacks is null.

    Raises `RequestError`, naming the column and not the value, where a value is not of the column's type.
    """
    return pa.record_batch([_column(rows, field) for field in into], schema=into)


def _column(rows: Sequence[Mapping[str, Value]], field: pa.Field) -> pa.Array:
    name, convert = field.name, _converter(field.type)
    try:
        return pa.array([None if (v := row.get(name)) is None else convert(v) for row in rows], field.type)
    except (ValueError, TypeError, ArithmeticError, AttributeError, pa.ArrowException) as error:
        raise RequestError(
            f"column '{name}' holds a value that is not a {field.type}",
            detail=str(error),
            fix=f"cast '{name}' in the mapping with an `expr`, or write CSV or JSON Lines",
        ) from None


def _converter(kind: pa.DataType) -> Convert:
    """What turns a wire value that is not null into one that Arrow takes for `kind`."""
    if pa.types.is_struct(kind):
        inner = {f.name: _nullable(_converter(f.type)) for f in kind}
        return lambda v: {name: convert(v.get(name)) for name, convert in inner.items()}
    if pa.types.is_map(kind):
        key, item = _key(kind.key_type), _nullable(_converter(kind.item_type))
        return lambda v: [(key(k), item(i)) for k, i in v.items()]
    if pa.types.is_list(kind):
        element = _nullable(_converter(kind.value_type))
        return lambda v: [element(e) for e in v]
    return next((convert for test, convert in _SCALARS if test(kind)), lambda v: v)


def _nullable(convert: Convert) -> Convert:
    return lambda v: None if v is None else convert(v)


def _key(kind: pa.DataType) -> Convert:
    """The key of a map, which is text on the wire."""
    if pa.types.is_integer(kind):
        return int
    return float if pa.types.is_floating(kind) else _converter(kind)


def _text(value: Value) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _timestamp(value: str) -> datetime | int:
    """A timestamp; one with more than six digits of a second as nanoseconds since 1970, which Arrow takes."""
    head, _, fraction = value.removesuffix("Z").partition(".")
    moment = datetime.fromisoformat(value)
    if len(fraction) <= 6 or not fraction.isdigit():
        return moment
    whole = datetime.fromisoformat(head).replace(tzinfo=UTC) - _EPOCH
    return (whole.days * 86400 + whole.seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


_SCALARS: tuple[tuple[Callable[[pa.DataType], bool], Convert], ...] = (
    (pa.types.is_string, _text),
    (pa.types.is_timestamp, _timestamp),
    (pa.types.is_date, date.fromisoformat),
    (pa.types.is_time, time.fromisoformat),
    (pa.types.is_decimal, lambda v: Decimal(str(v))),
    (pa.types.is_binary, lambda v: base64.b64decode(v, validate=True)),
)
