"""The system's clock as a process of the command sees it, set back and forth by a test while the process runs.

Only what people and time servers can set is moved: Python's `time.time`, the `datetime` of daemon and APScheduler,
and SQLite's `julianday`. The monotonic and boot clocks stay, as they do in the kernel.
"""

from __future__ import annotations

import datetime as _datetime
import time
from pathlib import Path
from typing import Any

__all__ = ["VARIABLE", "WallClock", "install"]

VARIABLE = "CRASH_CLOCK"
DAY = 86400.0


class WallClock:
    """A file with the seconds by which the clock is off."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.jump(0.0)

    def jump(self, seconds: float) -> None:
        """Set it so far from the true time."""
        draft = self.file.with_suffix(".new")
        draft.write_text(str(seconds))
        draft.replace(self.file)

    @property
    def environment(self) -> dict[str, str]:
        """What tells a process to look here."""
        return {VARIABLE: str(self.file)}


def install(file: str) -> None:
    """Let this process see the clock in the file."""
    from apscheduler.schedulers import base

    from sync.daemon import clock as daemon
    from sync.state.database import Database

    true, path = time.time, Path(file)

    def now() -> float:
        return true() + float(path.read_text())

    class Stepped(_datetime.datetime):
        @classmethod
        def now(cls, tz: _datetime.tzinfo | None = None) -> Any:
            return _datetime.datetime.fromtimestamp(now(), tz)

    def connected(database: Database, connection: Any, record: Any) -> None:
        usual(database, connection, record)
        connection.create_function("julianday", 1, lambda _: 2440587.5 + now() / DAY)

    usual = Database._connected
    time.time = now
    daemon.datetime = base.datetime = Stepped  # type: ignore[attr-defined, misc]
    Database._connected = connected  # type: ignore[method-assign]
