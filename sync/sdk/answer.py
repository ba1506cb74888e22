"""Reads answers in the shapes that platforms document."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic import Field as Option

from sync.errors import ProtocolError
from sync.sdk.values import json_object
from sync.sdk.wire import host_of

__all__ = ["Made", "Shape", "read", "read_list"]


class Shape(BaseModel):
    """Part of an answer: what is read of it has to be there, the rest is ignored. Numbers may stand for text."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


T = TypeVar("T")


class Made(Shape):
    """What says that something was made: the id it got."""

    id: str = Option(min_length=1, max_length=200)


def read(kind: type[T], response: httpx.Response, *, at: str = "") -> T:
    """The answer's JSON as the shape, or the `list[...]` or `dict[str, ...]` of shapes, given; with `at`, what the
    answer has under that name. Raises `ProtocolError`, which quotes nothing of it.

    So it does where an answer that has the shape takes itself back: with an `error`, `errors` or `success: false`
    that the shape knows nothing of.
    """
    found: T
    found, known = _read(kind, at, response)
    answer = json_object(response.content) or {}
    if any(answer.get(name) for name in {"error", "errors"} - known) or (
        "success" not in known and answer.get("success") is False
    ):
        raise ProtocolError(f"{_host(response)} sent an answer that contradicts itself", response.text)
    return found


def read_list(kind: type[T], response: httpx.Response) -> list[T]:
    """The same of an answer that is a JSON list."""
    return read(list[kind], response)  # type: ignore[valid-type]


@cache
def _adapter(kind: Any, at: str) -> tuple[TypeAdapter[Any], frozenset[str]]:
    """What reads it, and the names that it reads at the top of an answer."""
    if at:
        return TypeAdapter(create_model("_At", __base__=Shape, found=(kind, Option(alias=at)))), frozenset({at})
    fields = kind.model_fields if isinstance(kind, type) and issubclass(kind, Shape) else {}
    return TypeAdapter(kind), frozenset(field.alias or name for name, field in fields.items())


def _read(kind: Any, at: str, response: httpx.Response) -> tuple[Any, frozenset[str]]:
    adapter, known = _adapter(kind, at)
    try:
        found = adapter.validate_json(response.content)
    except ValidationError:
        pass
    else:
        return (found.found if at else found), known
    raise ProtocolError(f"{_host(response)} sent an answer without the documented shape", response.text)


def _host(response: httpx.Response) -> str:
    try:
        return host_of(response.request)
    except RuntimeError:  # one that was made, not received
        return "the destination"
