"""Whatever ends an erasure half-way, to repeat it finishes it, and nobody else is lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from sync.engine import purge
from sync.engine.forget import forget
from sync.sdk.nouns import Status
from sync.state.erasures import ErasureState
from tests.figures import Figures
from tests.state.fragile import Crash, Fragile
from tests.state.test_erasure import WHO, asked, where
from tests.state.test_resume import as_a_process_that_is_gone
from tests.state.world import SYNC, World, dead_holder, some


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world where the person is a member with a rejected update, in two plans and in a delta over a base."""
    world = World(tmp_path_factory.mktemp("erasure"))
    world.people(30).run()
    world.desk.answers.append(some(Status.REJECTED, reason=f"{WHO} is blocked"))
    world.sql("UPDATE vips SET name = 'New' WHERE id IN (3, 4)").run()
    assert len(where(world, WHO)) >= 4
    world.close()
    return world.root


def copy_of(template: Path, folder: Path) -> World:
    """A world that goes on from there, with a destination that has everybody."""
    shutil.copytree(template, folder)
    world = World(folder).people(30)
    world.sql("UPDATE vips SET name = 'New' WHERE id = 4")
    world.desk.members = {email: dict(row) for email, row in world.source().items()}
    return world


def finish(world: World, why: str) -> None:
    """Repeat the command, unless a run has to be finished, and run: only the person is gone."""
    world.desk.forget()
    for left in (world.root / "state" / "tmp").glob("copies-*"):  # of a process that is gone, in this story
        left.rename(left.with_name(f"copies-{quote(dead_holder(), safe='')}"))
    if world.ledger.open_run(SYNC) is None:
        forget(asked(world))
    report = world.run()

    parts = world.ledger.erasure_parts()
    assert {part.state for part in parts} == {ErasureState.ERASED}, why
    assert where(world, WHO) == [], why
    assert report.status == "completed", f"{why}: {report}"
    others = {email for email in world.source() if email != WHO}
    assert set(world.desk.members) == set(world.members()) == others, why
    assert len(world.ledger.erasures()) == 1, why
    for generation in world.ledger.generations(SYNC):
        assert all((world.root / "state" / "members" / SYNC / n).is_file() for n in generation.digests), why
    world.close()


def dies(work: Callable[[], Any]) -> bool:
    """Does it end by a crash."""
    try:
        work()
    except Crash:
        return True
    return False


pytestmark = pytest.mark.timeout(600)  # dozens of crashes each

SIDES = [
    pytest.param((False, True), id="before-or-after"),
    pytest.param((False, False), id="before", marks=pytest.mark.endless),
    pytest.param((True, True), id="after", marks=pytest.mark.endless),
]
"""Whether the step at which it ends is done; by turns, or always."""


@pytest.mark.parametrize("committed", SIDES)
def test_a_crash_at_any_write_of_the_ledger_leaves_nothing_half_done(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures, committed: tuple[bool, bool]
) -> None:
    gone, seen = dead_holder(), set()
    for at in range(1, 60):
        world = copy_of(template, tmp_path / str(at))
        fragile = Fragile(world.ledger, at, committed=committed[at % 2])

        def work(world: World = world, state: Any = fragile) -> None:
            forget(asked(world, state=state))
            world.run(state)

        with as_a_process_that_is_gone(monkeypatch, gone):
            crashed = dies(work)
        if not crashed:
            world.close()
            break
        figures.add("crashes of an erasure")
        seen.add(fragile.writes[-1])
        finish(world, f"crash at {at}, {fragile.writes[-1]}")
    assert seen >= {"acquire", "forget", "rewrite", "unquote", "open", "finish", "end_erasure"}


@pytest.mark.parametrize("written", SIDES)
def test_a_crash_at_any_file_leaves_nothing_half_done(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, figures: Figures, written: tuple[bool, bool]
) -> None:
    gone, done = dead_holder(), 0
    for at in range(1, 60):
        world = copy_of(template, tmp_path / str(at))
        left, after = [at], written[at % 2]

        def crashing(real: Callable[..., Any], left: list[int] = left, after: bool = after) -> Callable[..., Any]:
            def step(*arguments: Any, **options: Any) -> Any:
                left[0] -= 1
                if left[0] == 0 and not after:
                    raise Crash("file")
                result = real(*arguments, **options)
                if left[0] == 0:
                    raise Crash("file")
                return result

            return step

        def work(world: World = world) -> None:
            forget(asked(world))
            world.run()

        with as_a_process_that_is_gone(monkeypatch, gone), monkeypatch.context() as patch:
            patch.setattr(purge, "publish", crashing(purge.publish))
            patch.setattr(purge, "collect_orphans", crashing(purge.collect_orphans))
            patch.setattr(Path, "unlink", crashing(Path.unlink))
            crashed = dies(work)
        if not crashed:
            world.close()
            break
        done += 1
        figures.add("crashes of an erasure")
        finish(world, f"crash at file {at}")
    assert done >= 8
