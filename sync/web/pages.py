"""Lists in pages: so many at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["page"]


class _Named(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=_Named)


def page(some: Callable[[int], list[T]], limit: int) -> tuple[list[T], str | None]:
    """At most `limit` of a list whose first ones `some` gives, and the cursor of what follows them."""
    found = some(limit + 1)
    return found[:limit], found[limit - 1].id if len(found) > limit else None
