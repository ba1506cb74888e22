"""Column names in mappings, and how the source spells them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

__all__ = ["BadExpression", "spelled"]


class BadExpression(ValueError):
    """An expression or a column that is not allowed; the message is for people."""

    def __init__(self, message: str, *, code: str = "HG124", fix: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.fix = fix


def spelled(name: str, columns: Sequence[str]) -> str:
    """The column as the source spells it; case matters only where two differ by nothing else.

    Raises `BadExpression` naming the nearest column that there is.
    """
    if name in columns:
        return name
    same = [c for c in columns if c.lower() == name.lower()]
    if same:
        return same[0]
    near = difflib.get_close_matches(name.lower(), [c.lower() for c in columns], 1, 0.5)
    real = next((c for c in columns if near and c.lower() == near[0]), None)
    raise BadExpression(
        f"the cohort has no column '{name}'",
        code="HG212",
        fix=f"did you mean '{real}'?" if real else f"it has {', '.join(columns[:20])}",
    )
