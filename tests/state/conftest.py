"""A real ledger in a file of its own, a lease on it, and nouns to put in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from sync.sdk.nouns import Op
from sync.state import tables
from sync.state.holder import me
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import (
    Approval,
    BatchRow,
    Counts,
    Decision,
    Event,
    Generation,
    Lease,
    Plan,
    PlanStatus,
    Refresh,
    RejectedRecord,
    Run,
    RunStatus,
    Verdict,
    VerdictAnswer,
)
from tests.state.world import World

SYNC = "orders_to_crm"


def record(connection: sa.Connection, event: Event) -> None:
    """Keep an event, as the audit log does but without its chain."""
    table = tables.audit_event
    seq = connection.execute(sa.select(sa.func.coalesce(sa.func.max(table.c.seq), 0) + 1)).scalar_one()
    row = {"seq": seq, "at": 0.0, "data": json.dumps(dict(event.data)), "prev": "", "hash": ""}
    row |= {"actor": event.actor, "action": event.action, "object": event.object}
    connection.execute(sa.insert(table), row)


class Make:
    """Makes nouns that hold together, each field of which a test may set."""

    def refresh(self, id: str = "f1", **fields: Any) -> Refresh:
        given = {"id": id, "sync": SYNC, "cohort": "orders", "at": 1.5, "rows": 10, "invalid": 1}
        given |= {"version": "v", "definition": "d", "cause": "test", "newest": 1.25, "nulls": {"email": 2}}
        return Refresh(**{**given, **fields})

    def plan(self, name: str = "p1", **fields: Any) -> Plan:
        digest = hashlib.sha256(name.encode()).hexdigest()
        verdict = Verdict("removals", VerdictAnswer.HOLD, 1000, 1200.5, "1,200 removals")
        given: dict[str, Any] = {"id": digest[:12], "digest": digest, "sync": SYNC, "destination": "crm"}
        given |= {"object": "contact", "audience": None, "cohort": "orders", "status": PlanStatus.HELD}
        given |= {"file": "plans/x.parquet", "file_sha256": "00", "inputs": "i", "mapping_digest": "m"}
        given |= {"generation": 0, "refresh": "f1", "source_version": "v", "counts": Counts(add=3, remove=1200)}
        given |= {"verdicts": (verdict,), "created_at": 1.0, "expires_at": 4e9}
        return Plan(**{**given, **fields})

    def approval(self, plan: Plan, actor: str = "ann", decision: Decision = Decision.APPROVE) -> Approval:
        return Approval(plan.id, plan.digest, decision, actor, "looks right", 2.0)

    def run(self, id: str = "r1", **fields: Any) -> Run:
        given: dict[str, Any] = {"id": id, "sync": SYNC, "status": RunStatus.SENDING, "plan": None}
        given |= {"ops": frozenset({Op.ADD, Op.REMOVE}), "trigger": "cli", "actor": "ann", "started_at": 3.0}
        return Run(**{**given, **fields})

    def batches(self, run: str = "r1", count: int = 3, size: int = 10, op: str = "add") -> list[BatchRow]:
        return [BatchRow(run, n, f"{run}-{n}", 0, op, n * size, n * size + size - 1) for n in range(count)]

    def rejected(self, key: str = "k1", **fields: Any) -> RejectedRecord:
        given: dict[str, Any] = {
            "sync": SYNC,
            "key": key,
            "op": "add",
            "code": "rejected",
            "reason": "no such city",
        }
        given |= {"fingerprint": "1", "run": "r1", "row": 4, "attempts": 1}
        given |= {"first_at": 1.0, "last_at": 2.0, "next_at": 3.0}
        return RejectedRecord(**{**given, **fields})

    def generation(self, number: int = 1, **fields: Any) -> Generation:
        given: dict[str, Any] = {"sync": SYNC, "number": number, "members": 7, "base": f"{number}.parquet"}
        given |= {"fields": ("email", "city"), "digests": {f"{number}.parquet": "ab"}}
        return Generation(**{**given, **fields})


@pytest.fixture
def make() -> Make:
    """A maker of nouns."""
    return Make()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "state" / "ledger.db"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    """An empty ledger that keeps its events."""
    with open_ledger(path, record=record) as opened:
        yield opened


@pytest.fixture
def lease(ledger: Ledger) -> Lease:
    """The lease on `orders_to_crm`."""
    return ledger.acquire(SYNC, me(), 30)


@pytest.fixture
def sending(ledger: Ledger, lease: Lease, make: Make) -> Run:
    """An open run of three batches of ten additions."""
    run = make.run()
    ledger.open(lease, run, make.batches())
    return run


@pytest.fixture
def events(ledger: Ledger) -> Any:
    """A function that returns the actions in the audit log."""

    def read() -> list[str]:
        with ledger.reading() as connection:
            return list(connection.execute(sa.select(tables.audit_event.c.action)).scalars())

    return read


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A sync of ten people, whose requests are dead a quarter of a second after their intent."""
    monkeypatch.setattr("sync.engine.sending._SLACK", 0.1)
    monkeypatch.setattr("sync.engine.dispatch._MARGIN", 0.05)
    made = World(tmp_path).people(10)
    yield made
    made.close()
