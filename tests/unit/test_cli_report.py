"""What `plan` and `run` say of a sync, to people and as JSON."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from sync.cli import app, plan_file, report
from sync.cli.plan import _exit_code
from sync.documents import plan_data, report_data
from sync.engine.report import SyncReport
from sync.errors import UsageError
from sync.state.nouns import Counts, Plan, PlanStatus, Verdict, VerdictAnswer

HELD = Verdict("removals_pct", VerdictAnswer.HOLD_REMOVALS, 5.0, 30.0, "30 % of the members would be removed")
WARNED = Verdict("additions", VerdictAnswer.WARN, 50.0, 60.0, "many additions")
COUNTS = Counts(add=1200, update=30, remove=3000, unchanged=5000, members=10000)


def plan(status: PlanStatus = PlanStatus.READY) -> Plan:
    return Plan(
        id="abcdef123456",
        digest="abcdef123456" + "0" * 52,
        sync="vip",
        destination="crm",
        object="record",
        audience=None,
        cohort="vip",
        status=status,
        file="plans/x.parquet",
        file_sha256="x",
        inputs="i",
        mapping_digest="m",
        generation=0,
        refresh="f",
        source_version="v",
        counts=COUNTS,
        verdicts=(HELD, WARNED),
        created_at=0.0,
        expires_at=3600.0,
    )


@pytest.fixture
def session():
    """As much of a session as printing needs."""
    return SimpleNamespace(ledger=SimpleNamespace(now=lambda: 0.0), command=lambda words: f"headgate {words}")


def test_the_json_of_a_plan_has_the_keys_of_the_contract():
    data = plan_data(SyncReport("vip", "held", plan(), counts=COUNTS, verdicts=(HELD, WARNED)))

    contract = "sync status plan digest add update remove unchanged members invalid held"
    assert set(contract.split()) <= set(data)
    assert (data["add"], data["update"], data["remove"], data["plan"]) == (1200, 30, 3000, "abcdef123456")
    assert [(h["guardrail"], h["limit"], h["value"]) for h in data["held"]] == [("removals_pct", 5.0, 30.0)]
    assert [w["guardrail"] for w in data["warnings"]] == ["additions"]
    assert "error" not in data


def test_the_json_of_a_run_has_the_keys_of_the_contract():
    made = SyncReport("vip", "failed", applied=7, retries=2, wall_s=1.23456, code="HG201", error="no", fix="do")
    data = report_data(made)

    contract = "applied accepted rejected deferred unknown requests retries wall_s run resumed notes"
    assert set(contract.split()) <= set(data)
    assert (data["applied"], data["retries"], data["wall_s"], data["plan"]) == (7, 2, 1.235, None)
    assert data["error"] == {"code": "HG201", "message": "no", "fix": "do"}


def test_a_held_plan_says_limit_value_and_what_to_type(session, capsys):
    made = SyncReport("vip", "held", plan(PlanStatus.HELD), counts=COUNTS, verdicts=(HELD,))
    samples = [{"op": "remove", "identifiers": {"email": "a•••@acme.example"}, "fields": {}}]

    report.show_plan(session, made, samples)

    said = capsys.readouterr().out
    assert "+1,200 add  ~30 update  -3,000 remove  =5,000 unchanged" in said
    assert "removals_pct" in said
    assert "30 % of the members would be removed" in said
    assert "- email=a•••@acme.example" in said
    assert "headgate approve abcdef123456 --reason" in said
    assert "headgate approve abcdef123456 --no-removals --reason" in said
    assert max(map(len, said.splitlines())) <= 80


def test_every_command_it_tells_to_type_is_one(session, capsys):
    report.show_plan(session, SyncReport("vip", "held", plan(PlanStatus.HELD), counts=COUNTS, verdicts=(HELD,)))
    report.show_plan(session, SyncReport("vip", "ready", plan(), counts=COUNTS))
    report.show_run(session, SyncReport("vip", "completed_with_errors", plan(), rejected=3, requests=1))
    report.show_run(session, SyncReport("vip", "sending", plan(), applied=3, requests=1))
    report.show_run(session, SyncReport("vip", "failed", code="HG201", error="no answer"))

    commands = [
        line.partition("headgate ")[2] for line in capsys.readouterr().out.splitlines() if "headgate " in line
    ]
    known = {name for section in app.COMMANDS.values() for name in section}
    assert len(commands) >= 7
    assert {shlex.split(command)[0] for command in commands} <= known


def test_a_run_says_what_became_of_its_records(session, capsys):
    made = SyncReport(
        "vip", "completed_with_errors", plan(), counts=COUNTS, applied=1990, rejected=10, requests=21
    )

    report.show_run(session, made)

    said = capsys.readouterr().out
    assert "1,990 applied, 10 rejected" in said
    assert "21 requests" in said
    assert "headgate rejected list vip" in said


def test_a_sample_of_an_update_shows_what_moved():
    sample = {"op": "update", "identifiers": {"id": 1}, "fields": {"a": 2, "b": 3}, "before": {"a": 1, "b": 3}}

    assert report.sample_lines([sample]) == ["  ~ id=1  a: 1 -> 2"]


@pytest.mark.parametrize(
    ("statuses", "detailed", "code"),
    [
        (["unchanged"], True, 0),
        (["ready"], False, 0),
        (["ready", "unchanged"], True, 5),
        (["held", "ready"], True, 3),
        (["held", "failed"], False, 1),
        ([], True, 0),
    ],
)
def test_the_exit_code_of_a_plan_is_its_gravest_sync(statuses, detailed, code):
    assert _exit_code([SyncReport("s", status) for status in statuses], detailed=detailed) == code


def test_a_plan_file_is_read_back_and_holds_only_names_and_digests(tmp_path: Path):
    path = tmp_path / "p.json"
    plan_file.write(path, [SyncReport("vip", "ready", plan()), SyncReport("other", "failed")])

    assert plan_file.looks_like_file(str(path))
    assert plan_file.read(path) == [("vip", plan().digest)]


@pytest.mark.parametrize("text", ["", "[]", '{"plans": [{"sync": "a"}]}', '{"plans": 3}'])
def test_another_file_is_no_plan(tmp_path: Path, text):
    path = tmp_path / "p.json"
    path.write_text(text)

    with pytest.raises(UsageError, match="not a file of"):
        plan_file.read(path)


def test_an_id_is_not_taken_for_a_file():
    assert not plan_file.looks_like_file("abcdef123456")
    with pytest.raises(UsageError, match="cannot read"):
        plan_file.read(Path("nowhere/p.json"))
