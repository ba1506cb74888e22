"""Breaks a connector's good requests on purpose: what its description catches of them is what its green is worth.

The requests are those of a contract's good pushes (every object and op), polls, `check()`, and of reading, making
and describing where the connector can. Each kind of request is broken in every way below, one at a time, and is
judged by the description and the author's rules alone; the fake is not asked.

- credentials taken away; another method; another media type;
- a required header, query or form parameter dropped; a query or form parameter misspelt; a number or one of a few
  words made something else;
- in a JSON body: each key dropped, each key misspelt, each value of another type, one of a few words made another
  word, a list made longer than its cap.

What would not be a mistake is not made:

1. Of a list only the first entry is broken: the others are like it.
2. A key that carries a field of a change is not dropped: so looks a change without that field. The same goes for
   one of several identifiers that an object does not require.
3. A key whose name is the customer's (a field that the object does not declare) is not misspelt, and its value
   only retyped where the description types it.
4. A key whose value is what the description calls the default is not dropped.
5. A value is not given a type, or a word, that the description takes as well.
6. Requests that no description has (`Described.also`) are left out.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode

import httpx

from sync.sdk.connector import Creates, Describes, Reads
from sync.sdk.nouns import Change, ObjectSpec
from sync.testing.case import Case
from sync.testing.description import Description, Found
from sync.testing.openapi import Described
from sync.testing.strays import Place, cap, walk

if TYPE_CHECKING:
    from sync.testing.contract import ConnectorContract

__all__ = ["Mutant", "Verdict", "judge"]

_METHODS = {"GET": "POST", "POST": "PUT"}
_LONGEST = 20_000  # entries: a cap above it is not tried
_WORD = "no such word"


@dataclass(frozen=True)
class Mutant:
    """A broken request, and what was done to it."""

    request: httpx.Request
    what: str


@dataclass(frozen=True)
class Verdict:
    """How many broken requests were made, and what was done to those that nothing caught."""

    made: int
    survivors: tuple[str, ...]

    @property
    def share(self) -> float:
        """The share caught, from 0 to 1."""
        return 1 - len(self.survivors) / self.made if self.made else 0.0


@dataclass(frozen=True)
class _Asked:
    """A good request; `names` and `values` are of fields, those of spare identifiers too; `customers` are the
    names that the object does not declare."""

    request: httpx.Request
    customers: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()
    secrets: tuple[str, ...] = field(default=(), repr=False)


def judge(contract: type[ConnectorContract]) -> Verdict:
    """Break the contract's requests and see which of them its description and rules catch.

    Raises `ValueError` for a contract whose description is not here.
    """
    described = contract().judges
    if described is None:
        raise ValueError("the contract has no description, or its files are not here")
    made, survivors = 0, []
    for asked in _distinct(described, contract):
        for mutant in _mutants(described, asked):
            made += 1
            if next(described.request_faults(mutant.request), None) is None:
                survivors.append(f"{described.used(asked.request)}: {mutant.what}")
    return Verdict(made, tuple(survivors))


# -- good requests


def _distinct(described: Described, contract: type[ConnectorContract]) -> Iterator[_Asked]:
    """One request of each operation, media type and shape of body."""
    seen = set()
    for asked in _good(contract):
        found = described.find(asked.request)
        if found is None:
            continue
        places = _places(found, asked.request)
        shape = frozenset((p.path, type(p.value).__name__) for p in places)
        key = (described.used(asked.request), found[1].media, shape, frozenset(asked.request.url.params))
        if key not in seen:
            seen.add(key)
            yield asked


def _good(contract: type[ConnectorContract]) -> Iterator[_Asked]:
    """What the connector asks when all goes well."""
    with tempfile.TemporaryDirectory(prefix="headgate-") as folder:
        case = Case(contract(), "", Path(folder))
        wire = case.wire()
        connector = case.connect(wire)
        connector.check()
        objects = sorted(connector.objects)
        yield from (_Asked(request, secrets=tuple(case.secrets)) for request in wire.requests)
    for object in objects:
        with tempfile.TemporaryDirectory(prefix="headgate-") as folder:
            case = Case(contract(), object, Path(folder))
            for op in case.ops:
                yield from _pushed(case, case.batch(op, 2).changes)
            if case.spec.limits.mixed_ops:
                yield from _pushed(case, [c for op in case.ops for c in case.batch(op, 2, "mixed").changes])
            yield from _beside(case)


def _pushed(case: Case, changes: Any) -> Iterator[_Asked]:
    wire = case.wire()
    batch = case.batch_of(list(changes)[: case.spec.limits.batch_size or None])
    case.push(case.connect(wire), batch)
    names, values = _fields(case.spec, changes)
    customers = names - {one.name for one in case.spec.fields}
    yield from (_Asked(r, customers, names, values, tuple(case.secrets)) for r in wire.requests)


def _beside(case: Case) -> Iterator[_Asked]:
    """Reading, making and describing."""
    wire = case.wire()
    connector = case.connect(wire)
    if isinstance(connector, Reads) and case.spec.audience and case.spec.readable:
        connector.members(case.object, case.contract.audience)
    if isinstance(connector, Creates) and case.spec.audience:
        connector.create_audience(case.object, "Made by the conformance kit")
    if isinstance(connector, Describes):
        list(connector.describe(case.object))
    yield from (_Asked(request, secrets=tuple(case.secrets)) for request in wire.requests)


def _fields(spec: ObjectSpec, changes: list[Change]) -> tuple[frozenset[str], frozenset[str]]:
    """Names and values of what a change can do without."""
    required = {one.name for one in spec.identifiers if one.required}
    names: set[str] = set()
    values: set[str] = set()
    for change in changes:
        spare = {k: v for k, v in change.identifiers.items() if k not in required and len(change.identifiers) > 1}
        names |= {*spare, *change.fields}
        several = [*spare.values(), *change.fields.values()]
        values |= {json.dumps(one) for one in several if not isinstance(one, bool | None)}
    return frozenset(names), frozenset(values)


# -- broken ones


def _mutants(described: Described, asked: _Asked) -> Iterator[Mutant]:
    found = described.find(asked.request)
    if found is None:
        return
    request = asked.request
    yield Mutant(_without_credentials(asked), "no credentials")
    method = _METHODS.get(request.method, "POST")
    yield Mutant(_with(request, method=method), f"{method} instead")
    if request.content:
        yield Mutant(_with(request, headers={"content-type": "text/plain"}), "sent as text/plain")
    for name, parameter in found[1].operation.named("header").items():
        if parameter.get("required") and name in request.headers:
            yield Mutant(_without_header(request, name), f"header `{name}` dropped")
    yield from _of_query(found[1], request)
    if found[0].schema(found[1]) is not None:
        yield from _of_body(found, asked)
    elif found[1].media == "application/x-www-form-urlencoded":
        yield from _of_form(found, request)


def _with(request: httpx.Request, **changes: Any) -> httpx.Request:
    """The request with some of its parts replaced."""
    headers = {**request.headers, **changes.get("headers", {})}
    headers.pop("content-length", None)
    content = changes.get("content", request.content)
    return httpx.Request(
        changes.get("method", request.method), changes.get("url", request.url), headers=headers, content=content
    )


def _without_header(request: httpx.Request, name: str) -> httpx.Request:
    made = _with(request)
    del made.headers[name]
    return made


def _without_credentials(asked: _Asked) -> httpx.Request:
    """Without `Authorization`, and without every header and query parameter that holds a secret, or its Base64."""
    encoded = [base64.b64encode(secret.encode()).decode().rstrip("=") for secret in asked.secrets]
    made = _with(asked.request)
    for name, value in asked.request.headers.items():
        if name == "authorization" or any(secret in value for secret in (*asked.secrets, *encoded)):
            del made.headers[name]
    kept = [(k, v) for k, v in made.url.params.multi_items() if not any(s in v for s in asked.secrets)]
    if len(kept) < len(made.url.params.multi_items()):
        made.url = made.url.copy_with(params=kept)
    return made


def _of_query(found: Found, request: httpx.Request) -> Iterator[Mutant]:
    described = found.operation.named("query")
    for number, (name, value) in enumerate(items := request.url.params.multi_items()):
        parameter = described.get(name, {})

        def put(*pair: tuple[str, str], at: int = number) -> httpx.Request:
            url = request.url.copy_with(params=[*items[:at], *pair, *items[at + 1 :]])
            return _with(request, url=url)

        if parameter.get("required"):
            yield Mutant(put(), f"query `{name}` dropped")
        yield Mutant(put((_misspelt(name), value)), f"query `{name}` misspelt")
        schema = parameter.get("schema", {})
        if schema.get("type") in ("integer", "number", "boolean") or "enum" in schema:
            yield Mutant(put((name, _WORD)), f"query `{name}` is a word of ours")


def _of_form(found: tuple[Description, Found], request: httpx.Request) -> Iterator[Mutant]:
    raw = found[1].operation.raw["requestBody"]["content"][found[1].media]
    required = raw.get("schema", {}).get("required", ())
    pairs = parse_qsl(request.content.decode(), keep_blank_values=True)
    for number, (name, value) in enumerate(pairs):

        def put(*pair: tuple[str, str], at: int = number) -> httpx.Request:
            return _with(request, content=urlencode([*pairs[:at], *pair, *pairs[at + 1 :]]).encode())

        if name in required:
            yield Mutant(put(), f"form `{name}` dropped")
        yield Mutant(put((_misspelt(name), value)), f"form `{name}` misspelt")


def _of_body(found: tuple[Description, Found], asked: _Asked) -> Iterator[Mutant]:
    body = json.loads(asked.request.content)
    for place in _places(found, asked.request):
        for what, replaced in _broken(place, asked):
            content = json.dumps(_changed(body, place.path, replaced)).encode()
            yield Mutant(_with(asked.request, content=content), f"{place.where} {what}")


def _places(found: tuple[Description, Found], request: httpx.Request) -> list[Place]:
    """The parts of a JSON body, of lists only the first entry."""
    schema = found[0].schema(found[1])
    if schema is None:
        return []
    parts = walk(found[0].raw, schema, json.loads(request.content))
    return [p for p in parts if not any(isinstance(key, int) and key for key in p.path)]


Replace = Callable[[Any, Any], None]
"""Is given the parent and the key of a part, and changes it there."""


def _broken(place: Place, asked: _Asked) -> Iterator[tuple[str, Replace]]:
    """What is done to one part of a body, and how."""
    key = place.path[-1] if place.path else None
    if isinstance(key, str):
        if not _spare(place, key, asked):
            yield "dropped", lambda parent, key: parent.pop(key)
        if key not in asked.customers:
            yield "misspelt", _misspell
    other = _retyped(place.value)
    typed = any("type" in branch for branch in place.branches)
    if other is not None and not _takes(place, other) and (typed or key not in asked.customers):
        yield f"a {type(other).__name__}", _put(other)
    if any("enum" in branch for branch in place.branches) and not _takes(place, _WORD):
        yield "another word", _put(_WORD)
    most = cap(place) if isinstance(place.value, list) and place.value else None
    if most is not None and most <= _LONGEST:
        yield f"{most + 1} entries", _put((place.value * (most + 1))[: most + 1])


def _spare(place: Place, key: str, asked: _Asked) -> bool:
    """Whether the request without this key would be as good: rules 2 and 4."""
    scalar = not isinstance(place.value, dict | list)
    field = key in asked.names or (scalar and json.dumps(place.value) in asked.values)
    return field or any("default" in b and b["default"] == place.value for b in place.branches)


_TYPES: Mapping[type, tuple[str, ...]] = {
    str: ("string",),
    int: ("integer", "number"),
    float: ("number",),
    bool: ("boolean",),
    list: ("array",),
    dict: ("object",),
}


def _takes(place: Place, other: Any) -> bool:
    """Whether some branch says that it takes such a value: rule 5."""
    for branch in place.branches:
        kinds = branch.get("type")
        kinds = [kinds] if isinstance(kinds, str) else kinds or ()
        if any(kind in _TYPES[type(other)] for kind in kinds) and other in branch.get("enum", [other]):
            return True
    return False


def _retyped(value: Any) -> Any:
    """The value as another type; None where there is none worth trying."""
    if isinstance(value, str):
        return 7
    if isinstance(value, list):
        return value[0] if value and not isinstance(value[0], dict | list | None) else "a text"
    return None if value is None else "a text"


def _misspelt(name: str) -> str:
    """The name with its last two letters swapped, or one too many."""
    swapped = name[:-2] + name[:-3:-1]
    return swapped if swapped != name else name + name[-1]


def _misspell(parent: Any, key: Any) -> None:
    parent[_misspelt(key)] = parent.pop(key)


def _put(value: Any) -> Replace:
    def put(parent: Any, key: Any) -> None:
        parent[key] = value

    return put


def _changed(body: Any, path: tuple[str | int, ...], replace: Replace) -> Any:
    """A copy of the body with one part changed."""
    top = [json.loads(json.dumps(body))]
    parent: Any = top
    for key in (0, *path)[:-1]:
        parent = parent[key]
    replace(parent, (0, *path)[-1])
    return top[0]
