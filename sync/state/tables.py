"""The ledger's tables and the database's clock: what the migrations, taken together, must have made.

Columns are named after the fields of the nouns in `sync.state.nouns`. Times are seconds since the epoch.
Mappings, tuples and sets are JSON text.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.sql.functions import FunctionElement

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

OPEN_RUN = ("sending", "waiting")
"""The statuses of a run that was begun and not finished."""


class _Steady(FunctionElement[float]):
    """The clock of leases and barriers, in seconds; see `sync.state.steady`."""

    type = Double()
    inherit_cache = True
    name = "steady"


class _Now(FunctionElement[float]):
    """The database's clock, in seconds since the epoch."""

    type = Double()
    inherit_cache = True
    name = "now"


# `unixepoch('subsec')` would be plainer, but needs SQLite 3.42.
@compiles(_Now, "sqlite")
def _sqlite_now(*_: Any, **__: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(_Steady, "sqlite")
def _sqlite_steady(*_: Any, **__: Any) -> str:
    return "steady()"  # `sync.state.database` makes it


# The server's own clock: there is no steady one to be had there.
@compiles(_Steady, "postgresql")
@compiles(_Now, "postgresql")
def _postgresql_now(*_: Any, **__: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


NOW: ColumnElement[float] = _Now()
STEADY: ColumnElement[float] = _Steady()


def _text(name: str, **options: Any) -> Column[str]:
    return Column(name, Text, nullable=False, **options)


def _maybe(name: str) -> Column[str]:
    return Column(name, Text)


def _count(name: str, **options: Any) -> Column[int]:
    return Column(name, Integer, nullable=False, **options)


def _time(name: str, *, nullable: bool = False) -> Column[float]:
    return Column(name, Double, nullable=nullable)


def _flag(name: str) -> Column[bool]:
    return Column(name, Boolean, nullable=False)


lease = Table(
    "lease", metadata, _text("sync", primary_key=True), _text("holder"), _count("epoch"), _time("expires")
)

refresh = Table(
    "refresh",
    metadata,
    Column("seq", Integer, primary_key=True),
    _text("id", unique=True),
    _text("sync"),
    _text("cohort"),
    _time("at"),
    _count("rows"),
    _count("invalid"),
    _text("version"),
    _text("definition"),
    _text("cause"),
    _time("newest", nullable=True),
    _text("nulls"),
    _text("key_sum"),
    _flag("accepted"),
    Index(None, "sync", "seq"),
)

generation = Table(
    "generation",
    metadata,
    _text("sync", primary_key=True),
    _count("number", primary_key=True),
    _count("members"),
    _maybe("base"),
    _maybe("delta"),
    _text("fields"),
    _text("probe"),
    _text("run"),
    _text("refresh"),
    _time("at"),
    _text("digests"),
    _text("place", server_default=""),
)

plan = Table(
    "plan",
    metadata,
    Column("seq", Integer, primary_key=True),
    _text("id", unique=True),
    _text("digest", unique=True),
    # Counts how often a plan with this digest was made: decisions on an earlier making do not count.
    _count("round"),
    _text("sync"),
    _text("destination"),
    _text("object"),
    _maybe("audience"),
    _text("cohort"),
    _text("status"),
    _text("file"),
    _text("file_sha256"),
    _text("inputs"),
    _text("mapping_digest"),
    _count("generation"),
    _text("refresh"),
    _text("source_version"),
    _text("counts"),
    _text("verdicts"),
    _time("created_at"),
    _time("expires_at"),
    _count("needs"),
    _text("reason"),
    _text("author"),
    _text("kind", server_default="diff"),
    _text("origin", server_default=""),
    Index(None, "sync", "seq"),
)

_HELD = text("status = 'held'")  # written out: only then does SQLite see that a query is about these
Index("ix_plan_held", plan.c.sync, sqlite_where=_HELD, postgresql_where=_HELD)

approval = Table(
    "approval",
    metadata,
    Column("seq", Integer, primary_key=True),
    _text("plan"),
    _count("round"),
    _text("digest"),
    _text("decision"),
    _text("actor"),
    _text("reason"),
    _time("at"),
    UniqueConstraint("plan", "round", "actor"),
    ForeignKeyConstraint(["plan"], ["plan.id"]),
)

run = Table(
    "run",
    metadata,
    Column("seq", Integer, primary_key=True),
    _text("id", unique=True),
    _text("sync"),
    _text("status"),
    _maybe("plan"),
    _text("ops"),
    _text("trigger"),
    _text("actor"),
    _time("started_at"),
    _time("finished_at", nullable=True),
    _count("epoch"),
    _flag("approved"),
    _text("counts"),
    _maybe("error"),
    _count("removed"),  # removals the destination acknowledged, counted when the run ends
    Index(None, "sync", "seq"),
    Index(None, "sync", "finished_at"),
)
# Two open runs of one sync would send against each other: the database itself refuses the second.
Index(
    "uq_run_open",
    run.c.sync,
    unique=True,
    sqlite_where=run.c.status.in_(OPEN_RUN),
    postgresql_where=run.c.status.in_(OPEN_RUN),
)

batch = Table(
    "batch",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    _count("number", primary_key=True, autoincrement=False),
    _text("id"),
    _count("phase"),
    _text("op"),
    _count("first"),
    _count("last"),
    _text("state"),
    Column("parent", Integer),
    _count("attempts"),
    _count("applied"),
    _count("accepted"),
    _count("rejected"),
    _count("deferred"),
    _count("unknown"),
    _maybe("job"),
    _maybe("remote_ids"),
    # The idempotency key: a destination would drop the second batch that carries it.
    UniqueConstraint("run", "id"),
)

attempt = Table(
    "attempt",
    metadata,
    Column("id", Integer, primary_key=True),
    _text("sync"),
    _text("run"),
    _count("batch"),
    _count("epoch"),
    _time("alive_until"),
    _flag("settled"),
    ForeignKeyConstraint(["run", "batch"], ["batch.run", "batch.number"]),
)
_UNSETTLED = attempt.c.settled.is_(false())
Index("ix_attempt_sync", attempt.c.sync, sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED)
Index("ix_attempt_batch", attempt.c.run, attempt.c.batch, sqlite_where=_UNSETTLED, postgresql_where=_UNSETTLED)

exception = Table(
    "exception",
    metadata,
    Column("run", Text, ForeignKey("run.id"), primary_key=True),
    _count("row", primary_key=True, autoincrement=False),
    _text("key"),
    _text("op"),
    _text("status"),
    _text("reason"),
    sqlite_with_rowid=False,
)

dirty = Table(
    "dirty",
    metadata,
    _text("sync", primary_key=True),
    _text("key", primary_key=True),
    _text("run"),
    _count("row"),
    _text("op"),
    sqlite_with_rowid=False,
)

rejected = Table(
    "rejected",
    metadata,
    _text("sync", primary_key=True),
    _text("key", primary_key=True),
    _text("op"),
    _text("code"),
    _text("reason"),
    _text("fingerprint"),
    _text("run"),
    _count("row"),
    _count("attempts"),
    _time("first_at"),
    _time("last_at"),
    _time("next_at"),
    _maybe("given_up_by"),
    _maybe("given_up_reason"),
    _time("given_up_at", nullable=True),
    sqlite_with_rowid=False,
)

run_request = Table(
    "run_request",
    metadata,
    _text("sync", primary_key=True),
    _text("slot", primary_key=True),
    _text("why"),
    _text("actor"),
    _time("at"),
    _time("taken_at", nullable=True),
    _text("kind", server_default="run"),
    _time("ended_at", nullable=True),
    _maybe("report"),
)

token = Table(
    "token",
    metadata,
    _text("id", primary_key=True),
    _text("name", unique=True),  # also of those that are revoked: the audit log knows them by it
    _text("hash"),
    _text("scopes"),
    _text("syncs"),
    _time("created_at"),
    _text("created_by"),
    _time("expires_at"),
    _time("used_at", nullable=True),
    _time("revoked_at", nullable=True),
)

idempotency_key = Table(
    "idempotency_key",
    metadata,
    _text("token", primary_key=True),
    _text("key", primary_key=True),
    _text("digest"),
    _text("sync"),
    _text("slot"),
    _time("at"),
)

_OPEN = run_request.c.taken_at.is_(None)
Index("ix_run_request_open", run_request.c.sync, sqlite_where=_OPEN, postgresql_where=_OPEN)

paused = Table("paused", metadata, _text("name", primary_key=True), _text("reason"), _time("since"))

note = Table("note", metadata, _text("sync", primary_key=True), _text("name", primary_key=True), _text("value"))

erasure = Table(
    "erasure",
    metadata,
    Column("seq", Integer, primary_key=True),
    _text("id", unique=True),
    _time("at"),
    _text("actor"),
    _text("reason"),
    _time("remembered_at", nullable=True),
    _maybe("remembered_by"),
    _maybe("remembered_reason"),
)

erasure_part = Table(
    "erasure_part",
    metadata,
    Column("erasure", Text, ForeignKey("erasure.id"), primary_key=True),
    _text("sync", primary_key=True),
    _text("destination"),
    _maybe("audience"),
    _text("state"),
    _text("outcome"),
    _text("keys"),
    _text("rows"),
    _time("ended_at", nullable=True),
    Index(None, "sync", "state"),
)

forgotten = Table(
    "forgotten",
    metadata,
    _text("sync", primary_key=True),
    _text("digest", primary_key=True),
    Column("erasure", Text, ForeignKey("erasure.id"), primary_key=True),
    _count("bucket"),
    _text("probe"),
    _text("secret"),
)

alert = Table(
    "alert",
    metadata,
    _text("subject", primary_key=True),
    _text("condition", primary_key=True),
    _count("number"),
    _flag("open"),
    _time("since"),
    _text("told"),
    _time("told_at"),
    _flag("flapping"),
    _text("changes"),
    _text("facts"),
)

alert_message = Table(
    "alert_message",
    metadata,
    Column("seq", Integer, primary_key=True),
    _text("id"),
    _text("target"),
    _text("subject"),
    _text("condition"),
    _text("kind"),
    _time("at"),
    _time("since"),
    _text("facts"),
    _count("attempts"),
    _text("problem"),
    _time("sent_at", nullable=True),
    _time("gave_up_at", nullable=True),
    _time("next_at"),  # not tried before, by the steady clock
    _text("claimed_by"),
    _time("claimed_until"),  # by the steady clock
    UniqueConstraint("id", "target"),
)
_WAITING = alert_message.c.sent_at.is_(None) & alert_message.c.gave_up_at.is_(None)
Index("ix_alert_message_target", alert_message.c.target, sqlite_where=_WAITING, postgresql_where=_WAITING)

alert_mute = Table(
    "alert_mute",
    metadata,
    _text("subject", primary_key=True),
    _text("condition", primary_key=True),
    _time("until"),
    _text("reason"),
    _text("actor"),
    _time("at"),
)

audit_event = Table(
    "audit_event",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    _time("at"),
    _text("actor"),
    _text("action"),
    _text("object"),
    _text("data"),
    _text("prev"),
    _text("hash"),
)
