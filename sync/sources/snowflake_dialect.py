"""Where Snowflake's SQL is its own, for what is done inside the warehouse."""

from __future__ import annotations

from collections.abc import Sequence

from sync.sources.base import Column
from sync.sources.pushed import Dialect
from sync.sources.queries import quoted
from sync.sources.snowflake_sql import text

__all__ = ["SnowflakeDialect"]

_MOMENT = "YYYY-MM-DD HH24:MI:SS.FF9"
_LONG = ("VARCHAR", "JSON", "BLOB")
_TEXTS = {
    "DATE": "TO_VARCHAR({0}, 'YYYY-MM-DD')",
    "TIME": "TO_VARCHAR({0}, 'HH24:MI:SS.FF9')",
    "TIMESTAMP": f"TO_VARCHAR({{0}}, '{_MOMENT}')",
    "TIMESTAMP WITH TIME ZONE": f"TO_VARCHAR(CONVERT_TIMEZONE('UTC', {{0}}), '{_MOMENT}')",
    "DOUBLE": "TO_VARCHAR({0}) || '/' || TO_VARCHAR(HASH({0}))",
    "VARCHAR": "TO_VARCHAR({0})",
    "JSON": "TO_JSON({0}) || '/' || TO_VARCHAR(HASH({0}))",
    "BLOB": "HEX_ENCODE({0})",
}
"""The text of a value, by the DuckDB type that its column arrives as; it is exact, whatever the session is set to.

Of a FLOAT it is rounded, and JSON's null has that of a VARIANT's 'null': HASH, which goes by the value, tells
apart what has the same (SQL reference, HASH). Should it ever change, or the order of an OBJECT's keys, rows are
fetched again.
"""


class SnowflakeDialect(Dialect):
    """Snowflake's."""

    name = "snowflake"
    table = "TRANSIENT TABLE"  # without Fail-safe, which would keep who was forgotten for a week

    def digest(self, columns: Sequence[Column], salt: str) -> str:
        """See `Dialect`.

        Every value stands behind a bar. What may have a bar in it, or be empty, is there by its own MD5; a null is
        nothing, as no other value is.
        """
        return f"MD5({' || '.join([text(salt), *map(_shown, columns)])})"

    def number(self, digits: str) -> str:
        """See `Dialect` (SQL reference, "SQL format models": X is a hexadecimal digit)."""
        return f"TO_NUMBER({digits}, 'XXXXXXXX')"

    def temporary(self, schema: str, name: str) -> str:
        """See `Dialect`: it is in a schema like any other, and a session need not have a current one."""
        return f"{schema}.{name}"


def _shown(column: Column) -> str:
    name = quoted(column.name)
    shown = _TEXTS.get(column.type, "TO_VARCHAR({0})").format(name)
    if column.type in _LONG:
        shown = f"MD5({shown})"
    return f"'|' || COALESCE({shown}, '')"
