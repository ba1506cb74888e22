"""Names and constants as SQL takes them."""

from __future__ import annotations

__all__ = ["identifier", "literal"]


def identifier(name: str) -> str:
    """A name as SQL takes it, whatever is in it."""
    return '"' + name.replace('"', '""') + '"'


def literal(value: object) -> str:
    """A text constant as SQL takes it."""
    return "'" + str(value).replace("'", "''") + "'"
