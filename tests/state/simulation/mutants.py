"""The protocol with one rule taken out, each in one place of the engine or the ledger: the simulation must notice.

Where two rules guard against the same thing, and either is enough, both are taken out: the mutant says so.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from sqlalchemy import update

from sync.engine import delivery, dispatch, lease, settle
from sync.engine.dispatch import Dispatch
from sync.engine.lease import LeaseKeeper
from sync.engine.sending import Sender
from sync.errors import RateLimited, Unavailable
from sync.sdk.nouns import Batch, Status
from sync.state import leases, tables
from sync.state import sending as ledger_sending
from sync.state.ledger import Ledger
from sync.state.nouns import Attempt, BatchRow, BatchState, Outcomes
from tests.state.simulation.history import History, Script

__all__ = ["MUTANTS", "Mutant"]

Patch = contextlib.AbstractContextManager[Any]


@dataclass(frozen=True)
class Mutant:
    """A rule taken out; `fits` says which scripts can show it, so that none is wasted on the others."""

    name: str
    patches: Callable[[], list[Patch]]
    fits: Callable[[Script], bool] = lambda _: True

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Take the rule out."""
        with contextlib.ExitStack() as stack:
            for each in self.patches():
                stack.enter_context(each)
            yield


# --- leases and the fence -------------------------------------------------------------------------------------


def _no_fence() -> list[Patch]:
    @contextlib.contextmanager
    def fenced(self: Any, _: Any) -> Iterator[Any]:
        with self._db.write() as connection:
            yield connection

    return [patch.object(leases.LeaseLedger, "_fenced", fenced)]


def _believed_for_ever() -> list[Patch]:
    def renew(self: LeaseKeeper) -> None:
        self._lease = replace(self.lease, deadline=self.lease.deadline + 1e6)

    return [
        patch.object(LeaseKeeper, "renew", renew),
        patch.object(LeaseKeeper, "_renew_until_done", lambda _: None),
    ]


def _never_renewed() -> list[Patch]:
    return [
        patch.object(LeaseKeeper, "_renew_until_done", lambda _: None),
        patch.object(LeaseKeeper, "ensure", lambda *_: lease.boot_clock()),
    ]


def _taken_from_the_living() -> list[Patch]:
    return [patch.object(History, "is_dead", lambda *_: True)]


# --- before a request leaves ----------------------------------------------------------------------------------


def _no_guard() -> list[Patch]:
    """The lease is not looked at, nor how long ago the intent was."""

    def before_request(self: Sender) -> None:
        push = getattr(self._local, "push", None)
        if push is not None:
            push.requests += 1
        self._dispatch.tally.request()

    return [patch.object(Sender, "before_request", before_request)]


def _late_without_new_intent() -> list[Patch]:
    real = Sender._intend

    def intend(self: Sender, push: Any) -> None:
        real(self, push)
        push.leave_until = float("inf")

    return [patch.object(Sender, "_intend", intend)]


def _no_barrier() -> list[Patch]:
    return [patch.object(delivery, "_await_barrier", lambda _: None)]


def _no_intent() -> list[Patch]:
    """Nothing is written before the first byte; so that it works at all, a planned batch may be acknowledged."""

    def intend(self: Sender, push: Any) -> None:
        self._keeper.ensure(self._dispatch.lifetime)
        push.attempts.append(Attempt(0, push.row.run, push.row.number, self._keeper.lease.epoch, 0.0))
        push.leave_until = float("inf")

    planned = (BatchState.PLANNED.value, BatchState.INTENT.value, BatchState.JOB.value)
    return [patch.object(Sender, "_intend", intend), *_from_states(planned)]


def _from_states(states: tuple[str, ...]) -> list[Patch]:
    """Let answers be kept for batches in these states."""
    batch = tables.batch.c
    patches = []
    for name in ("_ACKNOWLEDGE", "_KEEP_JOB", "_SPLIT", "_PARK"):
        old = getattr(ledger_sending, name)
        values = {getattr(column, "name", column): value for column, value in old._values.items()}
        new = update(tables.batch).where(*ledger_sending._THIS_BATCH, batch.state.in_(states)).values(values)
        patches.append(patch.object(ledger_sending, name, new))
    return patches


def _dies_too_soon() -> list[Patch]:
    real = Ledger.intend

    def intend(self: Ledger, held: Any, run: str, batch: int, alive_for: float) -> Attempt:
        return real(self, held, run, batch, alive_for / 10)

    return [patch.object(Ledger, "intend", intend)]


# --- the request ----------------------------------------------------------------------------------------------


def _new_key() -> list[Patch]:
    real = Sender._attempt

    def attempt(self: Sender, row: BatchRow, batch: Batch) -> None:
        real(self, row, replace(batch, id=uuid.uuid4().hex))

    return [patch.object(Sender, "_attempt", attempt)]


def _derived_again() -> list[Patch]:
    """A batch that is replayed has the values that the source has by now."""
    real = delivery._read

    def read(dispatch: Dispatch, file: Any, rows: Any) -> Any:
        source = dispatch.job.source().read()  # type: ignore[attr-defined]
        for row, batch in real(dispatch, file, rows):
            if row.state is BatchState.INTENT:
                changes = [
                    replace(c, fields=source.get(str(c.identifiers["email"]), c.fields)) if c.fields else c
                    for c in batch.changes
                ]
                yield row, replace(batch, changes=changes)
            else:
                yield row, batch

    return [patch.object(delivery, "_read", read)]


def _counter_replayed() -> list[Patch]:
    def send(self: Sender, row: BatchRow, batch: Batch) -> None:
        try:
            self._try(row, batch)
            self._dispatch.progress()
        except BaseException as error:
            self._dispatch.halt(error)

    return [patch.object(Sender, "send", send)]


def _counter_tried_again() -> list[Patch]:
    real = Sender._unavailable

    def unavailable(self: Sender, push: Any, error: Unavailable) -> None:
        real(self, push, Unavailable(error.message, applied=False, retry_after=error.retry_after))

    return [patch.object(Sender, "_unavailable", unavailable)]


# --- the answer -----------------------------------------------------------------------------------------------


def _acknowledged_before() -> list[Patch]:
    real = Sender._answer

    def answer(self: Sender, row: BatchRow, batch: Batch) -> Any:
        outcomes = Outcomes(applied=row.size)
        self._state.acknowledge(self._keeper.lease, self._local.push.attempts[-1], outcomes)
        real(self, row, batch)
        return outcomes

    return [
        patch.object(Sender, "_answer", answer),
        patch.object(Sender, "_keep", lambda *_: None),
    ]


def _whole_batch() -> list[Patch]:
    return [patch.object(dispatch, "read", lambda row, *_: Outcomes(applied=row.size))]


def _limited_is_applied() -> list[Patch]:
    real = Sender._answer

    def answer(self: Sender, row: BatchRow, batch: Batch) -> Any:
        try:
            return real(self, row, batch)
        except RateLimited:
            return Outcomes(applied=row.size)

    return [patch.object(Sender, "_answer", answer)]


def _silence_is_rejection() -> list[Patch]:
    """A record that the destination says nothing of was not applied."""
    return [patch("sync.engine.receipts._MISSING", (Status.REJECTED, "nothing was said"))]


def _timeout_is_settled() -> list[Patch]:
    """A request that was given up counts as answered: nobody waits for it."""
    real = Sender._unavailable

    def unavailable(self: Sender, push: Any, error: Unavailable) -> None:
        if self._job.spec.idempotent:
            self._settle(push, 0)
        real(self, push, error)

    return [patch.object(Sender, "_unavailable", unavailable)]


def _answer_settles_all() -> list[Patch]:
    """One answer is taken for an answer to every attempt of the batch."""
    real = Ledger.acknowledge
    attempt = tables.attempt

    def acknowledge(self: Ledger, held: Any, this: Attempt, outcomes: Outcomes) -> None:
        real(self, held, this, outcomes)
        settle_all = update(attempt).where(attempt.c.run == this.run, attempt.c.batch == this.batch)
        with self._db.write() as connection:
            connection.execute(settle_all.values(settled=True))

    return [patch.object(Ledger, "acknowledge", acknowledge)]


def _no_compare_and_set() -> list[Patch]:
    """Neither the fence nor the batch's state keeps a late answer out; either alone does."""
    every = tuple(state.value for state in BatchState)
    return [*_no_fence(), *_from_states(every)]


# --- the end of a run -----------------------------------------------------------------------------------------


def _no_dirty_set() -> list[Patch]:
    return [patch.object(settle, "_dirty", lambda _: [])]


def _only_unknown_is_dirty() -> list[Patch]:
    """What was answered is certain, whatever other request of the batch was never answered."""
    real = settle.answered_of
    return [patch.object(settle, "answered_of", lambda *of: replace(real(*of), uncertain=frozenset()))]


def _folded_before() -> list[Patch]:
    return [patch.object(settle, "_gaps", lambda *_: []), patch.object(settle, "_UNRESOLVED", ())]


def _rejected_is_synced() -> list[Patch]:
    real = settle.load

    def load(connection: Any, path: Any, answered: Any) -> None:
        real(connection, path, answered)
        connection.execute(
            "CREATE OR REPLACE TEMP VIEW applied AS SELECT p.* FROM plan p ANTI JOIN undone u ON p.row = u.row "
            "ANTI JOIN (SELECT * FROM exceptions WHERE status <> 'rejected') e ON p.row = e.row"
        )

    return [patch.object(settle, "load", load)]


def _intents_are_done() -> list[Patch]:
    """A batch that may have been sent is not sent again."""
    return [patch.object(delivery, "_PENDING", (BatchState.PLANNED, BatchState.JOB))]


def _green_while_undelivered() -> list[Patch]:
    return [patch.object(settle, "_status", lambda status, *_: status)]


def _not_idempotent(script: Script) -> bool:
    return script.kind == "counting"


def _repeats(script: Script) -> bool:
    return script.kind in ("set", "keyed")


def _with(fate: str, *kinds: str) -> Callable[[Script], bool]:
    """Scripts in which this becomes of requests, at destinations of these kinds."""
    return lambda script: fate in script.fates and (not kinds or script.kind in kinds)


MUTANTS = [
    Mutant("no fencing", _no_fence),
    Mutant("no fencing and no compare-and-set", _no_compare_and_set),
    Mutant("a lease is believed for ever", _believed_for_ever),
    Mutant("a lease is never renewed, nor looked at", _never_renewed),
    Mutant("a lease is taken from the living", _taken_from_the_living),
    Mutant("no send guard", _no_guard),
    Mutant(
        "no new intent for a request that leaves late", _late_without_new_intent, lambda s: s.trouble.stall > 0
    ),
    Mutant("no barrier", _no_barrier, _with("late")),
    Mutant("no intent", _no_intent),
    Mutant("a request is believed dead too soon", _dies_too_soon),
    Mutant("a new key on replay", _new_key, lambda s: s.kind == "keyed"),
    Mutant("a batch is derived again on replay", _derived_again, _repeats),
    Mutant("a counter is replayed", _counter_replayed, _not_idempotent),
    Mutant("a counter is tried again after silence", _counter_tried_again, _not_idempotent),
    Mutant("acknowledged before the answer", _acknowledged_before),
    Mutant("a partial answer speaks for the whole batch", _whole_batch),
    Mutant("429 is taken as applied", _limited_is_applied, _with("limited")),
    Mutant("silence about a record is taken as rejected", _silence_is_rejection, _with("partial", "counting")),
    Mutant("a request that was given up counts as answered", _timeout_is_settled, _with("late", "set")),
    Mutant("an answer settles every attempt", _answer_settles_all, _with("late", "set")),
    Mutant("no dirty set", _no_dirty_set, _repeats),
    Mutant("only an unknown outcome is dirty", _only_unknown_is_dirty, lambda s: s.undone > 0.5),
    Mutant("folded before it is acknowledged", _folded_before),
    Mutant("a rejected record is marked as synced", _rejected_is_synced),
    Mutant("an intent is taken as done", _intents_are_done),
    Mutant("green while undelivered", _green_while_undelivered),
]
