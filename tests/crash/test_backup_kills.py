"""Backups made while a daemon works, restored elsewhere, and killed at every point: nothing is lost or doubled."""

from __future__ import annotations

import shutil
import signal
import stat
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sync.state.ledger import open_ledger
from tests.crash.ground import SYNC, Ground, GroundOf

OF_RETENTION = ("prune.before", "prune.after", "retention.pruned")
OF_A_BACKUP = ("backup.snapshot", "backup.written")
OF_A_RESTORE = ("restore.marked", "restore.emptied", "restore.file", "restore.adapted")

pytestmark = pytest.mark.timeout(180)


def day(*values: object) -> Any:
    """A case that CI tries."""
    return pytest.param(*values, marks=pytest.mark.slow)


def night(*values: object) -> Any:
    """A case that is tried at night only."""
    return pytest.param(*values, marks=pytest.mark.endless)


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def backup(ground: Ground, name: str = "backup.zip") -> Path:
    done = ground.headgate("state", "backup", name, "--json")
    assert done.code == 0, done.text
    return ground.project.root / name


def restore(ground: Ground, *options: str, fault: str = "") -> int:
    words = ("state", "restore", "backup.zip", "--reason", "the disk failed", *options)
    return ground.start(*words, fault=fault).wait().code


def lost(ground: Ground) -> None:
    """The machine is gone; the project's files and the backup are elsewhere."""
    shutil.rmtree(ground.project.root / ".headgate")


def resumed_and_run(ground: Ground) -> None:
    refused = ground.run("", SYNC)
    assert refused.code == 1, "a destination may be ahead: a person has to say that it is right"
    assert ground.headgate("resume", SYNC).code == 0
    done = ground.again()
    assert done.code == 0, done.text
    assert ground.at_the_destination() == ground.truth()
    assert ground.members() == set(ground.truth())


@pytest.mark.parametrize("point", [night("prune.before"), night("prune.after"), day("retention.pruned")])
def test_a_run_killed_while_it_deletes_what_is_old_loses_nothing(ground_of: GroundOf, point: str) -> None:
    ground = ground_of(fresh=True)

    assert ground.run(f"{point}:1:kill", "--first-run").code == -9
    ground.looked_after()
    assert ground.again("--first-run").code == 0

    ground.in_step()


@pytest.mark.endless
def test_a_backup_is_for_its_owner_only_and_leaves_nothing_beside_it(ground_of: GroundOf) -> None:
    ground = ground_of()
    made = backup(ground)

    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert list(made.parent.glob(".backup*")) == []
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
    assert "ledger.db" in names
    assert any(name.startswith(f"members/{SYNC}/") for name in names)
    again = ground.headgate("state", "backup", "backup.zip")
    assert again.code == 2, "it writes over nothing"


@pytest.mark.slow
def test_a_backup_made_while_a_daemon_works_can_be_restored_elsewhere(ground_of: GroundOf) -> None:
    ground = ground_of()
    ground.project.more = "    schedule: { every: 1s }\n"
    ground.project.write()
    ground.sink.latency = 0.2
    ground.change()
    before = ground.sink.count
    daemon = ground.start("daemon")
    until(lambda: ground.sink.count >= before + 2)

    made = backup(ground)
    ground.sink.latency = 0.0
    until(lambda: ground.at_the_destination() == ground.truth())
    daemon.send(signal.SIGTERM)
    assert daemon.wait().code == 0
    with zipfile.ZipFile(made) as archive:
        (ground.project.root / "copy.db").write_bytes(archive.read("ledger.db"))
    with open_ledger(ground.project.root / "copy.db") as ledger:
        assert ledger.open_run(SYNC) is not None, "it was made in the middle of a run"

    lost(ground)
    assert restore(ground) == 0
    ground.project.more_people(5000, 7)
    resumed_and_run(ground)


@pytest.mark.endless
def test_a_backup_of_a_machine_that_rests_is_restored_in_step(ground_of: GroundOf) -> None:
    ground = ground_of()
    backup(ground)
    lost(ground)
    sent = ground.sink.count

    assert restore(ground, "--in-step") == 0
    assert ground.again().code == 0
    assert ground.sink.count == sent, "nobody is sent again"
    assert "state.restored" in ground.headgate("audit", "export").out


@pytest.mark.endless
def test_a_backup_made_while_somebody_is_forgotten_has_everybody_else(ground_of: GroundOf) -> None:
    ground = ground_of()
    making = ground.start("state", "backup", "backup.zip", fault="backup.snapshot:1:stop")
    until(lambda: making.state == "T")
    forget = ("person", "person77@mail.example", "--forget", "--reason", "ticket 4711")
    assert ground.headgate(*forget).code == 0
    assert ground.run("", SYNC).code == 0

    making.send(signal.SIGCONT)
    assert making.wait().code == 0

    everybody_else = ground.members()
    lost(ground)
    assert restore(ground, "--in-step") == 0
    assert ground.members() == everybody_else == set(ground.truth()) - {77}
    sent = ground.sink.count
    assert ground.run("", SYNC).code == 0
    assert ground.sink.count == sent, "nobody is sent again"


@pytest.mark.slow
def test_a_restore_goes_over_no_state_without_leave_and_keeps_what_was_there(ground_of: GroundOf) -> None:
    ground = ground_of()
    backup(ground)
    ground.change()
    assert ground.run().code == 0

    assert restore(ground) == 1
    assert restore(ground, "--over") == 0

    (aside,) = ground.project.root.glob(".headgate-before-*")
    assert (aside / "ledger.db").is_file()
    assert (aside / "members" / SYNC).is_dir()
    resumed_and_run(ground)


@pytest.mark.endless
def test_a_restore_is_refused_while_a_daemon_has_the_ledger_open(ground_of: GroundOf) -> None:
    ground = ground_of()
    backup(ground)
    daemon = ground.start("daemon")
    until(lambda: '"started"' in daemon.stem.with_suffix(".err").read_text())

    assert restore(ground, "--over") == 1
    daemon.send(signal.SIGTERM)
    assert daemon.wait().code == 0

    assert list(ground.project.root.glob(".headgate-before-*")) == []
    assert ground.again().code == 0
    ground.in_step()


@pytest.mark.parametrize("where", [day("cut"), night("turned"), day("another file"), night("no archive")])
def test_a_backup_that_is_not_what_was_written_changes_nothing(ground_of: GroundOf, where: str) -> None:
    ground = ground_of()
    made = backup(ground)
    whole = made.read_bytes()
    if where == "cut":
        made.write_bytes(whole[: len(whole) * 2 // 3])
    elif where == "turned":
        middle = whole.index(b"PAR1") + 40
        made.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    elif where == "another file":
        with zipfile.ZipFile(made, "a") as archive:
            archive.writestr("../outside.txt", "x")
    else:
        made.write_bytes(b"not an archive")

    done = ground.headgate("state", "restore", "backup.zip", "--reason", "a test", "--over")

    assert done.code == 1
    assert "HG348" in done.text
    assert not (ground.project.root / "outside.txt").exists()
    assert list(ground.project.root.glob(".headgate-before-*")) == []
    assert ground.again().code == 0
    ground.in_step()


@pytest.mark.parametrize("point", [night("backup.snapshot"), day("backup.written")])
def test_a_killed_backup_leaves_no_half_archive(ground_of: GroundOf, point: str) -> None:
    ground = ground_of()

    assert ground.headgate("state", "backup", "backup.zip", fault=f"{point}:1:kill").code == -9
    assert not (ground.project.root / "backup.zip").exists()
    backup(ground)

    assert list(ground.project.root.glob(".backup*")) == []
    lost(ground)
    assert restore(ground, "--in-step") == 0
    assert ground.again().code == 0
    ground.in_step()


@pytest.mark.parametrize(
    ("point", "over"),
    [day("restore.file", True)]
    + [night(p, o) for p in OF_A_RESTORE for o in (False, True) if (p, o) != ("restore.file", True)],
)
def test_a_killed_restore_lets_nobody_run_before_it_is_finished(
    ground_of: GroundOf, point: str, over: bool
) -> None:
    ground = ground_of()
    backup(ground)
    if not over:
        lost(ground)
    options = ("--over",) if over else ()

    assert restore(ground, *options, fault=f"{point}:1:kill") == -9
    refused = ground.run()
    assert refused.code == 1
    assert "HG349" in refused.text
    assert restore(ground, *options) == 0

    if over:
        (aside,) = ground.project.root.glob(".headgate-before-*")
        assert (aside / "ledger.db").is_file()
        assert (aside / "members" / SYNC).is_dir()
    ground.change()
    resumed_and_run(ground)
