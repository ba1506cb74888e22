"""The daemon on a real ledger, with a clock that really ticks; only the runs are played."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import sqlalchemy.exc

from sync.daemon.chores import Chore, Chores
from sync.daemon.life import Life
from sync.daemon.service import Daemon
from sync.engine.job import GuardrailLimits, SyncJob
from sync.engine.report import SyncReport
from sync.errors import ProjectError, SourceError
from sync.mapping import Cohort, Sync
from sync.sdk.nouns import Limits, ObjectSpec, Op
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import RunRequest
from sync.testing.fakes.crm import Crm
from sync.testing.fakes.server import serve

pytestmark = pytest.mark.timeout(60)


def unused(*_: Any) -> Any:
    raise AssertionError("the runs are played: nobody opens a source or a destination")


def job(
    name: str, *, schedule: dict[str, Any] | None = None, account: str = "", disabled: bool = False
) -> SyncJob:
    """A sync that is never really run."""
    cohort = Cohort.model_validate({"name": "vip", "source": {"connection": "w", "table": "vip", "key": "id"}})
    sync = Sync.model_validate(
        {
            "name": name,
            "destination": "sink",
            "mode": "mirror",
            "schedule": schedule,
            "identifiers": [{"to": "email", "from": "email"}],
            "disabled": disabled,
        }
    )
    spec = ObjectSpec("record", "Record", frozenset(Op))
    return SyncJob(
        name=name,
        cohort=cohort,
        sync=sync,
        destination="sink",
        spec=spec,
        limits=Limits(),
        account=account or name,
        guardrails=GuardrailLimits(),
        mapping_digest="m",
        author="",
        source=unused,
        connect=unused,
    )


class Played:
    """Runs that are written down instead of made; `hold` keeps them under way."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.hold = threading.Event()
        self.hold.set()
        self.error: Exception | None = None
        self._lock = threading.Lock()

    def runner(self, trigger: str, actor: str, life: Life) -> Any:
        play = lambda _, job: self._run(job, trigger)  # noqa: E731
        return type("Runner", (), {"run": play, "finish": play, "plan": lambda _, job: self._plan(job)})()

    def _plan(self, job: SyncJob) -> SyncReport:
        self.ran.append((job.name, "plan"))
        return SyncReport(job.name, "ready")

    def _run(self, job: SyncJob, trigger: str) -> SyncReport:
        with self._lock:
            self.ran.append((job.name, trigger))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        self.hold.wait(20)
        with self._lock:
            self.at_once -= 1
        if self.error is not None:
            raise self.error
        return SyncReport(job.name, "completed")

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.ran]


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "ledger.db") as made:
        yield made


def ask(ledger: Ledger, name: str, at: str = "2026-10-01T06:00:00Z", why: str = "console") -> None:
    assert ledger.request_run(RunRequest(name, at, why, "ana", ledger.now()))


def until(done: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


class Serving:
    """A daemon in a thread."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.thread = threading.Thread(target=daemon.serve)

    def __enter__(self) -> Daemon:
        self.thread.start()
        return self.daemon

    def __exit__(self, *_: object) -> None:
        self.daemon.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def test_a_schedule_runs_its_sync_again_and_again(ledger):
    played = Played()
    with Serving(Daemon(lambda: [job("fast", schedule={"every": "1s"})], ledger, played.runner, poll=0.02)):
        until(lambda: len(played.ran) >= 3)

    slots = [request.slot for request in ledger.requests("fast", open_only=False)]
    assert len(set(slots)) == len(slots) >= 3
    assert {trigger for _, trigger in played.ran} == {"schedule"}


def test_two_daemons_run_each_slot_once(tmp_path):
    path, played = tmp_path / "ledger.db", Played()
    with open_ledger(path) as one, open_ledger(path) as two:
        jobs = lambda: [job("fast", schedule={"every": "1s"})]  # noqa: E731
        with Serving(Daemon(jobs, one, played.runner, poll=0.02)):
            until(lambda: played.ran != [] and not one.unanswered("fast"))  # played runs have no lease
            with Serving(Daemon(jobs, two, played.runner, poll=0.02)):
                until(lambda: len(played.ran) >= 4)
            until(lambda: not one.requests())
        requests = one.requests("fast", open_only=False)

    assert len(played.ran) == len(requests)


def test_two_syncs_of_one_account_do_not_run_at_the_same_time(ledger):
    played = Played()
    for name in ("a", "b", "c"):
        ask(ledger, name)

    jobs = [job("a", account="crm"), job("b", account="crm"), job("c", account="crm")]
    Daemon(lambda: jobs, ledger, played.runner, workers=3).once()

    assert sorted(played.names) == ["a", "b", "c"]
    assert played.most_at_once == 1


def test_syncs_of_different_accounts_run_side_by_side(ledger):
    played = Played()
    played.hold.clear()
    for name in ("a", "b"):
        ask(ledger, name)

    with Serving(Daemon(lambda: [job("a"), job("b")], ledger, played.runner, poll=0.02)):
        until(lambda: played.at_once == 2)
        played.hold.set()


def test_a_paused_sync_is_neither_ticked_nor_run_until_it_is_resumed(ledger):
    ledger.pause("vip", "the CRM is being moved")
    ask(ledger, "vip")
    played = Played()
    with Serving(Daemon(lambda: [job("vip", schedule={"every": "1s"})], ledger, played.runner, poll=0.02)):
        time.sleep(1.5)
        assert played.ran == []
        assert len(ledger.requests(open_only=False)) == 1
        ledger.pause("vip", None)
        until(lambda: played.names != [])


def test_a_paused_destination_pauses_its_syncs(ledger):
    ledger.pause("destination:sink", "token expired")
    ask(ledger, "vip")
    played = Played()

    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.ran == []
    assert len(ledger.requests()) == 1


def test_a_sync_that_somebody_else_runs_is_left_until_its_lease_is_free(ledger):
    lease = ledger.acquire("vip", "elsewhere/1/2/3", 30)
    ask(ledger, "vip")
    played = Played()
    with Serving(Daemon(lambda: [job("vip")], ledger, played.runner, poll=0.02)):
        time.sleep(0.3)
        assert played.ran == []
        ledger.release(lease)
        until(lambda: played.names == ["vip"])


@pytest.mark.parametrize("error", [SourceError("the warehouse is down"), RuntimeError("a bug")])
def test_one_syncs_failure_does_not_end_the_others(ledger, error):
    played = Played()
    played.error = error
    with Serving(Daemon(lambda: [job("a"), job("b")], ledger, played.runner, poll=0.02, workers=1)):
        ask(ledger, "a")
        until(lambda: played.names == ["a"])
        ask(ledger, "b")
        until(lambda: played.names == ["a", "b"])


def test_changed_files_change_the_schedule_and_broken_ones_do_not_stop_it(ledger):
    from sync.errors import Problem

    played, version = Played(), [1]

    def load() -> list[SyncJob]:
        if version[0] == 2:
            raise ProjectError([Problem("HG101", "broken")])
        return [] if version[0] == 1 else [job("new", schedule={"every": "1s"})]

    with Serving(Daemon(load, ledger, played.runner, poll=0.02, look=0.05, watch=lambda: version[0])):
        time.sleep(0.2)
        version[0] = 2
        time.sleep(0.3)
        version[0] = 3
        until(lambda: "new" in played.names)


def test_a_chore_or_a_listener_that_fails_ends_nothing(ledger):
    played, done, told = Played(), list[int](), list[str]()

    def broken(*_: object) -> None:
        done.append(1)
        raise ZeroDivisionError

    chores = [Chore("broken", 0.05, broken), Chore("tidy", 0.05, lambda: done.append(2))]
    ended = [broken, lambda one: told.append(one.job.name)]
    daemon = Daemon(
        lambda: [job("fast", schedule={"every": "1s"})],
        ledger,
        played.runner,
        poll=0.02,
        chores=chores,
        ended=ended,
    )
    with Serving(daemon):
        until(lambda: len(told) >= 2)

    assert set(told) == {"fast"}
    assert done.count(1) > 4
    assert done.count(2) > 2


def test_what_no_error_of_ours_is_ends_no_daemon(ledger, monkeypatch):
    fails, open_runs = (
        [sqlalchemy.exc.TimeoutError("no connection is free"), ZeroDivisionError()],
        Ledger.open_runs,
    )

    def failing(self: Ledger) -> Any:
        if fails:
            raise fails.pop()
        return open_runs(self)

    monkeypatch.setattr("sync.daemon.service._AFTER_AN_ERROR_S", 0.01)
    monkeypatch.setattr(Ledger, "open_runs", failing)
    ask(ledger, "vip")
    played = Played()
    with Serving(Daemon(lambda: [job("vip")], ledger, played.runner, poll=0.02)):
        until(lambda: played.names == ["vip"])


def test_each_chore_is_done_at_its_own_times_whatever_its_name():
    done = list[str]()
    chores = Chores(
        [Chore("beat", 0.2, lambda: done.append("slow")), Chore("beat", 0.05, lambda: done.append("fast"))]
    )

    def turned() -> bool:
        chores.turn()
        return done.count("slow") >= 2

    until(turned)
    assert done.count("fast") > 2


def test_what_takes_long_is_done_aside_and_not_begun_again_meanwhile():
    begun, over = list[str](), threading.Event()

    def slow() -> None:
        begun.append(threading.current_thread().name)
        over.wait(30)

    chores = Chores([Chore("tidying", 0, slow, aside=True)])
    chores.turn()
    chores.turn()
    until(lambda: bool(begun))
    assert begun == ["tidying"]

    over.set()
    until(lambda: chores.turn() or len(begun) == 2)


def test_a_disabled_sync_is_not_scheduled(ledger):
    played = Played()
    daemon = Daemon(
        lambda: [job("off", schedule={"every": "1s"}, disabled=True)], ledger, played.runner, poll=0.02
    )
    with Serving(daemon):
        time.sleep(1.3)

    assert played.ran == []


def test_stopping_waits_for_the_run_in_flight_and_takes_no_other(ledger):
    played = Played()
    played.hold.clear()
    ask(ledger, "a")
    serving = Serving(Daemon(lambda: [job("a"), job("b")], ledger, played.runner, poll=0.02))
    with serving as daemon:
        until(lambda: played.at_once == 1)
        daemon.stop.set()
        ask(ledger, "b")
        time.sleep(0.2)
        assert serving.thread.is_alive()
        played.hold.set()

    assert played.names == ["a"]
    assert [r.sync for r in ledger.requests()] == ["b"]


SLOW_DRAIN = textwrap.dedent("""
    import sys, time
    from sync.cli.signals import draining
    with draining(lambda message: print(message, flush=True)) as stop:
        print("ready", flush=True)
        stop.wait(20)
        time.sleep(float(sys.argv[1]))
        print("drained", flush=True)
""")


def drained(seconds: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SLOW_DRAIN, seconds], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains(number):
    process = drained("0.2")

    os.kill(process.pid, number)
    out, _ = process.communicate(timeout=20)

    assert process.returncode == 0
    assert "drained" in out


def test_the_second_signal_quits_at_once():
    process = drained("30")
    assert process.stdout is not None

    os.kill(process.pid, signal.SIGTERM)
    assert "stopping" in process.stdout.readline()
    os.kill(process.pid, signal.SIGTERM)
    out, _ = process.communicate(timeout=10)

    assert process.returncode == 1
    assert "drained" not in out


class Slow(Crm):
    """A CRM that takes its time, and says when it was asked first."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method == "POST":
            self.asked.set()
            time.sleep(0.15)
        return super().__call__(request)


CONFIG = """\
[sources.warehouse]
type = "duckdb"
path = "w.duckdb"

[destinations.crm]
type = "webhook"
url = "{url}"
batch_size = 20
concurrency = 2
"""
MAPPING = """\
version: 1
cohort: { name: vip, source: { connection: warehouse, table: vip, key: id } }
syncs:
  - name: vip
    destination: crm
    mode: mirror
    schedule: { every: 1s }
    identifiers: [{ to: email, from: email }]
    fields: [{ to: score, from: score }]
"""


def make_project(folder: Path, url: str) -> None:
    (folder / "mappings").mkdir()
    (folder / "config.toml").write_text(CONFIG.format(url=url))
    (folder / "mappings" / "vip.yaml").write_text(MAPPING)
    people(
        folder, "CREATE TABLE vip AS SELECT i AS id, i || '@a.example' AS email, 0 AS score FROM range(10) r(i)"
    )


def people(folder: Path, statement: str) -> None:
    with duckdb.connect(str(folder / "w.duckdb")) as connection:
        connection.execute(statement)


def headgate(folder: Path, *args: str) -> list[str]:
    return [sys.executable, "-m", "sync.cli.app", *args, "--project", str(folder)]


def test_a_daemon_that_is_told_to_stop_loses_nothing_and_repeats_nothing(tmp_path):
    crm = Slow()
    with serve(crm) as base:
        make_project(tmp_path, f"{base}/people")
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "HEADGATE_ACTOR": "ana"}
        run = headgate(tmp_path, "run", "--first-run", "--json")
        first = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
        assert first.returncode == 0, first.stdout
        people(tmp_path, "INSERT INTO vip SELECT i AS id, i || '@a.example', 1 FROM range(10, 410) r(i)")
        crm.asked.clear()
        daemon = subprocess.Popen(headgate(tmp_path, "daemon"), env=environment, stderr=subprocess.PIPE, text=True)
        assert crm.asked.wait(30)

        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=30)

        assert daemon.returncode == 0, log
        assert 10 < len(crm.people) < 410
        second = subprocess.run(run, env=environment, capture_output=True, text=True, check=False)
        assert second.returncode == 0, second.stdout
    assert len(crm.people) == 410
    assert crm.records["add"] == 410
    assert crm.repeats == 0
    assert "@a.example" not in log
