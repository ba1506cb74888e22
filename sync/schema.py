"""JSON Schemas of the mapping files, of config.toml and of manifests, made from the models that read them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from sync.errors import HeadgateError
from sync.mapping import DeliveryRules, Mapping
from sync.sdk import registry
from sync.settings import Settings
from sync.sources import option_models

__all__ = ["schemas"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


_OWN_MANIFEST = {
    "type": "object",
    "description": "A connector from a manifest file of the project; its options are those of the manifest.",
    "properties": {
        "type": {"type": "string", "pattern": r"\.toml$"},
        "delivery": {"$ref": "#/$defs/DeliveryRules"},
    },
    "required": ["type"],
}


def schemas() -> dict[str, dict[str, Any]]:
    """`mapping`, `config` and `manifest`: for editors, which complete and check while somebody types."""
    return {"mapping": _mapping(), "config": _config(), "manifest": _manifest()}


def _manifest() -> dict[str, Any]:
    from sync.sdk.manifest.reading import schema

    return {"$schema": _DIALECT, **schema(), "title": "Headgate manifest of a connector"}


def _mapping() -> dict[str, Any]:
    return {"$schema": _DIALECT, **Mapping.model_json_schema(), "title": "Headgate mapping"}


def _config() -> dict[str, Any]:
    schema = Settings.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    for name in ("SourceSettings", "DestinationSettings"):
        definitions.pop(name, None)
    definitions["DeliveryRules"] = DeliveryRules.model_json_schema()
    sources = [_typed(name, model, definitions) for name, model in option_models().items()]
    destinations = [_typed(name, model, definitions, delivery=True) for name, model in _connectors().items()]
    destinations.append(_OWN_MANIFEST)
    schema["properties"]["sources"] = _named(sources)
    schema["properties"]["destinations"] = _named(destinations)
    return {"$schema": _DIALECT, **schema, "title": "Headgate config.toml"}


def _connectors() -> dict[str, type[BaseModel]]:
    """The options of every connector that can be loaded; a broken one is left out."""
    found: dict[str, type[BaseModel]] = {}
    for name in registry.available():
        try:
            found[name] = registry.load(name).config_model
        except HeadgateError:
            continue
    return found


def _named(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    """A table of names, each with one of the kinds."""
    return {"type": "object", "additionalProperties": {"oneOf": kinds}}


def _typed(
    name: str, model: type[BaseModel], definitions: dict[str, Any], *, delivery: bool = False
) -> dict[str, Any]:
    """The options of one type, with `type` itself and the engine's own table where there is one."""
    schema = model.model_json_schema()
    for key, inner in schema.pop("$defs", {}).items():
        definitions.setdefault(key, inner)
    own = schema.get("properties", {})
    properties = {"type": {"const": name}, **own}
    if delivery:
        rules = {"$ref": "#/$defs/DeliveryRules"}
        properties["delivery"] = {"anyOf": [rules, own["delivery"]]} if "delivery" in own else rules
    required = ["type", *schema.get("required", [])]
    return {**schema, "properties": properties, "required": required, "additionalProperties": False}
