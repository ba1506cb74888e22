"""Puts the served pages together."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel

from sync.web.guard import App, Guard
from sync.web.problems import Problem, add_handlers
from sync.web.site import Site

__all__ = ["API", "guarded_app", "make_app"]

API = "/api/v1"


class Alive(BaseModel):
    """The process answers."""

    status: str = "ok"


def make_app(site: Site) -> FastAPI:
    """The pages of a site, without their guard."""
    app = FastAPI(
        title="Headgate",
        version="1",
        description="The API of the Headgate daemon.",
        openapi_url=f"{API}/openapi.json",
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        responses={"default": {"model": Problem, "description": "Refused."}},
    )
    app.state.site = site
    add_handlers(app)
    app.include_router(_health())
    return app


def guarded_app(site: Site) -> App:
    """The same behind its guard, as it is served."""
    return Guard(make_app(site), site.hosts)


def _health() -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/healthz", summary="Is the process alive")
    def healthz() -> Alive:
        return Alive()

    return router
