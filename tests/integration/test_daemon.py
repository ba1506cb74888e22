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
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest

from sync.daemon.chores import Chore, Chores
from sync.daemon.clock import Clock
from sync.daemon.life import Life
from sync.daemon.service import Daemon
from sync.engine.job import GuardrailLimits, SyncJob
from sync.engine.report import SyncReport
from sync.errors import ProjectError, SourceError
from sync.mapping import Cohort, Sync
from sync.schedule import slot
from sync.sdk.nouns import Limits, ObjectSpec, Op
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import RequestKind, Run, RunRequest, RunStatus
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
            with Serving(Daemon(jobs, two, played.runner, poll=0.02)):
                until(lambda: len(played.ran) >= 4)
            until(lambda: not one.requests())
        requests = one.requests("fast", open_only=False)

    assert len(played.ran) == len(requests)


def test_slots_missed_while_it_was_down_become_one_run(ledger):
    missed = datetime.now(UTC) - timedelta(hours=3)
    ask(ledger, "hourly", slot(missed), "schedule")
    ledger.take_request("hourly", slot(missed))
    played = Played()

    Daemon(lambda: [job("hourly", schedule={"every": "10m"})], ledger, played.runner).once()

    assert played.names == ["hourly"]


def test_a_sync_that_was_never_due_waits_for_its_first_slot(ledger):
    played = Played()

    Daemon(lambda: [job("hourly", schedule={"every": "10d"})], ledger, played.runner).once()

    assert played.ran == []


def test_a_request_that_was_taken_and_never_begun_is_asked_for_again(ledger):
    ask(ledger, "lost")
    ledger.take_request("lost", "2026-10-01T06:00:00Z")
    played = Played()

    Daemon(lambda: [job("lost")], ledger, played.runner).once()

    assert played.ran == [("lost", "console")]


def test_an_interrupted_run_is_resumed_at_the_start(ledger):
    lease = ledger.acquire("cut", "h/1/2/3", 30)
    run = Run("r1", "cut", RunStatus.SENDING, None, frozenset(Op), "cli", "ana", ledger.now(), epoch=lease.epoch)
    ledger.open(lease, run, [])
    ledger.release(lease)
    played = Played()

    Daemon(lambda: [job("cut")], ledger, played.runner).once()

    assert played.ran == [("cut", "resume")]


def test_many_requests_of_one_sync_are_one_run(ledger):
    for minute in range(5):
        ask(ledger, "vip", f"2026-10-01T06:0{minute}:00Z")
    played = Played()

    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.names == ["vip"]
    assert ledger.requests() == []


def test_whoever_asked_gets_the_report_and_so_do_those_whom_a_dead_daemon_left(ledger):
    for minute in range(3):
        ask(ledger, "vip", f"2026-10-01T06:0{minute}:00Z")
    ledger.take_request("vip", "2026-10-01T06:00:00Z")  # by a daemon that died

    Daemon(lambda: [job("vip")], ledger, Played().runner).once()

    requests = ledger.requests("vip", open_only=False)
    assert [r.report["status"] for r in requests] == ["completed"] * 3
    assert all(r.ended_at is not None for r in requests)


def test_what_was_taken_later_is_not_answered_by_an_earlier_run(ledger):
    for minute in range(2):
        ask(ledger, "vip", f"2026-10-01T06:0{minute}:00Z")
        ledger.take_request("vip", f"2026-10-01T06:0{minute}:00Z")
        time.sleep(0.01)

    ledger.answer_requests("vip", ["2026-10-01T06:00:00Z"], {"status": "completed"})

    assert ledger.request("vip", "2026-10-01T06:00:00Z").report == {"status": "completed"}
    assert ledger.request("vip", "2026-10-01T06:01:00Z").report is None


def test_a_plan_that_is_asked_for_is_made_and_no_run_is_told_of(ledger):
    played, told = Played(), []
    slots = ["api-1", "api-2", "api-3"]
    for slot_, kind in zip(slots, [RequestKind.PLAN, RequestKind.RUN, RequestKind.PLAN], strict=True):
        ledger.request_run(RunRequest("vip", slot_, "api", "token:ci", ledger.now(), kind=kind))

    Daemon(lambda: [job("vip")], ledger, played.runner, ended=[told.append]).once()

    assert played.ran == [("vip", "plan"), ("vip", "api")]
    assert [one.request.slot for one in told] == ["api-2"]
    assert [ledger.request("vip", s).report["status"] for s in slots] == ["ready", "completed", "ready"]


def test_who_asks_for_a_sync_that_is_gone_is_told(ledger):
    ask(ledger, "gone")

    Daemon(lambda: [job("vip")], ledger, Played().runner).once()

    (request,) = ledger.requests("gone", open_only=False)
    assert request.report == {"sync": "gone", "status": "failed", "error": {"code": "HG191"}, "exit_code": 1}


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


def test_a_request_for_a_sync_that_is_gone_does_not_stay(ledger):
    ask(ledger, "gone")

    Daemon(lambda: [job("vip")], ledger, Played().runner).once()

    assert ledger.requests() == []


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


class Wall(datetime):
    """A system's clock that a test sets."""

    at = datetime(2026, 10, 1, 5, 0, tzinfo=UTC)

    @classmethod
    def now(cls, tz=None):
        return cls.at


@pytest.fixture
def wall(monkeypatch) -> type[Wall]:
    monkeypatch.setattr("sync.daemon.clock.datetime", Wall)
    monkeypatch.setattr(Wall, "at", Wall.at)
    return Wall


DAILY = {"cron": "0 6 * * *", "timezone": "UTC"}


def test_a_slot_that_came_due_while_the_clock_was_set_forward_is_asked_for(ledger, wall):
    daemon = Daemon(lambda: [job("vip", schedule=DAILY)], ledger, Played().runner)
    daemon.clock.read()

    wall.at += timedelta(hours=2)
    daemon.clock._drift -= 7200
    daemon.clock.look()

    assert [r.slot for r in ledger.requests()] == ["2026-10-01T06:00:00Z"]


def test_a_clock_that_was_wrong_for_a_moment_does_not_put_the_next_slot_off(ledger, wall):
    daemon = Daemon(lambda: [job("vip", schedule=DAILY)], ledger, Played().runner)
    daemon.clock.read()
    right = daemon.clock._drift

    daemon.clock._drift -= 86400  # the clock is a day ahead
    wall.at += timedelta(days=1)
    daemon.clock.tick("vip")
    daemon.clock._drift, wall.at = right, wall.at - timedelta(days=1)  # and right again before anybody looked
    daemon.clock.look()
    wall.at += timedelta(hours=2)
    daemon.clock.tick("vip")

    assert "2026-10-01T06:00:00Z#again" in [r.slot for r in ledger.requests()]


def test_a_slot_that_a_wrong_clock_asked_for_too_early_is_asked_for_once_more_when_it_comes(ledger, wall):
    ask(ledger, "vip", "2026-10-02T06:00:00Z", "schedule")
    daemons = [Daemon(lambda: [job("vip", schedule=DAILY)], ledger, Played().runner) for _ in range(2)]
    for daemon in daemons:
        daemon.clock.read()

    wall.at += timedelta(days=1, hours=1)
    for daemon in daemons:
        daemon.clock.tick("vip")

    assert [r.slot for r in ledger.requests()] == ["2026-10-02T06:00:00Z", "2026-10-02T06:00:00Z#again"]


def test_a_slot_that_jitter_or_a_blackout_put_off_was_not_overlooked(ledger, wall):
    schedule = DAILY | {"jitter": "30m", "blackout": ["06:00-08:00"]}
    daemon = Daemon(lambda: [job("vip", schedule=schedule)], ledger, Played().runner)
    daemon.clock.read()
    seen = []

    for _ in range(20):
        wall.at += timedelta(minutes=15)
        daemon.clock.tick("vip")
        seen.append((wall.at.strftime("%H:%M"), len(ledger.requests())))
        (item,) = daemon.clock._timed.values()
        assert item.trigger.latest(item.since, wall.at) is None

    assert seen[10:13] == [("07:45", 0), ("08:00", 1), ("08:15", 1)]
    assert [r.slot for r in ledger.requests()] == ["2026-10-01T06:00:00Z"]


def test_files_that_are_being_saved_are_read_once_they_are_at_rest(ledger):
    looks, read = [0], list[int]()

    def load() -> list[SyncJob]:
        read.append(looks[0])
        looks[0] += looks[0] == 2  # it is saved once more while it is read
        return []

    daemon = Daemon(load, ledger, Played().runner, watch=lambda: looks[0])
    daemon.clock.read()
    for at in (0, 1, 2, 2, 3, 3, 3, 3):
        looks[0] = max(at, looks[0])
        daemon.clock.look()

    assert read == [0, 2, 3]


def test_in_a_blackout_begins_only_what_a_person_asked_for(ledger):
    now = datetime.now(UTC)
    dark = f"{now - timedelta(minutes=5):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    played, jobs = Played(), [job(n, schedule=DAILY | {"blackout": [dark]}) for n in ("vip", "asked")]
    ask(ledger, "vip", "2026-10-01T06:00:00Z", "schedule")
    ask(ledger, "asked", "ask-1", "ask")

    Daemon(lambda: jobs, ledger, played.runner).once()
    assert played.names == ["asked"]

    Daemon(lambda: [job("vip", schedule=DAILY)], ledger, played.runner).once()
    assert played.names == ["asked", "vip"]


def test_a_daemon_that_is_started_again_and_again_misses_no_slot(ledger, wall):
    for _ in range(40):
        wall.at += timedelta(seconds=1.5)
        daemon = Daemon(lambda: [job("vip", schedule={"every": "2s"})], ledger, Played().runner)
        daemon.clock.read()
        daemon.clock.catch_up()

    slots = [r.slot for r in ledger.requests(open_only=False)]
    assert len(slots) == len(set(slots)) == 30


def test_a_clock_set_back_by_an_hour_stops_no_schedule(ledger, wall):
    daemon = Daemon(lambda: [job("vip", schedule={"cron": "*/15 * * * *"})], ledger, Played().runner)
    daemon.clock.read()
    for _ in range(4):
        wall.at += timedelta(minutes=15)
        daemon.clock.tick("vip")
    before = len(ledger.requests())

    wall.at -= timedelta(hours=1)
    daemon.clock._drift += 3600
    daemon.clock.look()
    for _ in range(4):
        wall.at += timedelta(minutes=15)
        daemon.clock.tick("vip")

    assert before == 4
    assert [r.slot[11:] for r in ledger.requests()][4:] == [f"05:{m}:00Z#again" for m in (15, 30, 45)] + [
        "06:00:00Z#again"
    ]


def test_syncs_that_are_due_at_once_are_all_asked_for(ledger, wall):
    jobs = [job(f"s{n}", schedule=DAILY) for n in range(40)]
    daemon = Daemon(lambda: jobs, ledger, Played().runner)
    daemon.clock.start()
    try:
        wall.at += timedelta(hours=2)
        daemon.clock._drift -= 7200
        daemon.clock.look()
    finally:
        daemon.clock.stop()

    assert len(ledger.requests()) == 40


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


def test_a_clock_ticks_from_its_start_to_its_stop_and_not_while_it_overlooks_a_slot(ledger):
    clock = Clock(lambda: [job("fast", schedule={"every": "1s"})], ledger)
    assert not clock.ticking, "it was not started"
    clock.start()
    try:
        assert clock.ticking
        clock._scheduler.pause()
        clock._timed["fast"] = replace(clock._timed["fast"], since=datetime.now(UTC) - timedelta(minutes=2))
        assert not clock.ticking, "a slot of two minutes ago was not asked for"
        clock._scheduler.resume()
        until(lambda: clock.ticking)
    finally:
        clock.stop()
    assert not clock.ticking
