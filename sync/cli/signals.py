"""First signal: finish what is in flight and stop. Second signal: quit at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

__all__ = ["draining"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def draining(tell: Callable[[str], None]) -> Iterator[threading.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process with status 1.

    What was in flight then is settled by the next run. Outside the main thread nothing is installed.

    A thread hears the signals. A handler would run in the middle of whatever the main thread does: it could not
    print while the main thread prints, nor take a lock that it holds, nor run at all during a long query.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    listener = threading.Thread(target=_listen, args=(reader, stop, tell), name="signals", daemon=True)
    listener.start()
    before_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _heard) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before_fd)
        os.close(writer)
        listener.join()
        os.close(reader)


def _heard(number: int, frame: FrameType | None) -> None:
    """Python writes the signal's number to the pipe only where a handler is installed; this one does nothing."""


def _listen(reader: int, stop: threading.Event, tell: Callable[[str], None]) -> None:
    asked = False
    while numbers := os.read(reader, 64):
        for _ in filter(_SIGNALS.__contains__, numbers):
            if asked:
                os._exit(1)
            asked = True
            stop.set()
            with suppress(OSError, ValueError):  # nobody reads our words any more
                tell("stopping: batches in flight are finished, the rest is kept (signal again to quit at once)")
