"""Reads a manifest file, and says of every mistake in it where it is and how to mend it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sync.errors import Problem, ProjectError
from sync.files import Document, Location, Unreadable, nearest, read_toml, toml_document
from sync.sdk.manifest.model import Manifest
from sync.validation import says

__all__ = ["read_file", "read_manifest", "schema"]

_BOOK = "docs/reference/manifest.md has every key, by example."


def read_manifest(text: str, file: str) -> Manifest:
    """The manifest in a TOML text. Raises `ProjectError` (HG412), which names the file and every key amiss."""
    try:
        return _checked(toml_document(text, file))
    except Unreadable as unreadable:
        _refuse(unreadable, file)


def read_file(path: Path, shown: str = "") -> Manifest:
    """The manifest in a file. Raises as `read_manifest` does."""
    try:
        return _checked(read_toml(path, shown or str(path)))
    except Unreadable as unreadable:
        _refuse(unreadable, shown or str(path))


def _checked(document: Document) -> Manifest:
    try:
        return Manifest.model_validate(document.data)
    except ValidationError as error:
        raise ProjectError(list(_problems(error, document))) from None


def _refuse(unreadable: Unreadable, file: str) -> NoReturn:
    problems = [replace(p, code="HG412", message=f"{file}: {p.message}") for p in unreadable.problems]
    raise ProjectError(problems) from None


def _problems(error: ValidationError, document: Document) -> Iterator[Problem]:
    seen: set[tuple[Location, str]] = set()
    for detail in error.errors(include_url=False):
        location = _location(document.data, detail)
        message, fix = _words(detail)
        if detail["type"] == "value_error":  # the model's own sentence, which begins with the place
            location = document.known(message.partition(":")[0].split("."))
        if (location, message) in seen:
            continue
        seen.add((location, message))
        key = ".".join(map(str, location))
        said = message if detail["type"] == "value_error" or not key else f"{key}: {message}"
        mark = document.known(location)
        yield document.problem(mark, "HG412", f"{document.file}: {said}", fix, key=True)


def _location(data: Any, detail: ErrorDetails) -> Location:
    """The way to what is amiss, without the steps that are the library's own: the tags of unions. A tag may be
    called as a key beside it is: then the way is the one that leads on."""
    return max(_ways(data, detail["loc"]), key=lambda way: (bool(way[1]), len(way[0])))[0]


def _ways(data: Any, steps: Location) -> Iterator[tuple[Location, bool]]:
    """Every way that leaves out some steps, and whether it goes to the last one."""
    if not steps:
        yield (), True
        return
    step, *rest = steps
    inside = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    if step in inside:
        yield from (((step, *way), whole) for way, whole in _ways(data[step], tuple(rest)))
    yield from ((way, whole and bool(rest)) for way, whole in _ways(data, tuple(rest)))


def _words(detail: ErrorDetails) -> tuple[str, str]:
    kind, last = detail["type"], str(detail["loc"][-1]) if detail["loc"] else ""
    if kind == "value_error":
        return str(detail["ctx"]["error"]), _BOOK
    if kind == "missing":
        return f"the key `{last}` is missing", f"Add `{last}`: {_BOOK}"
    if kind == "extra_forbidden":
        near = nearest(last, sorted(_vocabulary()))
        return "unknown key", f"Did you mean `{near}`?" if near and near != last else f"Remove it: {_BOOK}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        tags, name = detail["ctx"].get("expected_tags", ""), str(detail["ctx"].get("discriminator", "")).strip("'")
        return f"`{name}` has to be one of {tags}" if tags else f"the key `{name}` is missing", _BOOK
    return f"it has to be {says(detail)}", _BOOK


@cache
def _vocabulary() -> frozenset[str]:
    """Every key that a manifest can have somewhere."""
    parts = [schema(), *schema()["$defs"].values()]
    return frozenset(name for part in parts for name in part.get("properties", ()))


def schema() -> dict[str, Any]:
    """The JSON Schema of manifests."""
    return Manifest.model_json_schema()
