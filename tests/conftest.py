"""What every test starts from: none of our variables, and no forced colour."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take Headgate's own variables out of the environment."""
    for name in list(os.environ):
        if name.startswith("HEADGATE"):
            monkeypatch.delenv(name)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
