"""A new project works as it is, documents every setting, and never overwrites anything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import duckdb
import pytest

from sync.errors import UsageError
from sync.project import load
from sync.settings import Settings, load_settings
from sync.templates import WAREHOUSE, example_folder, refresh_demo, write_project

ROOT = Path(__file__).parent.parent.parent


def everything_on(tmp_path: Path) -> Settings:
    """The example config with every setting that is commented out switched on, connections aside."""
    text = (ROOT / "config.example.toml").read_text()
    text = text[text.index("# --- guardrails") :]
    text = re.sub(r"^# (?=[\w-]+ = |\[)", "", text, flags=re.MULTILINE)
    (tmp_path / "config.toml").write_text(text)
    return load_settings(tmp_path)


def test_a_new_project_is_valid(tmp_path: Path) -> None:
    written = write_project(tmp_path / "new")

    assert [path.name for path in written] == ["config.toml", "README.md", "vip_customers.yaml", ".gitignore"]
    assert load(tmp_path / "new").validate(offline=True) == []


def test_every_example_mapping_fits_the_example_config(tmp_path: Path) -> None:
    write_project(tmp_path)
    text = (tmp_path / "config.toml").read_text()
    shown = ("[destinations.hubspot]", 'type = "hubspot"', 'token = "env:HUBSPOT_TOKEN"', "lifecycle-leads")
    for line in (*shown, "[alerts.slack]", 'url = "env:SLACK_URL"'):
        text = text.replace(f"# {line}", line)
    (tmp_path / "config.toml").write_text(text)
    for path in (ROOT / "mappings").glob("*.yaml"):
        (tmp_path / "mappings" / path.name).write_text(path.read_text())

    project = load(tmp_path)

    assert [sync.sync.name for sync in project.syncs()] == ["hubspot-winback", "crm-vip"]
    assert project.validate(offline=True) == []


def test_a_demo_project_is_valid_against_its_warehouse(tmp_path: Path) -> None:
    write_project(tmp_path / "demo", demo=True)

    assert load(tmp_path / "demo").validate(offline=False) == []


def test_the_demo_has_20_000_people_and_a_cohort_of_them(tmp_path: Path) -> None:
    write_project(tmp_path, demo=True)

    with duckdb.connect(str(tmp_path / WAREHOUSE)) as warehouse:
        people = "SELECT count(*), count(DISTINCT customer_id), count(DISTINCT email) FROM people"
        assert warehouse.execute(people).fetchall() == [(20_000, 20_000, 20_000)]
        (before, persons), *_ = warehouse.execute(
            "SELECT count(*), count(DISTINCT email) FROM marts.vip_customers"
        ).fetchall()
        assert before == persons > 10_000
        warehouse.execute("DELETE FROM people WHERE hash(customer_id) % 10 < 3")
    refresh_demo(tmp_path)

    with duckdb.connect(str(tmp_path / WAREHOUSE)) as warehouse:
        (after,) = warehouse.execute("SELECT count(*) FROM marts.vip_customers").fetchall()[0]
    assert 0.65 < after / before < 0.75


@pytest.mark.parametrize("name", ["config.toml", "mappings/vip_customers.yaml", ".gitignore", WAREHOUSE])
def test_nothing_is_overwritten_and_nothing_half_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")

    with pytest.raises(UsageError) as caught:
        write_project(tmp_path, demo=True)

    assert caught.value.code == "HG130"
    assert name in caught.value.message
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [tmp_path / name]
    assert (tmp_path / name).read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(UsageError) as caught:
        write_project(tmp_path / "file" / "project")

    assert caught.value.code == "HG131"


def test_the_example_config_names_every_setting(tmp_path: Path) -> None:
    given = everything_on(tmp_path)

    for section, field in Settings.model_fields.items():
        if section in ("sources", "destinations", "people", "alerts", "schedules", "webhooks"):
            continue
        model = field.annotation
        assert isinstance(model, type)
        missing = [key for key in model.model_fields if given.origin(f"{section}.{key}") == "default"]
        assert missing == [], section


def test_the_example_config_has_a_schedule_and_a_webhook(tmp_path: Path) -> None:
    given = everything_on(tmp_path)

    assert (given.schedules["daily"].at, given.schedules["daily"].on) == ("06:00", 1)
    assert given.webhooks["cloud"].secret == "env:DBT_WEBHOOK_SECRET"
    assert given.blackout == Settings.model_fields["blackout"].default


def test_the_example_config_shows_the_real_defaults(tmp_path: Path) -> None:
    given = everything_on(tmp_path)

    for section in ("engine", "plans", "delivery", "audit"):
        assert getattr(given, section) == Settings.model_fields[section].default
    shown = given.state.model_dump(exclude={"key"})  # which has no default
    assert shown == Settings.model_fields["state"].default.model_dump(exclude={"key"})
    ours = given.guardrails.model_dump(exclude={"allow_irreversible"})
    assert ours == Settings.model_fields["guardrails"].default.model_dump(exclude={"allow_irreversible"})
    without_default = {"repeat_after", "dead_man_url"}
    told = given.alerting.model_dump(exclude=without_default)
    assert told == Settings.model_fields["alerting"].default.model_dump(exclude=without_default)
    assert (given.alerts["slack"].url, given.alerts["slack"].format) == ("env:SLACK_URL", "text")
    assert given.people.groups == {"lifecycle-leads": ("ana@acme.example",)}


def test_the_example_files_are_found_in_the_checkout() -> None:
    assert example_folder() == ROOT


def test_the_wheel_carries_the_example_files() -> None:
    shared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert shared["shared-data"] == {
        "mappings": "share/headgate/mappings",
        "config.example.toml": "share/headgate/config.example.toml",
    }
