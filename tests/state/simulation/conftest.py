"""The machine that all histories of a process share goes when its tests are over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.state.simulation.history import machine


@pytest.fixture(scope="session", autouse=True)
def tidy() -> Iterator[None]:
    """Let go of it."""
    yield
    if machine.cache_info().currsize:
        machine().close()
        machine.cache_clear()
