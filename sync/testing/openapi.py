"""Checks a connector's requests, and a fake's answers, against the vendor's OpenAPI description.

Needs the package `openapi-core`, which Headgate itself does not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
from openapi_core import Config, OpenAPI
from openapi_core.templating.paths.exceptions import PathNotFound
from openapi_core.testing import MockRequest, MockResponse

__all__ = ["Checked", "Violation"]

App = Callable[[httpx.Request], httpx.Response]


class Violation(AssertionError):
    """A request or an answer is not what the vendor describes."""


class Checked(httpx.BaseTransport):
    """A transport that hands requests to `app` and judges both directions.

    `descriptions` are OpenAPI files in JSON; a request has to be in one of them. `authenticated` says whether a
    request carries its credentials: openapi-core does not look. With `closed`, objects of requests and of good
    answers may only have the properties that their schema names, so that a misspelt key is found. `seen` has the
    operations that were used, as `METHOD /path/template status`. Raises `Violation`.
    """

    def __init__(
        self,
        app: App,
        descriptions: Sequence[Path],
        *,
        authenticated: Callable[[httpx.Request], bool],
        closed: bool = True,
    ) -> None:
        self._app = app
        self._authenticated = authenticated
        self._descriptions = [_Description(path, closed) for path in descriptions]
        self.seen: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Judge the request, let the app answer, judge the answer."""
        request.read()
        if not self._authenticated(request):
            raise Violation(f"{request.method} {request.url.path}: the request carries no credentials")
        description = next((d for d in self._descriptions if d.knows(request)), None)
        if description is None:
            raise Violation(f"{request.method} {request.url.path}: no description has this operation")
        description.judge(request, description.request_errors(request))
        response = self._app(request)
        response.read()
        description.judge(request, description.response_errors(request, response), response)
        self.seen.add(f"{request.method} {description.template(request)} {response.status_code}")
        return response


class _Description:
    """One vendor description."""

    def __init__(self, path: Path, closed: bool) -> None:
        raw = _prepared(path)
        self._host = str(raw["servers"][0]["url"]).lower()  # httpx lower-cases hosts
        self._paths = [(p, {m.upper() for m in methods}) for p, methods in raw["paths"].items()]
        self._open = self._api = _load(raw)
        if closed:
            _close(raw)
            self._api = _load(raw)

    def knows(self, request: httpx.Request) -> bool:
        """Whether it has the operation."""
        return self.template(request) is not None

    def template(self, request: httpx.Request) -> str | None:
        """The path template of a request; one without parameters wins."""
        fits = [p for p, methods in self._paths if request.method in methods and _fits(p, request.url.path)]
        return min(fits, key=lambda p: p.count("{"), default=None)

    def request_errors(self, request: httpx.Request) -> Iterator[Exception]:
        """What is wrong with the request."""
        return self._api.iter_request_errors(self._request(request))

    def response_errors(self, request: httpx.Request, response: httpx.Response) -> Iterator[Exception]:
        """What is wrong with the answer."""
        answer = MockResponse(
            response.content,
            response.status_code,
            dict(response.headers),
            _media_type(response.headers),
        )
        api = self._open if response.is_error else self._api  # errors say more than is described
        return api.iter_response_errors(self._request(request), answer)

    def judge(
        self, request: httpx.Request, errors: Iterable[Exception], response: httpx.Response | None = None
    ) -> None:
        """Raise `Violation` with every error, the useful words first."""
        words = [text for error in errors if not isinstance(error, PathNotFound) for text in _words(error)]
        if words:
            whose = "request" if response is None else f"answer {response.status_code}"
            raise Violation(f"{request.method} {request.url.path}: {whose}: " + "; ".join(words))

    def _request(self, request: httpx.Request) -> MockRequest:
        return MockRequest(
            self._host,
            request.method,
            request.url.path,
            args=dict(request.url.params),
            headers=dict(request.headers),
            data=request.content,
            content_type=_media_type(request.headers),
        )


def _media_type(headers: httpx.Headers) -> str:
    return str(headers.get("content-type", "")).partition(";")[0]


def _fits(template: str, path: str) -> bool:
    ours, theirs = template.split("/"), path.split("/")
    return len(ours) == len(theirs) and all(a.startswith("{") or a == b for a, b in zip(ours, theirs, strict=True))


def _words(error: BaseException) -> list[str]:
    """The messages of the schema errors at the end of the cause chain, or the error's own."""
    cause: BaseException | None = error
    while cause is not None:
        if found := [str(one.message) for one in getattr(cause, "schema_errors", ())]:
            return found
        cause = cause.__cause__ or cause.__context__
    return [str(error)]


def _prepared(path: Path) -> dict[str, Any]:
    """The description, mended where openapi-core falls short.

    It warns of security schemes it does not know, and passes them (`authenticated` judges instead); and it does
    not read JSON of the media type `*/*`.
    """
    raw: dict[str, Any] = json.loads(path.read_bytes().replace(b'"*/*"', b'"application/json"'))
    operations = [one for methods in raw["paths"].values() for one in methods.values() if isinstance(one, dict)]
    for part in (raw, *operations):
        part.pop("security", None)
    return raw


def _load(raw: dict[str, Any]) -> OpenAPI:
    return OpenAPI.from_dict(copy.deepcopy(raw), config=Config(spec_validator_cls=None))


def _close(schema: Any) -> None:
    """Let objects have only the properties they name; those made of several schemas stay open."""
    for inner in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(inner, dict | list):
            _close(inner)
    if not isinstance(schema, dict) or schema.get("type") != "object" or not schema.get("properties"):
        return
    if not schema.keys() & {"allOf", "anyOf", "oneOf", "additionalProperties"}:
        schema["additionalProperties"] = False
