"""Histories that nobody picked: repeats, gaps, collisions, decisions and outcomes; the same plans everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from sync.errors import ProtocolError
from sync.state.nouns import Decision
from tests.examples import examples
from tests.parity.kinds import Table
from tests.parity.playing import Warehouses, differences, played
from tests.parity.scenarios import refusing
from tests.parity.stage import PEOPLE, Stage
from tests.parity.test_equal_plans import DEAREST, PLACES
from tests.parity.warehouses import DuckDB

EMAILS = ["a@x.example", "b@x.example", "c@x.example", "d@x.example", " A@X.example", "", None]
ROWS = some.tuples(
    some.sampled_from([1, 2, 3, 4, 5, 6, 7, 8, None]),
    some.sampled_from(EMAILS),
    some.sampled_from(["Ann", "Ben", "\u00e9", None]),
    some.sampled_from([0, 1, None]),
)


@dataclass(frozen=True)
class Step:
    """A refresh of the cohort, and what is done with it."""

    rows: list[Any]
    does: str

    def take(self, stage: Stage) -> None:
        """Do it; a plan that is held is decided on."""
        stage.put(Table(PEOPLE, self.rows))
        stage.desk.always = refusing("b@x.example") if self.does == "refused" else None
        stage.desk.answers.clear()
        if self.does == "lost":
            stage.desk.answers.append(ProtocolError("what is this"))
        if self.does == "planned":
            stage.plan()
            return
        report = stage.run(first_run=False)
        if report.status == "held" and self.does != "left":
            stage.decide(Decision.APPROVE_WITHOUT_REMOVALS if self.does == "kept" else Decision.APPROVE)
            stage.run(first_run=False)


@dataclass(frozen=True)
class History:
    """Refreshes of one cohort, synced in one mode. With distinct keys only the values can be odd."""

    mode: str
    tolerated: int
    distinct: bool
    steps: list[Step]

    def play(self, stage: Stage) -> None:
        """All of it."""
        stage.mode = self.mode
        stage.identifiers = [{"to": "email", "from": "email", "transform": ["trim", "lower"]}]
        stage.guardrails = replace(stage.guardrails, max_bad_keys=self.tolerated, max_removed=3)
        for step in self.steps:
            rows = step.rows if not self.distinct else list({row[0]: row for row in step.rows if row[0]}.values())
            replace(step, rows=rows).take(stage)


STEPS = some.builds(
    Step,
    some.lists(ROWS, max_size=9),
    some.sampled_from(["run", "run", "run", "planned", "refused", "lost", "kept", "left"]),
)
HISTORIES = some.builds(
    History,
    some.sampled_from(["mirror", "mirror", "upsert", "insert", "update"]),
    some.sampled_from([0, 9]),
    some.booleans(),
    some.lists(STEPS, min_size=2, max_size=4),
)


Agreed = Callable[[History, Sequence[str]], None]


@pytest.fixture
def agreed(warehouses: Warehouses, tmp_path_factory: pytest.TempPathFactory) -> Agreed:
    """Play a history in these places."""

    def play(history: History, places: Sequence[str]) -> None:
        folder = tmp_path_factory.mktemp("history")
        expected = played(history.play, DuckDB(folder), folder / "duckdb")
        for place in places:
            name, _, pushed = place.partition(", ")
            found = played(history.play, warehouses(name), folder / place, pushed=bool(pushed))
            assert (place, differences(expected, found, pushed=bool(pushed))) == (place, [])

    return play


@examples(3)
@given(HISTORIES)
def test_a_random_history_is_the_same_everywhere(agreed: Agreed, history: History) -> None:
    agreed(history, [place for place in PLACES if place != DEAREST])


@pytest.mark.endless
@examples(6)
@given(HISTORIES)
def test_many_random_histories_are_the_same_everywhere(agreed: Agreed, history: History) -> None:
    agreed(history, PLACES)
