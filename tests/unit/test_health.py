"""A sync's badges, read from a real ledger."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.health import Activity, Health, standing
from sync.mapping import Cohort, Sync
from sync.sdk.nouns import Op
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import (
    Counts,
    Lease,
    Plan,
    PlanStatus,
    Refresh,
    RejectedRecord,
    Run,
    RunRequest,
    RunStatus,
    Settlement,
    Verdict,
    VerdictAnswer,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with open_ledger(tmp_path / "ledger.db") as made:
        yield made


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    return ledger.acquire("vip", "host/1/2/3", 30)


def cohort(**refresh: Any) -> Cohort:
    source = {"connection": "w", "table": "vip", "key": "id"}
    return Cohort.model_validate({"name": "vip", "source": source, "refresh": refresh})


def sync(**more: Any) -> Sync:
    base = {"name": "vip", "destination": "sink", "mode": "mirror"}
    return Sync.model_validate(base | {"identifiers": [{"to": "email", "from": "email"}]} | more)


def ran(ledger: Ledger, lease: Lease, status: RunStatus, **error: str) -> None:
    now = ledger.now()
    ledger.add_run(
        Run(
            "r1",
            "vip",
            status,
            None,
            frozenset(Op),
            "cli",
            "ana",
            now,
            now,
            error=error or None,
            epoch=lease.epoch,
        )
    )
    ledger.release(lease)


def refreshed(ledger: Ledger, lease: Lease, newest: float) -> None:
    now = ledger.now()
    ledger.add_refresh(lease, Refresh("f1", "vip", "vip", now, 10, 0, "v", "d", "ana", newest=now - newest))


def held_plan(ledger: Ledger, lease: Lease, *, lives: float = 60) -> None:
    now = ledger.now()
    verdict = Verdict("removals_pct", VerdictAnswer.HOLD, 5.0, 30.0, "too many")
    plan = Plan(
        id="abcdef123456",
        digest="abcdef123456" + "0" * 52,
        sync="vip",
        destination="sink",
        object="record",
        audience=None,
        cohort="vip",
        status=PlanStatus.HELD,
        file="plans/x.parquet",
        file_sha256="x",
        inputs="i",
        mapping_digest="m",
        generation=0,
        refresh="f1",
        source_version="v",
        counts=Counts(remove=3),
        verdicts=(verdict,),
        created_at=now,
        expires_at=now + lives,
    )
    ledger.add_plan(lease, plan)


def test_a_sync_that_never_ran_is_a_warning(ledger):
    seen = standing(ledger, cohort(), sync())

    assert (seen.health, seen.reasons, seen.activity) == (Health.WARNING, ("it has never run",), Activity.IDLE)


def test_a_completed_run_is_healthy(ledger, lease):
    refreshed(ledger, lease, newest=60)
    ran(ledger, lease, RunStatus.COMPLETED)

    seen = standing(ledger, cohort(stale_after="2h"), sync())

    assert (seen.health, seen.reasons) == (Health.HEALTHY, ())
    assert seen.freshness == pytest.approx(60, abs=2)
    assert seen.last_run is not None


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.STOPPED])
def test_a_failed_run_is_failing_and_says_its_code(ledger, lease, status):
    ran(ledger, lease, status, code="HG201", message="no answer")

    seen = standing(ledger, cohort(), sync())

    assert seen.health is Health.FAILING
    assert "HG201" in seen.reasons[0]


def test_a_held_plan_is_held_and_names_its_guardrail(ledger, lease):
    held_plan(ledger, lease)
    ran(ledger, lease, RunStatus.HELD)

    seen = standing(ledger, cohort(), sync())

    assert (seen.health, seen.held_plan) == (Health.HELD, "abcdef123456")
    assert "removals_pct" in seen.reasons[0]


def test_an_expired_plan_holds_nothing(ledger, lease):
    held_plan(ledger, lease, lives=-1)
    ran(ledger, lease, RunStatus.COMPLETED)

    assert standing(ledger, cohort(), sync()).health is Health.HEALTHY


def test_an_old_source_is_stale_and_the_gravest_badge_wins(ledger, lease):
    refreshed(ledger, lease, newest=7300)
    ran(ledger, lease, RunStatus.COMPLETED)
    assert standing(ledger, cohort(stale_after="2h"), sync()).health is Health.STALE

    held_plan(ledger, ledger.acquire("vip", "host/1/2/3", 30))
    seen = standing(ledger, cohort(stale_after="2h"), sync())

    assert seen.health is Health.HELD
    assert len(seen.reasons) == 2


def test_undelivered_records_are_a_warning(ledger, lease):
    now = ledger.now()
    run = Run("r1", "vip", RunStatus.SENDING, None, frozenset(Op), "cli", "ana", now, epoch=lease.epoch)
    ledger.open(lease, run, [])
    record = RejectedRecord("vip", "k1", "add", "rejected", "bad", "f", "r1", 0, 1, now, now, now)
    settlement = Settlement(RunStatus.COMPLETED_WITH_ERRORS, {}, rejected=[record], dirty=[("k2", 1, Op.ADD)])
    ledger.finish(lease, "r1", settlement)
    ledger.release(lease)

    seen = standing(ledger, cohort(), sync())

    assert (seen.health, seen.rejected) == (Health.WARNING, 1)
    assert any("unknown" in reason for reason in seen.reasons)


def test_a_disabled_sync_is_disabled_whatever_happened(ledger, lease):
    ran(ledger, lease, RunStatus.FAILED)

    seen = standing(ledger, cohort(), sync(disabled=True, schedule={"every": "1h"}))

    assert (seen.health, seen.next_runs) == (Health.DISABLED, ())


def test_who_holds_the_lease_is_running(ledger, lease):
    assert standing(ledger, cohort(), sync()).activity is Activity.RUNNING


def test_a_pause_of_the_sync_or_its_destination_pauses_it(ledger):
    scheduled = sync(schedule={"every": "1h"})
    assert len(standing(ledger, cohort(), scheduled).next_runs) == 3

    ledger.pause("destination:sink", "token expired")
    seen = standing(ledger, cohort(), scheduled)

    assert (seen.activity, seen.next_runs) == (Activity.PAUSED, ())


def test_what_was_asked_for_or_interrupted_waits(ledger, lease):
    ledger.release(lease)
    ledger.request_run(RunRequest("vip", "2026-10-01T06:00:00Z", "console", "ana", ledger.now()))
    assert standing(ledger, cohort(), sync()).activity is Activity.WAITING

    assert standing(ledger, cohort(), replace_name(sync(), "other")).activity is Activity.IDLE


def replace_name(one: Sync, name: str) -> Sync:
    return one.model_copy(update={"name": name})
