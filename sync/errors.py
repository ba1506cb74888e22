"""Every public error, grouped by what the caller does next.

    HeadgateError                   has a code; `headgate explain CODE` prints the long form
    ├─ ProjectError                 a person mends a file; nothing was started       (exit 2)
    ├─ UsageError                   the command's words are off                      (exit 2)
    ├─ SourceError                  the warehouse cannot answer; nothing was sent    (exit 1)
    │  └─ CohortError               the cohort is not fit to be synced               (exit 1)
    ├─ StateError                   the ledger or a state file stands in the way     (exit 1)
    │  ├─ LeaseHeld                 somebody else runs this sync: wait
    │  ├─ Fenced                    our lease was taken over: stop at once
    │  └─ Corrupt                   a file is not what the ledger says: send nothing
    ├─ DecisionError                a plan cannot be approved, rejected or executed  (exit 1)
    └─ DestinationError             what a connector raises; it speaks for the whole batch
       ├─ AuthError                 pause the destination, tell a person
       ├─ RequestError              the batch was refused: bisect it to find the record
       ├─ Unavailable               retry the same batch, with backoff
       │  └─ RateLimited            the same, but not before `retry_after` seconds
       └─ ProtocolError             unknown shape: the outcome is unknown

Messages are for people and are logged: they never hold a secret or personal data. What a destination or a
row said goes to `detail`, which is evidence: never logged, never shown unmasked.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "AuthError",
    "CohortError",
    "Corrupt",
    "DecisionError",
    "DestinationError",
    "Fenced",
    "HeadgateError",
    "LeaseHeld",
    "Problem",
    "ProjectError",
    "ProtocolError",
    "RateLimited",
    "RequestError",
    "SourceError",
    "StateError",
    "Unavailable",
    "UsageError",
]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing a person has to mend.

    `code` is explained by `headgate explain CODE`; `line` and `column` count from 1, 0 means "the file as a
    whole"; `excerpt` is the offending line, shown with a caret under `column`.
    """

    code: str
    message: str
    fix: str = ""
    file: str = ""
    line: int = 0
    column: int = 0
    excerpt: str = ""
    warning: bool = False

    @property
    def where(self) -> str:
        """`file:line:col`, as far as it is known."""
        parts = [self.file] if self.file else []
        if self.line:
            parts += [str(self.line), str(self.column or 1)]
        return ":".join(parts)


class HeadgateError(Exception):
    """The root: a code, a message for people, and how to fix it."""

    code = "HG900"

    def __init__(self, message: str, *, code: str | None = None, fix: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.fix = fix


class ProjectError(HeadgateError):
    """Files of the project are invalid; carries every problem found, not only the first."""

    code = "HG100"

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{first.message}{more}", code=first.code, fix=first.fix)
        self.problems = problems


class UsageError(HeadgateError):
    """The command cannot be carried out as written."""

    code = "HG190"


class SourceError(HeadgateError):
    """The warehouse did not answer."""

    code = "HG200"


class CohortError(SourceError):
    """The cohort's rows are not fit to be synced; nothing was sent."""

    code = "HG210"


class StateError(HeadgateError):
    """The ledger or a state file stands in the way."""

    code = "HG300"


class LeaseHeld(StateError):
    """Another process runs this sync."""

    code = "HG301"


class Fenced(StateError):
    """This process lost its lease; whatever it still had to write was refused."""

    code = "HG302"


class Corrupt(StateError):
    """A state file is missing or is not what the ledger recorded."""

    code = "HG303"


class DecisionError(HeadgateError):
    """A plan cannot be decided on or executed: unknown, expired, void, or not by this person."""

    code = "HG500"


class DestinationError(HeadgateError):
    """A destination answered for the whole batch, and not with receipts.

    `detail` is what the destination said, cut to a few thousand characters: evidence, which may hold personal
    data.
    """

    code = "HG400"

    def __init__(self, message: str, detail: str = "", *, code: str | None = None, fix: str = "") -> None:
        super().__init__(message, code=code, fix=fix)
        self.detail = detail[:4000]


class AuthError(DestinationError):
    """The destination does not accept our credentials: pause it and tell a person."""

    code = "HG401"


class RequestError(DestinationError):
    """The destination refused this batch and would refuse it again: bisect it."""

    code = "HG402"


class Unavailable(DestinationError):
    """The destination cannot be reached or failed on its side: retry the same batch.

    `applied` is False where the request certainly changed nothing (it was never sent, or the destination
    says so) and None where that is unknown. `retry_after` is in seconds, None where the destination did not
    say.
    """

    code = "HG403"

    def __init__(
        self,
        message: str,
        detail: str = "",
        *,
        applied: bool | None = None,
        retry_after: float | None = None,
        fix: str = "",
    ) -> None:
        super().__init__(message, detail, fix=fix)
        self.applied = applied
        self.retry_after = retry_after


class RateLimited(Unavailable):
    """The destination asks us to wait; nothing was applied."""

    code = "HG404"

    def __init__(self, message: str, detail: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message, detail, applied=False, retry_after=retry_after)


class ProtocolError(DestinationError):
    """The answer has a shape we do not know: nobody can tell what was applied."""

    code = "HG405"
