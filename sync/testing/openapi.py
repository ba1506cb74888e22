"""Holds a connector to its vendor's own description: every request, and every answer of the fake, is judged by it.

    class TestAcme(ConnectorContract):
        connector = Acme
        config = {"token": "t0ken"}
        described = Described("acme/v1.json", authenticated=lambda request: "authorization" in request.headers)

Descriptions are OpenAPI documents (JSON or YAML) that belong to their vendors and are not shipped: a path is
absolute, or relative to the folder that the environment variable `HEADGATE_DESCRIPTIONS` names. Judging needs
openapi-core, which `headgate[testing]` installs.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from sync.testing.description import Description, Found, load
from sync.testing.document import has

__all__ = ["FOLDER", "Checked", "Described", "Violation"]

App = Callable[[httpx.Request], httpx.Response]
Rule = Callable[[httpx.Request], Iterable[str]]
Overlays = Mapping[tuple[str, str], Mapping[str, Any] | str]


class Violation(AssertionError):
    """A request or an answer is not what the vendor describes."""


FOLDER = Path(os.environ.get("HEADGATE_DESCRIPTIONS") or Path(__file__).parents[2].parent / "shared" / "specs")
"""Where descriptions are looked for: what `HEADGATE_DESCRIPTIONS` says, or beside a checkout of Headgate."""


@dataclass(frozen=True, init=False)
class Described:
    """What the vendor says a platform takes and answers.

    `files`: OpenAPI documents; a request has to be an operation of one of them, whatever its host.
    `authenticated` says whether a request carries its credentials: descriptions say too little about them.
    `closed`: bodies and queries may only have the keys that the description names somewhere, so that a misspelt
    one is found; of answers only good ones. `overlays` replace or add the schema of a request's body: by
    operation (its operationId, or `METHOD /path/template`) and media type, parameters included; a schema, or a
    file with one (or with one under `schema`); `200 application/json` in place of the media type is an answer's.
    `rules` yield what is wrong with a request beyond the description, and are asked where that finds nothing; one
    that raises has found something. `also`: requests that no description has, each a regular expression for
    `METHOD https://host/path`, or a predicate; only `rules` judge them, so keep it narrow. `reconstructed`: the
    files are nobody's contract, but put together from examples.
    """

    files: tuple[Path | str, ...]
    authenticated: Callable[[httpx.Request], bool]
    closed: bool = True
    overlays: Overlays = field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    also: tuple[str | Callable[[httpx.Request], bool], ...] = ()
    reconstructed: bool = False

    def __init__(
        self,
        *files: Path | str,
        authenticated: Callable[[httpx.Request], bool],
        closed: bool = True,
        overlays: Overlays | None = None,
        rules: Iterable[Rule] = (),
        also: Iterable[str | Callable[[httpx.Request], bool]] = (),
        reconstructed: bool = False,
    ) -> None:
        given = (files, authenticated, closed, dict(overlays or {}), tuple(rules), tuple(also), reconstructed)
        for name, value in zip(self.__dataclass_fields__, given, strict=True):
            object.__setattr__(self, name, value)

    @property
    def paths(self) -> list[Path]:
        """Its files."""
        return [FOLDER / one for one in self.files]

    @property
    def available(self) -> bool:
        """Whether the files are here to judge by."""
        return all(path.exists() for path in self.paths)

    @cached_property
    def descriptions(self) -> list[Description]:
        """Its files, read; each once in a process. Raises `LookupError` for an overlay of no operation."""
        for name, _ in self.overlays:
            if not any(has(path, name) for path in self.paths):
                raise LookupError(f"no description has the operation `{name}` of an overlay")
        return [load(path, self._overlays(path)) for path in self.paths]

    def find(self, request: httpx.Request) -> tuple[Description, Found] | None:
        """The description that has a request's operation, and the operation."""
        found = ((description, description.find(request)) for description in self.descriptions)
        return next(((description, one) for description, one in found if one is not None), None)

    def request_faults(self, request: httpx.Request) -> Iterator[str]:
        """What is wrong with a request, in words; the rules are asked where the description finds nothing."""
        described = False
        for fault in self._described_faults(request):
            described = True
            yield fault
        if not described:
            yield from (fault for rule in self.rules for fault in _asked(rule, request))

    def _described_faults(self, request: httpx.Request) -> Iterator[str]:
        found = self.find(request)
        if found is None:
            if not self._passes(request):
                yield "no description has this operation"
            return
        if not self.authenticated(request):
            yield "the request carries no credentials"
        yield from found[0].request_faults(request, found[1], closed=self.closed)

    def answer_faults(self, request: httpx.Request, response: httpx.Response) -> Iterator[str]:
        """What is wrong with an answer to a request, in words."""
        found = self.find(request)
        if found is not None:
            yield from found[0].answer_faults(request, found[1], response, closed=self.closed)

    def judge(self, request: httpx.Request, response: httpx.Response | None = None) -> None:
        """Raise `Violation` with all that is wrong with a request, or else with the answer to it."""
        faults = self.request_faults(request) if response is None else self.answer_faults(request, response)
        if said := "; ".join(dict.fromkeys(faults)):
            whose = "request" if response is None else f"answer {response.status_code}"
            raise Violation(f"{request.method} {request.url.path}: {whose}: {said}")

    def used(self, request: httpx.Request) -> str:
        """The operation of a request, as `METHOD /path/template`."""
        found = self.find(request)
        return f"{request.method} {found[1].operation.template if found else request.url.path}"

    def _passes(self, request: httpx.Request) -> bool:
        url = f"{request.method} {request.url.copy_with(query=None)}"
        return any(re.fullmatch(one, url) if isinstance(one, str) else one(request) for one in self.also)

    def _overlays(self, path: Path) -> str:
        """Those of a file, as JSON."""
        ours = [(name, media, _schema(one)) for (name, media), one in self.overlays.items() if has(path, name)]
        return json.dumps(ours)


def _asked(rule: Rule, request: httpx.Request) -> Iterator[str]:
    """What a rule says; one that cannot read the request at all has found something, too."""
    try:
        yield from rule(request)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
        yield f"the rule `{getattr(rule, '__name__', rule)}` cannot read it: {type(exc).__name__}: {exc}"


def _schema(overlay: Mapping[str, Any] | str) -> Any:
    if not isinstance(overlay, str):
        return overlay
    read = json.loads((FOLDER / overlay).read_bytes())
    return read["schema"] if "schema" in read and "type" not in read else read


class Checked(httpx.BaseTransport):
    """A transport that hands requests to `app` and judges both directions.

    `seen` has the operations that were used, as `METHOD /path/template status`. Raises `Violation`.
    """

    def __init__(self, app: App, described: Described) -> None:
        self._app = app
        self._described = described
        self.seen: set[str] = set()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Judge the request, let the app answer, judge the answer."""
        request.read()
        self._described.judge(request)
        response = self._app(request)
        response.read()
        self._described.judge(request, response)
        self.seen.add(f"{self._described.used(request)} {response.status_code}")
        return response
