"""A cohort becomes a segment of a real Unleash server, and a flag is on for its members and for nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from connectors.unleash import Unleash, UnleashConfig
from sync.cli import app
from sync.sdk.http import build_client
from sync.testing.fakes.unleash import FakeUnleash
from tests.integration.unleash_server import UnleashServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]  # the first run of a checkout installs the server

CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.flags]
type = "unleash"
token = "env:UNLEASH_TOKEN"
base_url = "{url}"
"""

MAPPING = """\
version: 1
cohort:
  name: winback
  owner: ana@acme.example
  source: {{ connection: warehouse, table: winback, key: user_id }}
syncs:
  - name: winback-flags
    destination: flags
    object: segment_member
    audience: "{audience}"
    mode: mirror
    identifiers:
      - {{ to: userId, from: user_id }}
"""
LIST = {"contextName": "userId", "operator": "IN", "values": []}


@dataclass
class Project:
    """A project with a cohort in DuckDB and a segment of the server's as its audience."""

    root: Path
    server: UnleashServer
    segment: str
    capsys: Any

    def headgate(self, *args: str) -> tuple[int, dict[str, Any]]:
        """Run a command; its exit code and its JSON document. What it changed is seen afterwards."""
        code = app.run([*args, "--project", str(self.root), "--json"])
        said = json.loads(self.capsys.readouterr().out)
        self.server.settle()
        return code, said

    def cohort(self, *people: str) -> None:
        """Make these people the cohort."""
        with duckdb.connect(str(self.root / "warehouse.duckdb")) as warehouse:
            warehouse.execute("CREATE OR REPLACE TABLE winback (user_id VARCHAR)")
            if people:
                warehouse.execute("INSERT INTO winback SELECT unnest(?)", [list(people)])

    def shown(self) -> dict[str, Any]:
        """The segment, as the server shows it."""
        return dict(self.server.ask("GET", f"/api/admin/segments/{self.segment}"))


@contextmanager
def connected(server: UnleashServer) -> Iterator[Unleash]:
    config = UnleashConfig(base_url=server.url, token=server.token)
    with build_client(Unleash, config, timeout=10) as client:
        yield Unleash(config, client)


def project(root: Path, server: UnleashServer, segment: str, capsys: Any, patch: pytest.MonkeyPatch) -> Project:
    patch.setenv("UNLEASH_TOKEN", server.token)
    (root / "mappings").mkdir()
    (root / "config.toml").write_text(CONFIG.format(url=server.url))
    (root / "mappings" / "winback.yaml").write_text(MAPPING.format(audience=segment))
    return Project(root, server, segment, capsys)


def test_a_flag_is_on_for_the_cohort_and_for_nobody_else(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, unleash_server: UnleashServer
) -> None:
    with connected(unleash_server) as connector:
        segment = connector.create_audience("segment_member", "Win-back")
    unleash_server.flag("offer", segment)
    shop = project(tmp_path, unleash_server, segment, capsys, monkeypatch)
    people = [f"u{n}" for n in range(100)]
    shop.cohort(*people)
    unleash_server.settle()
    assert not unleash_server.on("offer", "u1"), "nobody is in a segment that was just made"

    code, said = shop.headgate("run", "--first-run")

    assert (code, said["syncs"][0]["applied"]) == (0, 100), said
    assert all(unleash_server.on("offer", person) for person in people)
    assert not unleash_server.on("offer", "u100")
    requests = said["syncs"][0]["requests"]
    assert requests == 3, "it is read, written and read again"

    shop.cohort(*people[1:], "u100")
    assert shop.headgate("run")[0] == 0
    assert [unleash_server.on("offer", person) for person in ("u0", "u1", "u100")] == [False, True, True]
    assert shop.headgate("run")[1]["syncs"][0]["requests"] == 0

    assert shop.headgate("state", "verify", "winback-flags")[1]["status"] == "same"


def test_removals_that_are_held_change_nothing_until_a_person_decides(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, unleash_server: UnleashServer
) -> None:
    with connected(unleash_server) as connector:
        segment = connector.create_audience("segment_member", "Held")
    everybody = unleash_server.ask("POST", "/api/admin/segments", {"name": "Everybody", "constraints": []})
    unleash_server.flag("held", segment)
    unleash_server.flag("open", str(everybody["id"]))
    shop = project(tmp_path, unleash_server, segment, capsys, monkeypatch)
    shop.cohort(*(f"u{n}" for n in range(100)))
    shop.headgate("run", "--first-run")

    shop.cohort()
    code, said = shop.headgate("run")

    assert (code, said["syncs"][0]["status"]) == (3, "held"), said
    assert unleash_server.on("held", "u1")
    assert len(shop.shown()["constraints"][0]["values"]) == 100

    code, said = shop.headgate("approve", said["syncs"][0]["plan"], "--reason", "The campaign is over.")

    assert code == 0, said
    assert shop.shown()["constraints"] == [LIST], "the list is empty, and it is still there"
    assert not unleash_server.on("held", "u1"), "a segment without anybody is nobody"
    assert unleash_server.on("open", "u1"), "a segment without constraints is everybody"


def test_the_rest_of_a_segment_stays_as_it_is(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, unleash_server: UnleashServer
) -> None:
    phones = {"contextName": "appName", "operator": "STR_ENDS_WITH", "values": ["-phone"], "caseInsensitive": True}
    recent = {"contextName": "appVersion", "operator": "SEMVER_GT", "value": "2.0.0", "values": []}
    body = {
        "name": "Phones",
        "description": "Of ours",
        "project": "default",
        "constraints": [phones, recent, LIST],
    }
    segment = str(unleash_server.ask("POST", "/api/admin/segments", body)["id"])
    unleash_server.flag("phones", segment)
    shop = project(tmp_path, unleash_server, segment, capsys, monkeypatch)
    before = shop.shown()
    shop.cohort("ada")

    code, said = shop.headgate("run", "--first-run")

    assert code == 0, said
    assert shop.shown() == before | {"constraints": [phones, recent, LIST | {"values": ["ada"]}]}
    assert unleash_server.on("phones", "ada", appName="shop-phone", appVersion="2.1.0")
    assert not unleash_server.on("phones", "ada", appName="shop-web", appVersion="2.1.0")


def test_a_cohort_that_is_too_large_is_refused_before_anything_is_sent(
    tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch, unleash_server: UnleashServer
) -> None:
    with connected(unleash_server) as connector:
        segment = connector.create_audience("segment_member", "Too many")
    shop = project(tmp_path, unleash_server, segment, capsys, monkeypatch)
    shop.cohort(*(f"u{n}" for n in range(1001)))

    code, said = shop.headgate("run", "--first-run")

    assert (code, said["syncs"][0]["error"]["code"]) == (1, "HG217"), said
    assert "takes at most 1,000 records" in said["syncs"][0]["error"]["message"]
    assert said["syncs"][0]["requests"] == 0
    assert shop.shown()["constraints"] == [LIST]
    shop.cohort(*(f"u{n}" for n in range(1000)))
    assert shop.headgate("run", "--first-run")[1]["syncs"][0]["applied"] == 1000


def _refusals() -> dict[str, tuple[str, str, Any]]:
    """Requests that the server refuses, and some it takes: a segment `taken` is there, a segment 999 is not."""
    there, absent = "/api/admin/segments/{id}", "/api/admin/segments/999"

    def listing(*values: str) -> dict[str, Any]:
        return {"name": "taken", "constraints": [LIST | {"values": list(values)}]}

    return {
        "a good list": ("PUT", there, listing("ada")),
        "nobody": ("PUT", there, listing()),
        "a value of 100 characters": ("PUT", there, listing("x" * 100)),
        "a value of 101 characters": ("PUT", there, listing("x" * 101)),
        "an empty value": ("PUT", there, listing("")),
        "1,000 values": ("PUT", there, listing(*map(str, range(1000)))),
        "1,001 values": ("PUT", there, listing(*map(str, range(1001)))),
        "no name": ("PUT", there, {"constraints": []}),
        "no constraints": ("PUT", there, {"name": "taken"}),
        "no operator": ("PUT", there, {"name": "taken", "constraints": [{"contextName": "userId", "values": []}]}),
        "another name that is free": ("PUT", there, listing() | {"name": "free"}),
        "a segment that is not there": ("PUT", absent, listing()),
        "reading a segment that is not there": ("GET", absent, None),
        "reading a segment by name": ("GET", "/api/admin/segments/taken", None),
        "a name that is taken": ("POST", "/api/admin/segments", listing()),
        "a path that is not there": ("GET", "/api/admin/nothing", None),
    }


def test_the_fake_takes_and_refuses_what_the_server_does(unleash_server: UnleashServer) -> None:
    fake = FakeUnleash(unleash_server.token)
    base = unleash_server.url

    def told(send: Any, id: str, token: str = unleash_server.token) -> dict[str, tuple[int, str]]:
        answers = {}
        for what, (method, path, body) in _refusals().items():
            headers = {"authorization": token}
            response = send(httpx.Request(method, base + path.format(id=id), json=body, headers=headers))
            answers[what] = (response.status_code, response.json().get("name", "") if response.is_error else "")
        return answers

    made = unleash_server.ask("POST", "/api/admin/segments", {"name": "taken", "constraints": [LIST]})
    unleash_server.ask("POST", "/api/admin/segments", {"name": "held name", "constraints": [LIST]})
    with httpx.Client(trust_env=False) as client:
        theirs = told(client.send, str(made["id"]))
        strangers = told(client.send, str(made["id"]), "nobody's token")

    ours = told(fake, fake.add_segment("taken", LIST))
    assert ours == theirs
    assert {status for status, _ in strangers.values()} == {401}
    assert {status for status, _ in told(fake, "1", "nobody's token").values()} == {401}
