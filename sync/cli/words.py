"""Numbers and times as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

from sync.durations import format_duration, iso
from sync.masking import masked, masked_sample

__all__ = ["age", "cut", "due", "iso", "kept_in", "masked", "masked_sample", "moment", "number", "several", "size"]


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


def kept_in(place: str) -> str:
    """Where members are kept, as the ledger has it: `SOURCE/SCHEMA`, or nothing for the state folder."""
    source, _, schema = place.partition("/")
    return f"in the schema {schema} of {source}" if place else "in the state folder"
