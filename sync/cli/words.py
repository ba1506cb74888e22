"""Numbers and times as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sync.durations import format_duration

__all__ = ["age", "cut", "due", "iso", "kept_in", "masked", "masked_sample", "moment", "number", "several", "size"]


def iso(at: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC; None stays None."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(at: float | None) -> str:
    """`2026-10-01 06:15:00 UTC`, or a dash."""
    return "-" if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def age(at: float | None, now: float) -> str:
    """`3h 5m ago`, or a dash."""
    return "-" if at is None else f"{format_duration(now - at)} ago"


def due(at: float | None, now: float) -> str:
    """`in 12m`, or a dash."""
    return "-" if at is None else f"in {format_duration(at - now)}"


def number(value: float | int | str | None) -> str:
    """`9,120`, `23.1`; text stays as it is."""
    if isinstance(value, float):
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:,}" if isinstance(value, int) else str(value if value is not None else "-")


def size(count: float) -> str:
    """`4.1 GB` of so many bytes."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{number(round(count, 1))} {unit}"
        count /= 1000
    return f"{number(round(count, 1))} GB"


def several(count: int, noun: str) -> str:
    """`1 request`, `2,000 requests`, `3 retries`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count:,} {noun if count == 1 else plural}"


def cut(text: str, width: int = 72) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.splitlines())
    return line if len(line) <= width else line[: width - 1] + "…"


def masked_sample(sample: Mapping[str, Any], pii: frozenset[str]) -> dict[str, Any]:
    """A sample with every identifier and the fields named in `pii` masked whole, the rest as `masked` does."""
    hidden = dict(masked(sample))
    for part in ("identifiers", "fields", "before"):
        values = sample.get(part)
        if isinstance(values, Mapping):
            whole = values.keys() if part == "identifiers" else pii
            hidden[part] = {k: _hidden(v) if k in whole else masked(v) for k, v in values.items()}
    return hidden


def _hidden(value: Any) -> Any:
    """`a•••@acme.example`; whatever does not look personal keeps its first letter only."""
    if value is None or isinstance(value, bool):
        return value
    text = str(value)
    shown = masked(text)
    return shown if shown != text else text[:1] + "•••"


def masked(value: Any) -> Any:
    """The value with whatever may be personal masked; a mapping or list in its shape."""
    from sync.sdk.values import mask

    if isinstance(value, Mapping):
        return {key: masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [masked(item) for item in value]
    return mask(value) if isinstance(value, str) else value


def kept_in(place: str) -> str:
    """Where members are kept, as the ledger has it: `SOURCE/SCHEMA`, or nothing for the state folder."""
    source, _, schema = place.partition("/")
    return f"in the schema {schema} of {source}" if place else "in the state folder"
