"""The same cohort gives the same plan, whichever warehouse it is in and wherever its members are kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import tests.parity.values  # noqa: F401 - adds to the battery
from tests.parity.scenarios import SCENARIOS, Scenario
from tests.parity.stage import Seen, Stage
from tests.parity.warehouses import DuckDB, PostgreSQL, SnowflakeDB, Warehouse

PUSHED: list[str] = []
"""Warehouses that members are kept in, besides the state folder."""

PLACES = ["postgres", "snowflake", *(f"{name}, pushed down" for name in PUSHED)]


@pytest.fixture(scope="module")
def warehouses(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A warehouse of each type, opened where it is first asked for."""
    opened: dict[str, Warehouse] = {}

    def of(type: str) -> Warehouse:
        if type not in opened:
            server = request.getfixturevalue(type)
            opened[type] = PostgreSQL(server) if type == "postgres" else SnowflakeDB(server)
        return opened[type]

    yield of
    for warehouse in opened.values():
        warehouse.close()


def played(play: Scenario, warehouse: Warehouse, root: Path, *, pushed: bool = False) -> list[Seen]:
    """What is seen of a scenario."""
    root.mkdir()
    stage = Stage(warehouse, root, pushed)
    try:
        play(stage)
    finally:
        stage.close()
    return stage.seen


def compare(what: str, here: Any, there: Any) -> None:
    """Fail with the first thing that differs."""
    if isinstance(here, tuple) and isinstance(there, tuple):
        assert len(here) == len(there), what
        for one, other in zip(here, there, strict=True):
            assert (what, one) == (what, other)
    else:
        assert (what, here) == (what, there)


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
def test_plans_are_equal(play: Scenario, warehouses: Any, tmp_path: Path) -> None:
    expected = played(play, DuckDB(tmp_path), tmp_path / "duckdb")

    for place in PLACES:
        name, _, pushed = place.partition(", ")
        found = played(play, warehouses(name), tmp_path / place, pushed=bool(pushed))
        for number, (here, there) in enumerate(zip(expected, found, strict=True)):
            for part in fields(Seen):
                compare(
                    f"{place}, plan {number}: {part.name}", getattr(here, part.name), getattr(there, part.name)
                )
