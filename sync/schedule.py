"""When a sync is due: Unix cron lines and intervals as instants in UTC, put off by jitter and blackout windows.

APScheduler's own cron counts weekdays from Monday, joins day of month and weekday by "and", and fires twice
on the night the clocks go back. Here its matcher only walks the wall clock; the wall clock is turned into
UTC by us, and all arithmetic is in UTC.

* A fixed hour (`30 1 * * *`) fires once a day: at the first of two equal wall times, and where the wall time
  is skipped in spring, as much later as the clocks are moved.
* An hour of `*` fires in every real hour, in both of the repeated ones as well.
* Weekdays are 0-7 with 0 and 7 for Sunday, or names; ranges may wrap (`fri-mon`, `5-1`). Where day of month
  and weekday are both restricted, either is enough (crontab(5)).

A slot is the instant that the schedule names. A sync is due at its slot, later by its own share of the jitter, and
after the blackout that it would fall into. What else asks for a run (another sync, dbt, the source) has no slots.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

from apscheduler.triggers.base import BaseTrigger
from apscheduler.triggers.cron import CronTrigger

from sync.blackout import DAYS, NEVER, Blackout, blackout, weekday, zone
from sync.durations import format_duration
from sync.mapping import Schedule, Timetable

__all__ = [
    "BY_ITSELF",
    "Cron",
    "Every",
    "Timing",
    "blackout_of",
    "jitter_of",
    "next_runs",
    "parse",
    "slot",
    "slot_due",
    "slot_time",
    "timing",
    "words",
]

BY_ITSELF = frozenset({"schedule", "after", "dbt", "source", "recover"})
"""Why runs are asked for that no person asks for: these keep to blackout windows."""

_ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_FIELDS = ("minute", "hour", "day of month", "month", "weekday")
_FOLD = timedelta(hours=3)  # no zone has moved its clocks by more
_SECOND = timedelta(seconds=1)
_TICK = timedelta(microseconds=1)


class Cron(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """A Unix cron line in a time zone. Raises `ValueError` with a sentence for people."""

    def __init__(self, line: str, timezone: str = "UTC") -> None:
        self.line = line
        self.zone: tzinfo = zone(timezone)
        fields = _ALIASES.get(line.strip().lower(), line).split()
        if len(fields) != 5:
            raise ValueError(f"'{line}' has {len(fields)} fields; a cron line has 5: {', '.join(_FIELDS)}")
        self._every_hour = fields[1] in ("*", "*/1")
        self._walls = _matchers(line, fields)
        if not self._walls or next(self._wall_times(datetime(2024, 1, 1, tzinfo=UTC)), None) is None:
            raise ValueError(f"'{line}' never comes: no such day exists")

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first instant after the previous one, or from now on; in UTC."""
        after = now.astimezone(UTC) - timedelta(microseconds=1)
        if previous_fire_time is not None:
            after = previous_fire_time.astimezone(UTC)
        return self.next_after(after)

    def next_after(self, after: datetime) -> datetime | None:
        """The first instant strictly after `after`; both in UTC."""
        start = self._wall(after)
        if self.zone.utcoffset(self._wall(after - _FOLD)) != self.zone.utcoffset(self._wall(after + _FOLD)):
            start -= _FOLD
        found: datetime | None = None
        for wall in self._wall_times(start.replace(tzinfo=UTC, fold=0)):
            first = self._instant(wall, fold=0)
            due = [i for i in (first, *self._repeated(wall, first)) if i > after]
            found = min([*due, found]) if found is not None else min(due, default=None)
            if found is not None and first > found - timedelta(minutes=1):
                return found
        return found

    def _repeated(self, wall: datetime, first: datetime) -> list[datetime]:
        second = self._instant(wall, fold=1)
        return [second] if self._every_hour and second > first else []

    def _instant(self, wall: datetime, *, fold: int) -> datetime:
        return wall.replace(tzinfo=self.zone, fold=fold).astimezone(UTC)

    def _wall(self, instant: datetime) -> datetime:
        return instant.astimezone(self.zone)

    def _wall_times(self, start: datetime) -> Iterator[datetime]:
        """Matching wall times from `start` on; they are dressed as UTC so that no clock change touches them."""
        cursor: datetime | None = start
        while cursor is not None:
            coming = [t for t in (w.get_next_fire_time(None, cursor) for w in self._walls) if t is not None]
            if not coming:
                return
            yield min(coming)
            cursor = min(coming) + timedelta(seconds=1)

    def __str__(self) -> str:
        return f"{self.line} ({self.zone})"


class Every(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """An interval counted from the epoch, so that every daemon, restarted or not, sees the same slots."""

    def __init__(self, seconds: float) -> None:
        if seconds < 1:
            raise ValueError("an interval is at least one second")
        self.seconds = seconds

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first instant after the previous one, or from now on; in UTC."""
        return self.next_after(previous_fire_time or now - timedelta(microseconds=1))

    def next_after(self, after: datetime) -> datetime | None:
        """The first instant strictly after `after`; both in UTC."""
        count = math.floor(after.timestamp() / self.seconds) + 1
        return datetime.fromtimestamp(count * self.seconds, UTC)

    def __str__(self) -> str:
        return f"every {format_duration(self.seconds)}"


class Timing(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """When the daemon asks for the runs of a schedule: each slot `offset` later, and outside of the blackout.

    A slot never waits for longer than the next one comes. Every daemon finds the same instants.
    """

    def __init__(self, slots: Cron | Every, offset: timedelta = timedelta(0), blackout: Blackout = NEVER) -> None:
        self.slots, self.offset, self.blackout = slots, offset, blackout

    def due(self, slot: datetime) -> datetime:
        """When a slot's run is asked for."""
        return self.blackout.over(self._later(slot))

    def latest(self, since: datetime, now: datetime) -> datetime | None:
        """The newest slot after `since` that is due by now; all in UTC."""
        dark = self.blackout.around(now)
        last = dark[0] - _TICK if dark is not None else now
        slot = self._newest(since, last)
        if slot is not None and self._later(slot) > last:
            return self._newest(since, slot - _TICK)
        return slot

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The first instant after the previous one, or from now on; in UTC."""
        return self.next_after(previous_fire_time or now - _TICK)

    def next_after(self, after: datetime) -> datetime | None:
        """The first instant strictly after `after` at which a run is asked for; both in UTC."""
        after = after.astimezone(UTC)
        dark = self.blackout.around(after)
        before = dark[0] - _TICK if dark is not None else after
        waiting = self._newest(before - self.offset, before) if self.offset else None
        if waiting is not None and self.due(waiting) > after:
            return self.due(waiting)
        coming = self.slots.next_after(before)
        due = self.due(coming) if coming is not None else None
        return due if due is None or dark is None else max(due, dark[1])

    def _later(self, slot: datetime) -> datetime:
        """The slot with its jitter."""
        if not self.offset:
            return slot
        following = self.slots.next_after(slot)
        return slot + self.offset if following is None else min(slot + self.offset, following - _SECOND)

    def _newest(self, since: datetime, until: datetime) -> datetime | None:
        """The newest slot after `since` up to `until`, looked for backwards, in longer and longer steps."""
        step = timedelta(minutes=1)
        while True:
            begin = max(since, until - step)
            found, slot = None, self.slots.next_after(begin)
            while slot is not None and slot <= until:
                found, slot = slot, self.slots.next_after(slot)
            if found is not None or begin == since:
                return found
            step *= 4

    def __str__(self) -> str:
        return str(self.slots)


def parse(schedule: Timetable) -> Cron | Every | None:
    """The slots of a schedule; None where it does not go by the clock. Raises `ValueError` with a sentence."""
    if schedule.every is not None:
        return Every(schedule.every)
    line = schedule.cron if schedule.cron is not None else _daily(schedule)
    return None if line is None else Cron(line, schedule.timezone)


def timing(schedule: Schedule, name: str) -> Timing | None:
    """When the sync of that name is due; None where its schedule does not go by the clock. Raises `ValueError`."""
    slots = parse(schedule)
    return None if slots is None else Timing(slots, jitter_of(schedule, name), blackout_of(schedule))


def jitter_of(schedule: Timetable, name: str) -> timedelta:
    """The sync's own share of the jitter: the same in every daemon and at every slot, in whole seconds."""
    window = int(schedule.jitter or 0)
    digest = hashlib.sha256(name.encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8]) % window if window else 0)


def blackout_of(schedule: Timetable) -> Blackout:
    """When the daemon starts nothing by this schedule. Raises `ValueError`."""
    return blackout(schedule.blackout, schedule.timezone)


def next_runs(schedule: Schedule | None, after: float, count: int = 3, name: str = "") -> list[float]:
    """The next `count` instants after `after`, in seconds since the epoch; none where no clock asks for runs.

    `name` is the sync's, which decides on its jitter.
    """
    trigger = timing(schedule, name) if schedule is not None else None
    if trigger is None:
        return []
    cursor, found = datetime.fromtimestamp(after, UTC), list[float]()
    while len(found) < count and (due := trigger.next_after(cursor)) is not None:
        found.append(due.timestamp())
        cursor = due
    return found


def _daily(schedule: Timetable) -> str | None:
    """The cron line of `at: "06:00"` and `on: 1`."""
    if schedule.at is None:
        return None
    hour, minute = schedule.at.split(":")
    on = "*" if schedule.on is None else str(schedule.on).lower()
    days = f"{on} * *" if on == "last" or on.isdigit() else f"* * {on}"
    return f"{int(minute)} {int(hour)} {days}"


def slot(instant: datetime) -> str:
    """How the ledger names an instant: `2026-11-01T05:30:00Z`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def slot_time(name: str) -> datetime | None:
    """The instant a slot is named after; what follows a `#` says why it is not on the schedule."""
    try:
        return datetime.strptime(name.partition("#")[0], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def slot_due(schedule: Schedule | None, sync: str, name: str) -> datetime | None:
    """When the run of a slot is due, jitter and blackout counted; None where the name is of no instant."""
    at = slot_time(name)
    trigger = timing(schedule, sync) if at is not None and schedule is not None else None
    return trigger.due(at) if at is not None and trigger is not None else at


def words(schedule: Schedule | None) -> str:
    """The schedule as people read it."""
    if schedule is None:
        return "on request"
    if schedule.after is not None:
        return f"after {schedule.after}"
    if schedule.dbt is not None:
        return f"after dbt ({schedule.dbt.webhook or schedule.dbt.run_results})"
    if schedule.source is not None:
        return f"when the source changes (asked every {format_duration(schedule.source.poll)})"
    return _times(schedule)


def _times(schedule: Timetable) -> str:
    if schedule.every is not None:
        text = f"every {format_duration(schedule.every)}"
    elif schedule.cron is not None:
        text = f"{schedule.cron} ({schedule.timezone})"
    else:
        text = f"{_day_words(schedule.on)} at {schedule.at} ({schedule.timezone})"
    return text + (f", spread over {format_duration(schedule.jitter)}" if schedule.jitter else "")


def _day_words(on: int | str | None) -> str:
    if on is None:
        return "every day"
    if on == "last":
        return "on the last day of each month"
    return f"on day {on} of each month" if isinstance(on, int) else f"every {on}"


def _weekdays(text: str) -> str:
    """Unix weekdays as APScheduler's names: `1-5` is `mon,tue,wed,thu,fri`."""
    chosen: set[int] = set()
    for item in text.lower().split(","):
        span, _, step = item.partition("/")
        if not (step or "1").isdigit() or int(step or 1) < 1:
            raise ValueError(f"'{item}' is no weekday: the step must be a number above 0")
        low, dash, high = span.partition("-")
        if span == "*":
            first, last = 0, 6
        else:
            first = weekday(low)
            last = weekday(high) if dash else (6 if step else first)
        if last < first:
            last += 7
        chosen |= {day % 7 for day in range(first, last + 1, int(step or 1))}
    return ",".join(DAYS[day] for day in sorted(chosen))


def _matchers(line: str, fields: list[str]) -> list[Any]:
    """APScheduler's matchers for the line: two of them where day of month and weekday are alternatives."""
    minute, hour, day, month, weekday = fields
    either = not day.startswith("*") and not weekday.startswith("*")
    pairs = [(day, "*"), ("*", weekday)] if either else [(day, weekday)]
    try:
        triggers = [
            CronTrigger(
                minute=minute,
                hour=hour,
                day=d,
                month=month,
                day_of_week="*" if w == "*" else _weekdays(w),
                timezone=UTC,
            )
            for d, w in pairs
        ]
    except ValueError as error:
        raise ValueError(f"'{line}' is no cron line: {error}") from None
    return [t for t in triggers if t.get_next_fire_time(None, datetime(2024, 1, 1, tzinfo=UTC)) is not None]
