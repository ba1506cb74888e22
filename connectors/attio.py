"""Attio: entries of a list, people and companies.

Facts and where they come from. *Spec* is Attio's own OpenAPI description (version 2.0.0), *docs* are pages of
docs.attio.com.

- A list has entries, each with a parent: a person or a company, whichever the list is of. `PUT .../entries`
  asserts the entry of a parent; where a parent has several it answers 400 `multiple_match_results` (spec). An
  entry is deleted by its own id, found with `GET .../records/{record_id}/entries`, a page of at most 1,000 (spec).
- `PUT /v2/objects/{object}/records` asserts a record by a unique attribute: the e-mail addresses of people, the
  domains of companies. Further addresses of the record stay; other multiselect attributes become just what is sent
  (spec). Nothing is written by the batch: each record is a request.
- Addresses are read back in the form Attio has normalised and as they were given (docs, "Email address"); a domain
  loses its path and query (docs, "Domain").
- Records are found with `POST .../records/query` (spec); conditions are joined with `$or` (docs, "Filtering and
  sorting"; that `$or` takes as many as are sent here is from memory). An attribute is emptied by an empty list
  (from memory).
- 100 reads and 25 writes a second; a 429 has a date in `Retry-After` (docs, "Rate limiting"). As one pace holds
  for all requests, it is that of the writes.
- Making a list and listing attributes (docs, "Create a list", "List attributes") are not in the spec we test by.

Removing deletes the entry, with the values it has in the list; the person or company stays. A list's own
attributes are the fields of an entry; those of its parent are written with the objects `person` and `company`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr, ValidationError

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Change, Member, Outcome, Page, Receipt, Status, Value
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order, Rate
from sync.sdk.values import path_part, text

__all__ = ["Attio", "AttioConfig"]

_LIMITS = Limits(batch_size=20, concurrency=4, rates=(Rate(25, 1.0),))
_PAGE = 50  # members read at a time: each takes a request of its own
_ENTRIES = 1000  # the most entries of a record in a page (spec)
_UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_TYPES = {
    "number": "number",
    "currency": "number",
    "rating": "number",
    "checkbox": "boolean",
    "date": "date",
    "timestamp": "timestamp",
    "location": "json",
    "record-reference": "json",
}
_ADDRESSES = Field("email_addresses", required=True, identifier=True, normalise="email")
_DOMAINS = Field("domains", required=True, identifier=True, normalise="lower", description="Such as acme.example.")
_KINDS = {"people": (_ADDRESSES, "email_address"), "companies": (_DOMAINS, "domain")}
_SLUGS = {"person": "people", "company": "companies"}


class AttioConfig(Config):
    """One Attio workspace."""

    token: SecretStr = Option(
        description="An access token with the scopes record_permission:read-write, object_configuration:read, "
        "list_entry:read-write and list_configuration:read (:read-write to make lists)."
    )
    base_url: str = Option("https://api.attio.com", description="Where the API is.")
    list_of: Literal["people", "companies"] = Option("people", description="What lists hold.")


class _Id(Shape):
    record: str = Option("", alias="record_id", pattern=f"^(?:{_UUID})?$")
    entry: str = Option("", alias="entry_id", pattern=f"^(?:{_UUID})?$")
    list_id: str = ""


class _Record(Shape):
    id: _Id
    values: dict[str, list[dict[str, Any]]] = Option({})

    def has(self, kind: str) -> set[str]:
        """Its addresses or domains, normalised and as they were given, in lower case."""
        field, name = _KINDS[kind]
        found = self.values.get(field.name, [])
        return {text(one[n]).lower() for one in found for n in (name, f"original_{name}") if one.get(n)}


class _Entry(Shape):
    id: _Id
    parent: str = Option(alias="parent_record_id", pattern=f"^{_UUID}$")


class _Place(Shape):
    list_id: str
    slug: str = Option(alias="list_api_slug")
    entry: str = Option(alias="entry_id", pattern=f"^{_UUID}$")


class _Made(Shape):
    id: _Id


class _Attribute(Shape):
    slug: str = Option(alias="api_slug")
    title: str = ""
    type: str
    writable: bool = Option(True, alias="is_writable")
    required: bool = Option(False, alias="is_required")
    unique: bool = Option(False, alias="is_unique")
    archived: bool = Option(False, alias="is_archived")


class _Refusal(Shape):
    code: str
    message: str


def _objects(list_of: str) -> Mapping[str, ObjectSpec]:
    both = frozenset({Op.ADD, Op.UPDATE})
    name = Field("name", description="Of a person: `Last name, First name`.")
    # Removals go first: where a person's address changed, the old and the new one may be the same record.
    entry = ObjectSpec(
        name="list_entry",
        title="List entry",
        ops=frozenset(Op),
        fields=(_KINDS[list_of][0],),
        limits=_LIMITS,
        order=Order.REMOVALS_FIRST,
        open_fields=True,
    )
    person = ObjectSpec("person", "Person", both, (_ADDRESSES, name), _LIMITS, audience=False, open_fields=True)
    company = ObjectSpec("company", "Company", both, (_DOMAINS, name), _LIMITS, audience=False, open_fields=True)
    return {spec.name: spec for spec in (entry, person, company)}


class Attio(Connector[AttioConfig]):
    """Keeps lists, whose people or companies must exist already, and people and companies."""

    name = "attio"
    title = "Attio"
    docs = __doc__ or ""
    config_model = AttioConfig
    objects = _objects("people")
    plain_success: ClassVar[frozenset[str]] = frozenset({"{}"})  # of a deletion (spec); not believed elsewhere

    def __init__(self, config: AttioConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = _objects(config.list_of)

    @classmethod
    def auth(cls, config: AttioConfig) -> httpx.Auth:
        """The workspace's token."""
        return Bearer(config.token)

    def check(self) -> None:
        """Read the lists there are."""
        read(list[dict[str, Any]], self.send("GET", "/v2/lists"), at="data")

    def push(self, batch: Batch) -> Outcome:
        """Send the batch, a record at a time. Raises `RequestError` where the list does not exist."""
        if batch.object != "list_entry":
            return [self._assert(_SLUGS[batch.object], change) for change in batch.changes]
        ids, settled = self._find(batch.changes)
        move = {Op.REMOVE: self._remove}
        return [
            settled.get(c.key) or move.get(c.op, self._enter)(path_part(batch.audience), c, ids[c.key])
            for c in batch.changes
        ]

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only lists are audiences
        """Make a list that the whole workspace may use; its id."""
        slug = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_") or "list"
        access = {"workspace_access": "full-access", "workspace_member_access": []}
        made = {"name": title, "api_slug": slug, "parent_object": self.config.list_of, **access}
        return read(_Made, self.send("POST", "/v2/lists", {"data": made}), at="data").id.list_id

    def describe(self, object: str) -> Iterable[Field]:
        """The attributes of people and companies that may be written; of an entry none: each list has its own."""
        if object == "list_entry":
            return ()
        response = self.send("GET", f"/v2/objects/{_SLUGS[object]}/attributes")
        found = read(list[_Attribute], response, at="data")
        return [
            Field(a.slug, _TYPES.get(a.type, "string"), a.required, identifier=a.unique, description=a.title)
            for a in found
            if a.writable and not a.archived
        ]

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """A page of a list's people or companies."""
        offset = int(after or 0)
        path = f"/v2/lists/{path_part(audience)}/entries/query"
        found = read(list[_Entry], self.send("POST", path, {"limit": _PAGE, "offset": offset}), at="data")
        parents = dict.fromkeys(entry.parent for entry in found)
        return Page([self._member(id) for id in parents], str(offset + _PAGE) if len(found) >= _PAGE else None)

    def _member(self, id: str) -> Member:
        field, name = _KINDS[self.config.list_of]
        response = self.send("GET", f"{self._records}/{id}", expects={404})
        values = [] if _is_gone(response) else read(_Record, response, at="data").values.get(field.name, [])
        return Member({field.name: text(values[0].get(name))} if values else {}, id)

    @property
    def _records(self) -> str:
        return f"/v2/objects/{self.config.list_of}/records"

    # -- people and companies

    def _assert(self, kind: str, change: Change) -> Receipt:
        field, _ = _KINDS[kind]
        value = text(change.identifiers[field.name])
        values = {**_values(change.fields), field.name: [value]}
        path = f"/v2/objects/{kind}/records?matching_attribute={field.name}"
        response = self.send("PUT", path, {"data": {"values": values}}, expects={400})
        if response.status_code == 400:
            return _refused(change, response)
        record = read(_Record, response, at="data")
        known, sent = record.has(kind), value.lower()
        ours = sent in known or (kind == "companies" and any(one in sent for one in known))
        if not record.id.record or not ours:
            return Receipt(change.key, Status.UNKNOWN, "Attio's answer is about another record")
        return Receipt(change.key, Status.APPLIED, remote_id=record.id.record)

    def _find(self, changes: Sequence[Change]) -> tuple[dict[str, str], dict[str, Receipt]]:
        """Record ids by change key, and receipts for those that have none.

        A removal goes by the id that its addition was answered with: the address may have changed since.
        """
        field, name = _KINDS[self.config.list_of]
        removed = ((c.key, c.remote_id or "") for c in changes if c.op is Op.REMOVE)
        ids = {key: id for key, id in removed if re.fullmatch(_UUID, id)}
        wanted = {c.key: text(c.identifiers[field.name]).lower() for c in changes if c.key not in ids}
        found: dict[str, set[str]] = {}
        if asked := sorted(set(wanted.values())):
            either = [{field.name: {name: {"$eq": value}}} for value in asked]
            body = {"filter": {"$or": either}, "limit": 500, "offset": 0}
            records = read(list[_Record], self.send("POST", f"{self._records}/query", body), at="data")
            for record in records:
                known = record.has(self.config.list_of) & set(asked)
                if not known or not record.id.record or any(record.id.record in found.get(v, ()) for v in known):
                    raise ProtocolError("Attio answered a query with records that were not asked for")
                for value in known:
                    found.setdefault(value, set()).add(record.id.record)
        ids |= {key: min(found[value]) for key, value in wanted.items() if len(found.get(value, ())) == 1}
        return ids, {c.key: _absent(c, wanted[c.key] in found) for c in changes if c.key not in ids}

    # -- entries

    def _enter(self, list: str, change: Change, record: str) -> Receipt:
        entry = {"parent_record_id": record, "parent_object": self.config.list_of}
        body = {"data": {**entry, "entry_values": _values(change.fields)}}
        response = self.send("PUT", f"/v2/lists/{list}/entries", body, expects={400, 404})
        if response.status_code == 404:
            raise _no_list(list, response)
        if response.status_code == 400:
            several = _refusal(response).code == "multiple_match_results" and not change.fields
            return Receipt(change.key, Status.APPLIED, remote_id=record) if several else _refused(change, response)
        made = read(_Entry, response, at="data")
        if made.parent != record or not made.id.entry:
            return Receipt(change.key, Status.UNKNOWN, "Attio's answer is about another record", remote_id=record)
        return Receipt(change.key, Status.APPLIED, remote_id=record)

    def _remove(self, list: str, change: Change, record: str) -> Receipt:
        """Delete every entry the record has in the list; one that is gone already is as it should be."""
        for place in self._places(record):
            if list in (path_part(place.list_id), path_part(place.slug)):
                path = f"/v2/lists/{list}/entries/{place.entry}"
                response = self.send("DELETE", path, expects={400, 404})
                if response.status_code == 400:
                    return _refused(change, response)
                if not _is_gone(response) and response.content.strip() != b"{}":
                    raise ProtocolError("Attio answered a deletion with something else than {}", response.text)
        return Receipt(change.key, Status.APPLIED, remote_id=record)

    def _places(self, record: str) -> list[_Place]:
        """The entries that a record has, in all lists; none where the record is gone."""
        places: list[_Place] = []
        for offset in range(0, 100 * _ENTRIES, _ENTRIES):
            url = f"{self._records}/{record}/entries?limit={_ENTRIES}&offset={offset}"
            response = self.send("GET", url, expects={404})
            page = [] if _is_gone(response) else read(list[_Place], response, at="data")
            places += page
            if len(page) < _ENTRIES:
                break
        return places


def _no_list(list: str, response: httpx.Response) -> RequestError:
    fix = "give the id or the slug of a list as `audience`"
    return RequestError(f"Attio has no list {list}", response.text, fix=fix)


def _is_gone(response: httpx.Response) -> bool:
    """Whether the record or the entry is not there. Raises `RequestError` for a 404 that says anything else."""
    if response.status_code == 404 and _refusal(response).code != "not_found":
        raise RequestError("Attio answered 404 and does not say what is not found", response.text)
    return response.status_code == 404


def _values(fields: Mapping[str, Value]) -> dict[str, Value]:
    """Every attribute is written as a list of values."""
    return {
        name: value if isinstance(value, list) else [] if value is None else [value]
        for name, value in fields.items()
    }


def _refusal(response: httpx.Response) -> _Refusal:
    try:
        return _Refusal.model_validate_json(response.content)
    except ValidationError:
        return _Refusal(code="", message="Attio gave no reason")


def _refused(change: Change, response: httpx.Response) -> Receipt:
    said = _refusal(response)
    return Receipt(change.key, Status.REJECTED, ": ".join(filter(None, (said.code, said.message)))[:500])


def _absent(change: Change, several: bool) -> Receipt:
    """The receipt of a change without exactly one record; nothing was sent for it."""
    if several:
        return Receipt(change.key, Status.DEFERRED, "Attio has several records with this identifier")
    if change.op is Op.REMOVE:
        return Receipt(change.key, Status.APPLIED)
    return Receipt(change.key, Status.REJECTED, "Attio has no record with this identifier")
