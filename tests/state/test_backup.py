"""A backup has everything that its ledger needs, or there is none; what cannot be read of it is told apart."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from sync.errors import Corrupt, StateError
from sync.state import backup
from sync.state.backup import Manifest, back_up, read_backup
from sync.state.nouns import Event
from sync.state.restoring import restore
from tests.state.world import SYNC, World, applied_then


def made(world: World) -> Manifest:
    return back_up(world.root / "state", world.root / "backup.zip", world.ledger.now())


def once(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Let something happen between the first copy of the ledger and the archive."""
    left = [do]

    def reached(point: str) -> None:
        if point == "backup.snapshot" and left:
            left.pop()()

    monkeypatch.setattr(backup, "reached", reached)


def base(world: World) -> Path:
    return world.root / "state" / "members" / SYNC / str(world.ledger.generation(SYNC).base)


def rewritten(world: World) -> None:
    """What an erasure does: another file of members takes the place of the one there is."""
    before = base(world)
    after = before.with_name("base-1-0000abcd.parquet")
    shutil.copy2(before, after)
    with closing(sqlite3.connect(world.ledger.path)) as connection, connection:
        connection.execute("UPDATE generation SET base = ?", [after.name])
    before.unlink()


def test_members_that_are_rewritten_meanwhile_are_in_the_backup(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.run().status == "completed"
    once(monkeypatch, lambda: rewritten(world))

    manifest = made(world)

    assert f"members/{SYNC}/{base(world).name}" in manifest.files
    assert read_backup(world.root / "backup.zip") == manifest


def test_there_is_no_backup_without_the_current_members(world: World) -> None:
    assert world.run().status == "completed"
    base(world).unlink()

    with pytest.raises(Corrupt, match=f"base-1-.*{SYNC}.* is missing") as raised:
        made(world)

    assert raised.value.code == "HG303"
    assert f"state reset {SYNC}" in raised.value.fix
    assert list(world.root.glob("*backup*")) == []


def test_there_is_no_backup_without_the_plan_of_an_interrupted_run(world: World) -> None:
    world.limited(batch_size=4).desk.answers.extend([None, applied_then(KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        world.run()
    (plan,) = (world.root / "state" / "plans" / SYNC).glob("*.parquet")
    with closing(sqlite3.connect(world.ledger.path)) as connection, connection:
        connection.execute("UPDATE plan SET expires_at = 0")
    plan.unlink()

    with pytest.raises(Corrupt, match=f"{plan.name} of '{SYNC}' is missing"):
        made(world)


def test_a_backup_needs_no_earlier_members_nor_plans_that_are_over(world: World) -> None:
    assert world.run().status == "completed"
    first = base(world)
    assert world.people(30).run().status == "completed"
    assert base(world) != first
    shutil.rmtree(world.root / "state" / "plans")
    first.unlink()

    manifest = made(world)

    assert {name.partition("/")[0] for name in manifest.files} >= {"ledger.db", "members"}
    assert read_backup(world.root / "backup.zip") == manifest


def restored(world: World) -> list[str]:
    """Put the backup into a new place; returns the syncs that were paused."""
    archive, event = world.root / "backup.zip", Event("ann", "state.restored", "", {})
    told: dict[str, Any] = {"record": lambda *_: None, "event": event, "pause": "what was sent since is not known"}
    paused, _ = restore(archive, read_backup(archive), world.root / "new", "x", over=False, **told)
    return paused


def test_what_lacks_the_current_members_is_not_restored(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.run().status == "completed"
    monkeypatch.setattr(backup, "_NEEDED", "SELECT '' WHERE :at < 0")
    file = base(world)
    kept = file.read_bytes()
    file.unlink()
    made(world)
    monkeypatch.undo()

    with pytest.raises(Corrupt, match=f"{file.name} is not in it") as raised:
        restored(world)

    assert raised.value.code == "HG348"
    assert list((world.root / "new").iterdir()) == [], "nothing was changed"
    file.write_bytes(kept)
    (world.root / "backup.zip").unlink()
    made(world)
    assert restored(world) == [SYNC]


@contextmanager
def no_file_larger(size: int) -> Iterator[None]:
    """Files cannot grow past so many bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_at_the_target_is_not_a_damaged_ledger(world: World) -> None:
    at = world.ledger.now()

    with no_file_larger(40_000), pytest.raises(StateError) as raised:
        back_up(world.root / "state", world.root / "backup.zip", at)

    assert raised.value.code == "HG347"
    assert "could not be written" in raised.value.message
    assert not isinstance(raised.value, Corrupt)
    assert list(world.root.glob("*backup*")) == []


def test_a_damaged_ledger_is_told_as_one(world: World) -> None:
    world.ledger.close()
    with (world.root / "state" / "ledger.db").open("r+b") as file:
        file.write(b"x" * 100)

    with pytest.raises(Corrupt) as raised:
        back_up(world.root / "state", world.root / "backup.zip", 0.0)

    assert raised.value.code == "HG315"


def altered(archive: Path, change: Callable[[bytearray, zipfile.ZipInfo], Any]) -> Path:
    """A copy of the archive in which something of the ledger's entry is another."""
    with zipfile.ZipFile(archive) as opened:
        entry = opened.getinfo("ledger.db")
    data = bytearray(archive.read_bytes())
    change(data, entry)
    copy = archive.with_name("altered.zip")
    copy.write_bytes(data)
    return copy


def central(data: bytearray) -> int:
    """Where the directory's entry of the ledger begins."""
    return data.rindex(b"PK\1\2", 0, data.rindex(b"ledger.db"))


def test_a_backup_with_a_bit_that_turned_is_a_damaged_one(world: World) -> None:
    made(world)

    def packed(data: bytearray, entry: zipfile.ZipInfo) -> None:
        data[entry.header_offset + 300] ^= 0xFF

    def method(to: int) -> Callable[[bytearray, zipfile.ZipInfo], None]:
        def change(data: bytearray, _: zipfile.ZipInfo) -> None:
            data[central(data) + 10] = to

        return change

    def encrypted(data: bytearray, _: zipfile.ZipInfo) -> None:
        data[central(data) + 8] ^= 1

    for change in (packed, method(zipfile.ZIP_BZIP2), method(zipfile.ZIP_LZMA), method(9), encrypted):
        with pytest.raises(Corrupt) as raised:
            read_backup(altered(world.root / "backup.zip", change))
        assert raised.value.code == "HG348"
        assert raised.value.fix == "take an older one"
