"""When a sync is due, checked against clocks that go forward and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from sync.mapping import Schedule
from sync.schedule import Cron, Every, next_runs, parse, slot, slot_time, words


def fires(line: str, zone: str, start: str, end: str) -> list[datetime]:
    """All instants of a cron line between two local dates."""
    cron, tz = Cron(line, zone), ZoneInfo(zone)
    cursor = datetime.fromisoformat(start).replace(tzinfo=tz).astimezone(UTC) - timedelta(seconds=1)
    last = datetime.fromisoformat(end).replace(tzinfo=tz).astimezone(UTC)
    found = []
    while (due := cron.next_after(cursor)) is not None and due < last:
        assert due > cursor
        found.append(due)
        cursor = due
    return found


def local(instants: list[datetime], zone: str) -> list[str]:
    return [i.astimezone(ZoneInfo(zone)).strftime("%d %H:%M") for i in instants]


@pytest.mark.parametrize("number", ["0", "7", "sun", "SUN"])
def test_sunday_is_0_and_7_as_in_unix(number):
    found = fires(f"0 9 * * {number}", "UTC", "2026-10-01", "2026-10-31")

    assert {i.strftime("%A") for i in found} == {"Sunday"}
    assert len(found) == 4


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("1", {"Monday"}),
        ("1-5", {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday"}),
        ("5-7", {"Friday", "Saturday", "Sunday"}),
        ("fri-mon", {"Friday", "Saturday", "Sunday", "Monday"}),
        ("0-6/3", {"Sunday", "Wednesday", "Saturday"}),
        ("mon,wed", {"Monday", "Wednesday"}),
    ],
)
def test_weekdays_are_read_as_unix_reads_them(text, days):
    assert {i.strftime("%A") for i in fires(f"0 9 * * {text}", "UTC", "2026-10-01", "2026-10-31")} == days


def test_day_of_month_and_weekday_are_alternatives():
    found = fires("0 0 13 * 5", "UTC", "2026-10-01", "2026-10-31")

    assert [i.day for i in found] == [2, 9, 13, 16, 23, 30]


def test_a_fixed_hour_fires_once_on_the_night_the_clocks_go_back():
    found = fires("30 1 * * *", "America/New_York", "2026-10-31", "2026-11-03")

    assert [slot(i) for i in found] == ["2026-10-31T05:30:00Z", "2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]


def test_a_fixed_hour_fires_once_on_the_night_it_is_skipped():
    found = fires("30 2 * * *", "America/New_York", "2026-03-07", "2026-03-10")

    assert local(found, "America/New_York") == ["07 02:30", "08 03:30", "09 02:30"]


def test_every_real_hour_counts_on_both_nights():
    back = fires("*/15 * * * *", "Europe/Berlin", "2026-10-25", "2026-10-26")
    forth = fires("*/15 * * * *", "Europe/Berlin", "2026-03-29", "2026-03-30")

    assert len(back) == 25 * 4
    assert len(forth) == 23 * 4
    assert {b - a for a, b in pairwise(back)} == {timedelta(minutes=15)}


def test_two_names_for_one_instant_fire_once():
    found = fires("30 2,3 * * *", "America/New_York", "2026-03-08", "2026-03-09")

    assert local(found, "America/New_York") == ["08 03:30"]


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Atlantic/Canary"])
@pytest.mark.parametrize(
    "line", ["0 1 * * *", "30 1 * * *", "0 2 * * *", "45 2 * * *", "0 3 * * *", "59 23 * * *"]
)
def test_a_daily_run_comes_once_each_day_of_the_year(zone, line):
    found = fires(line, zone, "2026-01-01", "2027-01-01")

    assert len({i.astimezone(ZoneInfo(zone)).date() for i in found}) == len(found) == 365


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("0 0 31 2 *", "never comes"),
        ("0 0 * *", "has 4 fields"),
        ("0 0 * * 8", "no weekday"),
        ("61 * * * *", "no cron line"),
        ("0 0 * * mon/0", "step"),
    ],
)
def test_a_bad_line_is_refused_in_words(line, says):
    with pytest.raises(ValueError, match=says):
        Cron(line)


def test_an_unknown_zone_is_refused_in_words():
    with pytest.raises(ValueError, match="no time zone"):
        parse(Schedule(cron="0 1 * * *", timezone="Europe/Atlantis"))


def test_names_for_common_lines_are_understood():
    assert len(fires("@daily", "UTC", "2026-10-01", "2026-10-08")) == 7


def test_an_interval_has_the_same_slots_whenever_the_daemon_starts():
    every, start = Every(600), datetime(2026, 10, 1, 12, 3, 7, tzinfo=UTC)

    first = every.get_next_fire_time(None, start)

    assert first == datetime(2026, 10, 1, 12, 10, tzinfo=UTC)
    assert every.get_next_fire_time(first, start) == datetime(2026, 10, 1, 12, 20, tzinfo=UTC)
    assert every.get_next_fire_time(None, first) == first


def test_next_runs_are_strictly_later_and_as_many_as_asked():
    now = datetime(2026, 10, 1, 6, 15, tzinfo=UTC).timestamp()

    found = next_runs(Schedule(cron="15 6 * * *"), now)

    assert found == [now + 86400 * n for n in (1, 2, 3)]
    assert next_runs(None, now) == []


def test_a_slot_is_read_back_and_may_say_why():
    instant = datetime(2026, 10, 1, 6, 15, tzinfo=UTC)

    assert slot_time(slot(instant)) == instant
    assert slot_time(f"{slot(instant)}#resume") == instant
    assert slot_time("by hand") is None


def test_a_schedule_reads_as_words():
    assert words(Schedule(cron="15 6 * * *", timezone="Australia/Perth")) == "15 6 * * * (Australia/Perth)"
    assert words(Schedule(every="2h")) == "every 2h"
    assert words(None) == "on request"
