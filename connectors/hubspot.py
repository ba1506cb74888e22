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
- A property takes text; an empty one clears it, several choices are separated by semicolons (from memory of
  the properties guide, not confirmed in the spec).

A contact is never archived or deleted: leaving an audience is not being forgotten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic import Field as Option

from sync.errors import ProtocolError, RequestError
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import (
    Batch,
    Change,
    Field,
    Limits,
    Member,
    ObjectSpec,
    Op,
    Order,
    Outcome,
    Page,
    Rate,
    Receipt,
    Status,
    Value,
)
from sync.sdk.values import dumps, text

__all__ = ["HubSpot", "HubSpotConfig"]

_BATCH = 100
_CONTACTS = "/crm/v3/objects/contacts"
_LISTS = "/crm/v3/lists"
_CONTACT_TYPE = "0-1"  # objectTypeId of contacts (spec, example of ListCreateRequest)
_RATES = {"standard": 100, "professional": 190, "capacity_pack": 250}
_SILENT = "HubSpot's answer does not say what became of this record"
_BOTH = "HubSpot's answer says two different things of this record"


class HubSpotConfig(Config):
    """One HubSpot account, reached with the token of a private app."""

    token: SecretStr = Option(
        description="Of a private app with the scopes crm.objects.contacts.read and .write, "
        "crm.lists.read and .write."
    )
    base_url: str = Option("https://api.hubapi.com", description="Where the API is.")
    rate: Literal["standard", "professional", "capacity_pack"] = Option(
        "standard", description="Requests in 10 seconds: 100, 190 (Professional, Enterprise) or 250."
    )


class _Shape(BaseModel):
    """Part of an answer: what we read of it has to be there, the rest is ignored."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


class _Record(_Shape):
    id: str = Option(min_length=1, max_length=100)
    properties: dict[str, str | None] = {}
    trace: str | None = Option(None, alias="objectWriteTraceId")

    @property
    def emails(self) -> set[str]:
        """The primary address and the secondary ones, in lower case."""
        several = f"{self.properties.get('email') or ''};{self.properties.get('hs_additional_emails') or ''}"
        return {email.strip().lower() for email in several.split(";")} - {""}


class _Problem(_Shape):
    category: str = ""
    message: str = "HubSpot gave no reason"
    context: dict[str, Any] = {}

    @property
    def traces(self) -> list[str]:
        """The keys of the changes it is about."""
        return self._listed("objectWriteTraceId")

    @property
    def ids(self) -> list[str]:
        """The ids, or addresses, that were asked for and are not there."""
        return self._listed("ids")

    def _listed(self, name: str) -> list[str]:
        listed = self.context.get(name)
        return [str(one) for one in listed] if isinstance(listed, list) else []


class _Records(_Shape):
    status: Literal["COMPLETE"]
    results: list[_Record]
    errors: list[_Problem] = []


class _Moved(_Shape):
    missing: list[str] = Option(alias="recordIdsMissing")
    added: list[str] = Option(alias="recordsIdsAdded")  # the vendor's spelling
    removed: list[str] = Option(alias="recordIdsRemoved")


class _Membership(_Shape):
    list_id: str = Option(alias="listId")


class _ListsOf(_Shape):
    record: str = Option(alias="recordId")
    lists: list[_Membership] = Option(alias="recordListMemberships")


class _Lists(_Shape):
    results: list[_ListsOf]


class _Created(_Shape):
    made: _Membership = Option(alias="list")


class _Next(_Shape):
    after: str


class _Paging(_Shape):
    next: _Next | None = None


class _Member(_Shape):
    record: str = Option(alias="recordId")


class _Memberships(_Shape):
    results: list[_Member]
    paging: _Paging | None = None


class _Contacts(_Shape):
    results: list[_Record]


S = TypeVar("S", bound=_Shape)
_EMAIL = Field("email", required=True, identifier=True, normalise="email", description="Primary or secondary.")


def _objects(rate: str) -> Mapping[str, ObjectSpec]:
    rates = (Rate(_RATES[rate], 10.0),)
    return {
        # Removals go first: where a person's address changed, the old and the new one are the same contact.
        "list_member": ObjectSpec(
            name="list_member",
            title="List member",
            ops=frozenset(Op),
            fields=(_EMAIL,),
            limits=Limits(batch_size=_BATCH, concurrency=4, rates=rates),
            order=Order.REMOVALS_FIRST,
            open_fields=True,
        ),
        "contact": ObjectSpec(
            name="contact",
            title="Contact",
            ops=frozenset({Op.ADD, Op.UPDATE}),
            fields=(_EMAIL,),
            limits=Limits(batch_size=_BATCH, concurrency=4, rates=rates, mixed_ops=True),
            audience=False,
            open_fields=True,
        ),
    }


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
    def base_url(cls, config: HubSpotConfig) -> str:
        """The API's address."""
        return config.base_url

    @classmethod
    def auth(cls, config: HubSpotConfig) -> httpx.Auth:
        """The private app's token."""
        return Bearer(config.token)

    @classmethod
    def account(cls, config: HubSpotConfig) -> str:
        """The private app, which owns the quota: told apart by a digest of its token."""
        digest = hashlib.sha256(config.token.get_secret_value().encode()).hexdigest()
        return f"{config.base_url}#{digest[:12]}"

    def check(self) -> None:
        """Read one contact."""
        _read(_Contacts, self.http.get(_CONTACTS, params={"limit": 1}))

    def push(self, batch: Batch) -> Outcome:
        """Send the batch; raise `RequestError` where the list does not exist."""
        settled = self._upsert(batch) if batch.object == "contact" else self._members(batch)
        return [settled.get(c.key) or Receipt(c.key, Status.UNKNOWN, _SILENT) for c in batch.changes]

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only lists are audiences
        """Make a list of contacts that only we fill; the id it got."""
        body = {"name": title, "objectTypeId": _CONTACT_TYPE, "processingType": "MANUAL"}
        return _read(_Created, self._send("POST", _LISTS, body)).made.list_id

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """A page of a list's contacts, with their primary addresses; a contact may have none."""
        params: dict[str, str | int] = {"limit": 250}  # the most there is (spec)
        page = _read(
            _Memberships,
            self.http.get(f"{_list(audience)}/memberships", params=params | ({"after": after} if after else {})),
        )
        ids = [member.record for member in page.results]
        emails: dict[str, str] = {}
        for start in range(0, len(ids), _BATCH):
            for record in self._contacts(ids[start : start + _BATCH], by=None).results:
                emails[record.id] = record.properties.get("email") or ""
        members = [Member({"email": emails[id]} if emails.get(id) else {}, id) for id in ids]
        return Page(members, page.paging.next.after if page.paging and page.paging.next else None)

    # -- contacts

    def _upsert(self, batch: Batch) -> dict[str, Receipt]:
        inputs = [{**_input(c), "id": str(c.identifiers["email"]), "idProperty": "email"} for c in batch.changes]
        answer = _read(_Records, self._send("POST", f"{_CONTACTS}/batch/upsert", {"inputs": inputs}))
        return _settle(answer, {str(c.identifiers["email"]).lower(): c.key for c in batch.changes})

    def _contacts(self, ids: Sequence[str], *, by: str | None) -> _Records:
        """Contacts by id, or by the property `by`."""
        body: dict[str, Value] = {
            "inputs": [{"id": id} for id in ids],
            "properties": ["email", "hs_additional_emails"],
            "propertiesWithHistory": [],
        }
        if by:
            body["idProperty"] = by
        return _read(_Records, self._send("POST", f"{_CONTACTS}/batch/read", body))

    # -- list members

    def _members(self, batch: Batch) -> dict[str, Receipt]:
        """Find the contacts, write their fields, then move them in or out of the list."""
        ids, settled = self._find(batch.changes)
        settled |= self._write([c for c in batch.changes if c.key in ids and c.fields], ids)
        rest = [c for c in batch.changes if c.key not in settled]
        return settled | (self._move(batch.audience, rest, ids) if rest else {})

    def _find(self, changes: Sequence[Change]) -> tuple[dict[str, str], dict[str, Receipt]]:
        """Contact ids by change key, and receipts for those that have none.

        A removal goes by the id that its addition was answered with: the address may have changed since.
        """
        ids = {c.key: c.remote_id for c in changes if c.op is Op.REMOVE and c.remote_id}
        wanted = {c.key: str(c.identifiers["email"]).lower() for c in changes if c.key not in ids}
        if not wanted:
            return ids, {}
        answer = self._contacts(list(dict.fromkeys(wanted.values())), by="email")
        found: dict[str, set[str]] = {}
        for record in answer.results:
            for email in record.emails:
                found.setdefault(email, set()).add(record.id)
        ids |= {key: min(found[email]) for key, email in wanted.items() if len(found.get(email, ())) == 1}
        lost = {c.key: wanted[c.key] for c in changes if c.key not in ids}
        return ids, {c.key: _absent(c, lost[c.key], found, answer.errors) for c in changes if c.key in lost}

    def _write(self, changes: Sequence[Change], ids: Mapping[str, str]) -> dict[str, Receipt]:
        """Update the contacts' properties; receipts for those that did not take them."""
        if not changes:
            return {}
        inputs = [{**_input(c), "id": ids[c.key]} for c in changes]
        answer = _read(_Records, self._send("POST", f"{_CONTACTS}/batch/update", {"inputs": inputs}))
        settled = _settle(answer, {ids[c.key]: c.key for c in changes})
        missed = {c.key: Receipt(c.key, Status.UNKNOWN, _SILENT) for c in changes if c.key not in settled}
        return missed | {key: r for key, r in settled.items() if r.status is not Status.APPLIED}

    def _move(self, audience: str | None, changes: Sequence[Change], ids: Mapping[str, str]) -> dict[str, Receipt]:
        """Add and remove in one request, then look up what its answer leaves open."""
        body = {
            "recordIdsToAdd": list(dict.fromkeys(ids[c.key] for c in changes if c.op is not Op.REMOVE)),
            "recordIdsToRemove": list(dict.fromkeys(ids[c.key] for c in changes if c.op is Op.REMOVE)),
        }
        response = self._send("PUT", f"{_list(audience)}/memberships/add-and-remove", body, expects={404})
        if response.status_code == 404:
            fix = "give the id of a list with processing type MANUAL or SNAPSHOT as `audience`"
            raise RequestError(f"HubSpot has no list {audience}", response.text, fix=fix)
        moved = _read(_Moved, response)
        open_ids = {ids[c.key] for c in changes} - {*moved.missing, *moved.added, *moved.removed}
        lists = self._lists_of(sorted(open_ids)) if open_ids else {}
        return {c.key: _moved(c, ids[c.key], str(audience), moved, lists) for c in changes}

    def _lists_of(self, ids: Sequence[str]) -> dict[str, set[str]]:
        """The lists that contacts are in, by contact id."""
        body = {"inputs": [{"objectTypeId": _CONTACT_TYPE, "recordId": id} for id in ids]}
        answer = _read(_Lists, self._send("POST", f"{_LISTS}/records/memberships/batch/read", body))
        return {one.record: {membership.list_id for membership in one.lists} for one in answer.results}

    def _send(self, method: str, path: str, body: Value, expects: Iterable[int] = ()) -> httpx.Response:
        headers = {"Content-Type": "application/json"}
        extensions = {"expects": frozenset(expects)}
        return self.http.request(method, path, content=dumps(body), headers=headers, extensions=extensions)


def _read(shape: type[S], response: httpx.Response) -> S:
    """The answer in the shape we know. Raises `ProtocolError`, which quotes nothing of it."""
    try:
        return shape.model_validate_json(response.content)
    except ValidationError:
        pass
    raise ProtocolError("HubSpot's answer does not have the documented shape", response.text)


def _list(audience: str | None) -> str:
    return f"{_LISTS}/{quote(audience or '', safe='')}"


def _input(change: Change) -> dict[str, Value]:
    return {
        "objectWriteTraceId": change.key,
        "properties": {name: _property(value) for name, value in change.fields.items()},
    }


def _property(value: Value) -> str:
    return ";".join(map(text, value)) if isinstance(value, list) else text(value)


def _settle(answer: _Records, names: Mapping[str, str]) -> dict[str, Receipt]:
    """Receipts of the records that an answer accounts for; `names` has change keys by contact id or e-mail."""
    settled: dict[str, Receipt] = {}
    for record in answer.results:
        other = (names[name] for name in (record.id, *record.emails) if name in names)
        if key := record.trace or next(other, None):
            receipt = Receipt(key, Status.APPLIED, remote_id=record.id)
            settled[key] = receipt if settled.get(key, receipt) == receipt else Receipt(key, Status.UNKNOWN, _BOTH)
    done = set(settled)
    for problem in answer.errors:
        for key in problem.traces:
            refused = Receipt(key, Status.REJECTED, problem.message)
            settled[key] = Receipt(key, Status.UNKNOWN, _BOTH) if key in done else refused
    return settled


def _absent(change: Change, email: str, found: Mapping[str, set[str]], problems: Sequence[_Problem]) -> Receipt:
    """The receipt of a change without exactly one contact; nothing was sent for it.

    That there is none counts only where an answer says so: of this address, or of addresses it does not name.
    """
    if email in found:
        return Receipt(change.key, Status.DEFERRED, "HubSpot names several contacts with this e-mail address")
    missing = [p for p in problems if p.category == "OBJECT_NOT_FOUND"]
    if any(not p.ids or email in map(str.lower, p.ids) for p in missing):
        if change.op is Op.REMOVE:
            return Receipt(change.key, Status.APPLIED)
        return Receipt(change.key, Status.REJECTED, "HubSpot has no contact with this e-mail address")
    trouble = next((p.message for p in problems if p not in missing), "its answer does not mention it")
    return Receipt(change.key, Status.DEFERRED, f"HubSpot could not look the contact up: {trouble}")


def _moved(change: Change, id: str, list_id: str, moved: _Moved, lists: Mapping[str, set[str]]) -> Receipt:
    """The receipt of one addition or removal."""
    out = change.op is Op.REMOVE
    missing, done = id in moved.missing, id in (moved.removed if out else moved.added)
    if id in (moved.added if out else moved.removed) or (missing and done):
        return Receipt(change.key, Status.UNKNOWN, _BOTH, remote_id=id)
    if missing and not out:
        return Receipt(change.key, Status.REJECTED, "HubSpot does not have this contact any more")
    if missing or done or (id in lists and (list_id in lists[id]) is not out):
        return Receipt(change.key, Status.APPLIED, remote_id=id)
    return Receipt(change.key, Status.UNKNOWN, _SILENT, remote_id=id)
