"""What a daemon does now and then beside runs: look at the files, write checkpoints, tell people."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import structlog

from sync.errors import HeadgateError

__all__ = ["Chore", "Chores"]

log = structlog.get_logger("headgate.daemon")


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to `do` again after `every` seconds. It must be short; what takes long is done `aside`."""

    name: str
    every: float
    do: Callable[[], object]
    aside: bool = False  # in a thread of its own, and not again while it still is at work


class Chores:
    """The chores of one daemon, done in its main thread. None that fails ends the daemon or another chore."""

    def __init__(self, chores: Sequence[Chore]) -> None:
        self._chores = chores
        self._done = [time.monotonic()] * len(chores)
        self._aside: dict[int, threading.Thread] = {}

    def turn(self) -> None:
        """Do what is due."""
        for place, chore in enumerate(self._chores):
            if time.monotonic() - self._done[place] >= chore.every:
                self._done[place] = time.monotonic()
                if chore.aside:
                    self._begin(place, chore)
                else:
                    guarded(chore.name, chore.do)

    def _begin(self, place: int, chore: Chore) -> None:
        before = self._aside.get(place)
        if before is None or not before.is_alive():
            what = (chore.name, chore.do)
            self._aside[place] = threading.Thread(target=guarded, args=what, name=chore.name, daemon=True)
            self._aside[place].start()


def guarded(what: str, do: Callable[[], object], *, but: type[Exception] | tuple[()] = ()) -> bool:
    """Do it, and keep going where it fails: the log says so, and the answer is False. `but` is raised."""
    try:
        do()
    except but:
        raise
    except HeadgateError as error:
        log.error("kept_going", what=what, code=error.code, why=error.message)
    except Exception as error:  # noqa: BLE001 - one chore's bug must not end the runs
        log.error("kept_going", what=what, code="HG900", why=f"internal error: {type(error).__name__}")
    else:
        return True
    return False
