"""`/runs`: what ran, and what became of it."""

from __future__ import annotations

from fastapi import APIRouter

from sync.state.nouns import Run
from sync.web.callers import Authenticated, Reads
from sync.web.pages import page
from sync.web.problems import Refused
from sync.web.shapes import Cursor, Id, Limit, RunPage, RunView, SyncFilter

__all__ = ["router"]

router = APIRouter(prefix="/runs", tags=["runs"], route_class=Authenticated)


@router.get("", summary="List runs")
def list_runs(caller: Reads, sync: SyncFilter = None, limit: Limit = 50, before: Cursor = None) -> RunPage:
    """Newest first."""

    def some(count: int) -> list[Run]:
        return caller.site.state.runs(sync, among=caller.syncs, limit=count, before=before)

    found, following = page(some, limit)
    return RunPage(items=[RunView.of(run) for run in found], next=following)


@router.get("/{id}", summary="One run")
def get_run(caller: Reads, id: Id) -> RunView:
    """Its status and counts."""
    run = caller.site.state.run(id)
    if run is None or not caller.sees(run.sync):
        raise Refused(404, "HG806", "there is no such run")
    return RunView.of(run)
