"""Editors know what may stand in the files: the schemas accept what loads, and refuse what does not."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sync.files import read_yaml
from sync.project import schemas

ROOT = Path(__file__).parent.parent.parent


def complaints(kind: str, data: Any) -> list[str]:
    schema = schemas()[kind]
    Draft202012Validator.check_schema(schema)
    return [error.message for error in Draft202012Validator(schema).iter_errors(data)]


def mapping(**changes: Any) -> dict[str, Any]:
    sync = {
        "name": "crm",
        "destination": "crm",
        "mode": "mirror",
        "identifiers": [{"to": "email", "from": "email", "transform": ["trim", {"e164": "AU"}, {"name": "x"}]}],
        **changes,
    }
    source = {"connection": "w", "table": "t", "key": "id"}
    return {"version": 1, "cohort": {"name": "c", "source": source}, "syncs": [sync]}


@pytest.mark.parametrize("path", sorted((ROOT / "mappings").glob("*.yaml")), ids=lambda p: p.stem)
def test_the_example_mappings_fit_the_schema(path: Path) -> None:
    assert complaints("mapping", read_yaml(path, path.name).data) == []


def test_the_short_forms_fit_the_schema() -> None:
    assert complaints("mapping", mapping(schedule={"every": "15m"}, delivery={"rate_limit": "10/s"})) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"mode": "miror"},
        {"mod": "mirror"},
        {"identifiers": []},
        {"identifiers": [{"to": "a", "frm": "b"}]},
        {"identifiers": [{"to": "a", "from": "b", "transform": [{"a": 1, "b": 2}]}]},
        {"schedule": {"every": "often"}},
        {"guardrails": {"max_removed_pct": 120}},
    ],
)
def test_mistakes_in_a_mapping_do_not_fit(changes: dict[str, Any]) -> None:
    assert complaints("mapping", mapping(**changes))


def test_the_example_config_fits_the_schema() -> None:
    assert complaints("config", tomllib.loads((ROOT / "config.example.toml").read_text())) == []


@pytest.mark.parametrize(
    "data",
    [
        {"destinations": {"h": {"type": "hubspot", "token": "env:T", "delivery": {"rate_limit": "9/s"}}}},
        {"destinations": {"f": {"type": "file", "path": "out", "delivery": "snapshot"}}},
        {"sources": {"s": {"type": "snowflake", "account": "a", "user": "u", "password": "env:P"}}},
        {"sources": {"p": {"type": "postgres", "host": "h", "database": "d", "user": "u", "schema": ["a", "b"]}}},
        {"plans": {"expire_after": "24h"}},
    ],
)
def test_every_type_of_connection_fits(data: dict[str, Any]) -> None:
    assert complaints("config", data) == []


@pytest.mark.parametrize(
    "data",
    [
        {"engine": {"memory_limt": "1GB"}},
        {"destinations": {"h": {"type": "webhok", "url": "http://x"}}},
        {"destinations": {"h": {"type": "webhook"}}},
        {"sources": {"w": {"type": "duckdb", "pth": "x"}}},
    ],
)
def test_mistakes_in_config_do_not_fit(data: dict[str, Any]) -> None:
    assert complaints("config", data)
