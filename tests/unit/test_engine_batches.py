"""Cutting a plan into batches and reading them back: nothing twice, nothing left out, nothing over a limit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.engine.batches import PlanFile, cut, halves, key_of
from sync.engine.job import EngineSettings
from sync.sdk.nouns import Delivery, Limits, Op, Order
from sync.sdk.values import dumps
from sync.state.nouns import BatchRow
from tests.engine_bench import Bench

ALL = frozenset(Op)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


def write(folder: Path, ops: list[tuple[str, int]], text: str = "'v'") -> Path:
    """A plan file with so many rows of each op, in that order."""
    rows = [op for op, count in ops for _ in range(count)]
    path = folder / "plan.parquet"
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (op VARCHAR)")
        if rows:
            connection.execute("INSERT INTO t SELECT unnest(?)", [rows])
        connection.execute(
            f"COPY (SELECT n AS row, op, n::DECIMAL(38,0) AS key, NULL::VARCHAR AS remote_id, "
            f'NULL::VARCHAR AS why, n::VARCHAR AS source_key, \'p\' || n AS "id.email", {text} AS "field.city" '
            f"FROM (SELECT row_number() OVER () - 1 AS n, op FROM t)) TO '{path}' "
            "(FORMAT parquet, ROW_GROUP_SIZE 2048)"
        )
    return path


def opened(folder: Path, path: Path) -> PlanFile:
    return PlanFile(EngineSettings(folder=folder, memory_limit="100MB", threads=1), path)


def shape(batches: list[BatchRow]) -> list[tuple[str, int, int, int]]:
    return [(b.op, b.phase, b.first, b.last) for b in batches]


LIMITS = st.builds(
    Limits,
    batch_size=st.one_of(st.none(), st.integers(1, 7)),
    batch_bytes=st.one_of(st.none(), st.integers(1, 200)),
    mixed_ops=st.booleans(),
)


@given(
    st.lists(st.integers(0, 9), min_size=3, max_size=3),
    LIMITS,
    st.sampled_from(Order),
    st.sets(st.sampled_from(Op)),
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_batches_cover_the_ops_asked_for_exactly_and_keep_every_limit(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], limits: Limits, order: Order, ops: set[Op]
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    names = ["add", "update", "remove"] if order is Order.REMOVALS_LAST else ["remove", "add", "update"]
    bench = Bench(folder)
    job = replace(bench.job, spec=replace(bench.spec, order=order), limits=limits)
    bench.close()
    with closing(opened(folder, write(folder, [*zip(names, counts, strict=True), ("invalid", 2)]))) as file:
        batches = cut("r1", file, job, frozenset(ops))
        of = {n: op for op, first, last in file.ranges() for n in range(first, last + 1)}
        sizes = dict(file.lengths(0, sum(counts)))
    covered = [n for b in batches for n in range(b.first, b.last + 1)]
    assert covered == [n for n, op in of.items() if op in ops]
    assert [b.number for b in batches] == list(range(1, len(batches) + 1))
    assert len({b.id for b in batches}) == len(batches)
    assert [b.phase for b in batches] == sorted(b.phase for b in batches)
    for batch in batches:
        rows = range(batch.first, batch.last + 1)
        kinds = {of[n] for n in rows}
        assert batch.op in ("mixed", *kinds)
        assert limits.mixed_ops or len(kinds) == 1
        assert ("remove" in kinds) <= (kinds == {"remove"}), "removals are a phase of their own"
        assert batch.size <= (limits.batch_size or batch.size)
        if limits.batch_bytes is not None and batch.size > 1:
            assert sum(sizes[n] for n in rows) <= limits.batch_bytes


def test_nothing_is_cut_smaller_than_the_limits_ask(tmp_path: Path, bench: Bench) -> None:
    with closing(opened(tmp_path, write(tmp_path, [("add", 5), ("update", 3), ("remove", 2)]))) as file:
        apart = cut("r", file, replace(bench.job, limits=Limits(batch_size=4)), ALL)
        mixed = cut("r", file, replace(bench.job, limits=Limits(batch_size=4, mixed_ops=True)), ALL)
        whole = cut("r", file, replace(bench.job, limits=Limits()), ALL)
    assert shape(apart) == [
        ("add", 0, 0, 3),
        ("add", 0, 4, 4),
        ("update", 0, 5, 7),
        ("remove", 1, 8, 9),
    ]
    assert shape(mixed) == [("mixed", 0, 0, 3), ("mixed", 0, 4, 7), ("remove", 1, 8, 9)]
    assert shape(whole) == [("add", 0, 0, 4), ("update", 0, 5, 7), ("remove", 1, 8, 9)]


def test_a_limit_of_bytes_is_one_of_the_json_that_is_sent(tmp_path: Path, bench: Bench) -> None:
    limit = 300
    text = "repeat('é\"', (n % 7)::INTEGER) || '\\'"
    with closing(opened(tmp_path, write(tmp_path, [("add", 50)], text))) as file:
        batches = cut("r", file, replace(bench.job, limits=Limits(batch_bytes=limit)), ALL)
        bodies = [dumps([{**c.identifiers, **c.fields} for c in file.changes(b.first, b.last)]) for b in batches]
    assert max(map(len, bodies)) <= limit + 1
    assert len(batches) < 20


def test_a_record_larger_than_the_limit_goes_alone(tmp_path: Path, bench: Bench) -> None:
    with closing(opened(tmp_path, write(tmp_path, [("add", 3)], "repeat('x', 500)"))) as file:
        assert [b.size for b in cut("r", file, replace(bench.job, limits=Limits(batch_bytes=100)), ALL)] == [
            1,
            1,
            1,
        ]


def test_an_empty_plan_has_no_batches(tmp_path: Path, bench: Bench) -> None:
    with closing(opened(tmp_path, write(tmp_path, [("invalid", 3)]))) as file:
        assert cut("r", file, bench.job, ALL) == []
        assert cut("r", file, replace(bench.job, spec=replace(bench.spec, delivery=Delivery.SNAPSHOT)), ALL) == []
        assert list(file.batches([], "s", "o", None)) == []


def test_the_idempotency_key_belongs_to_a_range_of_a_run() -> None:
    keys = {key_of("r1", 0, 9), key_of("r1", 0, 8), key_of("r1", 1, 9), key_of("r2", 0, 9), key_of("r", 10, 9)}
    assert len(keys) == 5
    assert key_of("r1", 0, 9) == key_of("r1", 0, 9)


@given(st.integers(0, 50), st.integers(2, 40))
def test_halves_cover_the_parent_exactly(first: int, size: int) -> None:
    parent = BatchRow("r", 3, key_of("r", first, first + size - 1), 1, "add", first, first + size - 1, attempts=2)
    one, two = halves(parent, 7)
    assert (one.first, one.last + 1, two.last) == (parent.first, two.first, parent.last)
    assert one.size + two.size == parent.size
    assert min(one.size, two.size) > 0
    assert [(b.number, b.parent, b.phase, b.op, b.attempts) for b in (one, two)] == [
        (7, 3, 1, "add", 0),
        (8, 3, 1, "add", 0),
    ]
    assert len({parent.id, one.id, two.id}) == 3


@given(st.integers(0, 30), st.integers(1, 40))
def test_halving_to_the_end_leaves_each_record_once(first: int, size: int) -> None:
    waiting, single, number = [BatchRow("r", 0, "x", 0, "add", first, first + size - 1)], [], 1
    while waiting:
        batch = waiting.pop()
        if batch.size == 1:
            single.append(batch.first)
        else:
            waiting += halves(batch, number)
            number += 2
    assert sorted(single) == list(range(first, first + size))


def test_batches_read_in_one_pass_are_those_read_alone(tmp_path: Path, bench: Bench) -> None:
    path = write(tmp_path, [("add", 5000), ("update", 100), ("remove", 300)], "n::VARCHAR")
    with closing(opened(tmp_path, path)) as file:
        rows = cut("r", file, replace(bench.job, limits=Limits(batch_size=700)), ALL)
        some = [rows[0], *rows[3:]]  # a resumed run: the others were acknowledged
        for row, batch in file.batches(some, "s", "contact", "7"):
            changes = list(batch.changes)
            assert (batch.id, batch.sync, batch.object, batch.audience) == (row.id, "s", "contact", "7")
            assert [c.key for c in changes] == [str(n) for n in range(row.first, row.last + 1)]
            assert {str(c.op) for c in changes} == {row.op}
            assert all(c.fields == ({} if c.op is Op.REMOVE else {"city": c.key}) for c in changes)
            assert all(c.identifiers == {"email": f"p{c.key}"} for c in changes)
        with closing(opened(tmp_path, path)) as again:
            for row, batch in file.batches(some[:2], "s", "o", None):
                assert list(batch.changes) == again.changes(row.first, row.last)


def test_a_row_is_shown_by_its_number_and_one_that_is_not_there_is_empty(tmp_path: Path) -> None:
    with closing(opened(tmp_path, write(tmp_path, [("add", 2)]))) as file:
        assert file.sample(1)["identifiers"] == {"email": "p1"}
        assert file.sample(9) == {}
        assert file.types == {"email": "VARCHAR", "city": "VARCHAR"}
