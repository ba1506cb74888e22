"""The rules that judge a plan. Each looks at the same facts and gives one verdict, or none where it has no say.

A verdict of `hold` keeps the whole plan for a decision, `hold_removals` sends additions and updates and keeps the
removals; both wait for a person.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sync.durations import format_duration
from sync.engine.job import GuardrailLimits, SyncJob
from sync.sdk.nouns import Delivery, Op
from sync.state.nouns import Counts, Plan, PlanKind, Refresh, Verdict, VerdictAnswer

__all__ = ["GUARDRAILS", "HOLDS", "Facts", "answer", "judge", "objection"]

_ALLOW, _WARN = VerdictAnswer.ALLOW, VerdictAnswer.WARN
_HOLD_REMOVALS, _HOLD = VerdictAnswer.HOLD_REMOVALS, VerdictAnswer.HOLD
HOLDS = (_HOLD, _HOLD_REMOVALS)
"""The answers that wait for a person."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything the guardrails look at."""

    job: SyncJob
    counts: Counts
    refresh: Refresh
    accepted: Sequence[Refresh]  # refreshes that were delivered, newest first
    nulled: Mapping[str, int]  # field -> members where it turns null
    removed_7d: int  # removals of the last 7 days that nobody approved
    first_run: bool  # nothing was ever acknowledged
    first_run_allowed: bool
    same_function: bool  # does the fingerprint function answer as it did
    definition_moved: str  # what of a protected cohort's definition moved; empty: nothing
    now: float
    kind: PlanKind = PlanKind.DIFF
    kept_back: bool = False  # did a person approve a plan without its removals, and nobody decide on those since

    @property
    def limits(self) -> GuardrailLimits:
        """The limits in force."""
        return self.job.guardrails

    @property
    def rows(self) -> int:
        """The cohort's rows; those of people who were forgotten are no fault of the cohort."""
        return self.refresh.rows + self.counts.forgotten

    @property
    def removed_pct(self) -> float:
        """Removals as a share of the members, in percent."""
        return _share(self.counts.remove, self.counts.members)


Guardrail = Callable[[Facts], Verdict | None]


def _share(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _shown(share: float) -> float:
    """For people; limits are compared with the share itself."""
    return round(share, 2)


def source_empty(facts: Facts) -> Verdict | None:
    """An empty cohort would remove everybody."""
    if facts.rows > 0 or facts.counts.members == 0:
        return None
    return Verdict("source_empty", _HOLD_REMOVALS, 1, 0, "the cohort has no rows at all")


def source_shrunk(facts: Facts) -> Verdict | None:
    """Below half of the trailing median, the cohort is likelier broken than small."""
    usual = [r.rows for r in facts.accepted]
    if not usual or facts.rows == 0:
        return None
    half = statistics.median(usual) / 2
    if facts.rows >= half:
        return None
    message = f"the cohort has {facts.rows:,} rows, less than half of its usual {half * 2:,.0f}"
    return Verdict("source_shrunk", _HOLD_REMOVALS, round(half), facts.rows, message)


def source_stale(facts: Facts) -> Verdict | None:
    """Rows that were not refreshed in time must not decide who leaves."""
    limit = facts.job.cohort.refresh.stale_after
    if limit is None or facts.refresh.newest is None:
        return None
    age = facts.now - facts.refresh.newest
    if age <= limit:
        return None
    message = f"the newest row is {format_duration(age)} old, more than {format_duration(limit)}"
    return Verdict("source_stale", _HOLD_REMOVALS, round(limit), round(age), message)


def removals(facts: Facts) -> Verdict | None:
    """An absolute ceiling on removals."""
    limit, value = facts.limits.max_removed, facts.counts.remove
    if value <= limit:
        return None
    message = f"the plan removes {value:,} of {facts.counts.members:,} members, more than {limit:,}"
    return Verdict("removals", _HOLD, limit, value, message)


def removals_pct(facts: Facts) -> Verdict | None:
    """A ceiling on the share of members that leave; a handful of removals has no share."""
    limit, value = facts.limits.max_removed_pct, facts.removed_pct
    if facts.counts.remove < facts.limits.small_removal or value <= limit:
        return None
    shown = _shown(value)
    message = f"the plan removes {shown:g} % of {facts.counts.members:,} members, more than {limit:g} %"
    return Verdict("removals_pct", _HOLD, limit, shown, message)


def removals_7d(facts: Facts) -> Verdict | None:
    """A slow bleed: removals that stay below the other limits day after day."""
    total = facts.removed_7d + facts.counts.remove
    if facts.removed_7d == 0 or facts.counts.remove == 0 or total < facts.limits.small_removal:
        return None
    limit, value = facts.limits.max_removed_pct_7d, _share(total, facts.counts.members + facts.removed_7d)
    if value <= limit:
        return None
    shown = _shown(value)
    message = f"with this plan {total:,} members ({shown:g} %) leave within 7 days, more than {limit:g} %"
    return Verdict("removals_7d", _HOLD, limit, shown, message)


def additions(facts: Facts) -> Verdict | None:
    """A surge of additions, which somebody pays for."""
    limit, value = facts.limits.max_added_pct, _share(facts.counts.add, facts.counts.members)
    if facts.first_run or facts.counts.add < facts.limits.small_removal or value <= limit:
        return None
    shown = _shown(value)
    message = f"the plan adds {facts.counts.add:,} to {facts.counts.members:,} members ({shown:g} %)"
    return Verdict("additions", _HOLD if facts.limits.hold_additions else _WARN, limit, shown, message)


def nulled(facts: Facts) -> Verdict | None:
    """A field that turns null for many is a broken column."""
    limit = facts.limits.max_nulled_pct
    shares = {name: _share(count, facts.counts.members) for name, count in facts.nulled.items()}
    if not shares or max(shares.values()) <= limit:
        return None
    name = max(shares, key=lambda n: shares[n])
    shown = _shown(shares[name])
    message = f"field '{name}' turns null for {shown:g} % of the members, more than {limit:g} %"
    return Verdict("nulled", _HOLD, limit, shown, message)


def irreversible(facts: Facts) -> Verdict | None:
    """Ops that the platform cannot undo need to be allowed by name."""
    counts = {Op.ADD: facts.counts.add, Op.UPDATE: facts.counts.update, Op.REMOVE: facts.counts.remove}
    ops = sorted(o for o in facts.job.spec.irreversible - facts.limits.allow_irreversible if counts[o])
    if not ops:
        return None
    names = " and ".join(ops)
    message = f"{names} cannot be undone on {facts.job.destination}, and the mapping does not allow it by name"
    return Verdict("irreversible", _HOLD, "none", names, message)


def expect_rows(facts: Facts) -> Verdict | None:
    """The cohort's own expectation of its size."""
    expected, rows = facts.job.cohort.expect.rows, facts.rows
    if expected.min is not None and rows < expected.min:
        message = f"the cohort has {rows:,} rows, fewer than the {expected.min:,} it should have"
        return Verdict("expect_rows", _HOLD_REMOVALS, expected.min, rows, message)
    if expected.max is not None and rows > expected.max:
        message = f"the cohort has {rows:,} rows, more than the {expected.max:,} it should have"
        return Verdict("expect_rows", _HOLD, expected.max, rows, message)
    return None


def drift(facts: Facts) -> Verdict | None:
    """The cohort's own expectation of how much its size moves."""
    limit = facts.job.cohort.expect.drift_pct
    if limit is None or not facts.accepted or facts.accepted[0].rows == 0:
        return None
    before = facts.accepted[0].rows
    value = _share(abs(facts.rows - before), before)
    if value <= limit:
        return None
    message = f"the cohort went from {before:,} to {facts.rows:,} rows, more than {limit:g} %"
    return Verdict("drift", _HOLD, limit, _shown(value), message)


def first_run(facts: Facts) -> Verdict | None:
    """Nothing was ever sent by this sync: a person should have seen the first plan."""
    if not facts.first_run or facts.first_run_allowed:
        return None
    message = f"this is the sync's first run, with {facts.counts.add + facts.counts.update:,} records"
    return Verdict("first_run", _HOLD, 0, facts.counts.add + facts.counts.update, message)


def fingerprint_function(facts: Facts) -> Verdict | None:
    """Fingerprints of before cannot be compared, so that everybody would be sent again."""
    if facts.same_function:
        return None
    message = "the fingerprint function changed with the DuckDB version: every member would be updated once"
    return Verdict("fingerprint_function", _HOLD, 0, facts.counts.update, message)


def protected_cohort(facts: Facts) -> Verdict | None:
    """A protected cohort that is emptied, re-pointed or re-keyed needs two persons."""
    if not facts.job.cohort.protected or facts.first_run:
        return None
    emptied = facts.rows == 0
    if not emptied and not facts.definition_moved:
        return None
    what = "is emptied" if emptied else f"is {facts.definition_moved}"
    return Verdict(
        "protected_cohort", _HOLD, "unchanged", what, f"the protected cohort {what}: two persons decide"
    )


def kept_back(facts: Facts) -> Verdict | None:
    """Removals that a person kept back wait for another decision, whatever held the plan they were in."""
    if not facts.kept_back or not facts.counts.remove:
        return None
    message = f"a person kept the removals back: {facts.counts.remove:,} wait for another decision"
    return Verdict("kept_back", _HOLD_REMOVALS, 0, facts.counts.remove, message)


GUARDRAILS: tuple[Guardrail, ...] = (
    source_empty,
    source_shrunk,
    source_stale,
    expect_rows,
    drift,
    removals,
    removals_pct,
    removals_7d,
    additions,
    nulled,
    irreversible,
    fingerprint_function,
    first_run,
    protected_cohort,
    kept_back,
)


_OF_THE_SOURCE: tuple[Guardrail, ...] = (
    source_empty,
    source_shrunk,
    source_stale,
    expect_rows,
    drift,
    fingerprint_function,
    first_run,
)
"""They compare a refresh, and have no say where a plan was not made from one."""


def judge(facts: Facts) -> tuple[Verdict, ...]:
    """Every verdict that is not plainly `allow`, the strictest first.

    A plan that changes nothing is not judged. Where a rule keeps removals back and there are none, or the object
    takes only whole audiences, the answer is adapted: there is nothing to keep back, or everything is.
    """
    c = facts.counts
    if c.add + c.update + c.remove == 0:
        return ()
    rules = [r for r in GUARDRAILS if facts.kind is PlanKind.DIFF or r not in _OF_THE_SOURCE]
    verdicts = [v for rule in rules if (v := rule(facts)) is not None]
    return tuple(sorted((_adapted(v, facts) for v in verdicts), key=lambda v: -_RANK[v.answer]))


def _adapted(verdict: Verdict, facts: Facts) -> Verdict:
    if verdict.answer is not _HOLD_REMOVALS:
        return verdict
    if facts.job.spec.delivery is Delivery.SNAPSHOT:
        return Verdict(verdict.guardrail, _HOLD, verdict.limit, verdict.value, verdict.message)
    if facts.counts.remove == 0:
        return Verdict(verdict.guardrail, _WARN, verdict.limit, verdict.value, verdict.message)
    return verdict


_RANK = {_ALLOW: 0, _WARN: 1, _HOLD_REMOVALS: 2, _HOLD: 3}


def answer(verdicts: Sequence[Verdict]) -> VerdictAnswer:
    """The strictest of the answers."""
    return max((v.answer for v in verdicts), key=lambda a: _RANK[a], default=_ALLOW)


def objection(plan: Plan, verdicts: Sequence[Verdict]) -> str:
    """What would hold a plan now that did not when it was made or decided on; empty where nothing would."""
    known = {(v.guardrail, v.limit) for v in plan.verdicts if v.answer in HOLDS}
    for verdict in verdicts:
        new = verdict.answer in HOLDS and (verdict.guardrail, verdict.limit) not in known
        if new and verdict.guardrail != "first_run":
            return f"guardrail {verdict.guardrail} would hold it now: {verdict.message}"
    return ""
