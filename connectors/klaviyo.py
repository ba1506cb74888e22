"""Klaviyo: members of a list, and profiles.

Facts and where they come from. *Spec* is Klaviyo's own OpenAPI description (klaviyo/openapi, revision 2026-07-15);
*guide* is developers.klaviyo.com, "Bulk Import Profiles API"; *filtering* its page "Filtering".

- `POST /api/profile-bulk-import-jobs` creates or updates up to 10,000 profiles, 5 MB in all and 100 KB each, and
  adds them to a list on the way (spec). Its job is asked for until it is `complete`; those it could not import
  are listed under `/import-errors`, 100 a page (spec).
- One malformed profile refuses the whole request with 400; each error points to its profile,
  `/data/attributes/profiles/data/0/attributes/email` (seen in answers that public integrations keep in their
  tests; not in the spec). Those are rejected and the others are sent without them.
- An import error has the profile as it was sent in `original_payload` (spec). Where that does not tell whose it
  is, its pointer may (from memory, not confirmed).
- `null` in an import leaves a field as it is (guide). A custom property is cleared by
  `meta.patch_properties.unset` (spec); a standard field cannot be cleared by an import.
- `DELETE /api/lists/{id}/relationships/profiles` takes up to 1,000 profile ids, out of the list alone: consent and
  subscriptions stay (spec). The ids are looked up: `GET /api/profiles` with `filter=any(email,[...])` (filtering).
- 10 requests a second and 150 a minute for imports, jobs and changes of a list; look-ups may be faster (spec).
- 429 has `Retry-After` in seconds; other answers `RateLimit-Limit`, `-Remaining` and `-Reset` (Klaviyo's page on
  rate limits, as quoted elsewhere).

Adding somebody to a list, or importing them, is not consent, and nobody is ever subscribed or unsubscribed here:
Klaviyo's unsubscribe call, for somebody who is not in the list it names, unsubscribes them from everything (spec).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import httpx
from pydantic import AliasChoices, AliasPath, SecretStr, ValidationError
from pydantic import Field as Option

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Header
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Change, Job, Member, Outcome, Page, Receipt, Status, Value
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order, Rate
from sync.sdk.settled import every
from sync.sdk.values import path_part, text

__all__ = ["Klaviyo", "KlaviyoConfig"]

_JSON = "application/vnd.api+json"
_HEADERS = {"revision": "2026-07-15", "accept": _JSON}
_JOBS, _LISTS, _PROFILES = "/api/profile-bulk-import-jobs", "/api/lists", "/api/profiles"
_LOOKUP = 50  # identifiers in a look-up: they stand in the address, which must not grow too long
_TRIES = 3  # imports of one batch, each without the profiles that the one before refused
_FIRST, _LONGEST = 0.5, 30.0  # seconds between two looks at a job
_ROW = re.compile(r"/data/attributes/profiles/data/(\d{1,6})(?:/.*)?")
_NOBODY = "Klaviyo has nobody with these identifiers"
_STRAYS = "Klaviyo could not import some profiles of this batch and does not say which"

_IDENTIFIERS = (
    Field("email", identifier=True, normalise="email"),
    Field("phone_number", identifier=True, normalise="e164", description="As +61412345678."),
    Field("external_id", identifier=True, description="The id you know the person by."),
)
_KINDS = tuple(field.name for field in _IDENTIFIERS)
_PLACE = ("address1", "address2", "city", "region", "zip", "country", "timezone", "ip")
_STANDARD = (
    *map(Field, ("first_name", "last_name", "organization", "locale", "title", "image")),
    *(Field(f"location.{name}") for name in _PLACE),
    *(Field(f"location.{name}", "number") for name in ("latitude", "longitude")),
)
_FIELDS = _IDENTIFIERS + _STANDARD
_NAMES = frozenset(field.name for field in _STANDARD)
_RATES = (Rate(10, 1.0), Rate(150, 60.0))

# Removals go first: where an identifier changed, who is removed and who is added can be one profile.
_MEMBER = ObjectSpec(
    name="list_member",
    title="List member",
    ops=frozenset(Op),
    fields=_FIELDS,
    limits=Limits(batch_size=1000, batch_bytes=4_000_000, concurrency=4, rates=_RATES),
    order=Order.REMOVALS_FIRST,
    open_fields=True,
)
_PROFILE = replace(
    _MEMBER,
    name="profile",
    title="Profile",
    ops=frozenset({Op.ADD, Op.UPDATE}),
    limits=replace(_MEMBER.limits, batch_size=10_000, mixed_ops=True),
    audience=False,
)


class KlaviyoConfig(Config):
    """One Klaviyo account, reached with a private API key."""

    api_key: SecretStr = Option(
        description="A private key with the scopes lists:read, lists:write, profiles:read and profiles:write."
    )
    base_url: str = Option("https://a.klaviyo.com", description="Where the API is.")


class _Id(Shape):
    id: str = Option(validation_alias=AliasPath("data", "id"), min_length=1, max_length=200)


class _Job(_Id):
    status: Literal["queued", "processing", "complete", "cancelled"] = Option(
        validation_alias=AliasPath("data", "attributes", "status")
    )
    failed: int | None = Option(None, validation_alias=AliasPath("data", "attributes", "failed_count"))


def _told(*path: str) -> AliasChoices:
    """Where an error has it: a refusal at once, an import error among its attributes."""
    return AliasChoices(AliasPath(*path), AliasPath("attributes", *path))


class _Error(Shape):
    detail: str = Option("Klaviyo gave no reason", validation_alias=_told("detail"))
    pointer: str | None = Option(None, validation_alias=_told("source", "pointer"))
    payload: dict[str, Any] | None = Option(None, validation_alias=_told("original_payload"))

    def row(self, length: int) -> int | None:
        """The profile it points to, of so many that were sent."""
        match = _ROW.fullmatch(self.pointer or "")
        return int(match[1]) if match and int(match[1]) < length else None


class _Refusal(Shape):
    errors: list[_Error] = Option(min_length=1)


class _Page(Shape):
    link: str | None = Option(None, validation_alias=AliasPath("links", "next"))

    @property
    def next(self) -> str | None:
        """What the next page is asked for with: only that is taken of the link, never its address."""
        try:
            return httpx.URL(self.link).params.get("page[cursor]") if self.link else None
        except httpx.InvalidURL:
            raise ProtocolError("Klaviyo's link to the next page is none", self.link or "") from None


class _Errors(_Page):
    data: list[_Error]


class _Profile(Shape):
    id: str = Option(min_length=1)
    attributes: dict[str, Any] = Option(default_factory=dict)

    @property
    def identifiers(self) -> dict[str, str]:
        """Those it has."""
        return {kind: str(value) for kind in _KINDS if (value := self.attributes.get(kind))}


class _Profiles(_Page):
    data: list[_Profile]


class Klaviyo(Connector[KlaviyoConfig]):
    """Imports profiles, into a list where there is one, and takes them out of it by their ids.

    Fields that Klaviyo does not name are custom properties.
    """

    name = "klaviyo"
    title = "Klaviyo"
    docs = __doc__ or ""
    config_model = KlaviyoConfig
    objects: Mapping[str, ObjectSpec] = {"list_member": _MEMBER, "profile": _PROFILE}

    @classmethod
    def auth(cls, config: KlaviyoConfig) -> httpx.Auth:
        """The private key, in Klaviyo's own scheme (spec, securitySchemes)."""
        return Header("Authorization", config.api_key, "Klaviyo-API-Key ")

    def check(self) -> None:
        """Read one list."""
        read(_Profiles, self._get(_LISTS, {"page[size]": "1"}))

    def push(self, batch: Batch) -> Outcome:
        """Import, or remove; raise `RequestError` where the list does not exist."""
        if batch.changes[0].op is Op.REMOVE:
            return self._remove(batch)
        return self._import(batch)

    def poll(self, job: Job, batch: Batch) -> Outcome:
        """Ask once; whoever a complete job has no import error for is in."""
        found = read(_Job, self._get(f"{_JOBS}/{path_part(job.id)}"))
        if found.id != job.id:
            raise ProtocolError("Klaviyo's answer is about another job than the one that was asked for")
        if found.status in ("queued", "processing"):
            polls = int(job.data.get("polls", 0)) + 1
            return replace(job, data={"polls": polls}, poll_after=min(_LONGEST, _FIRST * 2 ** min(polls, 9)))
        settled = {receipt.key for receipt in job.settled}
        rest = [change for change in batch.changes if change.key not in settled]
        if found.status == "cancelled":
            return every(rest, Status.UNKNOWN, "Klaviyo cancelled the import, maybe in the middle of it")
        errors = [] if found.failed == 0 else self._import_errors(job.id, most=len(rest))
        return _imported(rest, errors, found.failed)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - only lists are audiences
        """Make a list; its id."""
        body = {"type": "list", "attributes": {"name": title}}
        return read(_Id, self._send("POST", _LISTS, body)).id

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """A page of a list's profiles, with the identifiers they have."""
        params = {"fields[profile]": ",".join(_KINDS), "page[size]": "100"}  # the most there is (spec)
        params |= {"page[cursor]": after} if after else {}
        page = read(_Profiles, self._get(f"{_list(audience)}/profiles", params))
        return Page([Member(profile.identifiers, profile.id) for profile in page.data], page.next)

    def describe(self, object: str) -> Iterable[Field]:  # noqa: ARG002 - both write profiles
        """The standard fields, and the custom properties of the 100 profiles that changed last.

        Klaviyo has no list of properties.
        """
        params = {"fields[profile]": "properties", "page[size]": "100", "sort": "-updated"}
        kinds: dict[str, set[str]] = {}
        for profile in read(_Profiles, self._get(_PROFILES, params)).data:
            properties = profile.attributes.get("properties")
            for name, value in properties.items() if isinstance(properties, dict) else ():
                if value is not None and not name.startswith("$") and name not in _NAMES:
                    kinds.setdefault(name, set()).add(_type(value))
        custom = (Field(name, found.pop() if len(found) == 1 else "json") for name, found in sorted(kinds.items()))
        return [*_FIELDS, *custom]

    # -- imports

    def _import(self, batch: Batch) -> Outcome:
        """Start a job for the profiles that Klaviyo takes; those it finds malformed are rejected."""
        settled: dict[str, Receipt] = {}
        for _ in range(_TRIES):
            rest = [change for change in batch.changes if change.key not in settled]
            if not rest:
                return list(settled.values())
            response = self._send("POST", _JOBS, _job(rest, batch.audience), expects={400})
            if response.status_code != 400:
                return Job(read(_Job, response).id, {"polls": 0}, tuple(settled.values()), _FIRST)
            settled |= {receipt.key: receipt for receipt in _malformed(rest, response)}
        rest = [change for change in batch.changes if change.key not in settled]
        return [*settled.values(), *every(rest, Status.DEFERRED, "Klaviyo refused others of the same request")]

    def _import_errors(self, job: str, *, most: int) -> list[_Error]:
        """Every import error of a job."""
        errors: list[_Error] = []
        cursor: str | None = ""
        for _ in range(most // 100 + 2):
            params = {"page[size]": "100"} | ({"page[cursor]": cursor} if cursor else {})
            page = read(_Errors, self._get(f"{_JOBS}/{path_part(job)}/import-errors", params))
            errors += page.data
            cursor = page.next
            if cursor is None:
                return errors
        raise ProtocolError("Klaviyo lists more import errors than there were profiles")

    # -- removals

    def _remove(self, batch: Batch) -> Outcome:
        """Look the profiles up and take them out of the list."""
        ids, several = self._find(batch.changes)
        if ids:
            body = [{"type": "profile", "id": id} for id in dict.fromkeys(ids.values())]
            response = self._send("DELETE", f"{_list(batch.audience)}/relationships/profiles", body, expects={404})
            if response.status_code == 404:
                fix = "give the id of one of Klaviyo's lists (not a segment) as `audience`"
                raise RequestError(f"Klaviyo has no list {batch.audience}", response.text, fix=fix)
            if response.status_code != 204:
                raise ProtocolError("Klaviyo's answer to a removal is not the documented 204", response.text)
        return [
            Receipt(c.key, Status.DEFERRED, "Klaviyo has several profiles with one of its identifiers")
            if c.key in several
            else Receipt(c.key, Status.APPLIED, "" if c.key in ids else _NOBODY, ids.get(c.key))
            for c in batch.changes
        ]

    def _find(self, changes: Sequence[Change]) -> tuple[dict[str, str], set[str]]:
        """Profile ids by change key, and the keys that several profiles fit; the others fit none."""
        ids: dict[str, str] = {}
        several: set[str] = set()
        for kind in _KINDS:
            rest = [c for c in changes if c.identifiers.get(kind) and c.key not in {*ids, *several}]
            found = self._look_up(kind, [text(c.identifiers[kind]) for c in rest])
            for change in rest:
                fits = found.get(text(change.identifiers[kind]).lower(), [])
                if len(fits) == 1:
                    ids[change.key] = fits[0]
                elif fits:
                    several.add(change.key)
        return ids, several

    def _look_up(self, kind: str, values: Sequence[str]) -> dict[str, list[str]]:
        """Profile ids by one kind of identifier, in lower case."""
        found: dict[str, list[str]] = {}
        for start in range(0, len(values), _LOOKUP):
            asked = values[start : start + _LOOKUP]
            listed = json.dumps(asked, ensure_ascii=False, separators=(",", ":"))
            wanted = listed.encode("utf-8", "replace").decode()  # lone surrogates cannot stand in an address
            params = {"filter": f"any({kind},{wanted})", "fields[profile]": ",".join(_KINDS), "page[size]": "100"}
            page = read(_Profiles, self._get(_PROFILES, params))
            answered = [(profile.identifiers.get(kind, "").lower(), profile.id) for profile in page.data]
            if page.next or not {value.lower() for value in asked} >= {value for value, _ in answered}:
                raise ProtocolError(f"Klaviyo names profiles whose {kind} was not asked for, or too many")
            for value, id in answered:
                found.setdefault(value, []).append(id)
        return found

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        return self.send("GET", path, params=params, headers=_HEADERS)

    def _send(self, method: str, path: str, data: Value, expects: Collection[int] = ()) -> httpx.Response:
        headers = {**_HEADERS, "Content-Type": _JSON}
        return self.send(method, path, {"data": data}, headers=headers, expects=expects)


def _list(audience: str | None) -> str:
    return f"{_LISTS}/{path_part(audience)}"


def _type(value: Value) -> str:
    """The type of a custom property, as a `Field` has it."""
    kinds = ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string"))
    return next((name for kind, name in kinds if isinstance(value, kind)), "json")


def _job(changes: Sequence[Change], audience: str | None) -> dict[str, Value]:
    """The body of an import."""
    job: dict[str, Value] = {
        "type": "profile-bulk-import-job",
        "attributes": {"profiles": {"data": [_profile(change) for change in changes]}},
    }
    if audience:
        job["relationships"] = {"lists": {"data": [{"type": "list", "id": audience}]}}
    return job


def _profile(change: Change) -> dict[str, Value]:
    """A profile as imports take it; custom properties without a value are unset."""
    given = {kind: text(value) for kind, value in change.identifiers.items() if value is not None}
    standard = {k: v for k, v in change.fields.items() if k in _NAMES and v is not None}
    custom = {k: v for k, v in change.fields.items() if k not in _NAMES}
    attributes: dict[str, Value] = given | {k: text(v) for k, v in standard.items() if "." not in k}
    if location := {k.partition(".")[2]: v for k, v in standard.items() if "." in k}:
        attributes["location"] = {k: v if k.endswith("itude") else text(v) for k, v in location.items()}
    if properties := {k: v for k, v in custom.items() if v is not None}:
        attributes["properties"] = properties
    profile: dict[str, Value] = {"type": "profile", "attributes": attributes}
    if cleared := [k for k, v in custom.items() if v is None]:
        profile["meta"] = {"patch_properties": {"unset": cleared}}
    return profile


def _malformed(changes: Sequence[Change], response: httpx.Response) -> list[Receipt]:
    """Rejections of the profiles that a 400 points to. Raises `RequestError` where it is about anything else."""
    try:
        errors = _Refusal.model_validate_json(response.content).errors
    except ValidationError:
        errors = []
    rows = [(error.row(len(changes)), error.detail) for error in errors]
    if not rows or any(row is None for row, _ in rows):
        fix = "give the id of one of Klaviyo's lists (not a segment) as `audience`, if that is what it refuses"
        raise RequestError("Klaviyo refused the import as a whole", response.text, fix=fix)
    return [Receipt(changes[row].key, Status.REJECTED, why) for row, why in rows if row is not None]


def _imported(changes: Sequence[Change], errors: Sequence[_Error], failed: int | None) -> list[Receipt]:
    """The receipts of a complete job. Where an error may be anybody's, nobody is in for certain."""
    keys = {(k, text(v).lower()): c.key for c in changes for k, v in c.identifiers.items() if v is not None}
    owners = [_owner(error, changes, keys) for error in errors]
    refused = {key: error.detail for key, error in zip(owners, errors, strict=True) if key}
    clear = None not in owners and failed in (None, len(refused))
    rest = (Status.APPLIED, "") if clear else (Status.UNKNOWN, _STRAYS)
    return [
        Receipt(c.key, Status.REJECTED, refused[c.key]) if c.key in refused else Receipt(c.key, *rest)
        for c in changes
    ]


def _owner(error: _Error, changes: Sequence[Change], keys: Mapping[tuple[str, str], str]) -> str | None:
    """The key of the change that an import error is about."""
    sent = error.payload or {}
    sent = sent["attributes"] if isinstance(sent.get("attributes"), dict) else sent
    found = {keys[name] for kind in _KINDS if (name := (kind, str(sent.get(kind)).lower())) in keys}
    if found:
        return found.pop() if len(found) == 1 else None
    row = error.row(len(changes))
    return None if row is None else changes[row].key
