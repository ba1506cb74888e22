"""The lease keeper: renewed in the background, believed no longer than it lasts, given back at the end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sync.engine.lease import LeaseKeeper
from sync.errors import Fenced, LeaseHeld, StateError
from sync.state.holder import boot_clock, me
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import Lease

SYNC = "vips-crm"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """An empty ledger."""
    with open_ledger(tmp_path / "ledger.db") as opened:
        yield opened


class Sick:
    """A ledger that cannot be written for a while."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.sick = False
        self.renewals = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ledger, name)

    def renew(self, lease: Lease, ttl: float) -> Lease:
        self.renewals += 1
        if self.sick:
            raise StateError("the disk is full")
        return self._ledger.renew(lease, ttl)

    def release(self, lease: Lease) -> None:
        if self.sick:
            raise StateError("the disk is full")
        self._ledger.release(lease)


def test_the_lease_is_held_inside_and_given_back_after(ledger: Ledger) -> None:
    with LeaseKeeper(ledger, SYNC, 30) as keeper:
        inside = ledger.lease(SYNC)
        assert inside is not None
        assert (inside.holder, inside.epoch) == (me(), keeper.lease.epoch)

    assert ledger.lease(SYNC) is None


def test_it_is_given_back_where_the_run_fails(ledger: Ledger) -> None:
    with pytest.raises(ZeroDivisionError), LeaseKeeper(ledger, SYNC, 30):
        raise ZeroDivisionError

    assert ledger.lease(SYNC) is None


def test_it_is_renewed_for_as_long_as_it_is_held(ledger: Ledger) -> None:
    with LeaseKeeper(ledger, SYNC, 0.3) as keeper:
        time.sleep(0.7)
        held = ledger.lease(SYNC)

        assert held is not None
        assert keeper.lease.deadline > boot_clock()


def test_a_renewal_that_fails_is_tried_again(ledger: Ledger) -> None:
    sick: Any = Sick(ledger)
    with LeaseKeeper(sick, SYNC, 0.6) as keeper:
        sick.sick = True
        time.sleep(0.45)
        sick.sick = False
        tried = sick.renewals
        time.sleep(0.3)

        assert tried >= 1
        assert keeper.lease.deadline > boot_clock()


def test_a_lease_that_cannot_be_given_back_does_not_hide_what_happened(ledger: Ledger) -> None:
    sick: Any = Sick(ledger)
    with LeaseKeeper(sick, SYNC, 30) as keeper:
        sick.sick = True

    assert ledger.lease(SYNC) is not None  # it ends by itself
    assert keeper.lease.deadline > boot_clock()


def test_there_is_one_holder(ledger: Ledger) -> None:
    with LeaseKeeper(ledger, SYNC, 30), pytest.raises(LeaseHeld), LeaseKeeper(ledger, SYNC, 30):
        pass


def test_it_lasts_for_a_request_or_is_renewed_until_it_does(ledger: Ledger) -> None:
    sick: Any = Sick(ledger)
    with LeaseKeeper(sick, SYNC, 1.5) as keeper:
        keeper.ensure(1.0)
        before = sick.renewals
        time.sleep(0.6)  # the thread renews after 0.5 s
        sick.renewals = 0
        keeper.ensure(1.3)

        assert before == 0
        assert keeper.lease.deadline - boot_clock() > 1.3


def test_a_lease_shorter_than_a_request_lets_none_leave(ledger: Ledger) -> None:
    with LeaseKeeper(ledger, SYNC, 2) as keeper, pytest.raises(Fenced, match="too short"):
        keeper.ensure(5.0)


def test_a_lost_lease_is_found_out_by_the_next_look_however_long_it_seemed(ledger: Ledger) -> None:
    with LeaseKeeper(ledger, SYNC, 30) as keeper:
        thief = ledger.acquire(SYNC, "host/1/2/boot", 600, dead=me())
        with pytest.raises(Fenced):
            keeper.renew()
        with pytest.raises(Fenced):
            keeper.ensure(1.0)

    held = ledger.lease(SYNC)
    assert held is not None
    assert held.epoch == thief.epoch


def test_nobody_holds_what_was_never_taken(ledger: Ledger) -> None:
    with pytest.raises(Fenced):
        _ = LeaseKeeper(ledger, SYNC, 30).lease
