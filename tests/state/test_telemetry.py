"""What whoever watches a run is told: spans, metrics and the ids in the log, of real runs on a real ledger."""

from __future__ import annotations

import io
import json
import logging
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import structlog
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

from sync.conditions import Condition
from sync.errors import AuthError, RateLimited, RequestError, SourceError, StateError
from sync.logging import configure
from sync.mapping import Schedule
from sync.sdk.connector import Connector
from sync.sdk.http import DestinationClient
from sync.sdk.nouns import Delivery, Receipt, Status
from sync.spans import Fact, Span, happened, span, watching
from sync.spans import phase as enter_phase
from sync.state import tables
from sync.state.alerts import Alert
from sync.state.nouns import RunRequest
from sync.telemetry.log_ids import LogIds
from sync.telemetry.metrics import Metrics
from sync.telemetry.vitals import Pulse, Vitals
from tests.figures import Figures
from tests.state.world import SPEC, Desk, Scripted, World


@dataclass
class Told:
    """A watcher that writes everything down."""

    begun: list[Span] = field(default_factory=list)
    over: list[Span] = field(default_factory=list)
    events: list[tuple[str, dict[str, Fact]]] = field(default_factory=list)

    def begins(self, span: Span) -> None:
        self.begun.append(span)

    def ends(self, span: Span) -> None:
        self.over.append(span)

    def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
        self.events.append((name, {"in": span.kind if span else "", **facts}))

    def of(self, kind: str) -> list[Span]:
        return [span for span in self.over if span.kind == kind]


@dataclass
class Standstill:
    """A clock of a daemon that does nothing."""

    jobs: dict = field(default_factory=dict)
    ticked: float = 0.0
    refused: str = ""
    late: float = 0.0
    ticking: bool = True


@pytest.fixture
def told():
    watcher = Told()
    with watching(watcher):
        yield watcher


def test_a_run_is_a_span_with_phases_and_batches(world: World, told: Told) -> None:
    report = world.people(25).run()

    (run,) = told.of("run")
    assert run.facts["sync"] == "vips-crm"
    assert run.facts["destination"] == "crm"
    assert run.facts["run"] == report.run
    assert (run.facts["status"], run.facts["applied"], run.error) == ("completed", 25, "")
    assert [s.facts["phase"] for s in told.of("phase")] == ["refresh", "diff", "guard", "deliver", "record"]
    batches = told.of("batch")
    assert sorted(int(b.facts["records"]) for b in batches) == [5, 10, 10]
    assert {b.facts["batch"] for b in batches} == {b.id for b in world.batches()}
    assert {(b.parent.facts["phase"], b.parent.parent) for b in batches if b.parent} == {("deliver", run)}
    assert {b.fact("run") for b in batches} == {report.run}
    assert all(s.took > 0 for s in told.over)
    assert len(told.over) == len(told.begun)


def test_the_id_of_a_run_is_known_before_it_begins(world: World, told: Told) -> None:
    report = world.people(5).run()

    assert told.begun[0].facts["run"] == report.run
    assert world.ledger.run(str(report.run)) is not None


def test_a_run_that_fails_has_the_id_that_it_began_with(world: World, told: Told) -> None:
    def broken():
        raise SourceError("the warehouse is down")

    report = world.people(5).runner().run(replace(world.job, source=broken))

    (run,) = told.of("run")
    assert (run.facts["run"], run.facts["status"], run.error) == (report.run, "failed", report.code)
    assert {s.facts["run"] for s in told.begun if "run" in s.facts} == {report.run}


def test_changes_are_told_by_op_and_outcome(world: World, told: Told) -> None:
    def half(desk: Desk, batch):
        return [
            Receipt(c.key, Status.REJECTED, "no") if n % 2 else desk.apply(c) for n, c in enumerate(batch.changes)
        ]

    world.people(10).run()
    world.sql("UPDATE vips SET name = 'new' WHERE id < 4", "DELETE FROM vips WHERE id = 9")
    world.desk.always = half
    world.run()

    changes = [facts for name, facts in told.events if name == "changes"]
    counted = {(c["op"], c["outcome"]): c["changes"] for c in changes}
    assert counted == {("add", "applied"): 10, ("update", "applied"): 2, ("update", "rejected"): 2,
                       ("remove", "applied"): 1}  # fmt: skip


def test_of_a_whole_audience_only_what_changed_is_told(world: World, told: Told) -> None:
    world.spec = replace(SPEC, delivery=Delivery.SNAPSHOT, limits=replace(SPEC.limits, batch_size=None))
    world.desk.snapshot = True
    world.people(20).run()
    world.sql("DELETE FROM vips WHERE id = 3", "UPDATE vips SET name = 'new' WHERE id < 2")
    told.events.clear()
    world.run()

    changes = [(f["op"], f["outcome"], f["changes"]) for name, f in told.events if name == "changes"]
    assert sorted(changes) == [("remove", "applied", 1), ("update", "applied", 2)]


def test_tries_and_requests_are_told_inside_their_batch(world: World, told: Told) -> None:
    world.desk.answers.append(RateLimited("slow down", retry_after=0.01))
    world.people(5).run()

    names = [(name, facts["in"]) for name, facts in told.events if name != "changes"]
    assert names == [("request", "batch"), ("retry", "batch"), ("request", "batch")]


def test_a_batch_that_is_cut_in_halves_has_them_as_parts(world: World, told: Told) -> None:
    world.desk.answers.append(RequestError("refused"))
    world.people(10).run()

    halves = [s for s in told.of("batch") if s.parent is not None and s.parent.kind == "batch"]
    assert [s.facts["records"] for s in halves] == [5, 5]


class _Http(Scripted):
    """Asks a server of its own before each push."""

    def __init__(self, desk: Desk, before) -> None:
        super().__init__(desk, before)
        answer = httpx.MockTransport(lambda _: httpx.Response(200, json=[]))
        self.http = DestinationClient(
            type("Any", (Connector,), {"name": "any"}),
            transport=answer,
            before_request=before,
            base_url="https://crm.example",
        )

    def push(self, batch):
        self.http.post("/people/ana@x.example?token=s3cret", json={})
        return self.desk.push(batch)


def test_a_request_is_a_part_of_its_batch_and_says_neither_path_nor_query(world: World, told: Told) -> None:
    world.connector = lambda before: _Http(world.desk, before)
    world.people(5).run()

    (request,) = told.of("request")
    assert request.facts == {"method": "POST", "host": "crm.example", "status": 200}
    assert request.parent in told.of("batch")
    assert not any("@x.example" in str(s.facts) or "s3cret" in str(s.facts) for s in told.over)


def test_a_watcher_that_fails_fails_no_run(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def begins(self, span: Span) -> None:
            raise ZeroDivisionError

        def ends(self, span: Span) -> None:
            raise ZeroDivisionError

        def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
            raise ZeroDivisionError

    with watching(Broken()), caplog.at_level(logging.WARNING):
        assert world.people(5).run().status == "completed"
    assert "a watcher failed (ZeroDivisionError)" in caplog.text


def test_nobody_watching_costs_microseconds() -> None:
    began = time.process_time()
    for _ in range(10_000):
        with span("request", method="POST"):
            happened("request")
    assert (time.process_time() - began) / 10_000 < 50e-6


# --- the log --------------------------------------------------------------------------------------------------


@pytest.fixture
def lines():
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure(2, json=True, stream=stream)
    try:
        with watching(LogIds()):
            yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        structlog.reset_defaults()


def test_every_line_of_a_run_has_its_ids_whichever_thread_writes_it(world: World, lines) -> None:
    log = structlog.get_logger("test")

    def noisy(desk: Desk, batch):
        log.info("pushing")
        logging.getLogger("library").warning("told by a library")
        return desk.take(batch)

    world.desk.always = noisy
    report = world.people(25).run()
    log.info("after the run")

    *during, after = lines()
    assert len(during) == 6
    for line in during:
        assert (line["run"], line["sync"], line["destination"]) == (report.run, "vips-crm", "crm")
    assert {line["batch"] for line in during} == {b.id for b in world.batches()}
    assert set(after) == {"event", "level", "timestamp"}


def test_the_log_of_an_interrupted_run_that_is_finished_first_has_that_runs_id(lines) -> None:
    log = structlog.get_logger("test")
    with span("run", sync="vip", destination="crm", run="new"):
        log.info("planning")
        enter_phase("deliver", run="old")
        log.info("sending")
        enter_phase("diff")
        log.info("planning again")

    assert [(line["run"], line.get("phase")) for line in lines()] == [
        ("new", None), ("old", "deliver"), ("new", "diff"),
    ]  # fmt: skip


# --- metrics --------------------------------------------------------------------------------------------------


def samples(metrics: Metrics) -> dict[str, float]:
    """`name{label="value"}` -> value, read by the library's strict parser; labels by name."""
    page, media_type = metrics.page("application/openmetrics-text; version=1.0.0")
    assert "openmetrics" in media_type
    read = [sample for family in parsed(page.decode()) for sample in family.samples]
    return {one.name + _labels(one.labels): one.value for one in read}


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{name}="{value}"' for name, value in sorted(labels.items())) + "}" if labels else ""


def metrics_of(world: World, **schedule: Any) -> Metrics:
    sync = world.job.sync.model_copy(update={"schedule": Schedule(every="1h", **schedule)})
    ledger, jobs = world.ledger, {world.job.name: replace(world.job, sync=sync)}
    return Metrics(ledger, world.settings.folder, Vitals(ledger, Standstill(jobs), Pulse()), lease_ttl=30.0)


def test_metrics_tell_what_a_run_did_and_what_the_ledger_has(world: World) -> None:
    metrics = metrics_of(world)

    def some(desk: Desk, batch):
        return [
            Receipt(c.key, Status.REJECTED, "no") if n == 0 else desk.apply(c) for n, c in enumerate(batch.changes)
        ]

    world.desk.always = some
    world.connector = lambda before: _Http(world.desk, before)
    with watching(metrics):
        report = world.people(25).run()
        metrics.ended("vips-crm", report.status, report.wall_s)
    world.ledger.request_run(
        RunRequest("vips-crm", "2026-10-01T06:00:00Z", "schedule", "clock", world.ledger.now())
    )
    world.ledger.pause("destination:crm", "it is being moved")

    found = samples(metrics)
    one = '{sync="vips-crm"}'
    assert found['headgate_runs_total{status="completed_with_errors",sync="vips-crm"}'] == 1
    assert found['headgate_changes_total{op="add",outcome="applied",sync="vips-crm"}'] == 22
    assert found['headgate_changes_total{op="add",outcome="rejected",sync="vips-crm"}'] == 3
    assert found['headgate_requests_total{destination="crm"}'] == report.requests == 3
    assert found['headgate_request_duration_seconds_count{answer="2xx",destination="crm"}'] == 3
    assert found[f"headgate_run_duration_seconds_count{one}"] == 1
    assert found['headgate_phase_duration_seconds_count{phase="deliver"}'] == 1
    assert found[f"headgate_members{one}"] == 22
    assert found[f"headgate_rejected_records{one}"] == 3
    assert found[f"headgate_last_run_failed{one}"] == 0
    assert found[f"headgate_last_run_timestamp_seconds{one}"] == pytest.approx(time.time(), abs=30)
    assert found[f"headgate_last_success_timestamp_seconds{one}"] == pytest.approx(time.time(), abs=30)
    assert found[f"headgate_schedule_lag_seconds{one}"] > 86400
    assert found["headgate_queue_depth"] == 1
    assert found[f"headgate_paused{one}"] == 1
    assert found["headgate_ledger_readable"] == 1
    assert found["headgate_ledger_size_bytes"] > 0
    assert "@x.example" not in metrics.page()[0].decode()


def test_a_plan_that_waits_and_a_sync_that_runs_are_seen(world: World) -> None:
    metrics = metrics_of(world)
    world.people(5).runner().run(world.job)  # held: the first run
    lease = world.ledger.acquire("vips-crm", "elsewhere/1/2/3", 10)

    found = samples(metrics)

    assert found['headgate_held_plans{sync="vips-crm"}'] == 1
    assert found['headgate_held_plan_age_seconds{sync="vips-crm"}'] < 60
    assert found["headgate_runs_in_progress"] == 1
    assert found['headgate_lease_age_seconds{sync="vips-crm"}'] == pytest.approx(20, abs=5)
    world.ledger.release(lease)


def test_a_run_that_stopped_in_the_middle_has_failed_and_its_lease_ages(world: World) -> None:
    metrics = metrics_of(world)
    world.desk.answers += [AuthError("the key is wrong")] * 9
    assert world.people(25).run().code == AuthError.code
    assert world.ledger.open_run("vips-crm") is not None

    assert samples(metrics)['headgate_last_run_failed{sync="vips-crm"}'] == 1
    world.ledger.acquire("vips-crm", "elsewhere/1/2/3", 0.001)  # by a process that is gone
    time.sleep(0.01)

    found = samples(metrics_of(world))
    assert found['headgate_last_run_failed{sync="vips-crm"}'] == 1
    assert found["headgate_runs_in_progress"] == 0
    assert found['headgate_lease_age_seconds{sync="vips-crm"}'] > 30.0


def test_the_lag_of_a_schedule_begins_after_jitter_and_blackout(world: World) -> None:
    now = datetime.now(UTC)
    dark = f"{now - timedelta(hours=3):%H:%M}-{now + timedelta(hours=1):%H:%M}"
    slot = f"{now - timedelta(hours=2):%Y-%m-%dT%H:%M:%SZ}"
    world.people(5).run()
    world.ledger.request_run(RunRequest("vips-crm", slot, "schedule", "clock", world.ledger.now()))

    lag = 'headgate_schedule_lag_seconds{sync="vips-crm"}'
    assert samples(metrics_of(world))[lag] == pytest.approx(7200, abs=60)
    assert samples(metrics_of(world, blackout=[dark]))[lag] == 0


def test_counters_begin_at_zero_with_their_sync_and_go_with_it(world: World) -> None:
    metrics = metrics_of(world)
    rejected = 'headgate_changes_total{op="remove",outcome="rejected",sync="vips-crm"}'
    failed = 'headgate_runs_total{status="failed",sync="vips-crm"}'
    found = samples(metrics)
    assert (found[rejected], found[failed]) == (0, 0)
    metrics.ended("vips-crm", "failed", 1.0)
    assert samples(metrics)[failed] == 1

    metrics._gauges._vitals.clock.jobs.clear()
    assert not any("vips-crm" in name for name in samples(metrics) if "_total" in name or "duration" in name)


def test_what_people_are_told_of_is_a_metric(world: World) -> None:
    world.ledger.change_alert(Alert("destination:crm", Condition.AUTH, 1, open=True))
    world.ledger.change_alert(Alert("vips-crm", Condition.HELD, 1, open=False))

    found = samples(metrics_of(world))
    assert found['headgate_alert_open{condition="auth",subject="destination:crm"}'] == 1
    assert found['headgate_alert_open{condition="held",subject="vips-crm"}'] == 0


def test_a_ledger_that_cannot_be_read_leaves_the_rest_of_the_page(world: World, monkeypatch) -> None:
    def broken(_: object) -> None:
        raise StateError("the disk is gone")

    metrics = metrics_of(world)
    monkeypatch.setattr("sync.telemetry.metrics.figures", broken)

    found = samples(metrics)

    assert found["headgate_ledger_readable"] == 0
    assert 'headgate_members{sync="vips-crm"}' not in found
    assert any(name.startswith("headgate_build_info") for name in found)


def test_the_page_has_as_many_series_after_many_runs_as_after_one(world: World) -> None:
    metrics = metrics_of(world)
    with watching(metrics):
        world.people(5).run()
        once = len(samples(metrics))
        for score in range(10, 15):
            world.sql(f"UPDATE vips SET score = {score}").run()
            metrics.ended("vips-crm", "completed", 1.0)
        metrics.ended("vips-crm", "completed", 1.0)
        more = samples(metrics)

    new = {name.split("{")[0] for name in more} - {"headgate_run_duration_seconds_bucket"}
    assert len(more) - once < 40, new


@pytest.mark.slow
@pytest.mark.measured
def test_a_scrape_of_200_syncs_with_a_long_past_costs_little(world: World, figures: Figures) -> None:
    syncs, past = [f"s{n}" for n in range(200)], range(200)
    job = world.job
    jobs = {name: replace(job, name=name, sync=job.sync.model_copy(update={"name": name})) for name in syncs}
    with world.ledger._db.write() as connection:
        connection.execute(
            tables.lease.insert(), [{"sync": name, "holder": "", "epoch": 1, "expires": 0} for name in syncs]
        )
        connection.execute(tables.run.insert(), [_past_run(name, n) for n in past for name in syncs])
        connection.execute(
            tables.run_request.insert(),
            [
                {"sync": name, "slot": f"2026-{n:06}", "why": "schedule", "actor": "clock", "at": n, "taken_at": n}
                for n in past
                for name in syncs
            ],
        )
    metrics = Metrics(world.ledger, world.settings.folder, Vitals(world.ledger, Standstill(jobs), Pulse()), 30.0)
    metrics.page()

    cold = Metrics(world.ledger, world.settings.folder, Vitals(world.ledger, Standstill(jobs), Pulse()), 30.0)
    began = time.process_time()
    page, _ = cold.page()
    read = time.process_time() - began
    began = time.process_time()
    cold.page()
    again = time.process_time() - began

    figures.most("slowest scrape of 200 syncs, ms of CPU", round(read * 1000))
    figures.most("slowest scrape that follows, ms of CPU", round(again * 1000))
    figures.most("most bytes of a page", len(page))
    assert read < 0.5
    assert again < 0.25


def _past_run(sync: str, number: int) -> dict[str, object]:
    return {
        "id": f"{sync}-{number}", "sync": sync, "status": "completed", "ops": "[]", "trigger": "schedule",
        "actor": "clock", "started_at": 1e9 + number, "finished_at": 1e9 + number, "epoch": 1, "approved": False,
        "counts": "{}", "removed": 0,
    }  # fmt: skip
