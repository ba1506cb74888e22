"""What every history starts from, made once: a ledger with a run behind it, its files, and one DuckDB for all.

What stands in for the product's own is only what costs time: DuckDB is opened once and not for every step, the
ledger's disk need not keep what it wrote, and its clock is the scheduler's.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import sqlalchemy as sa

from sync.engine.compile import compile_sync, key_sql
from sync.engine.job import DeliverySettings, EngineSettings, GuardrailLimits, SyncJob
from sync.engine.runner import Runner
from sync.mapping import Cohort, Mode, Sync
from sync.sdk.connector import Connector
from sync.sdk.nouns import Delivery, Field, Limits, ObjectSpec, Op
from sync.sources.base import Column, Relation, Source, Staged
from sync.state import mark, tables
from sync.state.ledger import Ledger, open_ledger
from sync.state.members import folder_of, relation
from sync.state.nouns import Generation
from tests.state.simulation.network import TIMEOUT
from tests.state.world import Desk, Scripted

__all__ = ["EVERYBODY", "START", "SYNC", "Machine", "Rows"]

SYNC = "vips-crm"
EVERYBODY = [f"p{n}@x.example" for n in range(12)]
START = {email: {"score": 7 * n} for n, email in enumerate(EVERYBODY[:8])}
"""The cohort, and the destination, when a history begins."""

_COLUMNS = (Column("id", "BIGINT"), Column("email", "VARCHAR"), Column("score", "BIGINT"))
_SCORES = 1000  # that a history can come to
_DAYS = 2440587.5  # between SQLite's epoch and ours


class Rows(Source):
    """A cohort that is read as it is at this moment."""

    name = "warehouse"
    type = "test"

    def __init__(self, read: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        self.read = read

    def check(self) -> str:
        return "there"

    def tables(self) -> Sequence[str]:
        return ["vips"]

    def columns(self, relation: Relation) -> tuple[Column, ...]:
        return _COLUMNS

    @contextlib.contextmanager
    def stage(
        self, connection: duckdb.DuckDBPyConnection, relation: Relation, columns: Sequence[str], spool: Path
    ) -> Iterator[Staged]:
        rows = ", ".join(
            f"({EVERYBODY.index(email)}::BIGINT, '{email}', {fields['score']}::BIGINT)"
            for email, fields in self.read().items()
        )
        yield Staged(f"(SELECT * FROM (VALUES {rows}) t(id, email, score))", _COLUMNS)


class Machine:
    """A folder, a ledger in it, and the means to set both back."""

    def __init__(self) -> None:
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.root = Path(tempfile.mkdtemp(prefix="headgate-simulation-", dir=memory))
        self._tables: dict[tuple[str | None, str | None], dict[str, dict[str, Any]]] = {}
        self.now: Callable[[], float] = lambda: 1000.0
        self._duckdb = duckdb.connect(config={"threads": 1, "memory_limit": "256MB"})
        self._duckdb.execute("SET TimeZone = 'UTC'")
        self.ledger = self._open(self.root / "ledger.db")

    def close(self) -> None:
        """Let go of everything."""
        self._duckdb.close()
        self.ledger.close()
        shutil.rmtree(self.root, ignore_errors=True)

    # --- the ledger ---------------------------------------------------------------------------------------

    def _open(self, path: Path) -> Ledger:
        ledger = open_ledger(path)
        database: Any = ledger._db

        def configure(connection: Any, _record: Any = None) -> None:
            connection.create_function("julianday", 1, lambda _: _DAYS + self.now() / 86400.0)
            connection.create_function("steady", 0, lambda: self.now())
            connection.execute("PRAGMA synchronous = OFF")

        sa.event.listen(database._engine, "connect", configure)
        configure(database._writer.connection.dbapi_connection)
        with database.read() as connection:
            configure(connection.connection.dbapi_connection)
        return ledger

    def reset(self) -> None:
        """The ledger as it was after the first run. Files that it does not name harm nobody."""
        snapshot, database = self._snapshot, self.ledger._db
        mark.erase(self.settings.folder, SYNC)
        with database.write() as connection:
            connection.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
            for table in reversed(tables.metadata.sorted_tables):
                connection.execute(sa.delete(table))
            for table, rows in snapshot:
                connection.execute(sa.insert(table), rows)

    @cached_property
    def _snapshot(self) -> list[tuple[sa.Table, list[dict[str, Any]]]]:
        """The ledger's rows after a first run that delivered everybody."""
        desk = Desk()
        with self.opened():
            job = self.job("set", lambda: START, lambda before: Scripted(desk, before))
            report = Runner(self.ledger, self.settings, actor="ann").run(job, first_run=True)
        assert (report.status, desk.members) == ("completed", START), report
        with self.ledger.reading() as connection:
            return [
                (table, [dict(row) for row in rows])
                for table in tables.metadata.sorted_tables
                if (rows := connection.execute(sa.select(table)).mappings().all())
            ]

    # --- the engine's surroundings ------------------------------------------------------------------------

    @contextlib.contextmanager
    def opened(self) -> Iterator[None]:
        """Let the engine's modules have connections of this DuckDB."""
        from unittest.mock import patch

        from sync.engine import batches, observe, settle

        with contextlib.ExitStack() as stack:
            for module in (batches, observe, settle):
                stack.enter_context(patch.object(module, "open_database", self.database))
                stack.enter_context(patch.object(module, "lock_down", lambda _: None))
            yield

    def database(self, _: EngineSettings | None = None) -> duckdb.DuckDBPyConnection:
        """A connection with temporary tables of its own."""
        return self._duckdb.cursor()

    @property
    def settings(self) -> EngineSettings:
        """The engine's."""
        delivery = DeliverySettings(
            request_timeout=TIMEOUT,
            attempts=3,
            backoff_first=0.5,
            backoff_max=5.0,
            rate_limited_for=60.0,
            job_wait=30.0,
        )
        return EngineSettings(self.root / "state", threads=1, lease_ttl=30.0, delivery=delivery)

    def job(
        self,
        kind: str,
        cohort: Callable[[], Mapping[str, Mapping[str, Any]]],
        connect: Callable[[Callable[[], None]], Connector[Any]],
        *,
        limits: Limits | None = None,
        mapping: str = "mapping-1",
    ) -> SyncJob:
        """The sync."""
        spec = ObjectSpec(
            name="contact",
            title="Contact",
            ops=frozenset(Op),
            fields=(Field("email", identifier=True), Field("score", "integer")),
            limits=limits or Limits(batch_size=3),
            delivery=Delivery.SNAPSHOT if kind == "snapshot" else Delivery.DELTA,
            audience=False,
            idempotent=kind != "counting",
        )
        return SyncJob(
            name=SYNC,
            cohort=_COHORT,
            sync=_SYNC,
            destination="crm",
            spec=spec,
            limits=spec.limits,
            account="crm.example",
            guardrails=GuardrailLimits(
                max_removed_pct=100.0, max_removed_pct_7d=100_000.0, stop_rejected_pct=100.0
            ),
            mapping_digest=mapping,
            author="",
            source=lambda: Rows(cohort),
            connect=connect,
        )

    # --- what is known ------------------------------------------------------------------------------------

    @cached_property
    def emails(self) -> dict[str, str]:
        """Member key -> e-mail."""
        people = ", ".join(f"('{email}')" for email in EVERYBODY)
        query = f"SELECT {key_sql(['email'])}::VARCHAR, email FROM (VALUES {people}) t(email)"
        return dict(self.database().execute(query).fetchall())

    @cached_property
    def keys(self) -> dict[str, str]:
        """E-mail -> member key."""
        return {email: key for key, email in self.emails.items()}

    @cached_property
    def fingerprints(self) -> dict[int, int]:
        """Score -> fingerprint of whoever has it."""
        rows = f"(SELECT i AS id, 'x@x.example' AS email, i::BIGINT AS score FROM range({_SCORES}) t(i))"
        connection = self.database()

        def describe(select: str) -> dict[str, str]:
            return {str(r[0]): str(r[1]) for r in connection.execute(f"DESCRIBE {select}").fetchall()}

        spec = self.job("set", dict, lambda _: None).spec  # type: ignore[arg-type, return-value]
        compiled = compile_sync(_COHORT, _SYNC, spec, rows, _COLUMNS, describe)
        query = f'SELECT "field.score", fingerprint FROM ({compiled.digested})'
        return dict(connection.execute(query).fetchall())

    def table(self, generation: Generation) -> dict[str, dict[str, Any]]:
        """A generation's members: key -> its columns. Files have names of their own, so it is read once."""
        files = (generation.base, generation.delta)
        if files not in self._tables:
            folder = folder_of(self.settings.folder, SYNC)
            self._tables[files] = self.table_of(relation(self._duckdb, folder, generation, ["email"]))
        return self._tables[files]

    def table_of(self, select: str) -> dict[str, dict[str, Any]]:
        """The members that a SELECT gives: key -> its columns."""
        with closing(self.database()) as connection:
            cursor = connection.execute(select)
            names = [column[0] for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        return {str(row["key"]): row for row in rows}

    def members(self, generation: Generation) -> dict[str, int]:
        """A generation's members: e-mail -> fingerprint."""
        return {self.emails[key]: row["fingerprint"] for key, row in self.table(generation).items()}


_COHORT = Cohort.model_validate(
    {"name": "vips", "source": {"connection": "warehouse", "table": "vips", "key": "id"}}
)
_SYNC = Sync.model_validate(
    {
        "name": SYNC,
        "destination": "crm",
        "mode": str(Mode.MIRROR),
        "identifiers": [{"to": "email", "from": "email"}],
        "fields": [{"to": "score", "from": "score"}],
    }
)
