"""Puts the served pages together, and describes the API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from sync.web import plans, runs, syncs, watch, webhooks
from sync.web.callers import Failures
from sync.web.guard import App, Guard
from sync.web.problems import MEDIA_TYPE, Problem, add_handlers
from sync.web.site import Site

__all__ = ["API", "describe", "guarded_app", "make_app"]

API = "/api/v1"

_ABOUT = """\
Look at syncs, runs and plans; ask for runs and plans; decide on held plans.

Every request needs a token (`headgate token create`): `Authorization: Bearer hg_...`. Every refusal is a problem \
document (RFC 9457) with a code that `headgate explain` knows.
"""


def make_app(site: Site) -> FastAPI:
    """The pages of a site, without their guard."""
    app = _app()
    app.state.site = site
    app.state.failures = Failures()
    return app


def guarded_app(site: Site) -> App:
    """The same behind its guard, as it is served."""
    return Guard(make_app(site), site.hosts)


def describe() -> dict[str, Any]:
    """The API's description (OpenAPI 3.1), as it is served."""
    return _app().openapi()


def _app() -> FastAPI:
    app = _Described(
        title="Headgate",
        version="1",
        description=_ABOUT,
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    add_handlers(app)
    app.include_router(watch.router)
    app.include_router(webhooks.router)
    refusal = {"model": Problem, "description": "Refused: a problem document."}
    for router in (syncs.router, runs.router, plans.router):
        app.include_router(router, prefix=API, responses={"default": refusal})
    return app


class _Described(FastAPI):
    """Describes refusals with the media type that they have."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            made = super().openapi()
            for operation in (one for path in made["paths"].values() for one in path.values()):
                content = operation["responses"]["default"]["content"]
                content[MEDIA_TYPE] = content.pop("application/json")
        return super().openapi()
