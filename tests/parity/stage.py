"""One sync of a cohort in some warehouse, and what is to be equal everywhere: every plan, and what was sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb

from sync.audit import Audit
from sync.engine.approvals import decide
from sync.engine.job import EngineSettings, GuardrailLimits, SyncJob
from sync.engine.pacing import Pacers
from sync.engine.plan import samples
from sync.engine.report import SyncReport
from sync.engine.runner import Runner
from sync.mapping import Cohort, Sync
from sync.sdk.nouns import Change, Field, Limits, ObjectSpec, Op, Receipt, Status
from sync.sources.base import Source
from sync.sources.queries import quoted
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import Decision, Plan
from tests.parity.kinds import Column, Table
from tests.parity.warehouses import Warehouse
from tests.state.world import QUICK, Desk, Polling, blank_ledger

__all__ = ["PEOPLE", "Seen", "Stage", "people", "spec"]

PEOPLE = (Column("id", "integer"), Column("email"), Column("name"), Column("score", "integer"))


def people(*ids: int, **changed: Any) -> Table:
    """The cohort's table with these people; `changed` maps a column to the value that all of them have."""

    def row(number: int) -> list[Any]:
        plain = {"id": number, "email": f"p{number}@x.example", "name": f"Name {number}", "score": number % 7}
        return list({**plain, **changed}.values())

    return Table(PEOPLE, [row(number) for number in ids])


def spec(*identifiers: str, fields: Sequence[Field] = (), **more: Any) -> ObjectSpec:
    """An object of the destination with these identifiers; every other field is taken as it is."""
    named = [Field(name, identifier=True) for name in identifiers or ("email",)]
    given: dict[str, Any] = {"limits": Limits(batch_size=10), "audience": False, "ops": frozenset(Op), **more}
    return ObjectSpec(name="contact", title="Contact", fields=(*named, *fields), **given)


class Everybody(Desk):
    """A destination that knows people by any identifiers."""

    def apply(self, change: Change) -> Receipt:
        who = json.dumps(dict(change.identifiers), sort_keys=True, default=str)
        with self.lock:
            if change.op is Op.REMOVE:
                self.members.pop(who, None)
            else:
                self.members[who] = dict(change.fields)
        return Receipt(change.key, Status.APPLIED, remote_id=f"id-{change.key[-6:]}")


@dataclass(frozen=True)
class Seen:
    """What was seen of one plan or run; two warehouses with the same rows have equal ones.

    Left out are what is random or of the clock (ids, times), and the order of rows, which no warehouse promises.
    """

    status: str
    code: str
    counts: Mapping[str, Any]
    verdicts: tuple[Any, ...] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    rows: tuple[Any, ...] = ()  # of the frozen plan, as text
    samples: tuple[str, ...] = ()
    refresh: tuple[Any, ...] = ()
    sent: tuple[str, ...] = ()
    members: Mapping[str, Any] = field(default_factory=dict)  # the destination's


@dataclass
class Stage:
    """The sync, over a folder of its own. What it plans and runs is kept in `seen`, in order."""

    warehouse: Warehouse
    root: Path
    pushed: bool = False
    source: dict[str, Any] = field(default_factory=lambda: {"table": "vips", "key": "id"})
    identifiers: list[Any] = field(default_factory=lambda: [{"to": "email", "from": "email"}])
    fields: list[Any] = field(
        default_factory=lambda: [{"to": "name", "from": "name"}, {"to": "score", "from": "score"}]
    )
    mode: str = "mirror"
    spec: ObjectSpec = field(default_factory=spec)
    guardrails: GuardrailLimits = field(default_factory=lambda: GuardrailLimits(max_removed_pct=100))
    desk: Desk = field(default_factory=Everybody)
    seen: list[Seen] = field(default_factory=list)
    report: SyncReport | None = None

    def put(self, table: Table) -> Stage:
        """Make the cohort's table (anew)."""
        self.warehouse.put(table)
        return self

    def has(self, *ids: int, **changed: Any) -> Stage:
        """Make the cohort of these people."""
        return self.put(people(*ids, **changed))

    def run(self, *, first_run: bool = True, **options: Any) -> SyncReport:
        """Run the sync; the first run needs no approval."""
        return self._kept(lambda runner, job: runner.run(job, first_run=first_run, **options))

    def plan(self) -> SyncReport:
        """Plan, and send nothing."""
        return self._kept(lambda runner, job: runner.plan(job, first_run=True))

    def revert(self, run: str) -> SyncReport:
        """Put back what a run did, and let the sync go on."""
        report = self._kept(lambda runner, job: runner.revert(job, run, "it was wrong"))
        self.ledger.pause("vips-crm", None)
        return report

    def decide(self, decision: Decision = Decision.APPROVE) -> None:
        """A person decides on the plan that is held."""
        assert self.report is not None
        assert self.report.plan is not None
        decide(self.ledger, self.job, self.report.plan, decision, "ben", "looked at it")

    def close(self) -> None:
        """Let go of the ledger."""
        if "ledger" in self.__dict__:
            self.ledger.close()

    # --- what a run is given ------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """The real one, with the real audit log."""
        state = self.root / "state"
        state.mkdir(parents=True, exist_ok=True)
        (state / "ledger.db").write_bytes(blank_ledger())
        return open_ledger(state / "ledger.db", record=Audit(state, self.root / "checkpoints").append)

    @property
    def settings(self) -> EngineSettings:
        """The engine's."""
        keeping = {"sources": {"warehouse": self._opened}} if self.pushed else {}
        return EngineSettings(self.root / "state", threads=1, delivery=QUICK, **keeping)

    @property
    def job(self) -> SyncJob:
        """The sync as the mapping has it now."""
        cohort = Cohort.model_validate({"name": "vips", "source": {"connection": "warehouse", **self.source}})
        mapped = {
            "name": "vips-crm",
            "destination": "crm",
            "mode": self.mode,
            "identifiers": self.identifiers,
            "fields": self.fields,
        }
        return SyncJob(
            name="vips-crm",
            cohort=cohort,
            sync=Sync.model_validate(mapped),
            destination="crm",
            spec=self.spec,
            limits=self.spec.limits,
            account="crm.example",
            guardrails=self.guardrails,
            mapping_digest=sha256(json.dumps([mapped, self.source]).encode()).hexdigest(),
            author="",
            source=self._opened,
            connect=lambda before: Polling(self.desk, before),  # type: ignore[arg-type]
            **({"place": f"warehouse/{self.kept_in}", "sources": self.settings.sources} if self.pushed else {}),
        )

    @property
    def kept_in(self) -> str:
        """The schema of the warehouse that pushed-down members are in: one of this stage's own."""
        return f"headgate_{sha256(str(self.root).encode()).hexdigest()[:12]}"

    def _opened(self) -> Source:
        return self.warehouse.source()

    # --- what is seen of it -------------------------------------------------------------------------------

    def _kept(self, act: Callable[[Runner, SyncJob], SyncReport]) -> SyncReport:
        self.desk.forget()
        runner = Runner(
            self.ledger, self.settings, actor="ann", stop=threading.Event(),
            pacers=Pacers(folder=self.settings.folder),
        )  # fmt: skip
        self.report = report = act(runner, self.job)
        self.seen.append(self._seen(report))
        return report

    def _seen(self, report: SyncReport) -> Seen:
        sent = sorted(
            f"{change.op} {dict(change.identifiers)} {dict(change.fields)}"
            for push in self.desk.pushes
            for change in push.changes
        )
        plain = {
            "status": report.status,
            "code": report.code,
            "counts": asdict(report.counts),
            "verdicts": _verdicts(report.verdicts),
            "refresh": self._refresh(),
            "sent": tuple(sent),
            "members": dict(self.desk.members),
        }
        if report.plan is None:
            return Seen(**plain)
        types, rows = self._frozen(report.plan)
        found = samples(self.settings, report.plan, per_op=1_000)
        told = tuple(sorted(json.dumps(one, sort_keys=True, default=repr) for one in found))
        plain["verdicts"] += _verdicts(report.plan.verdicts)
        return Seen(**plain, types=types, rows=rows, samples=told)

    def _refresh(self) -> tuple[Any, ...]:
        found = self.ledger.refreshes("vips-crm", limit=1)
        return tuple((r.rows, r.invalid, r.newest, r.key_sum, r.version) for r in found)

    def _frozen(self, plan: Plan) -> tuple[dict[str, str], tuple[Any, ...]]:
        """The plan file's columns with their types, and its rows as text, which has all of every number."""
        with _reader().cursor() as connection:
            file = f"read_parquet('{self.settings.folder / plan.file}')"
            select = f"SELECT * EXCLUDE (row, first_refresh, first_at) FROM {file}"
            types = {str(r[0]): str(r[1]) for r in connection.execute(f"DESCRIBE {select}").fetchall()}
            texts = (f"to_json({quoted(n)})" if t.endswith("]") else quoted(n) for n, t in types.items())
            columns = ", ".join(f"{text}::VARCHAR" for text in texts)
            rows = connection.execute(f"SELECT {columns} FROM ({select}) ORDER BY ALL").fetchall()
        return types, tuple(rows)


@cache
def _reader() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("SET GLOBAL TimeZone = 'UTC'")
    return connection


def _verdicts(verdicts: Sequence[Any]) -> tuple[Any, ...]:
    return tuple((v.guardrail, str(v.answer), v.limit, v.value, v.message) for v in verdicts)
