"""A list that somebody else has changed: `headgate state verify` on a real project and HubSpot's fake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from sync.cli import app
from sync.testing.fakes.hubspot import FakeHubSpot
from sync.testing.fakes.server import serve

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.crm]
type = "hubspot"
token = "env:CRM_TOKEN"
base_url = "{url}"
"""

MAPPING = """\
version: 1
cohort:
  name: vip
  owner: ana@acme.example
  source: {{ connection: warehouse, table: vip, key: user_id }}
syncs:
  - name: vip-crm
    destination: crm
    object: list_member
    audience: "{audience}"
    mode: {mode}
    identifiers:
      - {{ to: email, from: email, transform: [trim, lower], pii: true }}
"""


@dataclass
class Shop:
    """A project of 300 people in one list."""

    root: Path
    crm: FakeHubSpot
    audience: str
    capsys: Any

    def headgate(self, *args: str) -> tuple[int, dict[str, Any]]:
        """Run a command with --json; its exit code and document."""
        code = app.run([*args, "--project", str(self.root), "--json"])
        return code, json.loads(self.capsys.readouterr().out)

    def text(self, *args: str) -> tuple[int, str]:
        """Run a command; its exit code and what it printed."""
        code = app.run([*args, "--project", str(self.root)])
        return code, self.capsys.readouterr().out

    @property
    def there(self) -> set[str]:
        """The contact ids in the list."""
        return self.crm.lists[self.audience]

    def id(self, n: int) -> str:
        """The contact id of person `n`."""
        found = self.crm.id_of(f"p{n}@acme.example")
        assert found is not None
        return found

    def write(self, mode: str = "mirror") -> None:
        """Write the mapping (again)."""
        text = MAPPING.format(audience=self.audience, mode=mode)
        (self.root / "mappings" / "vip.yaml").write_text(text)


class Flaky(FakeHubSpot):
    """Answers 503 to the next `trouble` requests."""

    trouble = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.trouble:
            self.trouble -= 1
            return httpx.Response(503)
        return super().__call__(request)


@pytest.fixture
def shop(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    crm = Flaky("pat-verify", limit=100_000)
    audience = crm.add_list("VIP")
    for n in range(300):
        crm.add_contact(f"p{n}@acme.example")
    monkeypatch.setenv("CRM_TOKEN", "pat-verify")
    (tmp_path / "mappings").mkdir()
    with serve(crm) as url:
        (tmp_path / "config.toml").write_text(CONFIG.format(url=url))
        with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
            warehouse.execute(
                "CREATE TABLE vip AS SELECT i AS user_id, 'P' || i || '@acme.example' AS email "
                "FROM range(300) t(i)"
            )
        made = Shop(tmp_path, crm, audience, capsys)
        made.write()
        code, ran = made.headgate("run", "--first-run")
        assert (code, ran["syncs"][0]["applied"]) == (0, 300), ran
        yield made


def test_an_audience_that_is_as_acknowledged_is_the_same(shop: Shop) -> None:
    code, said = shop.headgate("state", "verify", "vip-crm")

    assert code == 0
    assert said["status"] == "same"
    assert (said["members"], said["found"], said["in_step"]) == (300, 300, 300)
    assert (said["missing"], said["extra"], said["unknown"], said["uncertain"]) == (0, 0, 0, 0)
    assert said["requests"] == 6  # two pages of ids, and their contacts a hundred at a time


def test_who_was_taken_out_or_put_in_by_somebody_else_is_named_masked(shop: Shop) -> None:
    shop.there.discard(shop.id(7))
    shop.there.add(shop.crm.add_contact("stranger@acme.example"))
    shop.there.add(shop.crm.add_contact(""))

    code, said = shop.headgate("state", "verify", "vip-crm")

    assert code == 4
    assert (said["in_step"], said["missing"], said["extra"], said["unknown"]) == (299, 1, 1, 1)
    assert [s["finding"] for s in said["samples"]] == ["missing", "extra"]
    assert "stranger@" not in json.dumps(said)
    assert shop.text("state", "verify", "vip-crm")[1].count("acme.example") == 2  # s•••@acme.example


def test_a_contact_whose_address_changed_is_known_by_its_id(shop: Shop) -> None:
    shop.crm.change_contact(shop.id(7), email="married@acme.example")

    code, said = shop.headgate("state", "verify", "vip-crm")

    assert (code, said["status"]) == (0, "same")


def test_others_in_the_list_are_no_business_of_a_sync_that_never_removes(shop: Shop) -> None:
    shop.write("upsert")
    shop.there.add(shop.crm.add_contact("stranger@acme.example"))

    code, said = shop.headgate("state", "verify", "vip-crm")

    assert (code, said["status"], said["extra"], said["removes"]) == (0, "same", 1, False)


def test_a_page_that_fails_is_asked_for_again(shop: Shop) -> None:
    shop.crm.trouble = 2

    code, said = shop.headgate("state", "verify", "vip-crm")

    assert (code, said["found"]) == (0, 300)
    assert said["requests"] == 8


def test_an_audience_that_is_gone_is_an_error_and_not_an_empty_one(shop: Shop) -> None:
    del shop.crm.lists[shop.audience]

    code, said = shop.headgate("state", "verify", "vip-crm")

    assert code == 1
    assert said["error"]["code"] == "HG402"


def test_what_was_compared_is_in_the_audit_log(shop: Shop) -> None:
    shop.headgate("state", "verify", "vip-crm")

    _, said = shop.headgate("audit", "search", "--action", "state.verified")

    assert [event["data"]["missing"] for event in said["events"]] == [0]


def meddle(shop: Shop) -> str:
    """Take 7 and 8 out, put a stranger in; 8 leaves the cohort. The stranger's contact id."""
    shop.there.difference_update({shop.id(7), shop.id(8)})
    stranger = shop.crm.add_contact("stranger@acme.example")
    shop.there.add(stranger)
    with duckdb.connect(str(shop.root / "warehouse.duckdb")) as warehouse:
        warehouse.execute("DELETE FROM vip WHERE user_id = 8")
    return stranger


def test_a_repair_waits_and_an_approval_mends_the_audience(shop: Shop) -> None:
    stranger = meddle(shop)

    code, said = shop.headgate("state", "verify", "vip-crm", "--repair", "--reason", "somebody cleaned up")
    plan = said["repair"]

    assert code == 3
    assert (plan["add"], plan["update"], plan["remove"]) == (1, 0, 1)  # 8 is left to an ordinary run
    assert [held["guardrail"] for held in plan["held"]] == ["repair"]
    assert stranger in shop.there

    code, done = shop.headgate("approve", plan["plan"], "--reason", "it was a mistake")

    assert code == 0, done
    assert stranger not in shop.there
    assert shop.id(7) in shop.there
    assert shop.headgate("state", "verify", "vip-crm")[1]["missing"] == 1
    code, ran = shop.headgate("run")
    assert (code, ran["syncs"][0]["remove"]) == (0, 1)
    code, said = shop.headgate("state", "verify", "vip-crm")
    assert (code, said["members"], said["found"]) == (0, 299, 299)


def test_a_repair_without_its_removals_keeps_them_for_later(shop: Shop) -> None:
    stranger = meddle(shop)
    _, said = shop.headgate("state", "verify", "vip-crm", "--repair", "--reason", "somebody cleaned up")

    code, done = shop.headgate(
        "approve", said["repair"]["plan"], "--no-removals", "--reason", "the stranger may stay for now"
    )

    assert (code, done["syncs"][0]["applied"]) == (3, 1)
    assert stranger in shop.there
    assert shop.id(7) in shop.there


def test_a_repair_is_void_once_the_cohort_moved(shop: Shop) -> None:
    stranger = meddle(shop)
    _, said = shop.headgate("state", "verify", "vip-crm", "--repair", "--reason", "somebody cleaned up")
    with duckdb.connect(str(shop.root / "warehouse.duckdb")) as warehouse:
        warehouse.execute("INSERT INTO vip VALUES (1000, 'stranger@acme.example')")

    code, done = shop.headgate("approve", said["repair"]["plan"], "--reason", "it was a mistake")

    assert code == 1
    assert done["syncs"][0]["error"]["code"] == "HG505"
    assert stranger in shop.there


def test_a_repair_is_not_replaced_by_an_ordinary_plan(shop: Shop) -> None:
    meddle(shop)
    _, said = shop.headgate("state", "verify", "vip-crm", "--repair", "--reason", "somebody cleaned up")

    shop.headgate("plan")

    code, _ = shop.headgate("approve", said["repair"]["plan"], "--reason", "it was a mistake")
    assert code == 0


def test_a_repair_needs_a_reason_and_leaves_no_file_behind(shop: Shop) -> None:
    meddle(shop)

    code, said = shop.headgate("state", "verify", "vip-crm", "--repair")
    shop.headgate("state", "verify", "vip-crm", "--repair", "--reason", "somebody cleaned up")

    assert (code, said["error"]["message"]) == (2, "a reason is needed, in words")
    assert list((shop.root / ".headgate" / "tmp").rglob("*.parquet")) == []


def test_what_an_ordinary_run_mends_needs_no_repair(shop: Shop) -> None:
    shop.there.discard(shop.id(8))
    with duckdb.connect(str(shop.root / "warehouse.duckdb")) as warehouse:
        warehouse.execute("DELETE FROM vip WHERE user_id = 8")

    code, text = shop.text("state", "verify", "vip-crm", "--repair", "--reason", "somebody cleaned up")

    assert code == 4
    assert "an ordinary run mends all of it" in text
