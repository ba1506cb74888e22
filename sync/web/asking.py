"""Asking the daemon for a run or a plan: a row in the ledger, which is also how an answer is waited for."""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated

from fastapi import Header, Response

from sync.engine.job import SyncJob
from sync.engine.pauses import refuse_paused
from sync.state.holder import alive
from sync.state.nouns import Event, RequestKind, RunRequest, RunStatus
from sync.web.callers import Caller
from sync.web.problems import Refused
from sync.web.shapes import RequestView

__all__ = ["IdempotencyKey", "ask", "view", "withdraw"]

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        max_length=200,
        pattern=r"^[!-~]*$",
        description="The same key within a day gives the same request, instead of asking once more.",
    ),
]


def ask(caller: Caller, job: SyncJob, kind: RequestKind, reason: str, key: str, response: Response) -> RequestView:
    """Ask for a run or a plan of a sync; what is disabled or paused is refused."""
    if job.sync.disabled:
        raise Refused(409, "HG193", "the sync is disabled in its mapping", fix="delete `disabled: true` there")
    refuse_paused(caller.site.state, job)
    made = new_request(caller, job.name, kind, "api")
    event = Event(caller.actor, f"{kind}.requested", job.name, {"request": made.slot, "reason": reason})
    digest = hashlib.sha256("\0".join((kind, job.name, reason)).encode()).hexdigest()
    kept = caller.site.access.ask(caller.token, made, event, key, digest)
    response.headers["Location"] = f"/api/v1/syncs/{kept.sync}/requests/{kept.slot}"
    return view(caller, kept)


def withdraw(caller: Caller, request: RunRequest, reason: str) -> RequestView:
    """End a request that nobody took yet; it stays withdrawn. Raises `Refused` where its run has begun."""
    report = {"sync": request.sync, "status": RunStatus.CANCELLED.value, "withdrawn": True, "exit_code": 1}
    event = Event(caller.actor, "request.withdrawn", request.sync, {"request": request.slot, "reason": reason})
    caller.site.state.withdraw(request.sync, request.slot, report, [event])
    kept = caller.site.state.request(request.sync, request.slot) or request
    if not (kept.report or {}).get("withdrawn"):
        fix = "wait for its report; a sync that is paused begins no other run"
        raise Refused(409, "HG817", "the run that was asked for has begun, or has ended", fix=fix)
    return view(caller, kept)


def new_request(caller: Caller, sync: str, kind: RequestKind, why: str) -> RunRequest:
    """A request that is not kept yet. Its name begins with a letter: it is no slot of a schedule."""
    return RunRequest(sync, f"api-{secrets.token_hex(8)}", why, caller.actor, caller.site.state.now(), kind=kind)


def view(caller: Caller, request: RunRequest) -> RequestView:
    """The request as it stands."""
    return RequestView.of(request, running=alive(caller.site.state.lease(request.sync)))
