"""A HubSpot account in memory: contacts, lists and memberships, as far as the connector uses them.

It answers in the shapes of HubSpot's OpenAPI description (CRM/Contacts v3, CRM/Lists v3), which a test compares.
What the description leaves open follows the vendor's pages, and is marked below.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

import httpx

__all__ = ["FakeHubSpot"]

Json = dict[str, Any]
_MOMENT = "2026-01-02T03:04:05.678Z"
_KNOWN = {"email", "firstname", "lastname", "phone", "lifecyclestage", "hs_additional_emails"}


class FakeHubSpot:
    """Call it with a request, or serve it with `sync.testing.fakes.server.serve`.

    `contacts` has properties by contact id, `lists` the member ids by list id, `requests` counts all requests.
    At most `limit` requests in `per` seconds are answered, the others get 429. A contact with a property that is
    not in `properties` is refused.
    """

    def __init__(
        self,
        token: str = "pat-test",  # noqa: S107 - nobody's
        *,
        limit: int = 100,
        per: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.token = token
        self.limit = limit
        self.per = per
        self.clock = clock
        self.properties = set(_KNOWN)
        self.contacts: dict[str, dict[str, str]] = {}
        self.lists: dict[str, set[str]] = {}
        self.requests = 0
        self._titles: dict[str, Json] = {}
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def add_contact(self, email: str, **properties: str) -> str:
        """A contact that was there before; its id."""
        id = str(1000 + len(self.contacts))
        self.contacts[id] = {"email": email, **properties}
        return id

    def add_list(self, title: str, processing: str = "MANUAL") -> str:
        """A list that was there before; its id."""
        id = str(len(self.lists) + 1)
        self.lists[id] = set()
        self._titles[id] = {
            "listId": id,
            "listVersion": 1,
            "name": title,
            "objectTypeId": "0-1",
            "processingStatus": "COMPLETE",
            "processingType": processing,
        }
        return id

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        with self._lock:
            self.requests += 1
            if request.headers.get("authorization") != f"Bearer {self.token}":
                return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")
            if self._too_fast():
                return _rate_limited()
            return self._route(request)

    def _too_fast(self) -> bool:
        now = self.clock()
        while self._times and self._times[0] <= now - self.per:
            self._times.popleft()
        if len(self._times) >= self.limit:
            return True
        self._times.append(now)
        return False

    def _route(self, request: httpx.Request) -> httpx.Response:
        for method, pattern, handler in _ROUTES:
            if request.method == method and (match := re.fullmatch(pattern, request.url.path)):
                body = json.loads(request.content) if request.content else {}
                return handler(self, body, dict(request.url.params), *match.groups())
        return _error(404, "NOT_FOUND", "No such path.")

    # -- contacts

    def _page(self, _: Json, params: Mapping[str, str]) -> httpx.Response:
        ids = list(self.contacts)[: int(params.get("limit", 10))]
        return httpx.Response(200, json={"results": [self._contact(id) for id in ids]})

    def _read(self, body: Json, _: Mapping[str, str]) -> httpx.Response:
        """Missing ones are named in an error of the 207; its category and context are from memory."""
        if len(body["inputs"]) > 100:
            return _too_many()
        found: list[str] = []
        missing: list[str] = []
        for one in body["inputs"]:
            id = self.id_of(one["id"]) if body.get("idProperty") == "email" else one["id"]
            (found if id in self.contacts else missing).append(id or one["id"])
        results = [self._contact(id, set(body["properties"])) for id in dict.fromkeys(found)]
        problem = _problem("OBJECT_NOT_FOUND", "Could not get some contacts.", {"ids": missing})
        return _several(results, [problem] if missing else [])

    def _upsert(self, body: Json, _: Mapping[str, str]) -> httpx.Response:
        def place(one: Json) -> tuple[str, bool]:
            id = self.id_of(one["id"])
            return (id, False) if id else (self.add_contact(one["id"]), True)

        return self._write(body["inputs"], place)

    def _update(self, body: Json, _: Mapping[str, str]) -> httpx.Response:
        return self._write(body["inputs"], lambda one: (one["id"], False), new=False)

    def _write(
        self, inputs: list[Json], place: Callable[[Json], tuple[str, bool]], *, new: bool = True
    ) -> httpx.Response:
        """Write what can be written; each failure is an error that carries its trace id (vendor's docs)."""
        if len(inputs) > 100 or len({one["id"] for one in inputs}) < len(inputs):
            return _too_many() if len(inputs) > 100 else _error(400, "VALIDATION_ERROR", "Duplicate IDs found.")
        results, problems = [], []
        for one in inputs:
            trace = one.get("objectWriteTraceId")
            if problem := self._refusal(one, update=not new):
                problems.append(_problem(*problem, {"objectWriteTraceId": [trace]} if trace else {}))
                continue
            id, created = place(one)
            self.contacts[id].update(one["properties"])
            result = self._contact(id) | ({"new": created} if new else {})
            results.append(result | ({"objectWriteTraceId": trace} if trace else {}))
        return _several(results, problems)

    def _refusal(self, one: Json, *, update: bool) -> tuple[str, str] | None:
        if unknown := one["properties"].keys() - self.properties:
            return "VALIDATION_ERROR", f'Property "{min(unknown)}" does not exist'
        if update and one["id"] not in self.contacts:
            return "OBJECT_NOT_FOUND", "The contact does not exist."
        if not update and "@" not in one["id"]:
            return "VALIDATION_ERROR", "The e-mail address is invalid."
        return None

    def id_of(self, email: str) -> str | None:
        """A contact's id by its primary or a secondary address."""
        for id, contact in self.contacts.items():
            several = f"{contact.get('email', '')};{contact.get('hs_additional_emails', '')}"
            if email.lower() in several.lower().split(";"):
                return id
        return None

    def _contact(self, id: str, wanted: set[str] | None = None) -> Json:
        properties = {k: v for k, v in self.contacts[id].items() if wanted is None or k in wanted}
        return {"id": id, "properties": properties, "createdAt": _MOMENT, "updatedAt": _MOMENT, "archived": False}

    # -- lists

    def _create(self, body: Json, _: Mapping[str, str]) -> httpx.Response:
        if any(one["name"] == body["name"] for one in self._titles.values()):
            return _error(400, "VALIDATION_ERROR", "A list of this name exists.")
        return httpx.Response(
            200, json={"list": self._titles[self.add_list(body["name"], body["processingType"])]}
        )

    def _move(self, body: Json, _: Mapping[str, str], id: str) -> httpx.Response:
        """Members already in, or not in, are ignored and not named; unknown records are missing."""
        if id not in self.lists:
            return _error(404, "OBJECT_NOT_FOUND", "List does not exist.")
        if self._titles[id]["processingType"] == "DYNAMIC":
            return _error(400, "VALIDATION_ERROR", "The list is dynamic.")
        members, known = self.lists[id], self.contacts.keys()
        add, remove = set(body["recordIdsToAdd"]), set(body["recordIdsToRemove"])
        answer = {
            "recordIdsMissing": sorted((add | remove) - known),
            "recordsIdsAdded": sorted((add & known) - members),
            "recordIdsRemoved": sorted(remove & members),
        }
        self.lists[id] = (members | (add & known)) - remove
        return httpx.Response(200, json=answer)

    def _members(self, _: Json, params: Mapping[str, str], id: str) -> httpx.Response:
        if id not in self.lists:
            return _error(404, "OBJECT_NOT_FOUND", "List does not exist.")
        limit, after = int(params.get("limit", 100)), params.get("after", "")
        if limit > 250:
            return _error(400, "VALIDATION_ERROR", "The maximum limit is 250.")
        ids = [one for one in sorted(self.lists[id]) if one > after]
        page: Json = {"results": [{"recordId": one, "membershipTimestamp": _MOMENT} for one in ids[:limit]]}
        if len(ids) > limit:
            page["paging"] = {"next": {"after": ids[limit - 1]}}
        return httpx.Response(200, json=page)

    def _lists_of(self, body: Json, _: Mapping[str, str]) -> httpx.Response:
        def memberships(record: str) -> list[Json]:
            return [{"listId": id, "listVersion": 1} for id, members in self.lists.items() if record in members]

        records = [(one["objectTypeId"], one["recordId"]) for one in body["inputs"]]
        return _several(
            [
                {"objectTypeId": kind, "recordId": id, "recordListMemberships": memberships(id)}
                for kind, id in records
            ],
            [],
        )


def _several(results: list[Json], problems: list[Json]) -> httpx.Response:
    answer: Json = {"status": "COMPLETE", "results": results, "startedAt": _MOMENT, "completedAt": _MOMENT}
    if problems:
        answer |= {"numErrors": len(problems), "errors": problems}
    return httpx.Response(207 if problems else 200, json=answer)


def _problem(category: str, message: str, context: Json) -> Json:
    words = {"status": "error", "category": category, "message": message}
    return words | {"context": context, "errors": [], "links": {}}


def _error(status: int, category: str, message: str) -> httpx.Response:
    return httpx.Response(status, json={"message": message, "category": category, "correlationId": str(uuid4())})


def _too_many() -> httpx.Response:
    return _error(400, "VALIDATION_ERROR", "A batch holds at most 100 inputs.")


def _rate_limited() -> httpx.Response:
    """The body of the vendor's usage guidelines, with the `category` that its description requires.

    `Retry-After` is not among the documented headers.
    """
    words = {"status": "error", "message": "You have reached your limit.", "category": "RATE_LIMITS"}
    names = {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
    ids = {"correlationId": str(uuid4()), "requestId": str(uuid4())}
    return httpx.Response(429, json=words | names | ids)


_ROUTES: tuple[tuple[str, str, Callable[..., httpx.Response]], ...] = (
    ("GET", "/crm/v3/objects/contacts", FakeHubSpot._page),
    ("POST", "/crm/v3/objects/contacts/batch/read", FakeHubSpot._read),
    ("POST", "/crm/v3/objects/contacts/batch/upsert", FakeHubSpot._upsert),
    ("POST", "/crm/v3/objects/contacts/batch/update", FakeHubSpot._update),
    ("POST", "/crm/v3/lists", FakeHubSpot._create),
    ("POST", "/crm/v3/lists/records/memberships/batch/read", FakeHubSpot._lists_of),
    ("GET", "/crm/v3/lists/([^/]+)/memberships", FakeHubSpot._members),
    ("PUT", "/crm/v3/lists/([^/]+)/memberships/add-and-remove", FakeHubSpot._move),
)
