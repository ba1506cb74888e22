"""Lists in pages: so many at a time of what a caller may see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

__all__ = ["page"]

_LOOKS = 20  # times that the ledger is asked for one page, however little of it the caller may see


class _Named(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Named)


def page(
    some: Callable[[str | None], Sequence[T]], seen: Callable[[T], bool], limit: int, before: str | None
) -> tuple[list[T], str | None]:
    """At most `limit` of a list that `some` gives in pieces after a cursor, and the cursor of what follows.

    `some` must give `limit` at a time, fewer only at the end.
    """
    found: list[T] = []
    for _ in range(_LOOKS):
        piece = some(before)
        for item in piece:
            if len(found) == limit:
                return found, before
            before = item.id
            if seen(item):
                found.append(item)
        if len(piece) < limit:
            return found, None
    return found, before
