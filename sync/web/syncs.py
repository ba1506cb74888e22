"""`/syncs`: what each one does and how it is; asking for runs and plans of it; pausing it."""

from __future__ import annotations

from collections import Counter

from fastapi import APIRouter, Response

from sync.engine.job import SyncJob
from sync.health import standing
from sync.state.nouns import Event, RequestKind, RunRequest
from sync.web.asking import IdempotencyKey, ask, view, withdraw
from sync.web.callers import Authenticated, Caller, Reads, Runs
from sync.web.problems import Refused
from sync.web.shapes import (
    Asked,
    Cursor,
    Id,
    Limit,
    PausedView,
    RejectedCount,
    RejectedView,
    RequestView,
    SyncName,
    SyncPage,
    SyncView,
    WithReason,
)

__all__ = ["router"]

router = APIRouter(prefix="/syncs", tags=["syncs"], route_class=Authenticated)


@router.get("", summary="List syncs")
def list_syncs(caller: Reads, limit: Limit = 50, after: Cursor = None) -> SyncPage:
    """Every sync that the token may see, by name, with its badges and figures."""
    jobs = [job for job in caller.jobs() if after is None or job.name > after]
    items = [_view(caller, job) for job in jobs[:limit]]
    return SyncPage(items=items, next=jobs[limit - 1].name if len(jobs) > limit else None)


@router.get("/{sync}", summary="One sync")
def get_sync(caller: Reads, sync: SyncName) -> SyncView:
    """Its badges and figures."""
    return _view(caller, caller.job(sync))


@router.post("/{sync}/runs", status_code=202, summary="Ask for a run")
def ask_for_run(
    caller: Runs, sync: SyncName, response: Response, asked: Asked | None = None, key: IdempotencyKey = ""
) -> RequestView:
    """The daemon plans, and delivers or holds. Poll the request, at `Location`, until it has ended."""
    reason = asked.reason if asked is not None else ""
    return ask(caller, caller.job(sync), RequestKind.RUN, reason, key, response)


@router.post("/{sync}/plans", status_code=202, summary="Ask for a plan")
def ask_for_plan(
    caller: Runs, sync: SyncName, response: Response, asked: Asked | None = None, key: IdempotencyKey = ""
) -> RequestView:
    """The daemon makes a plan and sends nothing. Poll the request, at `Location`, until it has ended."""
    reason = asked.reason if asked is not None else ""
    return ask(caller, caller.job(sync), RequestKind.PLAN, reason, key, response)


@router.get("/{sync}/requests/{id}", summary="What became of a request")
def get_request(caller: Reads, sync: SyncName, id: Id) -> RequestView:
    """Where it stands, and the report once it has ended."""
    return view(caller, _request(caller, sync, id))


@router.post("/{sync}/requests/{id}/withdraw", summary="Withdraw a request")
def withdraw_request(caller: Runs, sync: SyncName, id: Id, asked: Asked | None = None) -> RequestView:
    """It has ended then, and no run is made for it. Refused once its run has begun."""
    return withdraw(caller, _request(caller, sync, id), asked.reason if asked is not None else "")


@router.post("/{sync}/pause", summary="Pause a sync")
def pause_sync(caller: Runs, sync: SyncName, asked: WithReason) -> PausedView:
    """What is in flight is finished; nothing new is sent until it is resumed."""
    name, event = caller.job(sync).name, {"reason": asked.reason}
    caller.site.state.pause(name, asked.reason, [Event(caller.actor, "sync.paused", name, event)])
    return PausedView(sync=name, paused=asked.reason)


@router.post("/{sync}/resume", summary="Let a paused sync run again")
def resume_sync(caller: Runs, sync: SyncName, asked: WithReason) -> PausedView:
    """A destination that is paused keeps its syncs paused."""
    name, paused = caller.job(sync).name, caller.site.state.paused()
    if name in paused:
        data = {"was": paused[name], "reason": asked.reason}
        caller.site.state.pause(name, None, [Event(caller.actor, "sync.resumed", name, data)])
    return PausedView(sync=name, paused=_view(caller, caller.job(sync)).paused)


@router.get("/{sync}/rejected", summary="Count rejected records")
def count_rejected(caller: Reads, sync: SyncName) -> RejectedView:
    """How many wait to be sent again, by kind. What a destination said of them is for `headgate rejected`."""
    found = caller.site.state.rejected(caller.job(sync).name)
    waiting = [record for record in found if record.given_up_at is None]
    groups = Counter((record.code, record.op) for record in waiting)
    return RejectedView(
        sync=sync,
        count=len(waiting),
        given_up=len(found) - len(waiting),
        groups=[RejectedCount(code=code, op=op, count=n) for (code, op), n in sorted(groups.items())],
    )


def _request(caller: Caller, sync: str, id: str) -> RunRequest:
    request = caller.site.state.request(sync, id) if caller.sees(sync) else None
    if request is None:
        raise Refused(404, "HG806", "there is no such request")
    return request


def _view(caller: Caller, job: SyncJob) -> SyncView:
    return SyncView.of(standing(caller.site.state, job.cohort, job.sync))
