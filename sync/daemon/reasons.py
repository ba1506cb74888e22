"""Everything that asks for runs besides the clock, put together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from sync.daemon.asking import Asking
from sync.daemon.chores import Chore, guarded
from sync.daemon.clock import Clock
from sync.daemon.dbt import DbtRuns
from sync.daemon.following import Following
from sync.daemon.moves import Moves
from sync.state.base import State

__all__ = ["Reasons"]


class Reasons:
    """Other syncs' runs, dbt's, and changes of sources. `root` is the folder that paths in mappings start from."""

    def __init__(self, state: State, clock: Clock, root: Path, stop: threading.Event) -> None:
        asking = Asking(state, clock)
        self._following, self._dbt, self._moves = Following(asking), DbtRuns(asking, root), Moves(asking, stop)

    def chores(self) -> list[Chore]:
        """What a daemon looks at now and then."""
        return [
            Chore("looking for runs to follow", 2, self._following.look),
            Chore("looking for dbt runs", 2, self._dbt.look),
            Chore("asking whether sources changed", 1, self._moves.keep_looking),
        ]

    def begin(self) -> None:
        """Look at what is near before anything runs: what ends from now on was not there before."""
        self._each(self._following.look, self._dbt.look)

    def look(self) -> None:
        """Look at everything once, now."""
        self._each(self._following.look, self._dbt.look, self._moves.look)

    def _each(self, *looks: Callable[[], None]) -> None:
        for look in looks:
            guarded("looking for reasons to run", look)
