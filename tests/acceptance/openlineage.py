"""What OpenLineage's published JSON Schemas ask of an event, as far as we send it; and these themselves, if there.

Written by hand after the specification 2-0-2 and its facets (openlineage.io/spec/2-0-2/OpenLineage.json and
openlineage.io/spec/facets/...). Where the folder of vendors' descriptions has the published files, too (as
`openlineage`: OpenLineage.json and the facets of a release), events are checked against them besides.
"""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from sync.testing.openapi import FOLDER

PUBLISHED = FOLDER / "openlineage"
BASE = "https://openlineage.io/spec/2-0-2/OpenLineage.json"

_TEXT = {"type": "string"}
_URI = {"type": "string", "pattern": r"^[a-z][a-z0-9+.-]*:\S+$"}
_COUNT = {"type": "integer", "minimum": 0}
_NAMED = {
    "type": "object",
    "required": ["namespace", "name"],
    "properties": {"namespace": _TEXT, "name": _TEXT, "facets": {"$ref": "#/$defs/facets"}},
}


def _facet(version: str, name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    url = f"https://openlineage.io/spec/facets/{version}/{name}.json#/$defs/{name}"
    return {
        "$ref": "#/$defs/facet",
        "required": list(required),
        "properties": {**properties, "_schemaURL": {"const": url}},
    }


def _list(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "object", "required": list(required), "properties": properties}}


_FACETS = {
    "schema": _facet("1-2-0", "SchemaDatasetFacet", fields=_list(("name",), name=_TEXT, type=_TEXT)),
    "columnLineage": _facet(
        "1-2-0", "ColumnLineageDatasetFacet", ("fields",),
        fields={"type": "object", "additionalProperties": {
            "type": "object", "required": ["inputFields"],
            "properties": {"inputFields": _list(("namespace", "name", "field"), namespace=_TEXT, name=_TEXT,
                                                field=_TEXT)},
        }},
    ),
    "inputStatistics": _facet("1-0-0", "InputStatisticsInputDatasetFacet", rowCount=_COUNT),
    "outputStatistics": _facet("1-0-2", "OutputStatisticsOutputDatasetFacet", rowCount=_COUNT),
    "errorMessage": _facet("1-0-1", "ErrorMessageRunFacet", ("message", "programmingLanguage"), message=_TEXT,
                           programmingLanguage=_TEXT),
    "documentation": _facet("1-1-0", "DocumentationJobFacet", ("description",), description=_TEXT),
    "ownership": _facet("1-0-1", "OwnershipJobFacet", owners=_list(("name",), name=_TEXT, type=_TEXT)),
    "jobType": _facet("2-0-4", "JobTypeJobFacet", ("processingType", "integration"), processingType=_TEXT,
                      integration=_TEXT, jobType=_TEXT),
}  # fmt: skip

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["eventTime", "producer", "schemaURL", "run", "job"],
    "properties": {
        "eventTime": {"type": "string", "format": "date-time"},
        "producer": _URI,
        "schemaURL": {"const": f"{BASE}#/$defs/RunEvent"},
        "eventType": {"enum": ["START", "RUNNING", "COMPLETE", "ABORT", "FAIL", "OTHER"]},
        "run": {
            "type": "object",
            "required": ["runId"],
            "properties": {"runId": {"type": "string", "format": "uuid"}, "facets": {"$ref": "#/$defs/facets"}},
        },
        "job": _NAMED,
        "inputs": {
            "type": "array",
            "items": {**_NAMED, "properties": {**_NAMED["properties"], "inputFacets": {"$ref": "#/$defs/facets"}}},
        },
        "outputs": {
            "type": "array",
            "items": {
                **_NAMED,
                "properties": {**_NAMED["properties"], "outputFacets": {"$ref": "#/$defs/facets"}},
            },
        },
    },
    "$defs": {
        "facet": {
            "type": "object",
            "required": ["_producer", "_schemaURL"],
            "properties": {"_producer": _URI, "_schemaURL": _URI},
        },
        "facets": {
            "type": "object",
            "properties": _FACETS,
            "additionalProperties": {"$ref": "#/$defs/facet"},
        },
    },
}


def refuse(event: dict[str, Any]) -> None:
    """Raise `jsonschema.ValidationError` for what is no event."""
    _validator(SCHEMA).validate(event)
    if PUBLISHED.is_dir():
        refuse_as_published(event)


def refuse_as_published(event: dict[str, Any]) -> None:
    """Raise `jsonschema.ValidationError` for what the published files do not take: the event or a facet of it."""
    files = [json.loads(path.read_text()) for path in sorted(PUBLISHED.rglob("*.json"))]
    published = {str(file["$id"]): Resource.from_contents(file) for file in files}
    registry = Registry().with_resources(published.items())
    _validator({"$ref": f"{BASE}#/$defs/RunEvent"}, registry).validate(event)
    for facet in _facets(event):
        if facet["_schemaURL"].partition("#")[0] in published:
            _validator({"$ref": facet["_schemaURL"]}, registry).validate(facet)


def _validator(schema: dict[str, Any], registry: Registry[Any] | None = None) -> Draft202012Validator:
    checker = Draft202012Validator.FORMAT_CHECKER
    if registry is None:
        return Draft202012Validator(schema, format_checker=checker)
    return Draft202012Validator(schema, format_checker=checker, registry=registry)


def _facets(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, list):
        return [facet for one in value for facet in _facets(one)]
    if not isinstance(value, dict):
        return []
    own = [value] if "_schemaURL" in value else []
    return own + [facet for one in value.values() for facet in _facets(one)]
