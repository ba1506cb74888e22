"""People are told: of a real project whose runs fail, hold and recover, by real apprise, over HTTP and by mail."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sync.alerts.observing import observe
from sync.alerts.teller import Ground, Teller
from sync.conditions import Condition
from sync.project import load
from sync.schedule import slot
from sync.state.alerts import Alert, MessageKind, Telling
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import RunRequest
from sync.state.refusal import Refusal
from tests.acceptance import faults
from tests.acceptance.project import Process
from tests.acceptance.sink import Sink, running
from tests.crash.small import QUICK, SYNC, Settled, Small
from tests.inbox import Inbox, Mailbox, inbox, mailbox, tarpit, until

pytestmark = pytest.mark.timeout(120)

ALERTS = """\
[alerts.board]
url = "env:BOARD_URL"
[alerts.mail]
url = "env:MAIL_URL"
format = "markdown"
[alerting]
to = ["board"]
max_rejected = 1
"""


NIGHT = """
[alerts.night]
url = "env:BOARD_URL"
"""


class Alerting(Small):
    """A project that tells people; `told` looks, sends, and says how many messages were taken."""

    def told(self) -> int:
        return int(self.here("alert", "send").succeeded().json["sent"])

    def again(self, *arguments: str) -> str:
        """The status of a run."""
        return str(self.here("run", *arguments).sync["status"])

    def ledger(self) -> Ledger:
        return open_ledger(self.state / "ledger.db")

    def mapped(self, old: str, new: str) -> None:
        """Edit the mapping."""
        path = self.root / "mappings" / "vip.yaml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def hurry(self) -> None:
        """Make what waits for another attempt due."""
        with self.ledger() as ledger, ledger._db.write() as connection:
            connection.exec_driver_sql("UPDATE alert_message SET next_at = 0")

    def typed(self, message: str, verb: str) -> list[str]:
        """The words of the first command in a message that begins so, as a person would copy it."""
        line = next(line.strip() for line in message.splitlines() if line.strip().startswith(f"headgate {verb}"))
        words = shlex.split(line)[1:]
        assert words[-2:] == ["--project", str(self.root)], "it works from anywhere"
        return words[:-2]


@pytest.fixture(scope="module")
def sink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sink]:
    with running(tmp_path_factory.mktemp("sink") / "sink.jsonl") as started:
        yield started


@pytest.fixture
def board() -> Iterator[Inbox]:
    with inbox() as made:
        yield made


@pytest.fixture
def post() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture
def project(tmp_path: Path, sink: Sink, board: Inbox, monkeypatch: pytest.MonkeyPatch) -> Alerting:
    sink.begin(tmp_path / "sink.jsonl")
    made = Alerting(tmp_path / "project", sink.url, extra=QUICK + ALERTS)
    made.environment = {"BOARD_URL": f"json://127.0.0.1:{board.port}/hook", "MAIL_URL": "json://127.0.0.1:9"}
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made.begun()


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory, sink: Sink) -> Settled:
    """A project in step with its destination, made once."""
    folder = tmp_path_factory.mktemp("once") / "project"
    sink.begin(folder.with_suffix(".jsonl"))
    made = Small(folder, sink.url).begun()
    made.here("run", "--first-run").succeeded()
    return Settled(folder, dict(sink.members))


@pytest.fixture
def synced(once: Settled, project: Alerting, sink: Sink, tmp_path: Path) -> Alerting:
    """A copy of it, with alerts."""
    for name in (".headgate", "checkpoints"):
        shutil.copytree(once.folder / name, project.root / name)
    shutil.copy(once.folder / "warehouse.duckdb", project.root)
    sink.begin(tmp_path / "synced.jsonl", once.members)
    return project


def test_a_held_plan_is_told_once_and_its_command_decides_on_it(project: Alerting, board: Inbox) -> None:
    assert project.again() == "held"
    assert project.told() == 1
    assert project.told() == 0
    assert project.again() == "held", "another run makes another plan of it"
    assert project.told() == 0

    (message,) = board.got
    assert message["title"] == f"[Headgate] held: {SYNC}"
    assert message["type"] == "warning"
    assert "300 additions, 0 updates, 0 removals" in message["message"]
    assert "first_run" in message["message"]

    with project.ledger() as ledger:
        plan = ledger.plans(SYNC, limit=1)[0].id
    assert project.here(*project.typed(message["message"], "approve")[:1], plan, "--reason", "seen").code == 0
    assert project.told() == 1
    assert board.titles[1:] == [f"[Headgate] recovered: held: {SYNC}"]
    assert board.got[1]["type"] == "success"
    assert project.told() == 0


def test_the_command_in_a_message_is_typed_as_it_stands(project: Alerting, board: Inbox, sink: Sink) -> None:
    project.again()
    project.told()

    assert project.here(*project.typed(board.got[0]["message"], "approve")).code == 0

    assert len(sink.members) == 300


def test_another_plan_to_decide_on_is_told_with_its_command(synced: Alerting, board: Inbox) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 200")
    assert synced.again() == "held"
    synced.told()
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 190")
    assert synced.again() == "held"
    assert synced.told() == 0, "the last message is not a day old"

    with synced.ledger() as ledger, ledger._db.write() as connection:
        connection.exec_driver_sql("UPDATE alert SET told_at = told_at - 86400")
    assert synced.told() == 1
    assert board.titles[-1] == f"[Headgate] changed: held: {SYNC}"
    assert "110 removals" in board.got[-1]["message"]
    assert synced.here(*synced.typed(board.got[-1]["message"], "approve")).code == 0


def test_a_failed_run_and_its_recovery_are_told(synced: Alerting, board: Inbox, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    sink.faults = (faults.always(faults.SERVER_ERROR),)
    for _ in range(2):
        assert synced.again() == "failed"
        synced.told()
    assert board.titles == [f"[Headgate] failed: {SYNC}"]
    assert board.got[0]["type"] == "failure"
    code = re.search(r"\((HG\d+)\)", board.got[0]["message"])
    assert code is not None
    assert synced.here("explain", code[1]).code == 0

    sink.faults = ()
    assert synced.again() == "completed"
    assert synced.told() == 1
    assert board.titles[-1] == f"[Headgate] recovered: failed: {SYNC}"


def test_refused_credentials_are_told_once_for_the_destination(synced: Alerting, board: Inbox, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    sink.faults = (faults.always(faults.Answer(status=401, body=b"no")),)
    assert synced.again() == "failed"
    synced.told()
    assert board.titles == ["[Headgate] auth: destination:sink"]
    assert "headgate doctor" in board.got[0]["message"]

    sink.faults = ()
    assert synced.again() == "completed"
    synced.told()
    assert board.titles[1:] == ["[Headgate] recovered: auth: destination:sink"]


def test_a_failure_is_not_over_because_credentials_are_refused(synced: Alerting, board: Inbox, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    for answer in (faults.SERVER_ERROR, faults.Answer(status=401, body=b"no")):
        sink.faults = (faults.always(answer),)
        assert synced.again() == "failed"
        synced.told()
    assert board.titles == [f"[Headgate] failed: {SYNC}", "[Headgate] auth: destination:sink"]

    sink.faults = ()
    assert synced.again() == "completed"
    synced.told()
    assert set(board.titles[2:]) == {
        f"[Headgate] recovered: failed: {SYNC}",
        "[Headgate] recovered: auth: destination:sink",
    }


def test_rejected_records_are_counted_and_nobody_of_them_is_named(
    synced: Alerting, board: Inbox, sink: Sink
) -> None:
    refused = {7, 8, 9}
    sink.faults = (faults.poison_records(frozenset(refused), 207),)
    synced.sql("UPDATE vip_cohort SET score = score + 1, first_name = 'Zoë-Canary' WHERE user_id IN (7, 8, 9)")
    assert synced.again() == "completed_with_errors"

    assert synced.told() == 1

    assert "3 records are refused" in board.text
    assert f"headgate rejected list {SYNC}" in board.text
    for person in ("mail.example", "Canary", "+6141", "person7", "Name7"):
        assert person not in board.text
    sink.faults = ()
    synced.here("rejected", "retry", SYNC, "--all", "--reason", "they are well").succeeded()
    assert synced.again() == "completed"
    synced.told()
    assert board.titles[-1] == f"[Headgate] recovered: rejected: {SYNC}"


def test_a_stale_source_and_an_unlikely_size_are_told_of_the_cohort(synced: Alerting, board: Inbox) -> None:
    synced.mapped("updated_at: updated_at }", "updated_at: updated_at }\n  refresh: { stale_after: 30m }")
    synced.told()
    assert board.titles == ["[Headgate] stale: cohort:vip_cohort"]

    synced.sql("UPDATE vip_cohort SET updated_at = now()")
    synced.mapped("stale_after: 30m }", "stale_after: 30m }\n  expect: { rows: { min: 100, max: 300 } }")
    synced.more_people(1000, 50)
    assert synced.here("plan").code == 3
    synced.told()
    assert set(board.titles[1:]) == {
        "[Headgate] recovered: stale: cohort:vip_cohort",
        "[Headgate] drift: cohort:vip_cohort",
        f"[Headgate] held: {SYNC}",
    }
    assert "350 rows" in board.text
    assert "300 at most" in board.text


def test_a_cohort_that_lost_half_of_its_rows_is_told_without_any_expectation(
    synced: Alerting, board: Inbox
) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 100")
    assert synced.again() == "held"
    synced.told()

    assert set(board.titles) == {f"[Headgate] held: {SYNC}", "[Headgate] drift: cohort:vip_cohort"}
    assert "Usual are 300." in board.text


def test_a_run_that_did_not_end_in_time_is_told(synced: Alerting, board: Inbox) -> None:
    synced.told()
    with synced.ledger() as ledger:
        ledger.request_run(RunRequest(SYNC, "2026-01-01T06:00:00Z", "schedule", "scheduler", ledger.now()))
    synced.told()
    assert board.titles == [f"[Headgate] late: {SYNC}"]
    assert "due at 2026-01-01 06:00 UTC has not begun" in board.text

    assert synced.here("daemon", "--once").code == 0
    assert board.titles[1:] == [f"[Headgate] recovered: late: {SYNC}"], "the daemon tells, too"


@pytest.mark.parametrize("code", ["HG900", "HG311"])
def test_a_run_that_could_not_be_made_is_told_though_it_left_none(
    synced: Alerting, board: Inbox, code: str
) -> None:
    slot = "2026-01-01T06:00:00Z"
    with synced.ledger() as ledger:
        ledger.request_run(RunRequest(SYNC, slot, "schedule", "scheduler", ledger.now()))
        ledger.take_request(SYNC, slot)
        ledger.answer_requests(SYNC, [slot], {"status": "failed", "error": {"code": code}})
    synced.told()
    assert board.titles == [f"[Headgate] failed: {SYNC}"]
    assert f"({code})" in board.text

    synced.again()
    synced.told()
    assert board.titles[1:] == [f"[Headgate] recovered: failed: {SYNC}"]


def test_a_request_that_was_refused_is_no_failed_run(synced: Alerting) -> None:
    with synced.ledger() as ledger:
        for code in ("HG191", "HG301", "HG503", "HG520", "HG525"):
            ledger.request_run(RunRequest(SYNC, f"api#{code}", "api", "airflow", ledger.now()))
            ledger.answer_requests(SYNC, [f"api#{code}"], {"status": "failed", "error": {"code": code}})
            assert synced.told() == 0, code


def test_a_run_that_a_blackout_put_off_is_late_only_so_long_after_its_end(synced: Alerting, board: Inbox) -> None:
    now = datetime.now(UTC)
    slot = now - timedelta(hours=2)
    dark = f"{now - timedelta(hours=3):%H:%M}-{now - timedelta(minutes=10):%H:%M}"
    schedule = f"{{ at: '{slot:%H:%M}', blackout: ['{dark}'] }}"
    synced.mapped("    mode: mirror", f"    schedule: {schedule}\n    mode: mirror")
    with synced.ledger() as ledger:
        name = f"{slot:%Y-%m-%dT%H:%M}:00Z"
        ledger.request_run(RunRequest(SYNC, name, "schedule", "scheduler", ledger.now()))
    synced.told()
    assert board.titles == []

    synced.mapped(f", blackout: ['{dark}']", "")
    synced.told()
    assert board.titles == [f"[Headgate] late: {SYNC}"]


def test_a_slot_that_no_daemon_asked_for_is_late(synced: Alerting, board: Inbox) -> None:
    synced.mapped("    mode: mirror", "    schedule: { every: 7m }\n    mode: mirror")
    with synced.ledger() as ledger:
        assert synced.told() == 0, "no daemon ever saw the schedule"
        now = datetime.now(UTC)
        ledger.notice(SYNC, "schedule seen", None, slot(now - timedelta(hours=3)))
        assert synced.told() == 0, "a run of the command line stands for it"
        with closing(sqlite3.connect(ledger.path)) as other, other:
            other.execute("UPDATE run SET started_at = started_at - 7200, finished_at = finished_at - 7200")
        synced.told()
    assert board.titles == [f"[Headgate] late: {SYNC}"]
    assert "has not begun" in board.text

    assert synced.here("daemon", "--once").code == 0
    assert board.titles[1:] == [f"[Headgate] recovered: late: {SYNC}"]


@pytest.mark.parametrize("begun", [180, 90], ids=["in it", "before it"])
def test_a_run_that_the_source_asks_for_is_not_late_while_a_blackout_puts_it_off(
    synced: Alerting, board: Inbox, begun: int
) -> None:
    now = datetime.now(UTC)
    dark = f"{now - timedelta(minutes=begun):%H:%M}-{now + timedelta(hours=3):%H:%M}"
    schedule = f"{{ source: {{ poll: 5m }}, blackout: ['{dark}'] }}"
    synced.mapped("    mode: mirror", f"    schedule: {schedule}\n    mode: mirror")
    with synced.ledger() as ledger:
        ledger.request_run(RunRequest(SYNC, "source-1", "source", "scheduler", ledger.now() - 7200))
        assert synced.told() == 0
        ledger.request_run(RunRequest(SYNC, "api#1", "api", "airflow", ledger.now() - 7200))
        assert synced.told() == 1, "a person's request does not wait for its end"
    assert board.titles == [f"[Headgate] late: {SYNC}"]


def test_a_source_that_nobody_looked_at_since_is_not_stale(
    synced: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced.mapped("updated_at: updated_at }", "updated_at: updated_at }\n  refresh: { stale_after: 36h }")
    loaded = load(synced.root)
    with synced.ledger() as ledger:
        week = ledger.now() + 7 * 86400
        monkeypatch.setattr(ledger, "now", lambda: week)
        seen = observe(ledger, loaded.jobs(), loaded.settings.alerting)

    assert [one.condition for one in seen if one.open] == []


def test_what_is_paused_or_gone_is_not_wrong(synced: Alerting, board: Inbox, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    sink.faults = (faults.always(faults.SERVER_ERROR),)
    synced.again()
    synced.here("pause", SYNC, "--reason", "the account is being moved").succeeded()
    assert synced.told() == 0
    synced.here("resume", SYNC).succeeded()
    assert synced.told() == 1

    synced.mapped("    mode: mirror", "    disabled: true\n    mode: mirror")
    assert synced.told() == 1
    assert "not in the project any more, or disabled" in board.got[-1]["message"]


def test_what_nobody_looked_at_yet_is_listed_and_kept_by_the_next_look(synced: Alerting) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 200")
    assert synced.again() == "held"

    for _ in range(2):
        (alert,) = synced.here("alert", "list").succeeded().json["alerts"]
        assert (alert["condition"], alert["open"], alert["told"], alert["number"]) == ("held", True, [], 0)
    assert "nobody looked since it is so" in synced.headgate("alert", "list").text
    assert synced.told() == 1
    (alert,) = synced.here("alert", "list").succeeded().json["alerts"]
    assert (alert["told"], alert["number"]) == (["board"], 1)


def test_a_mute_keeps_silent_with_a_reason_and_ends(synced: Alerting, board: Inbox, sink: Sink) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    sink.faults = (faults.always(faults.SERVER_ERROR),)
    synced.here("alert", "mute", SYNC, "--on", "failed", "--for", "4h", "--reason", "a known outage").succeeded()
    synced.again()
    assert synced.told() == 0
    listed = synced.here("alert", "list").succeeded().json
    assert [(a["condition"], a["open"], a["told"]) for a in listed["alerts"]] == [("failed", True, [])]
    assert [m["reason"] for m in listed["mutes"]] == ["a known outage"]

    synced.here("alert", "unmute", SYNC, "--on", "failed").succeeded()
    assert synced.told() == 1
    actions = synced.here("audit", "search", "--action", "alert.muted").succeeded().json["events"]
    assert [event["data"]["reason"] for event in actions] == ["a known outage"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("mute", "nobody", "--for", "4h", "--reason", "why not"), "HG190"),
        (("mute", SYNC, "--for", "400d", "--reason", "why not"), "HG190"),
        (("mute", SYNC, "--for", "soon", "--reason", "why not"), "HG190"),
        (("unmute", SYNC), "HG190"),
        (("test", "bord"), "HG129"),
    ],
)
def test_what_cannot_be_meant_is_refused(project: Alerting, words: tuple[str, ...], code: str) -> None:
    answer = project.here("alert", *words)

    assert answer.code == 2
    assert answer.error == code


def test_a_notifier_that_fails_is_shown_tried_again_and_fails_nothing_else(
    synced: Alerting, board: Inbox, sink: Sink
) -> None:
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    sink.faults, board.status = (faults.always(faults.SERVER_ERROR),), 500
    synced.again()
    assert synced.told() == 0
    (waiting,) = synced.here("alert", "list").succeeded().json["messages"]
    assert waiting["problem"] == "board: it answered with HTTP 500"
    checks = synced.here("doctor", "--offline").succeeded().json["checks"]
    assert any(c["name"] == "alerts board" and c["warning"] and "HTTP 500" in c["message"] for c in checks)
    assert synced.told() == 0
    assert board.asked == 1, "it is not tried again at once"

    board.status = 200
    synced.hurry()
    assert synced.told() == 1
    assert board.titles == [f"[Headgate] failed: {SYNC}"]
    assert synced.here("alert", "list").json["messages"] == []


def test_many_changes_at_once_are_one_message(project: Alerting, board: Inbox, sink: Sink) -> None:
    path = project.root / "mappings" / "vip.yaml"
    head, sync = path.read_text().split("syncs:\n")
    many = "".join(sync.replace(f"name: {SYNC}", f"name: {SYNC}-{n}") for n in range(5))
    path.write_text(f"{head}syncs:\n{many}")
    project.here("plan")

    assert project.told() == 5

    assert board.titles == ["[Headgate] 5 changes"]
    assert board.text.count("headgate approve") == 5


def opened(ledger: Ledger, *subjects: str, target: str = "board") -> None:
    """Alerts that `target` is still to be told of."""
    told = Telling(MessageKind.OPENED, frozenset({target}), 100.0)
    facts = {"code": "HG401", "title": "A cohort", "destination": "crm", "status": "failed"}
    for subject in subjects:
        alert = Alert(subject, Condition.FAILED, 1, True, 100.0, (target,), 100.0, facts=facts)
        assert ledger.change_alert(alert, told)


def teller(project: Alerting, ledger: Ledger, **options: Any) -> Teller:
    """Who tells of the project as its files are now."""
    loaded = load(project.root)
    ground = Ground(loaded.settings, loaded.jobs(disabled=True))
    return Teller(ledger, lambda: ground, lambda words: f"headgate {words}", **options)


def test_bundles_are_as_long_as_the_service_takes(
    synced: Alerting, board: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apprise.plugins.custom_json.NotifyJSON.body_maxlen", 2000)
    with synced.ledger() as ledger:
        opened(ledger, *(f"sync-{number}" for number in range(12)))
        assert teller(synced, ledger).send() == 12

    assert 1 < board.asked < 12
    assert all(len(message["message"]) <= 2000 for message in board.got)
    assert all(board.text.count(f"failed: sync-{number}\n") == 1 for number in range(12))


def test_a_bundle_that_is_refused_is_halved_and_a_message_that_is_holds_no_other_back(
    synced: Alerting, board: Inbox
) -> None:
    board.refuses = lambda message: bool(re.search(r"\bsync-3\b", message)) or len(message) > 2000
    with synced.ledger() as ledger:
        opened(ledger, *(f"sync-{number}" for number in range(12)))
        assert teller(synced, ledger).send() == 11
        (waiting,) = ledger.messages(waiting=True)

    assert (waiting.subject, waiting.problem) == ("sync-3", "board: it answered with HTTP 400")
    assert all(board.text.count(f"failed: sync-{number}\n") == 1 for number in range(12) if number != 3)


def test_a_notifier_that_refuses_everything_is_not_asked_for_each_message(synced: Alerting, board: Inbox) -> None:
    board.refuses = lambda message: True
    with synced.ledger() as ledger:
        opened(ledger, *(f"sync-{number}" for number in range(32)))
        assert teller(synced, ledger).send() == 0
        assert {m.attempts for m in ledger.messages(waiting=True)} == {1}

    assert board.asked < 10


def test_a_service_of_incidents_has_one_for_each_alert_and_its_end_resolves_it(
    synced: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    got: list[dict[str, Any]] = []

    def post(_url: str, data: str, **_: Any) -> Any:
        got.append(json.loads(data))
        return SimpleNamespace(status_code=202, content=b"")

    monkeypatch.setattr("apprise.plugins.pagerduty.requests.post", post)
    monkeypatch.setenv("BOARD_URL", f"pagerduty://{'a' * 32}@{'b' * 20}")
    with synced.ledger() as ledger:
        opened(ledger, "a", "b", "c", "d", "e")
        tells = teller(synced, ledger)
        assert tells.send() == 5
        assert tells.once() == 5, "there are no such syncs"

    begun, ended = got[:5], got[5:]
    assert {one["event_action"] for one in begun} == {"trigger"}
    assert {one["event_action"] for one in ended} == {"resolve"}
    assert len({one["dedup_key"] for one in begun}) == 5
    assert {one["dedup_key"] for one in begun} == {one["dedup_key"] for one in ended}


def test_a_notifier_that_drips_its_answer_keeps_no_other_waiting(
    synced: Alerting, board: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.alerts.sending.WITHIN_S", 1.0)
    path = synced.root / "config.toml"
    path.write_text(path.read_text() + '\n[alerts.slow]\nurl = "env:SLOW_URL"\n')
    with tarpit() as port, synced.ledger() as ledger:
        monkeypatch.setenv("SLOW_URL", f"json://127.0.0.1:{port}/hook")
        opened(ledger, "a", target="slow")
        opened(ledger, "b")
        tells = teller(synced, ledger, every=0.1)
        tells.start()
        until(lambda: bool(board.got))
        until(lambda: any(m.problem for m in ledger.messages(waiting=True)))
        (waiting, *_) = ledger.messages(waiting=True)
        tells.close()

    assert waiting.problem == "slow: it did not answer within 1 s"


def test_a_message_for_a_notifier_that_only_another_configuration_has_is_left_to_it(
    synced: Alerting, board: Inbox
) -> None:
    path = synced.root / "config.toml"
    before = path.read_text()
    with synced.ledger() as ledger:
        old = teller(synced, ledger)
        path.write_text(before.replace('["board"]', '["board", "night"]') + NIGHT)
        opened(ledger, "a", target="night")
        assert old.send() == 0
        assert [m.attempts for m in ledger.messages(waiting=True)] == [0]

        assert teller(synced, ledger).send() == 1
        opened(ledger, "b", target="gone")
        with ledger._db.write() as connection:
            connection.exec_driver_sql("UPDATE alert_message SET at = at - 4 * 86400")
        old.send()
        given_up = [m.subject for m in ledger.messages() if m.gave_up_at is not None]

    assert given_up == ["b"], "what nobody has for three days is given up by anybody"


def test_files_that_a_daemon_refuses_are_told(synced: Alerting, board: Inbox) -> None:
    Refusal.write(synced.state, 0.0, ["mappings/vip.yaml: unknown key [HG105]"])
    assert synced.told() == 1
    assert board.titles == ["[Headgate] refused: project:files"]
    assert "headgate validate" in board.text
    synced.here("alert", "mute", "project:files", "--for", "1h", "--reason", "we know").succeeded()
    synced.here("alert", "unmute", "project:files").succeeded()

    Refusal.withdraw(synced.state)
    assert synced.told() == 1
    assert board.titles[1:] == ["[Headgate] recovered: refused: project:files"]


def test_alert_test_sends_a_message(project: Alerting, board: Inbox) -> None:
    assert project.here("alert", "test", "board").succeeded().json["notifier"] == "board"

    assert board.titles == ["[Headgate] test"]


def test_an_address_that_is_none_is_never_repeated(project: Alerting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOARD_URL", "slak://canary-token-of-a-workspace")
    answer = project.here("alert", "test", "board")
    checks = project.here("doctor", "--offline")

    assert (answer.code, answer.error) == (1, "HG451")
    assert "HG451" in checks.text
    assert "canary-token" not in answer.text + checks.text


def test_an_address_that_is_not_there_is_a_warning_of_validate(
    project: Alerting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("BOARD_URL")

    answer = project.here("validate")

    assert answer.code == 0
    assert "BOARD_URL" in answer.text
    assert project.here("alert", "test", "board").error == "HG151"


def test_a_mail_has_the_command_to_copy_and_no_markup_but_ours(
    synced: Alerting, post: Mailbox, board: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"mailto://127.0.0.1:{post.port}?from=headgate@acme.example&to=ops@acme.example"
    monkeypatch.setenv("MAIL_URL", f"{address}&mode=insecure&smtp=127.0.0.1")
    synced.mapped("title: VIP customers", 'title: "<script>alert(1)</script> [pay](https://evil.example) @here"')
    synced.mapped("    mode: mirror", "    alerts: [{ on: [held], to: [mail] }]\n    mode: mirror")
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 250")
    assert synced.again() == "held"

    assert synced.told() == 2, "the mapping's notifier, besides that of config.toml"

    (mail,) = post.mails
    plain, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert plain is not None
    assert html is not None
    assert mail["subject"] == f"[Headgate] held: {SYNC}"
    assert "50 removals" in plain.get_content()
    assert "headgate approve" in plain.get_content()
    for harm in ("<script", "href", "https://", "@here"):
        assert harm not in html.get_content()
        assert harm not in board.text


def test_a_chat_like_slack_gets_the_same(project: Alerting, board: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOARD_URL", f"mmost://127.0.0.1:{board.port}/3ccdd113474722377935511fc85d3dd4")
    project.again()
    assert project.told() == 1

    (message,) = board.got
    assert f"[Headgate] held: {SYNC}" in message["text"]
    assert "headgate approve" in message["text"]


# --- daemons --------------------------------------------------------------------------------------------------


def ended(*daemons: Process) -> str:
    for daemon in daemons:
        daemon.send(signal.SIGTERM)
    done = [daemon.wait() for daemon in daemons]
    assert [one.code for one in done] == [0] * len(done), done[0].text
    return "".join(one.text for one in done)


@pytest.mark.slow
def test_two_daemons_send_one_message_and_ask_for_the_dead_mans_address(project: Alerting, board: Inbox) -> None:
    with inbox() as switch:
        project.environment["SWITCH_URL"] = f"{switch.url}/ping/canary-of-the-switch"
        project.extra += 'dead_man_url = "env:SWITCH_URL"\ndead_man_every = "100ms"\n'
        project.write()
        project.again()
        daemons = [project.start("daemon", "--json") for _ in range(2)]
        until(lambda: bool(board.got) and switch.asked > 6)
        said = ended(*daemons)
        asked = switch.asked

    assert board.titles == [f"[Headgate] held: {SYNC}"], "each looked again before it ended"
    assert "canary-of-the-switch" not in said
    assert asked > 6


@pytest.mark.slow
def test_a_daemon_whose_log_cannot_be_written_works_tells_and_drains(
    synced: Alerting, board: Inbox, sink: Sink
) -> None:
    sink.faults = (faults.always(faults.SERVER_ERROR),)
    synced.sql("UPDATE vip_cohort SET score = score + 1 WHERE user_id <= 5")
    command = [sys.executable, "-m", "sync.cli.app", "daemon", "--json"]
    with Path("/dev/full").open("w") as full:
        daemon = subprocess.Popen(command, cwd=synced.root, stdout=subprocess.DEVNULL, stderr=full)
    with synced.ledger() as ledger:
        ledger.request_run(RunRequest(SYNC, "now#1", "console", "ana", ledger.now()))
        until(lambda: all(r.ended_at for r in ledger.newest_requests(SYNC)))
    daemon.terminate()

    assert daemon.wait(60) == 0
    assert board.titles == [f"[Headgate] failed: {SYNC}"], "its alert thread lived to the end"


@pytest.mark.slow
def test_a_notifier_that_does_not_answer_keeps_no_run_back(synced: Alerting, board: Inbox, sink: Sink) -> None:
    synced.sql("DELETE FROM vip_cohort WHERE user_id > 250")
    synced.again()
    board.answers.clear()
    daemon = synced.start("daemon", "--json")
    synced.sql("UPDATE vip_cohort SET score = score + 1")
    with synced.ledger() as ledger:
        until(lambda: any(m.attempts for m in ledger.messages(waiting=True)))
        ledger.request_run(RunRequest(SYNC, "now#1", "console", "ana", ledger.now()))
        until(lambda: all(r.ended_at for r in ledger.newest_requests(SYNC)))
    assert board.got == []
    board.answers.set()
    ended(daemon)


# --- nothing of a person --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_whatever_fails_and_whoever_quotes_it_no_message_names_a_person(
    synced: Alerting, board: Inbox, sink: Sink
) -> None:
    canaries = ("zoe.canary", "leak-canary", "Zoë-Canary", "498765432")
    synced.sql(
        "UPDATE vip_cohort SET email = 'zoe.canary@leak-canary.example', first_name = 'Zoë-Canary Kowalska', "
        "phone = '+61498765432' WHERE user_id <= 4"
    )
    quoted = (
        b'{"message": "zoe.canary@leak-canary.example (Zo\xc3\xab-Canary Kowalska, +61498765432) is no customer"}'
    )
    for status in (500, 401, 400, 409, 200):
        sink.faults = (faults.always(faults.Answer(status=status, body=quoted, apply=False)),)
        synced.again()
        synced.told()
    sink.faults = ()
    synced.again()
    synced.mapped("{ to: ltv, from: ltv }", '{ to: ltv, expr: "cast(first_name AS INTEGER)" }')
    assert synced.again() == "failed", "the warehouse's own words have the name in them"
    synced.told()

    assert len(board.got) >= 4
    with synced.ledger() as ledger:
        kept = repr((ledger.alerts(), ledger.messages(limit=100)))
    for canary in canaries:
        assert canary not in board.text
        assert canary not in kept
