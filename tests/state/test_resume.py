"""Crashes, stops, lost leases: whatever ends a run, the next brings cohort, members and destination in step."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sync.engine.report import SyncReport, exit_code
from sync.errors import Fenced, LeaseHeld, RateLimited, RequestError, Unavailable
from sync.sdk.nouns import Batch, Delivery, Job, Op, Outcome, Receipt, Status
from sync.state.holder import me
from sync.state.nouns import BatchState, RunStatus
from tests.state.fragile import Crash, Fragile
from tests.state.world import SYNC, Desk, World, applied_then, dead_holder, some

MOVES = (
    "DELETE FROM vips WHERE id < 12",
    "UPDATE vips SET name = 'New' WHERE id BETWEEN 15 AND 26",
    "INSERT INTO vips SELECT i, 'p' || i || '@x.example', 'Late', 1 FROM range(100, 112) t(i)",
)
"""Twelve of each: a batch of each."""

AFTERWARDS = (
    "DELETE FROM vips WHERE id BETWEEN 20 AND 22 OR id BETWEEN 100 AND 104",
    "UPDATE vips SET score = 99 WHERE id IN (16, 17, 105)",
    "INSERT INTO vips VALUES (3, 'p3@x.example', 'Back', 3), (200, 'p200@x.example', 'Last', 1)",
)
"""What happens in the warehouse between the crash and the next run."""


@contextmanager
def as_a_process_that_is_gone(monkeypatch: pytest.MonkeyPatch, gone: str) -> Iterator[None]:
    """Take leases under the name of a dead process."""
    with monkeypatch.context() as patch:
        patch.setattr("sync.engine.lease.me", lambda: gone)
        yield


def crash(world: World, monkeypatch: pytest.MonkeyPatch, gone: str, at: int, *, committed: bool) -> Fragile:
    """A run of a process that dies at its n-th write."""
    fragile = Fragile(world.ledger, at, committed=committed)
    state: Any = fragile
    with as_a_process_that_is_gone(monkeypatch, gone):
        try:
            world.run(state)
        except Crash:
            assert fragile.crashed
    return fragile


def copy_of(template: Path, folder: Path) -> World:
    """A world that went on from a finished run of thirty people."""
    shutil.copytree(template, folder)
    world = World(folder).people(30).limited(batch_size=20)
    world.desk.members = {email: dict(row) for email, row in world.source().items()}
    return world


@pytest.fixture
def template(tmp_path: Path, world: World) -> Path:
    """The files of a world with thirty members."""
    thirty = World(tmp_path / "template")
    thirty.root.mkdir()
    assert thirty.people(30).run().status == "completed"
    thirty.close()
    return thirty.root


def consistent(desk: Desk) -> bool:
    """Does a key always stand for the same records."""
    said: dict[str, list[Any]] = {}
    return all(said.setdefault(push.id, list(push.changes)) == list(push.changes) for push in desk.pushes)


@pytest.mark.parametrize(
    "committed",
    [
        pytest.param((False, True), id="before-or-after"),
        pytest.param((False, False), id="before", marks=pytest.mark.endless),
        pytest.param((True, True), id="after", marks=pytest.mark.endless),
    ],
)
def test_a_crash_at_any_write_loses_nothing_and_records_nothing_that_was_not_acknowledged(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch, committed: tuple[bool, bool]
) -> None:
    gone = dead_holder()
    seen: set[str] = set()
    for at in range(1, 100):
        world = copy_of(template, tmp_path / f"crash-{at}")
        world.sql(*MOVES)
        refused = {"p105@x.example"}

        def once(desk: Desk, batch: Batch, refused: set[str] = refused) -> Outcome:
            if refused & {str(c.identifiers["email"]) for c in batch.changes}:
                refused.clear()
                raise RequestError("refused as a whole")
            return desk.take(batch)

        world.desk.answers.extend([RateLimited("slow"), once, applied_then(Unavailable("reset"))])
        world.desk.always = once
        fragile = crash(world, monkeypatch, gone, at, committed=committed[at // 2 % 2])
        if not fragile.crashed:
            assert world.in_step
            break
        seen.add(fragile.writes[-1])
        gone_by_now = set(world.members()) - set(world.desk.members)
        world.sql(*AFTERWARDS)
        if at % 4 == 0:
            world.digest = "mapping-2"  # the run is given up

        report = world.run()
        if report.rejected:
            report = world.run()

        why = f"crash at {at}, {fragile.writes[-1]}: {report}"
        assert gone_by_now <= {f"p{n}@x.example" for n in range(12)}, why  # removed, and not acknowledged
        assert (report.status, exit_code([report])) == ("completed", 0), why
        assert world.in_step, why
        assert consistent(world.desk), why
        assert (world.ledger.dirty(SYNC), world.ledger.rejected(SYNC)) == ([], []), why
        world.close()
    world.close()
    assert seen >= {
        "acquire",
        "add_plan",
        "open",
        "intend",
        "settle",
        "split",
        "acknowledge",
        "finish",
        "remember",
    }


def test_a_crash_at_any_write_of_a_run_with_jobs_loses_nothing(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = dead_holder()
    seen: set[str] = set()

    def job(desk: Desk, batch: Batch) -> Outcome:
        return Job(f"job-{batch.id}", poll_after=0.01)

    for at in range(1, 60):
        world = copy_of(template, tmp_path / f"crash-{at}")
        world.sql("DELETE FROM vips WHERE id = 1", "UPDATE vips SET name = 'New' WHERE id = 2")
        world.desk.always = job
        fragile = crash(world, monkeypatch, gone, at, committed=at // 2 % 2 == 0)
        if not fragile.crashed:
            break
        seen.add(fragile.writes[-1])

        report = world.run()

        assert (report.status, world.in_step) == ("completed", True), f"crash at {at}, {fragile.writes[-1]}"
        world.close()
    world.close()
    assert seen >= {"keep_job", "set_run"}


def test_a_crash_at_any_write_sends_nothing_twice_where_twice_is_not_once(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was under way is kept for a person; all else is sent exactly once."""
    gone = dead_holder()
    for at in range(1, 60):
        world = copy_of(template, tmp_path / f"crash-{at}")
        world.spec = replace(world.spec, idempotent=False)
        world.sql(*MOVES)
        fragile = crash(world, monkeypatch, gone, at, committed=at // 2 % 2 == 0)

        report = world.run() if fragile.crashed else None
        world.run()

        sent = [(c.op, c.key) for push in world.desk.pushes for c in push.changes]
        assert len(sent) == len(set(sent)), f"crash at {at}, {fragile.writes[-1]}"
        parked = {r.key for r in world.ledger.rejected(SYNC)}
        undelivered = {key for _, key in sent if key in parked}
        if report is None:
            assert not parked
            break
        assert (report.status == "completed") == (not parked)
        assert len(sent) + len(parked) - len(undelivered) == 36
        world.close()
    world.close()


# --- resuming -------------------------------------------------------------------------------------------------


def test_a_resumed_run_sends_the_same_records_under_the_same_keys_and_then_what_moved(world: World) -> None:
    world.people(30)
    world.desk.answers.append(None)
    world.desk.always = Unavailable("down")
    first = world.run()
    before = {push.id: list(push.changes) for push in world.desk.pushes[1:]}
    world.sql("UPDATE vips SET name = 'Moved' WHERE id > 20")
    world.desk.forget()
    world.desk.always = None

    second = world.run()

    replayed, fresh = world.desk.pushes[:2], world.desk.pushes[2:]
    assert before.items() <= {p.id: list(p.changes) for p in replayed}.items()
    assert [push.ops for push in fresh] == [{Op.UPDATE}]
    assert (second.resumed, second.applied, world.in_step) == (first.run, 39, True)
    assert world.ledger.open_run(SYNC) is None


def test_rejections_of_a_resumed_run_that_the_next_run_delivered_are_not_reported(world: World) -> None:
    world.desk.always = Unavailable("down")
    world.run()
    world.desk.always = None
    world.desk.answers.append(some(Status.REJECTED))

    report = world.run()

    assert (report.status, report.rejected, exit_code([report])) == ("completed", 0, 0)
    assert world.in_step


def test_only_some_ops_do_not_hide_what_a_resumed_run_left(world: World) -> None:
    world.desk.always = Unavailable("down")
    world.run()
    world.desk.always = None
    world.desk.answers.append(some(Status.REJECTED))

    report = world.run(only=[Op.REMOVE])

    assert (report.rejected, exit_code([report])) == (1, 4)


def test_a_run_whose_mapping_moved_is_given_up_and_planned_anew(world: World) -> None:
    world.people(30)
    world.desk.answers.append(None)
    world.desk.always = applied_then(Unavailable("reset"))
    first = world.run()
    world.digest = "mapping-2"
    world.desk.always = None

    second = world.run()

    assert second.resumed == first.run
    assert "given up" in second.notes[0]
    assert [r.status for r in world.ledger.runs(SYNC)] == [RunStatus.COMPLETED, RunStatus.CANCELLED]
    assert (second.status, world.in_step) == ("completed", True)


def test_a_run_whose_plan_expired_is_given_up(world: World) -> None:
    world.expire_after = 0.2
    world.desk.always = Unavailable("down")
    world.run()
    world.desk.always = None
    time.sleep(0.25)
    world.expire_after = 60

    assert "given up" in world.run().notes[0]
    assert world.in_step


def test_a_plan_is_not_made_while_a_run_is_open(world: World) -> None:
    world.desk.always = Unavailable("down")
    world.run()

    report = world.runner().plan(world.job)

    assert (report.status, report.code) == ("failed", "HG524")


def test_a_request_of_an_earlier_run_that_may_be_alive_holds_a_later_run_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.run()
    world.sql("UPDATE vips SET name = 'New' WHERE id = 1")
    monkeypatch.setattr("sync.engine.sending._SLACK", 0.6)
    world.desk.answers.append(Unavailable("reset"))
    world.run()  # its first request was never answered
    alive_until = world.ledger.barrier(SYNC, "another run")
    world.sql("DELETE FROM vips WHERE id = 1")

    report = world.run()

    assert alive_until > 0
    assert report.status == "completed"
    assert world.ledger.now() >= alive_until
    assert report.wall_s > 0.4


# --- stopping -------------------------------------------------------------------------------------------------


def test_a_stop_drains_what_is_under_way_and_keeps_the_rest(world: World) -> None:
    world.people(50).limited(concurrency=2)

    def stopping(desk: Desk, batch: Batch) -> Outcome:
        world.stop.set()
        time.sleep(0.05)
        return desk.take(batch)

    world.desk.always = stopping
    first = world.run()
    pushed = len(world.desk.pushes)
    states = {batch.state for batch in world.batches()}
    world.stop = threading.Event()
    world.desk.always = None
    world.desk.forget()
    second = world.run()

    assert (first.status, first.code, exit_code([first])) == ("cancelled", "HG520", 1)
    assert (pushed <= 2, first.applied, states) == (True, pushed * 10, {BatchState.ACKED, BatchState.PLANNED})
    assert (world.desk.sent, second.status, world.in_step) == (50 - pushed * 10, "completed", True)


@pytest.mark.parametrize("wait", ["a retry", "a pause", "a rate"])
def test_a_stop_does_not_wait_for(world: World, wait: str) -> None:
    if wait == "a retry":
        world.delivery = replace(world.delivery, backoff_first=60, backoff_max=60)
        world.desk.always = Unavailable("down")
    elif wait == "a pause":
        world.desk.always = RateLimited("slow", retry_after=20)
    else:
        from sync.sdk.nouns import Rate

        world.people(20).limited(rates=(Rate(1, 60.0),))
    threading.Timer(0.3, world.stop.set).start()

    started = time.monotonic()
    report = world.run()

    assert report.status == "cancelled"
    assert time.monotonic() - started < 5


# --- leases ---------------------------------------------------------------------------------------------------


def test_two_runs_at_once_send_nothing_twice(world: World) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow(desk: Desk, batch: Batch) -> Outcome:
        inside.set()
        go_on.wait(10)
        return desk.take(batch)

    world.desk.always = slow
    reports: list[SyncReport] = []
    thread = threading.Thread(target=lambda: reports.append(world.run()))
    thread.start()
    inside.wait(10)

    second = world.run()
    go_on.set()
    thread.join()

    assert (second.status, second.code, second.run) == ("failed", LeaseHeld.code, None)
    assert (reports[0].status, world.desk.sent) == ("completed", 10)
    assert len(world.ledger.runs(SYNC)) == 1


def test_a_dead_holders_lease_is_taken_over_at_once_and_a_live_ones_is_not(world: World) -> None:
    world.ledger.acquire(SYNC, dead_holder(), 600)
    first = world.run()

    world.ledger.acquire(SYNC, "another-host/1/2/boot", 600)
    second = world.run()

    assert first.status == "completed"
    assert (second.status, second.code) == ("failed", LeaseHeld.code)


def test_a_lease_that_is_too_short_refuses_to_send(world: World) -> None:
    world.lease_ttl = 0.1  # a request lives for 0.15 s

    report = world.run()

    assert (report.status, report.code, world.desk.pushes) == ("failed", Fenced.code, [])
    assert "lease_ttl" in report.fix


def test_nothing_is_recorded_once_the_lease_is_lost(world: World) -> None:
    world.people(30)

    def robbed(desk: Desk, batch: Batch) -> Outcome:
        receipts = desk.take(batch)
        world.ledger.acquire(SYNC, "another-host/1/2/boot", 600, dead=me())
        return receipts

    world.desk.answers.append(robbed)
    report = world.run()

    assert (report.status, report.code, len(world.desk.pushes)) == ("failed", Fenced.code, 1)
    assert [batch.state for batch in world.batches()] == [
        BatchState.INTENT, BatchState.PLANNED, BatchState.PLANNED,
    ]  # fmt: skip
    assert (world.members(), len(world.ledger.runs(SYNC))) == ({}, 1)


def test_whoever_takes_a_lost_lease_over_finishes_the_run(world: World) -> None:
    world.people(30)

    def robbed(desk: Desk, batch: Batch) -> Outcome:
        lease = world.ledger.acquire(SYNC, "another-host/1/2/boot", 600, dead=me())
        world.ledger.release(lease)
        return desk.take(batch)

    world.desk.answers.append(robbed)
    first = world.run()
    second = world.run()

    assert (second.resumed is not None, first.run, second.status, world.in_step) == (True, None, "completed", True)


# --- jobs -----------------------------------------------------------------------------------------------------


def a_job(*settled: Receipt, after: float = 0.01) -> Callable[[Desk, Batch], Outcome]:
    """The answer of a platform that finishes later."""
    return lambda desk, batch: Job(f"job-{batch.id}", {"n": 1}, settled, after)


def test_a_job_is_polled_until_it_is_done(world: World) -> None:
    world.desk.answers.append(a_job())
    world.desk.polls.extend([a_job(), a_job()])

    report = world.run()

    assert (report.status, report.applied, len(world.desk.polled), len(world.desk.pushes)) == (
        "completed",
        10,
        3,
        1,
    )
    assert world.in_step


def test_a_job_survives_a_restart_and_is_asked_about_at_once(world: World) -> None:
    world.delivery = replace(world.delivery, job_wait=0.0)
    world.desk.answers.append(a_job(after=3600.0))

    first = world.run()
    open_run = world.ledger.open_run(SYNC)
    second = world.run()

    assert (first.status, first.code, exit_code([first])) == ("waiting", "HG523", 4)
    assert open_run is not None
    assert open_run.status is RunStatus.WAITING
    assert (second.resumed, second.status, second.applied) == (first.run, "completed", 10)
    assert (len(world.desk.pushes), world.desk.polled[0].data) == (1, {"n": 1})
    assert world.in_step


def test_receipts_that_a_job_has_settled_are_not_asked_about_again(world: World) -> None:
    def begun(desk: Desk, batch: Batch) -> Outcome:
        desk.apply(batch.changes[0])
        return Job("j", settled=(Receipt(batch.changes[0].key, Status.APPLIED),), poll_after=0.01)

    def further(desk: Desk, batch: Batch) -> Outcome:
        return Job("j", settled=(Receipt(batch.changes[1].key, Status.REJECTED, "no"),), poll_after=0.01)

    def rest(desk: Desk, batch: Batch) -> Outcome:
        return [desk.apply(change) for change in batch.changes[2:]]

    world.desk.answers.append(begun)
    world.desk.polls.extend([further, rest])

    report = world.run()

    assert [len(job.settled) for job in world.desk.polled] == [1, 2]
    assert (report.applied, report.rejected) == (9, 1)


def test_removals_wait_until_the_jobs_before_them_are_done(world: World) -> None:
    world.run()
    world.sql("DELETE FROM vips WHERE id = 1", "INSERT INTO vips VALUES (99, 'p99@x.example', 'Late', 1)")
    world.desk.forget()
    order: list[str] = []

    def pushed(desk: Desk, batch: Batch) -> Outcome:
        order.append(f"push {batch.changes[0].op}")
        return Job("j", poll_after=0.01)

    def polled(desk: Desk, batch: Batch) -> Outcome:
        order.append(f"done {batch.changes[0].op}")
        return desk.take(batch)

    world.desk.always = pushed
    world.desk.polls.extend([polled, polled])
    world.run()

    assert order == ["push add", "done add", "push remove", "done remove"]


def test_old_and_new_jobs_are_asked_about_with_their_own_records(world: World) -> None:
    world.people(30)
    world.desk.answers.extend([Unavailable("down"), Unavailable("down"), Unavailable("down")])
    world.limited(concurrency=1)
    world.run()  # nothing was taken
    world.desk.answers.extend([a_job(), a_job(), Unavailable("down"), Unavailable("down"), Unavailable("down")])
    world.run()  # the first two are jobs, the third was not taken
    states = [batch.state for batch in world.batches()]
    world.desk.answers.append(a_job())

    report = world.run()

    assert states == [BatchState.JOB, BatchState.JOB, BatchState.INTENT]
    assert (report.status, report.applied, world.in_step) == ("completed", 30, True)


@pytest.mark.parametrize(
    "error", [ValueError("a bug"), Exception("what"), RateLimited("slow"), Unavailable("away")]
)
def test_a_poll_that_fails_says_nothing_of_the_job(world: World, error: Exception) -> None:
    world.desk.answers.append(a_job())
    world.desk.polls.append(error)

    first = world.run()
    second = world.run()

    assert {first.status, second.status} <= {"completed", "failed"}
    assert (second.status, world.in_step, len(world.desk.pushes)) == ("completed", True, 1)


def test_a_job_that_the_platform_does_not_know_is_unknown_and_its_records_are_set_again(world: World) -> None:
    world.desk.answers.append(a_job())
    world.desk.polls.append(RequestError("404"))

    first = world.run()
    second = world.run()

    assert (first.status, first.unknown) == ("completed_with_errors", 10)
    assert (second.status, world.in_step, len(world.desk.pushes)) == ("completed", True, 2)


def test_a_run_that_only_waits_for_jobs_outlives_its_plan(world: World) -> None:
    world.expire_after = 0.2
    world.delivery = replace(world.delivery, job_wait=0.0)
    world.desk.answers.append(a_job(after=60.0))
    world.run()
    time.sleep(0.25)

    report = world.run()

    assert (report.notes, report.status, len(world.desk.pushes), world.in_step) == ((), "completed", 1, True)


# --- whole audiences ------------------------------------------------------------------------------------------


@pytest.fixture
def audience(world: World) -> World:
    """A world whose object takes whole audiences."""
    limits = replace(world.spec.limits, batch_size=None, mixed_ops=True)
    world.spec = replace(world.spec, delivery=Delivery.SNAPSHOT, limits=limits)
    world.desk.snapshot = True
    return world


def test_a_whole_audience_is_sent_whenever_anything_changed_and_only_changes_are_counted(audience: World) -> None:
    first = audience.run()
    audience.sql("UPDATE vips SET name = 'New' WHERE id = 1", "DELETE FROM vips WHERE id IN (2, 3)")
    audience.desk.forget()
    second = audience.run()
    audience.desk.forget()
    third = audience.run()

    assert (first.applied, second.applied, second.status) == (10, 3, "completed")
    assert audience.in_step
    assert (third.requests, audience.desk.pushes) == (0, [])
    assert [run.counts.get("applied") for run in audience.ledger.runs(SYNC)][1:] == [3, 10]


def test_a_whole_audience_that_was_not_taken_whole_is_unknown_and_sent_again(audience: World) -> None:
    audience.run()
    audience.sql("UPDATE vips SET name = 'New' WHERE id = 1", "DELETE FROM vips WHERE id = 2")
    audience.desk.answers.append(lambda desk, batch: desk.take(batch)[:-1])

    first = audience.run()
    members, dirty = len(audience.members()), audience.ledger.dirty(SYNC)
    audience.sql(
        "UPDATE vips SET name = 'Name 1' WHERE id = 1", "INSERT INTO vips VALUES (2, 'p2@x.example', 'Name 2', 2)"
    )
    audience.desk.forget()
    second = audience.run()

    assert (first.status, first.unknown, members, len(dirty)) == ("completed_with_errors", 2, 10, 1)
    assert (len(audience.desk.pushes), second.status, audience.in_step) == (1, "completed", True)


def test_a_whole_audience_with_nothing_but_invalid_rows_new_is_not_sent(audience: World) -> None:
    audience.run()
    audience.sql("INSERT INTO vips VALUES (50, NULL, 'Nobody', 1)")
    audience.desk.forget()

    report = audience.run()

    assert (audience.desk.pushes, report.status, exit_code([report])) == ([], "completed_with_errors", 4)


def test_a_whole_audience_is_not_sent_in_part(audience: World) -> None:
    audience.run()
    audience.sql(
        "UPDATE vips SET name = 'New' WHERE id = 1", "INSERT INTO vips VALUES (99, 'p99@x.example', 'L', 1)"
    )
    audience.desk.forget()

    report = audience.run(only=[Op.ADD])

    assert (report.status, report.code, audience.desk.pushes) == ("failed", "HG508", [])


def test_a_refused_whole_audience_is_kept_open(audience: World) -> None:
    audience.desk.answers.append(RequestError("refused"))

    first = audience.run()
    second = audience.run()

    assert (first.status, first.code) == ("failed", "HG402")
    assert (second.status, second.applied, audience.in_step) == ("completed", 10, True)


@pytest.mark.parametrize("column", ["first", "last", "id"])
def test_a_batch_that_a_disk_altered_in_the_ledger_is_not_sent(world: World, column: str) -> None:
    world.desk.answers.append(Unavailable("it is down"))
    world.delivery = replace(world.delivery, attempts=1)
    world.run()
    pushed = len(world.desk.pushes)
    with sqlite3.connect(world.root / "state" / "ledger.db") as ledger:
        ledger.execute(f"UPDATE batch SET {column} = {column} || '1'")  # 0 becomes 01, 9 becomes 91

    report = world.run()

    assert report.code == "HG303"
    assert "batch 1 is not what the ledger recorded" in report.error
    assert len(world.desk.pushes) == pushed
