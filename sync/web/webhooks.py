"""Where dbt's platform tells that a job ended. No token is asked for: the body is signed."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request

from sync.secrets import SecretError
from sync.web.callers import turned_away
from sync.web.problems import Refused
from sync.web.site import Site

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

_CODES = {400: "HG803", 404: "HG806", 413: "HG808"}


async def _body(request: Request) -> bytes:
    return await request.body()


@router.post("/webhooks/{name}")
def receive(
    request: Request,
    name: Annotated[str, Path(max_length=80)],
    body: Annotated[bytes, Depends(_body)],
    authorization: Annotated[str, Header()] = "",
) -> dict[str, Any]:
    """Take an event, or say why not."""
    site: Site = request.app.state.site
    try:
        status, message, syncs = site.hear(name, authorization, body)
    except SecretError as error:  # where the secret should be is for the log, not for strangers
        refused = Refused(503, "HG816", "events cannot be judged now")
        raise turned_away(
            request, refused, "webhook_deaf", webhook=name, code=error.code, why=error.message
        ) from None
    if status == 401:
        raise turned_away(request, Refused(401, "HG814", message), "webhook_refused", webhook=name)
    if status != 200:
        raise Refused(status, _CODES[status], message)
    return {"message": message, "syncs": syncs}
