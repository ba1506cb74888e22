"""What is written is its owner's, whatever the umask, also while a run is at work."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync.cli.context import opened
from sync.cli.doctor import permissions
from sync.cli.options import Options
from sync.engine.database import open_database
from tests.acceptance import faults
from tests.figures import Figures
from tests.leaks.scene import Scene


@pytest.fixture
def no_umask() -> Iterator[None]:
    """Nothing is taken from the modes that programs ask for."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    """Everything in the folder that others may read, write or enter."""
    found = {}
    for path in (folder, *folder.rglob("*")):
        try:
            mode = stat.S_IMODE(path.lstat().st_mode)
        except FileNotFoundError:  # a temporary file that is gone again
            continue
        if mode & 0o077:
            found[str(path.relative_to(folder.parent))] = oct(mode)
    return found


@pytest.mark.usefixtures("no_umask")
def test_state_files_are_their_owners_during_a_run_and_after(scene: Scene, figures: Figures) -> None:
    state, seen = scene.project.root / ".headgate", list[dict[str, str]]()
    names: set[str] = set()

    def look() -> None:
        seen.append(modes(state))
        names.update(path.name for path in state.rglob("*"))

    assert scene.do("plan", "--out", "plans.json").code == 3
    scene.sink.faults = (faults.when(1, look), faults.at([2], faults.SERVER_ERROR))
    scene.do("run", "--first-run")
    look()
    scene.sink.faults = (faults.poison_records([1], 422),)
    scene.project.sql("UPDATE vip_cohort SET score = 1 WHERE user_id < 9")
    scene.do("run")
    look()

    assert seen == [{}, {}, {}]
    assert {"ledger.db", "ledger.db-wal", "ledger.db-shm", "members", "plans", "rejected"} <= names
    assert (scene.project.root / "plans.json").stat().st_mode & 0o077 == 0
    assert modes(scene.project.root / "checkpoints") == {}
    figures.add("leaks: state files whose mode was looked at", len(names))


@pytest.mark.usefixtures("no_umask")
def test_what_a_query_spills_is_its_owners(scene: Scene) -> None:
    with opened(Options(project=scene.project.root)) as session, open_database(session.engine) as connection:
        connection.execute("SET memory_limit = '30MB'")
        values = "SELECT hash(i)::VARCHAR || hash(i + 1) AS v FROM range(2000000) r(i)"
        connection.execute(f"CREATE TEMP TABLE big AS {values}")
        spilled = [p.name for p in (session.engine.folder / "tmp").rglob("*") if p.is_file()]

        assert spilled != []
        assert modes(session.engine.folder) == {}


@pytest.mark.usefixtures("no_umask")
def test_schemas_leave_a_state_folder_that_others_cannot_enter(scene: Scene) -> None:
    assert scene.do("schema").code == 0

    assert stat.S_IMODE((scene.project.root / ".headgate").stat().st_mode) == 0o700


def test_the_umask_of_whoever_calls_us_is_left_as_it_was(scene: Scene) -> None:
    before = os.umask(0o022)
    os.umask(before)
    with opened(Options(project=scene.project.root)):
        pass
    now = os.umask(before)

    assert now == before


def test_the_doctor_tells_of_files_that_others_may_read(delivered: Scene) -> None:
    state = delivered.project.root / ".headgate"
    assert permissions(state).ok
    assert not permissions(state).warning
    (state / "ledger.db").chmod(0o644)
    inside = permissions(state)
    state.chmod(0o755)

    assert inside.warning
    assert "ledger.db" in inside.message
    assert not permissions(state).ok


def test_the_doctor_tells_of_a_secret_that_others_may_read(scene: Scene) -> None:
    secret = scene.project.root / "token.txt"
    secret.write_text("a-token-in-a-file")
    scene.project.destination = 'secret = "file:token.txt"'
    scene.project.write()
    secret.chmod(0o644)
    loose = {c["name"]: c for c in scene.do("doctor", "--json").json["checks"]}["secret files"]
    secret.chmod(0o600)
    tight = {c["name"]: c for c in scene.do("doctor", "--json").json["checks"]}["secret files"]

    assert loose["warning"]
    assert "token.txt" in loose["message"]
    assert not tight["warning"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_a_crash_leaves_no_core_and_the_arguments_no_secret(scene: Scene) -> None:
    scene.project.batch_size = 1
    scene.project.write()
    scene.sink.latency = 0.2
    process = scene.project.start("run", "--first-run")
    found: list[tuple[str, str]] = []

    def look() -> None:
        about = Path("/proc") / str(process.pid)
        found.append(((about / "limits").read_text(), (about / "cmdline").read_text()))

    scene.sink.faults = (faults.when(1, look), faults.when(2, process.terminate))
    scene.end(process, "run")

    ((limits, arguments),) = found
    core = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert core.split()[4] == "0"
    assert "canary" not in arguments
