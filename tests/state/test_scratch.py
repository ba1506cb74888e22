"""Copies of rows end with the process that made them, or with the next one."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from sync.engine.job import EngineSettings
from sync.engine.scratch import scratch
from sync.state.holder import is_over, me
from tests.state.world import dead_holder


def left_by(settings: EngineSettings, holder: str) -> Path:
    folder = settings.folder / "tmp" / f"copies-{quote(holder, safe='')}"
    folder.mkdir(parents=True)
    (folder / "spool.parquet").write_bytes(b"p1@x.example")
    return folder


def test_what_a_dead_process_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    settings = EngineSettings(tmp_path)
    left = left_by(settings, dead_holder())

    own = scratch(settings)

    assert own.is_dir()
    assert own.stat().st_mode & 0o777 == 0o700
    assert not left.exists()


def test_what_a_process_of_an_earlier_boot_left_is_removed(tmp_path: Path) -> None:
    settings = EngineSettings(tmp_path)
    host, pid, start, _ = me().split("/")
    left = left_by(settings, f"{host}/{pid}/{start}/11111111-2222:3:4")

    scratch(settings)

    assert not left.exists()


def test_what_a_living_process_works_with_stays(tmp_path: Path) -> None:
    settings = EngineSettings(tmp_path)
    mine = scratch(settings)
    (mine / "spool.parquet").write_bytes(b"rows")
    host, _, start, machine = me().split("/")
    boot, _, clocks = machine.split(":")
    another = left_by(settings, f"{host}/1/{start}/{boot}:1:{clocks}")  # of another container: nobody can tell

    assert scratch(settings) == mine
    assert (mine / "spool.parquet").exists()
    assert another.exists()


def test_this_process_is_not_over() -> None:
    assert not is_over(me())
    assert not is_over("nonsense")
