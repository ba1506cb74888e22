"""The daemon's clock on a real ledger: no slot is lost, whatever fails while it is due."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from apscheduler.jobstores.memory import MemoryJobStore

from sync.daemon.clock import Clock
from sync.daemon.service import Daemon
from sync.engine.job import SyncJob
from sync.errors import StateError
from sync.schedule import Timing, slot
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import RunRequest
from tests.integration.test_daemon import Played, ask, job, ledger, until  # noqa: F401 - a fixture

pytestmark = pytest.mark.timeout(60)


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
    daemon.clock.read()
    wall.at += timedelta(hours=2)
    daemon.clock._drift -= 7200
    daemon.clock.look()

    assert len(ledger.requests()) == 40


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


def test_what_wakes_the_clock_is_kept_in_memory_alone(ledger):
    """A store of jobs in a database is code that whoever writes to it has run here."""
    clock = Clock(lambda: [job("fast", schedule={"every": "1s"})], ledger)
    clock.start()
    clock.stop()

    assert [type(store) for store in clock._scheduler._jobstores.values()] == [MemoryJobStore]


# --- what fails while a slot is due ----------------------------------------------------------------------------


def test_a_slot_that_is_due_while_the_ledger_is_locked_is_asked_for_afterwards(tmp_path, wall):
    path = tmp_path / "ledger.db"
    with open_ledger(path, busy_timeout=0.05) as ledger:
        clock = Clock(lambda: [job("vip", schedule=DAILY), job("next", schedule=DAILY)], ledger)
        clock.read()
        wall.at += timedelta(hours=1)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StateError, match="locked"):
                clock.look()
            wall.at += timedelta(minutes=5)
            assert clock.late == 300
            assert all(item.since < wall.at - timedelta(hours=1) for item in clock._timed.values())
        clock.look()

        assert {(r.sync, r.slot) for r in ledger.requests()} == {
            (name, "2026-10-01T06:00:00Z") for name in ("next", "vip")
        }
        assert clock.late == 0


def test_slots_that_come_due_while_the_files_are_read_are_asked_for(ledger, wall):
    jobs, look = [job(f"s{n}", schedule=DAILY) for n in range(3)], [1]

    def load() -> list[SyncJob]:
        if look[0] == 2:
            wall.at += timedelta(hours=2)  # it takes its time
        return jobs

    clock = Clock(load, ledger, lambda: look[0])
    clock.read()
    look[0] = 2
    clock.look()
    clock.look()

    assert [r.sync for r in ledger.requests()] == ["s0", "s1", "s2"]


def asked_for_once(ledger: Ledger, at: datetime) -> None:
    ledger.request_run(RunRequest("vip", slot(at), "schedule", "scheduler", ledger.now()))
    ledger.take_request("vip", slot(at))


@pytest.mark.parametrize("case", ["edited", "enabled"])
def test_a_schedule_that_is_edited_or_enabled_asks_for_what_it_missed_and_goes_on(ledger, case):
    now = datetime.now(UTC)
    asked_for_once(ledger, now - timedelta(days=3))
    after = {"at": f"{now - timedelta(hours=1):%H:%M}"}
    before = {"every": "30d"} if case == "edited" else after
    files, look = [job("vip", schedule=before, disabled=case == "enabled")], [1]
    clock = Clock(lambda: files, ledger, lambda: look[0])
    clock.start()
    try:
        files[:], look[0] = [job("vip", schedule=after)], 2
        clock.look()
        clock.look()

        assert clock.ticking
        assert [r.sync for r in ledger.requests()] == ["vip"]
    finally:
        clock.stop()


def test_the_slots_of_a_paused_sync_are_passed_over_for_good(ledger):
    now, look = datetime.now(UTC), [1]
    asked_for_once(ledger, now - timedelta(days=3))
    ledger.pause("vip", "the vendor moves house")
    load = lambda: [job("vip", schedule={"at": f"{now - timedelta(hours=1):%H:%M}"})]  # noqa: E731
    clock = Clock(load, ledger, lambda: look[0])
    clock.start()
    try:
        for look[0] in (2, 2, 3, 3):
            clock.look()
            assert clock.ticking, "any file that is edited reads them all again"
    finally:
        clock.stop()
    ledger.pause("vip", None)
    clock.look()
    Daemon(load, ledger, Played().runner).once()

    assert len(ledger.requests(open_only=False)) == 1


def test_what_is_resumed_takes_no_slot_with_it(ledger):
    now = datetime.now(UTC)
    dark = f"{now - timedelta(hours=1):%H:%M}-{now + timedelta(minutes=30):%H:%M}"
    schedule = {"at": f"{now - timedelta(minutes=40):%H:%M}", "blackout": [dark]}
    asked_for_once(ledger, now - timedelta(days=1, minutes=40))
    resumed = slot(now - timedelta(minutes=20)) + "#resume"
    ledger.request_run(RunRequest("vip", resumed, "resume", "scheduler", ledger.now()))
    clock = Clock(lambda: [job("vip", schedule=schedule)], ledger)
    clock.read()

    (item,) = clock._timed.values()
    assert item.trigger.latest(item.since, now + timedelta(minutes=31)) is not None


def test_files_are_read_until_the_ledger_has_said_what_it_knows_of_their_slots(ledger, monkeypatch):
    files, look = [job("old", schedule=DAILY)], [1]
    clock = Clock(lambda: list(files), ledger, lambda: look[0])
    clock.read()
    files.append(job("new", schedule=DAILY))
    look[0] = 2

    def locked(*_: object) -> None:
        raise StateError("the ledger is locked", code="HG311")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "notice", locked)
        clock.look()
        clock.look()
        assert "new" not in clock.jobs
    clock.look()

    assert "new" in clock.jobs
    assert clock.scheduled == 2


def test_one_sync_whose_tick_fails_keeps_no_other_from_its_own(ledger, wall, monkeypatch):
    latest = Timing.latest

    def broken(self: Timing, since: datetime, now: datetime) -> datetime | None:
        if self is clock._timed["bad"].trigger:
            raise ZeroDivisionError
        return latest(self, since, now)

    clock = Clock(lambda: [job("bad", schedule=DAILY), job("good", schedule=DAILY)], ledger)
    clock.read()
    wall.at += timedelta(hours=2)
    monkeypatch.setattr(Timing, "latest", broken)
    clock.look()

    assert [r.sync for r in ledger.requests()] == ["good"]
