"""What the engine asks of the state: a reader for whoever only looks, and the writer.

Every write of a run carries its lease; it fails with `Fenced`, and writes nothing, once the lease's epoch moved
on. Each method is one transaction. Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sync.sdk.nouns import Job, Op, Status
from sync.state.erasures import Erasure, ErasurePart, ErasureState, Forgotten, Rewrite
from sync.state.nouns import (
    Approval,
    Attempt,
    BatchRow,
    BatchState,
    Event,
    Expiry,
    Generation,
    Lease,
    Outcomes,
    Plan,
    PlanStatus,
    Refresh,
    RejectedRecord,
    RequestKind,
    Run,
    RunRequest,
    RunStatus,
    Settlement,
)

__all__ = ["State", "StateReader"]


class StateReader(ABC):
    """Looks, and never writes."""

    @abstractmethod
    def now(self) -> float:
        """The database's clock, in seconds since the epoch."""

    @abstractmethod
    def steady(self) -> float:
        """The clock of leases and barriers, in seconds: like `now`, but nobody can set it."""

    @abstractmethod
    def lease(self, sync: str) -> Lease | None:
        """Who holds the sync now; None where nobody does or the lease ran out (`deadline` is 0)."""

    @abstractmethod
    def leases(self) -> list[tuple[Lease, float]]:
        """Every lease that was not given back, and for how many seconds it lasts; negative where it ran out."""

    @abstractmethod
    def generation(self, sync: str, number: int | None = None) -> Generation:
        """The current generation, or that one; number 0 with no files where there is none yet."""

    @abstractmethod
    def generations(self, sync: str) -> list[Generation]:
        """All of a sync's generations, oldest first."""

    @abstractmethod
    def refreshes(self, sync: str, *, accepted: bool | None = None, limit: int = 20) -> list[Refresh]:
        """The newest refreshes, newest first."""

    @abstractmethod
    def refresh(self, id: str) -> Refresh | None:
        """One refresh."""

    @abstractmethod
    def plan(self, name: str) -> Plan | None:
        """A plan by its id, or by its digest or any unique prefix of it of at least 6 digits."""

    @abstractmethod
    def plans(
        self,
        sync: str | None = None,
        *statuses: PlanStatus,
        among: Collection[str] | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[Plan]:
        """Plans, newest first, those older than the plan `before`; all statuses where none is named.

        `among` are the syncs that may be looked at.
        """

    @abstractmethod
    def approvals(self, plan: str) -> list[Approval]:
        """The decisions on a plan, oldest first."""

    @abstractmethod
    def run(self, id: str) -> Run | None:
        """One run."""

    @abstractmethod
    def runs(
        self,
        sync: str | None = None,
        *,
        among: Collection[str] | None = None,
        limit: int = 20,
        before: str | None = None,
    ) -> list[Run]:
        """Runs, newest first, those older than the run `before`; `among` are the syncs that may be looked at."""

    @abstractmethod
    def last_ended(self, sync: str) -> int:
        """The ledger's number of the newest run that has ended; 0 where none has."""

    @abstractmethod
    def runs_since(self, sync: str, number: int, *, limit: int = 100) -> list[tuple[int, Run]]:
        """The runs after that number, each with its own, oldest first, up to the first that has not ended."""

    @abstractmethod
    def open_run(self, sync: str) -> Run | None:
        """The run that was interrupted while it was sending or waiting."""

    @abstractmethod
    def open_runs(self) -> list[Run]:
        """Every run that is sending or waiting, or was interrupted in that; oldest first."""

    @abstractmethod
    def batches(self, run: str, *states: BatchState) -> list[BatchRow]:
        """A run's batches in delivery order (by first row); all states where none is named."""

    @abstractmethod
    def exceptions(self, run: str) -> list[tuple[int, str, Op, Status, str]]:
        """A run's records that were not plainly applied: (row, key, op, status, reason)."""

    @abstractmethod
    def remote_ids(self, run: str) -> dict[int, str]:
        """Row of the plan file -> the platform's own id, as far as this run's receipts told."""

    @abstractmethod
    def attempts(self, run: str) -> list[Attempt]:
        """A run's unsettled attempts."""

    @abstractmethod
    def barrier(self, sync: str, run: str) -> float:
        """Until when an unsettled attempt of another run of this sync can be alive, by the steady clock; 0 where
        none can."""

    @abstractmethod
    def dirty(self, sync: str) -> list[tuple[str, str, int, Op]]:
        """Members whose state at the destination is uncertain: (key, run, row of its plan file, op)."""

    @abstractmethod
    def rejected(self, sync: str | None = None, *, given_up: bool | None = None) -> list[RejectedRecord]:
        """Rejected records, newest first."""

    @abstractmethod
    def undelivered(self, sync: str) -> tuple[int, int]:
        """How many records are refused and not given up, and of how many the outcome is unknown."""

    @abstractmethod
    def removed_since(self, sync: str, since: float) -> int:
        """Removals acknowledged in runs that ended since then and that no person approved."""

    @abstractmethod
    def requests(self, sync: str | None = None, *, open_only: bool = True) -> list[RunRequest]:
        """Run requests, oldest first."""

    @abstractmethod
    def unanswered(self, sync: str) -> list[RunRequest]:
        """Requests that were taken and not answered, oldest first: somebody is at work on them, or was."""

    @abstractmethod
    def request(self, sync: str, slot: str) -> RunRequest | None:
        """One run request."""

    @abstractmethod
    def last_slot(self, sync: str) -> str | None:
        """The newest slot of the schedule that was ever asked for."""

    @abstractmethod
    def paused(self) -> dict[str, str]:
        """Paused syncs and destinations (`destination:NAME`) -> the reason."""

    @abstractmethod
    def note(self, sync: str, name: str) -> str | None:
        """A remembered fact about a sync (its cohort's definition digest, say)."""

    @abstractmethod
    def erasure(self, id: str) -> Erasure | None:
        """One erasure, by its id or a beginning of it that no other has."""

    @abstractmethod
    def erasures(self, *, limit: int = 20) -> list[Erasure]:
        """Erasures, newest first."""

    @abstractmethod
    def erasure_parts(
        self, *states: ErasureState, sync: str | None = None, erasure: str | None = None
    ) -> list[ErasurePart]:
        """Parts of erasures, by sync; all states where none is named."""

    @abstractmethod
    def forgotten(self, sync: str) -> list[Forgotten]:
        """What keeps people out of a sync; the same digest may come from two erasures."""

    @abstractmethod
    def erasures_of(self, digests: Iterable[str]) -> set[str]:
        """The erasures that one of these digests belongs to."""

    @abstractmethod
    def person(self, actor: str) -> str:
        """Who stands behind an actor: whoever made the token, for `token:NAME`; else the actor."""

    @abstractmethod
    def known_syncs(self) -> list[str]:
        """Every sync that something is remembered of, also those that no mapping has any more."""


class State(StateReader):
    """Writes. Methods that take a lease raise `Fenced`, and write nothing, if it was taken over."""

    # --- leases -------------------------------------------------------------------------------------------

    @abstractmethod
    def acquire(self, sync: str, holder: str, ttl: float, *, dead: str | None = None) -> Lease:
        """Take the lease and raise its epoch, or raise `LeaseHeld` naming the holder and the time left.

        `dead` names a holder that is known to be gone: its lease may be taken before it runs out.
        """

    @abstractmethod
    def renew(self, lease: Lease, ttl: float) -> Lease:
        """Hold it for `ttl` seconds more."""

    @abstractmethod
    def release(self, lease: Lease) -> None:
        """Give it back; harmless where it was lost."""

    # --- planning -----------------------------------------------------------------------------------------

    @abstractmethod
    def add_refresh(self, lease: Lease, refresh: Refresh) -> None:
        """Keep an observation."""

    @abstractmethod
    def add_plan(self, lease: Lease, plan: Plan, events: Sequence[Event] = ()) -> None:
        """Keep a plan; held or ready ones of the same sync and kind, not decided, become void and say why."""

    @abstractmethod
    def set_plan(self, plan: str, status: PlanStatus, reason: str = "", events: Sequence[Event] = ()) -> None:
        """Move a plan to `void` or `expired`."""

    @abstractmethod
    def decide(self, approval: Approval, events: Sequence[Event] = (), request: RunRequest | None = None) -> Plan:
        """Keep a decision on a held plan and return the plan as it stands then.

        The plan leaves `held` once a rejection, or as many different persons' approvals as it needs, are in.
        Where it is approved by this decision, the run of `request` is asked for with it.
        Raises `DecisionError` where the plan is not held, or this person decided already.
        """

    # --- sending ------------------------------------------------------------------------------------------

    @abstractmethod
    def open(self, lease: Lease, run: Run, batches: Sequence[BatchRow], events: Sequence[Event] = ()) -> None:
        """Keep the run and all its batches before anything is sent."""

    @abstractmethod
    def add_run(self, run: Run, events: Sequence[Event] = ()) -> None:
        """Keep a run that sends nothing (held, failed while planning, or nothing to do)."""

    @abstractmethod
    def set_run(self, lease: Lease, run: str, status: RunStatus) -> None:
        """Move an open run, `sending` to `waiting` say; it also takes the lease's epoch."""

    @abstractmethod
    def intend(self, lease: Lease, run: str, batch: int, alive_for: float) -> Attempt:
        """Commit, before the first byte, that a request is about to leave; from `planned` or `intent`.

        `alive_for` is in seconds; the attempt's `alive_until` is by the steady clock.
        """

    @abstractmethod
    def settle(self, lease: Lease, attempt: Attempt) -> None:
        """The destination answered this attempt, and nothing was applied."""

    @abstractmethod
    def acknowledge(self, lease: Lease, attempt: Attempt, outcomes: Outcomes) -> None:
        """Keep the answer: only from `intent` or `job`, once; the attempt is settled with it."""

    @abstractmethod
    def keep_job(self, lease: Lease, attempt: Attempt, job: Job) -> None:
        """The platform finishes this batch later, or said how far it is; the attempt is settled with it."""

    @abstractmethod
    def split(self, lease: Lease, attempt: Attempt, children: Sequence[BatchRow]) -> None:
        """Replace a refused batch by smaller ones; the attempt is settled with it."""

    @abstractmethod
    def park(self, lease: Lease, run: str, batch: int) -> None:
        """Nobody can tell what became of this batch, and it must not be sent again."""

    @abstractmethod
    def finish(self, lease: Lease, run: str, settlement: Settlement) -> None:
        """End a run. Planned batches become cancelled.

        Raises `Fenced` where the current generation is not the one before `settlement.generation`.
        """

    # --- the rest -----------------------------------------------------------------------------------------

    @abstractmethod
    def set_rejected(
        self, sync: str, keys: Iterable[str], *, retry: bool, actor: str, reason: str, events: Sequence[Event] = ()
    ) -> int:
        """Try these again at the next run (`retry`), or give them up; returns how many there were."""

    @abstractmethod
    def drop_rejected(self, lease: Lease, keys: Iterable[str]) -> None:
        """These keys of the lease's sync are in step with the source again."""

    @abstractmethod
    def request_run(self, request: RunRequest) -> bool:
        """Ask for a run; False where the slot was asked for before."""

    @abstractmethod
    def notice(
        self, sync: str, name: str, before: str | None, value: str, request: RunRequest | None = None
    ) -> bool:
        """Remember a fact that was `before` until now, and ask for the run that follows from it.

        False, and nothing is kept, where the fact is another by now: somebody noticed first. None stands for one
        that was never remembered.
        """

    @abstractmethod
    def take_request(self, sync: str, slot: str) -> bool:
        """Mark a request as taken; False where somebody took it."""

    @abstractmethod
    def withdraw(self, sync: str, slot: str, report: Mapping[str, Any], events: Sequence[Event] = ()) -> bool:
        """Answer a request before anybody takes it; False, and nothing is kept, where somebody took it."""

    @abstractmethod
    def give_back(self, sync: str, slots: Iterable[str]) -> None:
        """These requests were not taken after all, unless they are answered."""

    @abstractmethod
    def answer_requests(
        self,
        sync: str,
        slots: Iterable[str],
        report: Mapping[str, Any],
        *,
        kind: RequestKind = RequestKind.RUN,
        until: float | None = None,
    ) -> None:
        """Keep what became of requests, and of those taken before them, or `until` then, that nobody answered.

        These are of a run that waited for its jobs, or whose daemon died: only of their `kind`.
        """

    @abstractmethod
    def pause(self, name: str, reason: str | None, events: Sequence[Event] = ()) -> None:
        """Pause a sync or a `destination:NAME`; None resumes it."""

    @abstractmethod
    def remember(self, lease: Lease, name: str, value: str) -> None:
        """Remember a fact about the lease's sync."""

    @abstractmethod
    def prune(self, lease: Lease, expiry: Expiry) -> dict[str, int]:
        """Delete rows of the lease's sync that expired; returns how many of each kind.

        What may go in one transaction is limited: call it again while it deletes runs or plans.
        """

    @abstractmethod
    def record(self, *events: Event) -> None:
        """Append to the audit log."""

    # --- people who are forgotten -------------------------------------------------------------------------

    @abstractmethod
    def forget(
        self,
        leases: Sequence[Lease],
        erasure: Erasure,
        forgotten: Sequence[Forgotten],
        parts: Sequence[ErasurePart],
        plans: Mapping[str, Sequence[str]],
        events: Sequence[Event] = (),
    ) -> None:
        """Keep an erasure before anything is erased, and keep the person out of every plan from here on.

        `plans` has sync -> files of plans with the person: those that may still be delivered become void.
        """

    @abstractmethod
    def rewrite(self, lease: Lease, rewrite: Rewrite) -> None:
        """Name the files that took the place of others, and take the person's rows out of the ledger."""

    @abstractmethod
    def end_erasure(self, lease: Lease, part: ErasurePart, events: Sequence[Event] = ()) -> None:
        """A part of an erasure is over: its keys go."""

    @abstractmethod
    def unquote(self, words: Iterable[str], *, compact: bool = False) -> int:
        """Take words out of what destinations said of other records; returns how many texts had one.

        `compact` then writes the ledger's file anew, without what was deleted.
        """

    @abstractmethod
    def remember_again(
        self,
        leases: Sequence[Lease],
        erasures: Iterable[str],
        actor: str,
        reason: str,
        events: Sequence[Event] = (),
    ) -> None:
        """Take erasures back: the person may be sent again. Removals that were not made are not made."""

    @abstractmethod
    def move(self, lease: Lease, generation: Generation, events: Sequence[Event] = ()) -> None:
        """Name the same members, kept in another place, as the current generation (state migrate)."""

    @abstractmethod
    def reset(self, lease: Lease, generation: Generation, events: Sequence[Event] = ()) -> None:
        """Name another generation as the current one (state reset, merge); rejected and dirty rows go."""
