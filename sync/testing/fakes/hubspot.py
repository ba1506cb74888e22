"""A HubSpot account in memory: contacts, lists and memberships, as far as the connector uses them.

It answers in the shapes of HubSpot's OpenAPI descriptions (CRM/Contacts, Lists and Properties v3); a test compares
the first two. What they leave open follows the vendor's pages, and is marked below.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar
from uuid import uuid4

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeHubSpot", "ready"]

Json = dict[str, Any]
_MOMENT = "2026-01-02T03:04:05.678Z"
_KNOWN = {"email", "firstname", "lastname", "phone", "lifecyclestage", "hs_additional_emails"}
_READ_ONLY = {"hs_additional_emails"}
_LISTS = "/crm/v3/lists"
_CONTACTS = "/crm/v3/objects/contacts"


class FakeHubSpot(Fake):
    """`contacts` has properties by contact id, `lists` the member ids by list id.

    A contact with a property that is not in `properties` is refused. At most `limit` requests in `per` seconds are
    answered.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", _CONTACTS, "_page"),
        ("POST", f"{_CONTACTS}/batch/read", "_read"),
        ("POST", f"{_CONTACTS}/batch/upsert", "_upsert"),
        ("POST", f"{_CONTACTS}/batch/update", "_update"),
        ("GET", "/crm/v3/properties/contacts", "_described"),
        ("POST", _LISTS, "_create"),
        ("POST", f"{_LISTS}/records/memberships/batch/read", "_lists_of"),
        ("GET", f"{_LISTS}/([^/]+)/memberships", "_members"),
        ("PUT", f"{_LISTS}/([^/]+)/memberships/add-and-remove", "_move"),
    )

    def __init__(
        self,
        token: str = "pat-test",  # noqa: S107 - nobody's
        *,
        limit: int = 100,
        per: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rate=Rate(limit, per), clock=clock)
        self.token = token
        self.properties = set(_KNOWN)
        self.contacts: dict[str, dict[str, str]] = {}
        self.lists: dict[str, set[str]] = {}
        self._titles: dict[str, Json] = {}
        self._ids: dict[str, str] = {}  # by address

    def add_contact(self, email: str, **properties: str) -> str:
        """A contact that was there before; its id."""
        id = str(1000 + len(self.contacts))
        self.contacts[id] = {}
        self.change_contact(id, email=email, **properties)
        return id

    def change_contact(self, id: str, **properties: str) -> None:
        """Write properties of a contact that is there."""
        self.contacts[id].update(properties)
        for address in self._addresses(id):
            if self.id_of(address) is None:
                self._ids[address] = id

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

    def authorised(self, request: httpx.Request) -> bool:
        """A private app's token."""
        return bool(request.headers.get("authorization") == f"Bearer {self.token}")

    def unauthorised(self) -> httpx.Response:
        """401."""
        return _error(401, "INVALID_AUTHENTICATION", "Authentication credentials not found.")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - HubSpot does not say
        """The body of the vendor's usage guidelines, with the `category` that its description requires.

        `Retry-After` is not among the documented headers.
        """
        words = {"status": "error", "message": "You have reached your limit.", "category": "RATE_LIMITS"}
        names = {"errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
        ids = {"correlationId": str(uuid4()), "requestId": str(uuid4())}
        return httpx.Response(429, json=words | names | ids)

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - it is not named
        """404."""
        return _error(404, "NOT_FOUND", "No such path.")

    def _route(self, request: httpx.Request) -> httpx.Response:
        try:
            return super()._route(request)
        except (AttributeError, LookupError, TypeError, ValueError):
            return _error(400, "VALIDATION_ERROR", "Invalid input JSON: it does not have the documented shape.")

    def rate_headers(self) -> Mapping[str, str]:
        """Those of the changelog of November 2018 that tell of the window."""
        limit = self.rate.requests if self.rate else 0
        window = {"Max": limit, "Remaining": self.room, "Interval-Milliseconds": 10_000}
        return {f"X-HubSpot-RateLimit-{name}": str(value) for name, value in window.items()}

    # -- contacts

    def _page(self, asked: Asked) -> httpx.Response:
        ids = list(self.contacts)[: int(asked.params.get("limit", 10))]
        return httpx.Response(200, json={"results": [self._contact(id) for id in ids]})

    def _read(self, asked: Asked) -> httpx.Response:
        """Missing ones are named in an error of the 207; its category and context are from memory."""
        body = asked.body
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

    def _upsert(self, asked: Asked) -> httpx.Response:
        def place(one: Json) -> tuple[str, bool]:
            id = self.id_of(one["id"])
            return (id, False) if id else (self.add_contact(one["id"]), True)

        return self._write(asked.body["inputs"], place)

    def _update(self, asked: Asked) -> httpx.Response:
        return self._write(asked.body["inputs"], lambda one: (one["id"], False), new=False)

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
            self.change_contact(id, **one["properties"])
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
        id = self._ids.get(email.lower())
        return id if id in self.contacts and email.lower() in self._addresses(id) else None

    def _addresses(self, id: str) -> set[str]:
        contact = self.contacts[id]
        several = f"{contact.get('email', '')};{contact.get('hs_additional_emails', '')}"
        return set(several.lower().split(";")) - {""}

    def _contact(self, id: str, wanted: set[str] | None = None) -> Json:
        properties = {k: v for k, v in self.contacts[id].items() if wanted is None or k in wanted}
        return {"id": id, "properties": properties, "createdAt": _MOMENT, "updatedAt": _MOMENT, "archived": False}

    def _described(self, asked: Asked) -> httpx.Response:  # noqa: ARG002 - it takes no parameters we send
        return httpx.Response(200, json={"results": [_property(name) for name in sorted(self.properties)]})

    # -- lists

    def _create(self, asked: Asked) -> httpx.Response:
        body = asked.body
        if any(one["name"] == body["name"] for one in self._titles.values()):
            return _error(400, "VALIDATION_ERROR", "A list of this name exists.")
        return httpx.Response(
            200, json={"list": self._titles[self.add_list(body["name"], body["processingType"])]}
        )

    def _move(self, asked: Asked) -> httpx.Response:
        """Members already in, or not in, are ignored and not named; unknown records are missing."""
        (id,), body = asked.parts, asked.body
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

    def _members(self, asked: Asked) -> httpx.Response:
        (id,), params = asked.parts, asked.params
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

    def _lists_of(self, asked: Asked) -> httpx.Response:
        def memberships(record: str) -> list[Json]:
            return [{"listId": id, "listVersion": 1} for id, members in self.lists.items() if record in members]

        records = [(one["objectTypeId"], one["recordId"]) for one in asked.body["inputs"]]
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


def _property(name: str) -> Json:
    """A property as CRM/Properties v3 shows it; `lifecyclestage` is an enumeration, the others are text."""
    choice = name == "lifecyclestage"
    return {
        "name": name,
        "label": name.capitalize(),
        "description": "",
        "groupName": "contactinformation",
        "type": "enumeration" if choice else "string",
        "fieldType": "radio" if choice else "text",
        "options": [],
        "modificationMetadata": {
            "archivable": True,
            "readOnlyDefinition": True,
            "readOnlyValue": name in _READ_ONLY,
        },
    }


def ready() -> Ready:
    """An account with a list, and 100 contacts who are not in it: person0@example.com and so on."""
    fake = FakeHubSpot()
    audience = fake.add_list("Lapsed buyers")
    for number in range(100):
        fake.add_contact(f"person{number}@example.com", firstname=f"Person {number}")

    def members(object: str, audience: str) -> set[str]:
        ids = fake.lists[audience] if object == "list_member" else fake.contacts
        return {fake.contacts[id]["email"] for id in ids}

    def know(object: str, people: Iterable[str]) -> None:
        for address in people if object == "list_member" else ():
            fake.add_contact(address)

    options = {"token": fake.token}
    audiences = {"list_member": audience}
    return Ready(fake, lambda url: {**options, "base_url": url}, audiences, members=members, know=know)
