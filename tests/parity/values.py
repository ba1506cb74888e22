"""The part of the battery that is about values: every kind of column, every transform, expressions, constants."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from sync.engine.transforms import TRANSFORMS
from tests.parity.kinds import KINDS, Column, Table
from tests.parity.scenarios import counts, decisive
from tests.parity.stage import Stage

__all__ = ["TEXTS", "VALUES"]

TEXTS = [
    "", " ", " padded\t", "it's", 'say "so"', "back\\slash \\n", "line\nbreak\r\n", "é", "e\u0301", "İstanbul ß",
    "\U0001f600 \U0001f469\u200d\U0001f680", "\u202eright to left", "\ufeffmarked\u200b", "NULL", "null",
    "%s {} $1", "John.Doe+x@GMail.com", "0412 345 678", "+61 (0)412 345 678 ext. 9", "0061412345678",
    "12345-6789", "SW1A 1AA", "Woman", "7", "-1.50", "1e3", "true", "2024-02-29", "2024-02-30", "AU",
    "O'Brien-Smith, Jr.", "--", "/* */",
]  # fmt: skip


def _naive(*parts: int) -> datetime:
    """A time without a zone."""
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc,arg-type]


VALUES: dict[str, Sequence[Any]] = {
    "integer": [0, -1, 10**18 - 1, 1 - 10**18, 42],
    "whole": [0, -1, 10**37 - 1, 1 - 10**37, 42],
    "exact": [Decimal(0), Decimal("1E-12"), Decimal("9" * 26 + "." + "9" * 12), Decimal("-1.5"), Decimal(1)],
    "money": [Decimal("0.10"), Decimal("-9999999999.99"), Decimal("1234.5"), Decimal(0), Decimal(1)],
    "double": [1.1, -0.0, 1.7976931348623157e308, 5e-324, 0.1 + 0.2],
    "boolean": [True, False, True, False, True],
    "date": [date(9999, 12, 31), date(1, 1, 1), date(2024, 2, 29), date(1969, 12, 31), date(1970, 1, 1)],
    "time": [time(0), time(23, 59, 59, 999999), time(12), time(0, 0, 0, 1), time(1, 2, 3)],
    "timestamp": [
        _naive(9999, 12, 31, 23, 59, 59, 999999),
        _naive(1, 1, 1),
        _naive(2024, 2, 29, 12),
        _naive(1969, 12, 31, 23, 59, 59, 999999),
        _naive(1970, 1, 1),
    ],
    "instant": [
        datetime(9999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(2024, 2, 29, 12, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
    ],
    "text": ["plain", TEXTS[5], TEXTS[6], TEXTS[10], "0123" * 262_144],
    "bytes": [b"plain", b"", b"\x00\xff", bytes(range(256)), b"'"],
    "json": [{"a": [1, {"b": None}], "c": "\U0001f600 it's"}, [], {}, "text", 12],
    "list": [["a", "b"], [], ["it's", 'say "so"'], ["\u00e9", ""], ["one"]],
}
assert VALUES.keys() == KINDS.keys()


def _every_kind(rows: Sequence[Sequence[Any]]) -> Table:
    columns = (Column("id", "integer"), Column("email"), *(Column(f"a_{kind}", kind) for kind in KINDS))
    return Table(columns, [(n, f"p{n}@x.example", *row) for n, row in enumerate(rows)])


@decisive
def every_kind_of_column(stage: Stage) -> None:
    stage.fields = [{"to": kind, "from": f"a_{kind}"} for kind in KINDS]
    rows = [list(row) for row in zip(*VALUES.values(), strict=True)]
    rows.append([None] * len(KINDS))
    # For each kind a person of whom nothing but that will change.
    rows += [list(rows[-2]) for _ in KINDS]
    stage.put(_every_kind(rows)).run()
    assert counts(stage) == (len(rows), 0, 0, 0)
    stage.put(_every_kind(rows)).run()
    assert counts(stage) == (0, 0, 0, len(rows))
    for n, values in enumerate(VALUES.values()):
        changed = rows[6 + n]
        changed[n] = next(value for value in values if value != changed[n])
    stage.put(_every_kind(rows)).run()
    assert counts(stage) == (0, len(KINDS), 0, 6)
    stage.put(_every_kind([[None] * len(KINDS)] * len(rows))).run()
    assert counts(stage) == (0, len(rows) - 1, 0, 1)


@decisive
def numbers_that_are_none(stage: Stage) -> None:
    columns = (Column("id", "integer"), Column("email"), Column("score", "double"))
    stage.fields = [
        {"to": "score", "from": "score"},
        {"to": "rounded", "from": "score", "transform": [{"round": 2}]},
    ]
    rows = [(n, f"p{n}@x.example", float(text)) for n, text in enumerate(("nan", "inf", "-inf", "1.005", "-0.0"))]
    stage.put(Table(columns, rows)).run()
    assert stage.report is not None
    assert (stage.report.counts.add, stage.report.counts.invalid) == (2, 3)
    stage.put(Table(columns, [(*row[:2], 0.5) for row in rows])).run()
    assert counts(stage) == (3, 2, 0, 0)


@decisive
def identifiers_of_every_kind(stage: Stage) -> None:
    for kind in ("whole", "money", "date", "timestamp", "instant", "bytes", "boolean"):
        columns = (Column("id", "integer"), Column("who", kind))
        rows = list(dict.fromkeys(VALUES[kind]))
        stage.identifiers, stage.fields = [{"to": kind, "from": "who"}], []
        stage.put(Table(columns, list(enumerate(rows)))).plan()


@decisive
def every_transform(stage: Stage) -> None:
    given = {"e164": "AU", "truncate": 3, "default": "nobody"}
    steps = [{name: given[name]} if name in given else name for name in TRANSFORMS if name != "round"]
    stage.fields = [{"to": f"t{n}", "from": "name", "transform": [step]} for n, step in enumerate(steps)]
    stage.fields += [
        {"to": "rounded", "from": "name", "transform": ["number", {"round": 1}]},
        {"to": "whole", "from": "amount", "transform": ["integer"]},
        {"to": "near", "from": "amount", "transform": [{"round": 1}]},
        {"to": "as_text", "from": "amount", "transform": ["text", {"default": "none"}]},
        {"to": "chained", "from": "name", "transform": ["trim", "lower", "strip_accents", "sha256"]},
    ]
    stage.identifiers = [{"to": "email", "from": "email", "transform": ["gmail", "sha256"]}]
    columns = (Column("id", "integer"), Column("email"), Column("name"), Column("amount", "exact"))
    amounts = [*VALUES["exact"], None]
    rows = [(n, f"P.{n}+x@gmail.com ", text, amounts[n % 6]) for n, text in enumerate([*TEXTS, None])]
    stage.put(Table(columns, rows)).run()
    assert counts(stage) == (len(rows), 0, 0, 0)
    stage.put(Table(columns, [(*row[:2], rows[n - 1][2], row[3]) for n, row in enumerate(rows)])).run()
    assert counts(stage)[1] == len(rows)


EXPRESSIONS = [
    "round(a_money / 100, 2)", "a_whole * 2", "a_integer % 7", "a_exact + 1", "a_double * 3", "-a_money",
    "a_integer / 3", "a_integer // 3", "a_money > 0 AND NOT a_boolean", "coalesce(a_text, 'none')",
    "CASE WHEN a_boolean THEN 'yes' ELSE 'no' END", "a_text || ' ' || a_integer", "left(a_text, 3)",
    "length(a_text)", "regexp_replace(a_text, '[aeiou]', '', 'g')", "split_part(a_text, 'a', 1)",
    "date_trunc('month', a_date)", "extract('year' FROM a_timestamp)", "a_timestamp + INTERVAL 1 DAY",
    "date_diff('day', a_date, DATE '2024-03-01')", "strftime(a_timestamp, '%Y-%m')", "epoch(a_instant)",
    "a_instant::DATE", "a_time::VARCHAR", "a_bytes::VARCHAR", "a_json->>'c'", "a_json->'a'->0",
    "greatest(a_integer, 5)", "nullif(a_integer, 42)", "a_text ILIKE '%PLAIN%'", "md5(a_text)",
    "TRY_CAST(a_text AS INTEGER)", "a_double::DECIMAL(10, 2)", "a_exact::DOUBLE", "upper(a_text) IN ('PLAIN')",
]  # fmt: skip


@decisive
def expressions_and_constants(stage: Stage) -> None:
    stage.fields = [{"to": f"e{n}", "expr": text} for n, text in enumerate(EXPRESSIONS)]
    constants: list[Any] = ["it's \U0001f600", 12, 1.5, True, None, 10**17]
    stage.fields += [{"to": f"c{n}", "value": value} for n, value in enumerate(constants)]
    small = {
        **VALUES,
        "whole": [0, -1, 10**30, 42, 7],
        "exact": [Decimal(0), Decimal("1E-12"), Decimal("123456789.5"), Decimal("-1.5"), Decimal(1)],
        "double": [1.1, -0.0, 1e6, 0.5, 0.1 + 0.2],
        "timestamp": [value.replace(year=2020) for value in VALUES["timestamp"]],
    }
    rows = [*(list(row) for row in zip(*small.values(), strict=True)), [None] * len(KINDS)]
    stage.put(_every_kind(rows)).run()
    assert counts(stage) == (6, 0, 0, 0)
    stage.run()
    assert counts(stage) == (0, 0, 0, 6)
