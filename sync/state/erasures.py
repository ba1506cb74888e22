"""Erasures: who was forgotten, without saying who; and what is to be rewritten for it.

Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "OPEN_ERASURES",
    "REMOVED_TEXT",
    "Erasure",
    "ErasureOutcome",
    "ErasurePart",
    "ErasureState",
    "Forgotten",
    "Rewrite",
    "Rewritten",
    "quoting",
]

REMOVED_TEXT = "•••"
"""What stands in the place of a quoted identifier."""


def quoting(words: Iterable[str]) -> str:
    """A regular expression of any of these words, as Python and DuckDB read it; empty without words.

    A word is not found within another: `12345` is no part of `123456`.
    """
    return "|".join(
        rf"{_edge(word[0])}{re.escape(word)}{_edge(word[-1])}" for word in sorted(words, key=len, reverse=True)
    )


def _edge(letter: str) -> str:
    return r"\b" if re.match(r"[0-9A-Za-z_]", letter) else ""


class ErasureState(StrEnum):
    """Where the erasure of a person from one sync stands."""

    QUEUED = "queued"  # the destination may have the person: a run removes them, then the files are rewritten
    ERASING = "erasing"  # the destination has nothing to remove: only files are yet to be rewritten
    ERASED = "erased"
    WITHDRAWN = "withdrawn"  # remembered again before the destination removed the person


OPEN_ERASURES = (ErasureState.QUEUED, ErasureState.ERASING)
"""States of a part that is not over yet."""


class ErasureOutcome(StrEnum):
    """What became of the person at the destination."""

    REMOVED = "removed"  # it acknowledged the removal
    ABSENT = "absent"  # it was never told of them, as far as the members know
    BY_HAND = "by_hand"  # the object has no removal, or the sync is gone: somebody has to do it there
    UNCERTAIN = "uncertain"  # nobody can tell whether it has them: somebody has to look there


@dataclass(frozen=True, slots=True)
class Erasure:
    """One person forgotten at one person's word. Its id is all that the person who asked is given."""

    id: str
    at: float
    actor: str
    reason: str
    remembered_at: float | None = None
    remembered_by: str | None = None
    remembered_reason: str | None = None


@dataclass(frozen=True, slots=True)
class ErasurePart:
    """An erasure as far as one sync is concerned.

    `keys` are the person's member keys, kept only until the part is erased; `rows` counts what was erased, by
    kind of file.
    """

    erasure: str
    sync: str
    destination: str
    audience: str | None
    state: ErasureState
    outcome: ErasureOutcome
    keys: tuple[str, ...] = ()
    rows: Mapping[str, int] = field(default_factory=dict)
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class Forgotten:
    """One text by which a forgotten person would be known, as a keyed digest."""

    sync: str  # empty: in every sync, also in those that are made later
    digest: str
    bucket: int  # of the text's fast hash: what a scan looks at before it makes a digest
    probe: str  # what the fast hash function answered when the bucket was made
    secret: str  # which secret made the digest
    erasure: str


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A file that was written anew without the person's rows."""

    old: str
    new: str
    digest: str  # SHA-256 and length, as `digest_file` gives them
    rows: tuple[int, ...] = ()  # of a plan: the rows that are gone


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What the ledger has to know of a sync's files that were rewritten, and of rows to be taken from itself.

    `members` and `plans` are by file name as the ledger has it; `copies` has run -> rows of its rejected records.
    """

    members: Sequence[Rewritten] = ()
    counts: Mapping[int, int] = field(default_factory=dict)  # generation -> members it has then
    plans: Sequence[Rewritten] = ()
    copies: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()  # member keys
    rejected: frozenset[str] = frozenset()  # keys of rejected records
    uncertain: bool = False  # are the keys no longer dirty either
