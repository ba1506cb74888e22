"""What is wrong now, read from the ledger: so that runs of the command line count, and a crash loses nothing."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sync.alerts.deciding import Observed
from sync.alerts.routes import Routes, routes
from sync.conditions import Condition
from sync.daemon.slots import dealt_with
from sync.engine.guardrails import HOLDS
from sync.engine.job import SyncJob
from sync.engine.pauses import destination_name, pause_of
from sync.errors import AuthError, DecisionError, Fenced, LeaseHeld
from sync.mapping import Cohort
from sync.schedule import BY_ITSELF, blackout_of, slot_due, timing
from sync.settings import AlertingSettings
from sync.state.alerts import Alert
from sync.state.ledger import Ledger
from sync.state.nouns import Plan, PlanStatus, Refresh, RunRequest, RunStatus
from sync.state.refusal import Refusal

__all__ = ["FILES", "cohort_name", "observe"]

FILES = "project:files"
"""The subject of alerts of the project's files."""

_USUAL = 7  # accepted refreshes whose median is what is usual
_BAD = (RunStatus.FAILED, RunStatus.STOPPED)
_GOOD = (RunStatus.COMPLETED, RunStatus.COMPLETED_WITH_ERRORS)
_NOTHING_WRONG = {LeaseHeld.code, Fenced.code, "HG191", "HG193", "HG520", "HG525"}
"""Why there was no run, where that is no failure: somebody else does it, or it is not to be done."""


def cohort_name(cohort: str) -> str:
    """The subject of a cohort's alerts."""
    return f"cohort:{cohort}"


def observe(
    ledger: Ledger,
    jobs: Iterable[SyncJob],
    alerting: AlertingSettings,
    known: Sequence[Alert] = (),
    refusal: Refusal | None = None,
) -> list[Observed]:
    """Every condition that is open, and of those `known` that are not any more.

    A sync that is paused, or whose destination is, is not looked at: its alerts stay as they are. `refusal` is
    of a daemon that goes on with older files.
    """
    look = _Look(ledger, [job for job in jobs if not job.sync.disabled], alerting)
    seen = {(one.subject, one.condition): one for one in (look.files(refusal), *look.all())}
    for alert in known:
        here = (alert.subject, alert.condition)
        if here not in seen and (alert.open or alert.told) and not look.leaves(*here):
            seen[here] = Observed(alert.subject, alert.condition, False, {"gone": True})
    return list(seen.values())


class _Look:
    """One look at everything."""

    def __init__(self, ledger: Ledger, jobs: Sequence[SyncJob], alerting: AlertingSettings) -> None:
        self.ledger, self.alerting, self.now = ledger, alerting, ledger.now()
        paused = ledger.paused()
        self.jobs = [j for j in jobs if pause_of(paused, j.name, j.destination) is None]
        self.routes = {job.name: routes(alerting, job.sync) for job in self.jobs}
        self.requests = {job.name: ledger.newest_requests(job.name) for job in self.jobs}
        self.ends = {job.name: _ended(ledger, job.name, self.requests[job.name]) for job in self.jobs}
        self.resting = _subjects(jobs) - _subjects(self.jobs)  # what only paused syncs have to do with
        self.locked_out: frozenset[str] = frozenset()

    def leaves(self, subject: str, condition: Condition) -> bool:
        """Is nothing said of it, so that it stays as it is: runs that cannot get in show nothing of the rest."""
        return subject in self.resting or (condition is Condition.FAILED and subject in self.locked_out)

    def files(self, refusal: Refusal | None) -> Observed:
        """Those that were changed and are not fit to be in force."""
        of = [routes(self.alerting), *self.routes.values()]
        facts = {"problems": refusal.count} if refusal is not None else None
        return _observed(FILES, Condition.REFUSED, of, facts)

    def all(self) -> Iterator[Observed]:
        """Of every subject, its conditions: open or not."""
        for destination, jobs in _grouped(self.jobs, lambda job: job.destination).items():
            yield self._auth(destination, jobs)
        for job in self.jobs:
            if not self.leaves(job.name, Condition.FAILED):
                yield self._failed(job)
            yield self._held(job)
            yield self._rejected(job)
            yield self._late(job)
        for jobs in _grouped(self.jobs, lambda job: job.cohort.name).values():
            yield from self._cohort(jobs)

    def _seen(
        self, subject: str, condition: Condition, jobs: Sequence[SyncJob], facts: Mapping[str, Any] | None
    ) -> Observed:
        return _observed(subject, condition, [self.routes[job.name] for job in jobs], facts)

    def _of_sync(self, condition: Condition, job: SyncJob, facts: dict[str, Any] | None) -> Observed:
        names = {"title": job.cohort.title or job.cohort.name, "destination": job.destination}
        return self._seen(job.name, condition, [job], None if facts is None else names | facts)

    # --- destinations and runs --------------------------------------------------------------------------------

    def _auth(self, destination: str, jobs: Sequence[SyncJob]) -> Observed:
        """Locked out: since the last run that was, no run of another sync got through."""
        ends = {job.name: end for job in jobs if (end := self.ends[job.name]) is not None}
        out = {name: end.at for name, end in ends.items() if end.failed and end.code == AuthError.code}
        through = [end.at for end in ends.values() if end.through]
        facts = None
        if out and max(out.values()) > max(through, default=0.0):
            self.locked_out |= frozenset(out)
            facts = {"code": AuthError.code, "syncs": sorted(out)}
        return self._seen(destination_name(destination), Condition.AUTH, jobs, facts)

    def _failed(self, job: SyncJob) -> Observed:
        end, facts = self.ends[job.name], None
        if end is not None and end.failed:
            facts = {"run": end.run, "status": end.status, "code": end.code}
        return self._of_sync(Condition.FAILED, job, facts)

    def _late(self, job: SyncJob) -> Observed:
        """A run that was due, or asked for, too long ago: it did not begin, or not end. What fails is told so."""
        end, facts = self.ends[job.name], None
        if end is None or not end.failed:
            since = end.at if end is not None else 0.0
            requests = [r for r in self.requests[job.name] if _waits(r, since)]
            due = [_due(job, r, self.alerting.late_after) for r in requests]
            left = self.ledger.open_run(job.name)
            before = self.now - self.alerting.late_after
            due += [(left.started_at, True)] if left is not None else []
            due += [(at, False) for at in _overlooked(self.ledger, job, before) if at > since]
            late = [one for one in due if one[0] < before]
            facts = dict(zip(("due", "begun"), min(late), strict=True)) if late else None
        return self._of_sync(Condition.LATE, job, facts)

    # --- plans and records ------------------------------------------------------------------------------------

    def _held(self, job: SyncJob) -> Observed:
        """A plan that nobody decided on is held though it expired: the next run makes the like of it again."""
        plans = self.ledger.plans(job.name, PlanStatus.HELD, limit=1)
        seen = self._of_sync(Condition.HELD, job, _of_plan(plans[0]) if plans else None)
        return replace(seen, about=plans[0].id) if plans else seen

    def _rejected(self, job: SyncJob) -> Observed:
        refused, unknown = self.ledger.undelivered(job.name)
        count, facts = refused + unknown, None
        if count:
            members = self.ledger.generation(job.name).members
            share = 100 * count / max(1, members + count)
            if count > self.alerting.max_rejected or share > self.alerting.max_rejected_pct:
                facts = {"refused": refused, "unknown": unknown, "members": members}
        return self._of_sync(Condition.REJECTED, job, facts)

    # --- cohorts ----------------------------------------------------------------------------------------------

    def _cohort(self, jobs: Sequence[SyncJob]) -> Iterator[Observed]:
        """Of what the newest refresh saw, whichever sync made it."""
        cohort = jobs[0].cohort
        found = [r for job in jobs for r in self.ledger.refreshes(job.name, limit=1)]
        newest = max(found, key=lambda r: r.at, default=None)
        stale = drift = None
        if newest is not None:
            stale = _stale(cohort, newest)
            accepted = self.ledger.refreshes(newest.sync, accepted=True, limit=_USUAL)
            drift = _drift(cohort, newest, accepted)
        name, title = cohort_name(cohort.name), {"title": cohort.title or cohort.name}
        for condition, facts in ((Condition.STALE, stale), (Condition.DRIFT, drift)):
            yield self._seen(name, condition, jobs, None if facts is None else title | facts)


def _observed(
    subject: str, condition: Condition, of: Sequence[Routes], facts: Mapping[str, Any] | None
) -> Observed:
    return Observed(
        subject,
        condition,
        facts is not None,
        facts or {},
        frozenset().union(*(r[condition] for r in of)),
        frozenset().union(*(r[Condition.RECOVERED] for r in of)),
    )


def _grouped(jobs: Iterable[SyncJob], key: Any) -> dict[str, list[SyncJob]]:
    found: dict[str, list[SyncJob]] = {}
    for job in jobs:
        found.setdefault(key(job), []).append(job)
    return found


def _subjects(jobs: Iterable[SyncJob]) -> set[str]:
    return {
        subject for j in jobs for subject in (j.name, cohort_name(j.cohort.name), destination_name(j.destination))
    }


@dataclass(frozen=True, slots=True)
class _End:
    """How the newest run of a sync ended, or why it has not: then the next one goes on with it."""

    run: str
    status: str
    code: str
    at: float
    failed: bool
    through: bool  # did the destination take something


def _ended(ledger: Ledger, sync: str, requests: Sequence[RunRequest]) -> _End | None:
    left = ledger.open_run(sync)
    why = ledger.interruption(left.id) if left is not None and left.status is RunStatus.SENDING else None
    if left is not None and why is not None:
        return _End(left.id, "failed", *why, failed=True, through=False)
    run, (code, broken) = ledger.ended_run(sync), _broken(requests)
    at = (run.finished_at if run is not None else None) or 0.0
    if broken > at:
        return _End("", "failed", code, broken, failed=True, through=False)
    if run is None:
        return None
    through = run.status in _GOOD and any(run.counts.get(name) for name in ("applied", "accepted", "requests"))
    code = (run.error or {}).get("code", "")
    return _End(run.id, run.status.value, code, at, failed=run.status in _BAD, through=through)


def _broken(requests: Sequence[RunRequest]) -> tuple[str, float]:
    """Why and when the newest request was answered with a failure that left no run; 0 where it was not."""
    newest = max((r for r in requests if r.ended_at is not None), key=lambda r: r.ended_at or 0.0, default=None)
    report: Mapping[str, Any] = (newest.report if newest is not None else None) or {}
    code = str((report.get("error") or {}).get("code", ""))
    if newest is None or report.get("status") != "failed" or report.get("run") or not _is_failure(code):
        return "", 0.0
    return code, newest.ended_at or 0.0


def _is_failure(code: str) -> bool:
    return code not in _NOTHING_WRONG and not code.startswith(DecisionError.code[:-1])


def _waits(request: RunRequest, ended: float) -> bool:
    """Has nobody answered it, and did no run end since somebody took it."""
    return request.ended_at is None and (request.taken_at is None or request.taken_at > ended)


def _due(job: SyncJob, request: RunRequest, late_after: float) -> tuple[float, bool]:
    """When its run was due, jitter and blackout counted, and whether somebody took it.

    Where a blackout begins before it is late and somebody took it, it is due at the end.
    """
    schedule, asked = job.sync.schedule, datetime.fromtimestamp(request.at, UTC)
    at = slot_due(schedule, job.name, request.slot) or asked
    if schedule is not None and request.why in BY_ITSELF:
        blackout = blackout_of(schedule)
        at = blackout.over(at)
        late = at + timedelta(seconds=late_after)
        waited = request.taken_at is None or request.taken_at > late.timestamp()
        at = blackout.over(late) if waited and blackout.around(late) is not None else at
    return at.timestamp(), request.taken_at is not None


def _overlooked(ledger: Ledger, job: SyncJob, before: float) -> Iterator[float]:
    """When the newest slot was due that was due before then, where no daemon asked for it."""
    instant, schedule = datetime.fromtimestamp(before, UTC), job.sync.schedule
    trigger = timing(schedule, job.name) if schedule is not None else None
    since = dealt_with(ledger, job.name, instant) if trigger is not None else None
    if trigger is not None and since is not None and (slot := trigger.latest(since, instant)) is not None:
        yield trigger.due(slot).timestamp()


def _of_plan(plan: Plan) -> dict[str, Any]:
    c = plan.counts
    holding = [[v.guardrail, _number(v.value), _number(v.limit)] for v in plan.verdicts if v.answer in HOLDS]
    return {
        "plan": plan.id,
        "guardrails": holding,
        "add": c.add,
        "update": c.update,
        "remove": c.remove,
        "members": c.members,
        "needs": plan.needs,
        "expires": plan.expires_at,
    }


def _number(value: Any) -> float | int | None:
    """What a guardrail compared, where it is a number: its words may name columns and values."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _stale(cohort: Cohort, newest: Refresh) -> dict[str, Any] | None:
    """Was the source too old when it was looked at last: how old it is since then nobody knows."""
    limit = cohort.refresh.stale_after
    if limit is None or newest.newest is None or newest.at - newest.newest <= limit:
        return None
    return {"newest": newest.newest, "limit": limit}


def _drift(cohort: Cohort, newest: Refresh, accepted: Sequence[Refresh]) -> dict[str, Any] | None:
    """Outside of what the cohort expects; or, until somebody accepted it, far from what is usual."""
    rows, expected = newest.rows, cohort.expect
    low, high = expected.rows.min, expected.rows.max
    facts = {"rows": rows, "min": low, "max": high}
    if (low is not None and rows < low) or (high is not None and rows > high):
        return facts
    before = [r.rows for r in accepted if r.id != newest.id]
    if newest.accepted or not before:
        return None
    usual = statistics.median(before)
    moved = 100 * abs(rows - before[0]) / before[0] if before[0] else 0.0
    if rows < usual / 2 or (expected.drift_pct is not None and moved > expected.drift_pct):
        return facts | {"usual": round(usual)}
    return None
