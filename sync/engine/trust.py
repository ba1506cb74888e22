"""Whether the state may be sent on: no older ledger, an open run that can be finished, a disk with room."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from sync.engine.batches import key_of
from sync.engine.job import EngineSettings
from sync.engine.kept import verify
from sync.engine.plan import verify_file
from sync.errors import Corrupt, HeadgateError, StateError
from sync.state import mark
from sync.state.base import StateReader
from sync.state.members import folder_of
from sync.state.nouns import DECIDABLE_PLANS, Generation, Plan, Run

__all__ = ["ROOM", "damages", "refuse_little_room", "refuse_older_ledger", "room_for", "whole"]

ROOM = 16 << 20
"""Bytes that the ledger, its log and the audit log's checkpoints may need during a run."""


def refuse_older_ledger(state: StateReader, settings: EngineSettings, sync: str) -> None:
    """Raise `Corrupt` (HG304) where a run sent something that the ledger does not know."""
    run = mark.marked(settings.folder, sync)
    if run is None or state.run(run) is not None:
        return
    raise Corrupt(
        f"the ledger is older than what was sent: it does not know run {run} of '{sync}'; "
        "nothing is sent on a doubt",
        code="HG304",
        fix="bring the newer ledger.db back, with its ledger.db-wal; or, if it is lost, start again: "
        + _reset(sync, state.generation(sync)),
    )


def whole(state: StateReader, settings: EngineSettings, plan: Plan, run: Run) -> Path:
    """The plan file of a run that was interrupted, where run and members are such that it can be finished.

    Raises `Corrupt` before anything is sent of it.
    """
    generation = state.generation(run.sync)
    verify(settings, generation)
    try:
        _refuse_other_batches(state, run)
        return verify_file(settings, plan)
    except Corrupt as error:
        raise Corrupt(
            f"run {run.id} was interrupted while it was sending and cannot be finished: {error.message}",
            fix="restore the state folder from a backup, or start again: " + _reset(run.sync, generation),
        ) from error


def _refuse_other_batches(state: StateReader, run: Run) -> None:
    """A batch's idempotency key is a digest of its rows' numbers: a bit that turned in either shows."""
    for batch in state.batches(run.id):
        if batch.id != key_of(run.id, batch.first, batch.last):
            raise Corrupt(f"batch {batch.number} is not what the ledger recorded at first")


def damages(state: StateReader, settings: EngineSettings, sync: str) -> Iterator[HeadgateError]:
    """What of a sync's state is not what the ledger recorded: the current members and the plans still needed."""
    checks: list[Callable[[], object]] = [
        partial(refuse_older_ledger, state, settings, sync),
        lambda: verify(settings, state.generation(sync)),
    ]
    run = state.open_run(sync)
    plan = state.plan(run.plan) if run is not None and run.plan is not None else None
    if run is not None and plan is not None:
        checks.append(partial(whole, state, settings, plan, run))
    waiting = state.plans(sync, *DECIDABLE_PLANS)
    checks += [partial(verify_file, settings, one) for one in waiting if plan is None or one.id != plan.id]
    for check in checks:
        try:
            check()
        except HeadgateError as error:
            yield error


def _reset(sync: str, generation: Generation) -> str:
    return f"headgate state reset {sync} --members {generation.members} --reason ..."


def room_for(settings: EngineSettings, file: Path, generation: Generation) -> int:
    """Bytes that a run may write: copies of the plan (members, rejected records) and the members written anew."""
    folder = folder_of(settings.folder, generation.sync)
    files = [folder / name for name in (generation.base, generation.delta) if name is not None]
    return 2 * file.stat().st_size + sum(f.stat().st_size for f in files if f.is_file()) + ROOM


def refuse_little_room(settings: EngineSettings, file: Path, generation: Generation) -> None:
    """Raise `StateError` (HG344) where the disk could fill up in the middle of the run."""
    needed, free = room_for(settings, file, generation), shutil.disk_usage(settings.folder).free
    if free < needed:
        raise StateError(
            f"the state folder's disk has {_mib(free)} free and a run of this plan may need {_mib(needed)}; "
            "nothing was sent",
            code="HG344",
            fix=f"free space on the disk of {settings.folder}, then run again",
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB"
