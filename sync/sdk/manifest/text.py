"""Placeholders and templates: what is put where in the requests of a manifest, and what is found in answers.

A placeholder is a name in braces. A text that is one placeholder keeps the value's type in a template (a number
stays a number); a form behind a colon makes something else of it: `{score:integer}`. What a record lacks is left
out of objects, and is null in lists. Keys of objects may hold placeholders, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any
from urllib.parse import quote

from sync.errors import RequestError
from sync.sdk.nouns import Value
from sync.sdk.values import text

__all__ = [
    "ABSENT", "FORMS", "PLACEHOLDER", "dig", "fill", "is_one_of", "placeholders", "put", "render", "segment",
]  # fmt: skip

PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")
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
        return value if whole[2] is None or value is ABSENT or value is None else _formed(whole, value)
    if isinstance(template, Mapping):
        filled = {fill(key, known): render(value, known) for key, value in template.items()}
        return {key: value for key, value in filled.items() if value is not ABSENT}
    if isinstance(template, list | tuple):
        return [None if (value := render(one, known)) is ABSENT else value for one in template]
    return template


def placeholders(template: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Where each placeholder of a template stands, and its name; with the form where there is no such form."""
    for place, match in _matches(template, where):
        yield place, match[1] if match[2] in (None, *FORMS) else f"{match[1]}:{match[2]}"


def _matches(template: Any, where: str) -> Iterator[tuple[str, re.Match[str]]]:
    if isinstance(template, str):
        yield from ((where, match) for match in PLACEHOLDER.finditer(template))
    elif isinstance(template, Mapping):
        for key, value in template.items():
            inside = f"{where}.{key}".lstrip(".")
            yield from _matches(key, inside)
            yield from _matches(value, inside)
    elif isinstance(template, list | tuple):
        for number, value in enumerate(template):
            yield from _matches(value, f"{where}.{number}")


def _as_text(match: re.Match[str], known: Known) -> str:
    value = known.get(match[1])
    return text(value if match[2] is None else _formed(match, value))


def _formed(match: re.Match[str], value: Value) -> Value:
    form = FORMS.get(match[2])
    return value if form is None else form(match[1], text(value))


def _integer(name: str, value: str) -> int:
    try:
        return int(value)
    except ValueError:
        raise RequestError(f"the {name} has to be a whole number here", value) from None


def _epoch_ms(name: str, value: str) -> int:
    """Milliseconds since 1970; a time without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(value)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(moment.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise RequestError(f"the {name} has to be a date or a time here", value) from None


FORMS: Mapping[str, Callable[[str, str], Value]] = {
    "integer": _integer,
    "epoch_s": lambda name, value: _epoch_ms(name, value) // 1000,
    "epoch_ms": _epoch_ms,
    "segment": lambda _, value: quote(value, safe=""),
}
"""What may stand behind a placeholder's colon: it is given the name and the value as text."""


def put(body: dict[str, Value], path: str, value: Value) -> None:
    """Set what stands at a dotted path, making on the way what is not there; a number is a place in a list."""
    steps = _steps(path)
    here: Any = body
    for key, after in pairwise(steps):
        inner = _at(here, key)
        made: Any = list(inner) if isinstance(inner, list) else dict(inner) if isinstance(inner, Mapping) else None
        _set(here, key, ([] if after.isdecimal() else {}) if made is None else made)
        here = _at(here, key)
    _set(here, steps[-1], value)


def _at(here: Any, key: str) -> Any:
    """What stands in an object or a list."""
    if isinstance(here, list):
        return here[int(key)] if key.isdecimal() and len(key) < 9 and int(key) < len(here) else None
    return here.get(key)


def _set(here: Any, key: str, value: Value) -> None:
    """Set it there; in a list at a place it has, or at its end."""
    if not isinstance(here, list):
        here[key] = value
    elif key.isdecimal() and len(key) < 9 and int(key) < len(here):
        here[int(key)] = value
    elif key == str(len(here)):
        here.append(value)
    else:
        raise RequestError(f"the list that the members are put into has no place '{key}'")


@lru_cache(4096)
def _steps(path: str) -> tuple[str, ...]:
    """The keys of a dotted path; a dot that is part of a key has a backslash before it."""
    return tuple(step.replace("\\.", ".") for step in _DOT.split(path))


_DOT = re.compile(r"(?<!\\)\.")


def dig(value: Any, path: str) -> Any:
    """What stands at a dotted path, whose numbers are places in lists; `ABSENT` where there is nothing."""
    for key in filter(None, _steps(path)):
        if isinstance(value, list):
            value = value[int(key)] if key.isdecimal() and len(key) < 9 and int(key) < len(value) else ABSENT
        else:
            value = value.get(key, ABSENT) if isinstance(value, dict) else ABSENT
    return value


def is_one_of(value: Any, allowed: tuple[str | int | bool, ...]) -> bool:
    """Equality without `1 == True`."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)
