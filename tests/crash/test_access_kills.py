"""Killed around what callers of the API leave in the ledger: it is there whole, with its event, or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sync.faultpoints import VARIABLE
from sync.state.ledger import Ledger, open_ledger

OF_ACCESS = tuple(
    f"{write}.{side}"
    for write in ("withdraw", "answer_requests", "ask", "create", "revoke", "touch")
    for side in ("before", "after")
)

CODE = """
import sys
from pathlib import Path
from sync.audit import Audit
from sync.state.access import Scope
from sync.state.ledger import open_ledger
from sync.state.nouns import Event, RunRequest
folder, write = Path(sys.argv[1]), sys.argv[2]
audit = Audit(folder, folder / "checkpoints", 100)
with open_ledger(folder / "ledger.db", record=audit.append) as ledger:
    access = ledger.access
    made = lambda: access.create("airflow", [Scope.RUN], ttl=60, actor="ana")
    request = RunRequest("vip", "api#1", "api", "token:airflow", ledger.now())
    event = Event("token:airflow", "run.asked", "vip")
    if write in ("create", "none"):
        made()
    elif write == "revoke":
        access.revoke("airflow", actor="ana", reason="it leaked")
    elif write == "touch":
        access.touch(access.tokens()[0].id)
    elif write == "ask":
        access.ask(access.tokens()[0], request, event, "key-1", "digest")
    else:
        ledger.request_run(request)
        if write == "withdraw":
            ledger.withdraw("vip", "api#1", {"status": "cancelled"}, [event])
        ledger.take_request("vip", "api#1")
        ledger.answer_requests("vip", ["api#1"], {"status": "completed"})
"""


def left(ledger: Ledger, write: str) -> bool:
    """Is what this write writes in the ledger, and its event with it."""
    with ledger.reading() as connection:
        actions = set(connection.exec_driver_sql("SELECT action FROM audit_event").scalars())
    tokens, requests = ledger.access.tokens(), ledger.requests("vip", open_only=False)
    there = {
        "create": bool(tokens),
        "revoke": any(token.revoked_at for token in tokens),
        "touch": any(token.used_at for token in tokens),
        "ask": bool(requests),
        "withdraw": any(request.ended_at for request in requests),
        "answer_requests": any(request.report for request in requests),
    }[write]
    events = {"create": "token.created", "revoke": "token.revoked", "ask": "run.asked", "withdraw": "run.asked"}
    assert write not in events or (events[write] in actions) is there
    return there


@pytest.mark.slow
@pytest.mark.parametrize("point", OF_ACCESS)
def test_a_killed_write_is_there_whole_or_not_at_all(tmp_path: Path, point: str) -> None:
    write, side = point.split(".")
    (tmp_path / "checkpoints").mkdir()

    def run(what: str, fault: str = "") -> int:
        environment = os.environ | ({VARIABLE: fault} if fault else {})
        return subprocess.run(
            [sys.executable, "-c", CODE, str(tmp_path), what], env=environment, check=False
        ).returncode

    if write != "create":
        assert run("none") == 0
    assert run(write, f"{point}:1:kill") == -9

    with open_ledger(tmp_path / "ledger.db") as ledger:
        assert left(ledger, write) is (side == "after")
