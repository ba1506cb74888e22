"""The list of fault points and the places in the code are one set, and without the variable they are nothing."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sync import faultpoints
from sync.faultpoints import POINTS, WRITES
from sync.state.access import Access
from sync.state.base import State, StateReader
from sync.state.ledger import Ledger

ROOT = Path(__file__).parents[2]


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in (ROOT / "sync").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield path.relative_to(ROOT).as_posix(), node


def marked(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "durable" for d in node.decorator_list)


def places() -> list[str]:
    """Every point that the code has, once for each place."""
    found = []
    for path, node in functions():
        if path == "sync/faultpoints.py":
            continue
        if marked(node):
            found += [f"{node.name}.before", f"{node.name}.after"]
        for call in ast.walk(node):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "reached":
                (name,) = call.args
                assert isinstance(name, ast.Constant), f"{path}: a point is named by a literal"
                found.append(str(name.value))
    return found


def test_the_list_of_points_and_the_places_in_the_code_are_the_same_set() -> None:
    assert sorted(places()) == sorted(POINTS)


def test_every_write_of_the_ledger_has_points() -> None:
    assert State.__abstractmethods__ - StateReader.__abstractmethods__ <= set(WRITES)


def test_every_method_of_the_ledger_that_opens_a_write_transaction_has_points() -> None:
    opens = {
        node.name
        for path, node in functions()
        if path.startswith("sync/state/") and re.search(r"\.(_fenced|_db\.write)\(", ast.unparse(node))
    }

    assert opens - {"_fenced"} == set(WRITES)


def test_where_no_fault_is_asked_for_the_ledgers_methods_are_as_they_were_written() -> None:
    assert [
        name for name in WRITES if hasattr(getattr(Ledger, name, None) or getattr(Access, name), "__wrapped__")
    ] == []
    assert faultpoints.reached("open.before") is None


def run(fault: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {faultpoints.VARIABLE: fault}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_a_process_kills_itself_at_the_visit_that_was_asked_for() -> None:
    code = "from sync.faultpoints import reached\nfor n in range(5): print(n, flush=True); reached('open.before')"

    done = run("open.before:3:kill", code)

    assert (done.returncode, done.stdout) == (-9, "0\n1\n2\n")


@pytest.mark.parametrize("fault", ["open.befor:1:kill", "open.before:1:burn", "open.before", "open.before:x:kill"])
def test_a_fault_that_names_nothing_is_refused(fault: str) -> None:
    done = run(fault, "import sync.faultpoints")

    assert done.returncode == 1
    assert "ValueError" in done.stderr
