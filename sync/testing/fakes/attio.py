"""An Attio workspace in memory: people, companies, lists and their entries, as far as the connector uses them.

It answers in the shapes of Attio's OpenAPI description and of docs.attio.com. The words of refusals are made up,
their codes are those that the description has.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from typing import Any, ClassVar
from urllib.parse import unquote

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeAttio", "ready"]

Json = dict[str, Any]
_MOMENT = "2026-01-02T03:04:05.678000000Z"
_ATTRIBUTES: Mapping[str, Mapping[str, str]] = {
    "people": {
        "email_addresses": "email-address",
        "name": "personal-name",
        "description": "text",
        "score": "number",
        "vip": "checkbox",
        "tags": "text",
    },
    "companies": {
        "domains": "domain",
        "name": "text",
        "description": "text",
        "employees": "number",
        "vip": "checkbox",
    },
}
_UNIQUE = {"people": "email_addresses", "companies": "domains"}
_SEVERAL = {"email_addresses", "domains", "tags"}


class FakeAttio(Fake):
    """Call it with a request, or serve it with `sync.testing.fakes.server.serve`.

    `records` has values by attribute, by record id, by object; `lists` what is known of a list, by its id;
    `entries` a parent and values by entry id, by list id. `attributes` are the types of attributes, by object, and
    those of every list under `entries`.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("PUT", r"/v2/objects/(\w+)/records", "_assert"),
        ("POST", r"/v2/objects/(\w+)/records/query", "_query"),
        ("GET", r"/v2/objects/(\w+)/records/([\w-]+)", "_get"),
        ("GET", r"/v2/objects/(\w+)/records/([\w-]+)/entries", "_places"),
        ("GET", r"/v2/objects/(\w+)/attributes", "_list_attributes"),
        ("GET", "/v2/lists", "_list_lists"),
        ("POST", "/v2/lists", "_make_list"),
        ("PUT", r"/v2/lists/([^/]+)/entries", "_enter"),
        ("POST", r"/v2/lists/([^/]+)/entries/query", "_list_entries"),
        ("DELETE", r"/v2/lists/([^/]+)/entries/([\w-]+)", "_remove"),
    )

    def __init__(self, token: str = "attio-test", *, rate: Rate | None = None, **options: Any) -> None:  # noqa: S107 - nobody's
        super().__init__(rate=rate, **options)
        self.token = token
        self.records: dict[str, dict[str, dict[str, list[Any]]]] = {"people": {}, "companies": {}}
        self.lists: dict[str, Json] = {}
        self.entries: dict[str, dict[str, Json]] = {}
        self.attributes = {kind: dict(types) for kind, types in _ATTRIBUTES.items()}
        self.attributes["entries"] = {"stage": "text", "score": "number", "vip": "checkbox"}
        self._made = 0

    def add(self, kind: str, value: str, **values: Any) -> str:
        """A record that was there before; its id."""
        id = self._uuid()
        self.records[kind][id] = {_UNIQUE[kind]: [value], **{name: [one] for name, one in values.items()}}
        return id

    def add_list(self, title: str, of: str = "people") -> str:
        """A list that was there before; its id."""
        id = self._uuid()
        self.lists[id] = {"name": title, "api_slug": title.lower().replace(" ", "_"), "parent_object": [of]}
        self.entries[id] = {}
        return id

    def enter(self, list: str, parent: str, **values: Any) -> str:
        """An entry that was there before; its id."""
        id = self._uuid()
        self.entries[list][id] = {"parent": parent, "values": {name: [one] for name, one in values.items()}}
        return id

    def members(self, list: str) -> dict[str, Json]:
        """The values of a list's entries, by parent."""
        return {entry["parent"]: entry["values"] for entry in self.entries[list].values()}

    def _uuid(self) -> str:
        self._made += 1
        return f"{self._made:08x}-0000-4000-8000-{self._made:012x}"

    # -- who may ask, and how often

    def authorised(self, request: httpx.Request) -> bool:
        """The workspace's token."""
        return bool(request.headers.get("authorization") == f"Bearer {self.token}")

    def unauthorised(self) -> httpx.Response:
        """As for a token that it does not know."""
        return _refusal(401, "unauthorized", "The token is not known.", kind="auth_error")

    def too_fast(self, wait: float) -> httpx.Response:
        """429 with a date, which counts whole seconds."""
        answer = _refusal(429, "rate_limit_exceeded", "Rate limit exceeded.", kind="rate_limit_error")
        answer.headers["Retry-After"] = formatdate(math.ceil(time.time() + wait), usegmt=True)
        return answer

    def no_route(self, request: httpx.Request) -> httpx.Response:
        """What it says to any other path."""
        return _refusal(404, "not_found", f"Could not find {request.method} endpoint.")

    # -- records

    def _assert(self, asked: Asked) -> httpx.Response:
        (kind,) = asked.parts
        if kind not in self.records:
            return _refusal(404, "not_found", f'Object with slug/ID "{kind}" not found.')
        key, values = asked.params.get("matching_attribute"), asked.body["data"]["values"]
        if key != _UNIQUE[kind]:
            return _refusal(400, "value_not_found", f'No attribute was found for matching_attribute "{key}".')
        values = {name: [_normal(name, one) for one in several] for name, several in values.items()}
        if fault := self._fault(kind, values) or ("" if values.get(key) else f'"{key}" has no value.'):
            return _refusal(400, "value_not_found", fault)
        found = [id for id, one in self.records[kind].items() if set(one.get(key, ())) & set(values[key])]
        if len(found) > 1:
            return _refusal(400, "value_not_found", "Several records have these values.")
        id = found[0] if found else self.add(kind, values[key][0])
        record = self.records[kind][id]
        record |= values | {key: list(dict.fromkeys([*record[key], *values[key]]))}
        self.records[kind][id] = {name: several for name, several in record.items() if several}
        return httpx.Response(200, json={"data": self._record(kind, id)})

    def _fault(self, kind: str, values: Mapping[str, Any]) -> str:
        """What is wrong with values; nothing is said of those that are well."""
        for name, several in values.items():
            type = self.attributes[kind].get(name)
            if type is None:
                return f'Cannot find attribute with slug/ID "{name}".'
            if not isinstance(several, list) or (len(several) > 1 and name not in _SEVERAL):
                return f'Several values were given to "{name}".'
            if not all(_FITS[type](one) for one in several):
                return f'An invalid value was passed to attribute with slug "{name}".'
        return ""

    def _query(self, asked: Asked) -> httpx.Response:
        (kind,) = asked.parts
        if kind not in self.records:
            return _refusal(404, "not_found", "The referenced object was not found.")
        body = asked.body or {}
        try:
            ids = [id for id, one in self.records[kind].items() if _fits(body.get("filter", {}), kind, one)]
        except (KeyError, TypeError, ValueError):
            return _refusal(400, "filter_error", "Error in filter.")
        start, most = body.get("offset", 0), min(body.get("limit", 500), 500)
        return httpx.Response(200, json={"data": [self._record(kind, id) for id in ids[start : start + most]]})

    def _get(self, asked: Asked) -> httpx.Response:
        kind, id = asked.parts
        if id not in self.records.get(kind, {}):
            return _refusal(404, "not_found", f'Record with ID "{id}" not found.')
        return httpx.Response(200, json={"data": self._record(kind, id)})

    def _record(self, kind: str, id: str) -> Json:
        ids = {"workspace_id": _WORKSPACE, "object_id": _OBJECTS[kind], "record_id": id}
        types = self.attributes[kind]
        values = {
            name: [_value(types[name], one) for one in several] for name, several in self.records[kind][id].items()
        }
        url = f"https://app.attio.com/acme/{kind}/{id}"
        return {"id": ids, "created_at": _MOMENT, "web_url": url, "values": values}

    def _list_attributes(self, asked: Asked) -> httpx.Response:
        (kind,) = asked.parts
        if kind not in self.records:
            return _refusal(404, "not_found", f'Object with slug/ID "{kind}" not found.')
        known = {**self.attributes[kind], "created_at": "timestamp"}
        return httpx.Response(200, json={"data": [_attribute(kind, name, type) for name, type in known.items()]})

    # -- lists and entries

    def _list_lists(self, _: Asked) -> httpx.Response:
        return httpx.Response(200, json={"data": [self._list(id) for id in self.lists]})

    def _list(self, id: str) -> Json:
        actor = {"type": "api-token", "id": _WORKSPACE}
        access = {"workspace_access": "full-access", "workspace_member_access": []}
        ids = {"workspace_id": _WORKSPACE, "list_id": id}
        return {"id": ids, **self.lists[id], **access, "created_by_actor": actor, "created_at": _MOMENT}

    def _make_list(self, asked: Asked) -> httpx.Response:
        made = asked.body["data"]
        if made["parent_object"] not in self.records:
            return _refusal(400, "value_not_found", "The parent object was not found.")
        if any(one["api_slug"] == made["api_slug"] for one in self.lists.values()):
            return _refusal(409, "slug_conflict", f'A list with the slug "{made["api_slug"]}" exists.')
        id = self.add_list(made["name"], made["parent_object"])
        self.lists[id]["api_slug"] = made["api_slug"]
        return httpx.Response(200, json={"data": self._list(id)})

    def _known(self, asked: Asked) -> str | None:
        """The id of the list that is named by its id or its slug."""
        name = unquote(asked.parts[0])
        return next((id for id, one in self.lists.items() if name in (id, one["api_slug"])), None)

    def _enter(self, asked: Asked) -> httpx.Response:
        id, entry = self._known(asked), asked.body["data"]
        if id is None:
            return _refusal(404, "not_found", f'List with slug/ID "{asked.parts[0]}" was not found.')
        parent, values = entry["parent_record_id"], entry["entry_values"]
        if entry["parent_object"] not in self.lists[id]["parent_object"]:
            return _refusal(400, "value_not_found", "The list does not take records of this object.")
        if parent not in self.records[entry["parent_object"]]:
            return _refusal(400, "value_not_found", f'Parent record with slug/ID "{parent}" not found.')
        if fault := self._fault("entries", values):
            return _refusal(400, "value_not_found", fault)
        there = [one for one, known in self.entries[id].items() if known["parent"] == parent]
        if len(there) > 1:
            return _refusal(
                400, "multiple_match_results", "Multiple entries were found for the given parent record."
            )
        made = there[0] if there else self.enter(id, parent)
        self.entries[id][made]["values"] |= values
        return httpx.Response(200, json={"data": self._entry(id, made)})

    def _entry(self, list: str, id: str) -> Json:
        entry, types = self.entries[list][id], self.attributes["entries"]
        values = {name: [_value(types[name], one) for one in several] for name, several in entry["values"].items()}
        return {
            "id": {"workspace_id": _WORKSPACE, "list_id": list, "entry_id": id},
            "parent_record_id": entry["parent"],
            "parent_object": self.lists[list]["parent_object"][0],
            "created_at": _MOMENT,
            "entry_values": values,
        }

    def _list_entries(self, asked: Asked) -> httpx.Response:
        id, body = self._known(asked), asked.body or {}
        if id is None:
            return _refusal(404, "not_found", f'List with slug/ID "{asked.parts[0]}" not found.')
        start, most = body.get("offset", 0), min(body.get("limit", 500), 500)
        page = [*self.entries[id]][start : start + most]
        return httpx.Response(200, json={"data": [self._entry(id, one) for one in page]})

    def _places(self, asked: Asked) -> httpx.Response:
        kind, record = asked.parts
        if record not in self.records.get(kind, {}):
            return _refusal(404, "not_found", f'Record with ID "{record}" not found.')
        start, most = int(asked.params.get("offset", 0)), int(asked.params.get("limit", 100))
        if most > 1000:
            return _refusal(400, "value_not_found", "The limit is at most 1000.")
        places = [
            {"list_id": list, "list_api_slug": self.lists[list]["api_slug"], "entry_id": id, "created_at": _MOMENT}
            for list, entries in self.entries.items()
            for id, entry in entries.items()
            if entry["parent"] == record
        ]
        return httpx.Response(200, json={"data": places[start : start + most]})

    def _remove(self, asked: Asked) -> httpx.Response:
        id, entry = self._known(asked), asked.parts[1]
        if id is None or entry not in self.entries[id]:
            return _refusal(404, "not_found", f'Entry with ID "{entry}" not found.')
        del self.entries[id][entry]
        return httpx.Response(200, json={})


_WORKSPACE = "14beef7a-0000-4000-8000-000000000001"
_OBJECTS = {"people": "97052eb9-0000-4000-8000-000000000002", "companies": "97052eb9-0000-4000-8000-000000000003"}


def _normal(name: str, value: Any) -> Any:
    """An address in lower case; a domain without scheme, path and query."""
    if name == "domains" and isinstance(value, str):
        return (
            value.lower().partition("://")[2].partition("/")[0]
            if "://" in value
            else value.lower().partition("/")[0]
        )
    return value.lower() if name == "email_addresses" and isinstance(value, str) else value


_FITS: Mapping[str, Callable[[Any], bool]] = {
    "email-address": lambda value: isinstance(value, str) and "@" in value[1:-1] and " " not in value,
    "domain": lambda value: isinstance(value, str) and "." in value and " " not in value,
    "personal-name": lambda value: isinstance(value, str | dict),
    "text": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "checkbox": lambda value: isinstance(value, bool),
}
_NAMES = {"email_addresses": ("email_address", "original_email_address"), "domains": ("domain",)}


def _fits(filter: Any, kind: str, record: Mapping[str, list[Any]]) -> bool:
    """Raises `KeyError`, `TypeError` or `ValueError` for a filter that it does not understand."""
    ((name, condition),) = filter.items()
    if name in ("$or", "$and"):
        return (any if name == "$or" else all)(_fits(one, kind, record) for one in condition)
    if name not in _ATTRIBUTES[kind]:
        raise KeyError(name)
    ((part, comparison),) = condition.items()
    if part not in _NAMES[name] or set(comparison) != {"$eq"}:
        raise ValueError(part)
    return bool(str(comparison["$eq"]).lower() in record.get(name, []))


def _value(type: str, value: Any) -> Json:
    """A value as it is read."""
    actor = {"type": "api-token", "id": _WORKSPACE}
    about = {"active_from": _MOMENT, "active_until": None, "created_by_actor": actor, "attribute_type": type}
    if type == "email-address":
        local, _, domain = value.partition("@")
        parts = {"email_domain": domain, "email_root_domain": domain, "email_local_specifier": local}
        return about | {"email_address": value, "original_email_address": value} | parts
    if type == "domain":
        return about | {"domain": value, "root_domain": value}
    if type == "personal-name":
        last, _, first = value.partition(", ") if isinstance(value, str) else ("", "", "")
        given = {"first_name": first or last, "last_name": last if first else "", "full_name": str(value)}
        return about | (value if isinstance(value, dict) else given)
    return about | {"value": value}


def _attribute(kind: str, name: str, type: str) -> Json:
    ids = {"workspace_id": _WORKSPACE, "object_id": _OBJECTS[kind], "attribute_id": _OBJECTS[kind]}
    return {
        "id": ids,
        "title": name.replace("_", " ").capitalize(),
        "description": None,
        "api_slug": name,
        "type": type,
        "is_system_attribute": name == "created_at",
        "is_writable": name != "created_at",
        "is_required": False,
        "is_unique": name == _UNIQUE[kind],
        "is_multiselect": name in _SEVERAL,
        "is_archived": False,
        "created_at": _MOMENT,
    }


def _refusal(status: int, code: str, message: str, kind: str = "invalid_request_error") -> httpx.Response:
    return httpx.Response(status, json={"status_code": status, "type": kind, "code": code, "message": message})


def ready() -> Ready:
    """A workspace with a list of people."""
    workspace = FakeAttio()
    people = workspace.add_list("Lapsed buyers")

    def members(object: str, audience: str) -> set[str]:
        kind = "companies" if object == "company" else "people"
        records = workspace.records[kind]
        ids = workspace.members(audience) if object == "list_entry" else records
        return {records[id][_UNIQUE[kind]][0] for id in ids}

    def know(object: str, people: Iterable[str]) -> None:
        for address in people if object == "list_entry" else ():
            workspace.add("people", address)

    options = {"token": workspace.token}
    audiences = {"list_entry": people}
    return Ready(workspace, lambda url: {**options, "base_url": url}, audiences, members=members, know=know)
