"""The sync log: what became of each run and each record, in the warehouse, for people to query.

It is written when a run is over, and nothing depends on it: what cannot be written now is written after the next
run, from the ledger and the plan files. How far it is, and whom it has yet to lose, is a note of the ledger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from sync.engine.job import EngineSettings, LogTarget, SyncJob
from sync.engine.lease import LeaseKeeper
from sync.engine.logged import logged, run_row
from sync.engine.observe import interrupted
from sync.engine.sql import literal
from sync.errors import HeadgateError, SourceError
from sync.faultpoints import reached
from sync.sources.base import Source
from sync.sources.log_tables import LogTables
from sync.state.base import State
from sync.state.erasures import quoting
from sync.state.log_mark import NOTE, LogErasure, LogMark, LogPlace
from sync.state.nouns import Lease, Run
from sync.state.parquet import source

if TYPE_CHECKING:
    import duckdb

__all__ = ["erase", "lose", "quotes", "write"]

_PATIENCE = 300.0  # seconds after which no further run is begun: the rest is left to the next run
_AT_ONCE = 200  # runs without records that are written together
_LIMIT = 1800.0  # seconds after which the warehouse is interrupted: the next run of the sync must not wait for it
_DAY = 86400.0

Sources = Mapping[str, Callable[[], Source]]


def write(
    state: State, settings: EngineSettings, job: SyncJob, keeper: LeaseKeeper, stop: threading.Event | None = None
) -> str:
    """Bring the sync's log up to date; returns what a person should know of it, or nothing.

    A failure is no failure of the run: it is remembered until the log is up to date again.
    """
    mark = LogMark.read(state.note(job.name, NOTE))
    if (job.log is None and not mark.erasing) or (stop is not None and stop.is_set()):
        return ""
    with _kept(state, keeper) as kept:
        _erase(state, job.sources, keeper, mark, stop, known=True)
        if job.log is not None:
            _Writing(state, settings, job, job.log, keeper, stop).catch_up()
    return f"the sync log is not up to date, and is after the next run: {kept.trouble}" if kept.trouble else ""


def lose(state: State, lease: Lease, erasure: LogErasure) -> None:
    """Keep in mind that the log of the lease's sync has to lose these rows, wherever it is."""
    mark = LogMark.read(state.note(lease.sync, NOTE))
    if mark.places and not erasure.empty:
        state.remember(lease, NOTE, mark.with_erasure(erasure).text())


def erase(state: State, sources: Sources, keeper: LeaseKeeper) -> str:
    """Delete what the log of the keeper's sync has to lose; returns why it cannot, or nothing: then a run does."""
    mark = LogMark.read(state.note(keeper.lease.sync, NOTE))
    if not mark.erasing:
        return ""
    with _kept(state, keeper) as kept:
        _erase(state, sources, keeper, mark, None, known=False)
    return kept.trouble


def quotes(
    connection: duckdb.DuckDBPyConnection, settings: EngineSettings, sync: str, words: Iterable[str]
) -> set[tuple[str, str]]:
    """(run, member key) of a sync's records whose reason has one of these words in it."""
    pattern, found = quoting(words), set()
    for path in sorted((settings.folder / "rejected" / sync).glob("*.parquet")) if pattern else ():
        query = (
            f"SELECT key::VARCHAR FROM {source(connection, path)} "
            f"WHERE key IS NOT NULL AND regexp_matches(reason, {literal(pattern)}, 'i')"
        )
        found |= {(path.stem, str(key)) for (key,) in connection.execute(query).fetchall()}
    return found


# --- whether it is up to date ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Kept:
    trouble: str = ""


@contextmanager
def _kept(state: State, keeper: LeaseKeeper) -> Iterator[_Kept]:
    """What goes wrong inside is remembered, and no more; what goes well is, where it went wrong before."""
    kept = _Kept()
    try:
        yield kept
    except HeadgateError as error:
        kept.trouble = f"{error.message} [{error.code}]"
    except Exception as error:  # noqa: BLE001 - whatever a driver does: the records are delivered
        kept.trouble = f"it failed with {type(error).__name__} [HG230]"
    with suppress(HeadgateError):  # a lease that was lost meanwhile: whoever has it tries again
        mark = LogMark.read(state.note(keeper.lease.sync, NOTE))
        if kept.trouble:
            places = tuple(replace(place, made=False) for place in mark.places)  # they may be what is wrong
            _remember(state, keeper, LogMark(places, kept.trouble, mark.since or state.now()))
        elif mark.failed:
            _remember(state, keeper, replace(mark, failed="", since=0.0))


def _remember(state: State, keeper: LeaseKeeper, mark: LogMark) -> None:
    state.remember(keeper.lease, NOTE, mark.text())


# --- writing and erasing --------------------------------------------------------------------------------------


@contextmanager
def _tables(sources: Sources, name: str, schema: str, stop: threading.Event | None) -> Iterator[LogTables]:
    """The log's tables, for as long as one pass may take. Raises `SourceError`."""
    if name not in sources:
        raise SourceError(
            f"the sync log is in source '{name}', which config.toml has no more",
            code="HG230",
            fix=f"put [sources.{name}] back until the log there is done with",
        )
    warehouse = sources[name]()
    with interrupted(warehouse, stop, _LIMIT), warehouse.session("writing the sync log") as session:
        yield LogTables(session, schema)


def _erase(
    state: State,
    sources: Sources,
    keeper: LeaseKeeper,
    mark: LogMark,
    stop: threading.Event | None,
    *,
    known: bool,
) -> None:
    """Delete what each place has to lose; those `known` to config.toml, else all, which raises for the others.

    Of a place that is gone `doctor` warns, and no run: nobody can mend it there.
    """
    for place in mark.places:
        if not place.erasures or (known and place.source not in sources):
            continue
        with _tables(sources, place.source, place.schema, stop) as tables:
            for one in place.erasures:
                tables.erase(keeper.lease.sync, one.keys, one.salt, one.people, one.quoted)
        reached("sync_log.erased")
        mark = mark.with_place(replace(place, erasures=()))
        _remember(state, keeper, mark)


@dataclass(slots=True)
class _Writing:
    """One pass over the runs that the log does not have."""

    state: State
    settings: EngineSettings
    job: SyncJob
    target: LogTarget
    keeper: LeaseKeeper
    stop: threading.Event | None

    def catch_up(self) -> None:
        """Write them, oldest first, until all are there or the time is up."""
        place, now = self._place, self.state.now()
        due = self.target.keep is not None and now - place.swept > _DAY
        pieces = list(_pieces(self._pending(place.run), now - (self.target.keep or now)))
        if not pieces and not due:
            return
        begun = time.monotonic()
        with _tables(self.job.sources, self.target.source, self.target.schema, self.stop) as tables:
            if not place.made:
                tables.make()
                self._reached(made=True)  # before anything is written: from now on it may have people to lose
            for piece in pieces:
                if time.monotonic() - begun > _PATIENCE or (self.stop is not None and self.stop.is_set()):
                    return
                self.keeper.ensure(1.0)
                self._write(tables, piece)
                reached("sync_log.written")
                self._reached(run=piece[-1].id)
            if due:
                tables.sweep(self.job.name, now - (self.target.keep or 0.0))
                self._reached(swept=now)

    @property
    def _place(self) -> LogPlace:
        mark = LogMark.read(self.state.note(self.job.name, NOTE))
        return mark.place(self.target.source, self.target.schema)

    def _reached(self, **changed: Any) -> None:
        mark = LogMark.read(self.state.note(self.job.name, NOTE))
        place = mark.place(self.target.source, self.target.schema)
        _remember(self.state, self.keeper, mark.with_place(replace(place, **changed)))

    def _pending(self, last: str) -> list[Run]:
        """Runs after the last that the log has, oldest first, up to one that is not over."""
        limit, found = 32, self.state.runs(self.job.name, limit=32)
        while len(found) == limit and last not in {run.id for run in found}:
            limit *= 8
            found = self.state.runs(self.job.name, limit=limit)
        newer = list(takewhile(lambda run: run.id != last, found))
        return list(takewhile(lambda run: run.finished_at is not None, reversed(newer)))

    def _write(self, tables: LogTables, piece: Sequence[Run]) -> None:
        first = piece[0]
        if first.ops:
            with logged(self.state, self.settings, self.job, first) as one:
                tables.write([one.row], one.records)
        else:
            tables.write([run_row(self.state, self.job, run) for run in piece])


def _pieces(runs: Iterable[Run], since: float) -> Iterator[list[Run]]:
    """What is written in one transaction: a run that sent something, or some that did not; none of older ones."""
    several: list[Run] = []
    for run in runs:
        if (run.finished_at or 0.0) < since:
            continue
        if several and (run.ops or len(several) == _AT_ONCE):
            yield several
            several = []
        if run.ops:
            yield [run]
        else:
            several.append(run)
    if several:
        yield several
