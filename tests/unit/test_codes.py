"""Every code that Headgate can show is explained, and nothing is explained that it cannot show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sync.cli.output import problem_data
from sync.codes import catalog, explain
from sync.engine.guardrails import GUARDRAILS
from sync.errors import Problem, UsageError

ROOT = Path(__file__).parent.parent.parent
CODE = re.compile(r"\bHG\d{3}\b")


def code_text() -> str:
    files = [*(ROOT / "sync").rglob("*.py"), *(ROOT / "connectors").rglob("*.py")]
    return "\n".join(path.read_text() for path in files)


def test_every_code_in_the_code_is_explained() -> None:
    missing = sorted(set(CODE.findall(code_text())) - set(catalog()))

    assert missing == []


def test_every_explained_code_is_one_the_code_has() -> None:
    text = code_text()

    unused = [c for c, entry in catalog().items() if c not in text and not entry.guardrail]

    assert unused == []


def test_every_guardrail_is_explained() -> None:
    explained = {entry.guardrail for entry in catalog().values() if entry.guardrail}
    text = "".join(path.read_text() for path in (ROOT / "sync" / "engine").glob("*.py"))

    assert {rule.__name__ for rule in GUARDRAILS} <= explained
    assert [name for name in explained if name not in text] == []


@pytest.mark.parametrize("entry", catalog().values(), ids=lambda e: e.code)
def test_every_entry_says_what_why_and_how(entry: object) -> None:
    for part in ("title", "means", "why", "fix"):
        text = getattr(entry, part)
        assert len(text) > 8, part
        assert part == "title" or text.endswith((".", "?"))


@pytest.mark.parametrize("name", ["HG605", "hg605", "605", "removals_pct", "Removals-Pct", " removals_pct "])
def test_a_code_is_found_however_it_is_typed(name: str) -> None:
    entry = explain(name)

    assert entry.code == "HG605"
    assert "HG605 (removals_pct): too large a share of removals" in str(entry)


@pytest.mark.parametrize(("name", "near"), [("removal_pct", "removals_pct"), ("HG6055", "HG605")])
def test_an_unknown_code_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain(name)

    assert near in caught.value.fix


def test_a_problem_keeps_its_code_for_programs() -> None:
    assert problem_data(Problem("HG101", "x"))["code"] == "HG101"
