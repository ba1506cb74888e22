"""The requests of a manifest: what one holds, and how the members are put into it."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import httpx
from pydantic import Field, JsonValue

from sync.errors import RequestError
from sync.sdk.manifest.auth import Strict
from sync.sdk.manifest.text import ABSENT, PLACEHOLDER, fill, placeholders, put, render, segment
from sync.sdk.nouns import Change, Op, Receipt, Status, Value
from sync.sdk.values import dumps, text

__all__ = [
    "Call",
    "Carrier",
    "Pairs",
    "as_listed",
    "build",
    "by_op",
    "content_of",
    "in_path",
    "of_change",
    "parameters",
    "record_of",
]

Known = Mapping[str, Value]
_KINDS = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "lines": "application/x-ndjson",
    "csv": "text/csv",
}


class Call(Strict):
    """A request without members: `body` is a template of JSON, or of form fields with `place = "form"`."""

    method: Literal["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"] = "GET"
    path: str
    query: Mapping[str, str] = {}
    headers: Mapping[str, str] = {}
    body: Mapping[str, JsonValue] = {}
    place: Literal["json", "form", "lines", "csv", "query", "path", "none"] = "json"
    statuses: tuple[int, ...] = ()  # taken as an answer beside 2xx

    def names(self) -> Iterator[tuple[str, str]]:
        """Every placeholder: where it stands, and its name."""
        yield from placeholders(self.path, "path")
        yield from placeholders(self.query, "query")
        yield from placeholders(self.headers, "headers")
        yield from placeholders(self.body, "body")


class Pairs(Strict):
    """Fields as a list of objects: `{ key = "name", value = "value" }` makes `[{"name": ..., "value": ...}]`."""

    key: str
    value: str
    types: Mapping[str, JsonValue] = {}  # constants of each


class Carrier(Call):
    """A request with members in it.

    `per = "batch"`: the members go, as `place` says, under the dotted key `members` of the JSON body (the body
    itself is the list where it is empty), of a form or of the query, into the path at `{members}`, or as one
    line each. Of each member the whole record is sent, or with `value` that field alone, or what the template
    `record` says. In JSON they are a list, or with a `style` one text: joined by `separator`, or JSON. Elsewhere
    they are joined unless `style` says that they are repeated under the same key, numbered, or one JSON text.
    Lines and CSV are the body, or the `file` of that name in a multipart form whose fields are `body`.
    `per = "record"`: one request each; the record is the body or form, under `members` where that is given.

    A record without a template has the identifiers and beside them the fields, or under `fields_at`; with `pairs`
    as a list of names and values. In a template `{fields}` are those fields that it does not name itself.
    """

    per: Literal["batch", "record"] = "batch"
    members: str = ""
    value: str = ""
    record: JsonValue = None
    fields_at: str = ""
    pairs: Pairs | None = None
    style: Literal["joined", "repeated", "numbered", "json"] | None = None
    file: str = ""
    separator: str = Field(default=",", min_length=1)

    @property
    def flat(self) -> bool:
        """Are the values of a batch joined to one text."""
        joins = self.style == "joined" or (self.style is None and self.place in ("form", "query", "path"))
        return self.per == "batch" and joins

    def record_names(self) -> Iterator[tuple[str, str]]:
        """Every placeholder of the templates of one record."""
        yield from placeholders(self.record, "record")

    def mistakes(self) -> Iterator[tuple[bool, str]]:
        """What does not go together."""
        batch, place = self.per == "batch", self.place
        flat = self.flat
        yield batch and place == "none", "`place` is none: the members go nowhere"
        one = bool(self.value) or isinstance(self.record, str)
        yield batch and flat and not one, "`value` is missing: which field is joined?"
        yield batch and place in ("form", "query") and not self.members, "`members` is missing: under which key?"
        yield place == "path" and "{members}" not in self.path, "`path` has no {members}"
        yield place == "path" and not flat, "values in a path are joined: leave `style` out"
        yield not batch and place in ("query", "path"), "with `per` record use placeholders instead of `place`"
        yield not batch and place in ("lines", "csv"), "`place` lines or csv needs `per` batch"
        yield bool(self.value) and self.record is not None, "give either `value` or `record`"
        yield batch and place == "query" and self.style == "numbered", "a query is not numbered: repeat the key"
        yield (
            place == "json" and self.style in ("repeated", "numbered"),
            "JSON has lists: leave `style` out, or say `joined` or `json` for one text",
        )
        yield (
            place == "json" and self.style is not None and not self.members,
            "`members` is missing: under which key?",
        )
        lines = place in ("lines", "csv")
        yield bool(self.file) and not lines, "`file` needs `place` lines or csv"
        yield (
            lines and bool(self.body) and not self.file,
            "a body of lines has no constants: give a `file` its name",
        )
        columns = self.record if place == "csv" and isinstance(self.record, Mapping) else {}
        yield any(PLACEHOLDER.search(name) for name in columns), "the names of columns are constants"
        yield (
            place == "csv" and not isinstance(self.record, dict),
            "`record` is missing: a table that gives each column's name a placeholder",
        )
        yield (
            self.pairs is not None and not self.fields_at and "{fields}" not in str(self.record),
            "`pairs` needs `fields_at`, or `{fields}` in `record`: where do they stand?",
        )


def record_of(carrier: Carrier, change: Change, known: Known, template: Any = None) -> Value:
    """What is sent of one member. Raises `RequestError` where it lacks the one value that is."""
    if carrier.value:
        own = {**change.fields, **change.identifiers, "remote_id": change.remote_id}
        return _there(own.get(carrier.value), carrier.value)
    template = carrier.record if template is None else template
    if template is None:
        return _plain(carrier, change)
    named = {name for _, name in placeholders(template)}
    rest = {name: value for name, value in change.fields.items() if name not in named}
    made = render(template, of_change(change, known) | ({"fields": _fields(carrier, rest)} if rest else {}))
    return _there(None if made is ABSENT else made, str(template)) if isinstance(template, str) else made


def _there(value: Value, name: str) -> Value:
    if value is None:
        raise RequestError(f"the record lacks '{name}', and that is what is sent of it")
    return value


def of_change(change: Change, known: Known) -> dict[str, Value]:
    """What placeholders may say of one record."""
    own = {**known, **change.fields, **change.identifiers, "key": change.key, "op": change.op.value}
    return own if change.remote_id is None else own | {"remote_id": change.remote_id}


def _fields(carrier: Carrier, fields: Mapping[str, Value]) -> Value:
    if carrier.pairs is None:
        return dict(fields)
    pairs = carrier.pairs
    return [{**pairs.types, pairs.key: name, pairs.value: value} for name, value in fields.items()]


def _plain(carrier: Carrier, change: Change) -> dict[str, Value]:
    if not carrier.fields_at:
        return {**change.fields, **change.identifiers}
    made = dict(change.identifiers)
    if change.fields:
        put(made, carrier.fields_at, _fields(carrier, change.fields))
    return made


def values_of(carrier: Carrier, changes: Sequence[Change], known: Known) -> list[Value]:
    """What is sent of each member, in order."""
    return [record_of(carrier, change, known) for change in changes]


def as_listed(carrier: Carrier, values: Sequence[Value]) -> Value:
    """The values as a list, or as the one text that the carrier's style makes of them."""
    if carrier.style == "json":
        return dumps(list(values)).decode()
    return joined(carrier, values) if carrier.flat else list(values)


def joined(carrier: Carrier, values: Sequence[Value]) -> str:
    """The values with separators between. Raises `RequestError` where one would fall apart or vanish."""
    texts = [text(value) for value in values]
    if any(carrier.separator in one or not one.strip() for one in texts):
        raise RequestError("a value is empty or has a separator (a comma) in it, and values are joined here")
    return carrier.separator.join(texts)


def content_of(
    carrier: Carrier, changes: Sequence[Change], known: Known, members: Callable[[dict[str, Value]], Value]
) -> tuple[bytes | None, str]:
    """The body and its content type; `members` puts the members of a batch into the constants of a JSON body."""
    constants: dict[str, Value] = render(carrier.body, known)
    place = carrier.place
    if place in ("lines", "csv"):
        rows = _rows(carrier, changes, known)
        return _multipart(carrier.file, place, rows, constants) if carrier.file else (rows, _KINDS[place])
    if carrier.per == "record":
        if place == "none":
            return _constants(constants)
        return _one(carrier, changes[0], known, constants)
    if place == "json":
        return dumps(members(constants)), _KINDS["json"]
    if place == "form":
        pairs = [*_flat(constants), *_listed(carrier, values_of(carrier, changes, known))]
        return _encoded(pairs), _KINDS["form"]
    return _constants(constants)


def _constants(constants: dict[str, Value]) -> tuple[bytes | None, str]:
    return (dumps(constants), _KINDS["json"]) if constants else (None, "")


def _one(carrier: Carrier, change: Change, known: Known, constants: dict[str, Value]) -> tuple[bytes | None, str]:
    record = record_of(carrier, change, known)
    body: Value
    if carrier.members:
        put(constants, carrier.members, record)
        body = constants
    else:
        body = {**constants, **record} if isinstance(record, Mapping) else record
    if carrier.place == "form":
        return _encoded(_flat(body)), _KINDS["form"]
    return dumps(body), _KINDS["json"]


def _rows(carrier: Carrier, changes: Sequence[Change], known: Known) -> bytes:
    records = values_of(carrier, changes, known)
    if carrier.place == "lines":
        return b"".join(dumps(record) + b"\n" for record in records)
    columns = list(carrier.record) if isinstance(carrier.record, dict) else []
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({name: text(value) for name, value in record.items()} for record in records)
    return out.getvalue().encode("utf-8", "surrogatepass")


def _multipart(name: str, place: str, rows: bytes, fields: Mapping[str, Value]) -> tuple[bytes, str]:
    """A form with the rows as a file (RFC 7578). The boundary is a digest: the same rows are the same request."""
    kind = f"multipart/form-data; boundary={hashlib.sha256(rows).hexdigest()[:32]}"
    form = httpx.Request(
        "POST", "https://localhost", headers={"Content-Type": kind},
        data=dict(_flat(fields)), files={name: (f"headgate.{place}", rows, _KINDS[place])},
    )  # fmt: skip
    return form.read(), kind


def _listed(carrier: Carrier, values: Sequence[Value]) -> Iterator[tuple[str, str]]:
    """The members as the fields of a form or the parameters of a query."""
    if carrier.style == "json" or carrier.flat:
        yield carrier.members, text(as_listed(carrier, values))
    elif carrier.style == "repeated":
        yield from ((carrier.members, text(value)) for value in values)
    else:
        for number, value in enumerate(values):
            yield from _flat(value, f"{carrier.members}[{number}]")


def _flat(value: Value, name: str = "") -> Iterator[tuple[str, str]]:
    """Form fields as most frameworks read them: `a[b]` for objects, `a[]` for lists, `a[0][b]` for lists of
    objects."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}[{key}]" if name else key)
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            nested = isinstance(inner, Mapping | list)
            yield from _flat(inner, f"{name}[{number}]" if nested else f"{name}[]")
    else:
        yield name, text(value)


def _encoded(pairs: Any) -> bytes:
    return str(httpx.QueryParams(list(pairs))).encode()


def build(
    http: httpx.Client,
    call: Call,
    known: Known,
    *,
    headers: Mapping[str, str],
    content: tuple[bytes | None, str] | None = None,
    more: Sequence[tuple[str, str]] = (),
    members: str = "",
    expects: frozenset[int] = frozenset(),
) -> httpx.Request:
    """The request with its placeholders filled; without `content` the body is the call's own template."""
    if content is None:
        constants = render(call.body, known)
        form = call.place == "form"
        content = (_encoded(_flat(constants)), _KINDS["form"]) if form else _constants(constants)
    body, kind = content
    own = httpx.Headers({"Content-Type": kind} if kind else {})
    own.update(filled_headers({**headers, **call.headers}, known))
    query = [(name, fill(value, known)) for name, value in call.query.items()]
    return http.build_request(
        call.method,
        segment(call.path, {**known, "members": members}, safe=getattr(call, "separator", "")),
        params=[*query, *more] or None,
        headers=own,
        content=body,
        extensions={"expects": expects | frozenset(call.statuses)},
    )


def filled_headers(headers: Mapping[str, str], known: Known) -> dict[str, str]:
    """Headers with their placeholders filled; what no header can hold is percent-encoded."""
    return {name: quote(fill(value, known), safe=_HEADER) for name, value in headers.items()}


_HEADER = "".join(chr(code) for code in range(0x20, 0x7F))


def unfit(carrier: Carrier, changes: Sequence[Change], known: Known) -> dict[str, Receipt]:
    """Rejections of those whose record cannot be made: they lack the one value that is sent, say."""
    if carrier.value == "" and carrier.record is None and not getattr(carrier, "records", None):
        return {}
    found: dict[str, Receipt] = {}
    for change in changes:
        try:
            made = record_of(carrier, change, known, getattr(carrier, "records", {}).get(change.op))
            if carrier.flat:
                joined(carrier, [made])
        except RequestError as exc:
            found[change.key] = Receipt(change.key, Status.REJECTED, exc.message)
    return found


def parameters(carrier: Carrier, changes: Sequence[Change], known: Known) -> list[tuple[str, str]]:
    """The members as parameters of the query, where they go there."""
    if carrier.per == "record" or carrier.place != "query":
        return []
    return list(_listed(carrier, values_of(carrier, changes, known)))


def in_path(carrier: Carrier, changes: Sequence[Change], known: Known) -> str:
    """The members as one segment of the path, where they go there."""
    return joined(carrier, values_of(carrier, changes, known)) if carrier.place == "path" else ""


def by_op(changes: Sequence[Change], op: Op) -> list[Change]:
    """The changes of one op."""
    return [change for change in changes if change.op is op]
