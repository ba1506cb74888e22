"""Playing a scenario in a warehouse, and comparing what is seen of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tests.parity.stage import Seen, Stage
from tests.parity.warehouses import Warehouse

__all__ = ["Warehouses", "differences", "played"]

Warehouses = Callable[[str], Warehouse]
"""A warehouse of a type."""

OTHER_TYPES = {("duckdb", "VARCHAR[]"): "JSON"}
"""Types that a warehouse's own tables have and the others have not: what stands for them there.

DuckDB's lists are lists; PostgreSQL's arrays and Snowflake's leave as JSON. The destination is told the same.
"""


def played(play: Callable[[Stage], None], warehouse: Warehouse, root: Path, *, pushed: bool = False) -> list[Seen]:
    """What is seen of a scenario."""
    root.mkdir()
    stage = Stage(warehouse, root, pushed)
    if pushed:
        warehouse.make_schema(stage.kept_in)
    try:
        play(stage)
        here = list((root / "state" / "members").rglob("*.parquet"))
        assert not pushed or not here, "members that are kept in the warehouse have a file here"
    finally:
        stage.close()
        if pushed:
            warehouse.ask(f"DROP SCHEMA {stage.kept_in} CASCADE")
    return [_with_common_types(warehouse.type, seen) for seen in stage.seen]


def _with_common_types(warehouse: str, seen: Seen) -> Seen:
    return replace(seen, types={n: OTHER_TYPES.get((warehouse, t), t) for n, t in seen.types.items()})


def differences(expected: Sequence[Seen], found: Sequence[Seen], *, pushed: bool = False) -> list[str]:
    """Where two histories part, a line each: the number of the plan, the part of it, and both.

    Of a cohort whose rows stay in the warehouse that makes the refresh's digests: they are not compared.
    """
    if pushed:
        expected, found = _without_digests(expected), _without_digests(found)
    lines = [] if len(expected) == len(found) else [f"{len(expected)} plans and {len(found)}"]
    for number, (here, there) in enumerate(zip(expected, found, strict=False)):
        for part in fields(Seen):
            one, other = getattr(here, part.name), getattr(there, part.name)
            if one != other:
                lines.append(f"plan {number}, {part.name}: {_first(one, other)}")
    return lines


def _without_digests(history: Sequence[Seen]) -> list[Seen]:
    return [replace(seen, refresh=tuple(one[:3] for one in seen.refresh)) for seen in history]


def _first(one: Any, other: Any) -> str:
    """The first of the items that differ."""
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, tuple | list) and len(one) == len(other):
        return next(f"{str(a)[:500]} | {str(b)[:500]}" for a, b in zip(one, other, strict=True) if a != b)
    return f"{str(one)[:500]} | {str(other)[:500]}"
