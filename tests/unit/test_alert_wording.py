"""What messages say, that free text in them does nothing, and that they have the next step to copy."""

from __future__ import annotations

from typing import Any

import pytest
from apprise.conversion.format import convert_between
from hypothesis import given
from hypothesis import strategies as st

from sync.alerts.wording import Severity, bundled, harmless, letter, severity
from sync.conditions import CONDITIONS, Condition
from sync.state.alerts import AlertMessage, MessageKind

NOON = 1_764_000_000.0  # 2025-11-24 16:00 UTC
FACTS: dict[Condition, dict[str, Any]] = {
    Condition.FAILED: {"run": "r1", "status": "failed", "code": "HG403"},
    Condition.AUTH: {"code": "HG401", "syncs": ["a", "b"]},
    Condition.HELD: {
        "plan": "3f2a91c07d11", "guardrails": [["removals_pct", 23.4, 5.0], ["protected_cohort", None, None]],
        "add": 12, "update": 0, "remove": 9120, "members": 39000, "needs": 2, "expires": NOON + 86400,
    },
    Condition.REJECTED: {"refused": 64, "unknown": 1, "members": 500},
    Condition.STALE: {"newest": NOON - 86400, "limit": 7200},
    Condition.DRIFT: {"rows": 10, "min": 5000, "max": None, "usual": 8000},
    Condition.LATE: {"due": NOON - 7200, "begun": True},
    Condition.REFUSED: {"problems": 2},
}  # fmt: skip


def message(condition: Condition, kind: MessageKind = MessageKind.OPENED, **facts: Any) -> AlertMessage:
    known = {"title": "Lapsed buyers", "destination": "crm"} | FACTS[condition] | facts
    return AlertMessage(1, "9c1e22aa04f1", "slack", "crm-vip", condition, kind, NOON, NOON - 3600, known)


def command(words: str) -> str:
    return f"headgate {words} --project /srv/sync"


def test_a_held_plan_says_what_why_until_when_and_how_to_decide() -> None:
    said = letter(message(Condition.HELD), command, "https://hg.acme.example")

    assert said.title == "[Headgate] held: crm-vip"
    assert said.severity is Severity.WARNING
    assert said.text().splitlines() == [
        "crm-vip: a plan waits for a decision.",
        "Plan 3f2a91c07d11: 12 additions, 0 updates, 9,120 removals, of 39,000 members.",
        "Held by: removals_pct (23.4, limit 5), protected_cohort.",
        "2 persons must approve it.",
        "It can be decided on until 2025-11-25 16:00 UTC.",
        "Cohort: Lapsed buyers",
        "Destination: crm",
        "Since 2025-11-24 15:00 UTC.",
        "Headgate: https://hg.acme.example",
        "Alert 9c1e22aa04f1 (held, warning)",
        "Next:",
        '  headgate approve 3f2a91c07d11 --reason "why this is right" --project /srv/sync',
        '  headgate approve 3f2a91c07d11 --no-removals --reason "why they stay" --project /srv/sync',
        '  headgate reject 3f2a91c07d11 --reason "why this is wrong" --project /srv/sync',
    ]


def test_a_failure_says_the_code_in_words_and_how_to_learn_more() -> None:
    said = letter(message(Condition.FAILED), command).text()

    assert "(HG403)" in said
    assert "headgate explain HG403" in said
    assert "headgate run crm-vip" in said


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("kind", MessageKind)
def test_every_message_has_words_for_every_condition(condition: Condition, kind: MessageKind) -> None:
    said = letter(message(condition, kind), command)

    assert condition.value in said.title
    assert "9c1e22aa04f1" in said.text()
    over = kind is MessageKind.RECOVERED
    assert said.over is over
    assert (said.severity is Severity.INFO) is over
    assert bool(said.commands) is not over
    assert "None" not in said.text()


def test_facts_that_an_older_version_kept_are_enough() -> None:
    for condition in CONDITIONS:
        bare = AlertMessage(1, "id", "slack", "s", condition, MessageKind.OPENED, NOON, NOON, {})
        assert letter(bare, command).text()


def test_what_failed_is_graver_than_what_waits() -> None:
    assert severity(Condition.FAILED) is severity(Condition.LATE) is Severity.CRITICAL
    assert severity(Condition.HELD) is severity(Condition.STALE) is Severity.WARNING
    assert severity(Condition.FAILED, MessageKind.RECOVERED) is Severity.INFO


def test_many_messages_at_once_are_one_that_has_all_of_them() -> None:
    letters = [letter(message(c), command) for c in (Condition.STALE, Condition.FAILED, Condition.HELD)]
    said = bundled(letters)

    assert said.severity is Severity.CRITICAL
    assert said.title == "[Headgate] 3 changes"
    assert all(one.title in said.text() and one.commands[0] in said.text() for one in letters)


EVIL = [
    "<script>alert(1)</script>",
    "<!channel> <@U123|you>",
    "@everyone @here",
    "[pay](https://evil.example) https://evil.example/x www.evil.example",
    "**bold** `code` ```block``` # head",
    "line\nbreak\r\nSubject: other\u2028end \u202eleft \x1b[31m",
    "x" * 5000,
]


@pytest.mark.parametrize("title", EVIL)
def test_a_cohorts_title_is_neither_markup_nor_mention_nor_link(title: str) -> None:
    plain = harmless(title)

    assert not set(plain) & set("<>[]`@*#|\n\r\x1b\u2028\u202e")
    assert "://" not in plain
    assert "www." not in plain
    assert len(plain) <= 120


@given(st.text(max_size=300))
def test_no_text_at_all_is(title: str) -> None:
    plain = harmless(title)

    assert not set(plain) & set("<>[]`@*#|\n\r\x00")
    assert "://" not in plain
    assert harmless(plain) == plain


@pytest.mark.parametrize("title", [*EVIL, "a_b_c ~~x~~ \\* {y}"])
def test_a_mail_made_of_markdown_has_no_markup_but_ours(title: str) -> None:
    said = letter(message(Condition.HELD, title=title), command)
    html = convert_between("markdown", "html", said.markdown())

    inside = html
    for ours in ("p", "strong", "code", "pre"):
        inside = inside.replace(f"<{ours}>", "").replace(f"</{ours}>", "")
    inside = inside.replace("<br />", "")
    assert "<" not in inside, inside
    assert "href" not in html
    assert "crm-vip: a plan waits for a decision." in html
