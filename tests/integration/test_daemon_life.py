"""What a daemon does over a long life: jobs asked about later, turns, stuck runs, and what systemd hears."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.daemon.life import Life
from sync.daemon.service import Daemon
from sync.daemon.supervisor import Supervisor
from sync.daemon.work import Ended
from sync.engine.execution import Execution
from sync.engine.runner import Runner
from sync.errors import RateLimited, SourceError
from sync.health import Activity, Health, standing
from sync.sdk.nouns import Job, Op
from sync.state.ledger import Ledger
from sync.state.nouns import RequestKind, Run, RunRequest, RunStatus
from tests.integration.test_daemon import Played, Serving, ask, job, ledger, until  # noqa: F401 - a fixture
from tests.state.world import SYNC, World

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A sync in step with its destination, but for twenty new people."""
    made = World(tmp_path).people(1)
    made.run()
    made.desk.forget()
    yield made.people(21)
    made.close()


def real_daemon(world: World, ended: list[Ended], **options: Any) -> Daemon:
    """A daemon whose runs are real."""

    def runner(trigger: str, actor: str, life: Life) -> Runner:
        return Runner(
            world.ledger, world.settings, actor=actor, trigger=trigger, observer=life, stop=life.stop,
            pacers=world.pacers,
        )  # fmt: skip

    return Daemon(lambda: [world.job], world.ledger, runner, poll=0.02, ended=[ended.append], **options)


def asked_for(world: World) -> None:
    world.ledger.request_run(RunRequest(SYNC, "now#1", "console", "ana", world.ledger.now()))


# --- jobs that the platform finishes later ---------------------------------------------------------------------


def a_job(after: float) -> Callable[..., Job]:
    return lambda _desk, batch: Job(batch.id, {}, poll_after=after)


def test_a_run_that_waits_frees_its_worker_and_comes_back_without_a_slot(world: World) -> None:
    world.delivery = replace(world.delivery, job_wait=0.01)
    world.desk.answers.extend([a_job(1.0)] * 2)
    world.desk.polls.extend([a_job(1.0)] * 2)  # each of the two is asked about once in vain
    asked_for(world)
    ended: list[Ended] = []
    with Serving(real_daemon(world, ended)) as daemon:
        until(lambda: len(ended) == 1)
        assert ended[0].report is not None
        assert ended[0].report.status == "waiting"
        until(lambda: daemon.workers.busy == [])
        assert world.ledger.lease(SYNC) is None
        until(lambda: world.ledger.open_run(SYNC) is None)

    assert world.desk.members == world.source()
    assert world.desk.sent == 20, "nothing was sent again"
    assert [one.request.why for one in ended] == ["console", "poll", "poll"]
    assert [one.over for one in ended] == [False, False, True]
    assert len(world.ledger.requests(SYNC, open_only=False)) == 1


def test_whoever_asked_for_a_run_that_waits_is_answered_when_it_is_over(world: World) -> None:
    world.delivery = replace(world.delivery, job_wait=0.01)
    world.desk.answers.extend([a_job(1.0)] * 2)
    asked_for(world)
    ended: list[Ended] = []
    with Serving(real_daemon(world, ended)) as daemon:
        until(lambda: len(ended) == 1)
        until(lambda: daemon.workers.busy == [])
        assert world.ledger.request(SYNC, "now#1").report is None
        until(lambda: len(ended) == 2)

    report = world.ledger.request(SYNC, "now#1").report
    assert (report["status"], report["exit_code"]) == ("completed", 0)
    assert report["applied"] + report["accepted"] == 20


def test_whoever_asked_for_a_run_that_a_stop_interrupted_is_answered_by_the_next_daemon(world: World) -> None:
    world.delivery = replace(world.delivery, job_wait=0.01)
    world.desk.answers.extend([a_job(3600.0)] * 2)
    asked_for(world)
    ended: list[Ended] = []
    with Serving(real_daemon(world, ended)):
        until(lambda: len(ended) == 1)
    assert world.ledger.request(SYNC, "now#1").report is None

    real_daemon(world, ended).once()

    assert world.ledger.request(SYNC, "now#1").report["status"] == "completed"


def test_whoever_asked_for_a_run_that_was_drained_while_it_sent_is_answered_by_the_next_daemon(
    world: World,
) -> None:
    ended: list[Ended] = []
    daemon = real_daemon(world, ended)

    def stopping(desk: Any, batch: Any) -> Any:
        daemon.stop.set()
        until(lambda: all(life.stop.is_set() for life in daemon.workers.lives.values()))
        return desk.take(batch)

    world.desk.answers.append(stopping)
    asked_for(world)
    with Serving(daemon):
        until(lambda: ended != [])
    assert ended[0].report is not None
    assert ended[0].report.code == "HG520"
    assert world.ledger.request(SYNC, "now#1").report is None

    real_daemon(world, ended).once()

    assert world.ledger.request(SYNC, "now#1").report["exit_code"] == 0
    assert world.desk.members == world.source()
    assert world.desk.sent == 20


def test_whoever_asked_for_a_plan_that_was_drained_gets_it_from_the_next_daemon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.ledger.request_run(RunRequest(SYNC, "p", "api", "ana", world.ledger.now(), kind=RequestKind.PLAN))
    daemon = real_daemon(world, [])

    def interrupted(*_: object) -> None:
        daemon.stop.set()
        until(lambda: all(life.stop.is_set() for life in daemon.workers.lives.values()))
        raise SourceError("the query was interrupted")

    with monkeypatch.context() as away:
        away.setattr(Execution, "plan_only", interrupted)
        with Serving(daemon):
            until(lambda: daemon.stop.is_set() and daemon.workers.busy == [])
    assert world.ledger.request(SYNC, "p").report is None

    real_daemon(world, []).once()

    assert world.ledger.request(SYNC, "p").report["status"] == "ready"
    assert world.desk.pushes == []


def test_requests_of_a_run_that_waits_are_kept_until_it_is_over(world: World) -> None:
    world.delivery = replace(world.delivery, job_wait=0.01)
    world.desk.answers.extend([a_job(1.0)] * 2)
    asked_for(world)
    ended: list[Ended] = []
    with Serving(real_daemon(world, ended)):
        until(lambda: len(ended) == 1)
        world.ledger.request_run(RunRequest(SYNC, "2026-10-01T06:00:00Z", "schedule", "s", world.ledger.now()))
        until(lambda: len(ended) == 3)

    assert [one.request.why for one in ended] == ["console", "poll", "schedule"]
    assert world.ledger.runs(SYNC)[0].status is RunStatus.COMPLETED
    assert world.desk.sent == 20


def test_another_daemon_asks_about_the_jobs_of_one_that_is_gone(world: World) -> None:
    world.delivery = replace(world.delivery, job_wait=0.01)
    world.desk.answers.extend([a_job(3600.0)] * 2)
    asked_for(world)
    first: list[Ended] = []
    with Serving(real_daemon(world, first)):
        until(lambda: len(first) == 1)

    second: list[Ended] = []
    real_daemon(world, second).once()

    assert [one.request.why for one in second] == ["poll"]
    assert world.ledger.open_run(SYNC) is None
    assert world.desk.members == world.source()


def test_a_destination_that_does_not_say_is_asked_less_and_less_often(world: World) -> None:
    from sync.daemon.waiting import Waiting

    waiting = Waiting(world.ledger)
    run = Run("r1", SYNC, RunStatus.WAITING, None, frozenset(Op), "cli", "ana", 0.0)
    assert waiting.due([run]) == [run], "what it does not know is asked about at once"

    delays = []
    for _ in range(14):
        waiting.left(run, failed=True)
        delays.append(waiting._next[SYNC].delay)

    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == 3600.0
    assert waiting.due([run]) == []
    waiting.due([])
    assert waiting._next == {}, "what ended is forgotten"


# --- taking over -----------------------------------------------------------------------------------------------


def interrupted_run(ledger: Ledger, holder: str, ttl: float) -> None:
    lease = ledger.acquire("cut", holder, ttl)
    run = Run("r1", "cut", RunStatus.SENDING, None, frozenset(Op), "cli", "ana", ledger.now(), epoch=lease.epoch)
    ledger.open(lease, run, [])


def test_a_run_of_another_machine_is_taken_over_when_its_lease_has_run_out(ledger: Ledger) -> None:
    played = Played()
    with Serving(Daemon(lambda: [job("cut")], ledger, played.runner, poll=0.02, look=0.1)):
        began = time.monotonic()
        interrupted_run(ledger, "elsewhere/1/2/3", 1.5)
        until(lambda: played.ran != [])
        took = time.monotonic() - began

    assert played.ran == [("cut", "resume")]
    assert 1.4 < took < 2.5


def test_a_lease_that_nobody_gave_back_is_looked_at_once(ledger: Ledger) -> None:
    ledger.acquire("cut", "elsewhere/1/2/3", 0.01)  # a `plan` that was killed: there is nothing to resume
    played = Played()
    daemon = Daemon(lambda: [job("cut")], ledger, played.runner)
    daemon.clock.read()
    time.sleep(0.02)

    daemon.recovery.take_over()
    daemon.recovery.take_over()

    assert ledger.requests(open_only=False) == []
    assert daemon.recovery._looked == {"cut": 1}


# --- turns -----------------------------------------------------------------------------------------------------


def test_accounts_take_turns_however_many_syncs_one_has(ledger: Ledger) -> None:
    names = [f"big-{n}" for n in range(6)]
    for name in [*names, "z-small"]:
        ask(ledger, name)
    played = Played()

    jobs = [*(job(name, account="big") for name in names), job("z-small")]
    Daemon(lambda: jobs, ledger, played.runner, workers=1).once()

    assert played.names.index("z-small") == 1
    assert sorted(played.names) == sorted([*names, "z-small"])


def test_a_sync_that_is_always_asked_for_starves_nobody(ledger: Ledger) -> None:
    played, asked = Played(), iter(range(1000))

    def greedy(ended: Ended) -> None:
        if ended.job.name == "a-greedy" and len(played.ran) < 20:
            ask(ledger, "a-greedy", f"now#{next(asked)}")

    others = ["b", "c", "d"]
    for name in ["a-greedy", *others]:
        ask(ledger, name, "now#first")
    jobs = [job("a-greedy", account="one"), job("b", account="one"), job("c", account="one"), job("d")]
    Daemon(lambda: jobs, ledger, played.runner, workers=1, ended=[greedy]).once()

    assert all(played.names.index(name) < 8 for name in others)
    assert played.names.count("a-greedy") > 10


def test_a_run_that_sends_for_long_keeps_no_other_account_waiting(ledger: Ledger) -> None:
    """Nor does it count where workers are few; but none is lent while one reads or compares."""
    played, lives = Played(), dict[str, Life]()

    def runner(trigger: str, actor: str, life: Life) -> Any:
        made = played.runner(trigger, actor, life)
        lives[f"run {len(lives)}"] = life
        return made

    for name in ("a-long", "b", "c"):
        ask(ledger, name)
    played.hold.clear()
    with Serving(Daemon(lambda: [job("a-long"), job("b"), job("c")], ledger, runner, poll=0.02, workers=1)):
        until(lambda: played.names == ["a-long"])
        lives["run 0"].phase("a-long", "deliver")
        until(lambda: played.names == ["a-long", "b"])
        time.sleep(0.1)
        assert played.names == ["a-long", "b"], "b compares: there is one worker"
        lives["run 1"].phase("b", "deliver")
        until(lambda: played.names == ["a-long", "b", "c"])
        played.hold.set()


# --- the watchdog ----------------------------------------------------------------------------------------------


def test_a_run_without_a_sign_of_life_is_shown_as_stuck_and_told_to_end(world: World) -> None:
    hangs = threading.Event()

    def hanging(desk: Any, batch: Any) -> Any:
        hangs.set()
        assert released.wait(30)
        return desk.take(batch)

    released = threading.Event()
    world.desk.answers.append(hanging)
    asked_for(world)
    ended: list[Ended] = []
    with Serving(real_daemon(world, ended, quit_after=30)) as daemon:
        until(hangs.is_set)
        daemon.watchdog.after = 0.2
        until(lambda: any(life.stuck for life in daemon.workers.lives.values()))
        seen = standing(world.ledger, world.job.cohort, world.job.sync)
        released.set()
        until(lambda: ended != [])

    assert (seen.health, seen.activity) == (Health.FAILING, Activity.RUNNING)
    assert "no sign of life" in seen.reasons[0]
    assert "deliver" in seen.reasons[0]
    assert ended[0].stuck
    assert ended[0].report is not None
    assert ended[0].report.code == "HG520"
    assert "run.stuck" in world.actions()
    after = standing(world.ledger, world.job.cohort, world.job.sync)
    assert not any("sign of life" in reason for reason in after.reasons)
    assert len(world.desk.members) == 11, "what was in flight is kept"

    world.run()
    assert world.desk.members == world.source()
    assert world.desk.sent == 20


def test_a_run_that_cannot_be_ended_ends_the_process(ledger: Ledger) -> None:
    played, codes = Played(), list[int]()
    played.hold.clear()
    ask(ledger, "hangs")
    daemon = Daemon(lambda: [job("hangs")], ledger, played.runner, poll=0.02, stuck_after=0.2, quit_after=0.3)

    def quit(code: int) -> None:
        codes.append(code)
        played.hold.set()

    daemon.watchdog._quit = quit
    with Serving(daemon):
        until(lambda: codes != [])

    assert set(codes) == {70}


def test_waiting_on_purpose_is_a_sign_of_life(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.engine.dispatch._TELL_WAITING", 0.2)
    world.delivery = replace(world.delivery, rate_limited_for=60.0)
    world.desk.answers.append(RateLimited("slow down", retry_after=3.0))
    asked_for(world)
    ended: list[Ended] = []
    with Serving(real_daemon(world, ended)) as daemon:
        until(lambda: world.desk.pushes != [])
        daemon.watchdog.after = 1.5
        until(lambda: ended != [], 30)

    assert not ended[0].stuck
    assert world.desk.members == world.source()


# --- what the service manager is told --------------------------------------------------------------------------


def heard(server: socket.socket) -> list[str]:
    server.settimeout(0.2)
    lines: list[str] = []
    try:
        while True:
            lines += server.recv(4096).decode().splitlines()
    except TimeoutError:
        return lines


@pytest.mark.parametrize("abstract", [False, True], ids=["a path", "the abstract namespace"])
def test_systemd_hears_that_it_is_ready_alive_and_stopping(tmp_path: Path, ledger: Ledger, abstract: bool) -> None:
    address = f"@headgate-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind("\0" + address[1:] if abstract else address)
        supervisor = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "200000"})
        daemon = Daemon(lambda: [job("a")], ledger, Played().runner, poll=0.02, supervisor=supervisor)
        with Serving(daemon):
            begun = [server.recv(4096).decode()]
            while begun[-1] != "WATCHDOG=1":
                begun.append(server.recv(4096).decode())
            second = server.recv(4096).decode()
        ended = heard(server)

    assert begun[0] == "READY=1\nSTATUS=0 of 0 scheduled syncs running"
    assert second == "WATCHDOG=1"
    assert "STOPPING=1" in ended


def test_a_service_manager_that_is_gone_stops_nothing(tmp_path: Path) -> None:
    supervisor = Supervisor({"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "1"})

    supervisor.ready("ready")
    supervisor.alive("alive")
    Supervisor({}).alive("nobody listens")


def test_a_watchdog_meant_for_another_process_is_not_fed(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
        Supervisor(environment).alive("here")

        assert heard(server) == ["STATUS=here"]
