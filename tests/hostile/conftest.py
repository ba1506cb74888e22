"""Stages: a sync to an object of an installed connector, whose destination is a server of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from sync.logging import register_secret
from tests.hostile.server import Liar
from tests.hostile.stage import Scenario, Stage
from tests.hostile.stands import SECRETS, Stand, stands

STANDS: dict[str, Stand] = {stand.name: stand for stand in stands()}


@pytest.fixture
def staged(tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Makes the stage of a scenario: its first run has gone well, and the changes are waiting."""
    for secret in SECRETS:  # as the project does for those it resolves
        register_secret(secret)
    with ExitStack() as stack:

        def make(stand: Stand, scenario: Scenario, **options: Any) -> Stage:
            liar = stack.enter_context(Liar(stand.app).serving())
            root = tmp_path / str(len(list(tmp_path.iterdir())))
            root.mkdir()
            stage = Stage(root, stand=stand, liar=liar)
            stack.callback(stage.close)
            stand.reset([*scenario.others, *scenario.people])
            scenario.before(stage)
            report = stage.runs()
            assert (report.status, report.undelivered) == ("completed", 0), report
            scenario.after(stage)
            stage.later()
            stage.begin(**options)
            return stage

        yield make
