"""The page for Prometheus: counters of what this process does, and gauges that are read when it is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from itertools import product
from pathlib import Path
from platform import python_version
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sync.engine.job import SyncJob
from sync.engine.lane import Room
from sync.engine.pacing import room_left
from sync.engine.pauses import pause_of
from sync.errors import StateError
from sync.schedule import slot_due
from sync.sdk.nouns import Op
from sync.spans import Fact, Span
from sync.state.alerts import Alert
from sync.state.figures import Figures, figures
from sync.state.ledger import Ledger
from sync.telemetry.names import METRICS, MetricName
from sync.telemetry.vitals import Vitals

__all__ = ["Metrics"]

_KEPT_S = 5.0
"""Seconds for which figures of the ledger are good enough: asking more often costs nothing."""

_BROKEN = ("failed", "stopped", "cancelled")
_STATUSES = ("completed", "completed_with_errors", "held", *_BROKEN)
_OUTCOMES = ("applied", "accepted", "rejected", "deferred", "unknown")
_GAUGES = {one.name.removeprefix("headgate_"): one for one in METRICS if one.kind == "gauge"}


class Metrics:
    """The metrics of one daemon: a watcher of spans that makes a page.

    Labels name syncs, destinations, ops, outcomes, statuses and phases: as many series as there are of these,
    however many runs are made. `folder` is the state folder, `lease_ttl` in seconds.
    """

    def __init__(self, ledger: Ledger, folder: Path, vitals: Vitals, lease_ttl: float) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._made = {one.name: _made(one, self._registry) for one in METRICS if one.kind != "gauge"}
        self._gauges = _Gauges(ledger, folder, vitals, lease_ttl)
        self._registry.register(self._gauges)
        self._begun: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def page(self, accept: str = "") -> tuple[bytes, str]:
        """The page and its media type: OpenMetrics where the `Accept` header asks for it, else plain text."""
        with self._lock:
            self._begin(frozenset(self._gauges.jobs))
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type

    def ended(self, sync: str, status: str, seconds: float | None) -> None:
        """A run ended, `seconds` after it began."""
        self._made["headgate_runs"].labels(sync, status).inc()
        if seconds is not None:
            self._made["headgate_run_duration_seconds"].labels(sync).observe(seconds)

    def _begin(self, syncs: frozenset[str]) -> None:
        """Begin the counters of syncs at 0, for an increase is seen only after a first value; forget others."""
        for sync in syncs - self._begun:
            for status in _STATUSES:
                self._made["headgate_runs"].labels(sync, status)
            for op, outcome in product(Op, _OUTCOMES):
                self._made["headgate_changes"].labels(sync, op.value, outcome)
        for sync in self._begun - syncs:
            for one in METRICS:
                if one.kind != "gauge" and "sync" in one.labels:
                    self._made[one.name].remove_by_labels({"sync": sync})
        self._begun = syncs

    # --- as a watcher -------------------------------------------------------------------------------------

    def begins(self, span: Span) -> None:
        """Nothing is counted before its end."""

    def ends(self, span: Span) -> None:
        """Time phases and requests."""
        seconds = span.took / 1e9
        if span.kind == "phase":
            self._made["headgate_phase_duration_seconds"].labels(span.facts["phase"]).observe(seconds)
        elif span.kind == "request" and (destination := span.fact("destination")) is not None:
            self._made["headgate_request_duration_seconds"].labels(destination, _answer(span)).observe(seconds)

    def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
        """Count it."""
        if name == "changes":
            labels = (facts["sync"], facts["op"], facts["outcome"])
            self._made["headgate_changes"].labels(*labels).inc(float(facts["changes"]))
        elif span is not None and (destination := span.fact("destination")) is not None:
            counted = {"request": "headgate_requests", "retry": "headgate_retries"}.get(name)
            if counted is not None:
                self._made[counted].labels(destination).inc()


def _answer(span: Span) -> str:
    """`2xx` to `5xx`, or `none` where none came."""
    status = span.facts.get("status")
    return f"{int(status) // 100}xx" if status is not None else "none"


def _made(one: MetricName, registry: CollectorRegistry) -> Any:
    if one.kind == "histogram":
        return Histogram(one.name, one.help, one.labels, buckets=one.buckets, registry=registry)
    return Counter(one.name, one.help, one.labels, registry=registry)


class _Gauges(Collector):
    """Reads the gauges when the page is asked for, and not more often than every few seconds."""

    def __init__(self, ledger: Ledger, folder: Path, vitals: Vitals, lease_ttl: float) -> None:
        self._ledger, self._folder, self._vitals, self._ttl = ledger, folder, vitals, lease_ttl
        self._lock = threading.Lock()
        self._read: list[_Sample] = []
        self._read_at = float("-inf")

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """The names, without asking the ledger."""
        return [_family(one) for one in _GAUGES.values()]

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The figures of now."""
        families = {name: _family(one) for name, one in _GAUGES.items()}
        for name, labels, value in (*self._of_process(), *self._of_ledger()):
            families[name].add_metric(labels, value)
        return iter(families.values())

    @property
    def jobs(self) -> dict[str, SyncJob]:
        """The syncs that run, or would."""
        return {name: job for name, job in self._vitals.clock.jobs.items() if not job.sync.disabled}

    def _of_process(self) -> Iterator[_Sample]:
        clock = self._vitals.clock
        yield "build_info", (version("headgate"), python_version()), 1.0
        yield "last_turn_timestamp_seconds", (), time.time() - self._vitals.pulse.silent
        yield "last_tick_timestamp_seconds", (), clock.ticked
        yield "clock_late_seconds", (), clock.late
        yield "alert_last_look_timestamp_seconds", (), time.time() - self._vitals.looking.silent
        yield "files_refused", (), float(bool(clock.refused))
        for job in self.jobs.values():
            yield "sync_info", (job.name, job.destination, job.cohort.name, str(job.sync.mode)), 1.0
            if job.cohort.refresh.stale_after is not None:
                yield "freshness_limit_seconds", (job.name,), job.cohort.refresh.stale_after

    def _of_ledger(self) -> list[_Sample]:
        with self._lock:
            if time.monotonic() - self._read_at >= _KEPT_S:
                try:
                    jobs = self.jobs
                    now, known = figures(self._ledger)
                    self._read = [
                        ("ledger_readable", (), 1.0),
                        ("ledger_size_bytes", (), float(_size(self._ledger.path))),
                        *_queue(now, known),
                        *_syncs(now, known, jobs, self._ttl),
                        *_paused(self._ledger.paused(), jobs),
                        *_alerts(self._ledger.alerts()),
                        ("alert_messages_waiting", (), float(self._ledger.waiting_messages())),
                        *_rooms(self._folder, jobs.values()),
                    ]
                except StateError:
                    self._read = [("ledger_readable", (), 0.0)]
                self._read_at = time.monotonic()
            return self._read


_Sample = tuple[str, tuple[str, ...], float]


def _family(one: MetricName) -> GaugeMetricFamily:
    return GaugeMetricFamily(one.name, one.help, labels=one.labels)


def _size(path: Path) -> int:
    files = (path, path.with_name(f"{path.name}-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _queue(now: float, known: Mapping[str, Figures]) -> Iterator[_Sample]:
    asked = [one.asked_at for one in known.values() if one.asked_at is not None]
    yield "runs_in_progress", (), float(sum(one.runs for one in known.values()))
    yield "queue_depth", (), float(sum(one.waiting for one in known.values()))
    yield "queue_age_seconds", (), max(0.0, now - min(asked)) if asked else 0.0


def _syncs(now: float, known: Mapping[str, Figures], jobs: Mapping[str, SyncJob], ttl: float) -> Iterator[_Sample]:
    """Of the syncs in force; others are history."""
    for name, job in jobs.items():
        for figure, value in _of_sync(now, job, known.get(name, Figures()), ttl):
            if value is not None:
                yield figure, (name,), float(value)


def _of_sync(now: float, job: SyncJob, one: Figures, ttl: float) -> Iterator[tuple[str, float | None]]:
    """Figures that there are none of are left out: no value is not zero."""
    if job.sync.schedule is not None:
        due = slot_due(job.sync.schedule, job.name, one.slot) if one.slot else None
        yield "schedule_lag_seconds", max(0.0, now - due.timestamp()) if due is not None else 0.0
    yield "members", one.members
    yield "rejected_records", one.rejected
    yield "unknown_records", one.unknown
    yield "held_plans", one.held_plans
    yield "held_plan_age_seconds", _since(now, one.held_since) or 0.0
    yield "freshness_seconds", _since(now, one.newest)
    yield "last_run_timestamp_seconds", one.last_run
    yield "last_run_failed", float(one.last_status in _BROKEN or one.left_open) if one.last_status else None
    yield "last_success_timestamp_seconds", one.last_success
    if one.lease_left is not None and (one.runs or one.left_open):
        yield "lease_age_seconds", max(0.0, ttl - one.lease_left)


def _since(now: float, then: float | None) -> float | None:
    return None if then is None else max(0.0, now - then)


def _paused(paused: Mapping[str, str], jobs: Mapping[str, SyncJob]) -> Iterator[_Sample]:
    for name, job in jobs.items():
        yield "paused", (name,), float(pause_of(dict(paused), name, job.destination) is not None)


def _alerts(alerts: Iterable[Alert]) -> Iterator[_Sample]:
    for one in alerts:
        yield "alert_open", (one.subject, one.condition.value), float(one.open)


def _rooms(folder: Path, jobs: Iterable[SyncJob]) -> Iterator[_Sample]:
    """Of each destination's account that something was sent to since the machine started."""
    rates: dict[tuple[str, str], dict[Any, None]] = {}
    for job in jobs:
        rates.setdefault((job.destination, job.account), {}).update(dict.fromkeys(job.limits.rates))
    for (destination, account), its in rates.items():
        room = room_left(folder, account, its)
        if room is not None:
            for name, value in _of_room(room):
                yield name, (destination,), value


def _of_room(room: Room) -> Iterator[tuple[str, float]]:
    if room.windows:
        yield "rate_room_ratio", min(one.left / one.rate.requests for one in room.windows)
    yield "destination_paused_seconds", room.paused
    yield "breaker_open", float(room.down is not None)
