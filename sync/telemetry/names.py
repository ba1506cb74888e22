"""Every metric there is: its name, kind, labels and meaning, for the page, its reference and its tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["METRICS", "MetricName"]


@dataclass(frozen=True, slots=True)
class MetricName:
    """One metric. Counters are named without `_total`, which the page adds."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def full(self) -> str:
        """Its name on the page."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, help: str, *labels: str) -> MetricName:
    return MetricName(f"headgate_{name}", "counter", help, labels)


def _gauge(name: str, help: str, *labels: str) -> MetricName:
    return MetricName(f"headgate_{name}", "gauge", help, labels)


def _histogram(name: str, help: str, buckets: tuple[float, ...], *labels: str) -> MetricName:
    return MetricName(f"headgate_{name}", "histogram", help, labels, buckets)


_RUN_S = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0)
_PHASE_S = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
_REQUEST_S = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

METRICS: tuple[MetricName, ...] = (
    # What this process did since it started.
    _counter("runs", "Runs that this daemon made, by how they ended.", "sync", "status"),
    _counter("changes", "Changes with an outcome, by op and outcome.", "sync", "op", "outcome"),
    _counter("requests", "Requests that left for a destination.", "destination"),
    _counter("retries", "Batches that were tried again.", "destination"),
    _histogram("run_duration_seconds", "How long runs took.", _RUN_S, "sync"),
    _histogram("phase_duration_seconds", "How long the phases of runs took.", _PHASE_S, "phase"),
    _histogram(
        "request_duration_seconds",
        "How long requests took, without the wait for their turn, by destination and answer (2xx, 4xx, none...).",
        _REQUEST_S,
        "destination",
        "answer",
    ),
    # What the daemon is.
    _gauge("build_info", "1; the version is in the labels.", "version", "python"),
    _gauge("sync_info", "1 for each sync that is in force; what it is, is in the labels.", "sync", "destination",
           "cohort", "mode"),
    _gauge("last_turn_timestamp_seconds", "When the daemon's main loop last turned."),
    _gauge("last_tick_timestamp_seconds", "When the clock last found that a sync is due; 0 before the first."),
    _gauge("clock_late_seconds", "For how long the clock should have ticked and has not."),
    _gauge("files_refused", "1 while changed files are refused and older ones are in force."),
    # What the ledger says.
    _gauge("ledger_readable", "1 where the ledger could be read for this page; else its figures are missing."),
    _gauge("ledger_size_bytes", "Size of the ledger with its write-ahead log."),
    _gauge("runs_in_progress", "Syncs that run now, in whatever process."),
    _gauge("queue_depth", "Run requests that nobody has taken."),
    _gauge("queue_age_seconds", "Age of the oldest of them."),
    _gauge("schedule_lag_seconds", "For how long a scheduled run has been due and has not begun: jitter and "
           "blackout do not count.", "sync"),
    _gauge("members", "Members that the destination acknowledged.", "sync"),
    _gauge("rejected_records", "Rejected records that nobody has given up.", "sync"),
    _gauge("unknown_records", "Records whose outcome at the destination nobody knows.", "sync"),
    _gauge("held_plans", "Plans that wait for a decision.", "sync"),
    _gauge("held_plan_age_seconds", "For how long the oldest of them has waited.", "sync"),
    _gauge("freshness_seconds", "Age of the newest row that was seen in the cohort.", "sync"),
    _gauge("freshness_limit_seconds", "The age from which on the cohort is stale, where its mapping has one.",
           "sync"),
    _gauge("last_run_timestamp_seconds", "When the newest run ended, or began where it has not ended.", "sync"),
    _gauge("last_run_failed", "1 where the newest run failed, was stopped, was cancelled or was left unfinished.",
           "sync"),
    _gauge("last_success_timestamp_seconds", "When a run last completed.", "sync"),
    _gauge("paused", "1 where the sync or its destination is paused.", "sync"),
    _gauge("lease_age_seconds", "Since when the lease of a run that has not ended was not renewed.", "sync"),
    _gauge("alert_open", "1 while a condition of a sync, cohort:NAME or destination:NAME "
           "that people are told of is true.", "subject", "condition"),
    _gauge("alert_messages_waiting", "Messages that no notifier took yet."),
    _gauge("alert_last_look_timestamp_seconds", "When it was last looked what people are to be told of."),
    # What destinations have room for.
    _gauge("rate_room_ratio", "Share of an account's tightest rate that is left: 1 all of it, 0 nothing.",
           "destination"),
    _gauge("destination_paused_seconds", "For how long the destination asked to be left alone.", "destination"),
    _gauge("breaker_open", "1 while a destination does not answer and only probes leave.", "destination"),
)  # fmt: skip
