"""Turns what pydantic says of a file's data into problems with a place, a reason and a fix."""

from __future__ import annotations

import types
from collections.abc import Container, Iterable, Mapping
from typing import Annotated, Any, Protocol, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sync.errors import Problem
from sync.files import Location, named, nearest

__all__ = ["Places", "arms", "children", "problems", "says"]


class Places(Protocol):
    """Knows where values stand: a document, or a document with the environment over it."""

    def known(self, location: Iterable[str | int]) -> Location:
        """The longest part of the way that was really given."""

    def problem(
        self,
        location: Location,
        code: str,
        message: str,
        fix: str = "",
        *,
        key: bool = False,
        warning: bool = False,
    ) -> Problem:
        """A problem of the value there (or of its key)."""


def problems(
    error: ValidationError,
    model: type[BaseModel],
    places: Places,
    prefix: Location = (),
    skip: Container[Location] = (),
) -> list[Problem]:
    """One problem a place: several complaints about one value (the arms of a union) become one.

    `prefix` is the way to the model's data in the file; complaints about the ways in `skip` are left out.
    """
    found: dict[tuple[Location, str], list[ErrorDetails]] = {}
    details = error.errors(include_url=False)
    for detail in details:
        if detail["type"] == "too_short" and any(_is_inside(d["loc"], detail["loc"]) for d in details):
            continue  # the entries that are wrong were not counted
        location = places.known((*prefix, *detail["loc"]))
        missing = str(detail["loc"][-1]) if detail["type"] == "missing" else ""
        if location not in skip:
            found.setdefault((location, missing), []).append(detail)
    return [_problem(location, details, model, places, prefix) for (location, _), details in found.items()]


def _is_inside(way: Location, list_: Location) -> bool:
    return len(way) > len(list_) and way[: len(list_)] == list_


def _problem(
    location: Location, details: list[ErrorDetails], model: type[BaseModel], places: Places, prefix: Location
) -> Problem:
    detail = details[0]
    kind = detail["type"]
    if kind == "missing":
        return _missing(location, str(detail["loc"][-1]), places)
    if kind == "extra_forbidden":
        return _unknown(location, list(children(model, location[len(prefix) : -1])), places)
    code, message = "HG107", " or ".join(dict.fromkeys(says(d) for d in details))
    if kind == "value_error":  # the model's own sentence
        error = detail["ctx"]["error"]
        code, fix = getattr(error, "code", code), getattr(error, "fix", "")
        return places.problem(location, code, f"{_of(location)}{error}", fix)
    return places.problem(location, code, f"{_title(location)} must be {message}", _fix(detail))


def _missing(location: Location, name: str, places: Places) -> Problem:
    where = _title(location) if location else "the file"
    return places.problem(location, "HG106", f"{where} lacks the key `{name}`", f"Add `{name}`.", key=True)


def _unknown(location: Location, names: list[str], places: Places) -> Problem:
    word = str(location[-1])
    near = nearest(word, names)
    fix = f"Did you mean `{near}`?" if near else f"Keys known here: {named(names, most=20)}."
    return places.problem(location, "HG105", f"unknown key `{word}`", fix, key=True)


def _title(location: Location) -> str:
    """How a message calls the value there: its key, or its number in a list."""
    if not location:
        return "the file"
    last = location[-1]
    if isinstance(last, str):
        return f"`{last}`"
    return f"entry {last + 1} of {_title(location[:-1])}"


def _of(location: Location) -> str:
    return f"{_title(location)}: " if location else ""


# --- sentences ------------------------------------------------------------------------------------------------

_MUST_BE = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "tuple_type": "a list",
    "list_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "a group of keys",
    "model_type": "a group of keys",
    "model_attributes_type": "a group of keys",
    "url_parsing": "a URL",
    "url_scheme": "a URL",
    "path_type": "a path",
}
_COMPARED = {
    "greater_than": ("gt", "more than {}"),
    "greater_than_equal": ("ge", "at least {}"),
    "less_than": ("lt", "less than {}"),
    "less_than_equal": ("le", "at most {}"),
    "string_too_short": ("min_length", "text of at least {} characters"),
    "string_too_long": ("max_length", "text of at most {} characters"),
    "too_short": ("min_length", "a list with at least {} in it"),
    "too_long": ("max_length", "a list with at most {} in it"),
    "enum": ("expected", "one of {}"),
    "literal_error": ("expected", "{}"),
}


def says(detail: ErrorDetails) -> str:
    """What the value must be, in words."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind in _MUST_BE:
        return _MUST_BE[kind]
    if kind in _COMPARED:
        name, text = _COMPARED[kind]
        return text.format(context.get(name))
    if kind == "string_pattern_mismatch":
        return _pattern(str(context.get("pattern")))
    return detail["msg"][:1].lower() + detail["msg"][1:]


def _pattern(pattern: str) -> str:
    if pattern.startswith("^[a-z0-9]"):
        return "a name: lower-case letters, digits, `-` and `_`, at most 80"
    return f"text like {pattern}"


def _fix(detail: ErrorDetails) -> str:
    kind, given = detail["type"], detail.get("input")
    if kind == "string_type" and isinstance(given, int | float):
        return "Put it in quotes."
    if kind in ("tuple_type", "list_type", "frozen_set_type") and isinstance(given, str):
        return "Write it in brackets: `[...]`."
    if kind in ("enum", "literal_error") and isinstance(given, str):
        expected = str(detail.get("ctx", {}).get("expected", "")).replace(" or ", ", ")
        near = nearest(given, [part.strip(" '") for part in expected.split(",")])
        return f"Did you mean `{near}`?" if near else ""
    return ""


# --- the shape of models --------------------------------------------------------------------------------------


def children(model: Any, location: Iterable[str | int]) -> list[str]:
    """The keys that may stand at a place inside a model; none where any may."""
    for step in location:
        model = _inside(model, step)
    model = _plain(model)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [f.alias or name for name, f in model.model_fields.items()]
    return []


def _inside(annotation: Any, step: str | int) -> Any:
    annotation = _plain(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {f.alias or name: f.annotation for name, f in annotation.model_fields.items()}
        return fields.get(str(step))
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return arguments[-1]
    return arguments[0] if origin in (tuple, list, frozenset) else None


def _plain(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`; of several arms, the first that is a model."""
    found = arms(annotation)
    models = [arm for arm in found if isinstance(arm, type) and issubclass(arm, BaseModel)]
    return next(iter(models or found), None)


def arms(annotation: Any) -> list[Any]:
    """What a value may be, without `Annotated` and None: `Annotated[A | None, ...]` is `[A]`."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) not in (Union, types.UnionType):
        return [annotation]
    return [inner for arm in get_args(annotation) if arm is not type(None) for inner in arms(arm)]
