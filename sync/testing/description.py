"""One OpenAPI description: which operation a request is, and what is wrong with a request or an answer.

openapi-core validates; what it leaves out is mended: security is left to the caller, every JSON media type is read
as JSON, hosts do not matter, and each pair of an operation and a media type becomes a path of its own, so that no
template is ambiguous. Each description is read once in a process.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlsplit

import httpx

from sync.testing.document import METHODS, followed, read
from sync.testing.strays import Schema, strays, thinned

if TYPE_CHECKING:
    from openapi_core import OpenAPI

__all__ = ["Description", "Found", "Operation", "load"]

_UNDECLARED = {"accept", "content-type", "authorization"}  # OpenAPI, "Parameter Object": to be ignored
_HOST = "https://described.invalid"
_LONGEST = 300  # characters of a message


@dataclass(frozen=True)
class Operation:
    """One method of one path. `media` has its request's media types as described, parameters and all."""

    method: str
    template: str
    id: str
    raw: Schema
    pattern: re.Pattern[str]
    names: tuple[str, ...]
    media: tuple[str, ...]
    path: str = field(compare=False)

    @property
    def parameters(self) -> list[Schema]:
        """Its parameters, those of the path included."""
        return list(self.raw["parameters"])

    def named(self, where: str) -> dict[str, Schema]:
        """The parameters in `query`, `header` or `path`, by name."""
        return {p["name"]: p for p in self.parameters if p["in"] == where}


@dataclass(frozen=True)
class Found:
    """An operation, and the media type of it that a request's body has; None: no body, or an undescribed one."""

    operation: Operation
    values: tuple[str, ...]
    media: str | None

    @property
    def path(self) -> str:
        """Where openapi-core finds it."""
        number = self.operation.media.index(self.media) if self.media else 0
        return "".join([f"{self.operation.path}m{number}", *(f"/{quote(v, safe='')}" for v in self.values)])


class Description:
    """A vendor's description, mended."""

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.operations = list(_operations(raw))
        self._api = _api(raw, self.operations)

    def find(self, request: httpx.Request) -> Found | None:
        """The operation of a request, by method and path; the template with fewest parameters wins."""
        path = request.url.raw_path.decode("ascii").partition("?")[0]
        fits = [(o, m) for o in self.operations if o.method == request.method and (m := o.pattern.fullmatch(path))]
        if not fits:
            return None
        operation, match = min(fits, key=lambda one: (len(one[0].names), -len(one[0].template)))
        media = _media(request.headers.get("content-type", ""), operation.media) if request.content else None
        return Found(operation, tuple(map(unquote, match.groups())), media)

    def schema(self, found: Found) -> Schema | None:
        """The schema of the request's body, if it is JSON."""
        content = found.operation.raw.get("requestBody", {}).get("content", {})
        return content[found.media].get("schema") if found.media and _is_json(found.media) else None

    def request_faults(self, request: httpx.Request, found: Found, *, closed: bool) -> Iterator[str]:
        """What is wrong with a request, in words."""
        yield from _header_faults(request, found.operation)
        if request.content and found.media is None:
            kinds = ", ".join(found.operation.media)
            said = f"one of {kinds}" if kinds else "no body at all"
            yield f"a body of {request.headers.get('content-type', 'no media type')}, where {said} is described"
            return
        if closed:
            described = {name.partition("[")[0] for name in found.operation.named("query")}
            unknown = {
                name for name, _ in request.url.params.multi_items() if name.partition("[")[0] not in described
            }
            yield from (f"no query parameter `{name}` is described" for name in sorted(unknown))
        content, schema = request.content, self.schema(found)
        if content and schema is not None:
            body, fault = _json(content)
            if fault:
                yield fault
                return
            if closed:
                yield from strays(self.raw, schema, body)
            content = json.dumps(thinned(body)).encode() if len(content) > 10_000 else content
        yield from _words(self._api.iter_request_errors(_mock_request(request, found, content)))

    def answer_faults(
        self, request: httpx.Request, found: Found, response: httpx.Response, *, closed: bool
    ) -> Iterator[str]:
        """What is wrong with an answer, in words; errors may say more than is described, or be undescribed."""
        described = _answer(found.operation, response.status_code)
        if described is None:
            if not response.is_error:
                yield f"status {response.status_code} is not described"
            return
        content = described.get("content") or {}
        media = _media(response.headers.get("content-type", ""), tuple(content)) if response.content else None
        if response.content and content and media is None:
            yield f"{response.headers.get('content-type')} is not among {', '.join(content)}"
            return
        body = response.content
        if body and media and _is_json(media):
            value, fault = _json(body)
            if fault:
                yield fault
                return
            if closed and not response.is_error and (schema := content[media].get("schema")) is not None:
                yield from strays(self.raw, schema, value)
            body = json.dumps(thinned(value)).encode() if len(body) > 10_000 else body
        if not body or media is None:
            return
        yield from _words(
            self._api.iter_response_errors(
                _mock_request(request, found, b""), _mock_response(response, body, media)
            )
        )


def _header_faults(request: httpx.Request, operation: Operation) -> Iterator[str]:
    """Required headers that are not there: openapi-core takes one with a default for present."""
    for name, parameter in operation.named("header").items():
        if parameter.get("required") and name not in request.headers:
            yield f"the required header `{name}` is missing"


def _mock_request(request: httpx.Request, found: Found, content: bytes) -> Any:
    from openapi_core.testing import MockRequest
    from werkzeug.datastructures import ImmutableMultiDict

    made = MockRequest(
        _HOST,
        request.method,
        found.path,
        headers=dict(request.headers),
        data=content,
        content_type="application/json",
    )
    made.content_type = _plain(found.media) if found.media else "application/json"
    made.parameters.query = ImmutableMultiDict(request.url.params.multi_items())
    return made


def _mock_response(response: httpx.Response, body: bytes, media: str) -> Any:
    from openapi_core.testing import MockResponse

    return MockResponse(body, response.status_code, dict(response.headers), _plain(media))


def _json(content: bytes) -> tuple[Any, str]:
    try:
        return json.loads(content), ""
    except ValueError as exc:
        return None, f"not JSON: {exc}"


def _words(errors: Iterable[Exception]) -> Iterator[str]:
    """The messages of the schema errors at the end of each cause chain, or the error's own."""
    for error in errors:
        cause: BaseException | None = error
        said = []
        while cause is not None:
            said.append(str(cause))
            if found := list(getattr(cause, "schema_errors", ())):
                yield from map(_deepest, found)
                break
            cause = cause.__cause__ or cause.__context__
        else:
            yield ": ".join(dict.fromkeys(said))[:_LONGEST]


def _deepest(error: Any) -> str:
    """A schema error in words; of an `anyOf` or `oneOf` the branch that came nearest."""
    from jsonschema.exceptions import best_match

    error = best_match([error]) or error
    where = ".".join(map(str, error.absolute_path))
    return f"{where or 'the body'}: {str(error.message)[:_LONGEST]}"


# -- media types


def _is_json(media: str) -> bool:
    kind = media.partition(";")[0].strip().lower()
    return kind == "*/*" or kind.endswith(("/json", "+json", "/*"))


def _plain(media: str) -> str:
    """The media type that openapi-core is told."""
    return "application/json" if _is_json(media) else media.partition(";")[0].strip().lower()


def _media(header: str, described: tuple[str, ...]) -> str | None:
    """The described media type that a header names: with the same parameters if it can be, or without any."""
    kind, parameters = _parts(header)
    best = None
    for one in described:
        its_kind, its_parameters = _parts(one)
        if its_kind in (kind, "*/*", f"{kind.partition('/')[0]}/*") and its_parameters <= parameters:
            best = one if best is None or len(its_parameters) > len(_parts(best)[1]) else best
    return best


def _parts(media: str) -> tuple[str, frozenset[str]]:
    kind, *parameters = (part.strip() for part in media.split(";"))
    return kind.lower(), frozenset(p.replace('"', "").replace(" ", "") for p in parameters if p)


# -- loading


@lru_cache(maxsize=64)
def load(path: Path, overlays: str = "[]") -> Description:
    """Read a description once; `overlays` is JSON: [[operation, media type, schema], ...].

    Raises `OSError` and `ValueError` where it cannot be read, `LookupError` where an overlay's operation is not
    in it.
    """
    return Description(read(path, json.loads(overlays)))


def _operations(raw: Schema) -> Iterator[Operation]:
    bases = {urlsplit(server["url"]).path.rstrip("/") for server in raw.get("servers") or [{"url": "/"}]}
    number = 0
    for template, methods in raw["paths"].items():
        shared = methods.get("parameters", [])
        for method, operation in methods.items():
            if method in METHODS:
                number += 1
                yield _described(raw, bases, template, method, operation, shared, f"/op{number}")


def _described(
    raw: Schema, bases: set[str], template: str, method: str, operation: Schema, shared: list[Schema], path: str
) -> Operation:
    body = followed(raw, operation.get("requestBody") or {})
    parameters = {(p["name"], p["in"]): p for p in (followed(raw, one) for one in shared)}
    parameters |= {(p["name"], p["in"]): p for p in (followed(raw, o) for o in operation.get("parameters", []))}
    kept = [p for p in parameters.values() if not (p["in"] == "header" and p["name"].lower() in _UNDECLARED)]
    answers = {str(status): followed(raw, one) for status, one in operation.get("responses", {}).items()}
    mended = {**operation, "parameters": kept, "requestBody": body, "responses": answers}
    names = tuple(re.findall(r"\{([^}]+)\}", template))
    return Operation(
        method=method.upper(),
        template=template,
        id=str(operation.get("operationId") or f"{method.upper()} {template}"),
        raw=mended,
        pattern=re.compile(f"(?:{'|'.join(sorted(map(_base, bases)))}){_base(template, '([^/]+?)')}"),
        names=names,
        media=tuple(body.get("content", {})),
        path=path,
    )


def _base(template: str, value: str = "[^/]+") -> str:
    """A regular expression for a template."""
    literal = re.split(r"\{[^}]+\}", template)
    return value.join(re.escape(part) for part in literal)


def _answer(operation: Operation, status: int) -> Schema | None:
    answers = operation.raw["responses"]
    for name in (str(status), f"{status // 100}XX", f"{status // 100}xx", "default"):
        if name in answers:
            return dict(answers[name])
    return None


def _api(raw: Schema, operations: list[Operation]) -> OpenAPI:
    """openapi-core's reading: a path for each operation and media type, all on one host, without security."""
    try:
        import_module("openapi_core.testing")  # now, as requests are judged while a check watches
        from openapi_core import Config, OpenAPI
    except ImportError as exc:
        message = "judging by a vendor's description needs openapi-core: install `headgate[testing]`"
        raise ModuleNotFoundError(message, name="openapi_core") from exc
    paths: dict[str, Any] = {}
    for one in operations:
        values = "".join(f"/{{{name}}}" for name in one.names)
        for number, media in enumerate(one.media or (None,)):
            mended = {k: v for k, v in one.raw.items() if k not in ("security", "servers", "callbacks")}
            body = {} if media is None else {"requestBody": _only(one.raw["requestBody"], media)}
            mended = {k: v for k, v in mended.items() if k != "requestBody"} | body
            mended["responses"] = {status: _as_json(answer) for status, answer in one.raw["responses"].items()}
            paths[f"{one.path}m{number}{values}"] = {one.method.lower(): mended}
    document = {k: v for k, v in raw.items() if k not in ("security", "servers", "paths")}
    document |= {"servers": [{"url": _HOST}], "paths": paths}
    return OpenAPI.from_dict(copy.deepcopy(document), config=Config(spec_validator_cls=None))


def _only(body: Schema, media: str) -> dict[str, Any]:
    """A request body of one media type."""
    return {**body, "content": {_plain(media): _typed(media, body["content"][media])}}


def _as_json(answer: Schema) -> dict[str, Any]:
    """An answer whose JSON media types are called so; headers are not judged."""
    described = reversed((answer.get("content") or {}).items())  # of several JSON types the first one counts
    content = {_plain(media): _typed(media, one) for media, one in described}
    return {"description": "", **({"content": content} if content else {})}


def _typed(media: str, one: Schema) -> dict[str, Any]:
    """A media type; files and other texts are taken as they are."""
    if _is_json(media) or _plain(media) == "application/x-www-form-urlencoded":
        return dict(one)
    return {k: v for k, v in one.items() if k != "schema"}
