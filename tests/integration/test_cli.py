"""The commands on a real project: a DuckDB warehouse, a CRM on the loopback, and the files between them."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from sync.cli import app
from sync.testing.fakes.crm import Crm
from sync.testing.fakes.server import serve

MAPPING = """\
version: 1
cohort:
  name: vip
  title: VIP customers
  owner: ana@acme.example
  source: {{ connection: warehouse, table: vip, key: user_id, updated_at: updated_at }}
  refresh: {{ stale_after: 2h }}
syncs:
  - name: {name}
    destination: crm
    mode: mirror
    schedule: {{ every: 6h }}
    identifiers:
      - {{ to: email, from: email, transform: [trim, lower], pii: true }}
    fields:
      - {{ to: first_name, from: first_name, pii: true }}
      - {{ to: country, from: country }}
    tags: [daily]
"""
CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.crm]
type = "webhook"
"""
PEOPLE = """
CREATE TABLE vip AS SELECT
    'u' || i AS user_id, 'Person' || i || '@Acme.example' AS email, 'Name' || i AS first_name,
    CASE WHEN i % 2 = 0 THEN 'AU' ELSE 'DE' END AS country, now() AS updated_at FROM range(400) r(i)
"""


class Picky(Crm):
    """A CRM that refuses some people for as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.refuses: set[str] = set()

    def _apply(self, op: str, record: Any) -> Any:
        if record.get("email") in self.refuses:
            return {"message": f"{record['email']} is on the suppression list"}
        return super()._apply(op, record)


@dataclass
class Shop:
    """A project with its warehouse and its CRM."""

    folder: Path
    crm: Picky
    capture: Any

    def run(self, *args: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr of a command."""
        self.capture.readouterr()
        code = app.run([*args, "--project", str(self.folder)])
        said = self.capture.readouterr()
        return code, said.out, said.err

    def json(self, *args: str, exits: int = 0) -> Any:
        """The document of a command that ends with that code."""
        code, out, err = self.run(*args, "--json")
        assert code == exits, (out, err)
        document = json.loads(out)
        assert document["schema"] == 1
        assert document["exit_code"] == exits
        return document

    def sql(self, statement: str) -> None:
        with duckdb.connect(str(self.folder / "warehouse.duckdb")) as connection:
            connection.execute(statement)

    def mapping(self, name: str) -> None:
        (self.folder / "mappings" / "vip.yaml").write_text(MAPPING.format(name=name))


class Line:
    """Whoever answers at the CRM's address now."""

    def __init__(self) -> None:
        self.crm = Picky()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return self.crm(request)


@pytest.fixture(scope="module")
def line() -> Iterator[tuple[Line, str]]:
    """One address for all shops, so that a shop can be made once and copied."""
    answering = Line()
    with serve(answering) as base:
        yield answering, f"{base}/people"


@pytest.fixture
def shop(tmp_path: Path, line: tuple[Line, str], capsys: Any, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A project that never ran."""
    monkeypatch.setenv("HEADGATE_ACTOR", "ana@acme.example")
    line[0].crm = Picky()
    made = Shop(tmp_path / "shop", line[0].crm, capsys)
    (made.folder / "mappings").mkdir(parents=True)
    (made.folder / "config.toml").write_text(CONFIG + f'url = "{line[1]}"\n')
    made.mapping("crm-vip")
    made.sql(PEOPLE)
    return made


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shop is kept after its first run, once some test made it."""
    return tmp_path_factory.mktemp("shelf")


@pytest.fixture
def synced(shop: Shop, shelf: Path) -> Shop:
    """The shop after its first run."""
    kept = shelf / "shop"
    if kept.exists():
        shutil.rmtree(shop.folder)
        shutil.copytree(kept, shop.folder)
        shop.crm.people = json.loads((shelf / "people.json").read_text())
        return shop
    assert shop.json("run", "--first-run")["syncs"][0]["applied"] == 400
    shutil.copytree(shop.folder, kept)
    (shelf / "people.json").write_text(json.dumps(shop.crm.people))
    return shop


def test_a_first_run_is_held_and_says_how_to_go_on(shop):
    code, out, _ = shop.run("run")

    assert code == 3
    assert "first_run" in out
    assert f"headgate approve {plan_of(shop)}" in out
    assert shop.crm.requests.total() == 0


def plan_of(shop: Shop) -> str:
    plan = shop.json("status")["syncs"][0]["held_plan"]
    assert isinstance(plan, str)
    return plan


def test_a_plan_sends_nothing_and_a_run_sends_the_difference_only(synced):
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id = 'u7'")
    synced.crm.requests.clear()

    planned = synced.json("plan", "--detailed-exitcode", exits=5)["syncs"][0]
    assert (planned["add"], planned["update"], planned["remove"], planned["unchanged"]) == (0, 1, 0, 399)
    assert synced.crm.requests.total() == 0

    ran = synced.json("run")["syncs"][0]
    assert (ran["status"], ran["applied"], ran["requests"]) == ("completed", 1, 1)
    assert synced.json("plan", "--detailed-exitcode")["syncs"][0]["status"] == "unchanged"
    assert synced.json("run")["syncs"][0]["requests"] == 0


def test_samples_are_masked_until_somebody_gives_a_reason(synced):
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id = 'u7'")

    _, masked, _ = synced.run("plan")
    _, document, _ = synced.run("plan", "--json")
    assert "NO" in masked
    assert "person7" not in masked + document
    assert "Name7" not in masked + document

    assert synced.run("plan", "--reveal")[0] == 2
    _, revealed, _ = synced.run("plan", "--reveal", "--reason", "a customer asked")
    assert "person7@acme.example" in revealed
    events = synced.json("audit", "search", "--action", "plan.revealed")["events"]
    assert [event["data"]["reason"] for event in events] == ["a customer asked"]


def test_a_written_plan_is_delivered_exactly_or_not_at_all(synced, tmp_path):
    file = tmp_path / "plan.json"
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id = 'u7'")
    synced.json("plan", "--out", str(file))
    assert "acme" not in file.read_text()

    assert synced.json("run", "--plan", str(file))["syncs"][0]["applied"] == 1

    synced.sql("UPDATE vip SET country = 'SE' WHERE user_id = 'u8'")
    synced.json("plan", "--out", str(file))
    synced.sql("UPDATE vip SET country = 'SE' WHERE user_id = 'u9'")
    refused = synced.json("run", "--plan", str(file), exits=1)["syncs"][0]
    assert refused["error"]["code"] == "HG505"
    assert synced.crm.people["person8@acme.example"]["country"] == "AU"


def test_a_loss_is_held_and_an_approval_delivers_exactly_it(synced):
    synced.sql("DELETE FROM vip WHERE user_id LIKE 'u1%'")
    held = synced.json("run", exits=3)["syncs"][0]
    assert held["remove"] == 111
    assert {h["guardrail"] for h in held["held"]} >= {"removals_pct"}
    assert len(synced.crm.people) == 400

    done = synced.json("approve", held["plan"], "--reason", "they were test accounts")["syncs"][0]

    assert (done["status"], done["applied"]) == ("completed", 111)
    assert len(synced.crm.people) == 289
    assert synced.json("status")["syncs"][0]["health"] == "healthy"


def test_an_approval_for_later_is_delivered_by_the_next_run(synced):
    synced.sql("DELETE FROM vip WHERE user_id LIKE 'u1%'")
    plan = synced.json("run", exits=3)["syncs"][0]["plan"]

    decided = synced.json("approve", plan, "--reason", "they were test accounts", "--later")
    assert decided["status"] == "approved"
    assert len(synced.crm.people) == 400

    synced.json("run", "--plan", plan)
    assert len(synced.crm.people) == 289


def test_a_rejected_plan_is_not_delivered(synced):
    synced.sql("DELETE FROM vip WHERE user_id LIKE 'u1%'")
    plan = synced.json("run", exits=3)["syncs"][0]["plan"]

    assert synced.json("reject", plan, "--reason", "the load failed")["status"] == "rejected"

    assert synced.json("approve", plan, "--reason", "after all", exits=1)["error"]["code"] == "HG502"
    assert len(synced.crm.people) == 400


@pytest.mark.parametrize(
    "args", [["approve", "abcdef", "--reason", "x y"], ["approve", "abcdef", "--reason", " "]]
)
def test_a_decision_needs_a_plan_and_a_reason(synced, args):
    code, _, err = synced.run(*args)

    assert code in (1, 2)
    assert "fix:" in err


def test_rejected_records_are_listed_masked_and_sent_again(synced):
    synced.crm.refuses = {"person3@acme.example"}
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id IN ('u3', 'u4')")
    ran = synced.json("run", exits=4)["syncs"][0]
    assert (ran["applied"], ran["rejected"]) == (1, 1)

    _, listed, _ = synced.run("rejected")
    document = synced.json("rejected", "list", "crm-vip")
    key = document["records"][0]["key"]
    assert "suppression list" in listed
    assert "person3" not in listed + json.dumps(document)

    shown = synced.json("rejected", "show", "crm-vip", key[:8])["record"]
    assert "person3" not in json.dumps(shown)
    revealed = synced.json("rejected", "show", "crm-vip", key, "--reveal", "--reason", "to call them")["record"]
    assert revealed["values"]["identifiers"] == {"email": "person3@acme.example"}

    synced.crm.refuses = set()
    assert synced.json("rejected", "retry", "crm-vip", "--all")["count"] == 1
    assert synced.json("run")["syncs"][0]["applied"] == 1
    assert synced.json("rejected", "list")["count"] == 0


def test_a_record_that_is_given_up_is_left_alone_and_the_reason_is_kept(synced):
    synced.crm.refuses = {"person3@acme.example"}
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id = 'u3'")
    synced.json("run", exits=4)

    assert synced.run("rejected", "give-up", "crm-vip", "--all", "--reason", " ")[0] == 2
    assert synced.json("rejected", "give-up", "crm-vip", "--all", "--reason", "left the company")["count"] == 1

    assert synced.json("run")["syncs"][0]["requests"] == 0
    assert synced.json("rejected", "list", "--given-up")["records"][0]["given_up_reason"] == "left the company"
    assert synced.json("audit", "search", "left the company")["events"][0]["action"] == "rejected.given_up"


def test_an_unknown_record_or_sync_is_refused_by_name(synced):
    assert synced.json("rejected", "retry", "crm-vip", "nokey", exits=2)["error"]["fix"]
    assert synced.json("rejected", "list", "crm-vpi", exits=2)["error"]["code"] == "HG191"
    assert "crm-vip" in synced.json("run", "crm-vpi", exits=2)["error"]["fix"]


def test_a_person_is_found_by_any_form_of_the_identifier_and_the_look_up_names_nobody(synced):
    found = synced.json("person", " PERSON5@acme.example ")["found"]

    assert [(one["sync"], one["status"]) for one in found] == [("crm-vip", "member")]
    assert found[0]["since"].endswith("Z")
    assert synced.json("person", "nobody@acme.example")["found"] == []
    assert "erson5" not in json.dumps(synced.json("audit", "search"))


CONTRACT = {"sync", "health", "activity", "last_run", "next_run", "freshness", "members", "rejected"}


def test_status_has_the_keys_of_the_contract(synced):
    (one,) = synced.json("status")["syncs"]

    assert set(one) >= CONTRACT
    assert (one["sync"], one["health"], one["activity"], one["members"]) == ("crm-vip", "healthy", "idle", 400)
    assert one["last_run"]["status"] == "completed"
    _, table, _ = synced.run("status")
    assert "healthy" in table
    assert max(map(len, table.splitlines())) <= 80


def test_only_some_ops_are_sent_when_that_is_asked(synced):
    synced.sql("DELETE FROM vip WHERE user_id = 'u1'")
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id = 'u2'")

    assert synced.json("run", "--only", "add,update")["syncs"][0]["applied"] == 1
    assert "person1@acme.example" in synced.crm.people
    assert synced.run("run", "--only", "adds")[0] == 2


def test_selection_is_by_tag_and_a_wrong_one_is_an_error(shop):
    assert len(shop.json("plan", "--select", "tag:daily", exits=3)["syncs"]) == 1
    assert shop.json("plan", "--select", "tag:weekly", exits=2)["error"]["code"] == "HG192"


def test_a_table_that_is_gone_fails_and_says_where_and_what_to_do(synced):
    synced.sql("DROP TABLE vip")

    failed = synced.json("run", exits=1)["syncs"][0]
    assert failed["error"]["code"].startswith("HG2")
    status = synced.json("status")["syncs"][0]
    assert (status["health"], status["last_run"]["run"]) == ("failing", failed["run"])
    code, _, err = synced.run("validate")
    assert code == 2
    assert "mappings/vip.yaml:" in err
    assert "^" in err
    assert len(synced.crm.people) == 400


def test_files_that_are_right_beside_a_warehouse_that_is_away_are_no_bad_files(synced):
    (synced.folder / "warehouse.duckdb").rename(synced.folder / "elsewhere.db")

    assert synced.json("validate", exits=1)["problems"][0]["code"] == "HG201"
    assert synced.json("validate", "--offline")["valid"]


def test_a_sync_that_is_being_run_is_refused_and_not_called_failing(synced):
    from sync.state.ledger import open_ledger

    with open_ledger(synced.folder / ".headgate" / "ledger.db") as ledger:
        lease = ledger.acquire("crm-vip", "elsewhere/1/2/3", 30)
        refused = synced.json("run", exits=1)["syncs"][0]
        assert synced.json("status")["syncs"][0]["activity"] == "running"
        ledger.release(lease)

    assert refused["error"]["code"] == "HG301"
    assert synced.json("status")["syncs"][0]["health"] == "healthy"


def test_a_broken_mapping_shows_the_place_and_the_nearest_name(shop):
    path = shop.folder / "mappings" / "vip.yaml"
    path.write_text(path.read_text().replace("identifiers:", "identifers:"))

    code, _, err = shop.run("plan")
    assert code == 2
    assert "mappings/vip.yaml:13:5" in err
    assert "Did you mean `identifiers`?" in err
    problems = shop.json("validate", "--offline", exits=2)["problems"]
    assert {p["code"] for p in problems} >= {"HG105"}


def test_forgetting_the_members_needs_their_number_and_sends_everybody_again(synced):
    assert synced.json("state", "reset", "crm-vip", "--reason", "new CRM", "--members", "1", exits=2)
    assert synced.json("state", "reset", "crm-vip", "--reason", "new CRM", "--members", "400")["members"] == 400

    assert synced.json("state", "show")["syncs"][0]["members"] == 0
    held = synced.json("plan", exits=3)["syncs"][0]
    assert (held["add"], [h["guardrail"] for h in held["held"]]) == (400, ["first_run"])
    assert synced.json("audit", "search", "--action", "state.*")["events"][0]["data"]["reason"] == "new CRM"


def test_the_members_of_a_sync_that_no_mapping_has_any_more_can_be_forgotten(synced):
    synced.mapping("crm-vip-2026")

    reset = ("state", "reset", "--reason", "it is gone", "--members", "400")
    assert synced.json(*reset, "crm-vip")["members"] == 400
    assert synced.json(*reset, "crm-nobody", exits=2)["error"]["code"] == "HG191"


def test_a_renamed_sync_takes_over_its_members_and_sends_nothing(synced):
    synced.mapping("crm-vip-2026")
    synced.crm.requests.clear()

    assert synced.json("state", "merge", "crm-vip", "crm-vip-2026", "--reason", "renamed")["taken"] == 400

    assert synced.json("run")["syncs"][0]["unchanged"] == 400
    assert synced.crm.requests.total() == 0
    assert synced.json("state", "merge", "nobody", "crm-vip-2026", "--reason", "renamed", exits=2)["error"]


def test_the_doctor_finds_all_in_order(synced):
    document = synced.json("doctor")

    assert document["ok"]
    assert {"ledger", "audit log", "source warehouse", "destination crm", "package sync"} <= {
        check["name"] for check in document["checks"]
    }


def test_the_doctor_fails_when_the_state_can_be_read_by_others(synced):
    folder = synced.folder / ".headgate"
    folder.chmod(folder.stat().st_mode | stat.S_IROTH | stat.S_IXOTH)

    checks = {check["name"]: check for check in synced.json("doctor", "--offline", exits=1)["checks"]}
    assert "chmod" in checks["state folder"]["fix"]


def test_the_doctor_names_who_else_owns_a_package():
    from sync.cli.doctor import ownership

    assert ownership("sync", ["headgate"]).ok
    found = ownership("sync", ["headgate", "other-sync"])
    assert not found.ok
    assert "other-sync" in found.message


def test_the_doctor_says_that_a_destination_is_down(synced):
    (synced.folder / "config.toml").write_text(CONFIG + 'url = "http://127.0.0.1:9/people"\n')

    checks = {check["name"]: check for check in synced.json("doctor", exits=1)["checks"]}
    assert not checks["destination crm"]["ok"]


def test_the_audit_log_is_verified_searched_and_exported(synced, tmp_path):
    assert synced.json("audit", "verify")["ok"]
    out = tmp_path / "audit.jsonl"
    count = synced.json("audit", "export", "--out", str(out))["events"]
    assert len(out.read_text().splitlines()) == count > 0
    assert synced.json("audit", "export", "--out", str(out), exits=2)

    import sqlite3

    with sqlite3.connect(synced.folder / ".headgate" / "ledger.db") as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in names:
            connection.execute(f'DROP TRIGGER "{name}"')
        connection.execute("UPDATE audit_event SET actor = 'mallory' WHERE seq = 1")
    connection.close()

    assert synced.json("audit", "verify", exits=1)["findings"]
    assert synced.run("doctor", "--offline")[0] == 1


def test_schemas_are_written_where_editors_look(shop):
    files = shop.json("schema")["files"]

    assert {Path(f).name for f in files} == {"mapping.schema.json", "config.schema.json", "manifest.schema.json"}
    assert all(json.loads(Path(f).read_text()) for f in files)


def test_a_new_project_validates_and_is_never_written_over(tmp_path, capsys):
    assert app.run(["init", str(tmp_path / "new"), "--demo"]) == 0
    assert app.run(["validate", "--project", str(tmp_path / "new")]) == 0
    assert app.run(["init", str(tmp_path / "new")]) == 2
    assert "HG130" in capsys.readouterr().err


def test_the_daemon_does_what_was_asked_for_and_reports_it(synced):
    from sync.schedule import slot
    from sync.state.ledger import open_ledger
    from sync.state.nouns import RunRequest

    with open_ledger(synced.folder / ".headgate" / "ledger.db") as ledger:
        ledger.request_run(RunRequest("crm-vip", slot(datetime.now(UTC)), "console", "ana", ledger.now()))
    synced.sql("UPDATE vip SET country = 'NO' WHERE user_id = 'u7'")

    document = synced.json("daemon", "--once")

    assert [(s["sync"], s["applied"]) for s in document["syncs"]] == [("crm-vip", 1)]
    assert synced.json("status")["syncs"][0]["last_run"]["trigger"] == "console"


def test_the_shell_completes_sync_names_from_the_project(shop):
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "_HEADGATE_COMPLETE": "bash_complete",
        "COMP_WORDS": f"headgate --project {shop.folder} run cr",
        "COMP_CWORD": "4",
    }
    command = [sys.executable, "-m", "sync.cli.app"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["plain,crm-vip"]


def headgate(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HEADGATE")}
    root = str(Path(__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-m", "sync.cli.app", *args],
        cwd=cwd,
        env=environment | {"PYTHONPATH": root, "HEADGATE_ACTOR": "ana@acme.example"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_demo_tells_the_whole_story_and_leaves_a_folder_to_play_with(tmp_path):
    done = headgate("demo", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    folder = tmp_path / "headgate-demo"

    assert [step["exit_code"] for step in document["steps"] if step["exit_code"]] == [3, 3]
    assert document["crm"]["people"] == len(json.loads((folder / "crm.json").read_text())) > 5000
    assert document["wall_s"] < 60
    assert "approve" in done.stderr

    changed = headgate("demo", "--sql", "UPDATE people SET first_name = 'Zoe' WHERE country = 'SE'", cwd=folder)
    planned = json.loads(headgate("plan", "--json", cwd=folder).stdout)["syncs"][0]
    assert changed.returncode == 0, changed.stderr
    assert planned["update"] > 0

    assert headgate("demo", "--dir", "headgate-demo", cwd=tmp_path).returncode == 2


def test_the_demos_crm_goes_on_in_its_folder(tmp_path):
    from sync.cli import demo_crm
    from sync.templates import write_project

    write_project(tmp_path / "d", True)
    demo_crm.free_port(tmp_path / "d")
    record = {"op": "add", "records": [{"email": "a@b.example"}]}
    with demo_crm.serving(tmp_path / "d"):
        assert httpx.post(demo_crm.configured(tmp_path / "d"), json=record).status_code == 200
    with demo_crm.serving(tmp_path / "d") as crm:
        assert list(crm.people) == ["a@b.example"]


def test_the_actor_is_the_variable_else_git_else_the_account(tmp_path, monkeypatch):
    from sync.cli.actor import actor

    monkeypatch.setenv("HEADGATE_ACTOR", "ana@acme.example")
    assert actor(tmp_path) == "ana@acme.example"
    monkeypatch.delenv("HEADGATE_ACTOR")
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "config", "user.email", "ben@acme.example"], check=True)
    assert actor(tmp_path) == "ben@acme.example"
    monkeypatch.setenv("PATH", "")
    assert "@" in actor(tmp_path)
    assert actor(tmp_path) != "ben@acme.example"
