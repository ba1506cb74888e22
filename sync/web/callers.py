"""Who calls: the token of a request, what it may do, and which syncs it may see."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.security.utils import get_authorization_scheme_param

from sync.engine.job import SyncJob
from sync.selection import Candidate, covers
from sync.state.access import Scope, Token
from sync.web.problems import Refused
from sync.web.site import Site

__all__ = [
    "Approves",
    "Authenticated",
    "Caller",
    "Failures",
    "Reads",
    "Runs",
    "SeesSamples",
    "let_in",
    "needs",
    "token_of",
    "turned_away",
]

log = structlog.get_logger("headgate.web")

_BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="`headgate token create` makes one.")
_FIX = "send a valid one: Authorization: Bearer hg_..."


class Failures:
    """Requests without a valid token or signature, by address: `most` at once, and one more every `each` seconds.

    Guessing one is hopeless at any speed; this keeps the log and the ledger quiet. Whoever has a valid token
    is let in all the same: an address may be that of a proxy.
    """

    _KEPT = 1024

    def __init__(self, most: int = 20, each: float = 3.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._each, self._clock = most, each, clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # when an address has used nothing of its room
        self._lock = threading.Lock()

    def count(self, address: str) -> float:
        """Count one; returns after how many seconds the next may come, 0 where it may at once."""
        with self._lock:
            now = self._clock()
            full = max(self._full_at.pop(address, now), now) + self._each
            self._full_at[address] = full = min(full, now + (self._most + 1) * self._each)
            while len(self._full_at) > self._KEPT:
                self._full_at.popitem(last=False)
            return max(0.0, full - now - self._most * self._each)


@dataclass(frozen=True, slots=True)
class Caller:
    """A token that was let in, and the site it may look at a part of."""

    token: Token
    site: Site

    @property
    def actor(self) -> str:
        """Its name in the audit log."""
        return self.token.actor

    def jobs(self) -> list[SyncJob]:
        """The syncs it may see, by name."""
        found = self.site.jobs()
        return [found[name] for name in sorted(found) if self._covers(found[name])]

    def job(self, name: str) -> SyncJob:
        """One of them. Raises `Refused`: the same for a sync that it may not see as for one that is not there."""
        job = self.site.jobs().get(name)
        if job is None or not self._covers(job):
            raise Refused(404, "HG806", "there is no such sync", fix="/api/v1/syncs has their names")
        return job

    @property
    def syncs(self) -> list[str] | None:
        """The names of the syncs of which it may see what is remembered.

        None is all, those too that are not in the project any more.
        """
        return [job.name for job in self.jobs()] if self.token.syncs else None

    def sees(self, name: str) -> bool:
        """May it see what is remembered of this sync."""
        return self.syncs is None or name in self.syncs

    def _covers(self, job: SyncJob) -> bool:
        return covers(self.token.syncs, Candidate(job.cohort, job.sync))


class Authenticated(APIRoute):
    """A route that knows the token before it reads the body: it waits for no word of a stranger's."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The framework's, with that before it."""
        handle = super().get_route_handler()

        async def known(request: Request) -> Response:
            request.state.token = await run_in_threadpool(token_of, request)
            return await handle(request)

        return known


def token_of(request: Request) -> Token:
    """The valid token of a request. Raises `Refused`."""
    site: Site = request.app.state.site
    scheme, given = get_authorization_scheme_param(request.headers.get("Authorization"))
    token = site.access.known(given) if scheme.lower() == "bearer" else None
    if token is None:
        refused = Refused(401, "HG804", "no valid token", fix=_FIX, headers={"WWW-Authenticate": "Bearer"})
        raise turned_away(request, refused, "token_refused")
    return token


def let_in(site: Site, token: Token, scope: Scope) -> Caller:
    """The caller, whose token has this scope. Raises `Refused`."""
    if scope not in token.scopes:
        raise Refused(403, "HG805", "the token may not do this", fix="make one with the scope it needs")
    return Caller(token, site)


def needs(scope: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    """What lets requests in whose token has this scope; for `fastapi.Depends`, in an `Authenticated` route."""

    async def caller(request: Request, _: Annotated[object, Depends(_BEARER)]) -> Caller:
        return let_in(request.app.state.site, request.state.token, scope)

    return caller


def turned_away(request: Request, refused: Refused, event: str, **told: str) -> Refused:
    """What to answer to a stranger: the refusal, which the log hears of, until there are too many of them."""
    failures: Failures = request.app.state.failures
    address = request.client.host if request.client is not None else ""
    wait = failures.count(address)
    if wait:
        headers = {"Retry-After": str(int(wait) + 1)}
        return Refused(429, "HG809", "too many requests that are refused", fix=refused.fix, headers=headers)
    log.warning(event, address=address, **told)
    return refused


Reads = Annotated[Caller, Depends(needs(Scope.READ))]
Runs = Annotated[Caller, Depends(needs(Scope.RUN))]
Approves = Annotated[Caller, Depends(needs(Scope.APPROVE))]
SeesSamples = Annotated[Caller, Depends(needs(Scope.SAMPLES))]
