"""The witness: sees every commit, every request and every answer, and says what must never be.

What it finds is kept, not raised: whoever is told would take it for a mistake of a connector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sync.sdk.nouns import Change, Op, Receipt, Status
from sync.state.ledger import Ledger
from sync.state.nouns import BatchRow, Generation, Lease, Outcomes, Run, RunStatus, Settlement

__all__ = ["MARGIN", "Audience", "Witness", "Working"]

Audience = Mapping[str, Mapping[str, Any]]
"""E-mail -> fields."""

MARGIN = 2.0
"""Seconds after a client gave a request up in which the kernel may still deliver it."""

_ROUNDING = 0.001  # what SQLite's clock loses
_GOOD = (Status.APPLIED, Status.ACCEPTED)


@dataclass
class Working:
    """What the witness knows of one process."""

    epoch: int = 0
    run: str = ""  # that it sends
    staged: Audience = field(default_factory=dict)  # the cohort as it last read it
    green: bool = False  # did what it last recorded say that everything is delivered


@dataclass
class Witness:
    """Watches one history. `members` reads a generation: e-mail -> fingerprint."""

    ledger: Ledger
    kind: str
    members: Callable[[Generation], Mapping[str, int]]
    emails: Mapping[str, str]  # member key -> e-mail
    wrong: list[str] = field(default_factory=list)
    unsure: set[str] = field(default_factory=set)  # e-mails whose outcome a person has to find out
    destination: Callable[[], Audience] = dict
    lives: Callable[[str], bool] = bool  # is that holder alive
    requests: int = 0
    landings: int = 0

    def __post_init__(self) -> None:
        self.epoch, self.holder, self.expires = 0, "", 0.0  # of the lease, as last committed
        self._order: dict[str, int] = {}  # run -> its place among all
        self._plans: dict[str, Audience] = {}  # run -> the cohort its plan was made from
        self._newest: dict[str, int] = {}  # e-mail -> the latest run whose change was applied
        self._times: dict[tuple[str, str], int] = {}  # run, e-mail -> how often its change was applied
        self._bytes: dict[str, object] = {}
        self._good: dict[str, set[tuple[str, Op]]] = {}  # run -> whom the destination said it took

    def says(self, what: str) -> None:
        """Something that must not be."""
        self.wrong.append(what)

    # --- what the destination sees ------------------------------------------------------------------------

    def same_bytes(self, key: str, changes: Iterable[Change]) -> None:
        """A key stands for one content for ever."""
        content = [(c.op, c.key, dict(c.fields)) for c in changes]
        if self._bytes.setdefault(key, content) != content:
            self.says("the same key came with other content")

    def applied(self, run: str, email: str, *, counted: bool) -> None:
        """A change of a run took effect."""
        self.landings += 1
        order = self._order.get(run, 0)
        if order < self._newest.get(email, 0):
            self.says(f"a request of an earlier run landed after a later one's, for {email}")
        self._newest[email] = max(order, self._newest.get(email, 0))
        times = self._times[run, email] = self._times.get((run, email), 0) + 1
        if counted and times > 1:
            self.says(f"one change of {email} was applied {times} times")

    def was_applied(self, run: str, email: str) -> bool:
        """Did a run's change of somebody ever take effect."""
        return (run, email) in self._times

    # --- what a process does ------------------------------------------------------------------------------

    def leaves(self, working: Working, now: float, ends: float, alive_until: float) -> None:
        """A request leaves; `alive_until` is what the intent of its thread says."""
        self.requests += 1
        if working.epoch != self.epoch:
            self.says("a request left under a lease that somebody else has")
        if now >= self.expires:
            self.says("a request left under a lease that ran out")
        if ends + MARGIN > alive_until + _ROUNDING:
            self.says("a request left that can outlive what its intent says")

    def answered(self, run: str, changes: Iterable[Change], receipts: Iterable[Receipt]) -> None:
        """A process was told what became of its request."""
        ops = {change.key: change.op for change in changes}
        good = self._good.setdefault(run, set())
        for receipt in receipts:
            if receipt.status in _GOOD:
                good.add((self.emails[receipt.key], ops[receipt.key]))

    # --- what is committed --------------------------------------------------------------------------------

    def leased(self, working: Working, lease: Lease, now: float) -> None:
        """A lease was given."""
        if now < self.expires - _ROUNDING and self.lives(self.holder):
            self.says("a lease was taken from somebody who is alive")
        self.epoch = working.epoch = lease.epoch
        self.holder, self.expires = lease.holder, lease.expires

    def renewed(self, lease: Lease) -> None:
        """A lease lasts longer."""
        self.expires = lease.expires

    def released(self, lease: Lease) -> None:
        """A lease was given back; by somebody who lost it, that means nothing."""
        if lease.epoch == self.epoch:
            self.holder, self.expires = "", 0.0

    def wrote(self, lease: Lease, what: str) -> None:
        """A write under a lease was committed."""
        if lease.epoch != self.epoch:
            self.says(f"{what} was committed under a lease that somebody else has")

    def opened(self, working: Working, run: Run, batches: Iterable[BatchRow]) -> None:
        """A run was begun."""
        self._order[run.id] = len(self._order) + 1
        self._plans[run.id] = working.staged
        working.run = run.id
        plan = self.ledger.plan(run.plan or "")
        if plan is None:
            self.says("a run was opened without a plan")
            return
        planned = sum(getattr(plan.counts, op) for op in run.ops)
        rows = sum(b.size for b in batches)
        if rows < planned or (rows > planned and self.kind != "snapshot"):
            self.says(f"the batches of a run have {rows} rows and its plan {planned}")
        if plan.generation != self.ledger.generation(run.sync).number:
            self.says("a run was opened for a plan that is not about the members as they are")

    def acknowledged(self, outcomes: Outcomes, told: int) -> None:
        """An answer was kept; `told` records were said to be taken by the last answer this thread had."""
        if self.kind != "snapshot" and outcomes.applied + outcomes.accepted > told:
            self.says(f"{outcomes.applied + outcomes.accepted} records were kept as taken, and {told} were")

    def before_end(self, sync: str) -> Generation:
        """The generation that a run's end is to follow."""
        return self.ledger.generation(sync)

    def ended(self, working: Working, run: str, end: Settlement, before: Generation) -> None:
        """A run ended."""
        self.unsure |= {self.emails[r.key] for r in end.rejected if r.code == "unknown"}
        if end.generation is not None and self.kind != "snapshot":
            self._folded(run, self.members(before), self.members(end.generation))
        working.green = end.status is RunStatus.COMPLETED
        if working.green:
            self._delivered(self._plans[run])

    def recorded(self, working: Working, run: Run) -> None:
        """A run that sent nothing was kept."""
        working.green = run.status is RunStatus.COMPLETED
        if working.green and working.epoch == self.epoch:
            self._delivered(working.staged)

    def _folded(self, run: str, before: Mapping[str, int], after: Mapping[str, int]) -> None:
        good = self._good.get(run, set())
        set_ = {email for email, value in after.items() if before.get(email) != value}
        unset = set(before) - set(after)
        told = {email for email, op in good if op is not Op.REMOVE}
        gone = {email for email, op in good if op is Op.REMOVE}
        if set_ - told or unset - gone:
            self.says(f"members say what nobody acknowledged: {sorted((set_ - told) | (unset - gone))}")

    def _delivered(self, wanted: Audience) -> None:
        found = {e: v for e, v in self.destination().items() if e not in self.unsure}
        wanted = {e: v for e, v in wanted.items() if e not in self.unsure}
        if found != wanted:
            differ = sorted(e for e in {*found, *wanted} if found.get(e) != wanted.get(e))
            self.says(f"a run was called completed, and {differ} are not as planned")
