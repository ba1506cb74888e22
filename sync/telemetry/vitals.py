"""Is the daemon alive, and is it ready: for probes of a service manager, a container or a load balancer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from sync.engine.job import SyncJob
from sync.errors import StateError
from sync.state.ledger import Ledger

__all__ = ["Check", "Pulse", "Ticking", "Vitals", "answer"]

TURNS_WITHIN = 90.0
"""Seconds in which the main loop turns, or the daemon is dead: longer than it may wait for a locked ledger."""
TICKS_WITHIN = 60.0
"""Seconds by which a tick may be late."""
LOOKS_WITHIN = 120.0
"""Seconds in which it is looked what people are to be told of."""
_KEPT_S = 2.0
"""Seconds for which it is not tried again whether the ledger can be written."""
_SLOW_S = 5.0
"""Seconds within which it is written, or it counts as one that cannot be."""


class Ticking(Protocol):
    """What is asked of the daemon's clock."""

    ticked: float
    refused: str

    @property
    def ticking(self) -> bool:
        """Does it ask for runs when they are due."""

    @property
    def jobs(self) -> Mapping[str, SyncJob]:
        """The syncs in force."""

    @property
    def late(self) -> float:
        """For how many seconds a tick has been due."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at. `why` says what is wrong."""

    check: str
    ok: bool
    why: str = ""


class Pulse:
    """Beats as long as something goes round: a daemon's main loop, say."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def beat(self) -> None:
        """It goes round."""
        self._last = time.monotonic()

    @property
    def silent(self) -> float:
        """Seconds since it last did."""
        return time.monotonic() - self._last


class Vitals:
    """The vital signs of one daemon; any thread may ask.

    `stopping` says whether it drains: it is alive then, whatever its main loop does, and not ready. `looking`
    beats whenever it was looked what people are to be told of.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Ticking,
        pulse: Pulse,
        stopping: Callable[[], bool] = lambda: False,
        looking: Pulse | None = None,
    ) -> None:
        self.clock, self.pulse, self.looking = clock, pulse, looking or Pulse()
        self._ledger, self._stopping = ledger, stopping
        self._lock = threading.Lock()
        self._tried = -math.inf  # when it was last tried whether the ledger can be written
        self._since = math.inf  # since when it is being tried
        self._written = Check("ledger", ok=False, why="it is being tried for the first time")

    def alive(self) -> list[Check]:
        """Is there any sense in letting the process go on."""
        return [self._loop()]

    def ready(self) -> list[Check]:
        """Does it do what it is there for, with the files as they are now."""
        draining = Check("draining", ok=not self._stopping(), why="it drains and ends" if self._stopping() else "")
        return [draining, self._loop(), self._clock(), self._alerts(), self._files(), self._writes()]

    def working(self) -> bool:
        """Do runs begin, and are people told of them: what the dead man's switch stands for."""
        return self.clock.ticking and all(one.ok for one in (self._alerts(), self._writes()))

    def _loop(self) -> Check:
        silent = self.pulse.silent
        ok = silent <= TURNS_WITHIN or self._stopping()
        return Check("loop", ok, "" if ok else f"the main loop has not turned for {silent:.0f}s")

    def _clock(self) -> Check:
        late = self.clock.late
        ok = late <= TICKS_WITHIN
        return Check("clock", ok, "" if ok else f"a tick has been due for {late:.0f}s")

    def _alerts(self) -> Check:
        silent = self.looking.silent
        ok = silent <= LOOKS_WITHIN or self._stopping()
        return Check("alerts", ok, "" if ok else f"nobody has looked for {silent:.0f}s what people are to be told")

    def _files(self) -> Check:
        code = self.clock.refused
        why = f"changed files are refused ({code}) and older ones are in force: `headgate validate` says why"
        return Check("files", not code, why if code else "")

    def _writes(self) -> Check:
        """Nobody waits for a write that somebody else tries: whoever asks meanwhile is given the last answer."""
        if self._lock.acquire(blocking=False):
            try:
                if time.monotonic() - self._tried >= _KEPT_S:
                    self._since = time.monotonic()
                    self._written = self._write()
                    self._tried = time.monotonic()
            finally:
                self._since = math.inf
                self._lock.release()
        elif (lasts := time.monotonic() - self._since) > _SLOW_S:
            return Check("ledger", ok=False, why=f"it has been written for {lasts:.0f}s")
        return self._written

    def _write(self) -> Check:
        try:
            self._ledger.write_nothing()
        except StateError as error:
            return Check("ledger", ok=False, why=f"it cannot be written ({error.code})")
        return Check("ledger", ok=True)


def answer(checks: list[Check]) -> tuple[int, dict[str, Any]]:
    """The HTTP status and the JSON document that say so: 200 where all is well, else 503."""
    ok = all(check.ok for check in checks)
    return 200 if ok else 503, {"status": "ok" if ok else "failing", "checks": [asdict(check) for check in checks]}
