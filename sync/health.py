"""The two badges of a sync, health and activity, with the reasons behind them; it only looks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sync.durations import format_duration
from sync.engine.pauses import pause_of
from sync.mapping import Cohort, Sync
from sync.schedule import next_runs, words
from sync.state.base import StateReader
from sync.state.erasures import ErasureState
from sync.state.holder import alive
from sync.state.log_mark import NOTE, LogMark
from sync.state.nouns import PlanStatus, Refresh, Run, RunStatus, Verdict, VerdictAnswer
from sync.state.stuck_mark import NOTE as STUCK
from sync.state.stuck_mark import StuckMark

__all__ = ["Activity", "Health", "Standing", "standing"]


class Health(StrEnum):
    """Does the sync keep its promise; from grave to well in `standing`'s order."""

    DISABLED = "disabled"
    FAILING = "failing"
    HELD = "held"
    STALE = "stale"
    WARNING = "warning"
    HEALTHY = "healthy"


class Activity(StrEnum):
    """What the sync does right now."""

    RUNNING = "running"
    WAITING = "waiting"  # a run is asked for, or the platform has not finished its job
    PAUSED = "paused"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class Standing:
    """A sync at a glance. Times are seconds since the epoch; `freshness` is the source's age in seconds."""

    sync: str
    health: Health
    reasons: tuple[str, ...]
    activity: Activity
    last_run: Run | None
    next_runs: tuple[float, ...]
    freshness: float | None
    stale_after: float | None
    members: int
    rejected: int
    held_plan: str | None
    paused: str | None = None  # why, where it or its destination is
    schedule: str = "on request"  # what makes it run, in words


def standing(state: StateReader, cohort: Cohort, sync: Sync) -> Standing:
    """Read a sync's badges and figures from the ledger."""
    now = state.now()
    runs = state.runs(sync.name, limit=1)
    last = runs[0] if runs else None
    plans = [p for p in state.plans(sync.name, PlanStatus.HELD, limit=1) if p.expires_at > now]
    refreshes = state.refreshes(sync.name, limit=1)
    freshness = now - _newest(refreshes[0]) if refreshes else None
    rejected, dirty = state.undelivered(sync.name)
    activity = _activity(state, sync)
    health, reasons = _health(sync, cohort, last, plans[0].verdicts if plans else None, freshness, rejected, dirty)
    leaving = len(state.erasure_parts(ErasureState.QUEUED, sync=sync.name))
    if leaving and health is not Health.DISABLED:
        who = "a forgotten person is" if leaving == 1 else f"{leaving:,} forgotten people are"
        health, reasons = max(health, Health.WARNING, key=_gravity), [*reasons, f"{who} still to be removed"]
    log = LogMark.read(state.note(sync.name, NOTE))
    if log.failed and health is not Health.DISABLED:
        why = f"the sync log has not been up to date for {format_duration(now - log.since)}: {log.failed}"
        health, reasons = max(health, Health.WARNING, key=_gravity), [*reasons, why]
    pause = pause_of(state.paused(), sync.name, sync.destination)
    if pause is not None and health is not Health.DISABLED:
        health, reasons = (
            max(health, Health.WARNING, key=_gravity),
            [*reasons, f"{pause[0]} is paused: {pause[1]}"],
        )
    stuck = _stuck(state, sync.name, now)
    if stuck and health is not Health.DISABLED:
        health, reasons = Health.FAILING, [stuck, *reasons]
    halted = activity in (Activity.WAITING, Activity.PAUSED)
    interrupted = state.open_run(sync.name) if halted else None
    if interrupted is not None and interrupted.status is not RunStatus.WAITING and health is not Health.DISABLED:
        health, reasons = Health.FAILING, ["a run was interrupted, and the next one goes on with it", *reasons]
    due = (
        next_runs(sync.schedule, now, name=sync.name)
        if activity is not Activity.PAUSED and not sync.disabled
        else []
    )
    return Standing(
        sync=sync.name,
        health=health,
        reasons=tuple(reasons),
        activity=activity,
        last_run=last,
        next_runs=tuple(due),
        freshness=freshness,
        stale_after=cohort.refresh.stale_after,
        members=state.generation(sync.name).members,
        rejected=rejected,
        held_plan=plans[0].id if plans else None,
        paused=None if pause is None else pause[1],
        schedule=words(sync.schedule),
    )


def _stuck(state: StateReader, sync: str, now: float) -> str:
    """What is said of a run under way that shows no sign of life; empty where there is none."""
    mark, lease = StuckMark.read(state.note(sync, STUCK)), state.lease(sync)
    if mark is None or lease is None or mark.epoch != lease.epoch or not alive(lease):
        return ""
    where = f" (step: {mark.step})" if mark.step else ""
    return f"the run has shown no sign of life for {format_duration(now - mark.since)}{where}"


def _gravity(health: Health) -> int:
    return -list(Health).index(health)


def _newest(refresh: Refresh) -> float:
    return refresh.newest if refresh.newest is not None else refresh.at


def _activity(state: StateReader, sync: Sync) -> Activity:
    if alive(state.lease(sync.name)):
        return Activity.RUNNING
    if pause_of(state.paused(), sync.name, sync.destination) is not None:
        return Activity.PAUSED
    if state.open_run(sync.name) is not None or state.requests(sync.name):
        return Activity.WAITING
    return Activity.IDLE


def _health(
    sync: Sync,
    cohort: Cohort,
    last: Run | None,
    held: tuple[Verdict, ...] | None,
    freshness: float | None,
    rejected: int,
    dirty: int,
) -> tuple[Health, list[str]]:
    """The gravest badge and every reason for one, gravest first."""
    if sync.disabled:
        return Health.DISABLED, ["disabled in its mapping"]
    found: list[tuple[Health, str]] = []
    if last is not None and last.status in (RunStatus.FAILED, RunStatus.STOPPED, RunStatus.CANCELLED):
        code = f" ({last.error['code']})" if last.error and last.error.get("code") else ""
        found.append((Health.FAILING, f"the last run {_ENDED[last.status]}{code}"))
    if held is not None:
        found.append((Health.HELD, f"a plan waits for a decision: {_guardrails(held)}"))
    limit = cohort.refresh.stale_after
    if limit is not None and freshness is not None and freshness > limit:
        age, most = format_duration(freshness), format_duration(limit)
        found.append((Health.STALE, f"the source is {age} old, its limit is {most}"))
    if last is None:
        found.append((Health.WARNING, "it has never run"))
    if rejected:
        found.append((Health.WARNING, f"{rejected:,} rejected records"))
    if dirty:
        found.append((Health.WARNING, f"{dirty:,} records whose outcome is unknown"))
    if not found and last is not None and last.status is RunStatus.COMPLETED_WITH_ERRORS:
        found.append((Health.WARNING, "the last run did not deliver every record"))
    found.sort(key=lambda item: -_gravity(item[0]))
    return (found[0][0], [reason for _, reason in found]) if found else (Health.HEALTHY, [])


_ENDED = {RunStatus.FAILED: "failed", RunStatus.STOPPED: "was stopped", RunStatus.CANCELLED: "was cancelled"}


def _guardrails(verdicts: tuple[Verdict, ...]) -> str:
    holds = (VerdictAnswer.HOLD, VerdictAnswer.HOLD_REMOVALS)
    return ", ".join(v.guardrail for v in verdicts if v.answer in holds) or "held"
