"""Reads an OpenAPI document, lays the author's overlays over it, and mends what a validator would misread.

- Discriminators are dropped: openapi-core cannot follow one whose mapping is implicit.
- `const` is said as OpenAPI 3.0 says it, by an `enum` of one.
- A schema that has `properties` or `items` and forgets to say its type is of an object or of an array.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sync.testing.strays import Schema, resolved

__all__ = ["METHODS", "followed", "has", "read"]

METHODS = {"get", "put", "post", "delete", "options", "head", "patch"}
_MAPS = {"properties", "patternProperties", "schemas", "$defs", "responses", "content", "parameters", "paths"}
_DATA = {"example", "examples", "default", "enum", "const"}
_UNTYPED = ("type", "$ref", "allOf", "anyOf", "oneOf")


def read(path: Path, overlays: Sequence[tuple[str, str, Any]] = ()) -> dict[str, Any]:
    """The document (JSON, or YAML by its name), mended; `overlays`: (operation, media type, schema of the body);
    of an answer's body `200 application/json` stands in place of the media type.

    Raises `OSError` and `ValueError` where it cannot be read, `LookupError` where an overlay's operation is not
    in it.
    """
    raw = _parsed(path)
    for name, media, schema in overlays:
        operation, (status, _, kind) = _operation(raw, name), media.partition(" ")
        if status.isdigit():
            operation["responses"][status] = {"description": "", "content": {kind: {"schema": schema}}}
            continue
        body = copy.deepcopy(followed(raw, operation.get("requestBody", {})))
        body.setdefault("content", {})[media] = {"schema": schema}
        operation["requestBody"] = body
    _mend(raw)
    return raw


def has(path: Path, name: str) -> bool:
    """Whether a document has an operation, by its id or as `METHOD /path/template`."""
    try:
        _operation(_parsed(path), name)
    except LookupError:
        return False
    return True


def followed(raw: Schema, one: Any) -> Any:
    """What it refers to, where it is a reference."""
    return resolved(raw, one["$ref"]) if isinstance(one, Mapping) and "$ref" in one else one


def _parsed(path: Path) -> dict[str, Any]:
    if path.suffix in (".yaml", ".yml"):
        from ruamel.yaml import YAML

        return dict(YAML(typ="safe").load(path.read_bytes()))
    return dict(json.loads(path.read_bytes()))


def _operation(raw: Schema, name: str) -> dict[str, Any]:
    for template, methods in raw["paths"].items():
        for method, operation in methods.items():
            if method in METHODS and name in (operation.get("operationId"), f"{method.upper()} {template}"):
                found: dict[str, Any] = operation
                return found
    raise LookupError(f"no operation `{name}` in the description")


def _mend(node: Any, *, names: bool = False) -> None:
    """Mend a node and all below it; `names`: its keys are names somebody gave, not words of OpenAPI."""
    if isinstance(node, list):
        for inner in node:
            _mend(inner)
    if not isinstance(node, dict):
        return
    if not names:
        _mend_schema(node)
    for key, inner in node.items():
        if names or key not in _DATA:
            _mend(inner, names=not names and key in _MAPS and isinstance(inner, dict))


def _mend_schema(node: dict[str, Any]) -> None:
    node.pop("discriminator", None)
    if "const" in node:
        node.setdefault("enum", [node.pop("const")])
    if not any(word in node for word in _UNTYPED):
        if isinstance(node.get("properties"), dict) or "additionalProperties" in node:
            node["type"] = "object"
        elif isinstance(node.get("items"), dict):
            node["type"] = "array"
