"""The reference of manifests is complete, and what it shows is true."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from sync.project import schemas
from sync.sdk.manifest.model import Manifest
from sync.sdk.manifest.reading import read_manifest

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "reference" / "manifest.md").read_text()
BLOCKS = re.findall(r"^```toml\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
WHOLE, *PARTS = BLOCKS
MANIFESTS = [*(ROOT / "tests/connectors/shapes").glob("*.toml"), *(ROOT / "connectors/manifests").glob("*.toml")]


def test_the_whole_example_is_a_manifest() -> None:
    assert read_manifest(WHOLE, "acme.toml").name == "acme"


def _auth(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.startswith("auth = ")]


@pytest.mark.parametrize("line", [line for block in PARTS for line in _auth(block)])
def test_each_way_to_authenticate_is_one(line: str) -> None:
    spec = tomllib.loads(line)["auth"]
    data = tomllib.loads(WHOLE)
    names = [v for part in spec.get("of", [spec]) for k, v in part.items() if k in _OPTIONS]
    data["options"] |= {name: {"secret": True} for name in names}
    data["auth"] = spec

    assert Manifest.model_validate(data).auth.scheme == spec["scheme"]


_OPTIONS = {"token", "user", "password", "value", "client_id", "client_secret", "refresh_token"}


@pytest.mark.parametrize("block", [b for b in PARTS if "objects." in b or "rate_signal" in b])
def test_each_part_that_is_shown_fits_into_a_manifest(block: str) -> None:
    """On its own a part lacks others: what is said of it may only be that."""
    data = tomllib.loads(WHOLE)
    part = tomllib.loads(block)
    for name, one in part.pop("objects", {}).items():
        base: dict[str, Any] = data["objects"].setdefault(name, {"title": name, "open_fields": True})
        base["open_fields"] = True
        if "mixed" in one:
            base.pop("actions", None)
        elif "actions" in one:
            base["actions"] = {"remove": base["actions"]["remove"]} if "actions" in base else {}
        for key, value in one.items():
            base[key] = {**base.get(key, {}), **value}
        for action in base.get("actions", {}).values():
            action.setdefault("path", "/x")
        if "actions" not in base and "mixed" not in base:
            base["actions"] = {"add": {"path": "/x", "answer": {"kind": "silent"}}}
    data |= part

    try:
        Manifest.model_validate(data)
    except ValidationError as error:
        pytest.fail(str(error))


def test_every_key_is_described() -> None:
    schema = schemas()["manifest"]
    keys = {name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", ())}
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    shown = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", prose) + BLOCKS)))

    assert keys - shown == set()


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda p: p.stem)
def test_the_schema_for_editors_takes_what_loads(path: Path) -> None:
    schema = schemas()["manifest"]
    Draft202012Validator.check_schema(schema)

    assert [e.message for e in Draft202012Validator(schema).iter_errors(tomllib.loads(path.read_text()))] == []
