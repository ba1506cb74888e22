"""A sync in a real world: a DuckDB cohort, a ledger with its audit log, a destination that does as it is told."""

from __future__ import annotations

import subprocess
import tempfile
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import duckdb
import httpx

from sync.audit import Audit
from sync.engine.job import DeliverySettings, EngineSettings, GuardrailLimits, SyncJob
from sync.engine.pacing import Pacers
from sync.engine.report import Observer, SyncReport
from sync.engine.runner import Runner
from sync.mapping import Cohort, Mode, Sync
from sync.sdk.connector import Config, Connector
from sync.sdk.nouns import Batch, Change, Field, Job, Limits, ObjectSpec, Op, Outcome, Receipt, Status
from sync.sources.base import Column, Relation, Source, Staged
from sync.state.base import State
from sync.state.holder import me
from sync.state.ledger import Ledger, open_ledger
from sync.state.members import folder_of, relation
from sync.state.nouns import BatchRow, Generation

SYNC = "vips-crm"

QUICK = DeliverySettings(
    request_timeout=0.1, attempts=3, backoff_first=0.01, backoff_max=0.02, rate_limited_for=30.0, job_wait=5.0
)

Answer = Callable[["Desk", Batch], Outcome] | BaseException | None
"""What a push is answered with: by a function, by an error, or (None) by taking the batch."""


@dataclass(frozen=True)
class Push:
    """A push as the destination saw it."""

    id: str
    changes: tuple[Change, ...]

    @property
    def who(self) -> list[str]:
        """Whom it was about."""
        return [str(change.identifiers["email"]) for change in self.changes]

    @property
    def ops(self) -> set[Op]:
        """Its ops."""
        return {change.op for change in self.changes}


@dataclass
class Desk:
    """The destination: `members` is its state, `pushes` what it saw. `answers` are used up, one a push."""

    members: dict[str, dict[str, Any]] = field(default_factory=dict)
    pushes: list[Push] = field(default_factory=list)
    answers: deque[Answer] = field(default_factory=deque)
    always: Answer = None  # where `answers` are used up
    polls: deque[Answer] = field(default_factory=deque)
    polled: list[Job] = field(default_factory=list)
    connects: int = 0
    snapshot: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def take(self, batch: Batch) -> list[Receipt]:
        """Apply a whole batch."""
        return [self.apply(change) for change in batch.changes]

    def apply(self, change: Change) -> Receipt:
        """Apply one change."""
        email = str(change.identifiers["email"])
        with self.lock:
            if change.op is Op.REMOVE:
                self.members.pop(email, None)
            else:
                self.members[email] = dict(change.fields)
        return Receipt(change.key, Status.APPLIED, remote_id=f"id-{email}")

    def push(self, batch: Batch) -> Outcome:
        """One push, answered as ordered."""
        with self.lock:
            self.pushes.append(Push(batch.id, tuple(batch.changes)))
            answer = self.answers.popleft() if self.answers else self.always
        return self._answered(answer, batch)

    def poll(self, job: Job, batch: Batch) -> Outcome:
        """One poll, answered as ordered."""
        with self.lock:
            self.polled.append(job)
            answer = self.polls.popleft() if self.polls else None
        return self._answered(answer, batch)

    def _answered(self, answer: Answer, batch: Batch) -> Outcome:
        if isinstance(answer, BaseException):
            raise answer
        if answer is not None:
            return answer(self, batch)
        if self.snapshot:
            with self.lock:
                self.members.clear()
        return self.take(batch)

    @property
    def sent(self) -> int:
        """Records that were pushed, repeats included."""
        return sum(len(push.changes) for push in self.pushes)

    def forget(self) -> None:
        """Forget what was seen, not what is known."""
        self.pushes.clear()
        self.polled.clear()


class Scripted(Connector[Config]):
    """Hands every push to the desk; each is one request."""

    name = "scripted"
    title = "Scripted"
    config_model = Config
    objects = {}  # noqa: RUF012

    def __init__(self, desk: Desk, before: Callable[[], None]) -> None:
        super().__init__(Config(), httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))))
        self.desk = desk
        self.before = before
        desk.connects += 1

    def check(self) -> None:
        """It is there."""

    def push(self, batch: Batch) -> Outcome:
        self.before()
        return self.desk.push(batch)


class Polling(Scripted):
    """The same, and its jobs can be asked about."""

    def poll(self, job: Job, batch: Batch) -> Outcome:
        self.before()
        return self.desk.poll(job, batch)


SPEC = ObjectSpec(
    name="contact",
    title="Contact",
    ops=frozenset(Op),
    fields=(Field("email", identifier=True), Field("name"), Field("score", "integer")),
    limits=Limits(batch_size=10),
    audience=False,
)


def dead_holder() -> str:
    """A lease holder of this machine that is certainly gone."""
    process = subprocess.Popen(["/bin/true"])
    process.wait()
    host, _, _, machine = me().split("/")
    return f"{host}/{process.pid}/1/{machine}"


class Warehouse(Source):
    """A DuckDB of its own, whose rows are spooled, as those of a warehouse elsewhere are."""

    name = "warehouse"
    type = "test"

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection.cursor()  # its own, for runs in several threads

    def check(self) -> str:
        return "there"

    def tables(self) -> Sequence[str]:
        return ["vips"]

    def columns(self, relation: Relation) -> tuple[Column, ...]:
        rows = self._connection.execute(f"DESCRIBE {relation.table}").fetchall()
        return tuple(Column(str(row[0]), str(row[1])) for row in rows)

    @contextmanager
    def stage(
        self, connection: duckdb.DuckDBPyConnection, relation: Relation, columns: Sequence[str], spool: Path
    ) -> Iterator[Staged]:
        path = spool / f"{uuid.uuid4().hex}.parquet"
        self._connection.execute(f"COPY (FROM {relation.table} ORDER BY id) TO '{path}'")
        try:
            yield Staged(f"read_parquet('{path}')", self.columns(relation))
        finally:
            path.unlink()


@cache
def blank_ledger() -> bytes:
    """A ledger that was just made: making one takes longer than most tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        open_ledger(path).close()
        return path.read_bytes()


@dataclass
class World:
    """One sync with everything it needs; `run` runs it."""

    root: Path
    desk: Desk = field(default_factory=Desk)
    spec: ObjectSpec = SPEC
    mode: Mode = Mode.MIRROR
    guardrails: GuardrailLimits = field(default_factory=lambda: GuardrailLimits(max_removed_pct=100))
    delivery: DeliverySettings = QUICK
    lease_ttl: float = 30.0
    expire_after: float = 86400.0
    digest: str = "mapping-1"
    connector: Callable[[Callable[[], None]], Connector[Any]] | None = None
    pacers: Pacers = field(default_factory=Pacers)
    stop: threading.Event = field(default_factory=threading.Event)

    # --- the warehouse ------------------------------------------------------------------------------------

    @cached_property
    def warehouse(self) -> duckdb.DuckDBPyConnection:
        """A database in memory."""
        return duckdb.connect(config={"threads": 1})

    def sql(self, *statements: str) -> World:
        """Change the warehouse."""
        for statement in statements:
            self.warehouse.execute(statement)
        return self

    def people(self, count: int) -> World:
        """(Re)make the cohort with people p0 to pN."""
        return self.sql(
            "CREATE OR REPLACE TABLE vips AS SELECT i AS id, 'p' || i || '@x.example' AS email, "
            f"'Name ' || i AS name, i % 7 AS score FROM range({count}) t(i)"
        )

    def source(self) -> dict[str, dict[str, Any]]:
        """What the destination is to have."""
        rows = self.warehouse.execute("SELECT email, name, score FROM vips WHERE email IS NOT NULL").fetchall()
        return {email: {"name": name, "score": score} for email, name, score in rows}

    # --- the ledger ---------------------------------------------------------------------------------------

    @cached_property
    def ledger(self) -> Ledger:
        """The real one, with the real audit log."""
        path = self.root / "state" / "ledger.db"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(blank_ledger())
        return open_ledger(path, record=Audit(path.parent, self.root / "checkpoints").append)

    def close(self) -> None:
        """Let go of the ledger."""
        if "ledger" in self.__dict__:
            self.ledger.close()
        self.warehouse.close()

    def members(self) -> dict[str, dict[str, Any]]:
        """The members as the ledger's generation has them: e-mail -> remote id."""
        generation: Generation = self.ledger.generation(SYNC)
        select = relation(self.warehouse, folder_of(self.root / "state", SYNC), generation, ["email"])
        rows = self.warehouse.execute(f'SELECT "id.email", remote_id FROM ({select})').fetchall()
        return {email: {"remote_id": remote} for email, remote in rows}

    def actions(self) -> list[str]:
        """What the audit log tells of, oldest first."""
        with self.ledger.reading() as connection:
            query = "SELECT action FROM audit_event ORDER BY seq"
            return [row[0] for row in connection.exec_driver_sql(query)]

    def batches(self) -> list[BatchRow]:
        """The batches of the newest run that has any."""
        runs = self.ledger.runs(SYNC)
        return next((rows for run in runs if (rows := self.ledger.batches(run.id))), [])

    # --- running ------------------------------------------------------------------------------------------

    @property
    def settings(self) -> EngineSettings:
        """The engine's."""
        return EngineSettings(
            self.root / "state", threads=1, lease_ttl=self.lease_ttl, expire_after=self.expire_after,
            delivery=self.delivery,
        )  # fmt: skip

    @property
    def job(self) -> SyncJob:
        """The sync."""
        cohort = Cohort.model_validate(
            {"name": "vips", "source": {"connection": "warehouse", "table": "vips", "key": "id"}}
        )
        sync = Sync.model_validate(
            {
                "name": SYNC,
                "destination": "crm",
                "mode": str(self.mode),
                "identifiers": [{"to": "email", "from": "email"}],
                "fields": [{"to": "name", "from": "name"}, {"to": "score", "from": "score"}],
            }
        )
        return SyncJob(
            name=SYNC,
            cohort=cohort,
            sync=sync,
            destination="crm",
            spec=self.spec,
            limits=self.spec.limits,
            account="crm.example",
            guardrails=self.guardrails,
            mapping_digest=self.digest,
            author="",
            source=lambda: Warehouse(self.warehouse),
            connect=self.connector or (lambda before: Polling(self.desk, before)),
        )

    def runner(self, state: State | None = None, observer: Observer | None = None) -> Runner:
        """A runner as a new process would have it."""
        return Runner(
            state or self.ledger, self.settings, actor="ann", observer=observer, stop=self.stop, pacers=self.pacers
        )  # fmt: skip

    def run(self, state: State | None = None, **options: Any) -> SyncReport:
        """Run the sync; the first run needs no approval."""
        return self.runner(state).run(self.job, **{"first_run": True, **options})

    def limited(self, **limits: Any) -> World:
        """Set limits of the object."""
        self.spec = replace(self.spec, limits=replace(self.spec.limits, **limits))
        return self

    @property
    def in_step(self) -> bool:
        """Are source, members and destination the same."""
        source = self.source()
        return source == self.desk.members and set(source) == set(self.members())


def some(*statuses: Status, reason: str = "because") -> Callable[[Desk, Batch], Outcome]:
    """An answer with these statuses, in the batch's order; the rest is applied."""

    def answer(desk: Desk, batch: Batch) -> Outcome:
        given: Sequence[Status] = [*statuses, *[Status.APPLIED] * (len(batch.changes) - len(statuses))]
        return [
            desk.apply(change) if status in (Status.APPLIED,) else Receipt(change.key, status, reason)
            for change, status in zip(batch.changes, given, strict=True)
        ]

    return answer


def applied_then(error: BaseException) -> Callable[[Desk, Batch], Outcome]:
    """The batch is applied, and its answer is lost."""

    def answer(desk: Desk, batch: Batch) -> Outcome:
        desk.take(batch)
        raise error

    return answer


def refusing(poison: Iterable[str], error: Callable[[], BaseException]) -> Callable[[Desk, Batch], Outcome]:
    """Batches with one of these are refused as a whole."""
    bad = set(poison)

    def answer(desk: Desk, batch: Batch) -> Outcome:
        if bad & {str(c.identifiers["email"]) for c in batch.changes}:
            raise error()
        return desk.take(batch)

    return answer
