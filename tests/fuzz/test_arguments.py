"""Command lines of anything: names, paths, options, selections, identifiers and plan files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.command import Project
from tests.fuzz.documents import HOSTILE_TEXT, mutated_data

# No argument of a process holds NUL; bytes that are no text come as half characters.
_TEXTS = [text for text in HOSTILE_TEXT if "\0" not in text] + [
    "\udcff",
    "a\udc80b",
    "[",
    "[!",
    "*" * 50 + "b",
    "[a-",
]
_TEXTS += [
    "tag:",
    "tag:[",
    "owner:*",
    "destination:\udcff",
    "--",
    "-",
    "---x",
    "-vvvv",
    "--json=1",
    "0",
    "sink-vips",
]
_TEXTS += ["p1@mail.example", " P1@MAIL.EXAMPLE ", "' OR 1=1 --", "%", "_", "1e400", "9" * 400]
_ANY = st.sampled_from(_TEXTS) | st.text(st.characters(exclude_characters="\0"), max_size=6)

_LINES: list[list[str | None]] = [  # None: anything
    ["plan", None],
    ["plan", "--select", None],
    ["plan", "--exclude", None, "--json"],
    ["run", None, None],
    ["run", "--plan", None],
    ["run", "--only", None],
    ["run", "--select", None, "--exclude", None],
    ["approve", None, "--reason", None],
    ["reject", None, "--reason", None],
    ["person", None],
    ["person", None, "--json"],
    ["rejected", "list", None],
    ["rejected", "show", "sink-vips", None],
    ["rejected", "show", "sink-vips", None, "--reveal", "--reason", None],
    ["rejected", "retry", "sink-vips", None],
    ["rejected", "give-up", "sink-vips", None, "--reason", None],
    ["audit", "search", None],
    ["audit", None],
    ["state", "show", None],
    ["state", "reset", None, "--reason", None],
    ["explain", None],
    ["connector", "test", None],
    ["status", "--select", None],
    ["validate", None],
    ["schema", None],
    [None],
    [None, None],
    ["--project", None, "plan"],
    ["plan", "--project", None],
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    made = Project(tmp_path_factory.mktemp("arguments") / "p").write().people()
    assert made.headgate("run", "--first-run").code == 0
    return made


@given(st.sampled_from(_LINES), st.lists(_ANY, min_size=3, max_size=3))
@example(["run", "--plan", None], ["x" * 5000] * 3)
@example(["run", "--plan", None], ["/dev/zero"] * 3)
@example(["plan", "--project", None], ["/" + "x" * 5000] * 3)
@example(["approve", None, "--reason", None], ["\udcff"] * 3)
@examples(200)
def test_a_command_line_of_anything_ends_with_a_code(
    project: Project, figures: Figures, line: list[str | None], anything: list[str]
) -> None:
    left = iter(anything)
    words = [next(left) if word is None else word for word in line]
    if words[0] in ("init", "demo", "daemon", "console") or "init" in words:  # they write, or stay
        return
    figures.add("command lines fuzzed")
    answer = project.headgate(*words, elsewhere="--project" in words)
    assert "\x1b[2J" not in answer.out + answer.err
    assert "\u202e" not in answer.out.replace("\\u202e", "") or "--json" in words


SEED: Any = {"schema": 1, "plans": [{"sync": "sink-vips", "plan": "abc", "digest": "0" * 64}]}


@given(mutated_data(SEED).map(lambda d: json.dumps(d).encode()) | st.binary(max_size=40))
@example(b"[" * 100_000)
@example(b'{"plans": ' * 50_000)
@example(b'{"plans": [{"sync": 1, "digest": ' + b"9" * 5000 + b"}]}")
@example(b"\xff\xfe{")
@examples(80)
def test_a_plan_file_of_anything_is_refused(project: Project, figures: Figures, raw: bytes) -> None:
    figures.add("plan files fuzzed")
    path = project.root / "fuzzed.json"
    path.write_bytes(raw)
    answer = project.headgate("run", "--plan", str(path), "--json")
    assert answer.code in (0, 1, 2)
    if answer.code == 0:
        assert answer.json["syncs"] == []


def test_a_plan_file_without_end_is_read_no_further_than_is_sensible(project: Project) -> None:
    assert project.headgate("run", "--plan", "/dev/zero").code == 2


@pytest.mark.parametrize("what", ["a folder", "nothing", "a broken link"])
def test_a_plan_file_that_is_none_is_refused(project: Project, tmp_path: Path, what: str) -> None:
    path = tmp_path / "plan.json"
    if what == "a folder":
        path.mkdir()
    elif what == "a broken link":
        path.symlink_to(tmp_path / "gone")
    assert project.headgate("run", "--plan", str(path)).code == 2
