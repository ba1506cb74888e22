"""Undoing a run, pausing and resuming, on a real project and a CRM on the loopback."""

from __future__ import annotations

import pytest

from tests.integration.test_cli import Shop, line, shelf, shop, synced

__all__ = ["line", "shelf", "shop", "synced"]

WHY = ("--reason", "the model was wrong")


@pytest.fixture
def wrong(synced: Shop) -> tuple[Shop, str]:
    """The shop after a run that should not have been: its id."""
    synced.sql("UPDATE vip SET country = 'XX', first_name = 'Nobody' WHERE user_id IN ('u1', 'u2', 'u3')")
    synced.sql("DELETE FROM vip WHERE user_id = 'u4'")
    synced.sql("INSERT INTO vip VALUES ('u900', 'late@acme.example', 'Late', 'NO', now())")
    report = synced.json("run")["syncs"][0]
    assert report["applied"] == 5
    return synced, report["run"]


def test_a_run_is_undone_and_the_sync_is_paused(wrong):
    shop, run = wrong

    code, out, _ = shop.run("run", "crm-vip", "--revert", run, *WHY)

    assert code == 0
    assert f"reverting run {run}" in out
    assert "+1 add  ~3 update  -1 remove" in out
    assert "headgate resume crm-vip" in out
    assert "person1@" not in out
    assert "Name1" not in out
    people = shop.crm.people
    assert len(people) == 400
    assert people["person1@acme.example"]["first_name"] == "Name1"
    assert people["person1@acme.example"]["country"] == "DE"
    assert "person4@acme.example" in people
    assert "late@acme.example" not in people
    (event,) = shop.json("audit", "search", "--action", "run.revert")["events"]
    assert (event["object"], event["data"]["reason"]) == (run, "the model was wrong")


def test_the_sync_need_not_be_named_and_the_document_tells_all(wrong):
    shop, run = wrong
    shop.sql("UPDATE vip SET country = 'YY' WHERE user_id = 'u2'")
    shop.json("run")

    report = shop.json("run", "--revert", run, *WHY, exits=4)["syncs"][0]

    assert (report["kind"], report["reverts"], report["status"]) == ("revert", run, "completed_with_errors")
    assert (report["add"], report["update"], report["remove"], report["applied"]) == (1, 2, 1, 4)
    assert report["not_undone"] == [{"op": "update", "why": "a later run changed it", "records": 1}]
    assert [s["why"] for s in report["samples"] if s["op"] == "left_out"] == ["a later run changed it"]
    assert "person2" not in str(report)


def test_a_paused_sync_is_left_out_refused_by_name_and_runs_again_once_resumed(wrong):
    shop, run = wrong
    shop.json("run", "--revert", run, *WHY)

    skipped = shop.json("run")["syncs"][0]
    assert (skipped["status"], skipped["requests"]) == ("paused", 0)
    refused = shop.json("run", "crm-vip", exits=1)["syncs"][0]
    assert refused["error"]["code"] == "HG525"
    assert "headgate resume crm-vip" in refused["error"]["fix"]
    seen = shop.json("status")["syncs"][0]
    assert (seen["activity"], seen["health"]) == ("paused", "warning")
    assert run in seen["paused"]
    assert any("is paused" in reason for reason in seen["reasons"])

    assert shop.json("resume", "crm-vip")["resumed"] == ["crm-vip"]
    assert shop.json("run", "crm-vip")["syncs"][0]["applied"] == 5
    assert "late@acme.example" in shop.crm.people
    assert shop.json("status")["syncs"][0]["paused"] is None


def test_a_revert_is_planned_first_and_delivered_as_it_was_planned(wrong):
    shop, run = wrong
    shop.crm.requests.clear()

    planned = shop.json("plan", "--revert", run, *WHY)["syncs"][0]
    assert (planned["status"], planned["add"], shop.crm.requests.total()) == ("ready", 1, 0)
    assert planned["next"] == [f"headgate run crm-vip --plan {planned['plan']}"]

    ran = shop.json("run", "crm-vip", "--plan", planned["plan"])["syncs"][0]
    assert (ran["status"], ran["applied"]) == ("completed", 5)


def test_a_held_revert_is_approved_without_the_warehouse(synced):
    synced.sql(
        "INSERT INTO vip SELECT 'n' || i, 'n' || i || '@acme.example', 'N', 'NO', now() FROM range(100) r(i)"
    )
    run = synced.json("run")["syncs"][0]["run"]
    held = synced.json("run", "--revert", run, *WHY, exits=3)["syncs"][0]
    assert [v["guardrail"] for v in held["held"]] == ["removals_pct"]
    (synced.folder / "warehouse.duckdb").unlink()

    code, out, _ = synced.run("approve", held["plan"], "--reason", "yes, all of them")

    assert code == 0, out
    assert len(synced.crm.people) == 400


def test_a_rejected_revert_leaves_the_sync_paused_and_says_so(synced):
    synced.sql(
        "INSERT INTO vip SELECT 'n' || i, 'n' || i || '@acme.example', 'N', 'NO', now() FROM range(100) r(i)"
    )
    run = synced.json("run")["syncs"][0]["run"]
    held = synced.json("run", "--revert", run, *WHY, exits=3)["syncs"][0]

    _, out, _ = synced.run("reject", held["plan"], "--reason", "leave them")

    assert "headgate resume crm-vip" in out


def test_what_cannot_be_reverted_says_why(synced):
    code, _, err = synced.run("run", "--revert", "nothing", *WHY)
    assert code == 1
    assert "HG526" in err

    report = synced.json("run", "crm-vip", "--revert", "nothing", *WHY, exits=1)["syncs"][0]
    assert report["error"]["code"] == "HG526"
    assert "its newest runs are" in report["error"]["fix"]


@pytest.mark.parametrize(
    "args",
    [
        ("--revert", "r1"),
        ("--revert", "r1", *WHY, "--only", "add"),
        ("--revert", "r1", *WHY, "--first-run"),
        WHY,
        ("crm-vip", "other", "--revert", "r1", *WHY),
    ],
)
def test_options_that_do_not_go_together_are_refused(synced, args):
    assert synced.run("run", *args)[0] == 2


def test_a_destination_is_paused_with_all_its_syncs(synced):
    paused = synced.json("pause", "destination:crm", "--reason", "the token is replaced")
    assert paused["paused"] == [{"name": "destination:crm", "reason": "the token is replaced"}]
    assert synced.json("run")["syncs"][0]["status"] == "paused"
    assert synced.json("run", "crm-vip", exits=1)["syncs"][0]["error"]["code"] == "HG525"

    _, out, _ = synced.run("resume", "destination:crm")
    assert "destination:crm is resumed" in out
    assert synced.json("run")["syncs"][0]["status"] == "completed"
    actions = {e["action"] for e in synced.json("audit", "search")["events"]}
    assert {"destination.paused", "destination.resumed"} <= actions


@pytest.mark.parametrize(
    "args",
    [
        ("pause", *WHY),
        ("pause", "nobody", *WHY),
        ("pause", "destination:x", *WHY),
        ("resume",),
        ("pause", "crm-vip"),
    ],
)
def test_a_pause_needs_names_that_are_known_and_a_reason(synced, args):
    assert synced.run(*args)[0] == 2


def test_syncs_are_paused_by_selection_and_resumed_though_gone_from_the_files(synced):
    assert synced.json("pause", "--select", "tag:daily", *WHY)["paused"][0]["name"] == "crm-vip"
    synced.mapping("renamed")

    assert synced.json("resume", "crm-vip")["resumed"] == ["crm-vip"]
    _, out, _ = synced.run("resume", "renamed")
    assert "none of them is paused" in out


def test_resuming_says_that_a_revert_still_waits(wrong):
    shop, run = wrong
    plan = shop.json("plan", "--revert", run, *WHY)["syncs"][0]["plan"]

    assert plan in shop.json("resume", "crm-vip")["notes"][0]


def test_whoever_was_forgotten_is_not_put_back(wrong):
    shop, run = wrong
    for who in ("person4@acme.example", "person1@acme.example"):  # the run removed one, and updated the other
        assert shop.run("person", who, "--forget", "--reason", "asked to be forgotten")[0] in (0, 3)

    shop.run("run", "--revert", run, *WHY)

    assert "person4@acme.example" not in shop.crm.people
    assert shop.crm.people["person2@acme.example"]["country"] == "AU"
    assert "late@acme.example" not in shop.crm.people
    assert shop.crm.people.get("person1@acme.example", {}).get("first_name") != "Name1"
    shop.json("resume", "crm-vip")
    shop.run("run")
    assert "person1@acme.example" not in shop.crm.people
    assert "person4@acme.example" not in shop.crm.people
