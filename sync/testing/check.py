"""A check: a sentence about connectors, and the code that tries to prove it wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sync.testing.case import Case

__all__ = ["CHECKS", "Check", "check"]


@dataclass(frozen=True, slots=True)
class Check:
    """`run` raises `Failure` where the sentence does not hold, `NotApplicable` where there is nothing to see.

    `http` checks are for connectors that speak HTTP; checks that need the author's `answer` say so; a check
    with `per_object` runs for each object, the others once.
    """

    sentence: str
    run: Callable[[Case], None]
    http: bool
    answer: bool
    per_object: bool


CHECKS: list[Check] = []


def check(
    sentence: str, *, http: bool = False, answer: bool = True, per_object: bool = True
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register a function as a check."""

    def register(run: Callable[[Case], None]) -> Callable[[Case], None]:
        CHECKS.append(Check(sentence, run, http, answer, per_object))
        return run

    return register
