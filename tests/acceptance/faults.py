"""How the sink misbehaves: each fault looks at a request and gives the answer to it, or None to leave it alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

import orjson


class Then(Enum):
    """What becomes of the answer once the sink has decided on it."""

    ANSWER = "answer"
    RESET = "reset"  # the connection is reset and nothing is answered
    HALF = "half"  # the answer is cut in its middle and the connection closed
    DRIP = "drip"  # a byte each 200 ms


@dataclass(frozen=True)
class Request:
    """A request that carried records."""

    number: int  # from 1
    key: str
    op: str
    records: list[dict[str, Any]]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What the sink answers, and which records it applies first: all, or all but the `refused` indexes."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    apply: bool = True
    refused: frozenset[int] = frozenset()
    then: Then = Then.ANSWER
    delay: float = 0.0

    def applies(self, index: int) -> bool:
        """Is the record at this index applied?"""
        return self.apply and index not in self.refused


Fault = Callable[[Request], Answer | None]

SERVER_ERROR = Answer(status=500, body=b'{"message": "internal error"}', apply=False)
RESET_BEFORE = Answer(apply=False, then=Then.RESET)
RESET_AFTER = Answer(apply=True, then=Then.RESET)
HTML = Answer(
    status=200, body=b"<html><body>Welcome to the portal</body></html>", content_type="text/html", apply=False
)
HALF = Answer(body=b'{"ok": true, "padding": "' + b"x" * 400 + b'"}', then=Then.HALF)
DRIP = Answer(body=b'{"ok": true, "padding": "' + b"x" * 400 + b'"}', then=Then.DRIP)


def rate_limited(retry_after: float) -> Answer:
    """429 with `Retry-After` in seconds."""
    return Answer(status=429, body=b"{}", headers=(("Retry-After", f"{retry_after:g}"),), apply=False)


def always(answer: Answer) -> Fault:
    """Each request."""
    return lambda _: answer


def every(nth: int, answer: Answer) -> Fault:
    """Each nth request."""
    return lambda request: answer if request.number % nth == 0 else None


def at(numbers: Collection[int], answer: Answer) -> Fault:
    """The requests with these numbers."""
    return lambda request: answer if request.number in numbers else None


def first(count: int, answer: Answer) -> Fault:
    """The first `count` requests."""
    return lambda request: answer if request.number <= count else None


def when(number: int, act: Callable[[], None]) -> Fault:
    """Do something as soon as request `number` is in, before it is applied; answers nothing itself."""

    def fault(request: Request) -> None:
        if request.number == number:
            act()

    return fault


def poison_batch(ids: Collection[Any]) -> Fault:
    """422 for the whole batch while it holds one of these records; nothing of it is applied."""

    def fault(request: Request) -> Answer | None:
        if any(r["user_id"] in ids for r in request.records):
            return Answer(status=422, body=b'{"message": "a record is not acceptable"}', apply=False)
        return None

    return fault


def poison_records(ids: Collection[Any], status: int) -> Fault:
    """207 or 422 with an error for each of these records; the others are applied."""

    def fault(request: Request) -> Answer | None:
        refused = frozenset(i for i, r in enumerate(request.records) if r["user_id"] in ids)
        if not refused:
            return None
        errors = [
            {"message": "email is not deliverable"} if i in refused else None for i in range(len(request.records))
        ]
        return Answer(status=status, body=orjson.dumps({"errors": errors}), refused=refused)

    return fault
