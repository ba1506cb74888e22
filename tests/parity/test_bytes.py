"""What leaves the warehouse, counted on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parity.kinds import Column, Table
from tests.parity.stage import PEOPLE, Stage
from tests.parity.warehouses import PostgreSQL, SnowflakeDB, Warehouse
from tests.wire import Wire, wire

COUNT = 5_000
FILL = {
    "postgres": "INSERT INTO vips SELECT i, 'p' || i || '@x.example', md5(i::text), i % 7, "
    "repeat(md5(i::text), 8) FROM generate_series(1, {count}) AS s(i)",
    "snowflake": "INSERT INTO vips SELECT i, 'p' || i || '@x.example', MD5(i::VARCHAR), i % 7, "
    "REPEAT(MD5(i::VARCHAR), 8) FROM (SELECT SEQ4() + 1 AS i FROM TABLE(GENERATOR(ROWCOUNT => {count})))",
}


@contextmanager
def counted(request: pytest.FixtureRequest, type: str) -> Iterator[tuple[Warehouse, Wire]]:
    """A warehouse whose source reads over a wire that counts; there are so many people with a wide column."""
    server = request.getfixturevalue(type)
    with wire(server.port) as counting:
        warehouse: Warehouse = (
            PostgreSQL(server, counting.port)
            if type == "postgres"
            else SnowflakeDB(server, schema="bytes", port=counting.port)
        )
        warehouse.put(Table((*PEOPLE, Column("wide"))))
        warehouse.ask(FILL[type].format(count=COUNT))
        yield warehouse, counting
        warehouse.close()


@pytest.mark.parametrize("type", ["postgres", "snowflake"])
def test_only_the_columns_of_the_mapping_leave_the_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, type: str
) -> None:
    with counted(request, type) as (warehouse, counting):
        stage = Stage(warehouse, tmp_path)
        stage.run()
        counting.reset()
        stage.run()
        narrow = counting.received
        stage.fields = [*stage.fields, {"to": "wide", "from": "wide"}]
        counting.reset()
        stage.plan()
        wide = counting.received
        stage.close()

    assert [seen.counts["unchanged"] for seen in stage.seen] == [0, COUNT, 0]
    assert COUNT * 40 < narrow < COUNT * 140  # four columns: some 60 bytes of values, more in base 64
    assert narrow + COUNT * 256 < wide
