"""Destinations by the command line: what they have, a new audience, and stand-ins to try them on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from sync.cli import app
from sync.sdk.http import build_client
from sync.sdk.nouns import Job, Op
from sync.sdk.registry import available, load
from sync.testing import samples
from sync.testing.fakes.hubspot import FakeHubSpot
from sync.testing.fakes.server import serve

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.crm]
type = "hubspot"
token = "env:TEST_HUBSPOT_TOKEN"
base_url = "{url}"

[destinations.hook]
type = "webhook"
url = "{url}"
"""
MAPPING = """\
version: 1
cohort:
  name: vip
  title: VIP customers
  owner: ana@acme.example
  source: { connection: warehouse, table: vip, key: user_id }
syncs:
  - name: crm-vip
    destination: crm
    object: list_member
    audience: "1"
    mode: mirror
    identifiers:
      - { to: email, from: email, pii: true }
    fields:
      - { to: firstname, from: first_name, pii: true }
"""


@dataclass
class Shop:
    """A project that sends to a HubSpot of its own."""

    folder: Path
    fake: FakeHubSpot
    capture: pytest.CaptureFixture[str]

    def run(self, *args: str, expect: int = 0) -> dict[str, Any]:
        """A command with `--json`, and what it answered."""
        self.capture.readouterr()
        code = app.run(["--project", str(self.folder), "--json", *args])
        out = self.capture.readouterr()
        assert code == expect, out
        document: dict[str, Any] = json.loads(out.out)
        return document

    def say(self, *args: str, expect: int = 0) -> str:
        """A command as people type it, and everything it printed."""
        self.capture.readouterr()
        code = app.run(["--project", str(self.folder), *args])
        out = self.capture.readouterr()
        assert code == expect, out
        return out.out + out.err


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    fake = FakeHubSpot("pat-test")
    fake.add_list("VIPs")
    for number in range(40):
        fake.add_contact(f"p{number}@acme.example")
    monkeypatch.setenv("TEST_HUBSPOT_TOKEN", "pat-test")
    monkeypatch.setenv("COLUMNS", "100")
    with serve(fake) as url:
        (tmp_path / "mappings").mkdir()
        (tmp_path / "config.toml").write_text(CONFIG.format(url=url))
        (tmp_path / "mappings" / "vip.yaml").write_text(MAPPING)
        with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
            warehouse.execute(
                "CREATE TABLE vip AS SELECT i AS user_id, 'p' || i || '@acme.example' AS email, "
                "'Ada' AS first_name FROM range(40) r(i)"
            )
        yield Shop(tmp_path, fake, capsys)


def test_the_fields_of_an_object_are_asked_of_the_account(shop: Shop) -> None:
    found = shop.run("destination", "fields", "crm", "contact")

    assert "firstname" in {field["name"] for field in found["fields"]}
    assert "firstname" in shop.say("destination", "fields", "crm", "contact")


def test_a_platform_that_cannot_tell_its_fields_is_said_to_be_one(shop: Shop) -> None:
    assert "HG531" in shop.say("destination", "fields", "hook", expect=1)


def test_which_object_is_asked_where_there_are_several(shop: Shop) -> None:
    said = shop.say("destination", "fields", "crm", expect=2)

    assert "contact, list_member" in said
    assert "did you mean 'crm'" in shop.say("destination", "fields", "crn", expect=2)


def test_an_audience_is_made_and_written_into_the_audit_log(shop: Shop) -> None:
    made = shop.run("destination", "create-audience", "crm", "Lapsed buyers", "--reason", "the spring campaign")

    assert made["audience"] in shop.fake.lists
    (event,) = shop.run("audit", "search", "--action", "audience.created")["events"]
    assert event["data"]["reason"] == "the spring campaign"
    assert event["data"]["audience"] == made["audience"]


def test_no_audience_is_made_without_a_reason_or_where_there_is_no_way(shop: Shop) -> None:
    before = len(shop.fake.lists)

    shop.say("destination", "create-audience", "crm", "Lapsed buyers", expect=2)
    shop.say("destination", "create-audience", "hook", "Lapsed buyers", "--reason", "spring", expect=2)

    assert len(shop.fake.lists) == before


def test_a_mapped_field_that_the_account_lacks_is_warned_of_with_its_place(shop: Shop) -> None:
    mapping = shop.folder / "mappings" / "vip.yaml"
    mapping.write_text(mapping.read_text().replace("to: firstname", "to: firstnme"))

    said = shop.say("validate")

    assert "HG134" in said
    assert "mappings/vip.yaml:16" in said
    assert "Did you mean `firstname`?" in said
    assert "HG134" not in shop.say("validate", "--offline")


def test_the_room_that_is_left_is_shown_by_status_and_by_the_doctor(shop: Shop) -> None:
    shop.run("run", "--first-run")

    status = shop.run("status")

    (account,) = status["accounts"]
    (rate,) = account["rates"]
    assert account["destinations"] == ["crm"]
    assert (rate["requests"], rate["per_s"]) == (100, 10)
    assert 0 < rate["used"] == 100 - rate["left"]
    assert f"{rate['left']} of 100 requests in 10s left" in shop.say("status")
    assert "of 100 requests in 10s left" in shop.say("doctor")
    assert "of 100 requests in 10s left" in shop.say("destination")


def test_a_destination_that_does_not_answer_is_shown_with_its_next_probe(shop: Shop) -> None:
    config = shop.folder / "config.toml"
    config.write_text(
        config.read_text()
        + "\n[delivery]\nrequest_timeout = 2.0\nattempts = 6\nbackoff_first = 0.01\nbackoff_max = 0.01\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeHubSpot, "__call__", lambda *_: httpx.Response(503))
        shop.run("run", "--first-run", expect=1)

    (account,) = shop.run("status")["accounts"]
    assert account["down_for_s"] is not None
    assert "has not answered for" in shop.say("doctor", "--offline")
    assert shop.run("run")["exit_code"] == 0
    (account,) = shop.run("status")["accounts"]
    assert account["down_for_s"] is None


# -- stand-ins


def _fakes() -> list[str]:
    folder = Path(__file__).parents[2] / "sync" / "testing" / "fakes"
    return sorted(name for name in available() if (folder / f"{name}.py").is_file())


def test_every_connector_that_speaks_http_has_a_stand_in() -> None:
    assert {*_fakes(), "postgres_table"} == set(available())


@pytest.mark.parametrize("name", _fakes())
def test_a_stand_in_that_is_served_is_sent_to_as_the_platform_is(name: str) -> None:
    from importlib import import_module

    ready = import_module(f"sync.testing.fakes.{name}").ready()
    kind = load(name)
    with serve(ready.app) as url:
        config = kind.config_model.model_validate(dict(ready.options(url)))
        with build_client(kind, config, timeout=20) as client:
            connector = kind(config, client)
            connector.check()
            for object, audience in ready.audiences.items():
                spec = connector.objects[object]
                batch = samples.batch(spec, samples.changes(spec, Op.ADD, 3, "try"), audience=audience, id="b1")
                outcome = connector.push(batch)
                if not isinstance(outcome, Job):
                    assert len(list(outcome)) == 3

    assert ready.app.requests > 0


def test_a_stand_in_is_served_with_what_the_configuration_needs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sync.cli.app", "--json", "connector", "fake", "hubspot"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        kind = load("hubspot")
        options = {k: v for k, v in said["destination"].items() if k != "type"}
        assert options["token"] == "env:FAKE_HUBSPOT_TOKEN"
        config = kind.config_model(**options | {"token": said["environment"]["FAKE_HUBSPOT_TOKEN"]})
        with build_client(kind, config, timeout=20) as client:
            kind(config, client).check()
        began = time.monotonic()
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    assert time.monotonic() - began < 20
