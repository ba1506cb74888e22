"""What every fake platform has in common: credentials, a rate limit, routes, and a count of requests."""

from __future__ import annotations

import re
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import httpx
import orjson

from sync.sdk.nouns import Rate

__all__ = ["Asked", "Fake", "Ready", "Route"]


@dataclass(frozen=True)
class Asked:
    """One request: its parts of the path, as the route's groups, its query and its body."""

    request: httpx.Request
    parts: tuple[str, ...]

    @cached_property
    def body(self) -> Any:
        """The JSON of the body; None where there is none."""
        return orjson.loads(self.request.content) if self.request.content else None

    @cached_property
    def params(self) -> Mapping[str, str]:
        """The query; of a repeated parameter the last."""
        return dict(self.request.url.params)


Route = tuple[str, str, str]
"""A method, a regular expression for the whole path, and the name of the fake's method that answers."""


class Fake(ABC):
    """A platform in memory. Call it with a request, or serve it with `sync.testing.fakes.server.serve`.

    `routes` are tried in order. At most `rate.requests` in any window of `rate.per` seconds are answered, the
    others get what `too_fast` says; None: as many as come. `requests` counts all of them, `refused` those that
    came too fast. One request at a time is answered, so handlers need no locks. `clock` is in seconds.
    """

    routes: ClassVar[tuple[Route, ...]] = ()

    def __init__(self, *, rate: Rate | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate = rate
        self.clock = clock
        self.requests = 0
        self.refused = 0
        self._times: deque[float] = deque()
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        request.read()
        with self._lock:
            self.requests += 1
            if not self.authorised(request):
                return self.unauthorised()
            wait = self._wait()
            if wait > 0:
                self.refused += 1
                return self.too_fast(wait)
            response = self._route(request)
            response.headers.update(self.rate_headers())
            return response

    @abstractmethod
    def authorised(self, request: httpx.Request) -> bool:
        """Does the request carry this account's credentials."""

    @abstractmethod
    def unauthorised(self) -> httpx.Response:
        """What the platform says to anybody else."""

    @abstractmethod
    def too_fast(self, wait: float) -> httpx.Response:
        """What it says to a request that comes `wait` seconds too early."""

    @abstractmethod
    def no_route(self, request: httpx.Request) -> httpx.Response:
        """What it says to a path or a method it does not have."""

    def rate_headers(self) -> Mapping[str, str]:
        """The headers by which its answers tell how much room is left."""
        return {}

    @property
    def room(self) -> int:
        """How many requests more would be answered now; needs a `rate`."""
        return 0 if self.rate is None else self.rate.requests - len(self._times)

    def _wait(self) -> float:
        if self.rate is None:
            return 0.0
        now, times = self.clock(), self._times
        while times and times[0] <= now - self.rate.per:
            times.popleft()
        if len(times) >= self.rate.requests:
            return times[0] + self.rate.per - now if times else self.rate.per
        times.append(now)
        return 0.0

    def _route(self, request: httpx.Request) -> httpx.Response:
        for method, pattern, handler in self.routes:
            if request.method == method and (match := re.fullmatch(pattern, request.url.path)):
                answer: httpx.Response = getattr(self, handler)(Asked(request, match.groups()))
                return answer
        return self.no_route(request)


def _nobody(object: str, people: Iterable[str]) -> None:
    """For a platform that takes everybody."""


@dataclass(frozen=True)
class Ready:
    """A fake with an account in it, to be tried: each module of fakes has one as `ready()`.

    `options` gives the destination's configuration for a fake that is served at a URL; `audiences` has the id of
    an audience that is there, by object. `members` answers, for an object and the audience it is about, who is
    there now: each by the identifier that the platform keeps, a digest where it keeps digests. `know` makes people
    known to the account, by their identifiers, where an object takes nobody whom the platform does not know;
    elsewhere it does nothing.
    """

    app: Fake
    options: Callable[[str], Mapping[str, object]]
    audiences: Mapping[str, str] = field(default_factory=dict)
    members: Callable[[str, str], AbstractSet[str]] = field(kw_only=True)
    know: Callable[[str, Iterable[str]], None] = field(default=_nobody, kw_only=True)
