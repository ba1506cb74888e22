"""As much of SOQL, Salesforce's query language, as the fake org understands: one object, equalities, a limit.

A query with a quote or a backslash that is not escaped is malformed, as it is to Salesforce (SOQL and SOSL
Reference, "Quoted String Escape Sequences").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Malformed", "Query", "parse"]

_LITERAL = re.compile(r"'((?:[^'\\\n\r]|\\[nNrRtTbBfF\"'\\])*)'")
_SHAPE = re.compile(r"SELECT (.+) FROM (\w+)(?: WHERE (.+?))?( ORDER BY Id)?(?: LIMIT (\d+))?")
_CONDITION = re.compile(r"(\w+) (?:= (#\d+|true|false)|IN \((#\d+(?:,#\d+)*)\))")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "f": "\f"}


class Malformed(Exception):
    """It cannot be understood."""


@dataclass(frozen=True)
class Query:
    """What is asked. `shown` are the columns of the answer, `where` the values that a column may have."""

    kind: str
    shown: tuple[str, ...]
    where: tuple[tuple[str, frozenset[Any]], ...]
    limit: int

    @property
    def columns(self) -> list[str]:
        """Every column that it names."""
        return [*self.shown, *(column for column, _ in self.where)]

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Is it a row that is asked for; texts are the same in either case, and ids are of 15 characters or 18."""
        return all(_plain(column, row.get(column)) in {_plain(column, v) for v in vs} for column, vs in self.where)


def parse(soql: str) -> Query:
    """The query. Raises `Malformed`."""
    texts: list[str] = []

    def keep(match: re.Match[str]) -> str:
        texts.append(re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1].lower(), m[1]), match[1]))
        return f"#{len(texts) - 1}"

    if "#" in _LITERAL.sub("", soql):
        raise Malformed("unexpected token: '#'")
    match = _SHAPE.fullmatch(_LITERAL.sub(keep, soql))
    if match is None:
        raise Malformed("unexpected token")
    shown, kind, where, _, limit = match.groups()
    conditions = [_condition(one, texts) for one in where.split(" AND ")] if where else []
    return Query(kind, tuple(shown.split(", ")), tuple(conditions), int(limit or 50_000))


def _condition(said: str, texts: list[str]) -> tuple[str, frozenset[Any]]:
    match = _CONDITION.fullmatch(said)
    if match is None:
        raise Malformed(f"unexpected condition: {said}")
    column, one, several = match.groups()
    if one in ("true", "false"):
        return column, frozenset({one == "true"})
    return column, frozenset(texts[int(place[1:])] for place in (one or several).split(","))


def _plain(column: str, value: Any) -> Any:
    if column.endswith("Id"):
        return str(value)[:15]
    return bool(value) if column.startswith("Is") else str(value).lower()
