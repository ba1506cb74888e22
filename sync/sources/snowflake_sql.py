"""How Snowflake names what a cohort is read from."""

from __future__ import annotations

from sync.sources.base import Relation
from sync.sources.queries import quoted, select_of, split_name
from sync.sources.snowflake_types import folded

__all__ = ["from_clause", "parts", "text"]


def from_clause(relation: Relation) -> str:
    """What stands for the relation in a FROM; names without quotes are folded as Snowflake does it."""
    if relation.query is not None:
        return f"({select_of(relation.query, 'snowflake')}\n)"
    return ".".join(map(quoted, parts(relation.table or "")))


def parts(table: str) -> list[str]:
    """`database.schema.table` as Snowflake keeps the names."""
    return [folded(part, written) for part, written in split_name(table)]


def text(value: str) -> str:
    """A text as SQL takes it; a backslash escapes here (SQL reference, "String & binary data types")."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
