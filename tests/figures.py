"""Figures that tests measure, added up over all of them and printed when the run ends.

`figures.add("kills", 3)` counts; `figures.most("slowest recovery, s", 1.4)` keeps the largest. Workers of
pytest-xdist hand theirs to the process that started them. `docs/promises.md` quotes what is printed.
"""

from __future__ import annotations

from typing import Any

import pytest

_KEY = "headgate_figures"
_totals = pytest.StashKey[dict[str, float]]()


class Figures:
    """Named numbers of one process."""

    def __init__(self, totals: dict[str, float]) -> None:
        self._totals = totals

    def add(self, name: str, count: float = 1) -> None:
        """Count on."""
        self._totals[name] = self._totals.get(name, 0) + count

    def most(self, name: str, value: float) -> None:
        """Keep the largest; its name says `most` or `slowest`, which is how workers' figures are joined."""
        self._totals[name] = max(self._totals.get(name, value), value)


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> Figures:
    """The figures of this test run."""
    return Figures(_of(pytestconfig))


def _of(config: pytest.Config) -> dict[str, float]:
    return config.stash.setdefault(_totals, {})


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker hands its figures on."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_KEY] = _of(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Join a worker's figures to ours."""
    totals = Figures(_of(node.config))
    for name, value in getattr(node, "workeroutput", {}).get(_KEY, {}).items():
        (totals.most if name.startswith(("most", "slowest")) else totals.add)(name, value)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print them."""
    totals = _of(config)
    if totals:
        terminalreporter.section("figures")
        for name, value in sorted(totals.items()):
            terminalreporter.write_line(f"{name}: {value:,.6g}" if value % 1 else f"{name}: {int(value):,}")
