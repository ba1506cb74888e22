"""A scene for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.acceptance.conftest import session_sink, sink  # noqa: F401 - fixtures
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.leaks.canaries import PERSON
from tests.leaks.scene import DESTINATION, ENVIRONMENT, Scene

PEOPLE = 60


@pytest.fixture
def scene(tmp_path: Path, sink: Sink) -> Scene:
    """Sixty people, of whom one is the canary; nothing was sent yet."""
    project = Project(tmp_path / "project", sink.url, destination=DESTINATION, environment=dict(ENVIRONMENT))
    project.write().people(PEOPLE)
    values = {name: canary.text for name, canary in PERSON.items()}
    project.sql(
        f"UPDATE vip_cohort SET email = '{values['email']}', phone = '{values['phone']}', "
        f"first_name = '{values['name']}' WHERE user_id % 30 = 1"
    )
    return Scene(project, sink)


@pytest.fixture
def delivered(scene: Scene) -> Scene:
    """The same after its first run."""
    assert scene.do("run", "--first-run", "--json").code == 0
    return scene
