"""Receipts become outcomes record by record; nothing is applied that was not said to be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sync.engine.receipts import discreet, read, the_same_for_all
from sync.engine.tally import Tally
from sync.logging import register_secret
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.state.nouns import BatchRow, BatchState, Outcomes

ROW = BatchRow("r", 1, "id", 0, "add", 100, 104)
BATCH = Batch("id", "s", "contact", None, [Change(Op.ADD, key, {}, {}) for key in "abcde"])


def test_a_batch_applied_whole_lists_nothing() -> None:
    outcomes = read(ROW, BATCH, [Receipt(key, Status.APPLIED) for key in "abcde"])

    assert outcomes == Outcomes(applied=5, exceptions=[], remote_ids={})


def test_exceptions_are_told_by_row_key_op_status_and_reason() -> None:
    given_ = [
        Receipt("a", Status.ACCEPTED),
        Receipt("b", Status.REJECTED, "no"),
        Receipt("c", Status.DEFERRED, "later"),
    ]
    given_ += [Receipt("d", Status.APPLIED, remote_id="D"), Receipt("e", Status.UNKNOWN)]

    outcomes = read(ROW, BATCH, given_)

    assert (outcomes.applied, outcomes.accepted, outcomes.remote_ids) == (1, 1, {103: "D"})
    assert list(outcomes.exceptions) == [
        (101, "b", Op.ADD, Status.REJECTED, "no"),
        (102, "c", Op.ADD, Status.DEFERRED, "later"),
        (104, "e", Op.ADD, Status.UNKNOWN, ""),
    ]


def test_the_order_of_receipts_does_not_matter() -> None:
    said = [Receipt(key, Status.REJECTED if key == "c" else Status.APPLIED) for key in "edcba"]

    assert [row for row, *_ in read(ROW, BATCH, said).exceptions] == [102]


def test_the_same_said_twice_is_said_once() -> None:
    outcomes = read(ROW, BATCH, [Receipt(key, Status.APPLIED) for key in "aabbccddee"])

    assert (outcomes.applied, list(outcomes.exceptions)) == (5, [])


def test_an_id_and_a_reason_that_are_no_text_become_text() -> None:
    odd: Any = 17
    outcomes = read(ROW, BATCH, [Receipt("a", Status.APPLIED, remote_id=odd), Receipt("b", Status.REJECTED, odd)])

    assert outcomes.remote_ids == {100: "17"}
    assert outcomes.exceptions[0][4] == "17"


statuses = st.sampled_from([*Status, "applied", "rejected", None, 7])
receipts = st.lists(st.builds(Receipt, st.sampled_from("abcdexyz"), statuses), max_size=12)


@given(receipts)
def test_whatever_is_answered_each_record_has_one_outcome_and_applied_is_what_was_said(
    said: list[Receipt],
) -> None:
    outcomes = read(ROW, BATCH, said)

    told: dict[str, set[Any]] = {}
    for receipt in said:
        told.setdefault(receipt.key, set()).add((type(receipt.status), receipt.status))
    rows = [row for row, *_ in outcomes.exceptions]
    applied = [key for key in "abcde" if told.get(key) == {(Status, Status.APPLIED)}]
    assert outcomes.applied + outcomes.accepted + len(rows) == 5
    assert len(rows) == len(set(rows))
    assert outcomes.applied == len(applied)
    assert all(isinstance(status, Status) for _, _, _, status, _ in outcomes.exceptions)


def test_one_outcome_for_all() -> None:
    outcomes = the_same_for_all(ROW, BATCH, Status.UNKNOWN, "why")

    assert outcomes.applied == 0
    assert [(row, key, status) for row, key, _, status, _ in outcomes.exceptions] == [
        (100 + n, key, Status.UNKNOWN) for n, key in enumerate("abcde")
    ]


def test_a_tally_counts_what_was_achieved_before_it_and_what_is_parked() -> None:
    tally = Tally(planned=30)

    tally.resume(
        [
            BatchRow("r", 1, "", 0, "add", 0, 9, BatchState.ACKED, applied=8, rejected=1, unknown=1),
            BatchRow("r", 2, "", 0, "add", 10, 19, BatchState.PARKED, unknown=10),
            BatchRow("r", 3, "", 0, "add", 20, 29, BatchState.PLANNED),
        ]
    )
    tally.add(Outcomes(9, 0, [(20, "k", Op.ADD, Status.DEFERRED, "")]))

    assert tally.answered == 30
    assert {k: v for k, v in tally.outcomes().items() if v} == {
        "applied": 17, "rejected": 1, "deferred": 1, "unknown": 11,
    }  # fmt: skip


def test_rows_of_a_snapshot_that_did_not_change_count_for_nothing() -> None:
    tally = Tally(planned=3, kept=97)

    tally.add(Outcomes(100))

    assert tally.applied == 3


def test_an_id_that_cannot_be_kept_leaves_the_outcome_unknown() -> None:
    given_ = [
        Receipt(k, Status.APPLIED, remote_id=i)
        for k, i in zip("abcd", ["1", "x" * 1001, "a\x1b[2J", "\ud800"], strict=True)
    ]

    outcomes = read(ROW, BATCH, [*given_, Receipt("e", Status.REJECTED, "no", remote_id="\n")])

    assert (outcomes.applied, outcomes.remote_ids) == (1, {100: "1"})
    assert [(key, status) for _, key, _, status, _ in outcomes.exceptions] == [
        ("b", Status.UNKNOWN),
        ("c", Status.UNKNOWN),
        ("d", Status.UNKNOWN),
        ("e", Status.REJECTED),
    ]


def test_a_reason_is_kept_short_and_without_what_a_terminal_obeys() -> None:
    said = "\x1b]52;c;aGk=\x07\x1b[2J\r\nno\u202ereversed\x00 " + "x" * 50_000

    ((*_, reason),) = discreet(
        the_same_for_all(ROW, replace(BATCH, changes=BATCH.changes[:1]), Status.REJECTED, said),
        ROW,
        BATCH,
        frozenset(),
    ).exceptions

    assert reason.isprintable()
    assert reason.startswith(" ]52;c;aGk=  [2J  no reversed")
    assert len(reason) == 2000


def test_a_secret_where_a_reason_is_cut_is_not_kept_in_part() -> None:
    register_secret("canary-secret-of-receipts")
    said = "x" * 1990 + "canary-secret-of-receipts"

    ((*_, reason),) = discreet(
        the_same_for_all(ROW, replace(BATCH, changes=BATCH.changes[:1]), Status.REJECTED, said),
        ROW,
        BATCH,
        frozenset(),
    ).exceptions

    assert "canary" not in reason


def test_a_persons_address_is_hidden_as_it_stands_in_the_address_of_a_request() -> None:
    change = replace(BATCH.changes[0], identifiers={"email": "ana+x@acme.example"}, fields={"odd": "\ud800"})
    said = "no such thing: GET /people?filter=any(email%2C%5B%22ana%2Bx%40acme.example%22%5D)"

    ((*_, reason),) = discreet(
        the_same_for_all(ROW, replace(BATCH, changes=[change]), Status.REJECTED, said),
        ROW,
        replace(BATCH, changes=[change]),
        frozenset({"email", "odd"}),
    ).exceptions

    assert reason == "no such thing: GET /people?filter=any(email%2C%5B%22•••%22%5D)"
