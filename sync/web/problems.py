"""Every refusal as a problem document (RFC 9457), with our code and how to fix it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from sync.codes import catalog
from sync.errors import DecisionError, HeadgateError, LeaseHeld, StateError, UsageError

__all__ = ["Problem", "Refused", "add_handlers", "answer", "body"]

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    type: str = Field(description="`urn:headgate:` and the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="`headgate explain CODE` has the long form.")
    fix: str = ""
    errors: list[str] = Field([], description="Each thing that does not fit, where there are several.")


class Refused(HeadgateError):
    """A request that is answered with this status and nothing else."""

    code = "HG804"

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        fix: str = "",
        errors: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, fix=fix)
        self.status, self.errors, self.headers = status, errors, headers


_OF_CODE = {"HG191": 404, "HG501": 404, "HG506": 403, "HG507": 403, "HG504": 422, "HG508": 422, "HG807": 422}


def status_of(error: HeadgateError) -> int:
    """The status that says the same: what the caller does next decides."""
    if isinstance(error, Refused):
        return error.status
    if error.code in _OF_CODE:
        return _OF_CODE[error.code]
    if isinstance(error, DecisionError | LeaseHeld):
        return 409
    return 422 if isinstance(error, UsageError) else 503 if isinstance(error, StateError) else 500


def body(status: int, code: str, detail: str, *, fix: str = "", errors: Sequence[str] = ()) -> bytes:
    """The document."""
    known = catalog().get(code)
    title = known.title if known is not None else "refused"
    problem: dict[str, Any] = {"type": f"urn:headgate:{code}", "title": title, "status": status, "detail": detail}
    return orjson.dumps({**problem, "code": code, "fix": fix, "errors": list(errors)})


def answer(error: HeadgateError) -> Response:
    """The document of an error of ours."""
    status, errors, headers = status_of(error), getattr(error, "errors", ()), getattr(error, "headers", None)
    content = body(status, error.code, error.message, fix=error.fix, errors=errors)
    return Response(content, status, headers, MEDIA_TYPE)


def add_handlers(app: FastAPI) -> None:
    """Have the app answer every error so."""
    app.add_exception_handler(HeadgateError, _ours)
    app.add_exception_handler(RequestValidationError, _unfit)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)  # the framework raises it again: the guard tells the log


def _ours(request: Request, error: Exception) -> Response:  # noqa: ARG001 - the framework's signature
    assert isinstance(error, HeadgateError)  # noqa: S101 - the framework passes no other
    return answer(error)


def _unfit(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """What does not fit, and where; never the value: it may be a secret or about a person."""
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
    return answer(Refused(422, "HG803", "the request does not fit", fix=_FIX, errors=errors))


_FIX = "the API's description is at /api/v1/openapi.json"
_UNKNOWN = {
    404: ("HG806", "there is nothing at this address"),
    405: ("HG806", "this address does not take this method"),
    408: ("HG803", "the rest of the request did not come"),
    413: ("HG808", "the body is too large"),
}


def _http(request: Request, error: Exception) -> Response:  # noqa: ARG001
    assert isinstance(error, HTTPException)  # noqa: S101
    code, message = _UNKNOWN.get(error.status_code, ("HG803", "the request cannot be read"))
    return answer(Refused(error.status_code, code, message, fix=_FIX, headers=error.headers))


def _bug(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Its words may hold anything: only its name is told."""
    return answer(Refused(500, "HG900", f"internal error: {type(error).__name__}"))
