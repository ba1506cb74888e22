"""What a mapping asks of an object and of the clock, checked before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from sync.errors import Problem
from sync.project import examine

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "w.duckdb"

[destinations.files]
type = "file"
path = "out"
delivery = "{delivery}"
"""
MAPPING = """\
version: 1
cohort:
  name: vips
  source: {{ connection: warehouse, table: vips, key: id }}
syncs:
  - name: files-vips
    destination: files
    mode: {mode}
    identifiers:
      - {{ to: email, from: email }}
    fields:
      - {{ to: city, from: city }}
{more}"""


def problems(folder: Path, *, delivery: str = "delta", mode: str = "mirror", more: str = "") -> list[Problem]:
    (folder / "mappings").mkdir()
    (folder / "config.toml").write_text(CONFIG.format(delivery=delivery))
    (folder / "mappings" / "vips.yaml").write_text(MAPPING.format(mode=mode, more=more))
    return examine(folder)[1]


@pytest.mark.parametrize("mode", ["upsert", "insert", "update"])
def test_an_object_that_takes_whole_audiences_needs_a_mirror(tmp_path: Path, mode: str) -> None:
    (problem,) = problems(tmp_path, delivery="snapshot", mode=mode)
    assert (problem.code, problem.line, problem.column) == ("HG133", 8, 11)
    assert f"mode `{mode}` would remove people" in problem.message
    assert "mirror" in problem.fix


@pytest.mark.parametrize(("delivery", "mode"), [("snapshot", "mirror"), ("delta", "mirror"), ("delta", "upsert")])
def test_other_objects_and_modes_go_together(tmp_path: Path, delivery: str, mode: str) -> None:
    assert problems(tmp_path, delivery=delivery, mode=mode) == []


@pytest.mark.parametrize(
    ("schedule", "key", "message"),
    [
        ("{ cron: '99 * * * *' }", "cron", "99"),
        ("{ cron: '* * * *' }", "cron", "has 4 fields"),
        ("{ cron: '0 0 31 2 *' }", "cron", "never comes"),
        ("{ cron: '0 0 * * funday' }", "cron", "no weekday"),
        ("{ cron: '@never' }", "cron", "has 1 fields"),
        ("{ every: 0.5s }", "every", "at least one second"),
        ("{ every: 0 }", "every", "at least one second"),
        ("{ cron: '0 6 * * *', timezone: Mars/Olympus }", "timezone", "no time zone"),
    ],
)
def test_a_schedule_that_cannot_be_is_told_at_its_place(
    tmp_path: Path, schedule: str, key: str, message: str
) -> None:
    (problem,) = problems(tmp_path, more=f"    schedule: {schedule}\n")
    line = f"    schedule: {schedule}"
    assert (problem.code, problem.file, problem.line) == ("HG125", "mappings/vips.yaml", 13)
    assert line[problem.column - 1 :].strip().startswith(line.partition(f"{key}: ")[2][:2])
    assert message in problem.message


@pytest.mark.parametrize(
    "schedule", ["{ cron: '15 6 * * 1-5', timezone: Australia/Perth }", "{ cron: '@daily' }", "{ every: 15m }"]
)
def test_a_schedule_that_can_be_is_no_problem(tmp_path: Path, schedule: str) -> None:
    assert problems(tmp_path, more=f"    schedule: {schedule}\n") == []


@pytest.mark.parametrize("name", ["city", "City", "EMAIL"])
def test_a_name_is_mapped_once_whatever_its_case(tmp_path: Path, name: str) -> None:
    (problem,) = problems(tmp_path, more=f"      - {{ to: {name}, from: other }}\n")
    assert (problem.code, problem.line) == ("HG118", 13)
