"""Tiers, blackouts and what schedules name: which schedule each sync runs by, and what is refused where."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from sync.errors import Problem
from sync.mapping import Schedule
from sync.project import examine, load
from sync.schedule import words

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "w.duckdb"

[destinations.files]
type = "file"
path = "out"

[schedules.daily]
at = "06:00"
timezone = "Europe/Berlin"
jitter = "30m"
blackout = ["sat,sun"]

[schedules.monthly]
at = "06:00"
on = 1
"""
MAPPING = """\
version: 1
cohort:
  name: vips
  source: { connection: warehouse, table: vips, key: id }
  refresh: { tier: daily }
syncs:
"""
SYNC = """\
  - name: {name}
    destination: files
    mode: mirror
    identifiers: [{{ to: email, from: email }}]
"""


def project(folder: Path, syncs: dict[str, str], *, mapping: str = MAPPING, config: str = "") -> Path:
    """A project with these syncs, each with its schedule; without one where that is empty."""
    (folder / "mappings").mkdir()
    (folder / "config.toml").write_text(CONFIG + config)
    written = "".join(
        SYNC.format(name=name) + (f"    schedule: {schedule}\n" if schedule else "")
        for name, schedule in syncs.items()
    )
    (folder / "mappings" / "vips.yaml").write_text(mapping + written)
    return folder


def schedules(folder: Path) -> dict[str, Schedule | None]:
    return {job.name: job.sync.schedule for job in load(folder).jobs()}


def problems(folder: Path) -> list[Problem]:
    return examine(folder)[1]


def test_a_sync_runs_by_its_cohorts_tier_and_its_own_schedule_wins(tmp_path: Path) -> None:
    found = schedules(project(tmp_path, {"one": "", "two": "{ every: 15m }"}))

    assert words(found["one"]) == "every day at 06:00 (Europe/Berlin), spread over 30m"
    assert words(found["two"]) == "every 15m"
    assert found["one"] is not None
    assert found["one"].blackout == ("sat,sun",)


def test_without_schedule_and_tier_a_sync_runs_on_request(tmp_path: Path) -> None:
    mapping = MAPPING.replace("  refresh: { tier: daily }\n", "")

    assert schedules(project(tmp_path, {"one": ""}, mapping=mapping)) == {"one": None}


def test_the_blackout_of_the_config_is_added_to_every_schedule_in_its_own_zone(tmp_path: Path) -> None:
    config = '[blackout]\nwindows = ["22:00-06:00", "12:00-13:00 UTC"]\ntimezone = "Australia/Perth"\n'
    found = schedules(project(tmp_path, {"one": "", "two": "{ after: one }"}, config=config))

    everywhere = ("22:00-06:00 Australia/Perth", "12:00-13:00 UTC")
    assert [s.blackout for s in found.values() if s is not None] == [("sat,sun", *everywhere), everywhere]


@pytest.mark.parametrize(
    ("schedule", "code", "key", "message", "fix"),
    [
        ("{ after: tow }", "HG140", "after", "no sync `tow`", "Did you mean `two`?"),
        ("{ after: one }", "HG141", "after", "one after one", "a time of its own"),
        ("{ dbt: { webhook: cloud } }", "HG140", "webhook", "no webhook `cloud`", "[webhooks.cloud]"),
        ("{ at: '06:00', on: funday }", "HG125", "on", "no weekday", ""),
        ("{ every: 1h, blackout: ['22:00-22:00'] }", "HG125", "blackout", "ends where it begins", ""),
        ("{ every: 1h, timezone: Mars/X, blackout: [sun] }", "HG125", "timezone", "no time zone", ""),
        ("{ every: 1h, blackout: [mon-sun] }", "HG125", "blackout", "whole week", ""),
        ("{ dbt: { webhook: cloud, run_results: r.json } }", "HG107", "dbt", "exactly one of", ""),
        ("{ source: { poll: 0s } }", "HG107", "poll", "at least 1", ""),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_at_its_place(
    tmp_path: Path, schedule: str, code: str, key: str, message: str, fix: str
) -> None:
    (problem,) = problems(project(tmp_path, {"one": schedule, "two": ""}))

    line = f"    schedule: {schedule}"
    assert (problem.code, problem.file, problem.line) == (code, "mappings/vips.yaml", 11)
    assert line[: problem.column - 1].rstrip("{ [").endswith(f"{key}:")
    assert message in problem.message
    assert fix in problem.fix


def test_syncs_that_wait_for_each_other_are_each_refused(tmp_path: Path) -> None:
    waits = {
        "one": "{ after: two }",
        "two": "{ after: three }",
        "three": "{ after: one }",
        "four": "{ after: one }",
    }
    found = problems(project(tmp_path, waits))

    assert [(p.code, p.line) for p in found] == [("HG141", 11), ("HG141", 16), ("HG141", 21)]
    assert "one after two after three after one" in found[0].message


def test_a_tier_that_is_not_configured_is_refused_at_its_place(tmp_path: Path) -> None:
    mapping = MAPPING.replace("tier: daily", "tier: dayly")
    (problem,) = problems(project(tmp_path, {"one": ""}, mapping=mapping))

    assert (problem.code, problem.line, problem.column) == ("HG140", 5, 20)
    assert problem.fix == "Did you mean `daily`?"


@pytest.mark.parametrize(
    ("config", "line", "message"),
    [
        ('[schedules.bad]\ncron = "99 * * * *"\n', 19, "no cron line"),
        ('[blackout]\nwindows = ["22-06"]\n', 19, "no weekday"),
        ('[blackout]\nwindows = ["sat"]\ntimezone = "Mars/X"\n', 20, "no time zone"),
        ('[schedules.bad]\nat = "06:00"\nafter = "one"\n', 20, "unknown key `after`"),
    ],
)
def test_a_schedule_or_blackout_of_the_config_that_cannot_be_is_refused_at_its_place(
    tmp_path: Path, config: str, line: int, message: str
) -> None:
    (problem,) = problems(project(tmp_path, {"one": "{ every: 1h }"}, config=config))

    assert (problem.file, problem.line) == ("config.toml", line)
    assert message in problem.message


def test_blackouts_that_leave_no_time_to_a_tier_are_refused_where_it_stands(tmp_path: Path) -> None:
    config = '[blackout]\nwindows = ["08:00-24:00"]\n[schedules.night]\nat = "03:00"\nblackout = ["00:00-08:00"]\n'
    (problem,) = problems(project(tmp_path, {"one": ""}, config=config))

    assert (problem.code, problem.file, problem.line) == ("HG125", "config.toml", 22)


def test_blackouts_that_together_leave_no_time_are_refused_in_the_mapping(tmp_path: Path) -> None:
    config = '[blackout]\nwindows = ["08:00-24:00"]\n'
    (problem,) = problems(project(tmp_path, {"one": "{ every: 1h, blackout: ['00:00-08:00'] }"}, config=config))

    assert (problem.code, problem.file, problem.line) == ("HG125", "mappings/vips.yaml", 11)
    assert "whole week" in problem.message


def test_a_source_that_cannot_tell_of_changes_is_refused_where_the_schedule_wants_it(tmp_path: Path) -> None:
    with duckdb.connect(str(tmp_path / "w.duckdb")) as warehouse:
        warehouse.execute("CREATE TABLE vips AS SELECT 1 AS id, 'a@acme.example' AS email")
    folder = project(tmp_path, {"one": "{ source: { poll: 15m } }"})
    assert load(folder).validate(offline=False) == []

    config = (folder / "config.toml").read_text()
    (folder / "config.toml").write_text(
        config.replace('path = "w.duckdb"', 'path = "w.duckdb"\ndirectories = ["d"]')
    )
    (problem,) = load(folder).validate(offline=False)
    assert (problem.code, problem.file, problem.line) == ("HG142", "mappings/vips.yaml", 11)
    assert "may read files outside of it" in problem.message
    assert load(folder).validate(offline=True) == []
