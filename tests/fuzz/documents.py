"""Documents that are nearly right: valid ones with a few things changed, as data or as text."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st

__all__ = ["HOSTILE_TEXT", "hostile_values", "json_yaml", "mutated_data", "mutated_text"]

HOSTILE_TEXT = [
    "",
    " ",
    "\0",
    "a\0b",
    "\n",
    "\r\n",
    "\t",
    "\x1b[2J\x1b[31mred",
    "\u202eeht",
    "\ufeff",
    "\u200b",
    "\u2028",
    "\x85",
    "é" * 3,
    "e\u0301",
    "😀👩‍👩‍👧",
    "ﷺ" * 20,
    "\U0010ffff",
    "NO",
    "null",
    "~",
    "1_000",
    "0o17",
    "12:30:45",
    "1e999",
    "-.inf",
    ".nan",
    "2024-02-30",
    "<<",
    "&a",
    "*a",
    "!!python/object:os.system",
    "%s%n%d{0}{}",
    "[/red][bold]",
    "${HOME}$(id)`id`",
    "' OR 1=1 --",
    '"; DROP TABLE people; --',
    "a\\",
    "../../etc/passwd",
    "~nobody-at-all/x",
    "/dev/null/x",
    "http://[::1",
    "x" * 300,
    "x" * 20_000,
    "🦄" * 5_000,
]

_NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, -(2**127), 10**40, 10**400, 0.5, -0.0, 1e308, 5e-324]
_UNREAL = [math.nan, math.inf, -math.inf]


def _nested(depth: int) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value]
    return value


def hostile_values(*, unreal: bool = True) -> st.SearchStrategy[Any]:
    """Values that no model expects where they are put."""
    return st.one_of(
        st.sampled_from(HOSTILE_TEXT),
        st.sampled_from([*_NUMBERS, *(_UNREAL if unreal else [])]),
        st.sampled_from([True, False, [], {}, [[]], [""], {"": ""}, {"a": {"b": [{}]}}, _nested(60)]),
        st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
        st.integers(),
        st.lists(st.sampled_from(HOSTILE_TEXT[:30]), max_size=3),
    )


Way = tuple[Any, ...]


def _ways(data: Any, way: Way = ()) -> list[Way]:
    found = [way] if way else []
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for step, value in inside:
        found += _ways(value, (*way, step))
    return found


def _parent(data: Any, way: Way) -> Any:
    for step in way[:-1]:
        data = data[step]
    return data


@st.composite
def mutated_data(draw: st.DrawFn, seed: Any, *, unreal: bool = True) -> Any:
    """The data with one to three things dropped, renamed, doubled, moved or replaced."""
    data = deepcopy(seed)
    for _ in range(draw(st.integers(1, 3))):
        ways = _ways(data)
        if not ways:
            break
        way = draw(st.sampled_from(ways))
        _change(draw, data, way, unreal)
    return data


def _change(draw: st.DrawFn, data: Any, way: Way, unreal: bool) -> None:
    parent, step = _parent(data, way), way[-1]
    kind = draw(st.sampled_from(["replace", "replace", "replace", "drop", "rename", "double", "wrap", "other"]))
    if kind == "drop":
        del parent[step]
    elif kind == "rename" and isinstance(parent, dict):
        parent[draw(st.sampled_from([f"{step}s", str(step)[1:], str(step).upper(), *HOSTILE_TEXT[:20]]))] = (
            parent.pop(step)
        )
    elif kind == "double" and isinstance(parent, list):
        parent.insert(step, deepcopy(parent[step]))
    elif kind == "wrap":
        parent[step] = draw(st.sampled_from([[parent[step]], {"name": parent[step]}, str(parent[step])]))
    elif kind == "other":
        parent[step] = deepcopy(_value(data, draw(st.sampled_from(_ways(data)))))
    else:
        parent[step] = draw(hostile_values(unreal=unreal))


def _value(data: Any, way: Way) -> Any:
    return _parent(data, way)[way[-1]]


def json_yaml(data: Any) -> str:
    """The data as YAML: JSON is YAML, but for numbers that are none."""
    text = json.dumps(data, indent=1)
    return text.replace("-Infinity", "-.inf").replace("Infinity", ".inf").replace("NaN", ".nan")


@st.composite
def mutated_text(draw: st.DrawFn, seed: str, snippets: Sequence[str]) -> bytes:
    """The text with a few cuts and insertions, in some encoding, as bytes."""
    text = seed
    for _ in range(draw(st.integers(1, 4))):
        text = _cut(draw, text, snippets)
    raw = text.encode(
        draw(st.sampled_from(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])),
        errors="replace",
    )
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(raw)))
        raw = raw[:at] + draw(st.binary(max_size=4)) + raw[at:]
    return raw


def _cut(draw: st.DrawFn, text: str, snippets: Sequence[str]) -> str:
    at = draw(st.integers(0, len(text)))
    kind = draw(st.sampled_from(["insert", "insert", "insert", "delete", "line", "lines"]))
    if kind == "insert":
        return text[:at] + draw(st.sampled_from(snippets)) + text[at:]
    if kind == "delete":
        return text[:at] + text[at + draw(st.integers(1, 30)) :]
    lines = text.splitlines(keepends=True) or [""]
    row = draw(st.integers(0, len(lines) - 1))
    if kind == "line":
        lines[row] = draw(st.sampled_from(["  " + lines[row], lines[row].lstrip(), "\t" + lines[row], ""]))
    else:
        lines.insert(draw(st.integers(0, len(lines))), lines[row])
    return "".join(lines)
