"""Every guardrail below, at and above its limit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sync.engine.guardrails import GUARDRAILS, Facts, answer, judge
from sync.engine.job import GuardrailLimits, SyncJob
from sync.mapping import Cohort
from sync.mapping import Sync as SyncMapping
from sync.sdk.nouns import Delivery, Limits, ObjectSpec, Op
from sync.state.nouns import Counts, Refresh, Verdict, VerdictAnswer

ALLOW, WARN = VerdictAnswer.ALLOW, VerdictAnswer.WARN
HOLD_REMOVALS, HOLD = VerdictAnswer.HOLD_REMOVALS, VerdictAnswer.HOLD
SPEC = ObjectSpec("contact", "Contact", frozenset(Op))


def job(limits: GuardrailLimits, spec: ObjectSpec, cohort: dict[str, Any]) -> SyncJob:
    def nothing(*_: Any) -> Any:
        raise AssertionError

    source = {"connection": "w", "table": "t", "key": "id"}
    fields = {"name": "s", "destination": "crm", "mode": "mirror", "identifiers": [{"to": "e", "from": "e"}]}
    model = Cohort.model_validate({"name": "people", "source": source, **cohort})
    sync = SyncMapping.model_validate(fields)
    return SyncJob("s", model, sync, "crm", spec, Limits(), "crm", limits, "m", "", nothing, nothing)


def refresh(rows: int = 1000, newest: float | None = None) -> Refresh:
    return Refresh("f", "s", "people", 0.0, rows, 0, "v", "d", "test", newest)


def facts(
    *,
    limits: GuardrailLimits = GuardrailLimits(),  # noqa: B008
    spec: ObjectSpec = SPEC,
    cohort: dict[str, Any] | None = None,
    rows: int = 1000,
    newest: float | None = None,
    usual: tuple[int, ...] = (),
    **given: Any,
) -> Facts:
    counts = {n: given.pop(n) for n in ("add", "update", "remove", "members") if n in given}
    return Facts(
        **{
            "job": job(limits, spec, cohort or {}),
            "counts": Counts(**{"members": 1000, "update": 1, **counts}),
            "refresh": refresh(rows, newest),
            "accepted": [refresh(n) for n in usual],
            "nulled": {},
            "removed_7d": 0,
            "first_run": False,
            "first_run_allowed": False,
            "same_function": True,
            "definition_moved": "",
            "now": 1_000_000.0,
            **given,
        }
    )


def said(**given: Any) -> dict[str, VerdictAnswer]:
    return {v.guardrail: v.answer for v in judge(facts(**given))}


def test_an_ordinary_plan_is_allowed() -> None:
    verdicts = judge(facts(add=20, update=300, remove=40))
    assert (verdicts, answer(verdicts)) == ((), ALLOW)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        # removals, absolute
        ({"remove": 1000, "members": 100_000}, {}),
        ({"remove": 1001, "members": 100_000}, {"removals": HOLD}),
        # removals, share: over 5 %
        ({"remove": 50}, {}),
        ({"remove": 51}, {"removals_pct": HOLD}),
        ({"remove": 5001, "members": 100_000, "limits": GuardrailLimits(10_000)}, {"removals_pct": HOLD}),
        # a handful has no share
        ({"remove": 24, "members": 24}, {}),
        ({"remove": 25, "members": 25}, {"removals_pct": HOLD}),
        # slow bleed: over 15 % of who was there a week ago
        ({"remove": 30, "removed_7d": 141, "members": 1000}, {}),
        ({"remove": 31, "removed_7d": 142, "members": 1000}, {"removals_7d": HOLD}),
        ({"remove": 10, "removed_7d": 14, "members": 86}, {}),  # 24 of 100: still a handful
        ({"remove": 10, "removed_7d": 15, "members": 85}, {"removals_7d": HOLD}),  # many small plans
        ({"remove": 0, "removed_7d": 900, "members": 100}, {}),
        ({"remove": 200, "removed_7d": 0}, {"removals_pct": HOLD}),
        # additions
        ({"add": 500}, {}),
        ({"add": 501}, {"additions": WARN}),
        ({"add": 501, "limits": GuardrailLimits(hold_additions=True)}, {"additions": HOLD}),
        ({"add": 20, "members": 5}, {}),
        ({"add": 501, "first_run": True, "first_run_allowed": True}, {}),
        # a field turns null: over 10 %
        ({"nulled": {"a": 100}}, {}),
        ({"nulled": {"a": 5, "b": 101}}, {"nulled": HOLD}),
        # the source
        ({"rows": 0, "remove": 20, "members": 20}, {"source_empty": HOLD_REMOVALS}),
        ({"rows": 0, "remove": 0, "add": 0, "members": 0}, {}),
        ({"rows": 500, "usual": (1000, 1000), "remove": 30}, {}),
        ({"rows": 499, "usual": (1000, 1000), "remove": 30}, {"source_shrunk": HOLD_REMOVALS}),
        ({"rows": 499, "usual": (10, 1000, 1000, 1000, 20), "remove": 30}, {"source_shrunk": HOLD_REMOVALS}),
        ({"rows": 499, "usual": (), "remove": 30}, {}),
        # expectations
        ({"rows": 10, "cohort": {"expect": {"rows": {"min": 10, "max": 10}}}, "remove": 1}, {}),
        ({"rows": 9, "cohort": {"expect": {"rows": {"min": 10}}}, "remove": 1}, {"expect_rows": HOLD_REMOVALS}),
        ({"rows": 11, "cohort": {"expect": {"rows": {"max": 10}}}, "remove": 1}, {"expect_rows": HOLD}),
        ({"rows": 1250, "usual": (1000,), "cohort": {"expect": {"drift_pct": 25}}}, {}),
        ({"rows": 1251, "usual": (1000,), "cohort": {"expect": {"drift_pct": 25}}}, {"drift": HOLD}),
        ({"rows": 749, "usual": (1000, 5), "cohort": {"expect": {"drift_pct": 25}}}, {"drift": HOLD}),
        ({"rows": 749, "usual": (0,), "cohort": {"expect": {"drift_pct": 25}}}, {}),
        # age
        ({"newest": 1_000_000.0 - 3600, "cohort": {"refresh": {"stale_after": "1h"}}, "remove": 1}, {}),
        (
            {"newest": 1_000_000.0 - 3601, "cohort": {"refresh": {"stale_after": "1h"}}, "remove": 1},
            {"source_stale": HOLD_REMOVALS},
        ),
        ({"newest": None, "cohort": {"refresh": {"stale_after": "1h"}}, "remove": 1}, {}),
        # the first run
        ({"first_run": True, "add": 1, "members": 0}, {"first_run": HOLD}),
        ({"first_run": True, "first_run_allowed": True, "add": 1, "members": 0}, {}),
        # the function
        ({"same_function": False}, {"fingerprint_function": HOLD}),
        # protected cohorts
        ({"definition_moved": "re-keyed"}, {}),
        ({"definition_moved": "re-keyed", "cohort": {"protected": True}}, {"protected_cohort": HOLD}),
        ({"definition_moved": "re-keyed", "cohort": {"protected": True}, "first_run": True,
          "first_run_allowed": True}, {}),
        ({"rows": 0, "remove": 5, "members": 5, "cohort": {"protected": True}},
         {"source_empty": HOLD_REMOVALS, "protected_cohort": HOLD}),
    ],
)  # fmt: skip
def test_a_limit_holds_above_it_only(given: dict[str, Any], expected: dict[str, VerdictAnswer]) -> None:
    assert said(**given) == expected


@pytest.mark.parametrize(
    ("counts", "allowed", "expected"),
    [
        ({"remove": 1}, set(), "remove"),
        ({"remove": 1}, {Op.REMOVE}, None),
        ({"remove": 1}, {Op.ADD}, "remove"),
        ({"remove": 0, "update": 5}, set(), None),
        ({"add": 1, "remove": 1}, set(), "add and remove"),
    ],
)
def test_what_cannot_be_undone_is_allowed_by_name(
    counts: dict[str, int], allowed: set[Op], expected: str | None
) -> None:
    spec = replace(SPEC, irreversible=frozenset({Op.ADD, Op.REMOVE}))
    verdicts = judge(facts(spec=spec, limits=GuardrailLimits(allow_irreversible=frozenset(allowed)), **counts))
    assert [v.value for v in verdicts] == ([expected] if expected else [])


def test_a_snapshot_cannot_keep_removals_back_so_all_of_it_is_held() -> None:
    spec = replace(SPEC, delivery=Delivery.SNAPSHOT)
    assert said(spec=spec, rows=499, usual=(1000,), remove=30) == {"source_shrunk": HOLD}
    assert said(spec=spec, rows=499, usual=(1000,), remove=0, update=3) == {"source_shrunk": HOLD}


def test_without_removals_there_is_nothing_to_keep_back_but_a_warning() -> None:
    assert said(rows=499, usual=(1000,), remove=0, update=3) == {"source_shrunk": WARN}


def test_a_plan_that_changes_nothing_is_not_judged() -> None:
    assert said(rows=0, update=0, members=10, first_run=True, same_function=False) == {}


def test_the_strictest_verdict_comes_first_and_decides() -> None:
    verdicts = judge(facts(add=900, remove=60, rows=400, usual=(1000,)))
    assert [v.answer for v in verdicts] == [HOLD, HOLD_REMOVALS, WARN]
    assert answer(verdicts) is HOLD
    assert answer([Verdict("x", WARN, 1, 2, ""), Verdict("y", ALLOW, 1, 2, "")]) is WARN


def test_messages_are_sentences_with_both_numbers() -> None:
    (verdict,) = judge(facts(remove=61))
    assert (verdict.limit, verdict.value) == (5.0, 6.1)
    assert verdict.message == "the plan removes 6.1 % of 1,000 members, more than 5 %"


def test_a_rule_has_the_name_of_its_verdict() -> None:
    everything = facts(
        add=900, update=5, remove=2000, members=1200, rows=11, usual=(1000,), nulled={"a": 900}, removed_7d=500,
        newest=0.0, first_run=False, same_function=False, definition_moved="re-keyed",
        spec=replace(SPEC, irreversible=frozenset(Op)),
        cohort={"protected": True, "refresh": {"stale_after": 1}, "expect": {"rows": {"max": 10}, "drift_pct": 1}},
    )  # fmt: skip
    everything = replace(everything, kept_back=True)
    silent = {rule.__name__ for rule in GUARDRAILS if rule(everything) is None}
    assert silent == {"source_empty", "first_run"}
    assert all(v.guardrail == rule.__name__ for rule in GUARDRAILS if (v := rule(everything)))
