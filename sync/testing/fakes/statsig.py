"""A Statsig project in memory: its segments that are id lists.

It answers in the shapes of Statsig's OpenAPI description of the Console API (statsig-io/docs). What is not
described is marked "from memory".
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready

__all__ = ["FakeStatsig", "Segment", "ready"]

Json = dict[str, Any]

_SEGMENTS = "/console/v1/segments"
_MOST = 1000  # ids of a request (the description's text of add_ids)
_LARGEST_PAGE = 100  # from memory: no number is described
_NAME = re.compile(r"[a-zA-Z0-9_\- ]{3,100}")
_TYPES = ("id_list", "rule_based", "analysis_list", "user_store_id_list")
_SOMEBODY = {"ID": "u1", "Email": "ada@acme.example", "Name": "Ada"}


@dataclass
class Segment:
    """A segment; `ids` in the order they came."""

    name: str
    type: str = "user_store_id_list"
    id_type: str = "userID"
    ids: dict[str, None] = field(default_factory=dict)


class FakeStatsig(Fake):
    """`segments` by id."""

    routes = (
        ("GET", _SEGMENTS, "_list"),
        ("POST", _SEGMENTS, "_create"),
        ("PATCH", _SEGMENTS + "/([^/]+)/(add|remove)_ids", "_change"),
        ("GET", _SEGMENTS + "/([^/]+)/id_list", "_ids"),
    )

    def __init__(
        self,
        key: str = "console-0b7c5f3e",
        *,
        rate: Rate | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rate=rate, clock=clock)
        self.key = key
        self.segments: dict[str, Segment] = {}

    def authorised(self, request: httpx.Request) -> bool:
        """The key, in a header of its own."""
        return bool(request.headers.get("statsig-api-key") == self.key)

    def unauthorised(self) -> httpx.Response:
        """As described; it quotes the beginning of the key."""
        return _error(401, "This endpoint only accepts an active CONSOLE key, but an invalid key was sent.")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - it does not tell
        """Nothing tells for how long (the wording is from memory)."""
        return _error(429, "Too many requests")

    def no_route(self, request: httpx.Request) -> httpx.Response:
        """From memory."""
        return _error(404, f"Cannot {request.method} this path")

    # -- handlers

    def _list(self, asked: Asked) -> httpx.Response:
        ids = list(self.segments)
        size, page = int(asked.params.get("limit", 10)), int(asked.params.get("page", 1))
        shown = [_shown(id, self.segments[id]) for id in ids[(page - 1) * size : page * size]]
        paging = _paging(asked, size, page, len(ids))
        return httpx.Response(200, json={"message": "Segments listed successfully."} | {"data": shown} | paging)

    def _create(self, asked: Asked) -> httpx.Response:
        body = asked.body
        name = body.get("name", "") if isinstance(body, dict) else ""
        if not isinstance(name, str) or not _NAME.fullmatch(name) or body.get("type") not in _TYPES:
            return _error(400, "Invalid request body")  # from memory: no 400 is described
        id = re.sub(r"[^a-z0-9_-]+", "_", name.lower())
        if id in self.segments:
            return _error(400, "A segment of this name exists")  # from memory
        self.segments[id] = made = Segment(name, body["type"], body.get("idType", "userID"))
        answer = {"message": "Segment created successfully.", "data": _shown(id, made)}
        return httpx.Response(201, json=answer)

    def _change(self, asked: Asked) -> httpx.Response:
        id, verb = asked.parts
        segment = self.segments.get(id)
        if segment is None:
            return _error(404, "Segment not found.")
        if segment.type != "user_store_id_list":
            return _error(400, "Segment must be of type 'user_store_id_list' to be modified on this endpoint")
        ids = asked.body.get("ids") if isinstance(asked.body, dict) else None
        if not isinstance(ids, list) or not all(isinstance(one, str) for one in ids) or len(ids) > _MOST:
            return _error(400, f"ids must be a list of at most {_MOST} texts")
        for one in ids:
            if verb == "add":
                segment.ids[one] = None
            else:
                segment.ids.pop(one, None)
        done = "added to" if verb == "add" else "removed from"
        return httpx.Response(200, json={"message": f"IDs successfully {done} Segment ID List"})

    def _ids(self, asked: Asked) -> httpx.Response:
        segment = self.segments.get(asked.parts[0])
        if segment is None:
            return _error(404, "Segment not found.")
        size, page = int(asked.params.get("limit", 10)), int(asked.params.get("page", 1))
        if size > _LARGEST_PAGE or page < 1:
            return _error(400, "Invalid pagination")
        ids = list(segment.ids)
        data = {"name": segment.name, "count": len(ids), "ids": ids[(page - 1) * size : page * size]}
        answer = {"message": "Segments listed successfully.", "data": data}
        return httpx.Response(200, json=answer | _paging(asked, size, page, len(ids)))


def ready() -> Ready:
    """A project with an empty id list."""
    fake = FakeStatsig()
    fake.segments["winback"] = Segment("winback")
    return Ready(
        fake,
        lambda url: {"key": fake.key, "base_url": url},
        {"segment_member": "winback"},
        members=lambda _, audience: set(fake.segments[audience].ids),
    )


def _paging(asked: Asked, size: int, page: int, total: int) -> Json:
    path = asked.request.url.path

    def link(number: int) -> str | None:
        return f"{path}?page={number}&limit={size}" if 0 < number <= -(-total // size) else None

    known = {"itemsPerPage": size, "pageNumber": page, "totalItems": total}
    return {"pagination": known | {"nextPage": link(page + 1), "previousPage": link(page - 1)}}


def _shown(id: str, segment: Segment) -> Json:
    shown: Json = {"id": id, "name": segment.name, "type": segment.type, "idType": segment.id_type}
    shown |= {"isEnabled": True, "description": "", "count": len(segment.ids), "createdTime": 1.0}
    shown |= {f"creator{name}": value for name, value in _SOMEBODY.items()}
    return shown | {f"lastModifier{name}": value for name, value in _SOMEBODY.items()} | {"lastModifiedTime": 1.0}


def _error(status: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"status": status, "message": message})
