"""When a sync is due, checked against clocks that go forward and back."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest

from sync.blackout import blackout
from sync.mapping import Schedule
from sync.schedule import Cron, Every, Timing, jitter_of, next_runs, parse, slot, slot_time, timing, words


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


# --- once a day, once a month ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "days", "reads"),
    [
        ({"at": "06:00"}, list(range(1, 31)), "every day at 06:00 (UTC)"),
        ({"at": "06:00", "on": 1}, [1], "on day 1 of each month at 06:00 (UTC)"),
        ({"at": "06:00", "on": "last"}, [30], "on the last day of each month at 06:00 (UTC)"),
        ({"at": "06:00", "on": "sat,sun"}, [5, 6, 12, 13, 19, 20, 26, 27], "every sat,sun at 06:00 (UTC)"),
    ],
)
def test_a_time_of_the_day_may_be_on_some_days_only(given, days, reads):
    schedule = Schedule(**given)
    start = datetime(2026, 9, 1, tzinfo=UTC).timestamp() - 1

    found = [datetime.fromtimestamp(at, UTC) for at in next_runs(schedule, start, 30)]

    assert [at.day for at in found if at.month == 9 and at.year == 2026] == days
    assert {at.strftime("%H:%M") for at in found} == {"06:00"}
    assert words(schedule) == reads


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"on": 1, "cron": "@daily"}, "`on` goes with `at`"),
        ({"at": "6:00"}, "pattern"),
        ({"at": "06:00", "on": 29}, "28"),
        ({"at": "06:00", "every": "1h"}, "exactly one"),
        ({}, "exactly one of `cron`, `every`, `at`, `after`, `dbt` and `source`"),
        ({"after": "other", "jitter": "5m"}, "`jitter` goes with"),
        ({"dbt": {"run_results": "r.json", "jobs": ["1"]}}, "`jobs` goes with `webhook`"),
        ({"dbt": {"webhook": "w", "models": ["m"]}}, "`models` goes with `run_results`"),
        ({"dbt": {}}, "exactly one of `run_results` and `webhook`"),
    ],
)
def test_a_schedule_says_one_thing(given, says):
    with pytest.raises(ValueError, match=says):
        Schedule(**given)


# --- jitter ----------------------------------------------------------------------------------------------------


def test_jitter_is_the_same_at_every_slot_and_differs_between_syncs():
    schedule = Schedule(cron="0 6 * * *", jitter="30m")
    start = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    offsets = {}

    for name in (f"sync-{n}" for n in range(200)):
        due = next_runs(schedule, start, 5, name)
        (offsets[name],) = {(at - start) % 86400 - 6 * 3600 for at in due}

    assert all(0 <= offset < 1800 for offset in offsets.values())
    assert len(set(offsets.values())) > 150
    assert max(offsets.values()) - min(offsets.values()) > 1500
    assert next_runs(schedule, start, 1, "sync-7") == next_runs(schedule, start, 1, "sync-7")


@pytest.mark.parametrize("given", [{"every": "1m"}, {"cron": "* * * * *"}])
def test_jitter_longer_than_the_time_between_two_slots_loses_none(given):
    trigger = timing(Schedule(**given, jitter="24h"), "vip")
    assert trigger is not None
    cursor, seen = datetime(2026, 10, 1, tzinfo=UTC), []

    for _ in range(120):
        due = trigger.next_after(cursor)
        assert due is not None
        seen.append(trigger.latest(cursor - timedelta(hours=30), due))
        cursor = due

    assert {b - a for a, b in pairwise(seen)} == {timedelta(minutes=1)}


def test_a_slot_keeps_its_name_whatever_the_jitter():
    trigger = timing(Schedule(cron="0 6 * * *", jitter="30m"), "vip")
    assert trigger is not None
    day = datetime(2026, 10, 1, tzinfo=UTC)
    due = trigger.next_after(day)
    assert due is not None

    assert trigger.latest(day, due - timedelta(seconds=1)) is None
    assert trigger.latest(day, due) == day.replace(hour=6)
    assert due > day.replace(hour=6)


@pytest.mark.parametrize("given", [{"every": "1s"}, {"cron": "* * * * *"}, {"cron": "0 0 1 1 *"}])
def test_a_long_past_is_not_walked(given):
    trigger = timing(Schedule(**given, jitter="1h"), "vip")
    assert trigger is not None
    trigger.slots.next_after = counted(trigger.slots.next_after, 250)
    now = datetime(2026, 1, 1, 2, tzinfo=UTC)

    assert trigger.latest(now - timedelta(days=31), now) is not None


def counted(do, most):
    """The function, which fails when it is asked too often."""
    times = iter(range(most))

    def asked(*given):
        next(times)
        return do(*given)

    return asked


# --- blackout --------------------------------------------------------------------------------------------------


def at(text: str, zone: str = "UTC") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("texts", "inside", "over"),
    [
        (["22:00-06:00"], "2026-10-01 22:00", "2026-10-02 06:00"),
        (["22:00-06:00"], "2026-10-02 05:59", "2026-10-02 06:00"),
        (["sat,sun"], "2026-10-03 00:00", "2026-10-05 00:00"),
        (["fri-sun"], "2026-10-04 23:59", "2026-10-05 00:00"),
        (["sat 20:00-08:00"], "2026-10-04 07:00", "2026-10-04 08:00"),
        (["22:00-06:00", "sat,sun"], "2026-10-02 23:00", "2026-10-05 06:00"),
        (["00:00-12:00", "12:00-18:00"], "2026-10-02 01:00", "2026-10-02 18:00"),
        (["08:00-10:00 Australia/Perth"], "2026-10-02 00:30", "2026-10-02 02:00"),
    ],
)
def test_a_blackout_is_over_at_its_end(texts, inside, over):
    assert blackout(texts).over(at(inside)) == at(over)


@pytest.mark.parametrize("outside", ["2026-10-02 06:00", "2026-10-02 21:59"])
def test_the_end_of_a_window_is_outside_and_its_beginning_inside(outside):
    windows = blackout(["22:00-06:00"])

    assert windows.around(at(outside)) is None
    assert windows.around(at("2026-10-02 22:00")) == (at("2026-10-02 22:00"), at("2026-10-03 06:00"))


@pytest.mark.parametrize(
    ("zone", "night", "begins", "ends", "until"),
    [
        # The clocks go back: an end or a beginning that comes twice takes the longer reading.
        ("America/New_York", "2026-11-01", "2026-11-01T02:00:00Z", "2026-11-01T06:30:00Z", "01:30"),
        ("Europe/Berlin", "2026-10-25", "2026-10-24T20:00:00Z", "2026-10-25T01:30:00Z", "02:30"),
        ("Australia/Lord_Howe", "2026-04-05", "2026-04-04T11:00:00Z", "2026-04-04T15:00:00Z", "01:30"),
        # The clocks go forth: an end that is skipped comes as much later.
        ("America/New_York", "2026-03-08", "2026-03-08T03:00:00Z", "2026-03-08T07:30:00Z", "02:30"),
        ("Europe/Berlin", "2026-03-29", "2026-03-28T21:00:00Z", "2026-03-29T01:30:00Z", "02:30"),
        ("Australia/Lord_Howe", "2026-10-04", "2026-10-03T11:30:00Z", "2026-10-03T15:45:00Z", "02:15"),
    ],
)
def test_a_blackout_over_the_night_that_the_clocks_are_moved(zone, night, begins, ends, until):
    found = blackout([f"22:00-{until}"], zone).around(at(f"{night} 00:30", zone))

    assert found is not None
    assert [slot(i) for i in found] == [begins, ends]


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize("text", ["00:30-02:30", "02:00-02:30", "01:45-03:00", "22:00-02:15"])
def test_no_slot_is_due_in_a_blackout_on_any_night(zone, text):
    trigger = timing(Schedule(cron="*/15 0-5 * * *", timezone=zone, blackout=[text]), "vip")
    assert trigger is not None
    start, end = text.split("-")
    for day in NIGHTS[zone]:
        cursor, found = at(f"{day} 00:00", zone) - timedelta(hours=4), []
        while (due := trigger.next_after(cursor)) is not None and due < at(f"{day} 12:00", zone):
            assert due > cursor
            cursor = due
            found.append(due.astimezone(ZoneInfo(zone)).strftime("%H:%M"))
        assert len(found) >= 9
        assert [f for f in found if (start <= f < end if start < end else f >= start or f < end)] == []


NIGHTS = {
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Europe/Berlin": ("2026-03-29", "2026-10-25"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),
    "Antarctica/Troll": ("2026-03-29", "2026-10-25"),
    "Australia/Sydney": ("2026-04-05", "2026-10-04"),
}


def test_slots_in_a_blackout_become_one_at_its_end_and_it_keeps_the_newest_name():
    trigger = timing(Schedule(cron="0 * * * *", blackout=["22:00-06:00"]), "vip")
    assert trigger is not None

    assert trigger.next_after(at("2026-10-01 21:00")) == at("2026-10-02 06:00")
    assert trigger.next_after(at("2026-10-02 01:30")) == at("2026-10-02 06:00")
    assert trigger.next_after(at("2026-10-02 06:00")) == at("2026-10-02 07:00")
    assert trigger.latest(at("2026-10-01 21:00"), at("2026-10-02 05:59")) is None
    assert trigger.latest(at("2026-10-01 21:00"), at("2026-10-02 06:00")) == at("2026-10-02 06:00")


def test_a_slot_that_jitter_moves_into_a_blackout_waits_for_its_end():
    schedule = Schedule(cron="59 21 * * *", jitter="1h", blackout=["22:00-06:00"])
    name = next(n for n in map(str, range(99)) if jitter_of(schedule, n) > timedelta(minutes=5))

    assert next_runs(schedule, at("2026-10-01 12:00").timestamp(), 1, name) == [at("2026-10-02 06:00").timestamp()]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no window of time"),
        ("22-06", "no weekday"),
        ("25:00-26:00", "00:00 to 24:00"),
        ("22:61-23:00", "00:00 to 24:00"),
        ("06:00-06:00", "ends where it begins"),
        ("funday 06:00-07:00", "no weekday"),
        ("mon tue", "no window"),
        ("22:00-06:00 Europe/Atlantis", "no time zone"),
        ("00:00-24:00", "whole week"),
        ("mon-sun", "whole week"),
    ],
)
def test_a_window_that_is_none_is_refused_in_words(text, says):
    with pytest.raises(ValueError, match=says):
        blackout([text]).check(at("2026-10-01"))


def test_a_blackout_without_an_end_asks_for_nothing_and_does_no_harm():
    trigger, now = Timing(Every(3600), blackout=blackout(["00:00-24:00"])), at("2026-10-01")
    found = trigger.next_after(now)

    assert found is not None
    assert found - now > timedelta(days=365)
    assert trigger.latest(now - timedelta(days=31), now) is None


@pytest.mark.parametrize(
    ("texts", "dark"),
    [
        (["00:00-12:00 UTC", "23:00-11:00 Australia/Sydney"], "2026-11-01"),
        (["00:00-12:00 UTC", "14:00-02:00 Europe/Berlin"], "2026-07-01"),
    ],
)
def test_windows_of_two_zones_that_leave_no_time_in_one_season_are_refused_and_do_no_harm(texts, dark):
    windows = blackout(texts)
    light = at(dark) - timedelta(days=182)

    assert windows.over(light) - light < timedelta(days=1)
    for now in (light, at(dark)):
        with pytest.raises(ValueError, match="whole week"):
            windows.check(now)
    trigger = timing(Schedule(every="1h", blackout=texts), "vip")
    assert trigger is not None
    found = trigger.next_after(at(dark))
    assert found is not None
    assert found - at(dark) > timedelta(days=15)
    assert windows.around(found) is None
    assert trigger.latest(at(dark), found - timedelta(minutes=1)) is None
    blackout(["22:00-06:00 Europe/Berlin", "22:00-06:00 America/New_York", "sat,sun"]).check(light)


# --- what the scheduler's library trips over -------------------------------------------------------------------


@pytest.mark.parametrize(("zone", "night"), [(zone, night) for zone, nights in NIGHTS.items() for night in nights])
def test_no_instant_comes_twice_or_out_of_order_when_the_clocks_are_moved(zone, night):
    before = (datetime.fromisoformat(night) - timedelta(days=1)).date().isoformat()
    after = (datetime.fromisoformat(night) + timedelta(days=2)).date().isoformat()
    for line in ("0 * * * *", "*/15 * * * *", "0 1-3 * * *", "*/15 1-3 * * *"):
        found = fires(line, zone, before, after)

        gaps = {b - a for a, b in pairwise(found)}
        assert min(gaps) >= timedelta(minutes=15)
        if line == "*/15 * * * *":
            assert gaps == {timedelta(minutes=15)}
        if line == "0 * * * *":
            longest = 90 if zone == "Australia/Lord_Howe" else 60
            assert gaps <= {timedelta(minutes=m) for m in (30, 60, longest)}


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe"])
def test_a_day_is_a_day_of_the_wall_clock_and_not_24_hours(zone):
    found = fires("0 6 * * *", zone, "2026-01-01", "2027-01-01")

    assert {text.split()[1] for text in local(found, zone)} == {"06:00"}
    assert len({b - a for a, b in pairwise(found)}) == 3


def test_what_asks_for_runs_besides_the_clock_reads_as_words_and_has_no_next_run():
    now = datetime(2026, 10, 1, tzinfo=UTC).timestamp()
    others = {
        "after hubspot-winback": Schedule(after="hubspot-winback"),
        "after dbt (../target/run_results.json)": Schedule(dbt={"run_results": "../target/run_results.json"}),
        "after dbt (cloud)": Schedule(dbt={"webhook": "cloud"}),
        "when the source changes (asked every 15m)": Schedule(source={"poll": "15m"}),
    }

    assert {text: words(schedule) for text, schedule in others.items()} == {text: text for text in others}
    assert [next_runs(schedule, now) for schedule in others.values()] == [[], [], [], []]


@pytest.mark.parametrize(
    "schedule",
    [
        {"at": "06:00", "jitter": "2h", "blackout": ["05:00-06:30", "sat,sun"], "timezone": "Europe/Berlin"},
        {"every": "10m", "jitter": "9m", "blackout": ["22:00-06:00"], "timezone": "America/New_York"},
        {"cron": "30 1,2 * * *", "blackout": ["01:40-02:10"], "timezone": "America/New_York"},
    ],
)
def test_a_slot_is_the_latest_from_the_instant_on_at_which_it_was_to_come(schedule):
    dice, trigger = random.Random(3), timing(Schedule.model_validate(schedule), "vip")
    now = datetime(2026, 10, 20, 3, 7, tzinfo=UTC)
    since = trigger.latest(now - timedelta(days=3), now)
    for _ in range(60):
        coming = trigger.next_after(now)
        assert trigger.latest(since, coming - timedelta(microseconds=1)) is None
        assert trigger.latest(since, coming) is not None
        now = coming + timedelta(seconds=dice.choice([0, 0, 1, 60, 3600, 40000]))
        since = trigger.latest(since, now)
