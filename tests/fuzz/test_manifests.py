"""Manifests: whatever stands in one, it is refused with a code that names the file, or it makes a connector."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from sync.codes import catalog
from sync.errors import ProjectError
from sync.sdk.manifest.making import make
from sync.sdk.manifest.reading import read_manifest
from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.documents import mutated_data, mutated_text

SHAPES = Path(__file__).parent.parent / "connectors" / "shapes"
TEXTS = [
    (files("connectors.manifests") / "customerio.toml").read_text(encoding="utf-8"),
    *(path.read_text() for path in sorted(SHAPES.glob("*.toml"))),
]
SEEDS: list[Any] = [tomllib.loads(text) for text in TEXTS]
SNIPPETS = [
    "[",
    "]",
    "{",
    "}",
    '"',
    "'''",
    "=",
    "inf",
    "nan",
    "{x}",
    "{audience:integer}",
    "\0",
    "9" * 5000,
    "\n",
    "#",
]


def _try(text: str, figures: Figures) -> None:
    figures.add("manifests fuzzed")
    try:
        manifest = read_manifest(text, "acme.toml")
        made = make(manifest)
        assert made.objects or not manifest.objects
    except ProjectError as error:
        said = [(p.code in catalog(), p.file, bool(p.message)) for p in error.problems]
    else:
        said = [(True, "acme.toml", True)]
    assert set(said) == {(True, "acme.toml", True)}


@given(st.sampled_from(SEEDS).flatmap(mutated_data))
@examples(100)
def test_a_manifest_with_a_few_values_changed(figures: Figures, data: Any) -> None:
    try:
        text = tomlkit.dumps(data)
        tomllib.loads(text)
    except (ValueError, TypeError, RecursionError):  # the writer's limits, not ours
        return
    _try(text, figures)


@given(st.sampled_from(TEXTS).flatmap(lambda text: mutated_text(text, SNIPPETS)))
@examples(60)
def test_a_manifest_with_a_few_characters_changed(figures: Figures, raw: bytes) -> None:
    _try(raw.decode(errors="replace"), figures)


@pytest.mark.parametrize("text", ["x = " + "9" * 5000, "x = " + "[" * 5000, "x = " + "{a = " * 3000 + "1", ""])
def test_a_manifest_made_to_hurt(figures: Figures, text: str) -> None:
    with pytest.raises(ProjectError) as refused:
        read_manifest(text, "acme.toml")
    assert {p.code for p in refused.value.problems} == {"HG412"}
