"""What a message says: what is wrong, the counts, and the next step as a command to copy; nothing of a person.

Facts are names, codes and numbers of ours. The one free text is a cohort's title, which is made harmless: no
service takes it for markup, a mention or a link.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sync.codes import catalog
from sync.conditions import Condition
from sync.durations import format_duration
from sync.state.alerts import AlertMessage, MessageKind

__all__ = ["Letter", "Severity", "bundled", "harmless", "letter", "severity"]

Fact = Mapping[str, Any]
Command = Callable[[str], str]


class Severity(StrEnum):
    """How soon somebody should look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


_CRITICAL = {Condition.FAILED, Condition.AUTH, Condition.LATE}


def severity(condition: Condition, kind: MessageKind = MessageKind.OPENED) -> Severity:
    """Of a condition; that it is over is only information."""
    if kind is MessageKind.RECOVERED:
        return Severity.INFO
    return Severity.CRITICAL if condition in _CRITICAL else Severity.WARNING


@dataclass(frozen=True, slots=True)
class Letter:
    """A message in words: a line for the subject, sentences, and commands to copy."""

    title: str
    severity: Severity
    over: bool
    lines: tuple[str, ...]
    commands: tuple[str, ...] = ()

    def text(self) -> str:
        """Plain text."""
        steps = ["Next:", *(f"  {command}" for command in self.commands)] if self.commands else []
        return "\n".join([*self.lines, *steps])

    def markdown(self) -> str:
        """CommonMark."""
        steps = ["Next:", "```", *self.commands, "```"] if self.commands else []
        first, *rest = (_escaped(line) for line in self.lines)
        return "\n".join([f"**{first}**", "", *(f"{line}  " for line in rest), "", *steps])


def letter(message: AlertMessage, command: Command, link: str = "") -> Letter:
    """The words of one message; `command` makes a command line of its words, `link` is where people reach us."""
    facts, kind = message.facts, message.kind
    what, next_ = _WORDS[message.condition]
    over = kind is MessageKind.RECOVERED
    of = [f"Cohort: {harmless(str(facts['title']))}"] if facts.get("title") else []
    of += [f"Destination: {facts['destination']}"] if facts.get("destination") else []
    told = [*what(facts), *of]
    since = f"Since {_moment(message.since)}."
    heads = {
        MessageKind.OPENED: f"{message.subject}: {_TITLES[message.condition]}.",
        MessageKind.REMINDER: f"{message.subject}: still {_TITLES[message.condition]}.",
        MessageKind.CHANGED: f"{message.subject}: {_TITLES[message.condition]}, another than you were told of.",
        MessageKind.RECOVERED: f"{message.subject}: {_ended(message)}.",
        MessageKind.FLAPPING: f"{message.subject}: {_TITLES[message.condition]}, on and off.",
        MessageKind.SETTLED: f"{message.subject}: changes no more.",
    }
    notes = {
        MessageKind.FLAPPING: ["It changes too often to tell each time; you are told when it has settled."],
        MessageKind.RECOVERED: [f"It was so from {_moment(message.since)} to {_moment(message.at)}."],
        MessageKind.SETTLED: [f"Now: {_TITLES[message.condition]}."],
    }
    lines = [heads[kind], *notes.get(kind, [])]
    lines += [] if over else [*told, since]
    lines += [f"Headgate: {link}"] if link else []
    lines.append(f"Alert {message.id} ({message.condition}, {severity(message.condition, kind)})")
    steps = () if over else tuple(command(words) for words in next_(message.subject, facts))
    return Letter(_title(message), severity(message.condition, kind), over, tuple(lines), steps)


def bundled(letters: Sequence[Letter]) -> Letter:
    """Several messages as one, for a notifier that would be given many at once."""
    gravest = max((one.severity for one in letters), key=list(Severity).index)
    lines = [line for one in letters for line in (one.title, *one.lines[1:-1], *one.commands, one.lines[-1], "")]
    title = f"[Headgate] {len(letters)} changes"
    return Letter(title, gravest, all(one.over for one in letters), (f"{len(letters)} changes:", "", *lines))


def _title(message: AlertMessage) -> str:
    before = {
        MessageKind.REMINDER: "still ",
        MessageKind.CHANGED: "changed: ",
        MessageKind.RECOVERED: "recovered: ",
        MessageKind.SETTLED: "settled: ",
    }
    after = ", on and off" if message.kind is MessageKind.FLAPPING else ""
    return f"[Headgate] {before.get(message.kind, '')}{message.condition}: {message.subject}{after}"


# --- what is wrong, and what to do ----------------------------------------------------------------------------


def _failed(facts: Fact) -> Iterator[str]:
    stopped = facts.get("status") == "stopped"
    yield "A guardrail stopped the last run while it was sending." if stopped else "The last run failed."
    yield from _cause(facts)


def _cause(facts: Fact) -> Iterator[str]:
    """A code's own title: what a warehouse or a destination said may quote a person."""
    known = catalog().get(str(facts.get("code", "")))
    if known is not None:
        yield f"Cause: {known.title} ({known.code})."


def _after_failure(subject: str, facts: Fact) -> list[str]:
    explain = [f"explain {facts['code']}"] if facts.get("code") in catalog() else []
    return [*explain, f"status {subject}", f"run {subject}"]


def _auth(facts: Fact) -> Iterator[str]:
    yield from _cause(facts)
    yield f"Syncs that failed by it: {', '.join(facts.get('syncs', []))}."
    yield "Renew the credentials; nothing is sent there until then."


def _held(facts: Fact) -> Iterator[str]:
    yield f"Plan {facts.get('plan')}: {_counts(facts)}, of {facts.get('members', 0):,} members."
    held = [_compared(*guardrail) for guardrail in facts.get("guardrails", [])]
    yield f"Held by: {', '.join(held) or 'a guardrail'}."
    if facts.get("needs", 1) > 1:
        yield f"{facts['needs']} persons must approve it."
    yield f"It can be decided on until {_moment(facts.get('expires', 0))}."


def _counts(facts: Fact) -> str:
    names = (("add", "additions"), ("update", "updates"), ("remove", "removals"))
    return ", ".join(f"{facts.get(key, 0):,} {name}" for key, name in names)


def _compared(name: str, value: float | None, limit: float | None) -> str:
    return name if value is None or limit is None else f"{name} ({value:,g}, limit {limit:,g})"


def _decide(subject: str, facts: Fact) -> list[str]:  # noqa: ARG001 - one shape for all
    plan = facts.get("plan")
    found = [f'approve {plan} --reason "why this is right"']
    if facts.get("remove") and (facts.get("add") or facts.get("update")):
        found.append(f'approve {plan} --no-removals --reason "why they stay"')
    return [*found, f'reject {plan} --reason "why this is wrong"']


def _rejected(facts: Fact) -> Iterator[str]:
    refused, unknown = facts.get("refused", 0), facts.get("unknown", 0)
    yield f"{refused:,} records are refused and {unknown:,} unknown; {facts.get('members', 0):,} are in step."


def _stale(facts: Fact) -> Iterator[str]:
    yield f"The newest row is of {_moment(facts.get('newest', 0))}."
    yield f"It may be {format_duration(facts.get('limit', 0))} old; older rows remove nobody."


def _drift(facts: Fact) -> Iterator[str]:
    yield f"The cohort has {facts.get('rows', 0):,} rows."
    if facts.get("usual") is not None:
        yield f"Usual are {facts['usual']:,}."
    if facts.get("min") is not None:
        yield f"It should have {facts['min']:,} at least."
    if facts.get("max") is not None:
        yield f"It should have {facts['max']:,} at most."


def _late(facts: Fact) -> Iterator[str]:
    state = "was begun and has not ended" if facts.get("begun") else "has not begun"
    yield f"The run that was due at {_moment(facts.get('due', 0))} {state}."


def _refused(facts: Fact) -> Iterator[str]:
    yield f"A daemon goes on with older files: it found {facts.get('problems', 1):,} problems in the changed ones."


_Words = tuple[Callable[[Fact], Iterator[str]], Callable[[str, Fact], list[str]]]
_WORDS: dict[Condition, _Words] = {
    Condition.FAILED: (_failed, _after_failure),
    Condition.AUTH: (_auth, lambda _, facts: ["doctor", f"run {' '.join(facts.get('syncs', []))}"]),
    Condition.HELD: (_held, _decide),
    Condition.REJECTED: (_rejected, lambda subject, _: [f"rejected list {subject}"]),
    Condition.STALE: (_stale, lambda _, __: ["status"]),
    Condition.DRIFT: (_drift, lambda _, __: ["status"]),
    Condition.LATE: (_late, lambda subject, _: [f"status {subject}"]),
    Condition.REFUSED: (_refused, lambda _, __: ["validate"]),
}
_TITLES = {
    Condition.FAILED: "the last run failed",
    Condition.AUTH: "the destination does not take our credentials",
    Condition.HELD: "a plan waits for a decision",
    Condition.REJECTED: "many records are not delivered",
    Condition.STALE: "the source is too old",
    Condition.DRIFT: "the cohort has an unlikely size",
    Condition.LATE: "a run is late",
    Condition.REFUSED: "changed files are refused",
}
_ENDED = {
    Condition.FAILED: "runs succeed again",
    Condition.AUTH: "the destination takes our credentials again",
    Condition.HELD: "no plan waits for a decision any more",
    Condition.REJECTED: "undelivered records are below the limit again",
    Condition.STALE: "the source is new enough again",
    Condition.DRIFT: "the cohort has a likely size again",
    Condition.LATE: "no run is late any more",
    Condition.REFUSED: "the files are in force as they are",
}


def _ended(message: AlertMessage) -> str:
    gone = bool(message.facts.get("gone"))
    return "it is not in the project any more, or disabled" if gone else _ENDED[message.condition]


# --- text that does nothing -----------------------------------------------------------------------------------

_LONGEST = 120
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]+")
_ACTIVE = str.maketrans(
    {"<": "‹", ">": "›", "[": "(", "]": ")", "`": "'", "@": "(at)", "*": "∗", "|": "¦", "#": "＃", "&": "+"}
)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def harmless(text: str) -> str:
    """Free text that no service takes for markup, a mention or a link; a line of 120 characters at most."""
    plain = " ".join(_UNSEEN.sub(" ", text).translate(_ACTIVE).split())
    plain = re.sub(r"(?i)(\w):/+", r"\1: ", plain)
    plain = re.sub(r"(?i)\bwww\.", "www ", plain)
    return plain if len(plain) <= _LONGEST else f"{plain[: _LONGEST - 1]}…"


def _escaped(line: str) -> str:
    return _MARKDOWN.sub(r"\\\1", line)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
