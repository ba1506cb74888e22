"""The warehouses that a scenario is played in: each makes the same tables, and is read as a configured source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb

from sync.sources import open_source
from sync.sources.base import Source
from tests.parity.kinds import Table
from tests.servers import Postgres
from tests.snowflake import Snowflake

__all__ = ["DuckDB", "PostgreSQL", "SnowflakeDB", "Warehouse"]


class Warehouse(ABC):
    """A warehouse, and who reads it."""

    type: str

    @abstractmethod
    def ask(self, *statements: str) -> None:
        """Run statements as somebody else would."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """`[sources.NAME]` of it."""

    def put(self, table: Table) -> None:
        """Make a table (anew)."""
        self.ask(*table.made(self.type))

    def make_schema(self, name: str) -> None:
        """Make a schema, as somebody who stays where they are."""
        self.ask(f"CREATE SCHEMA {name}")

    def source(self, **more: Any) -> Source:
        """The source, opened as a run opens it."""
        return open_source("warehouse", {**self.options(), **more}, Path(), "parity")

    def close(self) -> None:  # noqa: B027 - not all hold something open
        """Let go of it."""


class DuckDB(Warehouse):
    """A database file."""

    type = "duckdb"

    def __init__(self, folder: Path) -> None:
        self.path = folder / "warehouse.duckdb"

    def ask(self, *statements: str) -> None:
        with duckdb.connect(str(self.path), config={"threads": 1}) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            for statement in statements:
                connection.execute(statement)

    def options(self) -> dict[str, Any]:
        return {"type": self.type, "path": str(self.path)}


class PostgreSQL(Warehouse):
    """A database of a cluster; `port` is where the source connects, by default the cluster's own."""

    type = "postgres"

    def __init__(self, server: Postgres, port: int | None = None) -> None:
        self.server = server
        self.name = server.database()
        self.port = port or server.port

    @cached_property
    def _connection(self) -> Any:
        import psycopg

        return psycopg.connect(self.server.url(self.name), autocommit=True)

    def ask(self, *statements: str) -> None:
        for statement in statements:
            self._connection.execute(statement)

    def options(self) -> dict[str, Any]:
        return {
            "type": self.type,
            "host": self.server.host,
            "port": self.port,
            "database": self.name,
            "user": self.server.user,
            "password": self.server.password,
            "ssl_root_cert": str(self.server.certificate),
        }

    def close(self) -> None:
        self._connection.close()


class SnowflakeDB(Warehouse):
    """A schema of the server that speaks Snowflake's protocol; `port` is where the source connects."""

    type = "snowflake"

    def __init__(
        self,
        server: Snowflake,
        schema: str = "parity",
        session_parameters: Mapping[str, Any] | None = None,
        port: int | None = None,
    ) -> None:
        self.port = port or server.port
        self.server = server
        self.schema = schema
        self.session_parameters = dict(session_parameters or {})

    @cached_property
    def _connection(self) -> Any:
        import snowflake.connector

        given = {**self.options(), "port": self.server.port}
        del given["type"]
        return snowflake.connector.connect(
            **given,
            session_parameters={"CLIENT_TELEMETRY_ENABLED": False, **self.session_parameters},
            enable_server_session_keep_alive_auto_detection=False,
        )

    def ask(self, *statements: str) -> None:
        with self._connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)

    def make_schema(self, name: str) -> None:
        self.ask(f"CREATE SCHEMA {name}", f"USE SCHEMA {self.schema}")  # to make one is to enter it

    def rows(self, query: str) -> list[Any]:
        """What a query answers."""
        with self._connection.cursor() as cursor:
            return list(cursor.execute(query).fetchall())

    def options(self) -> dict[str, Any]:
        return self.server.options(schema=self.schema, port=self.port)

    def close(self) -> None:
        self._connection.close()
