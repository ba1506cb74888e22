"""Planning without DuckDB, for most histories: what the planner asks of it, worked out in Python.

`observe`, `differing`, `compare`, `changed_keys` and `freeze` are replaced; the planner, the guardrails, the
plan's digest and its file's format are the product's. In the other histories DuckDB plans, and `compared` holds
every comparison of it against this one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from sync.engine import diff, execution, planner
from sync.engine.diff import Diff
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.observe import Observed, definition_of
from sync.engine.plan import Frozen, phase_of
from sync.sdk.nouns import Delivery, Order
from sync.state.base import StateReader
from sync.state.members import digest_file, publish
from sync.state.nouns import Generation, Refresh, RejectedRecord

if TYPE_CHECKING:
    from tests.state.simulation.machine import Machine

__all__ = ["Sketch", "compared", "sketched"]

_SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        "op": pa.string(),
        "key": pa.decimal128(38, 0),
        "fingerprint": pa.uint64(),
        "nulls": pa.string(),
        "was_nulls": pa.string(),
        "source_key": pa.string(),
        "remote_id": pa.string(),
        "first_refresh": pa.string(),
        "first_at": pa.float64(),
        "why": pa.string(),
        "id.email": pa.string(),
        "field.score": pa.int64(),
    }
)
_CARRIED = ("remote_id", "first_refresh", "first_at")


@dataclass
class Sketch:
    """Both sides of one observation; the planner takes it for its connection."""

    machine: Machine
    cohort: Mapping[str, Mapping[str, Any]]  # e-mail -> fields
    members: Mapping[str, Mapping[str, Any]]  # key -> the member's columns
    changes: dict[str, str] = field(default_factory=dict)  # key -> op
    held_out: set[str] = field(default_factory=set)

    @property
    def wanted(self) -> dict[str, tuple[str, int]]:
        """Key -> e-mail and fingerprint."""
        keys, prints = self.machine.keys, self.machine.fingerprints
        return {keys[email]: (email, prints[fields["score"]]) for email, fields in self.cohort.items()}

    def differing(self) -> int:
        """Is anything to be compared at all."""
        return int(
            {k: p for k, (_, p) in self.wanted.items()} != {k: m["fingerprint"] for k, m in self.members.items()}
        )

    def compare(self, dirty: Sequence[str], rejected: Sequence[RejectedRecord], now: float) -> Diff:
        """What is to be sent."""
        wanted, members, uncertain = self.wanted, self.members, set(dirty)
        self.changes = {key: "remove" for key in members if key not in wanted}
        for key, (_, print_) in wanted.items():
            if key not in members:
                self.changes[key] = "add"
            elif members[key]["fingerprint"] != print_ or key in uncertain:
                self.changes[key] = "update"
        self.changes |= {key: "remove" for key in uncertain if key not in wanted and key not in members}
        touched = sum(op != "remove" for op in self.changes.values())
        backed_off, given_up = self._hold_out(rejected, now)
        counts = Counter(self.changes.values())
        return Diff(counts["add"], counts["update"], counts["remove"], len(wanted) - touched, backed_off, given_up)

    def _hold_out(self, rejected: Sequence[RejectedRecord], now: float) -> tuple[int, int]:
        backed_off = given_up = 0
        for record in rejected:
            if record.given_up_at is None and record.next_at <= now:
                continue
            self.held_out.add(record.key)
            print_ = (
                "" if self.changes.get(record.key) == "remove" else str(self.wanted.get(record.key, ("", ""))[1])
            )
            same = record.given_up_at is not None or record.code == "unknown" or record.fingerprint == print_
            if self.changes.get(record.key) == record.op and same:
                del self.changes[record.key]
                given_up += record.given_up_at is not None
                backed_off += record.given_up_at is None
        return backed_off, given_up

    def freeze(self, settings: EngineSettings, job: SyncJob, ops: Iterable[str], refresh: Refresh) -> Frozen:
        """Write the plan's file."""
        snapshot = job.spec.delivery is Delivery.SNAPSHOT
        order = Order.REMOVALS_LAST if snapshot else job.spec.order
        wanted = {str(op) for op in ops} | ({"keep"} if snapshot else set())
        chosen = [(key, op) for key, op in self.changes.items() if op in wanted]
        if snapshot:
            chosen += [(key, "keep") for key in self.wanted if key not in self.changes]
        chosen.sort(key=lambda c: (phase_of(c[1], order), c[1], c[0]))
        rows = [{"row": row, **self._row(key, op)} for row, (key, op) in enumerate(chosen)]
        folder = settings.folder / "plans" / job.name
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{os.getpid()}.tmp"
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), temporary)
        sha256 = digest_file(temporary)
        final = folder / f"{sha256[:16]}.parquet"
        publish(temporary, final)
        return Frozen(str(final.relative_to(settings.folder)), sha256, Counter(op for _, op in chosen))

    def _row(self, key: str, op: str) -> dict[str, Any]:
        member = self.members.get(key, {})
        email = self.machine.emails[key]
        row: dict[str, Any] = {"op": op, "key": Decimal(key), "id.email": email, "nulls": ""}
        if op == "remove":
            names = ("fingerprint", "source_key", *_CARRIED)
            return row | {"nulls": None, "was_nulls": member.get("nulls")} | {n: member.get(n) for n in names}
        row |= {
            "fingerprint": self.wanted[key][1],
            "field.score": self.cohort[email]["score"],
            "source_key": email,
        }
        if op == "update":
            row |= {n: member.get(n) for n in _CARRIED} | {"was_nulls": member.get("nulls")}
        return row

    def execute(self, _: str) -> Sketch:
        """What the planner asks in SQL of its own: which members turn null. None."""
        return self

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Nothing."""
        return []


def _refresh(
    state: StateReader, job: SyncJob, cohort: Mapping[str, Mapping[str, Any]], cause: str, id: str
) -> Refresh:
    version = hashlib.sha256(json.dumps(cohort, sort_keys=True).encode()).hexdigest()
    definition = hashlib.sha256(definition_of(job).encode()).hexdigest()
    return Refresh(
        id, job.name, job.cohort.name, state.now(), len(cohort), 0, version, definition, cause, key_sum=version
    )


@contextlib.contextmanager
def sketched(machine: Machine, uuid: Callable[[], str]) -> Iterator[None]:
    """Plan without DuckDB."""
    from unittest.mock import patch

    @contextlib.contextmanager
    def observe(
        state: StateReader, settings: EngineSettings, job: SyncJob, cause: str, stop: object, *, whole: bool
    ) -> Iterator[Observed]:
        cohort: Any = job.source()
        rows = cohort.read()
        generation: Generation = state.generation(job.name)
        refresh = _refresh(state, job, rows, cause, uuid())
        sketch: Any = Sketch(machine, rows, machine.table(generation))
        compiled: Any = None
        yield Observed(sketch, compiled, "", "", generation, refresh, True, cohort.columns(None))

    instead: dict[str, Any] = {
        "differing": lambda sketch, _: sketch.differing(),
        "compare": lambda sketch, _, __, ___, *, dirty, rejected, now: sketch.compare(dirty, rejected, now),
        "changed_keys": lambda sketch: set(sketch.changes) | sketch.held_out,
        "freeze": lambda sketch, settings, job, _, __, ___, ops, refresh, ____, **_____: sketch.freeze(
            settings, job, ops, refresh
        ),
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(execution, "observe", observe))
        for name, value in instead.items():
            stack.enter_context(patch.object(planner, name, value))
        yield


@contextlib.contextmanager
def compared(machine: Machine, cohort: Callable[[], Mapping[str, Mapping[str, Any]]]) -> Iterator[None]:
    """Plan with DuckDB, and check each comparison of it: `cohort` is what the running process last read."""
    from unittest.mock import patch

    def compare(connection: Any, *given: Any, dirty: Any, rejected: Any, now: float) -> Diff:
        found = diff.compare(connection, *given, dirty=dirty, rejected=rejected, now=now)
        members = machine.table_of(given[0].members)
        sketch = Sketch(machine, cohort(), members)
        expected = sketch.compare(dirty, rejected, now)
        changes = dict(connection.execute("SELECT key::VARCHAR, op FROM changes").fetchall())
        assert (found, changes) == (expected, sketch.changes)
        return found

    with patch.object(planner, "compare", compare):
        yield
