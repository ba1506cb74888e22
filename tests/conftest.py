"""What every test starts from: none of our variables, no forced colour, and no log that an earlier test set up."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator

import pytest

pytest_plugins = [
    "tests.examples", "tests.figures", "tests.servers", "tests.snowflake", "tests.integration.unleash_server",
]  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a third of the time tests wait for other processes."""
    return len(os.sched_getaffinity(0)) + 1 if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take Headgate's own variables, and what decides on colour, out of the environment."""
    for name in list(os.environ):
        if name.startswith("HEADGATE") or name in ("FORCE_COLOR", "NO_COLOR", "CLICOLOR"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def log_of_its_own() -> Iterator[None]:
    """Forget where a test's command sent the log: pytest closes that stream when the test ends."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    if "structlog" in sys.modules:
        sys.modules["structlog"].reset_defaults()
