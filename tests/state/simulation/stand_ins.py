"""`threading`, `time`, `uuid` and futures as the engine sees them while a history runs, and how they get there.

Every module of the engine, and the ledger's leases, has its names replaced: a new module is found by itself.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import pkgutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import sync.engine
from sync.state import holder, leases
from tests.state.simulation.scheduler import Scheduler

__all__ = ["MODULES", "Event", "installed"]


class Event:
    """`threading.Event`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._set = False

    def set(self) -> None:
        self._set = True

    def is_set(self) -> bool:
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            self._scheduler.block(self.is_set, math.inf if timeout is None else timeout)
        return self._set


class Lock:
    """`threading.Lock`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            self._scheduler.block(lambda: not self._held)
        self._held = True

    def __exit__(self, *_: object) -> None:
        self._held = False


class Thread:
    """`threading.Thread`: one more of the process that starts it."""

    def __init__(
        self, scheduler: Scheduler, target: Callable[..., None], args: tuple[Any, ...] = (), **_: Any
    ) -> None:
        self._scheduler = scheduler
        self._target = functools.partial(target, *args)
        self._ended: Callable[[], bool] = lambda: True

    def start(self) -> None:
        self._ended = self._scheduler.spawn(self._scheduler.process, self._target)

    def join(self) -> None:
        while not self._ended():
            self._scheduler.block(self._ended)


class Future:
    """What a pool promises; the engine asks no more of it than whether it is done."""

    def __init__(self) -> None:
        self.done = False


class Pool:
    """`ThreadPoolExecutor`: as many at a time as there are workers, first come, first served."""

    def __init__(self, scheduler: Scheduler, workers: int) -> None:
        self._scheduler = scheduler
        self._idle = workers
        self._queue: list[Future] = []
        self._all: list[Future] = []

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        wait(self._scheduler, self._all)

    def submit(self, call: Callable[..., None], *arguments: Any) -> Future:
        future = Future()
        self._all.append(future)
        self._queue.append(future)

        def work() -> None:
            while not (self._idle and self._queue[0] is future):
                self._scheduler.block(lambda: self._idle > 0 and self._queue[0] is future)
            self._queue.pop(0)
            self._idle -= 1
            call(*arguments)
            self._idle += 1
            future.done = True

        self._scheduler.spawn(self._scheduler.process, work)
        return future


def wait(
    scheduler: Scheduler, futures: Sequence[Future] | set[Future], return_when: str = ""
) -> tuple[set[Future], set[Future]]:
    """`concurrent.futures.wait`."""
    enough = any if return_when == FIRST_COMPLETED else all

    def ready() -> bool:
        return enough(future.done for future in futures)

    while futures and not ready():
        scheduler.block(ready)
    done = {future for future in futures if future.done}
    return done, set(futures) - done


def _modules() -> list[ModuleType]:
    names = [f"sync.engine.{found.name}" for found in pkgutil.iter_modules(sync.engine.__path__)]
    return [*map(importlib.import_module, names), leases]


MODULES = _modules()


@contextlib.contextmanager
def installed(scheduler: Scheduler, others: dict[str, Any]) -> Iterator[None]:
    """Let the engine see the scheduler's threads and clock; `others` are more names that it is to see."""

    def clock() -> float:
        scheduler.pause(0.3)
        return scheduler.now

    threads = SimpleNamespace(
        Event=lambda: Event(scheduler),
        Lock=lambda: Lock(scheduler),
        Thread=lambda **given: Thread(scheduler, **given),
        local=threading.local,
    )
    names = SimpleNamespace(uuid4=lambda: uuid.UUID(int=scheduler.rng.getrandbits(128), version=4))
    instead: list[tuple[Any, Any]] = [
        (threading, threads),
        (time, SimpleNamespace(monotonic=clock, time=time.time)),  # how old a file is, the disk says
        (uuid, names),
        (holder.boot_clock, clock),
        (holder.me, lambda: scheduler.process.name),
        (ThreadPoolExecutor, lambda workers, **_: Pool(scheduler, workers)),
    ]
    with contextlib.ExitStack() as stack:
        for module in MODULES:
            for name, value in list(vars(module).items()):
                new = next((new for old, new in instead if value is old), None)
                if new is not None:
                    stack.enter_context(patch.object(module, name, new))
                elif name in others:
                    stack.enter_context(patch.object(module, name, others[name]))
        from sync.engine import delivery

        stack.enter_context(patch.object(delivery, "wait", lambda futures, **how: wait(scheduler, futures, **how)))
        yield
