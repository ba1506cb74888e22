"""Snowflake as a source: one SELECT of the needed columns, streamed in Arrow batches into a Parquet file."""

from __future__ import annotations

import os
import threading
import uuid
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb

from sync.errors import SourceError
from sync.sources.base import Column, Relation, Source, Staged
from sync.sources.options import SnowflakeOptions
from sync.sources.queries import closest, pick, quoted, single_select, split_name
from sync.sources.snowflake_errors import explained
from sync.sources.snowflake_types import arrow_schema, duckdb_type, folded, shown

__all__ = ["SnowflakeSource"]

_TABLES = """
SELECT table_schema, table_name FROM information_schema.tables
WHERE table_schema <> 'INFORMATION_SCHEMA' ORDER BY 1, 2 LIMIT 1000
"""
_WHO = "SELECT CURRENT_USER(), CURRENT_ROLE(), CURRENT_WAREHOUSE()"


class SnowflakeSource(Source):
    """One sign-in, kept while the source is used, for any number of statements; it only reads.

    Rows leave Snowflake as declared: NUMBER as DECIMAL (BIGINT up to 18 digits without a fraction), VARIANT,
    OBJECT and ARRAY as JSON text, TIMESTAMP_LTZ and _TZ as instants in UTC. Times have microseconds, because
    dates such as 9999-12-31 do not fit into 64 bits of nanoseconds.
    """

    type = "snowflake"

    def __init__(self, name: str, options: SnowflakeOptions) -> None:
        self.name = name
        self.options = options
        self._lock = threading.Lock()
        self._connection: Any = None

    def check(self) -> str:
        """Sign in and ask who we are; raises `SourceError` HG205 where Snowflake does not let us in."""
        with self._cursor("signing in") as cursor:
            user, role, warehouse = cursor.execute(_WHO).fetchone()
        if not warehouse:
            raise SourceError(
                f"source {self.name}: there is no warehouse to run queries on",
                code="HG206",
                fix=f"name `warehouse` under [sources.{self.name}], and grant USAGE on it to {role}",
            )
        return f"Snowflake {self.options.account}: {user} as {role} on {warehouse}"

    def tables(self) -> Sequence[str]:
        """`schema.table` of the current database; lower case where Snowflake folded it to upper case."""
        with self._cursor("listing tables") as cursor:
            rows = cursor.execute(_TABLES).fetchall()
        return [f"{shown(schema)}.{shown(table)}" for schema, table in rows]

    def columns(self, relation: Relation) -> tuple[Column, ...]:
        """The relation's columns, without running it; raises `SourceError` HG202 where it does not exist."""
        return tuple(Column(m.name, duckdb_type(m)) for m in self._describe(relation))

    @contextmanager
    def stage(
        self,
        connection: duckdb.DuckDBPyConnection,  # noqa: ARG002 - it reads the file like any other
        relation: Relation,
        columns: Sequence[str],
        spool: Path,
    ) -> Iterator[Staged]:
        """Stream the columns into a file in `spool` that only we can read, and remove it at the end."""
        there = {m.name: m for m in self._describe(relation)}
        picked = pick(columns, list(there), relation.title)
        chosen = [there[name] for name in picked]
        schema = arrow_schema(chosen, relation.title)
        sql = f"SELECT {', '.join(map(quoted, picked))} FROM {_from(relation)}"
        spool.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = spool / f"{uuid.uuid4().hex}.parquet"
        try:
            with self._cursor(f"reading {relation.title}") as cursor:
                cursor.execute(sql)
                _spool(cursor.fetch_arrow_batches(force_microsecond_precision=True), schema, file)
            path = str(file.absolute()).replace("'", "''")
            yield Staged(f"read_parquet('{path}')", tuple(Column(m.name, duckdb_type(m)) for m in chosen))
        finally:
            file.unlink(missing_ok=True)

    def _describe(self, relation: Relation) -> list[Any]:
        """The connector's metadata of each column; nothing is run (`describeOnly`)."""
        try:
            with self._cursor(f"reading {relation.title}") as cursor:
                return list(cursor.describe(f"SELECT * FROM {_from(relation)}"))
        except SourceError as error:
            if error.code == "HG202" and relation.table:
                error.fix = self._hint(relation.table) or error.fix
            raise

    def _hint(self, table: str) -> str:
        with suppress(SourceError):
            return closest(table, self.tables())
        return ""

    @contextmanager
    def _cursor(self, what: str) -> Iterator[Any]:
        """A cursor of the kept connection; Snowflake's errors come out as `SourceError`."""
        from snowflake.connector.errors import Error

        try:
            with self._signed_in().cursor() as cursor:
                yield cursor
        except Error as error:
            found = explained(error, self.name, what)
            if found.code in ("HG200", "HG205"):
                self._sign_out()
            raise found from error

    def _signed_in(self) -> Any:
        with self._lock:
            if self._connection is None:
                self._connection = _connect(self.name, self.options)
                weakref.finalize(self, _close, self._connection)
            return self._connection

    def _sign_out(self) -> None:
        with self._lock:
            connection, self._connection = self._connection, None
        _close(connection)


def _connect(name: str, options: SnowflakeOptions) -> Any:
    import snowflake.connector

    given: dict[str, Any] = {
        "account": options.account,
        "user": options.user or None,
        "role": options.role,
        "warehouse": options.warehouse,
        "database": options.database,
        "schema": options.schema_,
        "host": options.host,
        "port": options.port,
        "protocol": options.protocol if options.host else None,
        **_credentials(name, options),
    }
    if hasattr(snowflake.connector, "ConnectionConfig"):  # the connector's 5.x line: no query outlives its session
        given["enable_server_session_keep_alive_auto_detection"] = False
    return snowflake.connector.connect(
        **{key: value for key, value in given.items() if value is not None},
        application="Headgate",
        arrow_number_to_decimal=True,
        login_timeout=max(1, round(options.login_timeout)),
        session_parameters={
            "CLIENT_TELEMETRY_ENABLED": False,
            "JSON_INDENT": 0,
            **options.session_parameters,
            "QUERY_TAG": options.query_tag,
            "STATEMENT_TIMEOUT_IN_SECONDS": max(1, round(options.statement_timeout)),
            "TIMEZONE": "UTC",
        },
    )


def _credentials(name: str, options: SnowflakeOptions) -> dict[str, Any]:
    if options.private_key is not None:
        return {"authenticator": "SNOWFLAKE_JWT", "private_key": _private_key(name, options)}
    if options.token is not None:
        return {"authenticator": "OAUTH", "token": options.token.get_secret_value()}
    if options.password is not None:
        return {"password": options.password.get_secret_value()}
    return {"authenticator": "EXTERNALBROWSER"}


def _private_key(name: str, options: SnowflakeOptions) -> bytes:
    """The key as the connector takes it (unencrypted PKCS #8, DER); raises `SourceError` HG205."""
    from cryptography.hazmat.primitives import serialization

    phrase = options.private_key_passphrase
    pem = options.private_key.get_secret_value() if options.private_key else ""
    try:
        key = serialization.load_pem_private_key(
            pem.encode(), password=phrase.get_secret_value().encode() if phrase else None
        )
    except (ValueError, TypeError) as error:  # TypeError: a passphrase is missing, or there is one too many
        if "ENCRYPTED" not in pem:
            reason = "is not PEM text (PKCS #8), or needs no passphrase"
        else:
            reason = "needs `private_key_passphrase`" if phrase is None else "and its passphrase do not fit"
        raise SourceError(
            f"source {name}: `private_key` {reason}",
            code="HG205",
            fix="refer to the file: private_key = 'file:/run/secrets/rsa_key.p8'",
        ) from error
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _close(connection: Any) -> None:
    from snowflake.connector.errors import Error

    with suppress(Error):
        if connection is not None:
            connection.close()


def _from(relation: Relation) -> str:
    """What stands for the relation in a FROM; names without quotes are folded as Snowflake does it."""
    if relation.query is not None:
        return f"({single_select(relation.query, 'snowflake')[1]}\n)"
    return ".".join(quoted(folded(part, name)) for part, name in split_name(relation.table or ""))


def _spool(tables: Iterator[Any], schema: Any, file: Path) -> None:
    """Write the batches as they come, each cast to what the columns are declared as."""
    import pyarrow.parquet

    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as out, pyarrow.parquet.ParquetWriter(out, schema, compression="zstd") as writer:  # noqa: PTH123
            for table in tables:
                writer.write_table(table.rename_columns(schema.names).cast(schema))
    except OSError as error:
        raise SourceError(
            f"the cohort's rows cannot be kept in {file.parent}: {error.strerror or 'input or output error'}",
            code="HG208",
            fix="free disk space for the state folder",
        ) from error
