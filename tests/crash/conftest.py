"""A destination, projects whose first run is done, and the command run in them."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink, running
from tests.crash.forge import Forge
from tests.crash.ground import FAST, PEOPLE, Ground, GroundOf, Snapshot, copy_of
from tests.crash.plugin import install
from tests.crash.small import Settled, Small
from tests.figures import Figures


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


@pytest.fixture(scope="session")
def forge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forge]:
    """The helper, which also knows the connectors of `plugin`."""
    made = Forge(install(tmp_path_factory.mktemp("plugin")))
    yield made
    made.close()


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory, one_sink: Sink, forge: Forge, figures: Figures) -> Snapshot:
    """A project after its first run."""
    folder = tmp_path_factory.mktemp("snapshot") / "project"
    one_sink.begin(folder.with_suffix(".jsonl"))
    project = Project(folder, one_sink.url, batch_size=20, concurrency=2, extra=FAST).write().people(PEOPLE)
    done = Ground(project, one_sink, forge, figures).run("", "--first-run")
    assert done.code == 0, done.text
    return Snapshot(folder, dict(one_sink.members))


@pytest.fixture
def ground_of(
    snapshot: Snapshot, one_sink: Sink, forge: Forge, figures: Figures, tmp_path: Path
) -> Iterator[GroundOf]:
    """Makes projects; the destination is with the newest."""
    numbers = itertools.count()

    def make(*, fresh: bool = False) -> Ground:
        folder = tmp_path / f"project{next(numbers)}"
        if not fresh:
            return copy_of(snapshot, folder, one_sink, forge, figures)
        one_sink.begin(folder.with_suffix(".jsonl"))
        project = Project(folder, one_sink.url, batch_size=20, concurrency=2, extra=FAST)
        return Ground(project.write().people(PEOPLE), one_sink, forge, figures)

    yield make
    forge.end_all()
