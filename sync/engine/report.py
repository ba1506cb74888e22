"""What a run or a plan reports of one sync, and whom it tells while it works."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from sync.state.nouns import Counts, Plan, Verdict, VerdictAnswer

if TYPE_CHECKING:
    from sync.sources.base import Reading

__all__ = [
    "Observer",
    "SilentObserver",
    "SyncReport",
    "exit_code",
    "joined",
    "with_erased",
    "with_rest",
    "with_waiting",
]

_DELIVERED = ("applied", "accepted", "requests", "retries")
_UNDELIVERED = ("rejected", "deferred", "unknown")


@dataclass(frozen=True, slots=True)
class SyncReport:
    """The outcome of `plan` or `run` for one sync.

    `status` is a run status, or for a plan that was only made: `ready`, `held` or `unchanged`. `held` has the
    verdicts that hold the plan, or its removals; `plan` is the plan that was made, or the held one.
    """

    sync: str
    status: str
    plan: Plan | None = None
    run: str | None = None
    resumed: str | None = None  # the interrupted run that was finished first
    counts: Counts = field(default_factory=Counts)
    verdicts: tuple[Verdict, ...] = ()
    applied: int = 0
    accepted: int = 0
    rejected: int = 0
    deferred: int = 0
    unknown: int = 0
    requests: int = 0
    retries: int = 0
    forgotten_waiting: int = 0  # people whose removal the destination has not acknowledged
    wall_s: float = 0.0
    code: str = ""  # of the error
    error: str = ""
    fix: str = ""
    notes: tuple[str, ...] = ()  # sentences a person should read
    reading: Reading | None = None  # what the warehouse tells of the query that read the cohort

    @property
    def held(self) -> tuple[Verdict, ...]:
        """The verdicts that wait for a decision."""
        return tuple(v for v in self.verdicts if v.answer in (VerdictAnswer.HOLD, VerdictAnswer.HOLD_REMOVALS))

    @property
    def undelivered(self) -> int:
        """Records that should be at the destination and are not known to be."""
        c = self.counts
        rest = c.invalid + c.backed_off + c.not_undone + self.forgotten_waiting
        return self.rejected + self.deferred + self.unknown + rest


def joined(resumed: SyncReport, report: SyncReport, *, complete: bool) -> SyncReport:
    """One report for a command that finished an interrupted run and then made its own.

    `complete`: the later run could send every op, so that what it has not to tell of is delivered by now.
    """
    idle = report.plan is None and not report.code
    status = resumed.status if idle and resumed.status != "completed" else report.status
    again = complete and report.status in ("completed", "completed_with_errors") and not idle
    return replace(
        report,
        status=status,
        resumed=resumed.resumed,
        plan=report.plan or resumed.plan,
        counts=resumed.counts if idle and resumed.plan else report.counts,
        notes=(*resumed.notes, *report.notes),
        **_sums(resumed, report, _DELIVERED if again else (*_DELIVERED, *_UNDELIVERED)),
    )


def with_rest(sent: SyncReport, rest: SyncReport) -> SyncReport:
    """One report for additions and updates that were sent, and for the removals that were kept back then."""
    return replace(
        sent,
        status=rest.status if rest.status == "held" or rest.code else sent.status,
        plan=rest.plan or sent.plan,
        counts=replace(sent.counts, remove=rest.counts.remove),
        verdicts=rest.verdicts,
        code=rest.code,
        error=rest.error,
        fix=rest.fix,
        notes=(*sent.notes, *rest.notes),
        **_sums(sent, rest, (*_DELIVERED, *_UNDELIVERED)),
    )


def with_erased(erased: SyncReport, report: SyncReport) -> SyncReport:
    """One report for removals of forgotten people, and for the run that came after them."""
    if erased.status == "held" and report.status != "held":
        return with_rest(replace(report, plan=erased.plan), erased)
    status = erased.status if report.status == "completed" else report.status
    return replace(
        report,
        status=status,
        plan=report.plan or erased.plan,
        counts=replace(report.counts, remove=report.counts.remove + erased.counts.remove),
        **_sums(erased, report, (*_DELIVERED, *_UNDELIVERED)),
    )


def with_waiting(report: SyncReport, people: int) -> SyncReport:
    """A report that says how many forgotten people the destination still has; it is not green."""
    note = f"{people:,} forgotten {'person is' if people == 1 else 'people are'} still to be removed"
    status = "completed_with_errors" if report.status == "completed" else report.status
    return replace(report, status=status, forgotten_waiting=people, notes=(*report.notes, note))


def _sums(first: SyncReport, second: SyncReport, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(first, name) + getattr(second, name) for name in names}


class Observer(Protocol):
    """Is told what a run does; it must not block and must not raise."""

    def phase(self, sync: str, phase: str, detail: str = "") -> None:
        """A phase began: refresh, diff, guard, deliver, record."""

    def progress(self, sync: str, done: int, total: int) -> None:
        """Records of the plan that have an outcome."""

    def note(self, sync: str, message: str) -> None:
        """Something worth a line: a retry, a wait, a stop."""


class SilentObserver:
    """Tells nobody."""

    def phase(self, sync: str, phase: str, detail: str = "") -> None:
        """Ignore it."""

    def progress(self, sync: str, done: int, total: int) -> None:
        """Ignore it."""

    def note(self, sync: str, message: str) -> None:
        """Ignore it."""


def exit_code(reports: list[SyncReport]) -> int:
    """The command's exit code: the gravest of its syncs', failed before held before undelivered."""
    codes = {_code(r) for r in reports}
    return next((code for code in (1, 3, 4) if code in codes), 0)


def _code(report: SyncReport) -> int:
    if report.status in ("failed", "stopped", "cancelled", "sending"):
        return 1
    if report.status == "held" or report.held:
        return 3
    if report.status in ("completed_with_errors", "waiting") or report.undelivered:
        return 4
    return 0
