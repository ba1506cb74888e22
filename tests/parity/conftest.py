"""The warehouses of the battery."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

from tests.parity.playing import Warehouses
from tests.parity.warehouses import PostgreSQL, SnowflakeDB, Warehouse


@pytest.fixture(scope="session")
def warehouses(request: pytest.FixtureRequest) -> Iterator[Warehouses]:
    """A warehouse of a type, made where it is first asked for and shared by this process's tests."""
    opened: list[Warehouse] = []

    @cache
    def of(type: str) -> Warehouse:
        server = request.getfixturevalue(type)
        opened.append(PostgreSQL(server) if type == "postgres" else SnowflakeDB(server))
        return opened[-1]

    yield of
    for warehouse in opened:
        warehouse.close()
