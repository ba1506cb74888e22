"""Reads answers in the shapes that platforms document."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from sync.errors import ProtocolError
from sync.sdk.values import json_object
from sync.sdk.wire import host_of

__all__ = ["Shape", "read", "read_list"]


class Shape(BaseModel):
    """Part of an answer: what is read of it has to be there, the rest is ignored. Numbers may stand for text."""

    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True, hide_input_in_errors=True)


S = TypeVar("S", bound=Shape)


def read(shape: type[S], response: httpx.Response) -> S:
    """The answer's JSON in the shape given. Raises `ProtocolError`, which quotes nothing of it.

    So it does where an answer that has the shape takes itself back: with an `error`, `errors` or `success: false`
    that the shape knows nothing of.
    """
    found: S = _read(shape, response)
    answer, known = json_object(response.content) or {}, _known(shape)
    if any(answer.get(name) for name in {"error", "errors"} - known) or (
        "success" not in known and answer.get("success") is False
    ):
        raise ProtocolError(f"{_host(response)} sent an answer that contradicts itself", response.text)
    return found


def read_list(shape: type[S], response: httpx.Response) -> list[S]:
    """The same of an answer that is a JSON list of such shapes."""
    found: list[S] = _read(list[shape], response)  # type: ignore[valid-type]
    return found


@cache
def _known(shape: type[Shape]) -> frozenset[str]:
    """The names that a shape reads."""
    return frozenset(field.alias or name for name, field in shape.model_fields.items())


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _read(kind: Any, response: httpx.Response) -> Any:
    try:
        return _adapter(kind).validate_json(response.content)
    except ValidationError:
        pass
    raise ProtocolError(f"{_host(response)} sent an answer without the documented shape", response.text)


def _host(response: httpx.Response) -> str:
    try:
        return host_of(response.request)
    except RuntimeError:  # one that was made, not received
        return "the destination"
