"""What people are told of: the names of conditions, as mappings, settings, the ledger and alerts use them."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["CONDITIONS", "Condition"]


class Condition(StrEnum):
    """What can be wrong with a sync, its cohort or its destination, and lasts until it is not any more."""

    FAILED = "failed"  # its last run failed, or a guardrail stopped it
    AUTH = "auth"  # the destination does not take our credentials
    HELD = "held"  # a plan waits for a decision
    REJECTED = "rejected"  # too many records are refused or unknown
    STALE = "stale"  # the cohort's source is older than it may be
    DRIFT = "drift"  # the cohort has fewer or more rows than it should have
    LATE = "late"  # a run that was due, or asked for, has not ended
    REFUSED = "refused"  # changed files are refused, and older ones are in force
    RECOVERED = "recovered"  # no condition: whoever asks for it is told of the end of every one


CONDITIONS = tuple(c for c in Condition if c is not Condition.RECOVERED)
"""All that last."""
