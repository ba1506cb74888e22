"""PostgreSQL's types: how each leaves the server, and what becomes of it in Arrow and DuckDB.

What has a counterpart is read in PostgreSQL's binary form; what has none leaves the server as text or JSON, which
the server writes itself, so that nothing is lost. Types, ranges and type modifiers: PostgreSQL manual, chapter 8
"Data Types", and `numeric_in` of its source (`((precision << 16) | (scale & 0x7ff)) + 4`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sync.errors import SourceError
from sync.sources.queries import quoted

__all__ = ["Leaving", "arrived", "arrow_schema", "leaving"]

_DIGITS = 38  # of the widest decimal that Parquet, Arrow and DuckDB share
_MONEY = (21, 2)  # 64 bits of cents
_UNREADABLE = ("void", "trigger", "event_trigger", "internal", "cstring", "anyarray")
_AS_THEY_ARE = {
    "int16": "SMALLINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float": "FLOAT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "string": "VARCHAR",
    "binary": "BLOB",
    "date32[day]": "DATE",
    "time64[us]": "TIME",
    "timestamp[us]": "TIMESTAMP",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}

_LAST, _LAST_DAY = 2**63 - 1, 2**31 - 1  # infinity, as PostgreSQL and DuckDB both have it
_EPOCH, _EPOCH_DAY = 946_684_800_000_000, 10_957  # from 1970 to PostgreSQL's 2000-01-01
_FIRST, _FIRST_DAY = -210_866_803_200_000_000, -2_440_588  # 4714-11-24 BC: PostgreSQL has nothing earlier


@dataclass(frozen=True, slots=True)
class Leaving:
    """A column on its way: the SQL that reads it, and what its values are in Arrow, in the file and in DuckDB."""

    name: str
    sql: str
    arrow: str
    type: str

    @property
    def staged(self) -> str:
        """SQL of the column over the file."""
        return f"{quoted(self.name)}::JSON AS {quoted(self.name)}" if self.type == "JSON" else quoted(self.name)


def leaving(schema: Any) -> list[Leaving]:
    """The columns of a result that the driver described (`pyarrow.Schema`); `UNKNOWN` where one cannot be read."""
    return [_leaving(field) for field in schema]


def _leaving(field: Any) -> Leaving:
    about = {k.decode(): v.decode() for k, v in (field.metadata or {}).items()}
    theirs, name, column = about.get("POSTGRESQL:type", ""), field.name, quoted(field.name)
    # By both: somebody's own type may be called `numeric`, too.
    arrow = getattr(field.type, "extension_name", None) or str(field.type)
    match theirs, arrow:
        case "numeric", "arrow.opaque":
            return _numeric(name, int(about.get("POSTGRESQL:typmod", "-1")))
        case "json" | "jsonb", "arrow.json":
            return Leaving(name, column, "string", "JSON")
        case "money", "int64":
            digits, scale = _MONEY
            decimal = f"({digits},{scale})"
            return Leaving(name, f"{column}::numeric", f"decimal{decimal}", f"DECIMAL{decimal}")
        case "oid", "int32":  # 32 bits without a sign, which the driver reads with one
            return Leaving(name, f"{column}::int8", "int64", "BIGINT")
    if theirs in _UNREADABLE:
        return Leaving(name, column, theirs, "UNKNOWN")
    if arrow in _AS_THEY_ARE:
        return Leaving(name, column, arrow, _AS_THEY_ARE[arrow])
    if arrow.startswith(("list<", "struct<")):  # the driver flattens arrays of more than one dimension
        return Leaving(name, f"to_json({column})::text", "string", "JSON")
    return Leaving(name, f"{column}::text", "string", "VARCHAR")


def _numeric(name: str, modifier: int) -> Leaving:
    """A decimal where one of 38 digits holds it, else text without trailing zeros: 1.0 and 1.00 are one number."""
    if modifier >= 4:
        precision = (modifier - 4) >> 16 & 0xFFFF
        scale = ((modifier - 4 & 0x7FF) ^ 0x400) - 0x400  # of either sign since PostgreSQL 15
        digits, kept = max(precision - min(scale, 0), scale), max(scale, 0)
        if digits <= _DIGITS:
            # As text, which is what the driver makes of it, too: the server does it at half the cost.
            return Leaving(name, f"{quoted(name)}::text", f"decimal({digits},{kept})", f"DECIMAL({digits},{kept})")
    return Leaving(name, f"trim_scale({quoted(name)})::text", "string", "VARCHAR")


def arrow_schema(columns: Sequence[Leaving], title: str) -> Any:
    """What the file holds (`pyarrow.Schema`). Raises `SourceError` HG209 for a column that cannot be read."""
    import pyarrow as pa

    def arrow(column: Leaving) -> Any:
        if column.type == "UNKNOWN":
            raise SourceError(
                f"column {column.name} of {title} has the type {column.arrow}, which cannot be read",
                code="HG209",
                fix="leave it out, or convert it in a view or in the cohort's query",
            )
        if column.arrow.startswith("decimal("):
            digits, scale = column.arrow[8:-1].split(",")
            return pa.decimal128(int(digits), int(scale))
        plain = {"timestamp[us]": pa.timestamp("us"), "timestamp[us, tz=UTC]": pa.timestamp("us", tz="UTC")}
        return plain.get(column.arrow) or pa.type_for_alias(column.arrow.replace("date32[day]", "date32"))

    return pa.schema([(column.name, arrow(column)) for column in columns])


def arrived(batch: Any, schema: Any, title: str) -> Any:
    """The driver's record batch as the file's schema has it.

    Raises `SourceError` HG209 for a value that cannot be kept as it is; it names the column, never the value.
    """
    import pyarrow as pa

    arrays = [_array(array, field, title) for array, field in zip(batch.columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(array: Any, field: Any, title: str) -> Any:
    import pyarrow as pa

    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_decimal(field.type):
        return _decimals(array, field, title)
    if pa.types.is_timestamp(field.type):
        return _instants(array.cast(pa.int64()), field.name, title).cast(field.type)
    if pa.types.is_date(field.type):
        return _days(array.cast(pa.int32())).cast(field.type)
    return array if array.type == field.type else array.cast(field.type)


def _decimals(array: Any, field: Any, title: str) -> Any:
    import pyarrow as pa

    try:
        return array.cast(field.type)
    except pa.ArrowInvalid:
        column = quoted(field.name)
        raise SourceError(
            f"column {field.name} of {title} holds NaN, infinity or more digits than {field.type} has",
            code="HG209",
            fix=f"write nullif({column}, 'NaN'), {column}::float8 or {column}::text in a view or in the query",
        ) from None


def _instants(values: Any, name: str, title: str) -> Any:
    """Microseconds since 1970. The driver adds thirty years to PostgreSQL's, past the end of 64 bits."""
    import pyarrow.compute as pc

    lowest = pc.min(values).as_py()
    if lowest is None or lowest >= _FIRST:
        return values
    values = _infinite(values, _LAST, _EPOCH)
    odd = pc.and_(pc.less(values, _FIRST), pc.not_equal(values, -_LAST))
    if pc.any(odd).as_py():
        raise SourceError(
            f"column {name} of {title} holds a time after the year 294246, which cannot be kept",
            code="HG209",
            fix=f"write least({quoted(name)}, '9999-12-31') in a view or in the cohort's query",
        )
    return values


def _days(values: Any) -> Any:
    """Days since 1970; only infinity passes the end of 32 bits."""
    import pyarrow.compute as pc

    lowest = pc.min(values).as_py()
    return values if lowest is None or lowest >= _FIRST_DAY else _infinite(values, _LAST_DAY, _EPOCH_DAY)


def _infinite(values: Any, last: int, epoch: int) -> Any:
    """Infinity of either sign where the driver's sum went round, as DuckDB has it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ends = {epoch - last - 2: last, epoch - last - 1: -last, -last - 1: -last}
    for found, meant in ends.items():
        values = pc.if_else(pc.equal(values, found), pa.scalar(meant, values.type), values)
    return values
