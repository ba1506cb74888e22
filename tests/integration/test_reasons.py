"""What asks for runs besides the clock, on a real ledger and real files: once each, whatever happens meanwhile."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from structlog.testing import capture_logs

from sync.daemon.asking import Asking
from sync.daemon.clock import Clock
from sync.daemon.dbt import DbtRuns, failure, read_results
from sync.daemon.following import Following
from sync.daemon.moves import Moves
from sync.daemon.reasons import Reasons
from sync.daemon.service import Daemon
from sync.daemon.webhook import MOST_BYTES, Answer, Webhooks
from sync.engine.job import GuardrailLimits, SyncJob
from sync.engine.report import SyncReport
from sync.mapping import Cohort, Sync
from sync.sdk.nouns import Limits, ObjectSpec, Op
from sync.sources import open_source
from sync.sources.base import Source
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import Run, RunRequest, RunStatus


def nothing(*_: Any) -> Any:
    raise AssertionError("nobody opens a source or a destination here")


def job(name: str, schedule: dict[str, Any] | None = None, source: Callable[[], Source] = nothing) -> SyncJob:
    """A sync that is only asked for."""
    cohort = Cohort.model_validate({"name": "vip", "source": {"connection": "w", "table": "vip", "key": "id"}})
    sync = {
        "name": name,
        "destination": "sink",
        "mode": "mirror",
        "schedule": schedule,
        "identifiers": [{"to": "email", "from": "email"}],
    }
    return SyncJob(
        name=name,
        cohort=cohort,
        sync=Sync.model_validate(sync),
        destination="sink",
        spec=ObjectSpec("record", "Record", frozenset(Op)),
        limits=Limits(),
        account=name,
        guardrails=GuardrailLimits(),
        mapping_digest="m",
        author="",
        source=source,
        connect=nothing,
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "ledger.db") as made:
        yield made


def asking(ledger: Ledger, *jobs: SyncJob) -> Asking:
    clock = Clock(lambda: jobs, ledger)
    clock.read()
    return Asking(ledger, clock)


def asked(ledger: Ledger, name: str = "mine") -> list[str]:
    return [request.slot for request in ledger.requests(name, open_only=False)]


# --- after another sync ----------------------------------------------------------------------------------------


def ran(ledger: Ledger, id: str, status: RunStatus = RunStatus.COMPLETED, sync: str = "other") -> None:
    """A run that a command made, whatever process it was."""
    ledger.add_run(Run(id, sync, status, None, frozenset(Op), "cli", "ana", ledger.now(), ledger.now()))


def follow(ledger: Ledger, schedule: dict[str, Any] | None = None) -> None:
    """Look as a daemon does that was just started."""
    Following(asking(ledger, job("other"), job("mine", schedule or {"after": "other"}))).look()


def test_each_completed_run_of_the_other_sync_asks_for_one(ledger: Ledger) -> None:
    ran(ledger, "r0")
    follow(ledger)
    assert asked(ledger) == []

    ran(ledger, "r1")
    ran(ledger, "r2")
    for _ in range(3):
        follow(ledger)

    assert asked(ledger) == ["after-r1", "after-r2"]
    assert {r.why for r in ledger.requests("mine")} == {"after"}


def test_a_run_that_ends_before_a_new_daemon_looked_again_is_followed(ledger: Ledger) -> None:
    """What it saw first is what there was before it made any run itself."""

    def run(_: object, one: SyncJob) -> SyncReport:
        ran(ledger, f"r-{one.name}", sync=one.name)
        return SyncReport(one.name, "completed")

    stop = threading.Event()
    daemon = Daemon(
        lambda: [job("other"), job("mine", {"after": "other"})],
        ledger,
        lambda *_: type("Runner", (), {"run": run})(),
        stop=stop,
        poll=0.02,
        ended=[lambda one: stop.set() if one.job.name == "mine" else None],
    )
    assert ledger.request_run(RunRequest("other", "2026-10-01T06:00:00Z", "console", "ana", ledger.now()))
    late = threading.Timer(20, stop.set)
    late.start()
    daemon.serve()
    late.cancel()

    assert asked(ledger) == ["after-r-other"]


@pytest.mark.parametrize("status", ["completed_with_errors", "failed", "stopped", "held", "cancelled"])
def test_a_run_that_did_not_complete_asks_for_none(ledger: Ledger, status: str) -> None:
    follow(ledger)
    ran(ledger, "r1", RunStatus(status))
    follow(ledger)
    assert asked(ledger) == []

    ran(ledger, "r2")
    follow(ledger)
    assert asked(ledger) == ["after-r2"]


def test_a_run_that_ends_later_than_it_was_looked_at_is_not_missed(ledger: Ledger) -> None:
    follow(ledger)
    lease = ledger.acquire("other", "h/1/2/3", 30)
    run = Run("r1", "other", RunStatus.SENDING, None, frozenset(Op), "cli", "ana", ledger.now(), epoch=lease.epoch)
    ledger.open(lease, run, [])
    follow(ledger)
    assert asked(ledger) == []

    ended(ledger, lease)
    follow(ledger)
    assert asked(ledger) == ["after-r1"]


def ended(ledger: Ledger, lease: Any) -> None:
    from sync.state.nouns import Settlement

    ledger.finish(lease, "r1", Settlement(RunStatus.COMPLETED, {}))


def test_a_request_that_was_pruned_is_not_made_again(ledger: Ledger) -> None:
    follow(ledger)
    ran(ledger, "r1")
    follow(ledger)
    with ledger._db.write() as connection:
        connection.exec_driver_sql("DELETE FROM run_request")

    follow(ledger)

    assert asked(ledger) == []


def test_two_daemons_that_look_at_once_ask_once(ledger: Ledger) -> None:
    follow(ledger)
    ran(ledger, "r1")
    lookers = [Following(asking(ledger, job("other"), job("mine", {"after": "other"}))) for _ in range(4)]
    threads = [threading.Thread(target=one.look) for one in lookers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert asked(ledger) == ["after-r1"]


def test_a_paused_sync_is_asked_for_when_it_is_resumed(ledger: Ledger) -> None:
    follow(ledger)
    ledger.pause("mine", "moving")
    ran(ledger, "r1")
    follow(ledger)
    assert asked(ledger) == []

    ledger.pause("mine", None)
    follow(ledger)
    assert asked(ledger) == ["after-r1"]


def test_in_a_blackout_nothing_is_asked_for_and_afterwards_what_happened_in_it(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    dark = f"{now - timedelta(minutes=5):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    follow(ledger)
    ran(ledger, "r1")
    follow(ledger, {"after": "other", "blackout": [dark]})
    assert asked(ledger) == []

    follow(ledger)
    assert asked(ledger) == ["after-r1"]


def test_another_name_to_follow_begins_anew(ledger: Ledger) -> None:
    follow(ledger)
    ran(ledger, "r1", sync="third")
    Following(asking(ledger, job("third"), job("mine", {"after": "third"}))).look()

    assert asked(ledger) == []


# --- after dbt -------------------------------------------------------------------------------------------------

BUILT = {"model.shop.vip": "success", "model.shop.orders": "success", "test.shop.unique_vip.1": "pass"}


def results(id: str, nodes: dict[str, str] | None = None, which: str = "build") -> dict[str, Any]:
    """What dbt writes, with more keys than are read."""
    return {
        "metadata": {
            "dbt_schema_version": "https://schemas.getdbt.com/dbt/run-results/v6.json",
            "invocation_id": id,
        },
        "results": [
            {"unique_id": name, "status": status, "timing": [], "message": "OK", "execution_time": 0.1}
            for name, status in (BUILT if nodes is None else nodes).items()
        ],
        "elapsed_time": 1.5,
        "args": {"which": which, "select": []},
    }


class Dbt:
    """A dbt project's target folder, and a daemon's look at it."""

    def __init__(self, ledger: Ledger, root: Path) -> None:
        self.ledger, self.root = ledger, root / "project"
        self.file = root / "target" / "run_results.json"
        self.root.mkdir()
        self.file.parent.mkdir()
        self.schedule: dict[str, Any] = {"run_results": "../target/run_results.json"}

    def write(self, data: Any) -> None:
        self.file.write_text(data if isinstance(data, str) else json.dumps(data))

    def look(self) -> list[str]:
        """What was asked for so far, after a look of a daemon that was just started."""
        DbtRuns(asking(self.ledger, job("mine", {"dbt": self.schedule})), self.root).look()
        return asked(self.ledger)


@pytest.fixture
def dbt(ledger: Ledger, tmp_path: Path) -> Dbt:
    return Dbt(ledger, tmp_path)


def test_a_new_invocation_asks_for_one_run(dbt: Dbt) -> None:
    dbt.write(results("one"))
    assert dbt.look() == []

    dbt.write(results("two"))
    assert dbt.look() == dbt.look() == ["dbt-two"]


@pytest.mark.parametrize("next", ["generate", "build"], ids=["docs generate", "a build that fails"])
def test_a_build_during_a_pause_is_not_lost_by_what_dbt_does_next(dbt: Dbt, next: str) -> None:
    dbt.look()
    dbt.ledger.pause("mine", "moving")
    for data in (results("one"), results("two"), results("three", {"model.shop.vip": "error"}, which=next)):
        dbt.write(data)
        assert dbt.look() == []
    dbt.ledger.pause("mine", None)

    assert dbt.look() == dbt.look() == ["dbt-two"]
    dbt.write(results("four"))
    assert dbt.look() == ["dbt-two", "dbt-four"]


def test_tests_after_a_run_of_the_named_models_are_no_failure_of_theirs(dbt: Dbt) -> None:
    dbt.schedule["models"] = ["vip"]
    dbt.look()
    dbt.write(results("one", which="run"))
    with capture_logs() as logs:
        dbt.look()
        dbt.write(results("two", {"test.shop.unique_vip.1": "fail"}, which="test"))
        assert dbt.look() == ["dbt-one"]

    assert [entry["event"] for entry in logs] == ["due"]


def test_another_file_to_wait_for_begins_anew(dbt: Dbt) -> None:
    dbt.look()
    dbt.ledger.pause("mine", "moving")
    dbt.write(results("one"))
    dbt.look()
    dbt.ledger.pause("mine", None)
    dbt.schedule["run_results"] = "../target/other.json"

    assert dbt.look() == []


def test_the_first_invocation_ever_asks_where_there_was_no_file_before(dbt: Dbt) -> None:
    assert dbt.look() == []
    dbt.write(results("one"))

    assert dbt.look() == ["dbt-one"]


def test_a_failed_invocation_asks_for_none_and_the_log_says_why_once(dbt: Dbt) -> None:
    dbt.look()
    dbt.write(results("one", BUILT | {"model.shop.vip": "error", "model.shop.late": "skipped"}))
    with capture_logs() as logs:
        assert dbt.look() == dbt.look() == []

    (told,) = [entry for entry in logs if entry["event"] == "dbt_run_failed"]
    assert told["why"] == "2 of 4 nodes did not succeed: `model.shop.late`, `model.shop.vip`"
    dbt.write(results("two"))
    assert dbt.look() == ["dbt-two"]


@pytest.mark.parametrize("which", ["compile", "docs", "generate", "show", "run-operation", "list"])
def test_a_command_that_builds_nothing_asks_for_nothing(dbt: Dbt, which: str) -> None:
    dbt.look()
    dbt.write(results("one", which=which))

    assert dbt.look() == []


@pytest.mark.parametrize(
    ("models", "nodes", "why"),
    [
        ((), BUILT, ""),
        ((), {}, "dbt executed nothing"),
        ((), {"test.shop.t.1": "fail"}, "1 of 1 nodes did not succeed: `test.shop.t.1`"),
        ((), {"test.shop.t.1": "warn", "model.shop.vip": "reused"}, ""),
        (("vip",), BUILT | {"model.shop.orders": "error", "test.shop.t.1": "fail"}, ""),
        (("model.shop.vip",), BUILT, ""),
        (("vip.v2",), {"model.shop.vip.v2": "success"}, ""),
        (("vip",), {"model.shop.vip": "skipped"}, "1 of 1 nodes did not succeed: `model.shop.vip`"),
        (("vip", "gone"), BUILT, "dbt did not build `gone`"),
        (("unique_vip.1",), BUILT, "dbt did not build `unique_vip.1`"),
    ],
)
def test_only_the_nodes_of_interest_count(
    tmp_path: Path, models: tuple[str, ...], nodes: dict[str, str], why: str
) -> None:
    file = tmp_path / "run_results.json"
    file.write_text(json.dumps(results("one", nodes)))

    assert failure(read_results(file), models) == why


def test_a_file_that_is_read_while_dbt_writes_it_is_read_again(dbt: Dbt) -> None:
    dbt.look()
    whole = json.dumps(results("one"))
    looker = DbtRuns(asking(dbt.ledger, job("mine", {"dbt": dbt.schedule})), dbt.root)
    with capture_logs() as logs:
        for end in (0, 1, 80, len(whole) - 1):
            dbt.write(whole[:end])
            looker.look()
            assert asked(dbt.ledger) == []
    assert logs == []

    dbt.write(whole)
    looker.look()
    assert asked(dbt.ledger) == ["dbt-one"]


HOSTILE = {
    "empty": "",
    "a list": "[]",
    "null": "null",
    "a number": "1e999",
    "deep": "[" * 100_000 + "]" * 100_000,
    "no results": '{"metadata": {"invocation_id": "x"}}',
    "results of another shape": '{"metadata": {"invocation_id": "x"}, "results": [1]}',
    "metadata of another shape": '{"metadata": [], "results": []}',
    "an id that is a number": '{"metadata": {"invocation_id": 7}, "results": []}',
    "an id that is a path": '{"metadata": {"invocation_id": "../../x"}, "results": []}',
    "an id without end": json.dumps({"metadata": {"invocation_id": "x" * 10_000}, "results": []}),
    "an id with a line": json.dumps({"metadata": {"invocation_id": "x\ny"}, "results": []}),
    "half a character": '{"metadata": {"invocation_id": "\\ud800"}, "results": []}',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_file_that_is_none_of_dbts_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "run_results.json"
    file.write_text(text)

    with pytest.raises(ValueError, match=r"it is|it has|one of its results"):
        read_results(file)


def test_a_folder_or_a_file_without_end_is_refused_before_it_is_read(tmp_path: Path) -> None:
    large = tmp_path / "large.json"
    with large.open("wb") as file:
        file.truncate(65 * 1024 * 1024)

    for path in (tmp_path, large, Path("/dev/zero")):
        with pytest.raises(ValueError, match="no file, or larger"):
            read_results(path)


def test_hostile_names_of_nodes_are_not_told(tmp_path: Path) -> None:
    file = tmp_path / "run_results.json"
    file.write_text(json.dumps(results("one", {"model.x\n{}": "error", "m" * 500: "error", "model.a.b": "error"})))

    assert failure(read_results(file)) == "3 of 3 nodes did not succeed: `model.a.b`"


# --- a webhook -------------------------------------------------------------------------------------------------

SECRET = "a secret of dbt's"


def event(run: str = "155144666", **more: Any) -> dict[str, Any]:
    """An event as dbt's platform sends it."""
    data = {
        "jobId": "278164", "jobName": "Nightly", "runId": run, "environmentId": "187998", "runStatus": "Success",
        "runStatusCode": 10, "runStatusMessage": "None", "runReason": "Kicked off by a schedule",
    }  # fmt: skip
    return {
        "accountId": 66847, "eventId": "wev_2QSU", "eventType": "job.run.completed", "webhookId": "wsu_2QGR",
        "timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.06660617Z",
        "data": data | {k: v for k, v in more.items() if k in data},
        **{k: v for k, v in more.items() if k not in data},
    }  # fmt: skip


class Hooked:
    """A daemon that waits for a webhook."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.dbt: dict[str, Any] = {"webhook": "cloud"}

    def send(
        self, data: Any, *, name: str = "cloud", secret: str = SECRET, signature: str | None = None
    ) -> Answer:
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        signed = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        jobs = {"mine": job("mine", {"dbt": self.dbt}), "other": job("other", {"every": "1h"})}
        hooks = Webhooks(self.ledger, lambda: jobs, {"cloud": SECRET}.get)
        return hooks.receive(name, signed if signature is None else signature, body)

    def look(self) -> list[str]:
        DbtRuns(asking(self.ledger, job("mine", {"dbt": self.dbt})), Path()).look()
        return asked(self.ledger)


@pytest.fixture
def hooked(ledger: Ledger) -> Hooked:
    return Hooked(ledger)


def test_a_signed_event_of_a_run_that_succeeded_asks_for_one_run(hooked: Hooked) -> None:
    answer = hooked.send(event())

    assert (answer.status, answer.syncs) == (200, ("mine",))
    assert hooked.look() == hooked.look() == ["dbt-cloud-155144666"]


def test_the_signature_is_what_openssl_makes_of_secret_and_body(hooked: Hooked) -> None:
    signature = "b3aab2af77cb2b4d4760978094bb9a955e3d288643925f2003c11c8786de549e"

    assert hooked.send(b'{"eventType":"job.run.started","data":{}}', signature=signature).status == 200
    assert hooked.send(b'{"eventType":"job.run.started","data":{ }}', signature=signature).status == 401


def test_an_event_that_is_told_again_asks_for_nothing_again(hooked: Hooked) -> None:
    first, second = event("1"), event("2")
    for sent in (first, first):
        assert hooked.send(sent).status == 200
        hooked.look()
    hooked.send(second)
    hooked.look()
    hooked.send(first)

    assert hooked.look() == ["dbt-cloud-1", "dbt-cloud-2"]


@pytest.mark.parametrize("signature", ["", "0" * 64, "Bearer x", "ä", "None"])
def test_an_event_that_is_not_signed_is_refused(hooked: Hooked, signature: str) -> None:
    assert hooked.send(event(), signature=signature).status == 401
    assert hooked.look() == []


def test_an_event_signed_with_another_secret_or_of_no_webhook_is_refused(hooked: Hooked) -> None:
    assert hooked.send(event(), secret="guessed").status == 401
    assert hooked.send(event(), name="nothing").status == 404
    assert hooked.look() == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (event(runStatusCode=20, runStatus="Errored"), 200),
        (event(runStatusCode="10"), 200),
        (event(eventType="job.run.started"), 200),
        (event(eventType="job.run.errored"), 200),
        (event(timestamp="2023-05-29T07:52:18.06660617Z"), 200),
        (event(timestamp=None), 200),
        (event(timestamp="yesterday"), 200),
        (event(run="../x"), 400),
        (event(run=""), 400),
        (event(data=[]), 400),
        ([], 400),
        (None, 400),
        (b"", 400),
        (b"\xff\xfe", 400),
        (b"[" * 60_000, 400),
        (b" " * (MOST_BYTES + 1), 413),
    ],
)
def test_a_signed_event_of_another_kind_asks_for_nothing(hooked: Hooked, data: Any, status: int) -> None:
    assert hooked.send(data).status == status
    assert hooked.look() == []


def test_only_the_jobs_that_are_named_count(hooked: Hooked) -> None:
    hooked.dbt = {"webhook": "cloud", "jobs": ["1"]}
    assert hooked.send(event()).syncs == ()

    hooked.dbt = {"webhook": "cloud", "jobs": ["1", "278164"]}
    assert hooked.send(event()).syncs == ("mine",)


# --- when the source changed -----------------------------------------------------------------------------------


@pytest.fixture
def warehouse(tmp_path: Path) -> Path:
    path = tmp_path / "w.duckdb"
    change(path, "CREATE TABLE vip AS SELECT 1 AS id")
    return path


def change(path: Path, sql: str) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute(sql)


def moves(ledger: Ledger, path: Path, more: dict[str, Any] | None = None) -> Moves:
    options = {"type": "duckdb", "path": path.name} | (more or {})
    mine = job("mine", {"source": {"poll": "1s"}}, lambda: open_source("w", options, path.parent))
    return Moves(asking(ledger, mine), threading.Event())


def test_a_source_that_changed_asks_for_one_run(ledger: Ledger, warehouse: Path) -> None:
    for _ in range(2):
        moves(ledger, warehouse).look()
    assert asked(ledger) == []

    change(warehouse, "INSERT INTO vip VALUES (2)")
    for _ in range(2):
        moves(ledger, warehouse).look()

    (slot,) = asked(ledger)
    assert slot.startswith("source-")
    assert [r.why for r in ledger.requests("mine")] == ["source"]


def test_a_source_is_not_asked_before_its_time(ledger: Ledger, warehouse: Path) -> None:
    looker = moves(ledger, warehouse)
    looker.look()
    change(warehouse, "INSERT INTO vip VALUES (2)")
    looker.look()

    assert asked(ledger) == []


def test_a_source_that_cannot_tell_or_is_not_there_is_told_of_once(ledger: Ledger, warehouse: Path) -> None:
    with capture_logs() as logs:
        for more in ({"directories": ["data"]}, {"path": "nothing.duckdb"}):
            looker = moves(ledger, warehouse, more)
            for _ in range(3):
                looker._asked.clear()
                looker.look()

    assert [entry["event"] for entry in logs] == ["source_untold"] * 2
    assert asked(ledger) == []


def test_a_slow_source_keeps_nobody_waiting_and_a_stop_is_not_held_up(ledger: Ledger) -> None:
    begun, answered = threading.Event(), threading.Event()

    def slow() -> Source:
        begun.set()
        answered.wait(30)
        raise AssertionError("the test is over")

    stop = threading.Event()
    looker = Moves(asking(ledger, job("mine", {"source": {"poll": "1s"}}, slow)), stop)
    looker.keep_looking()
    looker.keep_looking()

    assert begun.wait(10)
    (thread,) = (t for t in threading.enumerate() if t.name.startswith("headgate-moves"))
    stop.set()
    answered.set()
    thread.join(10)
    assert not thread.is_alive()


def test_a_source_that_does_not_answer_keeps_no_other_waiting_and_is_told_of_once(
    ledger: Ledger, warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.daemon.moves._PATIENCE_S", 0.0)
    answered = threading.Event()

    def blocked() -> Source:
        assert answered.wait(30)
        return opened()

    opened = partial(open_source, "w", {"type": "duckdb", "path": warehouse.name}, warehouse.parent)
    schedule = {"source": {"poll": "1s"}}
    theirs = job("theirs", schedule, blocked)
    elsewhere = theirs.cohort.source.model_copy(update={"connection": "locked"})
    theirs = replace(theirs, cohort=theirs.cohort.model_copy(update={"source": elsewhere}))
    looker = Moves(asking(ledger, theirs, job("mine", schedule, opened)), threading.Event())
    with capture_logs() as logs:
        looker.keep_looking()
        while ledger.note("mine", "source") is None:
            time.sleep(0.01)
        change(warehouse, "INSERT INTO vip VALUES (2)")
        while not any(entry["event"] == "source_untold" for entry in logs) or not asked(ledger):
            looker.keep_looking()
            time.sleep(0.01)
        looker.keep_looking()

    assert [entry["sync"] for entry in logs if entry["event"] == "source_untold"] == ["theirs"]
    assert asked(ledger, "theirs") == []
    answered.set()
    looker.look()
    assert ledger.note("theirs", "source") is not None


# --- all of them -----------------------------------------------------------------------------------------------


def test_a_bug_in_one_of_them_stops_none_of_the_others(ledger: Ledger, tmp_path: Path) -> None:
    clock = Clock(lambda: [job("other"), job("mine", {"after": "other"})], ledger)
    clock.read()
    reasons = Reasons(ledger, clock, tmp_path, threading.Event())
    reasons.look()
    ran(ledger, "r1")
    reasons._dbt.look = nothing  # type: ignore[method-assign]
    reasons.look()

    assert asked(ledger) == ["after-r1"]
    assert [chore.every for chore in reasons.chores()] == [2, 2, 1]


def test_a_fact_and_its_request_are_kept_together_or_not_at_all(ledger: Ledger) -> None:
    request = RunRequest("mine", "after-r1", "after", "scheduler", ledger.now())
    assert ledger.notice("mine", "fact", None, "1")
    assert not ledger.notice("mine", "fact", None, "2", request)
    assert not ledger.notice("mine", "fact", "7", "2", request)
    assert asked(ledger) == []

    assert ledger.notice("mine", "fact", "1", "2", request)
    assert ledger.note("mine", "fact") == "2"
    assert asked(ledger) == ["after-r1"]
