"""Named points at which a test kills or freezes the process: around whatever becomes durable, and around requests.

Off unless the environment says otherwise before the process starts:

    HEADGATE_FAULT=intend.after:3:kill       # at its third visit: SIGKILL to this process
    HEADGATE_FAULT=request.leaving:1:stop    # at its first visit: SIGSTOP; SIGCONT goes on

Several are joined by commas. Where it is off, `durable` returns the function it is given and `reached` is an empty
function: nothing is counted or compared.
"""

from __future__ import annotations

import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["POINTS", "VARIABLE", "WRITES", "arm", "durable", "reached"]

VARIABLE = "HEADGATE_FAULT"

WRITES = (
    "acquire",
    "renew",
    "release",
    "add_refresh",
    "add_plan",
    "set_plan",
    "decide",
    "open",
    "add_run",
    "set_run",
    "intend",
    "settle",
    "acknowledge",
    "keep_job",
    "split",
    "park",
    "finish",
    "drop_rejected",
    "move",
    "reset",
    "set_rejected",
    "request_run",
    "notice",
    "take_request",
    "withdraw",
    "give_back",
    "answer_requests",
    "ask",
    "create",
    "revoke",
    "touch",
    "pause",
    "remember",
    "record",
    "forget",
    "rewrite",
    "unquote",
    "end_erasure",
    "remember_again",
    "change_alert",
    "claim_messages",
    "end_messages",
    "mute",
    "prune",
)
"""The ledger's writes: each has a point `NAME.before` its transaction and one `NAME.after` the commit."""

POINTS: dict[str, str] = {
    "ledger.opened": "the file is there, its tables may not be",
    "ledger.migrated": "its tables are there",
    **{f"{name}.before": f"nothing of `{name}` is in the ledger" for name in WRITES},
    **{f"{name}.after": f"`{name}` is committed, and nobody was told" for name in WRITES},
    "plan_file.written": "the plan's file is written aside and has no name",
    "plan_file.named": "it has its name, and no row in the ledger",
    "members_file.written": "the next generation is written aside and has no name",
    "members_file.named": "it has its name, and the ledger names the one before",
    "members_part.written": "the next generation's part is written in the warehouse, in an open transaction",
    "members_part.named": "it is committed there, and the ledger names the one before",
    "rejected_file.written": "the copy of rejected records is written aside",
    "rejected_file.named": "it has its name, and the run is still open",
    "erasure_file.written": "a file without a forgotten person is written aside",
    "erasure_file.named": "it has its name, and the ledger names the one with them",
    "erasure_file.swept": "the ledger names it, and the one with them is gone",
    "erasure_part.named": "the warehouse has a part without them, and the ledger names the one with them",
    "erasure_part.swept": "the ledger names it, and the one with them is gone there",
    "sync_log.written": "the warehouse has the log of a run, and the ledger does not know",
    "sync_log.erased": "a forgotten person is gone from there, and the ledger does not know",
    "request.leaving": "the guard let the request go, and no byte of it left",
    "request.answered": "the destination answered, and the answer is not kept",
    "poll.answered": "the platform told how far a job is, and that is not kept",
    "message.sent": "a notifier took a message, and the ledger does not know",
    "retention.pruned": "rows that are old are gone, and their files are there",
    "backup.snapshot": "a copy of the ledger is beside the backup, which is not begun",
    "backup.written": "the archive is whole, and has no name",
    "restore.marked": "nobody may use the state folder, and it is as it was",
    "restore.emptied": "what was there is aside",
    "restore.file": "a file of the archive is in place",
    "restore.adapted": "all are, and the ledger is fit for its new time, but not in place",
    "checkpoint.key": "the signing key is made and not pinned in the second place",
    "checkpoint.pinned": "it is pinned there, and has no name",
    "checkpoint.signed": "a checkpoint is signed and in neither place",
    "checkpoint.placed": "it is in the second place, and its copy is not written",
    "checkpoint.copied": "both have it",
}
"""Every point, and what is true there."""

P = ParamSpec("P")
R = TypeVar("R")

_ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


class _Armed:
    """The faults that are asked for, and how often each point was visited."""

    def __init__(self, text: str) -> None:
        self._lock = threading.Lock()
        self.arm(text)

    def arm(self, text: str) -> None:
        """Ask for these faults and no others. Raises `ValueError` for what names no point, visit or action."""
        self._visits: dict[str, int] = {}
        self._faults = dict(_fault(item) for item in text.split(",") if item)

    def __call__(self, point: str) -> None:
        with self._lock:
            visit = self._visits[point] = self._visits.get(point, 0) + 1
            number = self._faults.get((point, visit))
            if number is not None:
                # To this thread, not to the process: then not one more instruction of it runs.
                signal.pthread_kill(threading.get_ident(), number)


def _fault(item: str) -> tuple[tuple[str, int], signal.Signals]:
    point, visit, action = item.split(":")
    if point not in POINTS or action not in _ACTIONS:
        raise ValueError(f"{VARIABLE}: there is no '{item}'; write POINT:VISIT:kill or POINT:VISIT:stop")
    return (point, int(visit)), _ACTIONS[action]


def _nothing(point: str) -> None:
    """Where no fault is asked for."""


_text = os.environ.get(VARIABLE, "")
_armed = _Armed(_text) if _text else None

reached: Callable[[str], None] = _armed or _nothing
"""Called where the point is; its name is one of `POINTS`."""


def arm() -> None:
    """Look at the environment again: for a process forked from one that had these modules, and the variable."""
    if _armed is not None:
        _armed.arm(os.environ.get(VARIABLE, ""))


def _marked(function: Callable[P, R]) -> Callable[P, R]:
    name = function.__name__

    @functools.wraps(function)
    def write(*arguments: P.args, **options: P.kwargs) -> R:
        reached(f"{name}.before")
        result = function(*arguments, **options)
        reached(f"{name}.after")
        return result

    return write


def _as_it_is(function: Callable[P, R]) -> Callable[P, R]:
    return function


durable = _as_it_is if _armed is None else _marked
"""Marks a method of the ledger that ends in one commit; its name is one of `WRITES`."""
