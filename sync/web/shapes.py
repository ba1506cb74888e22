"""What the API gives and takes, as models: its description is made from them. Times are ISO 8601 in UTC."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from fastapi import Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from sync.documents import standing_data, verdict_data
from sync.durations import iso
from sync.health import Activity, Health, Standing
from sync.state.nouns import (
    Approval,
    Decision,
    Plan,
    PlanKind,
    PlanStatus,
    RequestKind,
    Run,
    RunRequest,
    RunStatus,
)

SyncName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9_-]{0,79}$", description="The sync's name.")]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9._:#-]{1,100}$")]
Cursor = Annotated[str | None, Query(max_length=100, description="`next` of the page before.")]
SyncFilter = Annotated[str | None, Query(max_length=80, description="Only of this sync.")]
Limit = Annotated[int, Query(ge=1, le=200, description="At most so many.")]
# A letter or a digit has to be in it. Classes are written out: what `\s` means differs from language to language.
_WORDS = r"[0-9A-Za-z\u00c0-\u167f\u1681-\u1fff\u2c00-\u2fff\u3001-\ud7ff]"
Reason = Annotated[str, StringConstraints(min_length=3, max_length=500, pattern=_WORDS), AfterValidator(str.strip)]
Number = float | int | str | None


class _View(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Page(_View):
    """Some of a list. `next` is what asks for those that follow; null after the last."""

    next: str | None


class LastRun(BaseModel):
    """A sync's last run, with its counts."""

    model_config = ConfigDict(extra="allow")

    run: str
    status: RunStatus
    trigger: str
    started_at: str
    finished_at: str | None


class SyncView(_View):
    """A sync at a glance, as `headgate status --json` has it."""

    sync: str
    health: Health
    reasons: list[str]
    activity: Activity
    last_run: LastRun | None
    schedule: str
    next_run: str | None
    next_runs: list[str]
    freshness: float | None = Field(description="Age of the source in seconds.")
    stale_after: float | None
    members: int
    rejected: int
    held_plan: str | None
    paused: str | None = Field(description="Why, where the sync or its destination is.")

    @classmethod
    def of(cls, standing: Standing) -> SyncView:
        """The view of a standing."""
        return cls(**standing_data(standing))


class SyncPage(Page):
    """Syncs, by name."""

    items: list[SyncView]


class RequestStatus(StrEnum):
    """Where a request stands."""

    WAITING = "waiting"
    RUNNING = "running"
    ENDED = "ended"


class RequestView(_View):
    """Something that was asked for.

    `report` is there once it ended: what `headgate run --json` has of a sync, and its `exit_code`.
    """

    id: str
    sync: str
    kind: RequestKind
    status: RequestStatus
    asked_by: str
    asked_at: str
    ended_at: str | None
    report: dict[str, Any] | None

    @classmethod
    def of(cls, request: RunRequest, *, running: bool) -> RequestView:
        """The view of a request; `running`: somebody runs the sync."""
        status = RequestStatus.RUNNING if running and request.taken_at is not None else RequestStatus.WAITING
        return cls(
            id=request.slot,
            sync=request.sync,
            kind=request.kind,
            status=RequestStatus.ENDED if request.ended_at is not None else status,
            asked_by=request.actor,
            asked_at=iso(request.at) or "",
            ended_at=iso(request.ended_at),
            report=None if request.report is None else dict(request.report),
        )


class RunView(_View):
    """One run."""

    run: str
    sync: str
    status: RunStatus
    plan: str | None
    trigger: str
    actor: str
    started_at: str
    finished_at: str | None
    counts: dict[str, int]
    error: dict[str, str] | None

    @classmethod
    def of(cls, run: Run) -> RunView:
        """The view of a run."""
        return cls(
            run=run.id,
            sync=run.sync,
            status=run.status,
            plan=run.plan,
            trigger=run.trigger,
            actor=run.actor,
            started_at=iso(run.started_at) or "",
            finished_at=iso(run.finished_at),
            counts=dict(run.counts),
            error=None if run.error is None else dict(run.error),
        )


class RunPage(Page):
    """Runs, newest first."""

    items: list[RunView]


class CountsView(_View):
    """What a plan holds, as numbers of records."""

    add: int
    update: int
    remove: int
    unchanged: int
    members: int
    invalid: int


class VerdictView(_View):
    """A guardrail's judgement: what it compared, and what it says."""

    guardrail: str
    limit: Number
    value: Number
    answer: str
    message: str


class ApprovalView(_View):
    """A decision on a plan."""

    actor: str
    decision: Decision
    reason: str
    at: str


class PlanView(_View):
    """One plan, without its records."""

    plan: str
    digest: str
    sync: str
    destination: str
    status: PlanStatus
    kind: PlanKind
    reason: str = Field(description="Why it is void, say.")
    counts: CountsView
    verdicts: list[VerdictView]
    needs: int = Field(description="Persons who must approve.")
    approvals: list[ApprovalView]
    created_at: str
    expires_at: str

    @classmethod
    def of(cls, plan: Plan, approvals: list[Approval]) -> PlanView:
        """The view of a plan and of the decisions that count for it."""
        return cls(
            plan=plan.id,
            digest=plan.digest,
            sync=plan.sync,
            destination=plan.destination,
            status=plan.status,
            kind=plan.kind,
            reason=plan.reason,
            counts=CountsView(**{name: getattr(plan.counts, name) for name in CountsView.model_fields}),
            verdicts=[VerdictView(**verdict_data(v)) for v in plan.verdicts],
            needs=plan.needs,
            approvals=[
                ApprovalView(actor=a.actor, decision=a.decision, reason=a.reason, at=iso(a.at) or "")
                for a in approvals
            ],
            created_at=iso(plan.created_at) or "",
            expires_at=iso(plan.expires_at) or "",
        )


class PlanPage(Page):
    """Plans, newest first."""

    items: list[PlanView]


class RejectedCount(_View):
    """So many records of one kind."""

    code: str = Field(description="`rejected` by the destination, or `invalid`: never sent.")
    op: str
    count: int


class RejectedView(_View):
    """How many records of a sync wait to be sent again, and how many were given up."""

    sync: str
    count: int
    given_up: int
    groups: list[RejectedCount]


class PausedView(_View):
    """Whether a sync is paused, and why."""

    sync: str
    paused: str | None


class SamplesView(_View):
    """Some records of a plan, as the destination would be told them."""

    plan: str
    samples: list[dict[str, Any]]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Asked(_Asked):
    """Why something is asked for; kept in the audit log."""

    reason: Annotated[str, StringConstraints(max_length=500), AfterValidator(str.strip)] = ""


class WithReason(_Asked):
    """Why; kept in the audit log."""

    reason: Reason


class DecisionAsked(WithReason):
    """A decision on the plan that has this digest, and on no other."""

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class ApprovalAsked(DecisionAsked):
    """An approval, of the whole plan or of all but its removals."""

    removals: bool = Field(True, description="False keeps the removals held.")


class SamplesAsked(WithReason):
    """Why the records are needed; kept in the audit log."""

    per_op: Annotated[int, Field(ge=1, le=20)] = 3
