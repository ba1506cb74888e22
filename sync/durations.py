"""Durations and rates as people write them, and times as programs do."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from sync.sdk.nouns import Rate

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_DURATION = re.compile(r"^(\d{1,15}(?:\.\d{1,9})?)\s*(ms|s|m|h|d|w)$")
_LONGEST_WINDOW = 366 * 86400.0
_RATE = re.compile(r"^(\d{1,9})\s*/\s*(.+)$")


def parse_duration(value: Any) -> Any:
    """Seconds from `90s`, `15m`, `24h`, `7d`; numbers are seconds already. Raises `ValueError`."""
    if not isinstance(value, str):
        return value
    match = _DURATION.match(value.strip())
    if match is None:
        raise ValueError(f"'{value}' is not a duration: write 90s, 15m, 24h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def iso(at: float | None) -> str | None:
    """Seconds since the epoch as ISO 8601 in UTC; None stays None."""
    return None if at is None else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_duration(seconds: float) -> str:
    """The shortest exact-enough form for people: `45s`, `12m`, `3h 5m`, `2d 4h`."""
    seconds = max(0, seconds)
    if seconds < 90:
        return f"{seconds:.0f}s"
    minutes, hours, days = int(seconds // 60), int(seconds // 3600), int(seconds // 86400)
    if minutes < 90:
        return f"{minutes}m"
    if hours < 48:
        return f"{hours}h {minutes % 60}m" if minutes % 60 else f"{hours}h"
    return f"{days}d {hours % 24}h" if hours % 24 else f"{days}d"


def parse_rate(value: str) -> Rate:
    """`100/10s` or `1000/m` as a rate. Raises `ValueError`."""
    match = _RATE.match(value.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"'{value}' is not a rate: write 100/10s or 1000/m")
    unit = match[2].strip()
    per = float(parse_duration(f"1{unit}" if unit in _UNITS else unit))
    if not 0 < per < _LONGEST_WINDOW:
        raise ValueError(f"'{value}' is not a rate: its window must be longer than nothing and within a year")
    return Rate(int(match[1]), per)


def check_rate(value: str) -> str:
    """The rate as it was written, where it is one. Raises `ValueError`."""
    parse_rate(value)
    return value
