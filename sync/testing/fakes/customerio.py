"""A Customer.io workspace in memory: people, and segments, as its Track API changes them.

It answers in the shapes of Customer.io's own description of the Track API; what that leaves open is marked.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeCustomerIO", "ready"]

Json = dict[str, Any]
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_KINDS = ("id", "email", "cio_id")


class FakeCustomerIO(Fake):
    """`people` has attributes by cio_id, `segments` the cio_ids in a manual segment by its number.

    `driven` are the numbers of data-driven segments. There is no header that tells of limits.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", "/api/v1/accounts/region", "_region"),
        ("POST", r"/api/v1/segments/([^/]+)/(add|remove)_customers", "_move"),
        ("POST", "/api/v2/batch", "_batch"),
    )

    def __init__(self, site_id: str = "site-1", api_key: str = "track-key", *, rate: Rate | None = None) -> None:
        super().__init__(rate=rate)
        self.site_id = site_id
        self.api_key = api_key
        self.people: dict[str, Json] = {}
        self.segments: dict[str, set[str]] = {}
        self.driven: set[str] = set()
        self._by: dict[tuple[str, str], str] = {}

    # -- what was there before

    def add_segment(self) -> str:
        """A manual segment; its number."""
        number = str(len(self.segments) + 1)
        self.segments[number] = set()
        return number

    def add_person(self, **attributes: Any) -> str:
        """A person; their cio_id."""
        cio_id = f"{len(self.people) + 1:014x}"
        self.people[cio_id] = {}
        self._by["cio_id", cio_id] = cio_id
        self._write(cio_id, attributes)
        return cio_id

    def find(self, kind: str, value: str) -> str | None:
        """The cio_id of a person; addresses have no capitals."""
        return self._by.get((kind, value.lower() if kind == "email" else value))

    # -- what every request meets

    def authorised(self, request: httpx.Request) -> bool:
        """The Site ID and the key."""
        pair = base64.b64encode(f"{self.site_id}:{self.api_key}".encode()).decode()
        return bool(request.headers.get("authorization") == f"Basic {pair}")

    def unauthorised(self) -> httpx.Response:
        """401."""
        return _refused(401, "Unauthorized request")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - no header says so
        """429 (the vendor asks for fair use; its answer is from memory)."""
        return _refused(429, "Too many requests")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - one answer for all
        """404."""
        return _refused(404, "Not found")

    def _region(self, _: Asked) -> httpx.Response:
        """From memory: not in the description."""
        return httpx.Response(200, json={"region": "us"})

    # -- segments

    def _move(self, asked: Asked) -> httpx.Response:
        """People it does not know are ignored, and so are values of another kind; removing needs an `id`."""
        number, word = asked.parts
        ids = asked.body.get("ids") if isinstance(asked.body, dict) else None
        kind = asked.params.get("id_type", "id")
        if not isinstance(ids, list) or not 1 <= len(ids) <= 1000 or kind not in _KINDS:
            return _refused(400, "ids must have between 1 and 1000 entries of one kind")
        if number in self.driven or number not in self.segments:
            return _refused(400, "not a manual segment")
        found = {one for id in ids if isinstance(id, str) and (one := self.find(kind, id))}
        if word == "add":
            self.segments[number] |= found
        else:
            self.segments[number] -= {one for one in found if self.people[one].get("id")}
        return httpx.Response(200, json={})

    # -- people

    def _batch(self, asked: Asked) -> httpx.Response:
        """Those that are invalid are listed; the others are taken."""
        batch = asked.body.get("batch") if isinstance(asked.body, dict) else None
        if not isinstance(batch, list) or len(asked.request.content) >= 500_000:
            problem = {"reason": "invalid", "field": "batch", "message": "the batch is malformed or too large"}
            return httpx.Response(400, json={"errors": [problem]})
        problems = []
        for number, one in enumerate(batch):
            if wrong := _malformed(one):
                problems.append({"batch_index": number, **wrong})
            else:
                self._identify(one)
        return httpx.Response(207 if problems else 200, json={"errors": problems} if problems else {})

    def _identify(self, one: Json) -> None:
        ((kind, value),) = one["identifiers"].items()
        cio_id = self.find(kind, value) or self.add_person(**{kind: value})
        self._write(cio_id, one.get("attributes", {}))

    def _write(self, cio_id: str, attributes: Json) -> None:
        self.people[cio_id] |= attributes
        for kind in ("id", "email"):
            if value := attributes.get(kind):
                self._by[kind, str(value).lower() if kind == "email" else str(value)] = cio_id


def _malformed(one: Json) -> Json | None:
    """What is wrong with an entry; that one beyond 32 KB is listed, and not the whole refused, is from memory."""
    identifiers = one.get("identifiers", {})
    if one.get("type") != "person" or one.get("action") != "identify":
        return {"reason": "invalid", "field": "action", "message": "the action is unknown"}
    if len(identifiers) != 1 or not all(identifiers.values()) or identifiers.keys() - set(_KINDS):
        return {"reason": "required", "field": "identifiers", "message": "exactly one identifier is required"}
    if "email" in identifiers and not _EMAIL.fullmatch(identifiers["email"]):
        return {"reason": "invalid", "field": "email", "message": "the e-mail address is invalid"}
    if len(json.dumps(one).encode()) > 32_000:
        return {"reason": "invalid", "field": "attributes", "message": "the entry is larger than 32kb"}
    return None


def _refused(status: int, words: str) -> httpx.Response:
    return httpx.Response(status, json={"meta": {"errors": [words]}})


def ready() -> Ready:
    """A workspace with a segment and somebody in it."""
    app = FakeCustomerIO(rate=Rate(100, 1.0))
    segment = app.add_segment()
    app.segments[segment].add(app.add_person(id="7", email="ada@example.com"))
    options = {"site_id": app.site_id, "api_key": app.api_key}

    def members(object: str, audience: str) -> set[str]:
        found = app.segments[audience] if object == "segment_member" else app.people
        kind = "email" if object == "person_by_email" else "id"
        return {app.people[one][kind] for one in found if kind in app.people[one]}

    def know(object: str, people: Iterable[str]) -> None:
        for id in people if object == "segment_member" else ():
            app.add_person(id=id)

    audiences = {"segment_member": segment}
    return Ready(app, lambda url: options | {"base_url": f"{url}/api"}, audiences, members=members, know=know)
