"""Record ids, and the texts of queries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote

__all__ = ["ID", "KINDS", "in_parts", "is_id", "kind_of", "literal", "same"]

ID = r"[0-9A-Za-z]{15}(?:[0-9A-Za-z]{3})?"
KINDS = {"003": "Contact", "00Q": "Lead"}
"""The people a campaign can have, by what their ids begin with (Salesforce Help, record id prefixes)."""

_ESCAPED = (("\\", "\\\\"), ("'", "\\'"), ("\n", "\\n"), ("\r", "\\r"))
_ADDRESS = 8_000  # bytes of literals in an address, which holds some 16,000


def is_id(value: object) -> bool:
    """Has it the form of a record's id: 15 characters, or 18."""
    return isinstance(value, str) and re.fullmatch(ID, value) is not None


def kind_of(id: str) -> str | None:
    """Contact or Lead; None for the id of anything else."""
    return KINDS.get(id[:3]) if is_id(id) else None


def same(one: object, other: object) -> bool:
    """Are two ids one record's: the last three of 18 characters only repeat which letters are capitals."""
    return is_id(one) and is_id(other) and str(one)[:15] == str(other)[:15]


def literal(value: str) -> str:
    """A text in a query."""
    for plain, escaped in _ESCAPED:
        value = value.replace(plain, escaped)
    return f"'{value}'"


def in_parts(values: Iterable[str]) -> Iterator[str]:
    """Literals with commas between them, as many at a time as an address holds."""
    part: list[str] = []
    size = 0
    for one in map(literal, values):
        length = len(quote(one, safe="", errors="replace")) + 3
        if part and size + length > _ADDRESS:
            yield ",".join(part)
            part, size = [], 0
        part.append(one)
        size += length
    if part:
        yield ",".join(part)
