"""A daemon that is killed while platforms are at work, or that hangs for good: nothing is lost."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import RunRequest, RunStatus
from tests.crash.forge import Forked
from tests.crash.ground import SYNC, Ground, GroundOf

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


def until(done: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)


def ledger_of(ground: Ground) -> Ledger:
    return open_ledger(ground.project.root / ".headgate" / "ledger.db")


def ask(ledger: Ledger) -> None:
    assert ledger.request_run(RunRequest(SYNC, "now#1", "console", "ana", ledger.now()))


def started(daemon: Forked) -> Forked:
    until(lambda: '"started"' in daemon.stem.with_suffix(".err").read_text())
    return daemon


def test_jobs_are_asked_about_again_by_the_next_daemon_when_the_first_is_killed(ground_of: GroundOf) -> None:
    ground = ground_of()
    config = ground.project.root / "config.toml"
    config.write_text(
        config.read_text().replace('type = "webhook"', 'type = "crash_slow_jobs"') + 'job_wait = "10ms"\n'
    )
    ground.change()
    with ledger_of(ground) as ledger:
        ask(ledger)
        first = ground.start("daemon")
        until(lambda: (run := ledger.open_run(SYNC)) is not None and run.status is RunStatus.WAITING)
        until(lambda: ledger.lease(SYNC) is None)
        first.kill()
        ground.killed(first.wait())
        sent = ground.sink.count
        waited = ledger.open_run(SYNC)

        second = ground.start("daemon")
        until(lambda: ledger.open_run(SYNC) is None)
        second.send(signal.SIGTERM)
        assert second.wait().code == 0

        assert waited is not None
        finished = ledger.run(waited.id)
        assert finished is not None
        assert finished.status is RunStatus.COMPLETED
        assert [r.slot for r in ledger.requests(SYNC, open_only=False)] == ["now#1"]
    assert ground.sink.count - sent == 1, "only the removals, which come last, were left to send"
    assert ground.at_the_destination() == ground.truth()
    assert ground.members() == set(ground.truth())


def test_the_second_daemon_takes_over_when_the_first_is_killed(ground_of: GroundOf) -> None:
    ground = ground_of()
    ground.change()
    ground.sink.latency = 0.3
    before = ground.sink.count
    daemons = {one.pid: one for one in (started(ground.start("daemon")), started(ground.start("daemon")))}
    with ledger_of(ground) as ledger:
        ask(ledger)
        until(lambda: ground.sink.count >= before + 2)
        lease = ledger.lease(SYNC)
        assert lease is not None
        first = daemons.pop(int(lease.holder.split("/")[1]))
        (second,) = daemons.values()
        first.kill()
        killed = time.monotonic()
        until(lambda: (now := ledger.lease(SYNC)) is not None and now.epoch > lease.epoch)
        took = time.monotonic() - killed
        ground.killed(first.wait())
        ground.sink.latency = 0.0
        until(lambda: ledger.open_run(SYNC) is None and ledger.lease(SYNC) is None)
        second.send(signal.SIGTERM)
        assert second.wait().code == 0

    ground.figures.most("slowest takeover of a killed daemon's run, s", round(took, 2))
    assert took < 12, "the lease's time"
    assert ground.at_the_destination() == ground.truth()
    assert ground.members() == set(ground.truth())


def test_a_destination_that_hangs_for_good_ends_the_daemon_and_the_next_one_goes_on(ground_of: GroundOf) -> None:
    ground = ground_of()
    config = ground.project.root / "config.toml"
    config.write_text(
        config.read_text().replace('request_timeout = "3s"', 'request_timeout = "80s"').replace("12s", "120s")
        + '[daemon]\nstuck_after = "1s"\nquit_after = "1s"\n'
    )
    ground.change()
    ground.sink.latency = 1000.0
    with ledger_of(ground) as ledger:
        ask(ledger)
        began = time.monotonic()
        done = ground.start("daemon").wait(60)
        took = time.monotonic() - began

        assert done.code == 70, done.text
        assert '"stuck"' in done.err
        assert '"stuck_for_good"' in done.err
        assert took < 30
        assert ledger.open_run(SYNC) is not None
        ground.sink.down()  # the destination is mended
        ground.sink.latency = 0.0
        ground.sink.up()
        config.write_text(config.read_text().replace("80s", "3s").replace("120s", "12s"))
        second = ground.start("daemon")
        until(lambda: ledger.open_run(SYNC) is None)
        second.send(signal.SIGTERM)
        assert second.wait().code == 0
    assert ground.at_the_destination() == ground.truth()


def test_a_source_that_hangs_is_interrupted_and_the_daemon_lives_on(ground_of: GroundOf) -> None:
    ground = ground_of()
    project = ground.project
    project.sql("ALTER TABLE vip_cohort RENAME TO vip_rows")
    endless = "(SELECT count(*) FROM range(1000000000000) a(i) WHERE i % 7 = 3)"
    project.sql(f"CREATE VIEW vip_cohort AS SELECT * FROM vip_rows WHERE user_id <> {endless}")
    config = project.root / "config.toml"
    config.write_text(config.read_text() + '[daemon]\nstuck_after = "1s"\nquit_after = "20s"\n')
    with ledger_of(ground) as ledger:
        ask(ledger)
        daemon = started(ground.start("daemon"))
        until(lambda: bool(ledger.runs(SYNC)) and ledger.runs(SYNC)[0].status is RunStatus.CANCELLED)
        assert ledger.lease(SYNC) is None
        daemon.send(signal.SIGTERM)
        done = daemon.wait()

        assert done.code == 0, done.text
        assert '"stuck"' in done.err
        assert "stuck_for_good" not in done.err

        project.sql("DROP VIEW vip_cohort; ALTER TABLE vip_rows RENAME TO vip_cohort")
        ground.change()
        again = ground.headgate("daemon", "--once")
        assert again.code == 0, again.text
        assert [r.why for r in ledger.requests(SYNC, open_only=False)] == ["console", "recover"]
    assert ground.at_the_destination() == ground.truth()
