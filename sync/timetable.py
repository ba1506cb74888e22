"""The project's schedules together: which one each sync runs by, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from sync.blackout import Blackout, blackout, zone, zoned
from sync.checks import MappingFile
from sync.errors import Problem
from sync.files import Location, suggest
from sync.mapping import Cohort, Schedule, Sync, Timetable
from sync.settings import Settings

__all__ = ["check_schedules", "scheduled"]


def scheduled(sync: Sync, cohort: Cohort, settings: Settings) -> Sync:
    """The sync with what it runs by: its own schedule or its cohort's tier, and the blackout of config.toml."""
    chosen = sync.schedule
    if chosen is None and cohort.refresh.tier in settings.schedules:
        named = settings.schedules[cohort.refresh.tier]
        chosen = Schedule.model_construct(**named.model_dump())
    if chosen is None:
        return sync
    everywhere = tuple(zoned(text, settings.blackout.timezone) for text in settings.blackout.windows)
    return sync.model_copy(
        update={"schedule": chosen.model_copy(update={"blackout": (*chosen.blackout, *everywhere)})}
    )


# --- what is wrong --------------------------------------------------------------------------------------------


def check_schedules(files: Sequence[MappingFile], settings: Settings) -> Iterator[Problem]:
    """Schedules that cannot be read or never come, and those that name what is not there."""
    yield from _check_settings(settings)
    known = {sync.name for file in files for sync in file.mapping.syncs}
    for file in files:
        yield from _check_tier(file, settings)
        for index, sync in enumerate(file.mapping.syncs):
            if sync.schedule is not None:
                where: Location = ("syncs", index, "schedule")
                tell = _teller(file.document.problem, where)
                yield from _check_times(sync.schedule, tell)
                yield from _check_together(sync.schedule, settings, tell)
                yield from _check_names(sync, known, settings, tell)
    yield from _check_circles(files)


Tell = Callable[..., Problem]


def _teller(problem: Tell, where: Location) -> Tell:
    """Problems of the schedule that stands there."""

    def tell(way: Location, code: str, message: str, fix: str = "", **more: bool) -> Problem:
        return problem((*where, *way), code, message, fix, **more)

    return tell


def _check_settings(settings: Settings) -> Iterator[Problem]:
    for name, named in settings.schedules.items():
        tell = _teller(settings.places.problem, ("schedules", name))
        yield from _check_times(named, tell)
        yield from _check_together(named, settings, tell)
    where = settings.blackout
    steps = [
        ("timezone", lambda: zone(where.timezone)),
        ("windows", lambda: blackout(where.windows, where.timezone).check(datetime.now(UTC))),
    ]
    yield from _first_wrong(steps, _teller(settings.places.problem, ("blackout",)))


def _first_wrong(steps: Sequence[tuple[str, Callable[[], object]]], tell: Tell) -> Iterator[Problem]:
    """The first key whose value cannot be read."""
    for key, step in steps:
        try:
            step()
        except ValueError as error:
            fix = "Five fields: minute hour day month weekday." if key == "cron" else ""
            yield tell((key,), "HG125", str(error), fix)
            return


def _check_times(schedule: Timetable, tell: Tell) -> Iterator[Problem]:
    """Time zone, times and windows; the first that is wrong."""
    from sync.schedule import blackout_of, parse  # the library behind it is imported where there is a schedule

    kind = next((k for k in ("cron", "on", "every") if getattr(schedule, k) is not None), "at")
    steps: list[tuple[str, Callable[[], object]]] = [
        ("timezone", lambda: zone(schedule.timezone)),
        (kind, lambda: parse(schedule)),
        ("blackout", lambda: blackout_of(schedule).check(datetime.now(UTC))),
    ]
    yield from _first_wrong(steps, tell)


def _check_together(schedule: Timetable, settings: Settings, tell: Tell) -> Iterator[Problem]:
    """Its own windows and those of config.toml may leave no time, though each of them alone does."""
    now, everywhere = datetime.now(UTC), settings.blackout
    try:
        apart = [blackout(schedule.blackout, schedule.timezone), blackout(everywhere.windows, everywhere.timezone)]
        for one in apart:
            one.check(now)
    except ValueError:
        return  # told already
    try:
        Blackout(tuple(window for one in apart for window in one.windows)).check(now)
    except ValueError as error:
        yield tell(("blackout",), "HG125", f"with [blackout] of config.toml, {error}")


def _check_tier(file: MappingFile, settings: Settings) -> Iterator[Problem]:
    tier = file.mapping.cohort.refresh.tier
    if tier is not None and tier not in settings.schedules:
        fix = suggest(tier, settings.schedules, "Configured") or f"Add [schedules.{tier}] to config.toml."
        message = f"there is no schedule `{tier}`"
        yield file.document.problem(("cohort", "refresh", "tier"), "HG140", message, fix)


def _check_names(sync: Sync, known: set[str], settings: Settings, tell: Tell) -> Iterator[Problem]:
    schedule = sync.schedule
    if schedule is None:
        return
    if schedule.after is not None and schedule.after not in known:
        fix = suggest(schedule.after, known - {sync.name}, "Syncs")
        yield tell(("after",), "HG140", f"there is no sync `{schedule.after}`", fix)
    webhook = schedule.dbt.webhook if schedule.dbt is not None else None
    if webhook is not None and webhook not in settings.webhooks:
        fix = suggest(webhook, settings.webhooks, "Configured") or f"Add [webhooks.{webhook}] to config.toml."
        yield tell(("dbt", "webhook"), "HG140", f"there is no webhook `{webhook}`", fix)


def _check_circles(files: Sequence[MappingFile]) -> Iterator[Problem]:
    """Syncs that would each run after the other, for ever."""
    after = {
        sync.name: sync.schedule.after
        for file in files
        for sync in file.mapping.syncs
        if sync.schedule is not None and sync.schedule.after is not None
    }
    for file in files:
        for index, sync in enumerate(file.mapping.syncs):
            circle = _circle(sync.name, after)
            if circle:
                message = f"a circle that would never end: {' after '.join(circle)}"
                fix = "Give one of them a time of its own."
                yield file.document.problem(("syncs", index, "schedule", "after"), "HG141", message, fix)


def _circle(name: str, after: Mapping[str, str]) -> list[str]:
    """The syncs from this one back to itself; none where it does not wait for itself."""
    way = [name]
    while (before := after.get(way[-1])) is not None:
        if before == name:
            return [*way, name]
        if before in way:
            return []
        way.append(before)
    return []
