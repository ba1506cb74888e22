"""Walks a JSON body beside its schema: what the schema says of each part, and what no part of it mentions.

JSON Schema leaves objects open, so a validator lets a misspelt key through. This walk knows the names that any
branch of a schema (`allOf`, `anyOf`, `oneOf`, references) gives to the keys of an object, and yields the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Place", "Schema", "strays", "thinned", "walk"]

Schema = Mapping[str, Any]
_KEPT = 50  # entries at each end of a long list
_SAYS_NOTHING = {"description", "title", "example", "examples", "nullable", "x-nullable", "default", "deprecated"}


@dataclass(frozen=True)
class Place:
    """A part of a body: its keys and indexes from the top, its value, and the branches of schema it may be of.

    `named` is False for a key that the schema leaves to the customer; `known` says whether the schema of the
    object around it names any keys at all.
    """

    path: tuple[str | int, ...]
    value: Any
    branches: Sequence[Schema]
    named: bool = True
    known: bool = True

    @property
    def where(self) -> str:
        """As it is written: `inputs[0].id`."""
        parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return "".join(parts).removeprefix(".") or "the body"


def walk(root: Schema, schema: Schema, value: Any, every: int = 2 * _KEPT) -> Iterator[Place]:
    """Every part of a value, from the top; `root` is the document that references point into.

    Of a list with more than `every` entries only the first and the last ones are entered.
    """
    top = Place((), value, tuple(_branches(root, [schema])))
    waiting = [top]
    while waiting:
        place = waiting.pop()
        yield place
        waiting += list(_inner(root, place, every))[::-1]


def strays(root: Schema, schema: Schema, value: Any) -> Iterator[str]:
    """What is wrong with the keys and the lengths of a value: keys that nothing names, lists above their cap."""
    for place in walk(root, schema, value):
        if place.known and not place.named:
            yield f"{place.where}: no schema names this key"
        if isinstance(place.value, list) and (most := cap(place)) is not None and len(place.value) > most:
            yield f"{place.where}: {len(place.value)} entries, at most {most} are taken"


def cap(place: Place) -> int | None:
    """The most entries that a list may have; None where some branch does not say."""
    lists = [b for b in place.branches if "items" in b or b.get("type") == "array"]
    caps = [b.get("maxItems") for b in lists]
    return None if not caps or None in caps else max(c for c in caps if c is not None)


def thinned(value: Any) -> Any:
    """The value with only the ends of its long lists: a validator is slow, and `strays` has looked at lengths."""
    if isinstance(value, dict):
        return {key: thinned(one) for key, one in value.items()}
    if isinstance(value, list):
        kept = value if len(value) <= 2 * _KEPT else [*value[:_KEPT], *value[-_KEPT:]]
        return [thinned(one) for one in kept]
    return value


def _inner(root: Schema, place: Place, every: int) -> Iterator[Place]:
    if isinstance(place.value, dict):
        names = {name for branch in place.branches for name in branch.get("properties") or ()}
        known = bool(names) and not _is_open(place.branches)
        for key, one in place.value.items():
            inner = tuple(_branches(root, _of_key(place.branches, key)))
            yield Place((*place.path, key), one, inner, key in names, known)
    elif isinstance(place.value, list):
        items = [b["items"] for b in place.branches if isinstance(b.get("items"), dict)]
        inner = tuple(_branches(root, items))
        numbered = list(enumerate(place.value))
        if len(numbered) > every:
            numbered = [*numbered[: every // 2], *numbered[-(every // 2) :]]
        for number, one in numbered:
            yield Place((*place.path, number), one, inner)


def _of_key(branches: Sequence[Schema], key: str) -> list[Schema]:
    named = [b["properties"][key] for b in branches if key in (b.get("properties") or ())]
    more = [b["additionalProperties"] for b in branches if isinstance(b.get("additionalProperties"), dict)]
    return named or more


def _is_open(branches: Sequence[Schema]) -> bool:
    """Whether some branch says, or leaves open, that any key will do."""
    return any(
        b.get("additionalProperties", False) is not False or "patternProperties" in b or b.get("x-any")
        for b in branches
    )


def _branches(root: Schema, schemas: Sequence[Schema]) -> Iterator[Schema]:
    """The schemas with their references followed and their compositions taken apart."""
    waiting: list[tuple[Any, bool]] = [(schema, False) for schema in schemas]
    seen: set[int] = set()
    while waiting:
        schema, choice = waiting.pop()
        while isinstance(schema, dict) and "$ref" in schema:
            schema = resolved(root, schema["$ref"])
        if schema is True or (choice and _any_object(schema)):
            yield {"x-any": True}
            continue
        if not isinstance(schema, dict) or id(schema) in seen:
            continue
        seen.add(id(schema))
        yield schema
        waiting += [(one, choice) for one in schema.get("allOf", ())]
        waiting += [(one, True) for word in ("anyOf", "oneOf") for one in schema.get(word, ())]


def _any_object(schema: Any) -> bool:
    """Whether a schema takes any object: one that says nothing at all, or only that it is an object."""
    if not isinstance(schema, dict):
        return False
    says = schema.keys() - _SAYS_NOTHING
    return not says or (says == {"type"} and schema["type"] == "object")


def resolved(root: Schema, reference: str) -> Any:
    """What a local reference points to."""
    found: Any = root
    for part in reference.removeprefix("#/").split("/"):
        found = found[part.replace("~1", "/").replace("~0", "~")]
    return found
