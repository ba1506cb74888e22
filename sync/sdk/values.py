"""Wire values as destinations take them, and as people may see them."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import orjson

from sync.sdk.nouns import Change, Value

__all__ = ["dumps", "given", "json_object", "mask", "path_part", "text"]


def dumps(value: Value) -> bytes:
    """JSON of a wire value, UTF-8, in the order it was given. Integers of any size are kept exactly."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, lone surrogates
        return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def json_object(content: bytes) -> dict[str, Any] | None:
    """The JSON object an answer holds; None where it holds anything else."""
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def text(value: Value) -> str:
    """A wire value as form fields, CSV cells and query parameters take it: `true`, `12.5`, empty for None."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return dumps(value).decode() if isinstance(value, dict | list | tuple) else str(value)


def path_part(value: str | None) -> str:
    """An audience or another id as one part of a URL's path, whatever it holds."""
    return quote(value or "", safe="", errors="replace")


def given(change: Change) -> dict[str, str]:
    """The identifiers that a change has, as text: of several that are enough one by one, some can be missing."""
    return {name: text(value) for name, value in change.identifiers.items() if value not in (None, "")}


_EMAIL = re.compile(r"([\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]{0,64}(?:@|%40)([\w-]+(?:\.[\w-]+)+)")
_DIGITS = re.compile(r"\+?\d(?:[ ().-]{0,2}\d){5,}")
_HEX = re.compile(r"\b(?=\w*[a-fA-F])[0-9a-fA-F]{16,}\b")


def mask(evidence: str) -> str:
    """Text fit to be shown: e-mail addresses (also as they stand in a URL) as `a•••@acme.example`, telephone
    numbers and other runs of six digits or more as `•••42`, digests and tokens in hex as `•••`."""
    evidence = _EMAIL.sub(r"\1•••@\2", evidence)
    evidence = _HEX.sub("•••", evidence)
    return _DIGITS.sub(lambda match: f"•••{match[0][-2:]}", evidence)
