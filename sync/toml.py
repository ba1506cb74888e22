"""Says where the tables, keys and values of a TOML file stand; the parser of the standard library does not."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterator

__all__ = ["Place", "places"]

Location = tuple[str | int, ...]
Place = tuple[int, int]
"""Line and column, both from 1."""

_TOKEN = re.compile(
    r"""(?P<string>\"{3}(?:\\.|[^\\])*?\"{3,5}|'{3}.*?'{3,5}|"(?:\\.|[^"\\\n])*"|'[^'\n]*')"""
    r"""|(?P<word>[A-Za-z0-9_-]+)|(?P<space>[ \t\r]+|\#[^\n]*)|(?P<sign>.)""",
    re.DOTALL,
)

Token = tuple[str, str, int]  # kind, text, offset


def places(text: str) -> tuple[dict[Location, Place], dict[Location, Place]]:
    """The places of keys and of values in a valid TOML text.

    What stands inside an array or an inline table is not listed: the key that holds it is the nearest place.
    """
    starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(offset: int) -> Place:
        line = bisect_right(starts, offset)
        return line, offset - starts[line - 1] + 1

    keys: dict[Location, Place] = {(): (1, 1)}
    values: dict[Location, Place] = {(): (1, 1)}
    indices: dict[Location, int] = {}
    table: Location = ()
    for statement in _statements(text):
        here = place(statement[0][2])
        if statement[0][1] == "[":
            location = table = _table(statement, indices)
            value = here
        else:
            equals = next(i for i, token in enumerate(statement) if token[1] == "=")
            location = (*table, *_names(statement[:equals]))
            value = place(statement[equals + 1][2])
        for end in range(len(location)):
            keys.setdefault(location[:end], here)
            values.setdefault(location[:end], here)
        keys[location], values[location] = here, value
    return keys, values


def _statements(text: str) -> Iterator[list[Token]]:
    """The tokens of each table heading and each `key = value`, without spaces and comments."""
    tokens: list[Token] = []
    depth = 0
    for match in _TOKEN.finditer(text):
        kind, found = str(match.lastgroup), match[0]
        if kind == "space":
            continue
        if found == "\n":
            if depth == 0 and tokens:
                yield tokens
                tokens = []
            continue
        depth += (found in ("[", "{")) - (found in ("]", "}"))
        tokens.append((kind, found, match.start()))
    if tokens:
        yield tokens


def _names(tokens: list[Token]) -> list[str]:
    """The parts of a dotted key."""
    return [
        _unquoted(text) if kind == "string" else text for kind, text, _ in tokens if kind in ("word", "string")
    ]


def _unquoted(text: str) -> str:
    """What a quoted key says."""
    return str(tomllib.loads(f"key = {text}")["key"])


def _table(tokens: list[Token], indices: dict[Location, int]) -> Location:
    """The way to a table; a table of an array has its index."""
    names = _names(tokens)
    way: Location = ()
    for last, name in ((i == len(names) - 1, name) for i, name in enumerate(names)):
        way = (*way, name)
        if last and tokens[1][1] == "[":
            indices[way] = indices.get(way, -1) + 1
        if way in indices:
            way = (*way, indices[way])
    return way
