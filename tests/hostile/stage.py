"""A sync to a stand's destination, by the real engine, ledger and client; each batch is told another lie.

Every lie goes on for as long as one call of the engine tries. The next call takes the run up where it ended, and
is served honestly for the batches that were lied to before.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

from sync.engine.job import DeliverySettings, GuardrailLimits, SyncJob
from sync.engine.pacing import Pacers
from sync.engine.report import SilentObserver, SyncReport
from sync.mapping import Cohort, Sync
from sync.sdk.connector import Connector
from sync.sdk.nouns import Batch, Op, Outcome
from sync.state.members import folder_of, relation
from tests.hostile.lies import Told
from tests.hostile.server import Liar
from tests.hostile.stands import People, Road, Stand
from tests.state.world import SYNC, Warehouse, World

CANARY = "canary9f3c"
"""Part of every person's address and name."""

SIZE = 3  # records of a batch
_TIME, _SHORT = 8.0, 0.3  # seconds for a request; for one whose answer never ends

DELIVERY = DeliverySettings(
    request_timeout=_TIME, attempts=2, backoff_first=0.01, backoff_max=0.01, rate_limited_for=0.05, job_wait=5.0
)


@dataclass
class Group:
    """The people of one batch, and the lie it is told (None: the truth).

    The lie is told in one call of the engine: there to every push, or, where `once`, to the first push of each
    batch only, so that the engine's own second try is answered honestly.
    """

    told: Told | None
    apply: bool  # does the destination do what it is asked before it lies
    once: bool
    people: list[str]
    keys: list[str]
    call: int
    pushes: list[str] = field(default_factory=list)  # batches, in the order they were pushed
    served: bool = False  # was a batch that had been lied to repeated, and answered honestly
    crooked: bool = False  # did the lie come out as anything but the honest answer


class Listening(SilentObserver):
    """Keeps what a run tells."""

    def __init__(self, heard: list[str]) -> None:
        self._heard = heard

    def note(self, sync: str, message: str) -> None:
        """Keep it."""
        self._heard.append(message)


class _Log(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(f"{record.getMessage()} {record.exc_info}")


@dataclass
class Stage(World):
    """One sync to one stand. `lies` are told in turn, a batch each, to requests to the path `where`."""

    stand: Stand = None  # type: ignore[assignment]
    liar: Liar = None  # type: ignore[assignment]
    op: Op | None = None
    where: str | None = None
    idempotent: bool = True
    lies: Sequence[Told | None] = ()
    groups: list[Group] = field(default_factory=list)
    call: int = 0
    said: list[str] = field(default_factory=list)  # everything that was told or logged
    _group_of: dict[str, Group] = field(default_factory=dict)
    _address_of: dict[str, str] = field(default_factory=dict)  # by the form that the object keeps it in

    # --- the cohort ---------------------------------------------------------------------------------------

    def cohort(self, people: Sequence[str] | range, renamed: Sequence[str] = ()) -> Stage:
        """(Re)make the cohort with these people, numbers or addresses; the `renamed` have another name."""
        addresses = [person(p) if isinstance(p, int) else p for p in people]
        self._address_of.update({self.stand.kept(address): address for address in addresses})
        new = set(renamed)
        self.warehouse.execute("CREATE OR REPLACE TABLE vips (id BIGINT, email VARCHAR, name VARCHAR)")
        rows = [(n, a, f"{'New' if a in new else 'Old'} {CANARY}") for n, a in enumerate(addresses)]
        if rows:
            ids, emails, names = (list(column) for column in zip(*rows, strict=True))
            self.warehouse.execute("INSERT INTO vips SELECT unnest(?), unnest(?), unnest(?)", [ids, emails, names])
        return self

    @property
    def wanted(self) -> People:
        """What the cohort has now: a name by address, empty names where none are sent."""
        rows = self.warehouse.execute("SELECT email, name FROM vips").fetchall()
        return {email: name if self.stand.field else "" for email, name in rows}

    # --- the run ------------------------------------------------------------------------------------------

    @property
    def job(self) -> SyncJob:
        cohort = Cohort.model_validate(
            {"name": "vips", "source": {"connection": "warehouse", "table": "vips", "key": "id"}}
        )
        stand, spec = self.stand, replace(self.stand.spec, idempotent=self.idempotent)
        sync = {
            "name": SYNC,
            "destination": "crm",
            "object": stand.object,
            "mode": str(stand.mode),
            "identifiers": [{"to": stand.identifier, "from": "email", "pii": True}],
            "fields": [{"to": stand.field, "from": "name", "pii": True}] if stand.field else [],
        } | ({"audience": stand.audience} if stand.audience else {})
        return SyncJob(
            name=SYNC,
            cohort=cohort,
            sync=Sync.model_validate(sync),
            destination="crm",
            spec=spec,
            limits=replace(spec.limits, batch_size=SIZE, concurrency=1, rates=()),
            account="crm.example",
            guardrails=GuardrailLimits(
                max_removed=10**6,
                max_removed_pct=10**6,
                max_removed_pct_7d=10**6,
                stop_rejected_pct=100,
                allow_irreversible=spec.irreversible,
            ),
            mapping_digest=self.digest,
            author="",
            source=lambda: Warehouse(self.warehouse),
            connect=self._connect,
        )

    def _connect(self, before: Callable[[], None]) -> Connector[Any]:
        """The connector; what it is lied to is decided when it is given a batch."""
        road = Road(self.liar.url, _TIME)
        connector = self.stand.connect(road, before)
        push = connector.push

        def told(batch: Batch) -> Outcome:
            told = self._next(batch)
            road.real.timeout = _SHORT if told is not None and told.slow else _TIME
            try:
                return push(batch)
            finally:
                self._group(batch).crooked |= self.liar.crooked

        connector.push = told  # type: ignore[method-assign]
        return connector

    def _next(self, batch: Batch) -> Told | None:
        """Set the server up for this batch; the lie it is told."""
        group = self._group(batch)
        again = batch.id in group.pushes
        group.pushes.append(batch.id)
        honest = group.call != self.call or (again and group.once)
        group.served |= again and honest
        told = None if honest else group.told
        self.liar.tell(told.lie if told else None, self.where, apply=group.apply)
        return told

    def _group(self, batch: Batch) -> Group:
        """The group of a batch, or of the half of one."""
        sent = [str(change.identifiers[self.stand.identifier]) for change in batch.changes]
        people = [self._address_of.get(text, text) for text in sent]
        group = self._group_of.get(people[0])
        if group is None:
            group = self._new(people, batch)
            self.groups.append(group)
            self._group_of.update(dict.fromkeys(people, group))
        return group

    def _new(self, people: list[str], batch: Batch) -> Group:
        """The next lie's group. Most lies are told once: a run that is halted by each takes long."""
        told = self.lies[len(self.groups)] if len(self.groups) < len(self.lies) else None
        halts = told is None or len(self.groups) == len(self.lies) - 1 or self._dice(told) % 5 == 0
        return Group(told, self._applies(told), not halts, people, [c.key for c in batch.changes], self.call)

    def _dice(self, told: Told) -> int:
        """The same number for a lie told to the same op of the same stand, whenever."""
        return zlib.crc32(f"{told.name} {self.stand.name} {self.where} {self.op}".encode())

    def _applies(self, told: Told | None) -> bool:
        """A refusal is no lie. Other lies are told after the deed in about every other case."""
        if told is None or told.refusal:
            return False
        fixed = bool(told.believed) or told.bent
        return fixed or self._dice(told) % 2 == 0

    def runs(self) -> SyncReport:
        """One call of the engine, as a new process would make it; everything it says is kept."""
        self.call += 1
        self.pacers = Pacers()
        self.delivery = DELIVERY
        handler, root = _Log(self.said), logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        try:
            report = self.runner(observer=Listening(self.said)).run(self.job, first_run=True)
        finally:
            root.removeHandler(handler)
            root.setLevel(level)
        self.said += [report.error, report.fix, *report.notes]
        return report

    def through(self, when_told: Callable[[], None]) -> list[SyncReport]:
        """Call the engine until a run ends: each call that was halted is followed by another.

        `when_told` is called once every lie was told; where the last one halts, that is before the run ends.
        """
        reports: list[SyncReport] = []
        told = False
        while not reports or reports[-1].code:
            assert len(reports) < 3 * len(self.lies) + 10, reports[-1]
            reports.append(self.runs())
            if not told and len(self.groups) >= len(self.lies):
                told = True
                when_told()
        return reports

    def later(self) -> Stage:
        """So much later that no request of an earlier run can be alive."""
        with closing(sqlite3.connect(self.root / "state" / "ledger.db", isolation_level=None)) as connection:
            connection.execute("UPDATE attempt SET alive_until = 0")
        return self

    def begin(self, **options: Any) -> None:
        """Set options, and forget what was asked and told so far."""
        for name, value in options.items():
            setattr(self, name, value)
        self.groups, self._group_of = [], {}
        self.said.clear()
        self.liar.heard.clear()

    # --- what became of it --------------------------------------------------------------------------------

    def known(self) -> set[str]:
        """Whom the ledger's members have, by address, also where it keeps digests."""
        generation = self.ledger.generation(SYNC)
        column = self.stand.identifier
        select = relation(self.warehouse, folder_of(self.root / "state", SYNC), generation, [column])
        rows = self.warehouse.execute(f'SELECT "id.{column}" FROM ({select})').fetchall()
        return {self._address_of.get(kept, kept) for (kept,) in rows}

    def unapplied(self, run: str) -> set[str]:
        """Keys of the records that a run did not see applied, as the ledger has it."""
        return {key for _, key, *_ in self.ledger.exceptions(run)}

    def written(self) -> str:
        """What the audit log, and the runs' errors in the ledger, have to say."""
        with self.ledger.reading() as connection:
            events = connection.exec_driver_sql("SELECT actor, action, object, data FROM audit_event").fetchall()
            errors = connection.exec_driver_sql("SELECT error FROM run").fetchall()
        return f"{events} {errors}"

    def reasons(self) -> list[str]:
        """Every reason the ledger keeps of a record."""
        with self.ledger.reading() as connection:
            query = "SELECT reason FROM exception UNION SELECT reason FROM rejected"
            return [row[0] for row in connection.exec_driver_sql(query).fetchall()]


def person(number: int) -> str:
    """Somebody's address."""
    return f"{CANARY}.p{number}@person.example"


@dataclass(frozen=True)
class Scenario:
    """A cohort before and after, so that a run has changes of one op: `people` are those it is about."""

    op: Op
    people: tuple[str, ...]
    others: tuple[str, ...]

    @classmethod
    def of(cls, op: Op, count: int) -> Scenario:
        """`count` changes, and people of whom nothing changes: so many that the cohort does not shrink by half."""
        same = count + 6 if op is Op.REMOVE else 6
        everybody = tuple(person(n) for n in range(count + same))
        return cls(op, everybody[same:], everybody[:same])

    def before(self, stage: Stage) -> None:
        """The cohort of the first run."""
        stage.cohort([*self.others, *(self.people if self.op is not Op.ADD else ())])

    def after(self, stage: Stage, undone: Sequence[str] = ()) -> None:
        """The cohort with the changes, but for those people for whom they are taken back."""
        left = set(undone)
        if self.op is Op.ADD:
            stage.cohort([*self.others, *(p for p in self.people if p not in left)])
        elif self.op is Op.UPDATE:
            stage.cohort([*self.others, *self.people], renamed=[p for p in self.people if p not in left])
        else:
            stage.cohort([*self.others, *undone])
