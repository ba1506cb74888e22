"""The simulation bites: with any one rule of the protocol taken out, some of the same histories go wrong."""

from __future__ import annotations

import pytest

from tests.figures import Figures
from tests.state.simulation.history import Script, play
from tests.state.simulation.mutants import MUTANTS, Mutant
from tests.state.simulation.test_simulation import HISTORIES

BUDGET = 300
"""In how many histories that fit it a mutant must be noticed."""

REQUIRED = {
    "no fencing",
    "no send guard",
    "no barrier",
    "no intent",
    "acknowledged before the answer",
    "a partial answer speaks for the whole batch",
    "429 is taken as applied",
    "a batch is derived again on replay",
    "a new key on replay",
    "no dirty set",
    "folded before it is acknowledged",
    "a rejected record is marked as synced",
}


def _scripts(mutant: Mutant) -> list[Script]:
    """Those that the unharmed protocol passes, planned without DuckDB, and fit to show the mutant."""
    scripts = (Script.of(seed) for seed in range(HISTORIES) if seed)
    return [script for script in scripts if not script.duckdb and mutant.fits(script)][:BUDGET]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.name.replace(" ", "-"))
def test_the_simulation_notices(mutant: Mutant, figures: Figures) -> None:
    for played, script in enumerate(_scripts(mutant), 1):
        try:
            with mutant.applied():
                play(script)
        except AssertionError:
            figures.add("mutants of the protocol noticed")
            figures.most("most histories until a mutant was noticed", played)
            return
    pytest.fail(f"{BUDGET} histories went well with {mutant.name}")


def test_every_rule_that_the_protocol_is_made_of_has_its_mutant() -> None:
    names = [mutant.name for mutant in MUTANTS]

    assert set(names) >= REQUIRED
    assert len(names) == len(set(names))
