"""Mapping files: whatever stands in them, they are refused with a code and a place, or they give a plan."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from sync.codes import catalog
from sync.files import Unreadable, read_yaml
from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.command import MAPPING, Project, check_problems
from tests.fuzz.documents import HOSTILE_TEXT, json_yaml, mutated_data, mutated_text

SEED: Any = YAML(typ="safe", pure=True).load(MAPPING)

SNIPPETS = [
    *[text for text in HOSTILE_TEXT if len(text) < 100],
    "&a ",
    "*a",
    "<<: *a\n",
    "!!python/object/apply:os.system [id]",
    "!!binary aGk=",
    "!!set {a}",
    "!!timestamp 2024-01-01",
    "!!int x",
    "!!float 1",
    "!local ",
    "%YAML 1.1\n",
    "%TAG ! tag:x,2000:\n",
    "---\n",
    "...\n",
    "? [a, b]\n: c\n",
    "{",
    "}",
    "[",
    "]",
    ": ",
    " # ",
    "|\n",
    ">-\n",
    "'",
    '"',
    "@",
    "`",
    "0x_f",
    "0b2",
    "\\ud800",
    '"\\ud800"',
    '"\\x00"',
    "\r",
    "- ",
    ",",
    "yes",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project") / "p")


def _try(project: Project, mapping: str | bytes, figures: Figures) -> None:
    project.mapping = mapping
    project.write()
    answer = project.headgate("validate", "--offline", "--json")
    figures.add("mapping files fuzzed")
    assert answer.code in (0, 2)
    if answer.code == 2:
        assert check_problems(answer, "mappings/vips.yaml")
        return
    project.people()
    figures.add("fuzzed mapping files that were planned")
    planned = project.headgate("plan", "--json")
    assert planned.code in (0, 1, 2, 3)


@given(mutated_data(SEED))
@examples(80)
def test_a_mapping_with_a_few_values_changed(project: Project, figures: Figures, data: Any) -> None:
    _try(project, json_yaml(data), figures)


@given(mutated_text(MAPPING, SNIPPETS))
@examples(150)
def test_a_mapping_with_a_few_characters_changed(project: Project, figures: Figures, raw: bytes) -> None:
    _try(project, raw, figures)


@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda t: t.encode(errors="replace"))))
@examples(60)
def test_a_mapping_that_is_noise(project: Project, figures: Figures, raw: bytes) -> None:
    _try(project, raw, figures)


# --- documents that are made to hurt --------------------------------------------------------------------------


def _laughs(levels: int, width: int) -> str:
    inside = {level: ", ".join([f"*a{level - 1}"] * width) for level in range(1, levels)}
    return "\n".join(["a0: &a0 [x]", *(f"a{level}: &a{level} [{text}]" for level, text in inside.items())])


HURTFUL = {
    "a billion laughs": _laughs(12, 10),
    "laughs in keys": _laughs(12, 10).replace("[", "{? [").replace("]", "] : x}"),
    "an anchor inside itself": "a: &a [*a]",
    "an anchor inside itself, as a merge": "a: &a {<<: *a}",
    "lists in lists": "[" * 100_000,
    "lists in lists, closed": "[" * 20_000 + "]" * 20_000,
    "maps in maps": "{a: " * 20_000 + "x" + "}" * 20_000,
    "blocks in blocks": "\n".join(" " * i + "a:" for i in range(600)),
    "dashes": "- " * 50_000,
    "a scalar of 1 MB": "title: " + "x" * 1_000_000,
    "a scalar of 200 KB": "title: " + "x" * 200_000,
    "a key of 200 KB": "x" * 200_000 + ": 1",
    "many keys": "\n".join(f"k{i}: 1" for i in range(20_000)),
    "many anchors": "\n".join(f"k{i}: &a{i} 1" for i in range(9_000)),
    "many documents": "---\na: 1\n" * 10_000,
    "many comments": "# x\n" * 50_000,
    "quotes that never end": '"' + "a\n" * 50_000,
    "folded lines": "a: >\n" + "  x\n\n" * 30_000,
    "digits": "a: " + "9" * 100_000,
    "a number in base 60": "a: " + "1:" * 50_000 + "1",
    "escapes": 'a: "' + "\\x41" * 50_000 + '"',
    "tabs": "\t" * 100_000,
    "colons": ": " * 50_000,
    "question marks": "? " * 5_000,
    "tags": "!!map " * 10_000,
}


@pytest.mark.parametrize("name", HURTFUL)
def test_a_document_made_to_hurt_is_refused_soon(tmp_path: Path, figures: Figures, name: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(HURTFUL[name])
    codes, excerpt, values = set[str](), "", 0
    began = time.process_time()
    try:
        values = len(read_yaml(path, "m.yaml").values)
    except Unreadable as error:
        codes, excerpt = {p.code for p in error.problems}, error.problems[0].excerpt
    seconds = time.process_time() - began
    figures.add("documents made to hurt")
    figures.most("slowest document made to hurt, CPU-s", seconds)
    assert seconds < 30
    assert codes <= set(catalog())
    assert len(excerpt) < 1000
    assert values < 60_000


@pytest.mark.parametrize("name", [name for name in HURTFUL if "laughs" in name or "itself" in name])
def test_what_unfolds_without_end_takes_little_memory(tmp_path: Path, figures: Figures, name: str) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(HURTFUL[name])
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            read_yaml(path, "m.yaml")
        peak = tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()
    figures.most("most memory for a document that unfolds, MB", peak)
    assert peak < 200
