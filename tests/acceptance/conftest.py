"""A sink and a project for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink, running


@dataclass(frozen=True)
class Snapshot:
    """A project after its first run, and whom the destination knows then."""

    folder: Path
    members: dict[Any, dict[str, Any]]


@pytest.fixture(scope="session")
def session_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    """One destination for the session, so that its port stays."""
    with running(tmp_path_factory.mktemp("sink") / "sink.jsonl") as started:
        yield started


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory, session_sink: Sink) -> Snapshot:
    """A first run of 10,000 people, made once."""
    folder = tmp_path_factory.mktemp("snapshot") / "project"
    session_sink.begin(folder.with_suffix(".jsonl"))
    Project(folder, session_sink.url).write().people(10_000).first_run()
    return Snapshot(folder, dict(session_sink.members))


@pytest.fixture
def sink(session_sink: Sink, tmp_path: Path) -> Sink:
    """A destination that behaves until a test tells it not to, and whose record is empty."""
    session_sink.begin(tmp_path / "sink.jsonl")
    return session_sink


@pytest.fixture
def project(tmp_path: Path, sink: Sink) -> Project:
    """A project whose cohort has 10,000 people and whose destination is the sink; nothing was sent yet."""
    return Project(tmp_path / "project", sink.url).write().people(10_000)


@pytest.fixture
def synced(snapshot: Snapshot, sink: Sink, tmp_path: Path) -> Project:
    """The same after its first run: the sink has the 10,000 people, and an empty record."""
    shutil.copytree(snapshot.folder, tmp_path / "project")
    sink.begin(tmp_path / "sink.jsonl", snapshot.members)
    return Project(tmp_path / "project", sink.url)
