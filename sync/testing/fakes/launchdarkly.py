"""One environment of a LaunchDarkly project in memory: segments and their targets.

It answers in the shapes of LaunchDarkly's OpenAPI description (launchdarkly/api-client-go). What a platform
without that does is marked "from memory".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready

__all__ = ["FakeLaunchDarkly", "Segment", "ready"]

Json = dict[str, Any]
Targets = dict[str, list[str]]

_SEGMENTS = "/api/v2/segments/([^/]+)/([^/]+)"
_MOST = 1500  # operations on targets of one patch (the description's text of patchSegment)
_MOMENT = 1_767_323_045_678
_KINDS = {f"{verb}{side}Targets": (verb, side) for verb in ("add", "remove") for side in ("Included", "Excluded")}


@dataclass
class Segment:
    """A segment: keys by context kind, in the order they came."""

    name: str
    big: str | None = None  # the context kind of a big segment
    included: Targets = field(default_factory=dict)
    excluded: Targets = field(default_factory=dict)
    rules: list[Json] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    version: int = 1

    def side(self, name: str) -> Targets:
        """The targets that are `Included` or `Excluded`."""
        return self.included if name == "Included" else self.excluded


class FakeLaunchDarkly(Fake):
    """`segments` by key. A patch is applied whole or not at all."""

    routes = (
        ("GET", _SEGMENTS, "_list"),
        ("POST", _SEGMENTS, "_create"),
        ("GET", _SEGMENTS + "/([^/]+)", "_get"),
        ("PATCH", _SEGMENTS + "/([^/]+)", "_patch"),
        ("POST", _SEGMENTS + "/([^/]+)/contexts", "_contexts"),
    )

    def __init__(
        self,
        token: str = "api-0b7c5f3e",  # noqa: S107 - nobody's
        *,
        project: str = "web",
        environment: str = "production",
        rate: Rate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rate=rate, clock=clock)
        self.token = token
        self.place = (project, environment)
        self.segments: dict[str, Segment] = {}

    def authorised(self, request: httpx.Request) -> bool:
        """The token alone, without a scheme."""
        return bool(request.headers.get("authorization") == self.token)

    def unauthorised(self) -> httpx.Response:
        """As described."""
        return _error(401, "unauthorized", "Invalid access token")

    def too_fast(self, wait: float) -> httpx.Response:
        """As described; when the window ends is in the headers, in milliseconds since 1970."""
        answer = _error(429, "rate_limited", "You've exceeded the API rate limit. Try again later.")
        answer.headers["X-Ratelimit-Reset"] = str(int((time.time() + wait) * 1000))
        return answer

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - all the same
        """From memory."""
        return _error(404, "not_found", "Invalid resource identifier")

    def rate_headers(self) -> Mapping[str, str]:
        """The account's room, and when the window ends."""
        if self.rate is None:
            return {}
        reset = int((time.time() + self.rate.per) * 1000)
        return {"X-Ratelimit-Global-Remaining": str(self.room), "X-Ratelimit-Reset": str(reset)}

    # -- handlers

    def _list(self, asked: Asked) -> httpx.Response:
        if asked.parts != self.place:
            return self.no_route(asked.request)
        keys = list(self.segments)[: int(asked.params.get("limit", 20))]
        items = [_shown(key, self.segments[key]) for key in keys]
        return httpx.Response(200, json={"items": items, "_links": {}, "totalCount": len(self.segments)})

    def _create(self, asked: Asked) -> httpx.Response:
        body = asked.body
        if asked.parts != self.place:
            return self.no_route(asked.request)
        if not body.get("key") or not body.get("name"):
            return _error(400, "invalid_request", "key and name are required")
        if body["key"] in self.segments:  # from memory: the description has no 409 here
            return _error(400, "invalid_request", "Duplicate segment key")
        big = body.get("unboundedContextKind", "user") if body.get("unbounded") else None
        self.segments[body["key"]] = made = Segment(body["name"], big, tags=body.get("tags", []))
        return httpx.Response(201, json=_shown(body["key"], made))

    def _get(self, asked: Asked) -> httpx.Response:
        key, segment = self._found(asked)
        return httpx.Response(200, json=_shown(key, segment)) if segment else self.no_route(asked.request)

    def _patch(self, asked: Asked) -> httpx.Response:
        key, segment = self._found(asked)
        if segment is None:
            return self.no_route(asked.request)
        wrong = self._objection(asked, segment)
        if wrong:
            return _error(400, "invalid_request", wrong)
        included, excluded = _copied(segment.included), _copied(segment.excluded)
        after = Segment(segment.name, None, included, excluded, segment.rules, segment.tags, segment.version + 1)
        for instruction in asked.body["instructions"]:
            verb, side = _KINDS[instruction["kind"]]
            _change(after.side(side).setdefault(instruction["contextKind"], []), verb, instruction["values"])
        if any(set(after.excluded.get(kind, ())) & set(keys) for kind, keys in after.included.items()):
            return _error(400, "invalid_request", "a target cannot be both included and excluded")
        self.segments[key] = after
        return httpx.Response(200, json=_shown(key, after))

    def _objection(self, asked: Asked, segment: Segment) -> str:
        """What is wrong with a patch; empty where it can be tried."""
        if "domain-model=launchdarkly.semanticpatch" not in asked.request.headers.get("content-type", ""):
            return "expected a JSON patch"
        if segment.big is not None:
            return "this instruction is not for big segments"
        body = asked.body if isinstance(asked.body, dict) else {}
        if body.get("environmentKey") != self.place[1] or not body.get("instructions"):
            return "environmentKey and instructions are required"
        return next(_wrong(body["instructions"]), "")

    def _contexts(self, asked: Asked) -> httpx.Response:
        _, segment = self._found(asked)
        if segment is None:
            return self.no_route(asked.request)
        if segment.big is None:
            return _error(400, "invalid_request", "this operation does not support standard segments")
        for side, changes in asked.body.items():
            targets = segment.side(side.capitalize()).setdefault(segment.big, [])
            for verb, keys in changes.items():
                _change(targets, verb, keys)
        segment.version += 1
        return httpx.Response(204)

    def _found(self, asked: Asked) -> tuple[str, Segment | None]:
        *place, key = asked.parts
        return key, self.segments.get(key) if tuple(place) == self.place else None


def ready() -> Ready:
    """An environment with a standard and a big segment."""
    fake = FakeLaunchDarkly()
    fake.segments |= {"winback": Segment("Win-back"), "everybody": Segment("Everybody", "user")}
    project, environment = fake.place
    known = {"token": fake.token, "project": project, "environment": environment}
    return Ready(
        fake,
        lambda url: {**known, "base_url": url},
        {"segment_member": "winback", "big_segment_member": "everybody"},
        members=lambda _, audience: set(fake.segments[audience].included.get("user", ())),
    )


def _wrong(instructions: list[Json]) -> Iterator[str]:
    for one in instructions:
        if one.get("kind") not in _KINDS:
            yield "unknown instruction"
        elif not one.get("values") or not all(isinstance(key, str) and key for key in one["values"]):
            yield "values is a list of keys"
    if sum(len(one.get("values", ())) for one in instructions) > _MOST:
        yield f"the number of operations on targets exceeds the batch limit of {_MOST}"


def _change(keys: list[str], verb: str, values: list[str]) -> None:
    """Whoever is there already, or is not, is passed over (from memory)."""
    if verb == "add":
        keys += [value for value in dict.fromkeys(values) if value not in keys]
    else:
        keys[:] = [key for key in keys if key not in set(values)]


def _copied(targets: Targets) -> Targets:
    return {kind: list(keys) for kind, keys in targets.items()}


def _shown(key: str, segment: Segment) -> Json:
    """As described; of a big segment nobody is listed."""
    shown: Json = {"key": key, "name": segment.name, "tags": segment.tags, "rules": segment.rules}
    shown |= {"version": segment.version, "deleted": False, "generation": 1, "_links": {}}
    shown |= {"creationDate": _MOMENT, "lastModifiedDate": _MOMENT}
    if segment.big is not None:
        return shown | {"unbounded": True, "unboundedContextKind": segment.big}
    for side in ("included", "excluded"):
        targets = segment.side(side.capitalize())
        shown[side] = targets.get("user", [])
        shown[f"{side}Contexts"] = [
            {"contextKind": kind, "values": keys} for kind, keys in targets.items() if kind != "user"
        ]
    return shown


def _error(status: int, code: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message})
