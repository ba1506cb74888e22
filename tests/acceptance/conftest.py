"""A sink and a project for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink, running


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    """A destination that behaves until a test tells it not to."""
    with running(tmp_path / "sink.jsonl") as started:
        yield started


@pytest.fixture
def project(tmp_path: Path, sink: Sink) -> Project:
    """A project whose cohort has 10,000 people and whose destination is the sink."""
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(folder, sink.url).write().people(10_000)
