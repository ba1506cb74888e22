"""A platform is written down in an afternoon, and read in a sitting: our connectors are short."""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from statistics import median

import pytest

CONNECTORS = Path(__file__).parents[2] / "connectors"
MOST = 150  # lines of code of the one in the middle
_LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def code_lines(text: str) -> int:
    """Lines of a Python file that are not blank, a comment or a docstring."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _LAYOUT:
            found |= set(range(token.start[0], token.end[0] + 1))
    return len(found - docstring_lines(text))


def docstring_lines(text: str) -> set[int]:
    """The lines of all docstrings."""
    nodes = [
        node for node in ast.walk(ast.parse(text)) if isinstance(node, _DOCUMENTED) and ast.get_docstring(node)
    ]
    return {n for node in nodes for n in range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1)}


def manifest_lines(text: str) -> int:
    """The same of a manifest."""
    return sum(1 for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def lengths() -> dict[str, int]:
    """Code lines of each connector, all its files together."""
    found: dict[str, int] = {}
    for path in CONNECTORS.rglob("*"):
        inside = path.relative_to(CONNECTORS).parts
        name = path.stem if inside[0] == "manifests" else inside[0].removesuffix(".py")
        if path.suffix == ".py" and name != "__init__":
            found[name] = found.get(name, 0) + code_lines(path.read_text())
        elif path.suffix == ".toml":
            found[name] = found.get(name, 0) + manifest_lines(path.read_text())
    return found


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ('"""Doc."""\n\n# why\nx = 1  # what\n', 1),
        ('def f():\n    """Doc.\n\n    More.\n    """\n    return """a\n\nb"""\n', 4),
        ("", 0),
    ],
)
def test_code_is_what_is_neither_blank_nor_comment_nor_docstring(text: str, lines: int) -> None:
    assert code_lines(text) == lines


def test_half_of_our_connectors_are_short() -> None:
    found = sorted(lengths().items(), key=lambda one: one[1])
    listed = "\n".join(f"{count:5} {name}" for name, count in found)

    assert len(found) >= 19
    assert median(count for _, count in found) <= MOST, (
        f"half of the connectors have more than {MOST} lines of code; look for what `sync.sdk` has already, "
        f"and put there what three of them write again:\n{listed}"
    )
