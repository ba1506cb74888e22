"""A sync on a real warehouse, ledger and state folder, up to its plan; and a destination that took all of it."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from sync.engine.batches import PlanFile, cut
from sync.engine.job import EngineSettings, GuardrailLimits, SyncJob
from sync.engine.observe import definition_of, observe
from sync.engine.plan import verify_file
from sync.engine.planner import Difference, Planner, permitted
from sync.engine.settle import settlement
from sync.mapping import Cohort
from sync.mapping import Sync as SyncMapping
from sync.sdk.nouns import Change, Field, ObjectSpec, Op, Status
from sync.sources.duckdb import DuckDBSource
from sync.sources.options import DuckDBOptions
from sync.state.holder import me
from sync.state.ledger import Ledger, open_ledger
from sync.state.nouns import Generation, Lease, Outcomes, Plan, Run, RunStatus

NAME = "crm-people"
EMAIL = Field("email", identifier=True)
SPEC = ObjectSpec("contact", "Contact", frozenset(Op), (EMAIL,), open_fields=True, audience=False)


class Bench:
    """What a test of planning needs. Each part may be set before it is used."""

    def __init__(self, root: Path, **mapping: Any) -> None:
        self.root = root
        self.settings = EngineSettings(folder=root / "state", memory_limit="200MB", threads=1)
        self.spec: ObjectSpec = SPEC
        self.guardrails = GuardrailLimits()
        self.cohort: dict[str, Any] = {"name": "people", "source": _SOURCE}
        self.mapping: dict[str, Any] = {
            "identifiers": [{"to": "email", "from": "email"}],
            "fields": [{"to": "city", "from": "city"}],
            **mapping,
        }
        self.author = ""
        self.mapping_digest = "m1"
        path = root / "state" / "ledger.db"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(_empty_ledger())
        self.ledger: Ledger = open_ledger(path, record=lambda *_: None)

    def close(self) -> None:
        self.ledger.close()

    # --- the warehouse ------------------------------------------------------------------------------------

    def warehouse(self, *statements: str) -> None:
        with duckdb.connect(str(self.root / "w.duckdb")) as connection:
            for statement in statements:
                connection.execute(statement)

    def people(self, rows: Iterable[Sequence[Any]]) -> None:
        """Table `people` of id, email, city."""
        with duckdb.connect(str(self.root / "w.duckdb")) as connection:
            connection.execute("CREATE OR REPLACE TABLE people (id VARCHAR, email VARCHAR, city VARCHAR)")
            columns = [list(c) for c in zip(*rows, strict=True)]
            if columns:
                connection.execute("INSERT INTO people SELECT unnest(?), unnest(?), unnest(?)", columns)

    # --- the sync -----------------------------------------------------------------------------------------

    @property
    def job(self) -> SyncJob:
        mapping = {"name": NAME, "destination": "crm", "mode": "mirror", **self.mapping}
        return SyncJob(
            name=NAME,
            cohort=Cohort.model_validate(self.cohort),
            sync=SyncMapping.model_validate(mapping),
            destination="crm",
            spec=self.spec,
            limits=self.spec.limits,
            account="crm",
            guardrails=self.guardrails,
            mapping_digest=self.mapping_digest,
            author=self.author,
            source=lambda: DuckDBSource("warehouse", DuckDBOptions(path=Path("w.duckdb")), self.root),
            connect=_no_destination,
        )

    @property
    def generation(self) -> Generation:
        return self.ledger.generation(NAME)

    def lease(self) -> Lease:
        return self.ledger.acquire(NAME, me(), 60)

    def difference(self) -> Difference:
        """What one observation shows; its connection is closed."""
        with observe(self.ledger, self.settings, self.job, "test") as seen:
            return self.planner().difference(seen)

    def planner(self, *, first_run: bool = True) -> Planner:
        return Planner(self.ledger, self.settings, self.job, first_run=first_run)

    def plan(self, *, first_run: bool = True, ops: frozenset[Op] | None = None, keep: bool = True) -> Plan:
        """Observe, diff, freeze and judge; then keep the plan in the ledger."""
        job = self.job
        with observe(self.ledger, self.settings, job, "test") as seen:
            planner = self.planner(first_run=first_run)
            plan = planner.plan(planner.difference(seen), permitted(job) if ops is None else ops)
            if keep:
                lease = self.lease()
                self.ledger.add_refresh(lease, seen.refresh)
                self.ledger.add_plan(lease, plan)
                self.ledger.release(lease)
        return plan

    def path(self, plan: Plan) -> Path:
        return verify_file(self.settings, plan)

    def file(self, plan: Plan) -> PlanFile:
        return PlanFile(self.settings, self.path(plan))

    def changes(self, plan: Plan) -> list[Change]:
        """Everything the plan would send, in order."""
        with closing(self.file(plan)) as file:
            return [c for _, first, last in file.ranges() for c in file.changes(first, last)]

    def rows(self, plan: Plan) -> list[dict[str, Any]]:
        """The rows of the plan file as they are."""
        relation = duckdb.connect().execute(f"SELECT * FROM read_parquet('{self.path(plan)}') ORDER BY row")
        names = [d[0] for d in relation.description]
        return [dict(zip(names, row, strict=True)) for row in relation.fetchall()]

    # --- the destination ----------------------------------------------------------------------------------

    def deliver(
        self,
        plan: Plan,
        *,
        ids: Mapping[str, str] | None = None,
        but: Mapping[str, Status] | None = None,
        status: RunStatus = RunStatus.COMPLETED,
    ) -> str:
        """Acknowledge every batch of the plan; `ids` and `but` are by e-mail: remote ids, and other outcomes."""
        job, lease, ops = self.job, self.lease(), permitted(self.job)
        run = Run(uuid.uuid4().hex[:12], NAME, RunStatus.SENDING, plan.id, ops, "cli", "ann", self.ledger.now())
        with closing(self.file(plan)) as file:
            batches = cut(run.id, file, job, ops)
            self.ledger.open(lease, run, batches)
            for batch in batches:
                told = list(
                    zip(range(batch.first, batch.last + 1), file.changes(batch.first, batch.last), strict=True)
                )
                attempt = self.ledger.intend(lease, run.id, batch.number, 15)
                odd = [(n, c, (but or {})[m]) for n, c in told if (m := c.identifiers.get("email")) in (but or {})]
                remote = {n: (ids or {})[m] for n, c in told if (m := c.identifiers.get("email")) in (ids or {})}
                exceptions = [(n, c.key, c.op, s, f"said {s}") for n, c, s in odd]
                self.ledger.acknowledge(lease, attempt, Outcomes(batch.size - len(odd), 0, exceptions, remote))
        counts = dict.fromkeys(("applied", "accepted", "rejected", "deferred", "unknown"), 0)
        counts |= {"remove": plan.counts.remove}
        path = self.path(plan)
        ended = settlement(self.ledger, self.settings, job, plan, run, path, status, actor="ann", counts=counts)
        self.ledger.finish(lease, run.id, ended)
        self.ledger.remember(lease, "definition", definition_of(job))
        self.ledger.release(lease)
        return run.id

    def with_(self, **spec: Any) -> None:
        """Change the object."""
        self.spec = replace(self.spec, **spec)

    def synced(self, rows: Iterable[Sequence[Any]]) -> Plan:
        """Set the table, plan and deliver all of it."""
        self.people(rows)
        plan = self.plan()
        self.deliver(plan)
        return plan


_SOURCE = {"connection": "warehouse", "table": "people", "key": "id"}


@cache
def _empty_ledger() -> bytes:
    """A ledger as `open_ledger` makes it, made once: migrating takes longer than planning."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        open_ledger(path).close()
        return path.read_bytes()


def _no_destination(_turn: Any) -> Any:
    raise AssertionError("planning connects to no destination")
