"""An Unleash instance in memory: its segments.

It answers in the shapes of Unleash's OpenAPI description (Unleash/unleash-server-api-go) and refuses what the
server refuses (unleash-server 6.10: segment-service.ts, feature-schema.ts); a test asks both the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready

__all__ = ["FakeUnleash", "ready"]

Json = dict[str, Any]

_SEGMENTS = "/api/admin/segments"
_OPERATORS = {
    *("IN", "NOT_IN", "STR_ENDS_WITH", "STR_STARTS_WITH", "STR_CONTAINS", "REGEX", "DATE_AFTER", "DATE_BEFORE"),
    *("NUM_EQ", "NUM_GT", "NUM_GTE", "NUM_LT", "NUM_LTE", "SEMVER_EQ", "SEMVER_GT", "SEMVER_LT"),
}
_MOMENT = "2026-01-02T03:04:05.678Z"


class FakeUnleash(Fake):
    """`segments` by number, as they are shown. A segment has at most `values` values."""

    routes = (
        ("GET", _SEGMENTS, "_list"),
        ("POST", _SEGMENTS, "_create"),
        ("GET", _SEGMENTS + "/([^/]+)", "_get"),
        ("PUT", _SEGMENTS + "/([^/]+)", "_replace"),
    )

    def __init__(
        self,
        token: str = "user:0b7c5f3e",  # noqa: S107 - nobody's
        *,
        values: int = 1000,
        rate: Rate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rate=rate, clock=clock)
        self.token = token
        self.values = values
        self.segments: dict[int, Json] = {}

    def add_segment(self, name: str, *constraints: Json, **more: Any) -> str:
        """A segment that was there before; its number, as text."""
        id = len(self.segments) + 1
        made = {"id": id, "name": name, "constraints": list(constraints), "createdAt": _MOMENT, "createdBy": "ada"}
        self.segments[id] = made | {"usedInFeatures": 0, "usedInProjects": 0} | more
        return str(id)

    def members(self, id: str, field: str = "userId") -> list[str]:
        """The values of a segment's list of a context field."""
        (found,) = [c for c in self.segments[int(id)]["constraints"] if c["contextName"] == field]
        return list(found["values"])

    def authorised(self, request: httpx.Request) -> bool:
        """The token alone, without a scheme."""
        return bool(request.headers.get("authorization") == self.token)

    def unauthorised(self) -> httpx.Response:
        """As described."""
        words = "You must log in to use Unleash. Your request had no authorization header."
        return _error(401, "AuthenticationRequired", words)

    def too_fast(self, wait: float) -> httpx.Response:
        """Unleash limits nothing by itself; a proxy before it may."""
        return httpx.Response(429, headers={"Retry-After": str(int(wait) + 1)}, text="Too Many Requests")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - all the same
        """As the server."""
        return _error(404, "NotFoundError", "The path you were looking for does not exist.")

    # -- handlers

    def _list(self, asked: Asked) -> httpx.Response:  # noqa: ARG002 - it has no options
        return httpx.Response(200, json={"segments": list(self.segments.values())})

    def _create(self, asked: Asked) -> httpx.Response:
        wrong = next(self._wrong(asked.body), "")
        if wrong:
            return _error(400, "BadDataError", wrong)
        if self._taken(asked.body["name"]):
            return _error(409, "NameExistsError", "Segment name already exists")
        kept = {name: asked.body[name] for name in ("description", "project") if name in asked.body}
        id = self.add_segment(asked.body["name"], *map(_stored, asked.body["constraints"]), **kept)
        return httpx.Response(201, headers={"location": f"{_SEGMENTS}/{id}"}, json=self.segments[int(id)])

    def _get(self, asked: Asked) -> httpx.Response:
        found = self._found(asked)
        return found if isinstance(found, httpx.Response) else httpx.Response(200, json=found)

    def _replace(self, asked: Asked) -> httpx.Response:
        """A project that is not named is taken away; a description that is not, stays."""
        body, wrong = asked.body, next(self._wrong(asked.body), "")
        if wrong:
            return _error(400, "BadDataError", wrong)
        found = self._found(asked)
        if isinstance(found, httpx.Response):
            return found
        if body["name"] != found["name"] and self._taken(body["name"]):
            return _error(409, "NameExistsError", "Segment name already exists")
        found |= {"name": body["name"], "constraints": list(map(_stored, body["constraints"]))}
        found |= {"description": body["description"]} if "description" in body else {}
        found |= {"project": body.get("project")}
        return httpx.Response(204)

    def _found(self, asked: Asked) -> Json | httpx.Response:
        (id,) = asked.parts
        if not id.isdigit():
            return _error(400, "BadDataError", "The ID must be a number")
        if int(id) not in self.segments:
            return _error(404, "NotFoundError", f"Could not find segment with id {id}")
        return self.segments[int(id)]

    def _taken(self, name: str) -> bool:
        return any(one["name"] == name for one in self.segments.values())

    def _wrong(self, body: Any) -> Iterator[str]:
        """What the server's schemas object to."""
        if not isinstance(body, dict) or not isinstance(body.get("name"), str) or not body["name"]:
            yield '"name" is required'
            return
        constraints = body.get("constraints")
        if not isinstance(constraints, list) or not all(isinstance(one, dict) for one in constraints):
            yield '"constraints" must be an array'
            return
        for one in constraints:
            if not one.get("contextName") or one.get("operator") not in _OPERATORS:
                yield '"contextName" and "operator" are required'
            values = one.get("values", [])
            if not isinstance(values, list) or not all(isinstance(v, str) and 0 < len(v) <= 100 for v in values):
                yield '"values" must have 1 to 100 characters each'
        if sum(len(one.get("values", ())) for one in constraints) > self.values:
            yield f"Segments may not have more than {self.values} values"


def ready() -> Ready:
    """An instance with a segment that nobody is in."""
    fake = FakeUnleash()
    id = fake.add_segment("winback", {"contextName": "userId", "operator": "IN", "values": []})
    return Ready(
        fake,
        lambda url: {"token": fake.token, "base_url": url},
        {"segment_member": id},
        members=lambda _, audience: set(fake.members(audience)),
    )


def _stored(constraint: Json) -> Json:
    """The server gives every constraint a list of values."""
    return {"values": [], **constraint}


def _error(status: int, name: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"id": str(uuid4()), "name": name, "message": message})
