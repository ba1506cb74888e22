"""What a run or a plan reports of one sync, and whom it tells while it works."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sync.state.base import Counts, Plan, Verdict, VerdictAnswer

__all__ = ["Observer", "SilentObserver", "SyncReport", "exit_code"]


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
    wall_s: float = 0.0
    code: str = ""  # of the error
    error: str = ""
    fix: str = ""
    notes: tuple[str, ...] = ()  # sentences a person should read

    @property
    def held(self) -> tuple[Verdict, ...]:
        """The verdicts that wait for a decision."""
        return tuple(v for v in self.verdicts if v.answer in (VerdictAnswer.HOLD, VerdictAnswer.HOLD_REMOVALS))

    @property
    def undelivered(self) -> int:
        """Records that should be at the destination and are not known to be."""
        c = self.counts
        return self.rejected + self.deferred + self.unknown + c.invalid + c.backed_off


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
