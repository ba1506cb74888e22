"""Every change ends with one receipt, whatever an answer says of it."""

from __future__ import annotations

import pytest

from sync.sdk.nouns import Change, Op, Receipt, Status
from sync.sdk.settled import Settled, every

ADA, BOB = (Change(Op.ADD, key, {}, {}) for key in ("ada", "bob"))


@pytest.fixture
def settled() -> Settled:
    return Settled("Acme")


def test_receipts_come_in_the_order_of_the_changes_and_strangers_have_none(settled: Settled) -> None:
    settled.note("bob", Status.REJECTED, "no such country")
    settled.note("nobody", Status.APPLIED)
    settled.note("ada", Status.APPLIED, remote_id="7")

    assert settled.receipts([ADA, BOB]) == [
        Receipt("ada", Status.APPLIED, remote_id="7"),
        Receipt("bob", Status.REJECTED, "no such country"),
    ]
    assert "nobody" in settled
    assert settled.receipts([ADA, BOB], besides={Status.APPLIED}) == [
        Receipt("bob", Status.REJECTED, "no such country")
    ]


def test_of_a_change_that_is_not_mentioned_nothing_is_known(settled: Settled) -> None:
    settled.note("bob", Status.UNKNOWN, remote_id="8")
    silent = "Acme's answer does not say what became of this record"

    assert settled.receipts([ADA, BOB]) == [
        Receipt("ada", Status.UNKNOWN, silent),
        Receipt("bob", Status.UNKNOWN, silent, "8"),
    ]


@pytest.mark.parametrize("second", [(Status.REJECTED, "no", "7"), (Status.APPLIED, "", "8")])
def test_of_a_record_with_two_answers_nothing_is_known(settled: Settled, second: tuple[Status, str, str]) -> None:
    for said in [(Status.APPLIED, "", "7"), second, (Status.APPLIED, "", "7")]:
        settled.note("ada", *said)

    (receipt,) = settled.receipts([ADA])
    assert receipt == Receipt("ada", Status.UNKNOWN, "Acme's answer says two different things of this record")


def test_the_same_said_twice_is_said_once(settled: Settled) -> None:
    settled.note("ada", Status.APPLIED, remote_id="7")
    settled.note("ada", Status.APPLIED, remote_id="7")

    assert settled.receipts([ADA]) == [Receipt("ada", Status.APPLIED, remote_id="7")]


def test_what_is_said_of_a_batch_as_a_whole_is_said_of_each_of_its_changes() -> None:
    assert every([ADA, BOB], Status.ACCEPTED, "later") == [
        Receipt("ada", Status.ACCEPTED, "later"),
        Receipt("bob", Status.ACCEPTED, "later"),
    ]
