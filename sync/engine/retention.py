"""What of a sync is deleted when it is old: rows of the ledger, members of earlier generations, plans, copies.

It is done once a day under the sync's lease: at the end of a run, whatever became of it, and by a daemon for syncs
that do not run. Rows go first: a file that no row names is nobody's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from sync.engine.job import EngineSettings, LogTarget
from sync.engine.kept import tables
from sync.engine.lease import LeaseKeeper
from sync.errors import StateError
from sync.faultpoints import reached
from sync.state import mark
from sync.state.base import State, StateReader
from sync.state.log_mark import NOTE, LogMark
from sync.state.members import collect_orphans, folder_of
from sync.state.nouns import LIVE_PLANS, Expiry

__all__ = ["EVERY", "due", "prune", "prune_when_due"]

EVERY = 86400.0
"""Seconds between two times that a sync is looked through."""
_LONG = 30 * 86400.0
_MARK = "pruned"
_ALL = 1_000_000_000
_JUST_WRITTEN = 3600.0  # a file so young may be of somebody who has yet to name it


def due(state: StateReader, sync: str) -> bool:
    """Was a sync last looked through a day ago or more."""
    return abs(state.now() - _pruned(state, sync)) >= EVERY


def prune_when_due(
    state: State, settings: EngineSettings, keeper: LeaseKeeper, log: LogTarget | None
) -> dict[str, int]:
    """`prune`, where that is due.

    After a month in which nothing was, the next day is waited for: the system's clock may be wrong.
    """
    sync = keeper.lease.sync
    if not due(state, sync):
        return {}
    now, last = state.now(), _pruned(state, sync)
    if last and now - last > _LONG:
        state.remember(keeper.lease, _MARK, repr(now))
        return {}
    return prune(state, settings, keeper, log)


def _pruned(state: StateReader, sync: str) -> float:
    return float(state.note(sync, _MARK) or 0.0)


def prune(state: State, settings: EngineSettings, keeper: LeaseKeeper, log: LogTarget | None) -> dict[str, int]:
    """Delete what is older than the settings say; returns how much of each kind.

    `log` is where the sync is logged to now: runs that are not there yet stay. Raises `Fenced` where the lease was
    lost meanwhile, and `StateError` where the disk does not let it.
    """
    sync, now, keep = keeper.lease.sync, state.now(), settings.retention
    expiry = Expiry(
        unchanged=now - keep.unchanged,
        runs=now - keep.runs,
        generations=now - keep.members,
        needed=frozenset({mark.marked(settings.folder, sync) or ""}),
        from_run=_not_logged(state, sync, log),
    )
    gone: dict[str, int] = {}
    again = True
    while again:
        some = state.prune(keeper.lease, expiry)
        gone = {kind: gone.get(kind, 0) + count for kind, count in some.items()}
        again = bool(some["runs"] or some["plans"])
        reached("retention.pruned")
    gone["files"] = _files(state, settings, sync, now - keep.plans)
    if gone["generations"]:
        _sweep_places(state, settings, sync)
    state.remember(keeper.lease, _MARK, repr(now))
    return gone


def _not_logged(state: StateReader, sync: str, log: LogTarget | None) -> str:
    """The newest run that the sync log has: it and what came after it are needed to go on."""
    if log is None:
        return ""
    place = LogMark.read(state.note(sync, NOTE)).place(log.source, log.schema)
    return place.run if state.run(place.run) is not None else ""


def _files(state: StateReader, settings: EngineSettings, sync: str, before: float) -> int:
    """Delete files that nobody needs any more; returns how many."""
    try:
        return (
            _plan_files(state, settings, sync, before)
            + _copies(state, settings, sync, before)
            + collect_orphans(folder_of(settings.folder, sync), state.generations(sync))
        )
    except OSError as error:
        raise StateError(
            f"old files of '{sync}' could not be deleted: {(error.strerror or 'the disk failed').lower()}",
            code="HG341",
            fix=f"check the permissions of {settings.folder}, and its disk",
        ) from error


def _plan_files(state: StateReader, settings: EngineSettings, sync: str, before: float) -> int:
    """Files of plans that are over and old: not of those that may be delivered, nor of an open run."""
    open_run = state.open_run(sync)
    needed = {
        plan.file
        for plan in state.plans(sync, limit=_ALL)
        if plan.created_at >= before
        or (plan.status in LIVE_PLANS and plan.expires_at >= before)
        or (open_run is not None and open_run.plan == plan.id)
    }
    return _remove(
        path
        for path in (settings.folder / "plans" / sync).glob("*.parquet")
        if str(path.relative_to(settings.folder)) not in needed
    )


def _copies(state: StateReader, settings: EngineSettings, sync: str, before: float) -> int:
    """Copies of records that were rejected, by runs of which no record is rejected or uncertain any more."""
    needed = {run for _, run, *_ in state.dirty(sync)} | {record.run for record in state.rejected(sync)}
    found = (p for p in (settings.folder / "rejected" / sync).glob("*.parquet") if p.stem not in needed)
    return _remove(path for path in found if _ended(state, path.stem) < before)


def _ended(state: StateReader, run: str) -> float:
    """When a run ended; 0 where nobody knows it any more, and endless where it has not."""
    known = state.run(run)
    if known is None:
        return 0.0
    return known.finished_at if known.finished_at is not None else float("inf")


def _remove(paths: Iterable[Path]) -> int:
    gone = 0
    for path in list(paths):
        if time.time() - path.stat().st_mtime > _JUST_WRITTEN:
            path.unlink(missing_ok=True)
            gone += 1
    return gone


def _sweep_places(state: StateReader, settings: EngineSettings, sync: str) -> None:
    """The same in each warehouse that keeps members of the sync."""
    generations = state.generations(sync)
    known = {name for one in generations for name in one.digests}
    for place in sorted({one.place for one in generations if one.place}):
        with tables(settings, sync, place) as there:
            there.sweep(known, generations[-1].number)
