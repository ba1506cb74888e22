"""What a person sees while a run works: bars on a terminal, a line every few seconds elsewhere; on stderr."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from sync.cli import output
from sync.engine.report import Observer

__all__ = ["LineObserver", "observing"]

_QUIET_S = 5.0
_PHASES = {
    "refresh": "reading the cohort",
    "diff": "comparing with the members",
    "guard": "judging the plan",
    "deliver": "delivering",
    "record": "recording",
}


class LineObserver:
    """Plain lines: every note, and where the work stands at most once in `quiet` seconds."""

    def __init__(
        self,
        write: Callable[[str], None],
        *,
        quiet: float = _QUIET_S,
        verbose: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write, self._quiet, self._verbose, self._clock = write, quiet, verbose, clock
        self._last, self._lock = clock(), threading.Lock()

    def phase(self, sync: str, phase: str, detail: str = "") -> None:
        """Say it when asked to say more, or when nothing was said for a while."""
        self._now_and_then(_sentence(sync, phase, detail), always=self._verbose)

    def progress(self, sync: str, done: int, total: int) -> None:
        """Say it when nothing was said for a while."""
        share = f" ({100 * done // total} %)" if total else ""
        self._now_and_then(f"{sync}: {done:,} of {total:,} records{share}", always=False)

    def note(self, sync: str, message: str) -> None:
        """Say it."""
        self._now_and_then(f"{sync}: {message}", always=True)

    def _now_and_then(self, line: str, *, always: bool) -> None:
        with self._lock:
            now = self._clock()
            if not always and now - self._last < self._quiet:
                return
            self._last = now
        self._write(line)


class BarObserver:
    """A bar for each sync, and notes above it."""

    def __init__(self, progress: Any) -> None:
        self._progress, self._tasks, self._lock = progress, dict[str, Any](), threading.Lock()

    def phase(self, sync: str, phase: str, detail: str = "") -> None:
        """Name the phase beside the bar."""
        words = _PHASES.get(phase, phase)
        self._progress.update(self._task(sync), phase=f"{words} {detail}".rstrip())

    def progress(self, sync: str, done: int, total: int) -> None:
        """Move the bar."""
        self._progress.update(self._task(sync), completed=done, total=total)

    def note(self, sync: str, message: str) -> None:
        """Print it above the bars."""
        self._progress.console.print(f"{sync}: {message}", markup=False)

    def _task(self, sync: str) -> Any:
        with self._lock:
            if sync not in self._tasks:
                self._tasks[sync] = self._progress.add_task(sync, total=None, phase="")
            return self._tasks[sync]


@contextmanager
def observing(*, verbose: bool = False) -> Iterator[Observer]:
    """The observer that suits stderr."""
    if not output.fancy(sys.stderr):
        yield LineObserver(lambda line: click.echo(line, err=True), verbose=verbose)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[phase]}", markup=False),
    )
    with Progress(*columns, console=output.console(err=True), transient=True) as progress:
        yield BarObserver(progress)


def _sentence(sync: str, phase: str, detail: str) -> str:
    return f"{sync}: {_PHASES.get(phase, phase)}" + (f", {detail}" if detail else "")
