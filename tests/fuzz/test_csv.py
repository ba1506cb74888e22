"""CSV files: every text comes back as it was, and with the guard on no cell begins like a formula."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.file import File, FileConfig
from sync.sdk.nouns import Batch, Change, Op
from tests.examples import examples
from tests.figures import Figures
from tests.fuzz.values import TEXTS

_FORMULAS = [
    "=cmd|' /C calc'!A0",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "=",
    "'=1",
]
_CELL = st.sampled_from(_FORMULAS + TEXTS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_BEGINS = tuple("=+-@\t\r\n＝＋－＠")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv")


def _written(folder: Path, cells: list[str], *, guard: bool) -> list[list[str]]:
    config = FileConfig(path=folder, formula_guard=guard)
    connector = File(config, httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))))
    changes = [Change(Op.ADD, str(i), {"id": i}, {"cell": cell}, None) for i, cell in enumerate(cells)]
    batch = Batch("b1", "s", "row", None, changes, {"id": "INTEGER", "cell": "VARCHAR"})
    connector.push(batch)
    text = (folder / connector.file(batch)).read_bytes().decode()
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@given(st.lists(_CELL, min_size=1, max_size=6))
@examples(60)
def test_every_text_comes_back_as_it_was(folder: Path, figures: Figures, cells: list[str]) -> None:
    figures.add("CSV cells fuzzed", len(cells))
    rows = _written(folder, cells, guard=False)
    assert rows == [["op", "id", "cell"], *(["add", str(i), cell] for i, cell in enumerate(cells))]


@given(st.lists(_CELL, min_size=1, max_size=6))
@examples(60)
def test_with_the_guard_no_cell_is_a_formula(folder: Path, figures: Figures, cells: list[str]) -> None:
    figures.add("CSV cells fuzzed", len(cells))
    _, *rows = _written(folder, cells, guard=True)
    for cell, (_, _, written) in zip(cells, rows, strict=True):
        assert not written.startswith(_BEGINS)
        assert written == (f"'{cell}" if cell.startswith(_BEGINS) else cell)
