"""What the engine asks of the state: the ledger's nouns, a reader for whoever only looks, and the writer.

Times are seconds since the epoch, UTC. Every write of a run carries its lease; it fails with `Fenced`, and
writes nothing, once the lease's epoch moved on. Each method below is one transaction.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sync.sdk.nouns import Job, Op, Status

__all__ = [
    "Approval",
    "Attempt",
    "BatchRow",
    "BatchState",
    "Counts",
    "Decision",
    "Event",
    "Generation",
    "Lease",
    "Outcomes",
    "Plan",
    "PlanStatus",
    "Refresh",
    "RejectedRecord",
    "Run",
    "RunRequest",
    "RunStatus",
    "Settlement",
    "State",
    "StateReader",
    "Verdict",
    "VerdictAnswer",
]


class VerdictAnswer(StrEnum):
    """What a guardrail says of a plan, from mild to strict."""

    ALLOW = "allow"
    WARN = "warn"
    HOLD_REMOVALS = "hold_removals"
    HOLD = "hold"


class PlanStatus(StrEnum):
    """Where a plan stands."""

    READY = "ready"  # no guardrail objects
    HELD = "held"
    APPROVED = "approved"
    APPROVED_WITHOUT_REMOVALS = "approved_without_removals"
    REJECTED = "rejected"
    VOID = "void"  # its inputs moved, or a newer plan replaced it
    EXPIRED = "expired"
    EXECUTED = "executed"


class Decision(StrEnum):
    """What a person decided on a plan."""

    APPROVE = "approve"
    APPROVE_WITHOUT_REMOVALS = "approve_without_removals"
    REJECT = "reject"


class RunStatus(StrEnum):
    """Where a run stands. `SENDING` and `WAITING` are open: the next run resumes them."""

    QUEUED = "queued"
    PLANNING = "planning"
    HELD = "held"
    SENDING = "sending"
    WAITING = "waiting"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    STOPPED = "stopped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class BatchState(StrEnum):
    """Where a batch stands. A batch leaves the first three only with an answer, or parked for a person."""

    PLANNED = "planned"
    INTENT = "intent"  # a request may be under way, or may have been when we crashed
    JOB = "job"  # the platform took it and finishes later
    ACKED = "acked"
    SPLIT = "split"  # its children carry its rows
    PARKED = "parked"  # its outcome is unknown and must not be tried again
    CANCELLED = "cancelled"  # never sent; the next plan has its rows again


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to run one sync.

    `deadline` is on this machine's boot-time clock: until then, and not longer, the holder may believe it.
    """

    sync: str
    holder: str
    epoch: int
    expires: float  # by the database's clock
    deadline: float


@dataclass(frozen=True, slots=True)
class Refresh:
    """One observed version of a cohort, as one sync sees it."""

    id: str
    sync: str
    cohort: str
    at: float
    rows: int
    invalid: int
    version: str  # digest of the mapped rows: equal when nothing mapped has moved
    definition: str  # digest of table or query, and key
    cause: str  # who or what asked for it
    newest: float | None = None  # newest `updated_at`
    nulls: Mapping[str, int] = field(default_factory=dict)  # mapped field -> rows where it is null
    key_sum: str = ""  # order-free digest of the keys: equal keys need no second look for duplicates
    accepted: bool = False  # did a run deliver it: only those count for the trailing median


@dataclass(frozen=True, slots=True)
class Generation:
    """One immutable version of a sync's members: a base file and one delta over it, either may be absent."""

    sync: str
    number: int
    members: int
    base: str | None = None  # file name inside the sync's members folder
    delta: str | None = None
    fields: tuple[str, ...] = ()  # mapped fields when it was made
    probe: str = ""  # answer of the fingerprint function's probe when it was made
    run: str = ""
    refresh: str = ""
    at: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)  # file name -> SHA-256 of the file

    @property
    def blank(self) -> bool:
        """Is nothing remembered: the sync never delivered anything, or was reset since."""
        return self.base is None and self.delta is None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One guardrail's judgement; `limit` and `value` are what it compared."""

    guardrail: str
    answer: VerdictAnswer
    limit: float | int | str | None
    value: float | int | str | None
    message: str


@dataclass(frozen=True, slots=True)
class Counts:
    """What a plan holds."""

    add: int = 0
    update: int = 0
    remove: int = 0
    unchanged: int = 0
    members: int = 0  # before the plan
    invalid: int = 0
    backed_off: int = 0  # rejected before; not tried again yet
    given_up: int = 0  # rejected before; a person gave them up
    removals_kept_back: int = 0  # not in this plan: a guardrail keeps them for a decision


@dataclass(frozen=True, slots=True)
class Plan:
    """A frozen changeset: the file's digest, the inputs it was made from, and what the guardrails said."""

    id: str  # first 12 digits of `digest`
    digest: str
    sync: str
    destination: str
    object: str
    audience: str | None
    cohort: str
    status: PlanStatus
    file: str  # relative to the state folder; empty where there is nothing to send
    file_sha256: str
    inputs: str  # digest of everything below that was observed rather than decided
    mapping_digest: str
    generation: int
    refresh: str
    source_version: str
    counts: Counts
    verdicts: tuple[Verdict, ...]
    created_at: float
    expires_at: float
    needs: int = 1  # persons who must approve
    reason: str = ""  # why it is void, say
    author: str = ""  # who last changed the mapping


@dataclass(frozen=True, slots=True)
class Approval:
    """A person's decision on one plan digest."""

    plan: str
    digest: str
    decision: Decision
    actor: str
    reason: str
    at: float


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a sync."""

    id: str
    sync: str
    status: RunStatus
    plan: str | None
    ops: frozenset[Op]  # the ops of the plan that this run sends
    trigger: str  # cli, schedule, approval, resume
    actor: str
    started_at: float
    finished_at: float | None = None
    epoch: int = 0
    approved: bool = False  # did a person approve its removals
    counts: Mapping[str, int] = field(default_factory=dict)  # applied, accepted, rejected, deferred, unknown...
    error: Mapping[str, str] | None = None  # code, message


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch as the ledger has it: a range of rows of the plan file, both ends included.

    `applied` to `unknown` count its records once it is acknowledged.
    """

    run: str
    number: int
    id: str  # the idempotency key
    phase: int  # a phase is sent only when the phase before it is done
    op: str  # add, update, remove, or mixed
    first: int
    last: int
    state: BatchState = BatchState.PLANNED
    parent: int | None = None
    attempts: int = 0
    applied: int = 0
    accepted: int = 0
    rejected: int = 0
    deferred: int = 0
    unknown: int = 0
    job: Job | None = None

    @property
    def size(self) -> int:
        """Records in the batch."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request that may be under way: `alive_until` is the latest moment it can still be alive."""

    id: int
    run: str
    batch: int
    epoch: int
    alive_until: float


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the answer said of a batch, record by record: only the records that were not plainly applied.

    `exceptions` has (row of the plan file, key, op, status, reason); the other rows of the batch count as
    applied. `remote_ids` maps a row of the plan file to the platform's own id.
    """

    applied: int
    accepted: int = 0
    exceptions: Sequence[tuple[int, str, Op, Status, str]] = ()
    remote_ids: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A change that the destination refused, or that we refused to send, until it succeeds or is given up."""

    sync: str
    key: str
    op: str
    code: str  # `rejected` or `invalid`
    reason: str  # evidence: mask it where it is shown
    fingerprint: str
    run: str  # whose exceptions file holds the record's values
    row: int
    attempts: int
    first_at: float
    last_at: float
    next_at: float  # not tried again before
    given_up_by: str | None = None
    given_up_reason: str | None = None
    given_up_at: float | None = None


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A wish to run a sync, keyed by its slot so that any number of clocks may tick."""

    sync: str
    slot: str
    why: str
    actor: str
    at: float
    taken_at: float | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something the audit log keeps. `data` holds no secret and no personal data."""

    actor: str
    action: str  # noun.verb: plan.held, plan.approved, run.completed
    object: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settlement:
    """Everything that becomes true when a run ends, written in one transaction.

    `rejected` replaces rows with the same key; `resolved` keys are no longer rejected; `dirty` has
    (key, row of the plan file, op) whose outcome is unknown, and `clean` the keys that are certain again.
    """

    status: RunStatus
    counts: Mapping[str, int]
    generation: Generation | None = None  # compare-and-set on the number before it
    accept_refresh: str | None = None
    rejected: Sequence[RejectedRecord] = ()
    resolved: Iterable[str] = ()
    dirty: Sequence[tuple[str, int, Op]] = ()
    clean: Iterable[str] = ()
    plan_status: PlanStatus | None = None
    error: Mapping[str, str] | None = None
    events: Sequence[Event] = ()


class StateReader(ABC):
    """Looks, and never writes."""

    @abstractmethod
    def now(self) -> float:
        """The database's clock."""

    @abstractmethod
    def lease(self, sync: str) -> Lease | None:
        """Who holds the sync now; None where nobody does or the lease ran out (`deadline` is 0)."""

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
    def plans(self, sync: str | None = None, *statuses: PlanStatus, limit: int = 50) -> list[Plan]:
        """Plans, newest first; all statuses where none is named."""

    @abstractmethod
    def approvals(self, plan: str) -> list[Approval]:
        """The decisions on a plan, oldest first."""

    @abstractmethod
    def run(self, id: str) -> Run | None:
        """One run."""

    @abstractmethod
    def runs(self, sync: str | None = None, *, limit: int = 20) -> list[Run]:
        """Runs, newest first."""

    @abstractmethod
    def open_run(self, sync: str) -> Run | None:
        """The run that was interrupted while it was sending or waiting."""

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
        """Until when an unsettled attempt of another run of this sync can be alive; 0 where none can."""

    @abstractmethod
    def dirty(self, sync: str) -> list[tuple[str, str, int, Op]]:
        """Members whose state at the destination is uncertain: (key, run, row of its plan file, op)."""

    @abstractmethod
    def rejected(self, sync: str | None = None, *, given_up: bool | None = None) -> list[RejectedRecord]:
        """Rejected records, newest first."""

    @abstractmethod
    def removed_since(self, sync: str, since: float) -> int:
        """Removals acknowledged in runs that ended since then and that no person approved."""

    @abstractmethod
    def requests(self, sync: str | None = None, *, open_only: bool = True) -> list[RunRequest]:
        """Run requests, oldest first."""

    @abstractmethod
    def last_slot(self, sync: str) -> str | None:
        """The newest slot that was ever asked for."""

    @abstractmethod
    def paused(self) -> dict[str, str]:
        """Paused syncs and destinations (`destination:NAME`) -> the reason."""

    @abstractmethod
    def note(self, sync: str, name: str) -> str | None:
        """A remembered fact about a sync (its cohort's definition digest, say)."""


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
        """Keep a plan; held or ready plans of the same sync that were not decided become void, and say why."""

    @abstractmethod
    def set_plan(self, plan: str, status: PlanStatus, reason: str = "", events: Sequence[Event] = ()) -> None:
        """Move a plan to `void` or `expired`."""

    @abstractmethod
    def decide(self, approval: Approval, events: Sequence[Event] = ()) -> Plan:
        """Keep a decision on a held plan and return the plan as it stands then.

        The plan leaves `held` once a rejection, or as many different persons' approvals as it needs, are in.
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

        `alive_for` is in seconds; the attempt's `alive_until` is by the database's clock.
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
    def take_request(self, sync: str, slot: str) -> bool:
        """Mark a request as taken; False where somebody took it."""

    @abstractmethod
    def pause(self, name: str, reason: str | None, events: Sequence[Event] = ()) -> None:
        """Pause a sync or a `destination:NAME`; None resumes it."""

    @abstractmethod
    def remember(self, lease: Lease, name: str, value: str) -> None:
        """Remember a fact about the lease's sync."""

    @abstractmethod
    def record(self, *events: Event) -> None:
        """Append to the audit log."""

    @abstractmethod
    def reset(self, lease: Lease, generation: Generation, events: Sequence[Event] = ()) -> None:
        """Name another generation as the current one (state reset, merge); rejected and dirty rows go."""
