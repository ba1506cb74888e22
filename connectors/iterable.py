"""Iterable: members of a static list, and users.

Facts and where they come from. *Schema* is that of Iterable's own TypeScript client (npm `@iterable/api` 0.13.0),
*docs* the text of api.iterable.com/api/docs.

- `POST /api/lists/subscribe` and `/api/lists/unsubscribe` take a list's number and users by `email` or `userId`,
  one of the two each; `POST /api/users/bulkUpdate` takes the same users (schema). A user who is unknown is made,
  unless `updateExistingUsersOnly` is set, which user-id and hybrid projects respect (docs).
- The answer is a 200 with `successCount`, `failCount` and, by reason, the users who failed (schema, docs):
  whoever is named was refused; the others were taken where the counts say so.
- `filteredOutFields` are fields that the project does not have and does not make (docs): they were not written.
- At most 1,000 users a request, as other public integrations send (no cap is documented); a body has at most
  4 MB, and bulkUpdate takes 5 requests a second of a project (docs). For lists no rate is documented: the same is
  kept. A 429 says in `params.rateLimitReset` in how many seconds to come back (docs).
- `GET /api/lists/getUsers` lists a list's users as text, one a line, 5 requests a minute (docs).
- `GET /api/users/getFields` has the project's fields and their types (docs; the types' names are from memory).

`channelUnsubscribe` would unsubscribe a person from everything the list's channel sends. It is never sent: leaving
an audience is no opt-out, and nobody is ever deleted or forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable as Several
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Header
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.http import retry_after
from sync.sdk.nouns import Batch, Change, Field, Limits, Member, ObjectSpec, Op, Page, Rate, Receipt, Status, Value
from sync.sdk.settled import every
from sync.sdk.values import json_object

__all__ = ["Iterable", "IterableConfig"]

_LIMITS = Limits(batch_size=1000, batch_bytes=3_900_000, concurrency=4, rates=(Rate(5, 1.0),))
_FIELDS = {
    "email": Field("email", required=True, identifier=True, normalise="email"),
    "userId": Field("userId", required=True, identifier=True, normalise="trim"),
}
_SHAPES = {"email": re.compile(r"[^\s@]+@[^\s@]+"), "userId": re.compile(r"[!-~]{1,255}")}
_TYPES = {"long": "integer", "double": "number", "boolean": "boolean", "date": "timestamp", "object": "json"}
_WHY = {
    "invalid": "the identifier is malformed",
    "invalidData": "a field has a value that Iterable does not take",
    "conflict": "another user has this identity",
    "forgotten": "the person asked to be forgotten (GDPR), and is not taken again",
    "notFound": "Iterable has no such user",
}
_GONE = {"notFound", "forgotten"}  # whoever is not there is on no list


class IterableConfig(Config):
    """One Iterable project."""

    api_key: SecretStr = Option(description="A server-side API key of the project.")
    base_url: str = Option("https://api.iterable.com", description="The EU has https://api.eu.iterable.com.")
    identify_by: Literal["email", "userId"] = Option("email", description="How the project tells users apart.")
    create_users: bool = Option(
        True, description="Make users who are unknown; `false` is respected by user-id and hybrid projects only."
    )


class _Done(Shape):
    """What became of the users of a request."""

    successes: int = Option(alias="successCount", ge=0)
    failures: int = Option(alias="failCount", ge=0)
    failed: dict[str, list[str]] = Option({}, alias="failedUpdates")
    dropped: list[str] = Option([], alias="filteredOutFields")
    success: Literal[True] = True  # not documented, and not to be overheard

    def refused(self, by: str) -> dict[str, str]:
        """Why, by identifier: of the lists that name people as `by` does."""
        ending = "Emails" if by == "email" else "UserIds"
        lists = [
            (name.removesuffix(ending), names) for name, names in self.failed.items() if name.endswith(ending)
        ]
        return {_same(name, by): kind for kind, names in lists for name in names}


class _Created(Shape):
    id: int = Option(alias="listId", gt=0)


def _objects(by: str) -> Mapping[str, ObjectSpec]:
    who = (_FIELDS[by],)
    member = ObjectSpec("list_member", "Member of a static list", frozenset(Op), who, _LIMITS, open_fields=True)
    user = replace(member, name="user", title="User", ops=frozenset({Op.ADD, Op.UPDATE}), audience=False)
    return {one.name: one for one in (member, user)}


class Iterable(HttpConnector[IterableConfig]):
    """Keeps static lists and users. Fields, of list members too, are written to the user's profile."""

    name = "iterable"
    title = "Iterable"
    docs = __doc__ or ""
    config_model = IterableConfig
    objects = _objects("email")

    def __init__(self, config: IterableConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = _objects(config.identify_by)

    @classmethod
    def auth(cls, config: IterableConfig) -> httpx.Auth:
        """The header `Api-Key`."""
        return Header("Api-Key", config.api_key)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`Retry-After`, or the answer's `params.rateLimitReset`."""
        params = (json_object(response.content) or {}).get("params")
        said = params.get("rateLimitReset") if isinstance(params, dict) else None
        seconds = isinstance(said, int | float) and not isinstance(said, bool) and 0 <= said < 86400
        return retry_after(response) or (float(said) if seconds and said is not None else None)

    def check(self) -> None:
        """Read the project's lists."""
        read(list[dict[str, Any]], self.send("GET", "/api/lists"), at="lists")

    def request(self, batch: Batch) -> httpx.Request:
        """The one POST of a batch; raise `RequestError` where the audience is no list's number."""
        users: list[Value] = [self._user(change) for change in batch.changes]
        if batch.object == "user":
            return self.build("POST", "/api/users/bulkUpdate", {"users": users})
        body: dict[str, Value] = {"listId": _list_id(batch.audience), "subscribers": users}
        if batch.changes[0].op is Op.REMOVE:
            return self.build("POST", "/api/lists/unsubscribe", body)
        body["updateExistingUsersOnly"] = not self.config.create_users
        return self.build("POST", "/api/lists/subscribe", body)

    def receipts(self, batch: Batch, response: httpx.Response) -> Several[Receipt]:
        """Rejected are those whom the answer names; the others are applied where its counts say so."""
        done = read(_Done, response)
        by = self.config.identify_by
        refused, ids = done.refused(by), [_same(self._id(c), by) for c in batch.changes]
        named = sum(id in refused for id in ids)
        whole = done.successes + done.failures == len(ids)
        if not whole or named > done.failures:
            return every(batch.changes, Status.UNKNOWN, "Iterable's counts do not fit its lists")
        rest = "" if named == done.failures else "Iterable does not name everybody whom it refused"
        pairs = zip(batch.changes, ids, strict=True)
        return [_receipt(c, refused.get(id), rest or _dropped(c, done.dropped)) for c, id in pairs]

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only lists are audiences
        """Make a static list; its number."""
        return str(read(_Created, self.send("POST", "/api/lists", {"name": title})).id)

    def describe(self, object: str) -> list[Field]:  # noqa: ARG002 - both are users
        """The project's user fields."""
        found = read(dict[str, str], self.send("GET", "/api/users/getFields"), at="fields")
        own = {name for name in found if not name.startswith("itblInternal")} - {self.config.identify_by}
        return [_FIELDS[self.config.identify_by], *(Field(n, _TYPES.get(found[n], "string")) for n in sorted(own))]

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - one page
        """Everybody on a list. Raises `ProtocolError` where the text has something else than identifiers."""
        by = self.config.identify_by
        params: dict[str, str | int] = {"listId": _list_id(audience), "preferUserId": str(by == "userId").lower()}
        response = self.send("GET", "/api/lists/getUsers", params=params)
        lines = response.text.splitlines()
        plain = response.headers.get("content-type", "").startswith("text/plain")
        if not plain or not all(map(_SHAPES[by].fullmatch, lines)):
            raise ProtocolError("Iterable's answer is not a list of users, one a line", response.text)
        return Page([Member({by: line}) for line in lines])

    def _id(self, change: Change) -> str:
        return str(change.identifiers[self.config.identify_by])

    def _user(self, change: Change) -> dict[str, Value]:
        user: dict[str, Value] = {self.config.identify_by: self._id(change)}
        return user | ({"dataFields": dict(change.fields)} if change.fields else {})


def _same(identifier: str, by: str) -> str:
    """What is equal where Iterable takes two identifiers for the same: addresses in any case."""
    return identifier.lower() if by == "email" else identifier


def _list_id(audience: str | None) -> int:
    if audience and audience.isascii() and audience.isdigit() and len(audience) < 16:
        return int(audience)
    fix = "give the number of a static list as `audience`; Iterable shows it beside the list's name"
    raise RequestError("an Iterable list has a number, and the audience is none", fix=fix)


def _dropped(change: Change, dropped: Sequence[str]) -> str:
    """Why fields of a change were not all written; empty where they were."""
    lost = sorted({name.partition(".")[0] for name in dropped} & change.fields.keys())
    names = ", ".join(f"`{name}`" for name in lost)
    return f"Iterable dropped {names}: let the project take new fields, or make them there" if lost else ""


def _receipt(change: Change, refused: str | None, doubt: str) -> Receipt:
    if refused is None:
        return Receipt(change.key, Status.UNKNOWN if doubt else Status.APPLIED, doubt)
    if change.op is Op.REMOVE and refused in _GONE:
        return Receipt(change.key, Status.APPLIED)
    return Receipt(change.key, Status.REJECTED, _WHY.get(refused, "Iterable could not update this user"))
