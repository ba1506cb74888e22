"""HubSpot: members of a list, and contacts.

Facts and where they come from. *Spec* is HubSpot's own OpenAPI description (HubSpot-public-api-spec-collection:
CRM/Contacts v3, CRM/Lists v3), *changelog* and *docs* are pages of developers.hubspot.com.

- A list is changed by contact ids: `PUT /crm/v3/lists/{listId}/memberships/add-and-remove`, only where its
  processing type is MANUAL or SNAPSHOT. Records that do not exist are reported as `recordIdsMissing`; records
  that are in the list already, or not in it, are left out of the answer (spec). So whatever the answer does not
  name is looked up in `POST /crm/v3/lists/records/memberships/batch/read` before it is called applied.
- Contacts are found by e-mail with `POST /crm/v3/objects/contacts/batch/read` and `idProperty` (spec), which
  also finds secondary addresses; those stand in `hs_additional_emails`, separated by semicolons (HubSpot staff,
  community thread 11846).
- `POST /crm/v3/objects/contacts/batch/upsert` and `.../batch/update` answer 207 with `results` and `errors`
  where some records failed (spec); an error names its records in `context.objectWriteTraceId` (docs, "Error
  handling", multi-status errors), and any field of an error may be absent (same page).
- At most 100 records a request, as other public integrations send; the spec states no cap.
- Requests in 10 seconds: 100 for an app (changelog, "New and improved HubSpot API limits"); 190 for a private
  app of a Professional or Enterprise account, 250 with the capacity pack (changelog, "Increasing our API
  limits").
- 423: the record is locked; 477: the account is being migrated. Both ask to be tried again (docs, "Error
  handling").
- The properties of contacts are listed by `GET /crm/v3/properties/contacts`, for which the token needs the scope
  crm.schemas.contacts.read; `modificationMetadata.readOnlyValue` marks those that cannot be written
  (HubSpot-public-api-spec-collection, CRM/Properties v3; docs, "Read all properties").
- A property takes text; an empty one clears it, several choices are separated by semicolons (from memory of
  the properties guide, not confirmed in the spec).

A contact is never archived or deleted: leaving an audience is not being forgotten.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Generic, Literal, TypeVar

import httpx
from pydantic import AliasPath, SecretStr
from pydantic import Field as Option

from sync.errors import RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Change, Member, Page, Receipt, Status, Value
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order, Rate
from sync.sdk.settled import Settled
from sync.sdk.values import path_part, text

__all__ = ["HubSpot", "HubSpotConfig"]

_BATCH = 100
_CONTACTS = "/crm/v3/objects/contacts"
_LISTS = "/crm/v3/lists"
_CONTACT_TYPE = "0-1"  # objectTypeId of contacts (spec, example of ListCreateRequest)
_RATES = {"standard": 100, "professional": 190, "capacity_pack": 250}
_TYPES = {"number": "number", "bool": "boolean", "date": "date", "datetime": "timestamp"}  # others are text
T = TypeVar("T", bound=Shape)
_EMAIL = Field("email", required=True, identifier=True, normalise="email", description="Primary or secondary.")


class HubSpotConfig(Config):
    """One HubSpot account, reached with the token of a private app."""

    token: SecretStr = Option(
        description="Of a private app with the scopes crm.objects.contacts.read and .write, "
        "crm.lists.read and .write, crm.schemas.contacts.read."
    )
    base_url: str = Option("https://api.hubapi.com", description="Where the API is.")
    rate: Literal["standard", "professional", "capacity_pack"] = Option(
        "standard", description="Requests in 10 seconds: 100, 190 (Professional, Enterprise) or 250."
    )


class _Record(Shape):
    id: str = Option(min_length=1, max_length=100)
    properties: dict[str, str | None] = Option({})
    trace: str | None = Option(None, alias="objectWriteTraceId")

    @property
    def emails(self) -> set[str]:
        """The primary address and the secondary ones, in lower case."""
        several = f"{self.properties.get('email') or ''};{self.properties.get('hs_additional_emails') or ''}"
        return {email.strip().lower() for email in several.split(";")} - {""}


class _Problem(Shape):
    category: str = ""
    message: str = "HubSpot gave no reason"
    context: dict[str, Any] = Option({})

    def named(self, what: str) -> list[str]:
        """What it is about: `ids`, or addresses, that were asked for; the traces of changes."""
        named = self.context.get(what)
        return [str(one) for one in named] if isinstance(named, list) else []


class _Records(Shape):
    status: Literal["COMPLETE"]
    results: list[_Record]
    errors: tuple[_Problem, ...] = ()


class _Moved(Shape):
    missing: list[str] = Option(alias="recordIdsMissing")
    added: list[str] = Option(alias="recordsIdsAdded")  # the vendor's spelling
    removed: list[str] = Option(alias="recordIdsRemoved")


class _Of(Shape):
    list_id: str = Option(alias="listId")


class _ListsOf(Shape):
    record: str = Option(alias="recordId")
    lists: list[_Of] = Option(alias="recordListMemberships")


class _Created(Shape):
    list_id: str = Option(validation_alias=AliasPath("list", "listId"))


class _Member(Shape):
    record: str = Option(alias="recordId")


class _Next(Shape):
    after: str


class _Paging(Shape):
    next: _Next | None = None


class _Property(Shape):
    name: str
    label: str
    type: str
    description: str = ""
    fixed: bool = Option(False, validation_alias=AliasPath("modificationMetadata", "readOnlyValue"))


class _Page(Shape, Generic[T]):
    results: list[T]
    paging: _Paging | None = None

    @property
    def next(self) -> str | None:
        """What the page after it is asked for with."""
        return self.paging.next.after if self.paging and self.paging.next else None


def _objects(rate: str) -> Mapping[str, ObjectSpec]:
    limits = Limits(batch_size=_BATCH, concurrency=4, rates=(Rate(_RATES[rate], 10.0),))
    mixed = replace(limits, mixed_ops=True)
    upserts = frozenset({Op.ADD, Op.UPDATE})
    # Removals go first: where a person's address changed, the old and the new one are the same contact.
    first = Order.REMOVALS_FIRST
    who = (_EMAIL,)
    member = ObjectSpec("list_member", "List member", frozenset(Op), who, limits, order=first, open_fields=True)
    contact = ObjectSpec("contact", "Contact", upserts, who, mixed, audience=False, open_fields=True)
    return {"list_member": member, "contact": contact}


class HubSpot(Connector[HubSpotConfig]):
    """Keeps lists and contacts. Fields of a list member are written to its contact, which must exist already."""

    name = "hubspot"
    title = "HubSpot"
    docs = __doc__ or ""
    config_model = HubSpotConfig
    objects = _objects("standard")
    unavailable: ClassVar[frozenset[int]] = frozenset({423, 477})

    def __init__(self, config: HubSpotConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = _objects(config.rate)

    @classmethod
    def auth(cls, config: HubSpotConfig) -> httpx.Auth:
        """The private app's token."""
        return Bearer(config.token)

    def check(self) -> None:
        """Read one contact."""
        read(_Page[_Record], self.http.get(_CONTACTS, params={"limit": 1}))

    def push(self, batch: Batch) -> list[Receipt]:
        """Send the batch; raise `RequestError` where the list does not exist."""
        settled = Settled("HubSpot")
        if batch.object == "contact":
            self._upsert(batch.changes, settled)
        else:
            self._members(batch, settled)
        return settled.receipts(batch.changes)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only lists are audiences
        """Make a list of contacts that only we fill; the id it got."""
        body = {"name": title, "objectTypeId": _CONTACT_TYPE, "processingType": "MANUAL"}
        return read(_Created, self.send("POST", _LISTS, body)).list_id

    def describe(self, object: str) -> Iterable[Field]:  # noqa: ARG002 - both are contacts
        """The properties of contacts that can be written."""
        known = read(_Page[_Property], self.http.get("/crm/v3/properties/contacts")).results
        return [_EMAIL] + [
            Field(one.name, _TYPES.get(one.type, "string"), description=one.description or one.label)
            for one in known
            if not one.fixed and one.name != _EMAIL.name
        ]

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """A page of a list's contacts, with their primary addresses; a contact may have none."""
        params = {"limit": "250"} | ({"after": after} if after else {})  # the most there is (spec)
        page = read(_Page[_Member], self.http.get(f"{_list(audience)}/memberships", params=params))
        ids = [member.record for member in page.results]
        emails: dict[str, str] = {}
        for start in range(0, len(ids), _BATCH):
            for record in self._contacts(ids[start : start + _BATCH]).results:
                emails[record.id] = record.properties.get("email") or ""
        members = [Member({"email": emails[id]} if emails.get(id) else {}, id) for id in ids]
        return Page(members, page.next)

    # -- contacts

    def _upsert(self, changes: Sequence[Change], settled: Settled) -> None:
        inputs = [{**_input(c), "id": str(c.identifiers["email"]), "idProperty": "email"} for c in changes]
        answer = read(_Records, self.send("POST", f"{_CONTACTS}/batch/upsert", {"inputs": inputs}))
        _settle(answer, {str(c.identifiers["email"]).lower(): c.key for c in changes}, settled)

    def _contacts(self, ids: Sequence[str], **by: Value) -> _Records:
        """Contacts by id, or by the property named as `idProperty`."""
        body = {
            "inputs": [{"id": id} for id in ids],
            "properties": ["email", "hs_additional_emails"],
            "propertiesWithHistory": [],
        }
        return read(_Records, self.send("POST", f"{_CONTACTS}/batch/read", {**body, **by}))

    # -- list members

    def _members(self, batch: Batch, settled: Settled) -> None:
        """Find the contacts, write their fields, then move them in or out of the list."""
        ids = self._find(batch.changes, settled)
        self._write([c for c in batch.changes if c.key in ids and c.fields], ids, settled)
        if rest := [c for c in batch.changes if c.key not in settled]:
            self._move(str(batch.audience), rest, ids, settled)

    def _find(self, changes: Sequence[Change], settled: Settled) -> dict[str, str]:
        """Contact ids by change key; those that have none are settled.

        A removal goes by the id that its addition was answered with: the address may have changed since.
        """
        ids = {c.key: c.remote_id for c in changes if c.op is Op.REMOVE and c.remote_id}
        wanted = {c.key: str(c.identifiers["email"]).lower() for c in changes if c.key not in ids}
        if not wanted:
            return ids
        answer = self._contacts(list(dict.fromkeys(wanted.values())), idProperty="email")
        found: dict[str, set[str]] = {}
        for record in answer.results:
            for email in record.emails:
                found.setdefault(email, set()).add(record.id)
        for change in changes:
            if change.key in wanted:
                one = found.get(wanted[change.key], set())
                if len(one) == 1:
                    ids[change.key] = min(one)
                else:
                    settled.note(change.key, *_absent(change, wanted[change.key], bool(one), answer.errors))
        return ids

    def _write(self, changes: Sequence[Change], ids: Mapping[str, str], settled: Settled) -> None:
        """Update the contacts' properties; those that did not take them are settled."""
        if not changes:
            return
        inputs = [{**_input(c), "id": ids[c.key]} for c in changes]
        answer = read(_Records, self.send("POST", f"{_CONTACTS}/batch/update", {"inputs": inputs}))
        written = Settled("HubSpot")
        _settle(answer, {ids[c.key]: c.key for c in changes}, written)
        for receipt in written.receipts(changes, besides={Status.APPLIED}):
            settled.note(receipt.key, receipt.status, receipt.reason)

    def _move(self, audience: str, changes: Sequence[Change], ids: Mapping[str, str], settled: Settled) -> None:
        """Add and remove in one request, then look up what its answer leaves open."""
        body = {
            "recordIdsToAdd": list(dict.fromkeys(ids[c.key] for c in changes if c.op is not Op.REMOVE)),
            "recordIdsToRemove": list(dict.fromkeys(ids[c.key] for c in changes if c.op is Op.REMOVE)),
        }
        response = self.send("PUT", f"{_list(audience)}/memberships/add-and-remove", body, expects={404})
        if response.status_code == 404:
            fix = "give the id of a list with processing type MANUAL or SNAPSHOT as `audience`"
            raise RequestError(f"HubSpot has no list {audience}", response.text, fix=fix)
        moved = read(_Moved, response)
        open_ids = {ids[c.key] for c in changes} - {*moved.missing, *moved.added, *moved.removed}
        lists = self._lists_of(sorted(open_ids)) if open_ids else {}
        for change in changes:
            settled.note(change.key, *_moved(change, ids[change.key], audience, moved, lists))

    def _lists_of(self, ids: Sequence[str]) -> dict[str, set[str]]:
        """The lists that contacts are in, by contact id."""
        body = {"inputs": [{"objectTypeId": _CONTACT_TYPE, "recordId": id} for id in ids]}
        answer = read(_Page[_ListsOf], self.send("POST", f"{_LISTS}/records/memberships/batch/read", body))
        return {one.record: {membership.list_id for membership in one.lists} for one in answer.results}


def _list(audience: str | None) -> str:
    return f"{_LISTS}/{path_part(audience)}"


def _input(change: Change) -> dict[str, Value]:
    properties = {name: _property(value) for name, value in change.fields.items()}
    return {"objectWriteTraceId": change.key, "properties": properties}


def _property(value: Value) -> str:
    return ";".join(map(text, value)) if isinstance(value, list) else text(value)


def _settle(answer: _Records, names: Mapping[str, str], settled: Settled) -> None:
    """Settle the records that an answer accounts for; `names` has change keys by contact id or e-mail."""
    for record in answer.results:
        other = (names[name] for name in (record.id, *record.emails) if name in names)
        if key := record.trace or next(other, None):
            settled.note(key, Status.APPLIED, remote_id=record.id)
    for problem in answer.errors:
        for key in problem.named("objectWriteTraceId"):
            settled.note(key, Status.REJECTED, problem.message)


def _absent(change: Change, email: str, several: bool, problems: Sequence[_Problem]) -> tuple[Status, str]:
    """What became of a change without exactly one contact; nothing was sent for it.

    That there is none counts only where an answer says so: of this address, or of addresses it does not name.
    """
    if several:
        return Status.DEFERRED, "HubSpot names several contacts with this e-mail address"
    missing = [p for p in problems if p.category == "OBJECT_NOT_FOUND"]
    if any(not p.named("ids") or email in map(str.lower, p.named("ids")) for p in missing):
        if change.op is Op.REMOVE:
            return Status.APPLIED, ""
        return Status.REJECTED, "HubSpot has no contact with this e-mail address"
    trouble = next((p.message for p in problems if p not in missing), "its answer does not mention it")
    return Status.DEFERRED, f"HubSpot could not look the contact up: {trouble}"


def _moved(
    change: Change, id: str, audience: str, moved: _Moved, lists: Mapping[str, set[str]]
) -> tuple[Status, str, str | None]:
    """What became of one addition or removal: status, reason, the contact's id."""
    out = change.op is Op.REMOVE
    missing, done = id in moved.missing, id in (moved.removed if out else moved.added)
    if id in (moved.added if out else moved.removed) or (missing and done):
        return Status.UNKNOWN, "HubSpot's answer says two different things of this record", id
    if missing and not out:
        return Status.REJECTED, "HubSpot does not have this contact any more", None
    if missing or done or (id in lists and (audience in lists[id]) is not out):
        return Status.APPLIED, "", id
    return Status.UNKNOWN, "", id
