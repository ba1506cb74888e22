"""A Mailchimp account in memory: one audience, its contacts, merge fields and static segments.

It answers in the shapes of Mailchimp's own description of the Marketing API 3.0; what that leaves open is marked.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterable
from typing import Any, ClassVar

import httpx

from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeMailchimp", "ready"]

Json = dict[str, Any]
_MOMENT = "2026-01-02T03:04:05+00:00"
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_STATUSES = {"subscribed", "unsubscribed", "cleaned", "pending", "transactional"}
_CONNECTIONS = 10


class FakeMailchimp(Fake):
    """`contacts` has contacts by the hash of their address, `segments` hashes by segment id.

    Eleven requests at the same time are one too many. `forgotten` addresses were deleted for good; `slow` is how
    many seconds an answer takes.
    """

    _list = "/3.0/lists/([^/]+)"
    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", f"{_list}/members", "_contacts"),
        ("PUT", f"{_list}/members/([^/]+)", "_put"),
        ("GET", f"{_list}/members/([^/]+)/tags", "_tags"),
        ("GET", f"{_list}/merge-fields", "_merge_fields"),
        ("POST", f"{_list}/segments", "_create"),
        ("POST", f"{_list}/segments/([^/]+)", "_move"),
        ("GET", f"{_list}/segments/([^/]+)/members", "_members"),
    )

    def __init__(
        self, api_key: str = "0123456789abcdef-us6", list_id: str = "a1b2c3d4e5", slow: float = 0.0
    ) -> None:
        super().__init__()
        self.api_key = api_key
        self.list_id = list_id
        self.slow = slow
        self.merge_fields: dict[str, str] = {"FNAME": "text", "LNAME": "text"}
        self.contacts: dict[str, Json] = {}
        self.segments: dict[str, set[str]] = {}
        self.titles: dict[str, str] = {}
        self.saved: set[str] = set()
        self.forgotten: set[str] = set()
        self._open = 0
        self._gate = threading.Lock()

    # -- what was there before

    def add_contact(self, email: str, status: str = "subscribed", **merge_fields: Any) -> str:
        """A contact; the hash of its address."""
        hash = hash_of(email)
        self.contacts[hash] = {"email_address": email, "status": status, "merge_fields": merge_fields}
        return hash

    def add_segment(self, title: str, *, static: bool = True) -> str:
        """A segment; its id."""
        id = str(100 + len(self.segments))
        self.segments[id], self.titles[id] = set(), title
        if not static:
            self.saved.add(id)
        return id

    # -- what every request meets

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer, unless too many are being answered."""
        with self._gate:
            self._open += 1
            too_many = self._open > _CONNECTIONS
        try:
            if too_many:
                self.refused += 1
                return self.too_fast(0.0)
            if self.slow:
                time.sleep(self.slow)
            return super().__call__(request)
        finally:
            with self._gate:
                self._open -= 1

    def authorised(self, request: httpx.Request) -> bool:
        """Any user name, and the key."""
        scheme, _, pair = request.headers.get("authorization", "").partition(" ")
        try:
            return scheme == "Basic" and base64.b64decode(pair).decode().partition(":")[2] == self.api_key
        except (binascii.Error, UnicodeDecodeError):
            return False

    def unauthorised(self) -> httpx.Response:
        """401."""
        return _problem(401, "API Key Invalid", "Your API key may be invalid.")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - no header says so
        """429, and no word of when to come back."""
        return _problem(429, "Too Many Requests", "You have exceeded the limit of 10 simultaneous connections.")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - one answer for all
        """404."""
        return _missing()

    def _route(self, request: httpx.Request) -> httpx.Response:
        if request.url.path.split("/")[3:4] != [self.list_id]:
            return _missing()
        return super()._route(request)

    # -- contacts

    def _contacts(self, asked: Asked) -> httpx.Response:
        return self._page(sorted(self.contacts), asked)

    def _put(self, asked: Asked) -> httpx.Response:
        _, hash = asked.parts
        email = asked.body.get("email_address", "")
        if not _EMAIL.fullmatch(email) or hash != hash_of(email):
            problem = {"field": "email_address", "message": "Please provide a valid email address."}
            return _problem(400, "Invalid Resource", "The resource submitted could not be validated.", [problem])
        if email.lower() in self.forgotten:
            return _problem(400, "Forgotten Email Not Subscribed", f"{email} was permanently deleted.")
        if hash not in self.contacts and asked.body.get("status_if_new") not in _STATUSES:
            return _problem(400, "Invalid Resource", "status_if_new is required for a new contact.")
        given = asked.body.get("merge_fields", {})
        wrong = [
            tag for tag, v in given.items() if self.merge_fields.get(tag) == "number" and isinstance(v, str) and v
        ]
        if wrong:
            problems = [{"field": tag, "message": "Please enter a number"} for tag in wrong]
            return _problem(400, "Invalid Resource", "Your merge fields were invalid.", problems)
        new = {"email_address": email, "status": asked.body.get("status_if_new"), "merge_fields": {}}
        contact = self.contacts.setdefault(hash, new)
        contact["merge_fields"] |= {tag: v for tag, v in given.items() if tag in self.merge_fields}
        contact |= {k: asked.body[k] for k in ("language", "vip", "email_type", "interests") if k in asked.body}
        return httpx.Response(200, json=self._shown(hash))

    def _shown(self, hash: str) -> Json:
        contact = self.contacts[hash]
        tags = self._tags_of(hash)
        every = dict.fromkeys(self.merge_fields, "") | contact["merge_fields"]
        more = {"tags_count": len(tags), "tags": [{k: t[k] for k in ("id", "name")} for t in tags]}
        return {**contact, "id": hash, "merge_fields": every, "list_id": self.list_id, **more}

    def _tags_of(self, hash: str) -> list[Json]:
        return [
            {"id": int(id), "name": self.titles[id], "date_added": _MOMENT}
            for id, members in self.segments.items()
            if hash in members
        ]

    def _tags(self, asked: Asked) -> httpx.Response:
        _, hash = asked.parts
        if hash not in self.contacts:
            return _missing()
        tags = self._tags_of(hash)
        return httpx.Response(
            200, json={"tags": tags[: int(asked.params.get("count", 10))], "total_items": len(tags)}
        )

    def _merge_fields(self, _: Asked) -> httpx.Response:
        """As the vendor's page on merge fields has it; it is not in the description."""
        found = [
            {"merge_id": n, "tag": tag, "name": tag.title(), "type": kind, "required": False}
            for n, (tag, kind) in enumerate(self.merge_fields.items(), 1)
        ]
        return httpx.Response(
            200, json={"merge_fields": found, "list_id": self.list_id, "total_items": len(found)}
        )

    # -- segments

    def _create(self, asked: Asked) -> httpx.Response:
        """As the vendor's page on segments has it; it is not in the description."""
        if asked.body["name"] in self.titles.values():
            return _problem(400, "Bad Request", "Sorry, that tag already exists.")
        id = self.add_segment(asked.body["name"])
        return httpx.Response(200, json={"id": int(id), "name": asked.body["name"], "type": "static"})

    def _move(self, asked: Asked) -> httpx.Response:
        """Who is in already, or not in, is not named; addresses that are no contact are an error, or ignored."""
        _, id = asked.parts
        add, remove = asked.body.get("members_to_add", []), asked.body.get("members_to_remove", [])
        if id not in self.segments:
            return _missing()
        if id in self.saved or len(add) > 500 or len(remove) > 500:
            words = "At most 500 members." if id not in self.saved else "This segment is not static."
            return _problem(400, "Bad Request", words)
        members = self.segments[id]
        added = [h for e in add if (h := hash_of(e)) in self.contacts and h not in members]
        removed = [h for e in remove if (h := hash_of(e)) in members]
        bad = [e for e in add if not _EMAIL.fullmatch(e)]
        self.segments[id] = (members | set(added)) - set(removed)
        answer = {
            "members_added": [self._brief(hash) for hash in added],
            "members_removed": [self._brief(hash) for hash in removed],
            "errors": [{"email_addresses": bad, "error": "Email address is invalid."}] if bad else [],
            "total_added": len(added),
            "total_removed": len(removed),
            "error_count": len(bad),
        }
        return httpx.Response(200, json=answer)

    def _members(self, asked: Asked) -> httpx.Response:
        _, id = asked.parts
        if id not in self.segments:
            return _missing()
        hidden = {"unsubscribed", "cleaned", "transactional"}
        hidden -= {status for status in hidden if asked.params.get(f"include_{status}") == "true"}
        return self._page(
            [h for h in sorted(self.segments[id]) if self.contacts[h]["status"] not in hidden], asked
        )

    def _page(self, hashes: list[str], asked: Asked) -> httpx.Response:
        start, count = int(asked.params.get("offset", 0)), int(asked.params.get("count", 10))
        if count > 1000:
            return _problem(400, "Bad Request", "The count is at most 1000.")
        members = [self._brief(hash) for hash in hashes[start : start + count]]
        return httpx.Response(200, json={"members": members, "total_items": len(hashes)})

    def _brief(self, hash: str) -> Json:
        return {"id": hash, "email_address": self.contacts[hash]["email_address"]}


def hash_of(email: str) -> str:
    """What stands for an address in paths."""
    return hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest()


def _missing() -> httpx.Response:
    return _problem(404, "Resource Not Found", "The requested resource could not be found.")


def _problem(status: int, title: str, detail: str, errors: list[Json] | None = None) -> httpx.Response:
    words = {"type": "https://mailchimp.com/developer/marketing/docs/errors/", "title": title, "status": status}
    body: Json = words | {"detail": detail, "instance": "5f3c8f6e"} | ({"errors": errors} if errors else {})
    headers = {"content-type": "application/problem+json"}
    return httpx.Response(status, content=json.dumps(body).encode(), headers=headers)


def ready() -> Ready:
    """An account with a segment and somebody in it."""
    app = FakeMailchimp()
    segment = app.add_segment("Lapsed buyers")
    app.segments[segment].add(app.add_contact("ada@example.com", FNAME="Ada"))
    options = {"api_key": app.api_key, "list_id": app.list_id}

    def members(object: str, audience: str) -> set[str]:
        hashes = app.contacts if object == "member" else app.segments[audience]
        return {app.contacts[hash]["email_address"] for hash in hashes}

    def know(object: str, people: Iterable[str]) -> None:
        for address in people if object == "segment_member" else ():
            app.add_contact(address)

    audiences = {"segment_member": segment}
    return Ready(app, lambda url: options | {"base_url": f"{url}/3.0"}, audiences, members=members, know=know)
