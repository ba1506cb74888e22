"""What leaves the warehouse, counted on the wire."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.parity.kinds import Column, Table
from tests.parity.stage import PEOPLE, Stage
from tests.parity.test_equal_plans import PUSHED
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
    """A warehouse whose source reads over a wire that counts, with a table of nobody yet."""
    server = request.getfixturevalue(type)
    with wire(server.port) as counting:
        warehouse: Warehouse = (
            PostgreSQL(server, counting.port)
            if type == "postgres"
            else SnowflakeDB(server, schema="bytes", port=counting.port)
        )
        warehouse.put(Table((*PEOPLE, Column("wide"))))
        yield warehouse, counting
        warehouse.close()


def received(counting: Wire, stage: Stage) -> int:
    """Bytes that came from the warehouse while a plan was made."""
    counting.reset()
    stage.plan()
    return counting.received


@pytest.mark.parametrize("type", ["postgres", "snowflake"])
def test_only_the_columns_of_the_mapping_leave_the_warehouse(
    request: pytest.FixtureRequest, tmp_path: Path, type: str
) -> None:
    with counted(request, type) as (warehouse, counting):
        stage = Stage(warehouse, tmp_path)
        before = received(counting, stage)  # what it takes to say that there is nobody
        warehouse.ask(FILL[type].format(count=COUNT))
        stage.run()
        narrow = received(counting, stage) - before
        stage.fields = [*stage.fields, {"to": "wide", "from": "wide"}]
        wide = received(counting, stage) - before
        stage.close()

    assert [seen.counts["unchanged"] for seen in stage.seen] == [0, 0, COUNT, 0]
    assert COUNT * 50 < narrow < COUNT * 150  # four columns, some 60 bytes: more where they are in base 64
    assert narrow + COUNT * 256 < wide


@pytest.mark.parametrize("type", PUSHED)
def test_a_pushed_down_run_with_one_change_in_a_hundred_transfers_only_the_changes(
    request: pytest.FixtureRequest, tmp_path: Path, type: str
) -> None:
    (tmp_path / "whole").mkdir()
    with counted(request, type) as (warehouse, counting):
        whole = Stage(warehouse, tmp_path / "whole")
        stage = Stage(warehouse, tmp_path, pushed=True)
        warehouse.make_schema(stage.kept_in)
        wide = {"to": "wide", "from": "wide"}
        stage.fields, whole.fields = [*stage.fields, wide], [*whole.fields, wide]
        nobody = received(counting, stage)  # what it takes to say that there is nobody
        nobody_whole = received(counting, whole)
        warehouse.ask(FILL[type].format(count=COUNT))
        everybody = received(counting, whole) - nobody_whole
        stage.run()
        unchanged = received(counting, stage) - nobody
        warehouse.ask("UPDATE vips SET score = 99 WHERE id % 100 = 0")
        changed = received(counting, stage) - nobody
        stage.close()
        whole.close()

    assert [seen.counts["unchanged"] for seen in stage.seen[-2:]] == [COUNT, COUNT - COUNT // 100]
    assert stage.seen[-1].counts["update"] == COUNT // 100
    assert unchanged < 20_000, (nobody, unchanged, changed, everybody)
    assert changed < everybody / 20, (nobody, unchanged, changed, everybody)
