"""An Iterable project in memory: users, static lists and the fields of users.

Shapes are those of Iterable's own TypeScript client; reasons, codes and caps those of api.iterable.com/api/docs.
The texts of messages are made up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import httpx

from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeIterable", "ready"]

Json = dict[str, Any]
_EMAIL = re.compile(r"(?!\.)(?!.*\.\.)[A-Za-z0-9_'+\-.]*[A-Za-z0-9_+-]@([A-Za-z0-9][A-Za-z0-9-]*\.)+[A-Za-z]{2,}")
_USER_ID = re.compile(r"[ -~]{0,254}[!-~]")
_KINDS: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "long": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "double": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
}
_MOST, _BYTES = 1000, 4_000_000


class FakeIterable(Fake):
    """`users` has data fields by identifier, `lists` the identifiers of members by number, `fields` the type of
    each field; an unknown field is made, or dropped where `takes_new_fields` is False. Whoever is in `forgotten`
    is refused, and `opted_out` has those who were unsubscribed from a whole channel. Users are identified by `by`.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", "/api/lists", "_lists"),
        ("POST", "/api/lists", "_create"),
        ("GET", "/api/lists/getUsers", "_members"),
        ("POST", "/api/lists/subscribe", "_subscribe"),
        ("POST", "/api/lists/unsubscribe", "_unsubscribe"),
        ("POST", "/api/users/bulkUpdate", "_bulk"),
        ("GET", "/api/users/getFields", "_fields"),
    )

    def __init__(self, api_key: str = "key-test", *, by: str = "email", **options: Any) -> None:
        super().__init__(**options)
        self.api_key = api_key
        self.by = by
        self.takes_new_fields = True
        self.users: dict[str, Json] = {}
        self.lists: dict[int, set[str]] = {}
        self.fields: dict[str, str] = {by: "string", "firstName": "string", "vip": "boolean", "ltv": "double"}
        self.forgotten: set[str] = set()
        self.opted_out: set[str] = set()
        self._titles: dict[int, Json] = {}

    def add_list(self, name: str, kind: str = "Standard") -> int:
        """A list that was there before; its number."""
        id = 1001 + len(self.lists)
        self.lists[id] = set()
        self._titles[id] = {"id": id, "name": name, "listType": kind, "createdAt": 1767312245000}
        return id

    # -- what every answer has in common

    def authorised(self, request: httpx.Request) -> bool:
        """By the header `Api-Key`."""
        return bool(request.headers.get("api-key") == self.api_key)

    def unauthorised(self) -> httpx.Response:
        """401."""
        return _error(401, "BadApiKey", "Invalid API key")

    def too_fast(self, wait: float) -> httpx.Response:
        """429; when to come back stands in the body."""
        limit = self.rate.requests if self.rate else 0
        room = {"rateLimitLimit": limit, "rateLimitRemaining": 0, "rateLimitReset": wait}
        return _error(429, "RateLimitExceeded", "Exceeded rate limit for the endpoint", room)

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever was asked
        """404."""
        return _error(404, "NotFound", "No such endpoint")

    # -- lists

    def _lists(self, _: Asked) -> httpx.Response:
        return httpx.Response(200, json={"lists": list(self._titles.values())})

    def _create(self, asked: Asked) -> httpx.Response:
        name = asked.body.get("name")
        if not isinstance(name, str) or not name:
            return _error(400, "BadJsonBody", "The list needs a name")
        return httpx.Response(200, json={"listId": self.add_list(name)})

    def _members(self, asked: Asked) -> httpx.Response:
        id = asked.params.get("listId", "")
        if not id.isdigit() or int(id) not in self.lists:
            return _no_list()
        return httpx.Response(200, text="".join(f"{one}\n" for one in sorted(self.lists[int(id)])))

    def _subscribe(self, asked: Asked) -> httpx.Response:
        body = asked.body
        only_known = body.get("updateExistingUsersOnly") is True
        return self._several(asked, "subscribers", self._list(body), known=only_known)

    def _unsubscribe(self, asked: Asked) -> httpx.Response:
        body = asked.body
        if body.get("channelUnsubscribe"):
            self.opted_out |= {user.get(self.by) for user in body.get("subscribers", [])}
        return self._several(asked, "subscribers", self._list(body), known=True, leave=True)

    def _list(self, body: Json) -> set[str] | None:
        id = body.get("listId")
        known = isinstance(id, int) and self._titles.get(id, {}).get("listType") == "Standard"
        return self.lists[id] if known and isinstance(id, int) else None

    # -- users

    def _bulk(self, asked: Asked) -> httpx.Response:
        return self._several(asked, "users", set())

    def _fields(self, _: Asked) -> httpx.Response:
        return httpx.Response(200, json={"fields": self.fields})

    def _several(
        self, asked: Asked, key: str, members: set[str] | None, *, known: bool = False, leave: bool = False
    ) -> httpx.Response:
        """Take what can be taken; a request is refused whole for its form, or where a field has another type."""
        users = asked.body.get(key)
        if members is None:
            return _no_list()
        if len(asked.request.content) > _BYTES:
            return _error(413, "BatchTooLarge", "The body is larger than 4 MB")
        if not isinstance(users, list) or not users or len(users) > _MOST:
            return _error(400, "BatchTooLarge" if users else "BadJsonBody", f"`{key}` takes 1 to {_MOST} users")
        if any(len(user.keys() & {"email", "userId"}) != 1 or self.by not in user for user in users):
            return _error(400, "BadJsonBody", f"each user has {self.by}, and no other identifier")
        if wrong := self._wrong_type(users):
            return _error(400, "RequestFieldsTypesMismatched", f"The field {wrong} has another type")
        failed: dict[str, list[str]] = {}
        for user in users:
            if kind := self._refusal(user[self.by], known=known):
                failed.setdefault(f"{kind}{'Emails' if self.by == 'email' else 'UserIds'}", []).append(
                    user[self.by]
                )
            else:
                self._take(user, members, leave=leave)
        failures = sum(map(len, failed.values()))
        counts: Json = {"successCount": len(users) - failures, "failCount": failures, "failedUpdates": failed}
        return httpx.Response(200, json=counts | {"filteredOutFields": self._unknown(users), "createdFields": []})

    def _refusal(self, id: Any, *, known: bool) -> str:
        shape = _EMAIL if self.by == "email" else _USER_ID
        if not isinstance(id, str) or not shape.fullmatch(id):
            return "invalid"
        if id in self.forgotten:
            return "forgotten"
        return "notFound" if known and id not in self.users else ""

    def _take(self, user: Json, members: set[str], *, leave: bool) -> None:
        id = user[self.by]
        if leave:
            members.discard(id)
            return
        members.add(id)
        fields = {k: v for k, v in user.get("dataFields", {}).items() if self.takes_new_fields or k in self.fields}
        self.users.setdefault(id, {}).update(fields)

    def _wrong_type(self, users: list[Json]) -> str:
        for user in users:
            fields: Json = user.get("dataFields", {})
            for name, value in fields.items():
                kind = _KINDS.get(self.fields.get(name, ""))
                if kind is not None and value is not None and not kind(value):
                    return name
        return ""

    def _unknown(self, users: list[Json]) -> list[str]:
        names = {name for user in users for name in user.get("dataFields", {})}
        return [] if self.takes_new_fields else sorted(names - self.fields.keys())


def _error(status: int, code: str, message: str, params: Json | None = None) -> httpx.Response:
    return httpx.Response(status, json={"msg": message, "code": code, "params": params})


def _no_list() -> httpx.Response:
    return _error(400, "BadParams", "error.lists.invalidListId")


def ready() -> Ready:
    """A project with an empty list."""
    fake = FakeIterable()
    list_id = fake.add_list("Lapsed buyers")

    def members(object: str, audience: str) -> set[str]:
        return set(fake.users) if object == "user" else fake.lists[int(audience)]

    audiences = {"list_member": str(list_id)}
    return Ready(fake, lambda url: {"api_key": "key-test", "base_url": url}, audiences, members=members)
