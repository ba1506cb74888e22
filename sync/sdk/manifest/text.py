"""Placeholders and templates: what is put where in the requests of a manifest, and what is found in answers.

A placeholder is a name in braces. A text that is one placeholder keeps the value's type in a template (a number
stays a number); with `:integer` text becomes a whole number. What a record lacks is left out of objects, and is
null in lists.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from sync.errors import RequestError
from sync.sdk.nouns import Value
from sync.sdk.values import text

__all__ = ["ABSENT", "PLACEHOLDER", "dig", "fill", "is_one_of", "placeholders", "put", "render", "segment"]

PLACEHOLDER = re.compile(r"\{(\w+)(:integer)?\}")
ABSENT: Any = object()
"""Stands for what is not there; null is a value."""

Known = Mapping[str, Value]


def fill(template: str, known: Known) -> str:
    """The text with its placeholders filled; what is not known is empty."""
    return PLACEHOLDER.sub(lambda match: _as_text(match, known), template)


def segment(template: str, known: Known, safe: str = "") -> str:
    """A path with its placeholders filled, each as one segment. Raises `RequestError` for an empty value: it would
    address the whole collection, and DELETE would take it all."""

    def one(match: re.Match[str]) -> str:
        value = _as_text(match, known)
        if not value.strip() or value in (".", ".."):
            raise RequestError(f"the {match[1]} is empty or a dot, and it is part of the address")
        return quote(value, safe=safe if match[1] == "members" else "")

    return PLACEHOLDER.sub(one, template)


def render(template: Any, known: Known) -> Any:
    """The template with every placeholder in it filled; `ABSENT` where it is nothing but one that is not known."""
    if isinstance(template, str):
        whole = PLACEHOLDER.fullmatch(template)
        if whole is None:
            return fill(template, known)
        value = known.get(whole[1], ABSENT)
        return _integer(whole[1], text(value)) if whole[2] and value is not ABSENT else value
    if isinstance(template, Mapping):
        filled = {key: render(value, known) for key, value in template.items()}
        return {key: value for key, value in filled.items() if value is not ABSENT}
    if isinstance(template, list | tuple):
        return [None if (value := render(one, known)) is ABSENT else value for one in template]
    return template


def placeholders(template: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where each placeholder of a template stands, and its name."""
    if isinstance(template, str):
        yield from ((where, match[1]) for match in PLACEHOLDER.finditer(template))
    elif isinstance(template, Mapping):
        for key, value in template.items():
            yield from placeholders(value, f"{where}.{key}".lstrip("."))
    elif isinstance(template, list | tuple):
        for number, value in enumerate(template):
            yield from placeholders(value, f"{where}.{number}")


def _as_text(match: re.Match[str], known: Known) -> str:
    value = text(known.get(match[1]))
    return text(_integer(match[1], value)) if match[2] else value


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise RequestError(f"the {name} has to be a whole number here", value) from None


def put(body: dict[str, Value], path: str, value: Value) -> None:
    """Set what stands at a dotted path, making the objects on the way."""
    *way, last = path.split(".")
    for key in way:
        inner = body.get(key)
        body[key] = body = dict(inner) if isinstance(inner, Mapping) else {}
    body[last] = value


def dig(value: Any, path: str) -> Any:
    """What stands at a dotted path, whose numbers are places in lists; `ABSENT` where there is nothing."""
    for key in filter(None, path.split(".")):
        if isinstance(value, list):
            value = value[int(key)] if key.isdecimal() and len(key) < 9 and int(key) < len(value) else ABSENT
        else:
            value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def is_one_of(value: Any, allowed: tuple[str | int | bool, ...]) -> bool:
    """Equality without `1 == True`."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)
