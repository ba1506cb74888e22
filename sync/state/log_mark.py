"""How far the sync log of a sync is, place by place, and whom it has yet to lose: one note of the ledger."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

__all__ = ["NOTE", "LogErasure", "LogMark", "LogPlace"]

NOTE = "sync_log"
"""What the ledger calls the note of a sync."""


@dataclass(frozen=True, slots=True)
class LogErasure:
    """Rows that a sync log has to lose, without saying whose they are.

    `people` are MD5 digests, in hex, of `salt` and a source key: a warehouse keeps the text of its queries.
    `quoted` has (run, member key) of records whose reason quotes the person.
    """

    salt: str
    keys: tuple[str, ...] = ()  # member keys
    people: tuple[str, ...] = ()
    quoted: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls, keys: Iterable[str], source_keys: Iterable[str], quoted: Iterable[tuple[str, str]] = ()
    ) -> LogErasure:
        """The erasure of these members and rows of the cohort."""
        salt = secrets.token_hex(8)
        people = sorted(
            hashlib.md5((salt + key).encode(), usedforsecurity=False).hexdigest() for key in set(source_keys)
        )
        return cls(salt, tuple(sorted(keys)), tuple(people), tuple(sorted(quoted)))

    @property
    def empty(self) -> bool:
        """Is there nothing to look for."""
        return not (self.keys or self.people or self.quoted)


@dataclass(frozen=True, slots=True)
class LogPlace:
    """A schema of a source that the sync is logged to, or was before."""

    source: str
    schema: str
    run: str = ""  # the newest run that it has; every one before it, too
    made: bool = False  # are the tables there, as far as we know
    swept: float = 0.0  # when rows older than the setting says were last deleted
    erasures: tuple[LogErasure, ...] = ()


@dataclass(frozen=True, slots=True)
class LogMark:
    """All places of a sync; `failed` says why the last attempt to write failed, and `since` from when on."""

    places: tuple[LogPlace, ...] = ()
    failed: str = ""
    since: float = 0.0

    @classmethod
    def read(cls, note: str | None) -> LogMark:
        """What the ledger's note says."""
        if note is None:
            return cls()
        plain = json.loads(note)
        return cls(tuple(map(_place, plain["places"])), plain["failed"], plain["since"])

    def text(self) -> str:
        """As the ledger keeps it."""
        return json.dumps(asdict(self), separators=(",", ":"))

    def place(self, source: str, schema: str) -> LogPlace:
        """How far the log is there; a new place has nothing."""
        known = (p for p in self.places if (p.source, p.schema) == (source, schema))
        return next(known, LogPlace(source, schema))

    def with_place(self, place: LogPlace) -> LogMark:
        """The same with this place as it is now."""
        others = (p for p in self.places if (p.source, p.schema) != (place.source, place.schema))
        return replace(self, places=(*others, place))

    def with_erasure(self, erasure: LogErasure) -> LogMark:
        """The same, and every place has these rows to lose."""
        return replace(self, places=tuple(replace(p, erasures=(*p.erasures, erasure)) for p in self.places))

    @property
    def erasing(self) -> bool:
        """Has any place rows to lose."""
        return any(place.erasures for place in self.places)


def _place(plain: dict[str, Any]) -> LogPlace:
    return LogPlace(**{**plain, "erasures": tuple(map(_erasure, plain["erasures"]))})


def _erasure(plain: dict[str, Any]) -> LogErasure:
    quoted = tuple((run, key) for run, key in plain["quoted"])
    return LogErasure(plain["salt"], tuple(plain["keys"]), tuple(plain["people"]), quoted)
