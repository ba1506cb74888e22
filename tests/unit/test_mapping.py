"""A mapping file becomes models, or problems that a person without SQL understands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from sync.durations import format_duration, parse_duration, parse_rate
from sync.errors import Problem
from sync.files import read_yaml
from sync.mapping import Mapping, Mode, Transform
from sync.sdk.nouns import Op, Rate
from sync.validation import children, problems

EXAMPLES = Path(__file__).parent.parent.parent / "mappings"

MINIMAL = """\
version: 1
cohort:
  name: vips
  source: { connection: warehouse, table: vips, key: id }
syncs:
  - name: crm
    destination: crm
    mode: mirror
    identifiers: [{ to: email, from: email }]
"""


def read(tmp_path: Path, text: str) -> tuple[Mapping | None, list[Problem]]:
    path = tmp_path / "m.yaml"
    path.write_text(text)
    document = read_yaml(path, "mappings/m.yaml")
    try:
        return Mapping.model_validate(document.data), []
    except ValidationError as error:
        return None, problems(error, Mapping, document)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda p: p.stem)
def test_the_example_mappings_load(path: Path) -> None:
    Mapping.model_validate(read_yaml(path, path.name).data)


def test_everything_a_mapping_may_say(tmp_path: Path) -> None:
    text = (EXAMPLES / "lapsed_buyers.yaml").read_text()
    text = text.replace(
        "    guardrails:",
        """\
      - { to: nickname, from: first_name, transform: [trim, { truncate: 40 }] }
      - { to: phone, from: mobile, transform: [{ e164: AU }, { name: sha256 }] }
      - { to: nothing, value: null }
    tags: [daily]
    guardrails:""",
    )

    mapping, found = read(tmp_path, text)

    assert found == []
    assert mapping is not None
    sync = mapping.syncs[0]
    assert mapping.cohort.refresh.stale_after == 30 * 3600
    assert mapping.cohort.expect.rows.min == 5000
    assert sync.mode.ops == {Op.ADD, Op.UPDATE, Op.REMOVE}
    assert sync.fields[3].transform == (Transform(name="trim"), Transform(name="truncate", argument=40))
    assert sync.fields[4].transform == (Transform(name="e164", argument="AU"), Transform(name="sha256"))
    assert sync.fields[5].value is None
    assert [f.to for f in sync.fields] == ["firstname", "ltv", "source", "nickname", "phone", "nothing"]
    assert sync.alerts[0].to == ("slack",)
    assert sync.guardrails.approve.four_eyes
    assert sync.delivery.rate_limit == "100/10s"


def test_modes_are_a_table_of_permissions() -> None:
    assert {mode: mode.ops for mode in Mode} == {
        Mode.MIRROR: {Op.ADD, Op.UPDATE, Op.REMOVE},
        Mode.UPSERT: {Op.ADD, Op.UPDATE},
        Mode.INSERT: {Op.ADD},
        Mode.UPDATE: {Op.UPDATE},
    }


def place(text: str, part: str) -> tuple[int, int]:
    before = text[: text.index(part)]
    return before.count("\n") + 1, len(before) - before.rfind("\n")


@pytest.mark.parametrize(
    ("old", "new", "part", "code", "message", "fix"),
    [
        ("version: 1", "version: 2", "2", "HG107", "`version` must be 1", ""),
        ("version: 1\n", "", "cohort:", "HG106", "the file lacks the key `version`", "Add `version`."),
        ("name: vips", "nme: vips", "nme", "HG105", "unknown key `nme`", "Did you mean `name`?"),
        ("name: vips", "name: VIPs!", "VIPs!", "HG107", "must be a name: lower-case letters", ""),
        ("key: id", "key: 7", "7 }", "HG107", "`key` must be text", "Put it in quotes."),
        ("mode: mirror", "mode: miror", "miror", "HG107", "one of 'mirror', 'upsert'", "Did you mean `mirror`?"),
        ("mode: mirror", "mode: null", "null", "HG107", "must be one of", ""),
        ("mode: mirror", "mode: mirror\n    tags: daily", "daily", "HG107", "`tags` must be a list", "[...]"),
        ("from: email", "frm: email", "frm", "HG105", "unknown key `frm`", "Did you mean `from`?"),
        ("from: email", "from: email, value: 1", "{ to: email", "HG107", "exactly one of `from`, `expr`", ""),
        ("[{ to: email, from: email }]", "[]", "[]", "HG107", "a list with at least 1 in it", ""),
        ("[{ to: email, from: email }]", "email", "email", "HG107", "`identifiers` must be a list", ""),
        ("key: id", "key: id, query: SELECT 1", "{ connection", "HG107", "either `table` or `query`", ""),
        ("mode: mirror", "mode: mirror\n    audience: 1234", "1234", "HG107", "`audience` must be text", "quotes"),
        (
            "mode: mirror", "mode: mirror\n    schedule: { cron: 1 2 3 4 5, every: 1h }", "{ cron", "HG107",
            "exactly one of `cron`, `every`, `at`, `after`", "",
        ),
        ("mode: mirror", "mode: mirror\n    schedule: { every: often }", "often", "HG107", "not a duration", ""),
        ("mode: mirror", "mode: mirror\n    delivery: { rate_limit: fast }", "fast", "HG107", "is not a rate", ""),
        ("mode: mirror", "mode: mirror\n    guardrails: { max_nulled_pct: 120 }", "120", "HG107", "most 100", ""),
        (
            "mode: mirror", "mode: mirror\n    fields: [{ to: a, value: [1] }]", "[1]", "HG107",
            "`value` must be text or a whole number or a number or true or false", "",
        ),
        (
            "mode: mirror", "mode: mirror\n    alerts: [{ on: [helt], to: [x] }]", "helt", "HG107",
            "entry 1 of `on` must be one of 'failed', 'auth'", "Did you mean `held`?",
        ),
        ("\nsyncs", "\n  expect: { rows: { min: 2, max: 1 } }\nsyncs", "{ min", "HG107", "`min` is above", ""),
        ("syncs:", "sync:", "sync:", "HG105", "unknown key `sync`", "Did you mean `syncs`?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_place_and_fix(
    tmp_path: Path, old: str, new: str, part: str, code: str, message: str, fix: str
) -> None:
    text = MINIMAL.replace(old, new, 1)

    _, found = read(tmp_path, text)

    problem = next(p for p in found if p.code == code)
    assert (problem.line, problem.column) == place(text, part)
    assert problem.excerpt == text.split("\n")[problem.line - 1]
    assert message in problem.message
    assert fix in problem.fix


def test_every_mistake_of_a_file_is_told(tmp_path: Path) -> None:
    text = (
        MINIMAL.replace("mode: mirror", "mode: miror")
        .replace("key: id", "kee: id")
        .replace("name: crm", "nam: crm")
    )

    _, found = read(tmp_path, text)

    assert sorted(p.code for p in found) == ["HG105", "HG105", "HG106", "HG106", "HG107"]


def test_the_keys_that_may_stand_somewhere_are_known() -> None:
    assert "identifiers" in children(Mapping, ("syncs", 0))
    assert "from" in children(Mapping, ("syncs", 0, "identifiers", 3))
    assert "min" in children(Mapping, ("cohort", "expect", "rows"))
    assert children(Mapping, ("cohort", "nowhere")) == []


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("24h", 86400), ("7d", 604800), ("1.5h", 5400), (30, 30)]
)
def test_durations_are_seconds(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "5", "5 years", "-5m", "", "1h30m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "rate"), [("100/10s", Rate(100, 10)), ("1000/m", Rate(1000, 60)), ("5 / 1d", Rate(5, 86400))]
)
def test_rates_are_requests_in_a_window(text: str, rate: Rate) -> None:
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["fast", "0/10s", "10", "10/", "10/x"])
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(45, "45s"), (720, "12m"), (11100, "3h 5m"), (86400, "24h"), (187200, "2d 4h"), (-3, "0s")],
)
def test_durations_are_told_shortly(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
