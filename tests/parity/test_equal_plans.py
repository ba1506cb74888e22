"""The same cohort gives the same plan, whichever warehouse it is in and wherever its members are kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

import tests.parity.values  # noqa: F401 - adds to the battery
from tests.parity.kinds import Table
from tests.parity.playing import Warehouses, differences, played
from tests.parity.scenarios import DECISIVE, SCENARIOS, Scenario
from tests.parity.stage import PEOPLE, Stage, people
from tests.parity.warehouses import DuckDB

PUSHED = ["postgres", "snowflake"]
"""Warehouses that members are kept in, besides the state folder."""

PLACES = ["postgres", "snowflake", *(f"{name}, pushed down" for name in PUSHED)]

DEAREST = "snowflake, pushed down"
"""Where a scenario takes longest: each statement is a request, and another to see whether it is done."""

THERE_TOO = {
    "a_query_instead_of_a_table",
    "additions_updates_and_removals",
    "every_kind_of_column",
    "keys_of_texts",
    "no_rows_at_first_and_later",
    "null_and_repeated_keys_are_tolerated",
    "odd_names",
    "people_who_share_an_identifier",
    "the_newest_row_says_how_old_the_cohort_is",
}
"""Scenarios that are played there whenever tests are run: all statements and kinds of columns are in them."""


def equal(play: Scenario, warehouses: Warehouses, folder: Path, places: Sequence[str]) -> None:
    """Fail where a scenario comes to something else in one of the places than in a DuckDB file."""
    expected = played(play, DuckDB(folder), folder / "duckdb")
    for place in places:
        name, _, pushed = place.partition(", ")
        found = played(play, warehouses(name), folder / place, pushed=bool(pushed))
        assert (place, differences(expected, found, pushed=bool(pushed))) == (place, [])


def soon(play: Scenario) -> list[str]:
    """Where a scenario is played whenever tests are run; in the other places at night.

    What is decided and what becomes of it is the engine's: there it matters where members are kept, and of the
    warehouses that only read, one will do.
    """
    places = PLACES if play in DECISIVE else PLACES[1:]
    return [place for place in places if place != DEAREST or play.__name__ in THERE_TOO]


@pytest.mark.parametrize("play", SCENARIOS, ids=lambda play: play.__name__)
def test_plans_are_equal(play: Scenario, warehouses: Warehouses, tmp_path: Path) -> None:
    equal(play, warehouses, tmp_path, soon(play))


@pytest.mark.endless
@pytest.mark.parametrize(
    "play", [one for one in SCENARIOS if len(soon(one)) < len(PLACES)], ids=lambda play: play.__name__
)
def test_plans_are_equal_in_the_other_places(play: Scenario, warehouses: Warehouses, tmp_path: Path) -> None:
    equal(play, warehouses, tmp_path, [place for place in PLACES if place not in soon(play)])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ((3, "p3@x.example", "Name 3", 4), "score"),
        ((3, "p3@x.example", "Name 3 ", 3), "name"),
        ((4, "p3@x.example", "Name 3", 3), "source_key"),
        ((3, "P3@x.example", "Name 3", 3), "email"),
    ],
)
def test_a_row_that_differs_in_anything_is_a_plan_that_differs(
    tmp_path: Path, row: tuple[object, ...], told: str
) -> None:
    """The comparison sees what it is for."""
    rows = people(1, 2, 3).rows

    def play(last: tuple[object, ...]) -> list[str]:
        folder = tmp_path / str(hash(last))
        folder.mkdir()

        def one(stage: Stage) -> None:
            stage.put(Table(PEOPLE, [*rows[:2], last])).plan()

        return differences(expected, played(one, DuckDB(folder), folder / "root"))

    expected = played(lambda stage: stage.has(1, 2, 3).plan() and None, DuckDB(tmp_path), tmp_path / "root")

    assert play(tuple(rows[2])) == []
    found = play(row)
    assert any(line.startswith("plan 0, rows:") for line in found), found
    assert any(line.startswith("plan 0, refresh:") for line in found), (found, told)
