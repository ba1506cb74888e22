"""The network between a process and the destination: what becomes of a request that left.

A request may be lost; reach the destination late, though no later than it can be alive; reach it twice before it
is answered; its answer may be lost, cut or senseless. Requests live on whatever becomes of the process that sent
them. What no sender can guard against is left out: a copy that somebody else makes, landing after the answer or
answered in another way.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from sync.errors import AuthError, ProtocolError, RateLimited, Unavailable
from sync.sdk.nouns import Receipt, Status
from tests.state.simulation.destination import Destination, Reply, Request
from tests.state.simulation.scheduler import Scheduler
from tests.state.simulation.witness import MARGIN

__all__ = ["FATES", "TIMEOUT", "Network"]

TIMEOUT = 10.0  # seconds until a client gives a request up
_END = 0.001  # the last moment before that

FATES = {
    "lost": 2.0,
    "late": 6.0,
    "unanswered": 4.0,
    "twice": 3.0,
    "limited": 2.0,
    "down": 2.0,
    "broken": 2.0,
    "senseless": 1.0,
    "partial": 4.0,
    "unwelcome": 0.3,
}
"""What may become of a request, and how likely each is."""


@dataclass
class Network:
    """`troubled` is the share of requests that something of `may` happens to; `hasty`: little time passes."""

    scheduler: Scheduler
    destination: Destination
    rng: random.Random
    troubled: float
    may: tuple[str, ...]
    hasty: bool
    fates: Counter[str] = field(default_factory=Counter)

    def send(self, request: Request) -> Reply:
        """Let a request leave, and wait for what the client is told. Raises `DestinationError`."""
        fate = "answered"
        if self.rng.random() < self.troubled:
            (fate,) = self.rng.choices(self.may, [FATES[name] for name in self.may])
            self.fates[fate] += 1
        reply: Reply = getattr(self, f"_{fate}")(request)
        return reply

    # --- fates --------------------------------------------------------------------------------------------

    def _answered(self, request: Request) -> Reply:
        return self._exchange(request, self.destination.receive)

    def _exchange(self, request: Request, receive: Callable[[Request], Reply]) -> Reply:
        replies = self._arrives(request, self.scheduler.now + self._travel(), receive)
        self._wait(request, self._travel(), lambda: bool(replies))
        overdue = self.scheduler.now > request.ends
        if not replies or (overdue and self.rng.random() < 0.5):
            raise Unavailable("it took too long")
        return replies[0]

    def _lost(self, request: Request) -> Reply:
        return self._given_up(request, self._patience())

    def _late(self, request: Request) -> Reply:
        last, patience = request.ends + MARGIN - _END, self._patience()
        soonest = min(self.scheduler.now + patience, last)
        self._arrives(request, last if self.rng.random() < 0.6 else self.rng.uniform(soonest, last))
        return self._given_up(request, patience)

    def _unanswered(self, request: Request) -> Reply:
        self._arrives(request, self.scheduler.now)
        return self._given_up(request, self._patience())

    def _twice(self, request: Request) -> Reply:
        return self._exchange(request, self.destination.receive_twice)

    def _limited(self, request: Request) -> Reply:
        self._wait(request, self._travel())
        raise RateLimited("slow down", retry_after=self.rng.choice([None, 1.0, 5.0, 40.0]))

    def _down(self, request: Request) -> Reply:
        self._wait(request, self._travel())
        raise Unavailable("closed", applied=False, retry_after=self.rng.choice([None, None, 3.0]))

    def _broken(self, request: Request) -> Reply:
        self.scheduler.at(self.scheduler.now, lambda: self.destination.partly(request))
        return self._given_up(request, 0.5)

    def _senseless(self, request: Request) -> Reply:
        if self.rng.random() < 0.7:
            self._arrives(request, self.scheduler.now)
        self._wait(request, self._travel())
        raise ProtocolError("this is not JSON")

    def _partial(self, request: Request) -> Reply:
        reply = self._answered(request)
        kept: list[Receipt] = []
        for receipt in reply.receipts:
            chance = self.rng.random()
            if chance < 0.4:
                kept.append(receipt)
            elif chance < 0.6:
                kept.append(Receipt(receipt.key, Status.UNKNOWN, "it is not sure"))
        return Reply(tuple(kept), reply.refused)

    def _unwelcome(self, request: Request) -> Reply:
        self._wait(request, self._travel())
        raise AuthError("who are you")

    # --- what they are made of ----------------------------------------------------------------------------

    def _travel(self) -> float:
        slow = not self.hasty and self.rng.random() < 0.2
        return self.rng.uniform(0.0, TIMEOUT if slow else 0.3)

    def _patience(self) -> float:
        """After how long a client notices: a reset at once, silence when its time is over."""
        return self.rng.choice([0.1, 0.1 if self.hasty else 1.0, 1.0 if self.hasty else TIMEOUT])

    def _given_up(self, request: Request, after: float) -> Reply:
        self._wait(request, after)
        raise Unavailable("the connection broke")

    def _arrives(
        self, request: Request, when: float, receive: Callable[[Request], Reply] | None = None
    ) -> list[Reply]:
        """The request reaches the destination then; the list has the reply from that moment on."""
        replies: list[Reply] = []
        when = min(when, request.ends + MARGIN - _END)
        receive = receive or self.destination.receive
        self.scheduler.at(when, lambda: replies.append(receive(request)))
        return replies

    def _wait(self, request: Request, seconds: float, answered: Callable[[], bool] = lambda: True) -> None:
        """The client waits so long, then for an answer, and no longer than the request may take."""
        until = min(self.scheduler.now + seconds, request.ends)
        self.scheduler.pause(3)
        self.scheduler.block(None, max(0.0, until - self.scheduler.now))
        if not answered():
            self.scheduler.block(answered, max(0.0, request.ends - self.scheduler.now))
        self.scheduler.pause(3)
