"""Whether what is seen of a condition is news: one message a change, one that it is over, and none while muted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sync.conditions import Condition
from sync.state.alerts import Alert, MessageKind, Telling

__all__ = ["Observed", "Rules", "decide"]

_HOUR = 3600.0
_DAY = 24 * _HOUR  # a plan on a table that always moves is another one at each schedule
_MOST_CHANGES = 200  # times that are kept; more than any limit on them
_TOLD_OF = "told_of"  # among the facts: what it was about when people were told last


@dataclass(frozen=True, slots=True)
class Observed:
    """What is true of a condition now; `facts` are plain JSON and do not change with time alone.

    `targets` are told of it, `enders` only of its end. `about` names what people are to do something about: they
    are told again where it is another one.
    """

    subject: str
    condition: Condition
    open: bool
    facts: Mapping[str, Any] = field(default_factory=dict)
    targets: frozenset[str] = frozenset()
    enders: frozenset[str] = frozenset()
    about: str = ""


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
        after = _told(before, after, telling, seen, now)
    if after == before:
        return None
    return replace(after, number=before.number + 1), telling


def _turned(before: Alert, seen: Observed, now: float) -> Alert:
    """With what is seen; what was wrong is kept when it is over."""
    told_of = {_TOLD_OF: before.facts[_TOLD_OF]} if _TOLD_OF in before.facts else {}
    facts = seen.facts if seen.open else {**before.facts, **seen.facts}
    after = replace(before, facts={**facts, **told_of})
    if before.open == seen.open:
        return after
    changes = (*_recent(before, now), now)[-_MOST_CHANGES:]
    return replace(after, open=seen.open, since=now, changes=changes)


def _recent(alert: Alert, now: float) -> tuple[float, ...]:
    return tuple(at for at in alert.changes if abs(now - at) < _HOUR)


def _flaps(alert: Alert, now: float, rules: Rules) -> bool:
    """It begins above the limit, and ends at half of it."""
    return len(_recent(alert, now)) > (rules.flapping // 2 if alert.flapping else rules.flapping)


def _told(before: Alert, after: Alert, telling: Telling, seen: Observed, now: float) -> Alert:
    """With whoever believes now that it is open, or goes on and off."""
    if not (after.open or after.flapping):
        return replace(after, told=(), told_at=now)
    told = tuple(sorted({*before.told, *telling.targets}))
    if telling.kind is MessageKind.OPENED and before.told:  # the others were told before
        return replace(after, told=told)
    facts = {**after.facts, _TOLD_OF: seen.about} if seen.about else after.facts
    return replace(after, told=told, told_at=now, facts=facts)


def _telling(before: Alert, after: Alert, seen: Observed, now: float, rules: Rules) -> Telling | None:
    kind = _news(before, after, seen, now, rules)
    whom = seen.targets
    if kind is MessageKind.OPENED:
        whom = seen.targets - set(before.told)
    elif kind is MessageKind.RECOVERED:
        whom = seen.enders | set(before.told)
    if kind is None or not whom:
        return None
    return Telling(kind, whom, _began(before) if kind is MessageKind.RECOVERED else after.since)


def _began(alert: Alert) -> float:
    """When what is over now began; it may have ended while it was muted."""
    return alert.since if alert.open else alert.told_at


def _news(before: Alert, after: Alert, seen: Observed, now: float, rules: Rules) -> MessageKind | None:
    if after.flapping:
        return None if before.flapping and before.told else MessageKind.FLAPPING
    if not after.open:
        return MessageKind.RECOVERED if before.told or (before.open and seen.enders) else None
    if before.flapping and before.told:
        return MessageKind.SETTLED
    if seen.targets - set(before.told):
        return MessageKind.OPENED
    return _again(before, seen, now, rules) if before.told else None


def _again(before: Alert, seen: Observed, now: float, rules: Rules) -> MessageKind | None:
    """What people are told of what they know to be open."""
    ago = now - before.told_at
    if seen.about != before.facts.get(_TOLD_OF, seen.about) and ago >= _DAY:
        return MessageKind.CHANGED
    return MessageKind.REMINDER if rules.repeat_after is not None and ago >= rules.repeat_after else None
