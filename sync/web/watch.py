"""`/healthz`, `/readyz` and `/metrics`: what probes and Prometheus ask a daemon."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.responses import JSONResponse

from sync.state.access import Scope
from sync.telemetry.vitals import answer
from sync.web.callers import let_in, token_of
from sync.web.problems import Refused
from sync.web.site import Site

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


def _site(request: Request) -> Site:
    site: Site = request.app.state.site
    return site


def _scraped(request: Request) -> Site:
    """The site whose metrics the caller may read: they are about all syncs."""
    site = _site(request)
    if not site.open_metrics and let_in(site, token_of(request), Scope.READ).token.syncs:
        raise Refused(403, "HG805", "metrics are about all syncs, and the token is for some", fix=_FIX)
    return site


_FIX = "make one that is not limited to syncs: headgate token create prometheus --scope read"


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """Is the process worth keeping. Without a token: it tells nothing but that.

    It reads and writes nothing and takes no thread, so that nothing that hangs keeps it waiting.
    """
    site = _site(request)
    status, document = answer(site.vitals.alive() if site.vitals is not None else [])
    return JSONResponse(document, status)


@router.get("/readyz")
def readyz(site: Annotated[Site, Depends(_site)]) -> Response:
    """Does the daemon do its work. Without a token: reasons are codes and times, and name nothing."""
    status, document = answer(site.vitals.ready() if site.vitals is not None else [])
    return JSONResponse(document, status)


@router.get("/metrics")
def metrics(site: Annotated[Site, Depends(_scraped)], accept: Annotated[str, Header()] = "") -> Response:
    """The page for Prometheus."""
    if site.metrics is None:
        raise Refused(404, "HG806", "nobody counts here")
    content, media_type = site.metrics.page(accept)
    return Response(content, headers={"content-type": media_type})
