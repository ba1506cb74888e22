"""First signal: finish what is in flight and stop. Second signal: quit at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["draining"]


@contextmanager
def draining(tell: Callable[[str], None]) -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process with status 1.

    What was in flight then is settled by the next run. Outside the main thread nothing is installed.
    """
    stop = threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's signature
        if stop.is_set():
            os._exit(1)
        stop.set()
        tell("stopping: batches in flight are finished, the rest is kept (signal again to quit at once)")

    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
