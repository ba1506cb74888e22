"""PostgreSQL table: mirrors a cohort into a table of a PostgreSQL database of yours.

The audience is the table. The mapping's identifiers are its key: a primary key or a unique index has exactly these
columns. A member is a row; whoever leaves the cohort has that row deleted, and no other row is ever touched.

A batch is one transaction: COPY into a temporary table, then INSERT ... ON CONFLICT DO UPDATE, or DELETE. So a
crash leaves all of it or nothing, and sending it again changes nothing. Made for PostgreSQL 12 and later, tested
with 15.

What the user needs, and no more:

    GRANT CONNECT, TEMPORARY ON DATABASE app TO headgate;
    GRANT USAGE ON SCHEMA public TO headgate;
    GRANT SELECT, INSERT, UPDATE, DELETE ON people TO headgate;

With `create = true` it needs CREATE on the schema, too: a table that is missing is made by the first batch, of the
warehouse's types, with the identifiers as its primary key; columns that are missing later are added to it.

Values are PostgreSQL's to read: text like `2026-01-02` becomes a date where the column is one, a number text where
it is text. Lists and objects are JSON, or arrays where the column is one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import httpx
from pydantic import Field as Option
from pydantic import SecretStr, model_validator

from sync.errors import AuthError, RequestError, Unavailable
from sync.sdk import postgres_table as sql
from sync.sdk.connector import Config, Connector
from sync.sdk.http import turn
from sync.sdk.nouns import Batch, Change, Member, Outcome, Page, Receipt, Status
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order
from sync.sdk.postgres import quoted, transacted

if TYPE_CHECKING:
    from sync.sdk.postgres import Cursor

__all__ = ["PostgresTable", "PostgresTableConfig"]

T = TypeVar("T")
_Keys = list[str]
_Columns = dict[str, sql.Column]

_PAGE = 5_000
_NO_KEY = "give the table a primary key, or a unique index, of exactly the mapping's identifiers"
_SILENT = "the table did not take the row, or not under its key: a trigger or a rule is in the way"
_KEPT = "the row is still there: a trigger or a rule keeps it"


class PostgresTableConfig(Config):
    """One database of one server."""

    host: str = Option(min_length=1, description="Name or address; a path is the folder of a Unix socket.")
    port: int = Option(5432, ge=1, le=65535)
    database: str = Option(min_length=1)
    user: str = Option(min_length=1, description="A role of its own, with the grants listed above.")
    password: SecretStr | None = Option(None, description="Not needed where a certificate or a socket is enough.")
    namespace: str = Option("public", alias="schema", min_length=1, description="Where the tables are.")
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = Option(
        "verify-full", description="`require` encrypts without knowing to whom; `disable` is for this machine."
    )
    ssl_root_cert: Path | None = Option(
        None, description="The certificate authority's file; without it `verify-full` trusts the system's."
    )
    create: bool = Option(False, description="Make a table that is missing, and add missing columns.")
    batch_size: int = Option(5_000, ge=1, le=100_000, description="Rows of a transaction.")
    concurrency: int = Option(1, ge=1, le=16, description="Transactions at the same time.")

    @model_validator(mode="after")
    def _verifies(self) -> PostgresTableConfig:
        if self.sslmode == "verify-ca" and self.ssl_root_cert is None:
            raise ValueError('`sslmode = "verify-ca"` needs `ssl_root_cert`')
        return self


def _objects(size: int, concurrency: int) -> Mapping[str, ObjectSpec]:
    limits = Limits(batch_size=size, concurrency=concurrency)
    first = Order.REMOVALS_FIRST  # to a case-blind key column an address that changed its case is the same row
    return {"row": ObjectSpec("row", "Row of a table", frozenset(Op), (), limits, order=first, open_fields=True)}


class PostgresTable(Connector[PostgresTableConfig]):
    """A batch is one transaction."""

    name = "postgres_table"
    title = "PostgreSQL table"
    docs = __doc__ or ""
    config_model = PostgresTableConfig
    objects = _objects(5_000, 1)

    def __init__(self, config: PostgresTableConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = _objects(config.batch_size, config.concurrency)

    @classmethod
    def account(cls, config: PostgresTableConfig) -> str:
        """The schema of the database: what a sync writes to."""
        return f"postgres://{config.host}:{config.port}/{config.database}/{config.namespace}"

    def check(self) -> None:
        """Connect, and look whether the user may use the schema; raise `AuthError` where not."""
        usable = "SELECT has_schema_privilege(to_regnamespace(%s), 'USAGE')"
        found = self._transacted(lambda cursor: cursor.execute(usable, [quoted(self.config.namespace)]).fetchone())
        if found is None or not found[0]:
            fix = "Make the schema, or grant its USAGE."
            raise AuthError("the schema is not there, or the user may not use it", fix=fix)

    def push(self, batch: Batch) -> Outcome:
        """All of the batch in one transaction. Raises `AuthError`, `RequestError` and `Unavailable`."""
        keys = list(batch.changes[0].identifiers)
        receipts = {c.key: r for c in batch.changes if (r := _keyless(c, keys)) is not None}
        changes = [c for c in batch.changes if c.key not in receipts]
        if changes:
            receipts |= self._transacted(lambda cursor: self._written(cursor, batch, changes, keys))
        return [receipts.get(c.key) or Receipt(c.key, Status.APPLIED) for c in batch.changes]

    def describe(self, object: str, audience: str | None = None) -> list[Field]:  # noqa: ARG002 - there is one
        """The columns of a table; without one, of every table that the user may write, each name once."""

        def fields(cursor: Cursor) -> list[Field]:
            tables = [audience] if audience else sql.tables_of(cursor, self.config.namespace)
            columns = (c for one in tables for c in sql.columns_of(cursor, self._table(one)).values())
            return list({column.name: column.field for column in columns}.values())

        return self._transacted(fields)

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002
        """A page of rows by their key, with every column that a unique index has."""
        table = self._table(audience)

        def read(cursor: Cursor) -> Page:
            known = [c for c in sql.columns_of(cursor, table).values() if c.unique]
            keys = [c for c in known if c.key] or known
            if not keys:
                raise Unavailable(f"there is no table {audience} with a key", applied=False, fix=_NO_KEY)
            rows = sql.page(cursor, table, known, keys, json.loads(after or "[]"), _PAGE)
            members = [Member({c.name: value for c, value in zip(known, row, strict=True)}) for row, _ in rows]
            return Page(members, json.dumps(rows[-1][1]) if len(rows) == _PAGE else None)

        return self._transacted(read)

    def _transacted(self, work: Callable[[Cursor], T]) -> T:
        config = self.config
        root = config.ssl_root_cert or ("system" if config.sslmode == "verify-full" else "")
        where = {
            "host": config.host,
            "port": config.port,
            "dbname": config.database,
            "user": config.user,
            "password": config.password.get_secret_value() if config.password else "",
            "sslmode": config.sslmode,
            "sslrootcert": str(root),
        }
        return transacted(where, turn(self.http), work)

    def _table(self, audience: str | None) -> str:
        return quoted(self.config.namespace, audience or "")

    def _written(self, cursor: Cursor, batch: Batch, changes: Sequence[Change], keys: _Keys) -> dict[str, Receipt]:
        """Write them; the receipts of those that the table did not take as they are."""
        columns = self._columns(cursor, batch, changes, keys)
        table, strays = self._table(batch.audience), dict[str, Receipt]()
        for names, alike in _alike(changes).items():
            fields = [name for name in names if name not in keys]
            sql.copy(cursor, table, [columns[name] for name in (*keys, *fields)], alike, batch.types)
            if changes[0].op is Op.REMOVE:
                left, why = sql.remove(cursor, table, keys), (Status.REJECTED, _KEPT)
            else:
                left, why = sql.put(cursor, table, keys, fields), (Status.UNKNOWN, _SILENT)
            strays |= {alike[at].key: Receipt(alike[at].key, *why) for at in left}
        return strays

    def _columns(self, cursor: Cursor, batch: Batch, changes: Sequence[Change], keys: _Keys) -> _Columns:
        """The table's columns, made where they are missing and may be. Raises where they are not."""
        table = self._table(batch.audience)
        wanted = dict.fromkeys([*keys, *(name for change in changes for name in change.fields)])
        columns = sql.columns_of(cursor, table)
        missing = [name for name in wanted if name not in columns]
        if missing and self.config.create:
            return sql.make(cursor, table, wanted, keys, batch.types)
        if not columns:
            raise Unavailable(f"there is no table {table}", applied=False, fix="make it, or set `create = true`")
        if missing:
            raise RequestError(f"the table {table} has no column {', '.join(missing)}")
        return columns


def _keyless(change: Change, keys: Sequence[str]) -> Receipt | None:
    """The rejection of a change that could not be found again."""
    empty = [name for name in keys if change.identifiers.get(name) is None]
    return Receipt(change.key, Status.REJECTED, f"the key column {empty[0]} is empty") if empty else None


def _alike(changes: Sequence[Change]) -> dict[tuple[str, ...], list[Change]]:
    """The changes by the fields they have; nearly always all have the same."""
    groups: dict[tuple[str, ...], list[Change]] = {}
    for change in changes:
        groups.setdefault(tuple(change.fields), []).append(change)
    return groups
