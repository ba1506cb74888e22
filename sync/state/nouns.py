"""The ledger's nouns: what a run leaves behind, as frozen data.

Times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sync.sdk.nouns import Job, Op, Status

__all__ = [
    "APPROVED_PLANS",
    "DECIDABLE_PLANS",
    "LIVE_PLANS",
    "Approval",
    "Attempt",
    "BatchRow",
    "BatchState",
    "Counts",
    "Decision",
    "Event",
    "Expiry",
    "Generation",
    "Lease",
    "Outcomes",
    "Plan",
    "PlanKind",
    "PlanStatus",
    "Refresh",
    "RejectedRecord",
    "RequestKind",
    "Run",
    "RunRequest",
    "RunStatus",
    "Settlement",
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


APPROVED_PLANS = (PlanStatus.APPROVED, PlanStatus.APPROVED_WITHOUT_REMOVALS)
DECIDABLE_PLANS = (PlanStatus.HELD, *APPROVED_PLANS)
"""Plans that wait for a decision or for the run that a decision allowed."""
LIVE_PLANS = (PlanStatus.READY, *DECIDABLE_PLANS)
"""Plans that may be delivered yet."""


class PlanKind(StrEnum):
    """Where a plan's changes come from."""

    DIFF = "diff"  # the cohort, against members
    REVERT = "revert"  # the inverse of what a run was acknowledged for
    REPAIR = "repair"  # what the destination says, against members
    ERASURE = "erasure"  # the removal of people who are forgotten


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
    expires: float  # by the steady clock
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
    base: str | None = None  # file name inside the sync's members folder, or a part's name
    delta: str | None = None
    fields: tuple[str, ...] = ()  # mapped fields when it was made
    probe: str = ""  # answer of the fingerprint function's probe when it was made
    run: str = ""
    refresh: str = ""
    at: float = 0.0
    digests: Mapping[str, str] = field(default_factory=dict)  # file name -> SHA-256 of the file, or a part's
    place: str = ""  # SOURCE/SCHEMA of the warehouse that keeps it; empty: files of the state folder

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
    forgotten: int = 0  # rows of people who were forgotten, which count nowhere else
    left_out: tuple[tuple[str, str, int], ...] = ()  # of a revert: (op of its run, why it is not undone, records)

    @property
    def not_undone(self) -> int:
        """Records of the run that a revert leaves as they are, though they were to be undone."""
        return sum(records for _, _, records in self.left_out)


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
    kind: PlanKind = PlanKind.DIFF
    origin: str = ""  # the run that a revert undoes

    @property
    def observed(self) -> bool:
        """Was it made from a refresh: then it is void once the source moved."""
        return bool(self.source_version)


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


class RequestKind(StrEnum):
    """What is asked for."""

    RUN = "run"
    PLAN = "plan"  # make a plan and send nothing


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A wish to run a sync, keyed by its slot so that any number of clocks may tick.

    `report` is what became of it, as `run --json` has it: it may stand for several requests of the sync.
    """

    sync: str
    slot: str
    why: str
    actor: str
    at: float
    taken_at: float | None = None
    kind: RequestKind = RequestKind.RUN
    ended_at: float | None = None
    report: Mapping[str, Any] | None = None


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


@dataclass(frozen=True, slots=True)
class Expiry:
    """What may go, as moments in seconds since the epoch: whatever ended before them.

    `needed` are runs to keep whatever their age, and `from_run` is one from which on all are kept.
    """

    unchanged: float  # runs that had nothing to do, refreshes, requests
    runs: float  # all others, with batches, receipts, plans and decisions
    generations: float
    needed: frozenset[str] = frozenset()
    from_run: str = ""
