"""The watchdog: a run without a sign of life is told to end, and where it cannot, the process ends itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from sync.daemon.chores import guarded
from sync.daemon.life import Life
from sync.state.base import State
from sync.state.nouns import Event
from sync.state.stuck_mark import NOTE, StuckMark

__all__ = ["EXIT_STUCK", "Watchdog"]

log = structlog.get_logger("headgate.daemon")

EXIT_STUCK = 70
"""The exit code of a daemon with a run that cannot be ended (EX_SOFTWARE of sysexits.h)."""


class Watchdog:
    """Looks after the runs of one daemon. `after` and `grace` are in seconds.

    To end the process at once is safe: every write is fenced, and whoever starts next takes the runs up again.
    """

    def __init__(self, state: State, after: float, grace: float, quit: Callable[[int], object] = os._exit) -> None:
        self.after, self.grace = after, grace
        self._state, self._quit = state, quit

    def turn(self, lives: Mapping[str, Life]) -> None:
        """Look at the runs under way, by sync."""
        for name, life in lives.items():
            if life.stuck and life.silent > self.grace:
                log.critical("stuck_for_good", sync=name, step=life.step, exit_code=EXIT_STUCK)
                self._quit(EXIT_STUCK)
            elif not life.stuck and life.silent > self.after:
                self._end(name, life)

    def _end(self, name: str, life: Life) -> None:
        silent = round(life.silent, 1)
        log.error("stuck", sync=name, step=life.step, silent_s=silent, what="the run is told to end")
        guarded("telling of a stuck run", partial(self._tell, name, life, silent))
        life.stuck = True
        life.stop.set()
        life.progress(name, 0, 0)  # its time to end begins now

    def _tell(self, name: str, life: Life, silent: float) -> None:
        """For health and the audit log: under the run's own lease, so that it is true of this run only."""
        lease = self._state.lease(name)
        if lease is not None:
            mark = StuckMark(lease.epoch, self._state.now() - silent, life.step)
            self._state.remember(lease, NOTE, mark.text())
            self._state.record(Event("scheduler", "run.stuck", name, {"step": life.step, "silent_s": silent}))
