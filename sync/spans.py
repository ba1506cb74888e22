"""Spans of work, told to whoever watches: runs, their phases, their batches, and the requests of these.

    run                  sync, destination, cohort, trigger, run; at its end: status, code, counts
    └─ phase             phase (refresh, diff, guard, deliver, ...), run
       └─ batch          batch (its id), number, op, records
          └─ request     method, host; at its end: status

Events (a turn taken, a try again, changes with an outcome) happen inside spans. Facts are names and numbers:
never a key, a value of a person, a path or a query of a URL, a header or a secret. Nobody watching costs two
microseconds a span.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, ParamSpec, Protocol, TypeVar

__all__ = [
    "Fact",
    "Kind",
    "Span",
    "Watcher",
    "carried",
    "current",
    "happened",
    "phase",
    "span",
    "watched",
    "watching",
]

P = ParamSpec("P")
R = TypeVar("R")

Kind = Literal["run", "phase", "batch", "request"]
Fact = str | int | float

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Span:
    """One stretch of work. Times are nanoseconds: `began` and `ended` since the epoch, `took` of a clock that
    nobody sets. `error` is the code of what ended it, or the name of its class."""

    kind: Kind
    facts: dict[str, Fact]
    parent: Span | None = None
    began: int = field(default_factory=time.time_ns)
    took: int = 0
    error: str = ""
    _since: int = field(default_factory=time.perf_counter_ns)

    def learn(self, **facts: Fact) -> None:
        """Say more of it, before it ends."""
        self.facts.update(facts)

    def fact(self, name: str) -> Fact | None:
        """What is known of it, or of what it is a part of."""
        found: Span | None = self
        while found is not None:
            if name in found.facts:
                return found.facts[name]
            found = found.parent
        return None

    @property
    def ended(self) -> int:
        """When it ended."""
        return self.began + self.took

    def end(self) -> None:
        """It is over now."""
        self.took = time.perf_counter_ns() - self._since


class Watcher(Protocol):
    """Is told in the thread that does the work: it must be quick. What it raises is logged and goes no further."""

    def begins(self, span: Span) -> None:
        """A span begins; what it is a part of has begun before."""

    def ends(self, span: Span) -> None:
        """A span is over; told in the thread and context in which it began."""

    def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
        """Something happened inside a span."""


_current: ContextVar[Span | None] = ContextVar("headgate_span", default=None)
_watchers: tuple[Watcher, ...] = ()
_lock = threading.Lock()


@contextmanager
def watching(*watchers: Watcher) -> Iterator[None]:
    """Inside, these are told of all spans of the process."""
    global _watchers
    with _lock:
        _watchers = (*_watchers, *watchers)
    try:
        yield
    finally:
        with _lock:
            _watchers = tuple(each for each in _watchers if each not in watchers)


def watched() -> bool:
    """Does anybody watch: what costs more than a line to tell need not be told otherwise."""
    return bool(_watchers)


def current() -> Span | None:
    """The span that this thread works in."""
    return _current.get()


@contextmanager
def span(kind: Kind, **facts: Fact) -> Iterator[Span]:
    """A span of this thread's work, a part of the one it is in."""
    begun = Span(kind, facts, _current.get())
    token = _current.set(begun)
    _begins(begun)
    try:
        yield begun
    except BaseException as error:
        begun.error = getattr(error, "code", "") or type(error).__name__
        raise
    finally:
        _end_phases(begun)
        _ends(begun)
        _current.reset(token)


def phase(name: str, **facts: Fact) -> None:
    """From here on this thread's run is in that phase, until the next one begins or the run ends."""
    outer = _current.get()
    while outer is not None and outer.kind == "phase":
        _ends(outer)
        outer = outer.parent
    begun = Span("phase", {"phase": name, **facts}, outer)
    if outer is not None:
        _current.set(begun)
        _begins(begun)


def happened(name: str, **facts: Fact) -> None:
    """Tell of something that took no time."""
    for watcher in _watchers:
        _told(watcher.happens, name, _current.get(), facts)


def carried(function: Callable[P, R]) -> Callable[P, R]:
    """The function for one call in another thread, as a part of this thread's span and with what is bound to its
    log: a pool's threads start with nothing."""
    context = contextvars.copy_context()

    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return context.run(function, *args, **kwargs)

    return call


def _end_phases(of: Span) -> None:
    inner = _current.get()
    while inner is not None and inner is not of:
        inner.error = of.error
        _ends(inner)
        inner = inner.parent


def _begins(begun: Span) -> None:
    for watcher in _watchers:
        _told(watcher.begins, begun)


def _ends(over: Span) -> None:
    over.end()
    for watcher in reversed(_watchers):
        _told(watcher.ends, over)


def _told(tell: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """No watcher's trouble is a run's."""
    try:
        tell(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - see above
        _log.warning("a watcher failed (%s)", type(error).__name__)
