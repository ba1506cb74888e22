"""Reports: what several runs of one command add up to, and the exit code they stand for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sync.engine.report import SyncReport, exit_code, joined, with_rest
from sync.state.nouns import Counts, Plan, PlanStatus, Verdict, VerdictAnswer

HOLD = Verdict("removals", VerdictAnswer.HOLD, 10, 20, "too many")
WARN = Verdict("additions", VerdictAnswer.WARN, 10, 20, "many")


def plan(id: str) -> Plan:
    """A plan that only has a name."""
    return Plan(
        id, id, "s", "d", "o", None, "c", PlanStatus.READY, "", "", "", "", 0, "", "", Counts(), (), 0.0, 0.0
    )  # fmt: skip


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (SyncReport("s", "completed"), 0),
        (SyncReport("s", "unchanged"), 0),
        (SyncReport("s", "ready"), 0),
        (SyncReport("s", "completed", counts=Counts(given_up=3)), 0),
        (SyncReport("s", "completed", verdicts=(WARN,)), 0),
        (SyncReport("s", "completed_with_errors"), 4),
        (SyncReport("s", "waiting"), 4),
        (SyncReport("s", "completed", rejected=1), 4),
        (SyncReport("s", "completed", deferred=1), 4),
        (SyncReport("s", "completed", unknown=1), 4),
        (SyncReport("s", "completed", counts=Counts(invalid=1)), 4),
        (SyncReport("s", "completed", counts=Counts(backed_off=1)), 4),
        (SyncReport("s", "held"), 3),
        (SyncReport("s", "completed", verdicts=(HOLD,), rejected=1), 3),
        (SyncReport("s", "failed"), 1),
        (SyncReport("s", "stopped"), 1),
        (SyncReport("s", "cancelled"), 1),
        (SyncReport("s", "sending"), 1),
    ],
)
def test_a_report_has_an_exit_code(report: SyncReport, code: int) -> None:
    assert exit_code([report]) == code


def test_the_gravest_of_several_syncs_counts() -> None:
    green, errors = SyncReport("a", "completed"), SyncReport("b", "completed_with_errors")
    held, failed = SyncReport("c", "held"), SyncReport("d", "failed")

    assert exit_code([]) == 0
    assert exit_code([green, errors]) == 4
    assert exit_code([green, held, errors]) == 3
    assert exit_code([held, errors, failed]) == 1


RESUMED = SyncReport(
    "s", "completed_with_errors", plan=plan("old"), run="r1", resumed="r1", counts=Counts(add=10), applied=8,
    rejected=2, requests=3, retries=1, notes=("finished first",),
)  # fmt: skip


def test_a_later_run_that_delivered_the_rest_clears_the_rejections_of_the_resumed_one() -> None:
    later = SyncReport("s", "completed", plan=plan("new"), run="r2", counts=Counts(add=2), applied=2, requests=1)

    report = joined(RESUMED, later, complete=True)

    assert (report.status, report.applied, report.rejected, report.requests, report.retries) == (
        "completed",
        10,
        0,
        4,
        1,
    )
    assert (report.resumed, report.run, report.notes, exit_code([report])) == ("r1", "r2", ("finished first",), 0)


def test_a_later_run_of_some_ops_only_clears_nothing() -> None:
    later = SyncReport("s", "completed", plan=plan("new"), run="r2", applied=2)

    assert joined(RESUMED, later, complete=False).rejected == 2


@pytest.mark.parametrize("status", ["held", "failed"])
def test_a_later_run_that_sent_nothing_clears_nothing(status: str) -> None:
    later = SyncReport("s", status, plan=plan("new"), code="" if status == "held" else "HG200")

    report = joined(RESUMED, later, complete=True)

    assert (report.status, report.rejected, report.applied) == (status, 2, 8)


def test_a_later_run_with_nothing_to_do_leaves_the_resumed_ones_errors_standing() -> None:
    later = SyncReport("s", "completed", run="r2")

    report = joined(RESUMED, later, complete=True)

    assert (report.status, report.rejected, report.plan, report.counts.add) == (
        "completed_with_errors", 2, RESUMED.plan, 10,
    )  # fmt: skip


def test_additions_and_the_removals_that_were_kept_back_are_one_report() -> None:
    sent = SyncReport("s", "completed", plan=plan("adds"), run="r1", counts=Counts(add=5), applied=5, requests=1)
    rest = SyncReport("s", "held", plan=plan("rest"), run="r2", counts=Counts(remove=7), verdicts=(HOLD,))

    report = with_rest(sent, rest)

    assert (report.status, report.plan, report.run, exit_code([report])) == ("held", rest.plan, "r1", 3)
    assert (report.counts.add, report.counts.remove, report.applied, report.held) == (5, 7, 5, (HOLD,))


def test_removals_that_were_approved_meanwhile_and_went_out_are_counted() -> None:
    sent = SyncReport("s", "completed", counts=Counts(add=5), applied=5, requests=1)
    rest = SyncReport("s", "completed", counts=Counts(remove=7), applied=7, requests=2)

    report = with_rest(sent, rest)

    assert (report.status, report.applied, report.requests) == ("completed", 12, 3)


def test_a_rest_that_failed_fails_the_report() -> None:
    sent = SyncReport("s", "completed", applied=5)
    rest = SyncReport("s", "failed", code="HG403", error="down", fix="wait")

    report = with_rest(sent, rest)

    assert (report.status, report.code, report.error, report.fix, exit_code([report])) == (
        "failed", "HG403", "down", "wait", 1,
    )  # fmt: skip


def test_undelivered_is_what_is_not_known_to_be_there() -> None:
    report = SyncReport(
        "s", "x", rejected=1, deferred=2, unknown=4, counts=Counts(invalid=8, backed_off=16, given_up=32)
    )

    assert report.undelivered == 31
    assert replace(report, rejected=0).undelivered == 30
