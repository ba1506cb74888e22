"""Mailchimp: contacts of an audience, and members of its static segments, which Mailchimp also shows as tags.

Facts and where they come from. *Spec* is Mailchimp's own description of the Marketing API 3.0 (3.0.55), *docs* its
developer pages as quoted elsewhere, *memory* means: not confirmed.

- `PUT /lists/{list}/members/{hash}` adds or updates one contact; the hash is the MD5 of the address in lower case.
  `status_if_new` is required and touches only who is new: nobody's subscription is changed (spec). There is a call
  for 500 contacts at once; it sets the status of those who are there as well, so it is not used.
- A merge field that the audience does not have is dropped without a word (memory); the answer has all it kept.
- `POST /lists/{list}/segments/{id}` with `members_to_add` and `members_to_remove`, 500 each, for static segments.
  Addresses that are not in the audience are ignored; the answer names whom it added and removed, and has
  `errors` by address (spec). Whoever it leaves open is looked up: `GET .../members/{hash}/tags` (spec) has the
  segment among the tags, under the same number (memory).
- `GET .../segments/{id}/members` leaves out cleaned, transactional and unsubscribed contacts unless asked (spec).
- `POST /lists/{list}/segments` and `GET /lists/{list}/merge-fields` are on the developer pages, and not in the
  part of the description at hand.
- 10 connections at the same time and no other limit; too many get 429, very many 429 or 403 without a body; no
  header says for how long (docs).
- The host is that of the key's data centre, the part after its hyphen (docs, "Fundamentals").

Nobody is unsubscribed, archived or deleted here: `DELETE .../members/{hash}` archives, so it is never sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr, ValidationInfo, field_validator

from sync.errors import DestinationError, ProtocolError, RateLimited, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Basic
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Change, Member, Outcome, Page, Receipt, Status, Value
from sync.sdk.objects import Field, Limits, ObjectSpec, Op
from sync.sdk.values import path_part

__all__ = ["Mailchimp", "MailchimpConfig"]

_CENTRE = re.compile(r"-([a-z]{2,4}\d{1,4})$")
_PAGE = 1000  # the most there is (spec)
_OWN = frozenset({"language", "email_type", "vip"})  # fields of a contact that are no merge fields
_TYPES = {"number": "number", "date": "date", "address": "json"}
_NOT_THERE = "this address is not in the Mailchimp audience: sync it as a `member` first"
_SILENT = "Mailchimp's answer does not say what became of this address"
_EMAIL = Field("email_address", required=True, identifier=True, normalise="email")


class MailchimpConfig(Config):
    """One audience of a Mailchimp account, reached with an API key."""

    base_url: str = Option("", description="Where the API is; empty: at the key's data centre.")
    api_key: SecretStr = Option(description="Ends with its data centre: ...-us6.")
    list_id: str = Option(min_length=1, description="The audience: its settings have the id, such as a1b2c3d4e5.")
    status_if_new: Literal["transactional", "pending", "subscribed", "unsubscribed"] = Option(
        "transactional",
        description="What somebody becomes who is new: `transactional` gets no campaigns, `pending` is asked to "
        "confirm; choose `subscribed` only where everybody in the cohort has consented.",
    )

    @field_validator("api_key")  # of the key, not of the whole: files are judged with a placeholder for it
    @classmethod
    def _has_centre(cls, key: SecretStr, known: ValidationInfo) -> SecretStr:
        if not known.data.get("base_url") and not _CENTRE.search(key.get_secret_value()):
            raise ValueError("the API key does not end with its data centre, such as -us6")
        return key


class _Contact(Shape):
    id: str = ""
    email_address: str = Option(min_length=1)


class _Kept(_Contact):
    merge_fields: dict[str, Value] | None = None


class _FieldProblem(Shape):
    field: str = ""
    message: str = ""


class _Problem(Shape):
    title: str
    detail: str
    errors: list[_FieldProblem] = Option(default_factory=list)

    def __str__(self) -> str:
        fields = (f"{one.field}: {one.message}".strip(": ") for one in self.errors)
        return f"{self.title}: {'; '.join([self.detail, *fields])}"


class _Refused(Shape):
    email_addresses: list[str]
    error: str


class _Moved(Shape):
    members_added: list[_Contact]
    members_removed: list[_Contact]
    errors: list[_Refused]


class _Tag(Shape):
    id: str


class _Tags(Shape):
    tags: list[_Tag]
    total_items: int


class _Contacts(Shape):
    members: list[_Contact]
    total_items: int


class _MergeField(Shape):
    tag: str
    name: str = ""
    type: str
    required: bool = False


class Mailchimp(Connector[MailchimpConfig]):
    """Keeps contacts, and static segments of them. Fields of a contact are merge fields, by their tags.

    `language`, `email_type`, `vip` and `interests.ID` are fields of the contact itself.
    """

    name = "mailchimp"
    title = "Mailchimp"
    docs = __doc__ or ""
    config_model = MailchimpConfig
    objects: Mapping[str, ObjectSpec] = {
        "member": ObjectSpec(
            name="member",
            title="Contact of the audience",
            ops=frozenset({Op.ADD, Op.UPDATE}),
            fields=(_EMAIL,),
            limits=Limits(batch_size=25, concurrency=8, mixed_ops=True),
            audience=False,
            open_fields=True,
        ),
        "segment_member": ObjectSpec(
            name="segment_member",
            title="Member of a static segment (tag)",
            ops=frozenset({Op.ADD, Op.REMOVE}),
            fields=(_EMAIL,),
            limits=Limits(batch_size=500, concurrency=4),
        ),
    }

    def __init__(self, config: MailchimpConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self._list = f"/lists/{path_part(config.list_id)}"

    @classmethod
    def base_url(cls, config: MailchimpConfig) -> str:
        """The API's address in the key's data centre."""
        centre = _CENTRE.search(config.api_key.get_secret_value())
        return config.base_url or f"https://{centre[1] if centre else 'unknown'}.api.mailchimp.com/3.0"

    @classmethod
    def auth(cls, config: MailchimpConfig) -> httpx.Auth:
        """The key as password, with any user name (docs)."""
        return Basic("headgate", config.api_key)

    @classmethod
    def refusal(cls, response: httpx.Response) -> type[DestinationError] | None:
        """A 403 without a body is that of a server that is asked too much."""
        return RateLimited if response.status_code == 403 and not response.content.strip() else None

    def check(self) -> None:
        """Read one contact of the audience."""
        read(_Contacts, self.http.get(f"{self._list}/members", params={"count": 1}))

    def push(self, batch: Batch) -> Outcome:
        """One request a contact, or one for a segment; raise `RequestError` where the audience is not there."""
        if batch.object == "member":
            return [self._put(change) for change in batch.changes]
        return self._move(batch)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only segments are audiences
        """Make an empty static segment; its number."""
        body = {"name": title, "static_segment": []}
        return read(_Tag, self.send("POST", f"{self._list}/segments", body)).id

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:
        """A page of a segment's contacts, whatever their status, or of the audience's."""
        start = int(after or 0)
        params: dict[str, str | int] = {
            "count": _PAGE,
            "offset": start,
            "fields": "members.id,members.email_address,total_items",
        }
        if object == "segment_member":
            params |= dict.fromkeys(("include_cleaned", "include_transactional", "include_unsubscribed"), "true")
        path = self._segment(audience) if object == "segment_member" else self._list
        page = read(_Contacts, self.http.get(f"{path}/members", params=params))
        ends = start + len(page.members)
        if not page.members and ends < page.total_items:
            raise ProtocolError("Mailchimp's page has nobody in it and is not the last one")
        members = [Member({"email_address": one.email_address}, one.id or None) for one in page.members]
        return Page(members, str(ends) if ends < page.total_items else None)

    def describe(self, object: str) -> Iterable[Field]:
        """The audience's merge fields, for contacts."""
        if object != "member":
            return [_EMAIL]
        response = self.send("GET", f"{self._list}/merge-fields", params={"count": _PAGE})
        found = read(list[_MergeField], response, at="merge_fields")
        return [
            _EMAIL,
            *(Field(f.tag, _TYPES.get(f.type, "string"), f.required, description=f.name) for f in found),
        ]

    # -- contacts

    def _put(self, change: Change) -> Receipt:
        """Add or update one contact."""
        body = self._contact(change)
        response = self.send("PUT", self._person(change), body, expects={400, 404})
        if response.status_code == 404:
            fix = "give the id of one of the account's audiences as `list_id`"
            raise RequestError(f"Mailchimp has no audience {self.config.list_id}", response.text, fix=fix)
        if response.status_code == 400:
            return Receipt(change.key, Status.REJECTED, str(_problem(response)))
        kept = read(_Kept, response)
        if _label(kept.email_address) != _label(change.identifiers["email_address"]):
            return Receipt(change.key, Status.UNKNOWN, "Mailchimp's answer is about somebody else")
        there = {tag.lower() for tag in kept.merge_fields} if kept.merge_fields is not None else None
        sent = body.get("merge_fields", ())
        if dropped := [tag for tag in sent if there is not None and tag.lower() not in there]:
            why = f"Mailchimp took the contact, and the audience has no merge field {', '.join(dropped)}"
            return Receipt(change.key, Status.REJECTED, why)
        return Receipt(change.key, Status.APPLIED, remote_id=kept.id or None)

    def _contact(self, change: Change) -> dict[str, Value]:
        """A contact as `PUT` takes it; an empty merge field is cleared by an empty text (memory)."""
        body: dict[str, Value] = {
            "email_address": change.identifiers["email_address"],
            "status_if_new": self.config.status_if_new,
        }
        for name, value in change.fields.items():
            if name in _OWN and value is not None:
                body[name] = value
            elif name.startswith("interests.") and value is not None:
                body.setdefault("interests", {})[name.partition(".")[2]] = value
            elif name not in _OWN and not name.startswith("interests."):
                body.setdefault("merge_fields", {})[name] = "" if value is None else value
        return body

    def _person(self, change: Change) -> str:
        address = _label(change.identifiers["email_address"])
        digest = hashlib.md5(address.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()
        return f"{self._list}/members/{digest}"

    # -- segments

    def _move(self, batch: Batch) -> list[Receipt]:
        """Add or remove, and look up what the answer leaves open."""
        added = [c.identifiers["email_address"] for c in batch.changes if c.op is not Op.REMOVE]
        removed = [c.identifiers["email_address"] for c in batch.changes if c.op is Op.REMOVE]
        body = {"members_to_add": added, "members_to_remove": removed}
        response = self.send("POST", self._segment(batch.audience), body, expects={404})
        if response.status_code == 404:
            fix = "give the number of a static segment of the audience as `audience`"
            raise RequestError(f"Mailchimp has no segment {batch.audience}", response.text, fix=fix)
        moved = read(_Moved, response)
        refused = {_label(address): one.error for one in moved.errors for address in one.email_addresses}
        done = {
            Op.ADD: {_label(one.email_address) for one in moved.members_added},
            Op.REMOVE: {_label(one.email_address) for one in moved.members_removed},
        }
        return [
            Receipt(change.key, Status.APPLIED)
            if [op for op, named in done.items() if address in named] == [change.op] and address not in refused
            else self._look(change, str(batch.audience), refused.get(address, ""))
            for change in batch.changes
            for address in [_label(change.identifiers["email_address"])]
        ]

    def _look(self, change: Change, segment: str, refusal: str) -> Receipt:
        """What became of somebody whom the answer does not name, or who was refused."""
        response = self.send("GET", f"{self._person(change)}/tags", params={"count": _PAGE}, expects={404})
        out = change.op is Op.REMOVE
        if response.status_code == 404:
            _problem(response)
            gone = (Status.APPLIED, "") if out else (Status.REJECTED, refusal or _NOT_THERE)
            return Receipt(change.key, *gone)
        found = read(_Tags, response)
        inside = segment in {tag.id for tag in found.tags}
        if (inside or found.total_items <= len(found.tags)) and inside is not out:
            return Receipt(change.key, Status.APPLIED)
        return Receipt(change.key, Status.REJECTED if refusal else Status.UNKNOWN, refusal or _SILENT)

    def _segment(self, audience: str | None) -> str:
        return f"{self._list}/segments/{path_part(audience)}"


def _label(address: Value) -> str:
    return str(address).strip().lower()


def _problem(response: httpx.Response) -> _Problem:
    """What Mailchimp says is wrong. Raises `RequestError` where it is not Mailchimp that speaks."""
    try:
        return read(_Problem, response)
    except ProtocolError as error:
        raise RequestError("the request was refused, and not in Mailchimp's words", error.detail) from None
