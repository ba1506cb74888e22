"""A deterministic scheduler: processes of real threads, of which one runs at a time, and a clock of its own.

A thread gives way at every call of `pause` and `block`. There a seeded generator decides who goes on, whether time
passes, whether the process is stopped for a while, and whether it dies. A dead process's threads get `Crash` from
every call, so that nothing of it reaches the ledger or the network any more.
"""

from __future__ import annotations

import heapq
import math
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

__all__ = ["Crash", "Process", "Scheduler", "Stuck", "Trouble"]

_MOST_STEPS = 60_000
_TICK = 1e-6  # the least time that a wait takes: with floats, less may be none


class Crash(BaseException):
    """The process is gone."""


class Stuck(AssertionError):
    """Nobody can go on, or nobody comes to an end."""


@dataclass(frozen=True)
class Trouble:
    """How probable it is, at each step of a process, that something happens to it."""

    crash: float = 0.0
    stall: float = 0.0
    slow: float = 0.0
    stop: float = 0.0  # asked to end, as by SIGTERM
    stalls: tuple[float, ...] = (0.5, 3.0, 9.0, 11.0, 13.0, 21.0, 31.0, 45.0, 90.0, math.inf)
    """For how many seconds; those without an end last until the history wakes them."""


@dataclass(eq=False)
class Process:
    """A process of the machine under test. `mortal`: may something happen to it."""

    name: str
    mortal: bool = True
    dead: bool = False
    stalled_until: float = -math.inf
    on_stop: Callable[[], None] = lambda: None
    detectable: bool = True  # can others tell that it is gone

    def die(self) -> None:
        """From the next step on nothing of it happens."""
        self.dead = True


@dataclass(eq=False)
class _Task:
    """A thread, which waits for its turn; then for `until`, but no longer than to `wake`."""

    process: Process
    turn: threading.Lock = field(default_factory=threading.Lock)
    until: Callable[[], bool] | None = None
    wake: float = 0.0
    done: bool = False

    def __post_init__(self) -> None:
        self.turn.acquire()


@dataclass
class Scheduler:
    """Decides who goes on. The thread that makes it is its first task and must end it with `end`."""

    rng: random.Random
    trouble: Trouble
    now: float = 1000.0
    steps: int = 0
    crashes: int = 0
    stalls: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._local = threading.local()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        self._stuck = ""
        self.director = Process("director", mortal=False)
        self._director = _Task(self.director)
        self._tasks = [self._director]
        self._local.task = self._director

    # --- for everything that is simulated -----------------------------------------------------------------

    @property
    def process(self) -> Process:
        """Whose thread runs now."""
        process: Process = self._local.task.process
        return process

    @property
    def threads(self) -> threading.local:
        """What each thread keeps for itself."""
        return self._local

    def pause(self, weight: float = 1.0) -> None:
        """Give way; `weight` says how much likelier than elsewhere something happens here. Raises `Crash`."""
        task: _Task = self._local.task
        process = task.process
        if process.dead:
            raise Crash(process.name)
        if process.mortal:
            self._meddle(process, weight)
        task.until, task.wake = None, self.now
        self._switch(task)

    def block(self, until: Callable[[], bool] | None, seconds: float = math.inf) -> None:
        """Wait until something is so, or for so long at most. Raises `Crash`."""
        task: _Task = self._local.task
        if task.process.dead:
            raise Crash(task.process.name)
        task.until, task.wake = until, self.now + max(seconds, _TICK)
        self._switch(task)

    def at(self, when: float, happens: Callable[[], None]) -> None:
        """Let something happen at a time, whoever runs then."""
        heapq.heappush(self._events, (when, next(self._numbers), happens))

    @property
    def alone(self) -> bool:
        """Is there nobody left but the director."""
        return len(self._tasks) == 1

    def spawn(self, process: Process, body: Callable[[], None]) -> Callable[[], bool]:
        """Start a thread of a process; returns a function that says whether it ended."""
        task = _Task(process, wake=self.now)
        self._tasks.append(task)
        threading.Thread(target=self._live, args=(task, body), daemon=True).start()
        return lambda: task.done

    def end(self) -> None:
        """Kill every process, and wait until all threads are gone."""
        for task in self._tasks:
            if task is not self._director:
                task.process.dead = True
        self._stuck = ""
        self._director.until = lambda: all(t.done for t in self._tasks if t is not self._director)
        self._director.wake = math.inf
        while not self._director.until():
            self._switch(self._director)

    # --- its own ------------------------------------------------------------------------------------------

    def _live(self, task: _Task, body: Callable[[], None]) -> None:
        task.turn.acquire()
        self._local.task = task
        try:
            if not task.process.dead:
                body()
        except Crash:
            pass
        except BaseException as error:
            self.failures.append(error)
        task.done = True
        self._tasks.remove(task)
        self._next(None).turn.release()

    def _meddle(self, process: Process, weight: float) -> None:
        trouble, chance = self.trouble, self.rng.random() / weight
        if chance < trouble.crash:
            self.crashes += 1
            process.die()
            raise Crash(process.name)
        chance -= trouble.crash
        if chance < trouble.stall:
            self.stalls += 1
            process.stalled_until = self.now + self.rng.choice(trouble.stalls)
            return
        chance -= trouble.stall
        if chance < trouble.slow:
            self._advance(self.now + self.rng.uniform(0.0, 3.0))
        elif chance - trouble.slow < trouble.stop:
            process.on_stop()

    def _switch(self, task: _Task) -> None:
        """Let the next task go on, and wait for our turn."""
        self.steps += 1
        following = self._next(task)
        if following is not task:
            following.turn.release()
            task.turn.acquire()
        if self._stuck and task is self._director:
            raise Stuck(self._stuck)
        if task.process.dead:
            raise Crash(task.process.name)

    def _next(self, task: _Task | None) -> _Task:
        """Whoever goes on; time passes where nobody can."""
        while True:
            dying = next((t for t in self._tasks if t.process.dead), None)
            if dying is not None:
                return dying
            if self.steps > _MOST_STEPS and not self._stuck:
                self._stuck = f"nobody came to an end in {_MOST_STEPS:,} steps"
                return self._director
            ready = [t for t in self._tasks if self._ready(t)]
            if ready:
                if task in ready and (len(ready) == 1 or self.rng.random() < 0.7):
                    return task  # type: ignore[return-value]
                return self.rng.choice(ready)
            when = min((max(t.wake, t.process.stalled_until) for t in self._tasks), default=math.inf)
            if self._events:
                when = min(when, self._events[0][0])
            if when == math.inf:
                self._stuck = "everybody waits for somebody else"
                return self._director
            self._advance(when)

    def _ready(self, task: _Task) -> bool:
        if task.process.stalled_until > self.now:
            return False
        return task.wake <= self.now or (task.until is not None and task.until())

    def _advance(self, when: float) -> None:
        """Let time pass, and what is due happen."""
        while self._events and self._events[0][0] <= when:
            due, _, happens = heapq.heappop(self._events)
            self.now = max(self.now, due)
            happens()
        self.now = max(self.now, when)
