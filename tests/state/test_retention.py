"""What is old is deleted, and nothing that anybody needs: what is open, held, undelivered, or to be undone."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sync.audit import Audit
from sync.daemon.retention import Retention
from sync.engine.job import GuardrailLimits, LogTarget
from sync.engine.lease import LeaseKeeper
from sync.engine.retention import prune, prune_when_due
from sync.errors import SourceError
from sync.sdk.nouns import Batch, Outcome, Status
from sync.sources.base import Column
from sync.state import mark
from sync.state.ledger import Ledger, open_ledger
from sync.state.log_mark import NOTE, LogMark, LogPlace
from sync.state.nouns import Expiry, PlanStatus, Refresh, Run, RunRequest, RunStatus
from tests.state.world import SYNC, Desk, Warehouse, World, applied_then, some

DAY = 86400.0
_TIMES = {
    "run": ("started_at", "finished_at"),
    "plan": ("created_at", "expires_at"),
    "refresh": ("at",),
    "generation": ("at",),
    "run_request": ("at", "taken_at", "ended_at"),
    "attempt": ("alive_until",),
}


def age(world: World, days: float) -> None:
    """Let everything be so much older."""
    with closing(sqlite3.connect(world.ledger.path)) as connection, connection:
        for table, columns in _TIMES.items():
            for column in columns:
                connection.execute(f"UPDATE {table} SET {column} = {column} - {days * DAY}")
    then = time.time() - days * DAY
    for path in (world.root / "state").rglob("*.parquet"):
        os.utime(path, (then, then))


def pruned(world: World, log: LogTarget | None = None) -> dict[str, int]:
    with LeaseKeeper(world.ledger, SYNC, 30.0) as keeper:
        return prune(world.ledger, world.settings, keeper, log)


def remembered(world: World, note: str, value: str) -> None:
    with LeaseKeeper(world.ledger, SYNC, 30.0) as keeper:
        world.ledger.remember(keeper.lease, note, value)


def asked(world: World, slot: str, *, ended: bool = True) -> None:
    """A run was asked for and begun."""
    world.ledger.request_run(RunRequest(SYNC, slot, "schedule", "s", 0.0))
    world.ledger.take_request(SYNC, slot)
    if ended:
        world.ledger.answer_requests(SYNC, [slot], {})


def files(world: World, kind: str) -> set[str]:
    return {path.name for path in (world.root / "state" / kind / SYNC).glob("*.parquet")}


def witnesses(world: World) -> set[Path]:
    return {path for path in world.root.rglob("*.notes") if path.is_file()}


def rows(world: World, table: str) -> int:
    with world.ledger.reading() as connection:
        return int(connection.exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one())


def changed_often(world: World, runs: int) -> None:
    """Runs with changes, and one with nothing to do after each."""
    for number in range(runs):
        world.people(20 + number)
        assert world.run().status == "completed"
        assert world.run().status == "completed"


def test_what_is_over_and_old_goes_with_its_batches_plans_and_files(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_RUNS", 2)
    monkeypatch.setattr("sync.state.retention.NEWEST_REFRESHES", 2)
    changed_often(world, 4)
    asked(world, "2026-01-01T00:00:00Z")
    asked(world, "2026-01-02T00:00:00Z")
    with world.ledger.reading() as connection:
        Audit(world.root / "state", world.root / "checkpoints").checkpoint(connection)
    checkpoints = witnesses(world)
    age(world, 500)
    events = rows(world, "audit_event")
    before = world.ledger.generation(SYNC)

    gone = pruned(world)

    assert gone["runs"] > 0
    assert gone["generations"] == 3
    assert rows(world, "batch") < 8
    assert world.ledger.generation(SYNC) == before
    assert files(world, "members") == {name for name in (before.base, before.delta) if name}
    assert files(world, "plans") == set()
    assert [r.slot for r in world.ledger.requests(SYNC, open_only=False)] == ["2026-01-02T00:00:00Z"]
    assert rows(world, "audit_event") == events, "the audit log is never pruned"
    assert checkpoints
    assert witnesses(world) == checkpoints
    world.ledger.check(thorough=True)

    world.desk.forget()
    world.people(30)
    assert world.run(first_run=False).status == "completed"
    assert world.in_step
    assert world.desk.sent == 7, "what the destination has is not sent again"


def test_what_is_young_stays(world: World) -> None:
    changed_often(world, 3)
    tables = ("run", "plan", "batch", "refresh", "generation")
    before = {table: rows(world, table) for table in tables}, files(world, "plans"), files(world, "members")
    age(world, 6)

    gone = pruned(world)

    assert not any(gone.values())
    assert (
        {table: rows(world, table) for table in tables},
        files(world, "plans"),
        files(world, "members"),
    ) == before


def test_a_request_that_is_not_answered_yet_stays(world: World) -> None:
    asked(world, "api-1")
    asked(world, "api-2", ended=False)
    age(world, 30)

    pruned(world)

    assert [r.slot for r in world.ledger.requests(SYNC, open_only=False)] == ["api-2"]


def test_runs_that_had_nothing_to_do_go_sooner(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_RUNS", 1)
    changed_often(world, 3)
    age(world, 30)

    pruned(world)

    kept = world.ledger.runs(SYNC, limit=100)
    assert [run.plan is not None for run in kept[1:]] == [True] * 3


def test_the_run_that_sent_last_stays_however_old(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_RUNS", 1)
    world.people(5)
    world.run()
    last = mark.marked(world.root / "state", SYNC)
    for _ in range(3):
        world.run()
    age(world, 5000)

    pruned(world)

    assert last is not None
    assert world.ledger.run(last) is not None
    world.people(6)
    assert world.run().status == "completed", "an older ledger is told from a pruned one"


def test_what_is_rejected_or_uncertain_keeps_its_run_and_its_values(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_RUNS", 1)

    def reject(desk: Desk, batch: Batch) -> Outcome:
        marks = [
            Status.REJECTED if c.identifiers["email"] == "p3@x.example" else Status.APPLIED for c in batch.changes
        ]
        return some(*marks)(desk, batch)

    world.people(20)
    world.desk.answers.append(reject)
    world.run()
    (record,) = world.ledger.rejected(SYNC)
    copies = files(world, "rejected")
    world.ledger.set_rejected(SYNC, [record.key], retry=False, actor="ana", reason="a test address")
    for number in range(3):
        world.people(21 + number)
        world.run()
    age(world, 5000)

    pruned(world)

    assert world.ledger.run(record.run) is not None
    assert copies
    assert copies <= files(world, "rejected")
    assert world.ledger.rejected(SYNC)[0].given_up_at is not None


def test_an_interrupted_run_and_its_plan_stay(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_RUNS", 1)
    world.people(20)
    world.run()
    world.people(60)
    world.desk.answers.extend([None, applied_then(KeyboardInterrupt())])
    with pytest.raises(KeyboardInterrupt):
        world.run()
    left = world.ledger.open_run(SYNC)
    age(world, 5000)

    pruned(world)

    assert left is not None
    assert world.ledger.open_run(SYNC) is not None
    assert world.ledger.batches(left.id)
    plan = world.ledger.plan(left.plan or "")
    assert plan is not None
    assert Path(plan.file).name in files(world, "plans")


def test_a_plan_that_waits_for_a_decision_stays(world: World) -> None:
    world.people(100)
    world.run()
    world.guardrails = GuardrailLimits(max_removed=10)
    world.people(50)
    report = world.run()
    assert report.status == "held"
    assert report.plan is not None
    with closing(sqlite3.connect(world.ledger.path)) as connection, connection:
        connection.execute("UPDATE plan SET created_at = created_at - 43200000 WHERE status = 'held'")
    for path in (world.root / "state" / "plans").rglob("*.parquet"):
        os.utime(path, (0, 0))

    pruned(world)

    kept = world.ledger.plan(report.plan.id)
    assert kept is not None
    assert kept.status is PlanStatus.HELD
    assert Path(kept.file).name in files(world, "plans")


def test_only_the_log_that_is_written_now_keeps_the_runs_it_lacks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_RUNS", 1)
    world.run()
    first = world.ledger.runs(SYNC)[-1]
    for _ in range(3):
        world.run()
    places = (LogPlace("w", "left", run=first.id, made=True), LogPlace("w", "now", run=first.id, made=True))
    remembered(world, NOTE, LogMark(places).text())
    age(world, 30)

    assert pruned(world, LogTarget("w", "now"))["runs"] == 0
    assert pruned(world, LogTarget("w", "later"))["runs"] == 2


def test_a_sync_is_looked_through_once_a_day_at_the_end_of_a_run(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sync.state.retention.NEWEST_REFRESHES", 1)
    changed_often(world, 2)
    refreshes = rows(world, "refresh")
    age(world, 400)
    world.run()
    assert rows(world, "refresh") == refreshes + 1, "that was done less than a day ago, as the clock tells"

    remembered(world, "pruned", repr(world.ledger.now() - 2 * DAY))
    world.run()

    assert rows(world, "refresh") < refreshes + 2, "two runs and nothing deleted would be that"


def test_a_sync_that_always_fails_is_looked_through_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.run()
    remembered(world, "pruned", repr(world.ledger.now() - 2 * DAY))
    age(world, 100)
    assert files(world, "plans")

    def gone(*_: object) -> tuple[Column, ...]:
        raise SourceError("there is no such table")

    monkeypatch.setattr(Warehouse, "columns", gone)
    assert world.run().status == "failed"

    assert files(world, "plans") == set()


def test_after_a_long_silence_a_day_is_waited_for_a_clock_that_may_be_wrong(world: World) -> None:
    world.run()
    remembered(world, "pruned", repr(world.ledger.now() - 60 * DAY))
    age(world, 400)

    with LeaseKeeper(world.ledger, SYNC, 30.0) as keeper:
        assert prune_when_due(world.ledger, world.settings, keeper, None) == {}
    assert float(world.ledger.note(SYNC, "pruned") or 0) == pytest.approx(world.ledger.now(), abs=5)
    assert files(world, "plans")


# --- syncs that do not run -------------------------------------------------------------------------------------


def retention(world: World, stop: threading.Event | None = None) -> Retention:
    """A daemon's, of a project that has no sync any more."""
    return Retention(world.ledger, lambda: world.settings, dict, stop or threading.Event())


def test_what_a_sync_left_that_no_mapping_has_any_more_is_deleted_but_for_its_members(world: World) -> None:
    world.run()
    world.people(30).run()
    remembered(world, "pruned", repr(world.ledger.now() - 2 * DAY))
    age(world, 100)
    newest = world.ledger.generation(SYNC)
    stray = world.root / "state" / "members" / SYNC / "base-9-0000abcd.parquet"
    stray.touch()

    with capture_logs() as logs:
        retention(world).look()
        retention(world).look()

    assert files(world, "plans") == set()
    assert files(world, "members") == {newest.base}
    assert world.ledger.generations(SYNC) == [newest]
    (told,) = logs
    assert (told["event"], told["sync"], told["generations"], told["files"]) == ("deleted", SYNC, 1, 4)
    assert world.people(40).run(first_run=False).status == "completed", "it may come back"
    assert world.in_step


def test_a_sync_that_runs_now_is_left_to_its_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.ledger, "known_syncs", lambda: [SYNC, "another"])

    with LeaseKeeper(world.ledger, SYNC, 30.0), capture_logs() as logs:
        retention(world).look()

    assert logs == []
    assert [world.ledger.note(sync, "pruned") is None for sync in (SYNC, "another")] == [True, False]


def test_what_cannot_be_deleted_is_told_and_keeps_no_other_sync_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("sync.engine.retention.collect_orphans", refuse)
    monkeypatch.setattr(world.ledger, "known_syncs", lambda: [SYNC, "another"])

    with capture_logs() as logs:
        retention(world).look()

    told = [(one["event"], one["sync"], one["code"]) for one in logs]
    assert told == [("kept_going", SYNC, "HG341"), ("kept_going", "another", "HG341")]


# --- the size of a ledger --------------------------------------------------------------------------------------


def size(ledger: Ledger) -> int:
    return sum(p.stat().st_size for p in ledger.path.parent.glob(f"{ledger.path.name}*"))


def unchanged_run(ledger: Ledger, number: int) -> None:
    """What a run with nothing to do writes."""
    slot = f"2026-01-01T{number:08}Z"
    now = ledger.now()
    ledger.request_run(RunRequest(SYNC, slot, "schedule", "scheduler", now))
    ledger.take_request(SYNC, slot)
    ledger.answer_requests(SYNC, [slot], {})
    with LeaseKeeper(ledger, SYNC, 30.0) as keeper:
        values: dict[str, Any] = {
            "rows": 100,
            "invalid": 0,
            "version": "v",
            "definition": "d",
            "cause": "schedule",
        }
        ledger.add_refresh(keeper.lease, Refresh(f"f{number}", SYNC, "vips", now, **values, accepted=True))
        ended = RunStatus.COMPLETED
        ledger.add_run(Run(f"r{number}", SYNC, ended, None, frozenset(), "schedule", "s", now, finished_at=now))
        if number % 100 == 0:  # as much as expires from then on is written from then on
            ledger.prune(keeper.lease, Expiry(now, now, now))


@pytest.mark.parametrize(
    "runs",
    [
        pytest.param(1_000, marks=[pytest.mark.endless]),
        pytest.param(10_000, marks=[pytest.mark.endless, pytest.mark.timeout(900)]),
    ],
)
def test_a_ledger_in_which_nothing_changes_does_not_grow(tmp_path: Path, runs: int) -> None:
    with open_ledger(tmp_path / "ledger.db") as ledger:
        sizes = []
        for number in range(runs):
            unchanged_run(ledger, number)
            if number % (runs // 10) == runs // 10 - 1:
                sizes.append(size(ledger))
        left = len(ledger.runs(SYNC, limit=10 * runs))
    print(f"{runs:,} runs: bytes of the ledger after each tenth {sizes}; {left} runs left")

    assert left <= 50 + 100
    assert sizes[-1] <= sizes[1] * 1.05
