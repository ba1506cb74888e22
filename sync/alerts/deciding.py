"""Whether what is seen of a condition is news: one message a change, one that it is over, and none while muted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sync.conditions import Condition
from sync.state.alerts import Alert, MessageKind, Telling

__all__ = ["Observed", "Rules", "decide"]

_HOUR = 3600.0
_MOST_CHANGES = 200  # times that are kept; more than any limit on them


@dataclass(frozen=True, slots=True)
class Observed:
    """What is true of a condition now; `facts` are plain JSON and do not change with time alone.

    `targets` are told of it, `enders` only of its end.
    """

    subject: str
    condition: Condition
    open: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    targets: frozenset[str] = frozenset()
    enders: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Rules:
    """`flapping`: more changes in an hour are not told one by one; `repeat_after` is in seconds."""

    flapping: int = 6
    repeat_after: float | None = None


def decide(
    known: Alert | None, seen: Observed, now: float, rules: Rules, *, muted: bool = False
) -> tuple[Alert, Telling | None] | None:
    """The alert as it is to be kept, and who is to be told; None where there is nothing to keep."""
    if known is None and not seen.open:
        return None
    before = known or Alert(seen.subject, seen.condition)
    after = _turned(before, seen, now)
    after = replace(after, flapping=_flaps(after, now, rules))
    telling = None if muted else _telling(before, after, seen, now, rules)
    if telling is not None:
        told = tuple(sorted(seen.targets)) if after.open else ()
        after = replace(after, told=told, told_at=now)
    if after == before:
        return None
    return replace(after, number=before.number + 1), telling


def _turned(before: Alert, seen: Observed, now: float) -> Alert:
    """With what is seen; what was wrong is kept when it is over."""
    facts = seen.facts if seen.open else {**before.facts, **seen.facts}
    after = replace(before, facts=facts)
    if before.open == seen.open:
        return after
    changes = (*_recent(before, now), now)[-_MOST_CHANGES:]
    return replace(after, open=seen.open, since=now, changes=changes)


def _recent(alert: Alert, now: float) -> tuple[float, ...]:
    return tuple(at for at in alert.changes if abs(now - at) < _HOUR)


def _flaps(alert: Alert, now: float, rules: Rules) -> bool:
    """It begins above the limit, and ends at half of it."""
    return len(_recent(alert, now)) > (rules.flapping // 2 if alert.flapping else rules.flapping)


def _telling(before: Alert, after: Alert, seen: Observed, now: float, rules: Rules) -> Telling | None:
    kind = _news(before, after, seen, now, rules)
    if kind is None:
        return None
    whom = seen.targets | (frozenset() if after.open else frozenset(before.told) | seen.enders)
    return Telling(kind, whom, _began(before) if kind is MessageKind.RECOVERED else after.since) if whom else None


def _began(alert: Alert) -> float:
    """When what is over now began; it may have ended while it was muted."""
    return alert.since if alert.open else alert.told_at


def _news(before: Alert, after: Alert, seen: Observed, now: float, rules: Rules) -> MessageKind | None:
    if after.flapping:
        return MessageKind.FLAPPING if not before.flapping else None
    if before.flapping and after.open:
        return MessageKind.SETTLED
    if before.flapping:
        return MessageKind.RECOVERED
    if after.open and not before.told:
        return MessageKind.OPENED if seen.targets else None
    if after.open:
        due = rules.repeat_after is not None and now - before.told_at >= rules.repeat_after
        return MessageKind.REMINDER if due else None
    return MessageKind.RECOVERED if before.told or (before.open and seen.enders) else None
