"""Every object of every connector, from end to end by the commands, against the stand-in of its platform.

The mappings are those that docs/destinations shows. After each step exactly the cohort is there, as the platform
keeps people: digests where it keeps digests.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomlkit
import yaml

from sync.cli import app
from sync.sdk.connector import Creates, Describes, Reads
from sync.sdk.registry import available, load
from sync.testing.fakes.server import serve
from tests.acceptance.platforms import PAGES, UPDATED, Shop, cases, page, platform

_WHY = ("--reason", "the promotion is over")
_EACH = pytest.mark.parametrize(("connector", "object"), cases())
_FIRST = {name: next(iter(load(name).objects)) for name in available() if name != "postgres_table"}


@contextmanager
def opened(
    folder: Path, connector: str, object: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Shop]:
    stand_in = platform(connector, object)
    monkeypatch.setenv("COLUMNS", "80")
    with serve(stand_in) as url:
        shop = Shop(folder, connector, object, stand_in, capsys)
        shop.open(url)
        for name, value in shop.environment.items():
            monkeypatch.setenv(name, value)
        yield shop


@pytest.fixture
def shop(
    connector: str,
    object: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Shop]:
    """The project of a connector's object, before its first run; sixty people are in the cohort."""
    with opened(tmp_path, connector, object, monkeypatch, capsys) as made:
        made.join(1, 60)
        yield made


@_EACH
def test_the_cohort_is_kept_through_changes_refusals_an_undo_and_a_held_removal(shop: Shop) -> None:
    begins(shop)
    nothing_is_asked_while_nothing_changes(shop)
    a_refused_record_keeps_back_no_other(shop)
    if shop.mirrors:
        if not shop.spec.irreversible:
            what_a_run_did_is_undone(shop)
        a_mass_removal_waits_for_a_decision(shop)
    it_is_what_it_says_it_is(shop)


def begins(shop: Shop) -> None:
    assert shop.run("validate")["valid"]
    done = shop.one("run", "--first-run")
    assert (done["status"], done["add"], done["applied"] + done["accepted"]) == ("completed", 60, 60)
    shop.holds(shop.kept(shop.rows()))


def nothing_is_asked_while_nothing_changes(shop: Shop) -> None:
    (report,) = shop.quiet("run")["syncs"]
    assert (report["unchanged"], report["requests"]) == (60, 0)


def a_refused_record_keeps_back_no_other(shop: Shop) -> None:
    gone = shop.kept(shop.rows("customer_id > 'C00057'"))
    shop.sql("DELETE FROM lapsed_buyers WHERE customer_id > 'C00057'")
    shop.sql(f"UPDATE lapsed_buyers SET {UPDATED} WHERE customer_id <= 'C00004'")
    shop.join(101, 4)
    healthy = shop.kept(shop.rows()) | (set() if shop.mirrors else gone)
    shop.join(201, 3, known=False)
    bad = shop.spoil(201, 3)
    shop.known(201 + bad, 3 - bad)

    report = shop.one("run", expect=4)

    found = shop.run("rejected", "list")
    assert report["rejected"] + report["invalid"] == bad
    assert found["count"] == bad
    assert all(record["reason"] for record in found["records"])
    assert healthy <= shop.platform.members()
    assert len(shop.platform.members() - shop.before - healthy) <= 3 - bad
    key = found["records"][0]["key"]
    shop.say("rejected", "show", shop.sync, key)
    shop.mend()
    shop.one("run")
    assert shop.run("rejected", "list")["count"] == 0
    shop.holds(shop.kept(shop.rows()) | (set() if shop.mirrors else gone))


def what_a_run_did_is_undone(shop: Shop) -> None:
    before = shop.platform.members()
    shop.join(301, 3)
    shop.sql("DELETE FROM lapsed_buyers WHERE customer_id = 'C00030'")
    changed = shop.one("run")
    assert (changed["add"], changed["remove"]) == (3, 1)

    undone = shop.one("run", shop.sync, "--revert", changed["run"], *_WHY)

    assert undone["reverts"] == changed["run"]
    assert shop.platform.members() == before
    shop.run("resume", shop.sync)


def a_mass_removal_waits_for_a_decision(shop: Shop) -> None:
    before = shop.platform.members()
    shop.sql("DELETE FROM lapsed_buyers WHERE customer_id BETWEEN 'C00005' AND 'C00044'")

    held = shop.one("run", expect=3)

    assert shop.platform.members() == before
    assert {one["guardrail"] for one in held["held"]} >= {"removals_pct"}
    assert shop.one("approve", held["plan"], *_WHY)["status"] == "completed"
    shop.holds(shop.kept(shop.rows()))


def it_is_what_it_says_it_is(shop: Shop) -> None:
    kind, spec, name = load(shop.connector), shop.spec, shop.destination
    (standing,) = shop.run("status")["syncs"]
    assert (standing["health"], standing["rejected"]) == ("healthy", 0)
    if issubclass(kind, Reads) and spec.audience and spec.readable:
        found = shop.run("state", "verify", shop.sync, expect=4 if shop.before else 0)
        assert (found["missing"], found["extra"]) == (0, len(shop.before))
    if issubclass(kind, Creates) and spec.audience:
        made = shop.run("destination", "create-audience", name, "Spring sale", "--object", shop.object, *_WHY)
        assert made["audience"]
    if (issubclass(kind, Describes) and shop.object != "list_entry") or not spec.open_fields:
        fields = {one["name"] for one in shop.run("destination", "fields", name, shop.object)["fields"]}
        assert {one["to"] for one in shop.mapped["identifiers"]} <= fields


@pytest.mark.parametrize(("connector", "object"), [("unleash", "segment_member")])
def test_an_audience_that_is_refused_whole_keeps_its_members_and_is_sent_once_it_is_mended(shop: Shop) -> None:
    begins(shop)
    before = shop.platform.members()
    shop.join(101, 2)
    shop.sql("UPDATE lapsed_buyers SET customer_id = repeat('x', 200) WHERE customer_id = 'C00101'")

    refused = shop.one("run", expect=1)
    again = shop.one("run", expect=1)

    assert "1 of 62 identifiers" in refused["error"]["message"]
    assert again["run"] != refused["run"], "the refused run is begun again and again"
    assert shop.platform.members() == before
    shop.sql("DELETE FROM lapsed_buyers WHERE length(customer_id) = 200")
    assert shop.one("run")["applied"] == 1
    shop.holds(shop.kept(shop.rows()))


@pytest.mark.parametrize(("connector", "object"), _FIRST.items())
def test_a_run_that_is_killed_before_the_answer_is_gone_on_with_and_nobody_is_lost(shop: Shop) -> None:
    child = multiprocessing.get_context("forkserver").Process(target=_run, args=(shop.folder, shop.environment))

    def kill() -> None:
        shop.platform.moved = None
        os.kill(child.pid or 0, signal.SIGKILL)

    shop.platform.moved = kill
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL

    resumed = shop.one("run", "--first-run")

    assert resumed["resumed"]
    shop.holds(shop.kept(shop.rows()))
    shop.quiet("run")


def _run(folder: Path, environment: dict[str, str]) -> None:
    """The first run, in a process that is going to be killed."""
    os.environ.update(environment)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    os._exit(app.run(["--project", str(folder), "run", "--first-run"]))


@pytest.mark.parametrize("name", available())
def test_what_the_docs_show_for_a_destination_is_valid(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = page(name)
    folder = tmp_path / "mappings"
    folder.mkdir()
    config = {
        "sources": {"warehouse": {"type": "duckdb", "path": "warehouse.duckdb"}},
        "destinations": {shown.destination: shown.options},
    }
    (tmp_path / "config.toml").write_text(tomlkit.dumps(config))
    (folder / "lapsed.yaml").write_text(yaml.safe_dump(shown.mapping))

    code = app.run(["--project", str(tmp_path), "validate", "--offline"])

    assert code == 0, capsys.readouterr()
    assert {sync.get("object") for sync in shown.mapping["syncs"]} >= set(load(name).objects) - _only(name)


def _only(name: str) -> set[str]:
    """The object that need not be named, for there is no other."""
    known = set(load(name).objects)
    return known if len(known) == 1 else set()


def test_every_page_is_of_a_connector_and_the_other_way_round() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == set(available())
