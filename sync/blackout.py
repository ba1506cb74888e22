"""Windows of time in which the daemon starts nothing by itself: `22:00-06:00`, `sat,sun`, `mon-fri 08:00-18:00`.

A window is written in wall-clock time. Where the clocks are moved at one of its ends, it takes the longer reading.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

__all__ = [
    "DAYS",
    "NEVER",
    "Blackout",
    "Window",
    "blackout",
    "weekday",
    "weekdays",
    "window",
    "zone",
    "zoned",
]

DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_SPAN = re.compile(r"^(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})$")
_DAY = 24 * 60
_EVERY_DAY = frozenset(range(7))
_EXAMPLES = "`22:00-06:00`, `sat,sun` or `mon-fri 08:00-18:00`"
_TICK = timedelta(microseconds=1)
_MOST = timedelta(days=15)
_FAR = timedelta(days=400)  # longer than any season: what covers every week has no beginning and no end


@dataclass(frozen=True, slots=True)
class Window:
    """From `start` to `end` on each of `days` (0: Sunday), in minutes after midnight; it may end a day later."""

    days: frozenset[int]
    start: int
    end: int
    zone: tzinfo

    def around(self, instant: datetime) -> tuple[datetime, datetime] | None:
        """Beginning and end, in UTC, of the window that the instant is in; the end is outside."""
        today = instant.astimezone(self.zone).date()
        for day in (today - timedelta(days=2), today - timedelta(days=1), today, today + timedelta(days=1)):
            if day.isoweekday() % 7 in self.days:
                begin, end = min(self._readings(day, self.start)), max(self._readings(day, self.end))
                if begin <= instant < end:
                    return begin, end
        return None

    def _readings(self, day: date, minutes: int) -> tuple[datetime, datetime]:
        """The instant of a wall-clock time; two of them where the clocks are moved over it."""
        wall = datetime(day.year, day.month, day.day) + timedelta(minutes=minutes)  # noqa: DTZ001 - a wall's time
        first, second = (wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        return first, second


@dataclass(frozen=True, slots=True)
class Blackout:
    """Some windows, taken together."""

    windows: tuple[Window, ...] = ()

    def around(self, instant: datetime) -> tuple[datetime, datetime] | None:
        """Beginning and end, in UTC, of the unbroken blackout that the instant is in; None outside of any."""
        begin, end = self._begin(instant), self.over(instant)
        return None if end == instant else (begin, end)

    def over(self, instant: datetime) -> datetime:
        """The first instant from this one on that is in no window, or as far as is looked for one."""
        at, far = instant, instant + _FAR
        while at < far and (ends := [found[1] for w in self.windows if (found := w.around(at)) is not None]):
            at = max(ends)
        return at

    def check(self, since: datetime) -> None:
        """Raises `ValueError` where no run would begin for two weeks and more, at once or in the coming year.

        Windows of two time zones leave time in one season and none in another, for clocks are moved.
        """
        weeks = 52 if len({w.zone for w in self.windows}) > 1 else 1
        for begin in (since + timedelta(weeks=week) for week in range(weeks)):
            if self.over(begin) - begin > _MOST:
                raise ValueError(
                    f"the blackout covers the whole week of {begin:%Y-%m-%d} and more: nothing would run"
                )

    def _begin(self, instant: datetime) -> datetime:
        at, far = instant, instant - _FAR
        while at > far and (
            begins := [found[0] for w in self.windows if (found := w.around(at - _TICK)) is not None]
        ):
            at = min(begins)
        return at


NEVER = Blackout()


def blackout(texts: Iterable[str], timezone: str = "UTC") -> Blackout:
    """The windows as they are written; raises `ValueError` for one that is none."""
    return Blackout(tuple(window(text, timezone) for text in texts))


def window(text: str, timezone: str = "UTC") -> Window:
    """`[DAYS] [HH:MM-HH:MM] [ZONE]`: without days every day, without times the whole day."""
    words = text.split()
    where = words.pop() if _has_zone(text) else timezone
    span = words.pop() if words and _SPAN.match(words[-1]) else ""
    if len(words) > 1 or not (words or span):
        raise ValueError(f"'{text}' is no window of time: write {_EXAMPLES}")
    start, end = _minutes(text, span) if span else (0, _DAY)
    return Window(weekdays(words[0]) if words else _EVERY_DAY, start, end, zone(where))


def zoned(text: str, timezone: str) -> str:
    """The window with its time zone, where it has none yet."""
    return text if _has_zone(text) else f"{text} {timezone}"


def _has_zone(text: str) -> bool:
    last = text.split()[-1:]
    return bool(last) and ("/" in last[0] or last[0] == "UTC")


def _minutes(text: str, span: str) -> tuple[int, int]:
    numbers = [int(n) for n in _SPAN.match(span).groups()]  # type: ignore[union-attr]  # it was matched before
    start, end = numbers[0] * 60 + numbers[1], numbers[2] * 60 + numbers[3]
    if max(numbers[1], numbers[3]) > 59 or start >= _DAY or end > _DAY:
        raise ValueError(f"'{text}' is no window of time: hours are 00:00 to 24:00")
    if start == end:
        raise ValueError(f"'{text}' is no window of time: it ends where it begins")
    return start, end if end > start else end + _DAY


def weekdays(text: str) -> frozenset[int]:
    """`sat,sun`, `mon-fri`, `fri-mon`: numbers from 0, Sunday. Raises `ValueError`."""
    return frozenset(day for item in text.lower().split(",") for day in _span(item))


def _span(item: str) -> Iterator[int]:
    low, dash, high = item.partition("-")
    first = weekday(low)
    last = weekday(high) if dash else first
    yield from (day % 7 for day in range(first, last + 1 + (7 if last < first else 0)))


def weekday(text: str) -> int:
    """Sunday is 0 and 7, or `sun`. Raises `ValueError`."""
    if text in DAYS:
        return DAYS.index(text)
    if text.isdigit() and int(text) <= 7:
        return int(text)
    raise ValueError(f"'{text}' is no weekday: write 0-7 (0 and 7 are Sunday) or {', '.join(DAYS)}")


def zone(name: str) -> tzinfo:
    """A time zone by its name. Raises `ValueError` with a sentence for people."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"'{name}' is no time zone; write UTC, Europe/Berlin or Australia/Perth") from None
