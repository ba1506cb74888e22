"""What becomes of requests: each is answered with what was done for it, whoever dies meanwhile."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sync.daemon.service import Daemon
from sync.engine.report import SyncReport
from sync.errors import LeaseHeld, ProjectError, StateError
from sync.schedule import slot
from sync.sdk.nouns import Op
from sync.state.ledger import Ledger
from sync.state.nouns import RequestKind, Run, RunRequest, RunStatus
from tests.integration.test_daemon import Played, Serving, ask, job, ledger, until  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(60)


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


def test_a_request_for_a_sync_that_is_gone_does_not_stay(ledger):
    ask(ledger, "gone")

    Daemon(lambda: [job("vip")], ledger, Played().runner).once()

    assert ledger.requests() == []


# --- plans and runs --------------------------------------------------------------------------------------------


def asked(ledger: Ledger, slot: str, kind: RequestKind, *, taken: bool = False) -> None:
    assert ledger.request_run(RunRequest("vip", slot, "api", "token:ci", ledger.now(), kind=kind))
    if taken:
        ledger.take_request("vip", slot)


def test_a_plan_answers_no_request_for_a_run_that_a_dead_daemon_took(ledger):
    asked(ledger, "api-run", RequestKind.RUN, taken=True)
    asked(ledger, "api-plan", RequestKind.PLAN)
    played = Played()

    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.ran == [("vip", "api"), ("vip", "plan")]
    assert ledger.request("vip", "api-run").report["status"] == "completed"
    assert ledger.request("vip", "api-plan").report["status"] == "ready"


def test_what_answers_requests_left_by_others_is_of_their_kind(ledger):
    asked(ledger, "api-run", RequestKind.RUN, taken=True)
    time.sleep(0.01)
    asked(ledger, "api-plan", RequestKind.PLAN, taken=True)

    ledger.answer_requests("vip", ["api-plan"], {"status": "ready"}, kind=RequestKind.PLAN)

    assert [r.slot for r in ledger.unanswered("vip")] == ["api-run"]


@pytest.mark.parametrize("answered", [True, False])
def test_a_plan_that_was_asked_for_becomes_no_run_when_a_daemon_starts(ledger, answered):
    asked(ledger, "api-plan", RequestKind.PLAN, taken=True)
    if answered:
        ledger.answer_requests("vip", ["api-plan"], {"status": "ready"}, kind=RequestKind.PLAN)
    played = Played()

    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.ran == ([] if answered else [("vip", "plan")])
    assert ledger.unanswered("vip") == []


def test_an_interrupted_run_is_taken_up_before_a_plan_is_made(ledger):
    lease = ledger.acquire("vip", "h/1/2/3", 30)
    run = Run("r1", "vip", RunStatus.SENDING, None, frozenset(Op), "cli", "ana", ledger.now(), epoch=lease.epoch)
    ledger.open(lease, run, [])
    ledger.release(lease)
    asked(ledger, "api-plan", RequestKind.PLAN)
    played = Played()

    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.ran == [("vip", "resume"), ("vip", "plan")]


@pytest.mark.parametrize(("trigger", "ran"), [("schedule", [("vip", "recover")]), ("cli", [])])
def test_a_run_that_was_told_to_end_before_it_sent_anything_begins_anew_unless_a_person_ended_it(
    ledger, trigger, ran
):
    run = Run("r1", "vip", RunStatus.CANCELLED, None, frozenset(), trigger, "ana", 1.0, finished_at=2.0)
    ledger.add_run(run, [])
    played = Played()

    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.ran == ran


# --- who takes them --------------------------------------------------------------------------------------------


def test_requests_for_syncs_of_another_daemon_are_left_to_it(ledger):
    for name in ("mine", "its", "nobodys"):
        ask(ledger, name)
    played = Played()

    Daemon(lambda: [job("mine")], ledger, played.runner, names=lambda: ["mine", "its"]).once()

    assert played.names == ["mine"]
    assert [r.sync for r in ledger.requests()] == ["its"]
    assert ledger.request("nobodys", "2026-10-01T06:00:00Z").report["error"] == {"code": "HG191"}


def test_a_sync_that_may_be_in_files_that_are_refused_is_not_said_to_be_gone(ledger):
    from sync.errors import Problem

    files: list[Any] = [job("old")]

    def load() -> list[Any]:
        if not files:
            raise ProjectError([Problem("HG101", "broken")])
        return files

    looks = lambda: len(files)  # noqa: E731
    ask(ledger, "new")
    with Serving(Daemon(load, ledger, Played().runner, poll=0.02, look=0.02, watch=looks)) as daemon:
        ledger.request("new", "2026-10-01T06:00:00Z")
        until(lambda: not ledger.requests())  # nobody has a sync of that name
        files.clear()
        until(lambda: daemon.clock.refused != "")
        ask(ledger, "new", "2026-10-01T07:00:00Z")
        time.sleep(0.1)
        assert len(ledger.requests()) == 1
        files.extend([job("old"), job("new")])
        until(lambda: not ledger.requests())
        until(lambda: ledger.unanswered("new") == [])

    assert ledger.request("new", "2026-10-01T07:00:00Z").report["status"] == "completed"


@pytest.mark.parametrize("kind", RequestKind)
def test_a_request_is_given_back_where_somebody_else_was_faster_with_the_sync(ledger, kind):
    class Late(Played):
        def _run(self, job: Any, trigger: str) -> Any:
            if self.ran:
                return super()._run(job, trigger)
            self.ran.append((job.name, trigger))
            return SyncReport(job.name, "failed", code=LeaseHeld.code)

        def _plan(self, job: Any) -> Any:
            return self._run(job, "plan")

    asked(ledger, "api-1", kind)
    played = Late()
    with Serving(Daemon(lambda: [job("vip")], ledger, played.runner, poll=0.02)):
        until(lambda: ledger.request("vip", "api-1").ended_at is not None)

    assert ledger.request("vip", "api-1").report["status"] == "completed"


def test_a_request_that_was_given_back_meanwhile_is_answered_and_not_begun_again(ledger):
    asked(ledger, "api-1", RequestKind.RUN, taken=True)
    ledger.give_back("vip", ["api-1"])  # by a daemon that saw no lease yet

    ledger.answer_requests("vip", ["api-1"], {"status": "completed"})

    assert ledger.requests("vip") == []


def test_a_request_that_was_answered_is_not_given_back(ledger):
    asked(ledger, "api-1", RequestKind.RUN, taken=True)
    ledger.answer_requests("vip", ["api-1"], {"status": "completed"})

    ledger.give_back("vip", ["api-1"])

    assert ledger.requests("vip") == []


def test_what_a_dead_process_left_is_looked_at_until_that_succeeds(ledger, monkeypatch):
    ledger.acquire("vip", "gone/1/1/x", 0.01)
    ask(ledger, "vip")
    ledger.take_request("vip", "2026-10-01T06:00:00Z")
    recovery = Daemon(lambda: [job("vip")], ledger, Played().runner)
    recovery.clock.read()
    time.sleep(0.02)

    def locked(*_: object) -> None:
        raise StateError("the ledger is locked", code="HG311")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "give_back", locked)
        recovery.recovery.take_over()
        assert ledger.requests("vip") == []
    recovery.recovery.take_over()

    assert len(ledger.requests("vip")) == 1


def test_requests_that_were_taken_are_worked_on_though_the_ledger_fails_at_the_next(ledger, monkeypatch):
    for minute in range(2):
        ask(ledger, "vip", f"2026-10-01T06:0{minute}:00Z")
    take, played = Ledger.take_request, Played()

    def once(self: Ledger, sync: str, slot: str) -> bool:
        if "06:01" in slot and not played.ran:
            raise StateError("the ledger is locked", code="HG311")
        return take(self, sync, slot)

    monkeypatch.setattr(Ledger, "take_request", once)
    Daemon(lambda: [job("vip")], ledger, played.runner).once()

    assert played.names == ["vip", "vip"]
    assert [r.ended_at is not None for r in ledger.requests(open_only=False)] == [True, True]


def test_a_run_that_was_lost_before_a_blackout_begins_after_it(ledger):
    now = datetime.now(UTC)
    dark = f"{now - timedelta(minutes=5):%H:%M}-{now + timedelta(hours=2):%H:%M}"
    for name, why in (("by-itself", "schedule"), ("by-ana", "console")):
        ask(ledger, name, slot(now - timedelta(minutes=6)), why)
        ledger.take_request(name, slot(now - timedelta(minutes=6)))
    played, schedule = Played(), {"every": "30d", "blackout": [dark]}

    Daemon(lambda: [job(n, schedule=schedule) for n in ("by-itself", "by-ana")], ledger, played.runner).once()

    assert played.names == ["by-ana"]
    assert [r.sync for r in ledger.requests()] == ["by-itself"]
