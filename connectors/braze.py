"""Braze: users, membership as an attribute of theirs, and subscription groups.

Facts and where they come from. *Docs* are pages of braze.com/docs/api; the description (Braze's Postman
collection as OpenAPI) says little more than the names of the keys.

- `POST /users/track` writes attributes: an object a user, with one of `external_id`, `user_alias`, `braze_id`,
  `email`, `phone`; null takes an attribute away; `_update_existing_only` makes no new profile (docs, "Track
  users", "User attributes object").
- At most 75 objects a request, 50 in contracts of monthly active users 24-25; 3,000 requests in 3 seconds, older
  customers 50,000 a minute (docs, "Rate limits", "Track users"); bodies of 4 MB (from memory).
- It answers 201 with `message: success` and `attributes_processed`, how many objects were *queued*; an object
  that was refused stands in `errors` as `{index, input_array, type}`, the index from 0 within that array. The
  pages show the errors without their keys; those were seen in answers that other public integrations keep.
- `POST /v2/subscription/status/set` sets up to 50 people at once, 5,000 requests a minute, and answers
  `message: success` alone (docs, "Update user's subscription group status V2").
- 429 names in `X-RateLimit-Reset` when to come back, in seconds since 1970 (docs, "Rate limits").
- `GET /custom_attributes` pages through the attributes, 50 at a time, with a `Link` header (docs).

Braze queues what it takes and decides afterwards, so nothing here is said to be applied, only accepted.

Three objects. `user` writes profiles. `membership` keeps an audience as a boolean custom attribute that has the
audience's name: true for those who are in, false for those who left; segment by it. Not as elements of an array
attribute, for an array has 25 at most and drops the others without a word. `subscription_group` subscribes and
unsubscribes: that is consent, not an audience, so its removals are irreversible. Nobody is ever deleted.

The key of the REST API needs `users.track`, `subscription.status.set`, `segments.list` (for the check) and
`custom_attributes.get` (for the names of attributes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.http import reset_after
from sync.sdk.nouns import Batch, Change, Field, Limits, ObjectSpec, Op, Rate, Receipt, Status, Value
from sync.sdk.settled import every

__all__ = ["Braze", "BrazeConfig"]

_BYTES = 3_900_000
_QUEUED = "Braze queued the users, and does not say what becomes of each"
_IDENTIFIERS = {
    "external_id": Field("external_id", required=True, identifier=True, normalise="trim"),
    "email": Field("email", required=True, identifier=True, normalise="email"),
}
_PROFILE = (  # of the profile fields in "User attributes object"
    Field("first_name"),
    Field("last_name"),
    Field("email", normalise="email"),
    Field("phone", normalise="e164"),
    Field("country", normalise="upper", description="Two letters (ISO 3166-1)."),
    Field("home_city"),
    Field("dob", "date", description="Date of birth."),
)
_RESERVED = {  # profile fields and switches: none of them can be an audience
    *(one.name for one in _PROFILE),
    *("external_id", "user_alias", "braze_id", "push_token_import", "_update_existing_only", "_merge_objects"),
    *("email_subscribe", "push_subscribe", "subscription_groups", "push_tokens", "current_location", "image_url"),
    *("date_of_first_session", "date_of_last_session", "marked_email_as_spam_at", "facebook", "twitter"),
    *("gender", "language", "time_zone"),
}
_OTHER_PEOPLE = {"external_id", "user_alias", "braze_id", "push_token_import"}  # would name somebody else
_TYPES = {"number": "number", "boolean": "boolean", "date": "timestamp", "time": "timestamp", "object": "json"}
_NEXT = re.compile(r"[?&]cursor=([A-Za-z0-9_=%.~-]{1,500})[^>]*>\s*;\s*rel=\"?next")
_PAGES = 100  # of 50 attributes


class BrazeConfig(Config):
    """One workspace."""

    api_key: SecretStr = Option(description="Of the REST API, with the permissions listed below.")
    base_url: str = Option(
        "https://rest.iad-01.braze.com", description="The REST endpoint of your instance: Settings, APIs."
    )
    identify_by: Literal["external_id", "email"] = Option("external_id", description="How users are told apart.")
    create_users: bool = Option(True, description="Make profiles for those who are added and have none.")
    batch_size: int = Option(75, ge=1, le=75, description="50 in contracts of monthly active users 24-25.")


class _Refusal(Shape):
    index: int
    array: Literal["attributes"] = Option(alias="input_array")
    type: str = Option(min_length=1)


class _Tracked(Shape):
    message: Literal["success"]
    queued: int = Option(alias="attributes_processed", ge=0)
    errors: list[_Refusal] = Option([])


class _Set(Shape):
    message: Literal["success"]
    errors: list[Any] = Option([], max_length=0)


class _Attribute(Shape):
    name: str
    type: str | None = Option(None, alias="data_type")
    description: str | None = None


def _objects(by: str, size: int) -> Mapping[str, ObjectSpec]:
    who, profile = _IDENTIFIERS[by], [one for one in _PROFILE if one.name != by]
    track = Limits(batch_size=size, batch_bytes=_BYTES, concurrency=4, rates=(Rate(3000, 3.0),))
    set_status = Limits(batch_size=50, concurrency=4, rates=(Rate(5000, 60.0),))
    title = "Membership, as a boolean attribute"
    member = ObjectSpec("membership", title, frozenset(Op), (who,), track, open_fields=True)
    both, leaving, upserts = frozenset({Op.ADD, Op.REMOVE}), frozenset({Op.REMOVE}), frozenset({Op.ADD, Op.UPDATE})
    mixed = replace(track, mixed_ops=True)
    user = ObjectSpec("user", "User", upserts, (who, *profile), mixed, audience=False, open_fields=True)
    group = ObjectSpec("subscription_group", "Subscription group", both, (who,), set_status, irreversible=leaving)
    return {one.name: one for one in (user, member, group)}


class Braze(HttpConnector[BrazeConfig]):
    """Writes attributes and the state of subscription groups."""

    name = "braze"
    title = "Braze"
    docs = __doc__ or ""
    config_model = BrazeConfig
    objects = _objects("external_id", 75)

    def __init__(self, config: BrazeConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = _objects(config.identify_by, config.batch_size)

    @classmethod
    def auth(cls, config: BrazeConfig) -> httpx.Auth:
        """The key as a bearer token."""
        return Bearer(config.api_key)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`X-RateLimit-Reset`."""
        return reset_after(response, "x-ratelimit-reset", "epoch_s")

    def check(self) -> None:
        """Read the first segments."""
        read(list[Any], self.send("GET", "/segments/list"), at="segments")

    def request(self, batch: Batch) -> httpx.Request:
        """The one POST of a batch. Raises `RequestError` where the audience cannot be an attribute's name."""
        if batch.object == "subscription_group":
            return self.build("POST", "/v2/subscription/status/set", {"subscription_groups": [self._group(batch)]})
        flag = _attribute(batch.audience) if batch.object == "membership" else None
        return self.build("POST", "/users/track", {"attributes": [self._user(c, flag) for c in batch.changes]})

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        """Refused are those that an error points at; the others are accepted where the count fits."""
        if batch.object == "subscription_group":
            read(_Set, response)
            return every(batch.changes, Status.ACCEPTED, _QUEUED)
        done = read(_Tracked, response)
        refused = {error.index: error.type for error in done.errors}
        sent = len(batch.changes)
        if not refused.keys() <= set(range(sent)) or done.queued + len(refused) != sent:
            raise ProtocolError("Braze's answer does not account for every user it was sent", response.text)
        return [
            Receipt(change.key, Status.REJECTED, refused[index])
            if index in refused
            else Receipt(change.key, Status.ACCEPTED, _QUEUED)
            for index, change in enumerate(batch.changes)
        ]

    def describe(self, object: str) -> list[Field]:
        """The profile's fields and the workspace's custom attributes; none for a subscription group."""
        known = {one.name: one for one in self.objects[object].fields}
        if object == "subscription_group":
            return list(known.values())
        known |= {one.name: one for one in _PROFILE if one.name not in known}
        for one in self._custom_attributes():
            kind = _TYPES.get((one.type or "").partition(" ")[0].lower(), "string")
            known.setdefault(one.name, Field(one.name, kind, description=one.description or ""))
        return list(known.values())

    def _custom_attributes(self) -> Iterable[_Attribute]:
        cursor: str | None = None
        for _ in range(_PAGES):
            response = self.send("GET", "/custom_attributes", params={"cursor": cursor} if cursor else {})
            yield from read(list[_Attribute], response, at="attributes")
            following = _NEXT.search(response.headers.get("link", ""))
            if following is None or following[1] == cursor:
                return
            cursor = following[1]

    def _who(self, change: Change) -> str:
        return str(change.identifiers[self.config.identify_by])

    def _group(self, batch: Batch) -> dict[str, Value]:
        leaving = batch.changes[0].op is Op.REMOVE
        return {
            "subscription_group_id": batch.audience or "",
            "subscription_state": "unsubscribed" if leaving else "subscribed",
            f"{self.config.identify_by}s": [self._who(change) for change in batch.changes],
        }

    def _user(self, change: Change, flag: str | None) -> dict[str, Value]:
        """One user. Whoever leaves has a profile already, or needs none."""
        if wrong := change.fields.keys() & _OTHER_PEOPLE:
            fix = "set `identify_by`, and map that identifier"
            raise RequestError(f"the field `{min(wrong)}` would say whom Braze writes to", fix=fix)
        leaving = change.op is Op.REMOVE
        member = {} if flag is None else {flag: not leaving}
        only_known = leaving or not self.config.create_users
        who = {str(self.config.identify_by): self._who(change)}
        return {**change.fields, **member, "_update_existing_only": only_known, **who}


def _attribute(audience: str | None) -> str:
    """The audience as a custom attribute's name: 255 characters, no `$` first (from memory, not confirmed)."""
    name = audience or ""
    if not name.strip() or name.startswith("$") or len(name) > 255 or name in _RESERVED:
        fix = "give the name of a boolean custom attribute as `audience`; it is made when it is first written"
        raise RequestError("the audience cannot be the name of a Braze custom attribute", fix=fix)
    return name
