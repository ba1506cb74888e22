"""How PostgreSQL names what a cohort is read from."""

from __future__ import annotations

from sync.sources.base import Relation
from sync.sources.queries import quoted, select_of, split_name

__all__ = ["from_clause"]


def from_clause(relation: Relation) -> str:
    """What stands for the relation in a FROM; names without quotes are folded as PostgreSQL does it."""
    if relation.query is not None:
        return f"({select_of(relation.query, 'postgres')}\n) AS cohort"
    parts = split_name(relation.table or "")
    return ".".join(quoted(name if written.startswith('"') else name.lower()) for name, written in parts)
