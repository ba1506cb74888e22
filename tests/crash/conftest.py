"""A small project, its destination, and the command run in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.sink import Sink, running
from tests.crash.small import Settled, Small


@pytest.fixture(scope="session")
def one_sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    """One destination for the session, so that its port stays."""
    with running(tmp_path_factory.mktemp("small-sink") / "sink.jsonl") as started:
        yield started


@pytest.fixture(scope="session")
def settled_once(tmp_path_factory: pytest.TempPathFactory, one_sink: Sink) -> Settled:
    """A project whose members are a base and a delta, made once."""
    folder = tmp_path_factory.mktemp("settled") / "project"
    one_sink.begin(folder.with_suffix(".jsonl"))
    small = Small(folder, one_sink.url).begun()
    small.here("run", "--first-run").succeeded()
    small.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    small.here("run").succeeded()
    return Settled(folder, dict(one_sink.members))


@pytest.fixture
def sink(one_sink: Sink, tmp_path: Path) -> Sink:
    """A destination that behaves until a test tells it not to, and whose record is empty."""
    one_sink.begin(tmp_path / "sink.jsonl")
    return one_sink


@pytest.fixture
def fresh(tmp_path: Path, sink: Sink) -> Small:
    """A project of which nothing was sent yet."""
    return Small(tmp_path / "project", sink.url).begun()


@pytest.fixture
def settled(settled_once: Settled, tmp_path: Path, sink: Sink) -> Small:
    """A project in step with its destination, whose record is empty."""
    shutil.copytree(settled_once.folder, tmp_path / "project")
    sink.begin(tmp_path / "sink.jsonl", settled_once.members)
    return Small(tmp_path / "project", sink.url)
