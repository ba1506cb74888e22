"""The diff against a plain model of it, on random cohorts, members, modes and rejected records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sync.engine.compile import key_sql
from sync.engine.diff import (
    Diff,
    Duplicates,
    Sides,
    changed_keys,
    compare,
    differing,
    duplicate_keys,
    scan,
    without_duplicates,
)
from sync.mapping import Mode
from sync.sdk.nouns import Op
from sync.state.nouns import RejectedRecord

DB = duckdb.connect(config={"threads": 1})
NOW = 1000.0
PEOPLE = [f"p{n}@x" for n in range(8)]
KEYS: dict[str, str] = dict(
    DB.execute(f"SELECT p, ({key_sql(['p'])})::VARCHAR FROM (SELECT unnest(?) AS p)", [PEOPLE]).fetchall()
)


@dataclass
class World:
    """What both sides have: person -> value; and what is known of some of them."""

    cohort: dict[str, int]
    members: dict[str, int]
    invalid: int = 0
    dirty: set[str] = field(default_factory=set)
    # person -> (op, value the rejection was about, given up, still waits)
    rejected: dict[str, tuple[str, int, bool, bool]] = field(default_factory=dict)
    unfit: set[str] = field(default_factory=set)  # their rows are in the cohort, and cannot be sent


def tables(world: World) -> Sides:
    rows = [(KEYS[p], v, p, None) for p, v in world.cohort.items()]
    rows += [(None, None, f"bad{n}", "no") for n in range(world.invalid)]
    rows += [(None, None, p, "no") for p in sorted(world.unfit - world.cohort.keys())]
    columns = "key DECIMAL(38,0), fingerprint UBIGINT, source_key VARCHAR, why VARCHAR, newest TIMESTAMP"
    DB.execute(f"CREATE OR REPLACE TEMP TABLE cohort ({columns})")
    DB.execute("CREATE OR REPLACE TEMP TABLE members (key DECIMAL(38,0), fingerprint UBIGINT, source_key VARCHAR)")
    _insert("cohort", rows, ", NULL")
    _insert("members", [(KEYS[p], value, p) for p, value in world.members.items()])
    return Sides("SELECT * FROM cohort", "SELECT * FROM members")


def _insert(table: str, rows: list[tuple[Any, ...]], rest: str = "") -> None:
    if rows:
        columns = [list(column) for column in zip(*rows, strict=True)]
        DB.execute(f"INSERT INTO {table} SELECT {', '.join('unnest(?)' for _ in columns)}{rest}", columns)


def records(world: World) -> list[RejectedRecord]:
    return [
        RejectedRecord(
            "s", KEYS[p], op, "rejected", "", "" if op == "remove" else str(value), "r", 0, 1, 0, 0,
            NOW + 1 if waits else NOW, "ann" if given_up else None, None, 1.0 if given_up else None,
        )
        for p, (op, value, given_up, waits) in world.rejected.items()
    ]  # fmt: skip


def found(world: World, mode: Mode, spec_ops: frozenset[Op] = frozenset(Op)) -> tuple[Diff, dict[str, str]]:
    sides = tables(world)
    scan(DB, sides.cohort)
    differing(DB, sides.members)
    diff = compare(
        DB,
        sides,
        mode.ops & spec_ops,
        mode,
        dirty=sorted(KEYS[p] for p in world.dirty),
        rejected=records(world),
        now=NOW,
    )
    people = {k: p for p, k in KEYS.items()}
    changes = DB.execute("SELECT key::VARCHAR, op FROM changes").fetchall()
    return diff, {people[key]: op for key, op in changes}


def model(world: World, mode: Mode, spec_ops: frozenset[Op] = frozenset(Op)) -> tuple[Diff, dict[str, str]]:
    """The same in a dozen lines of Python."""
    allowed = {str(op) for op in mode.ops & spec_ops}
    changes: dict[str, str] = {}
    for person in world.cohort.keys() | world.members.keys() | world.dirty:
        wanted, there = world.cohort.get(person), world.members.get(person)
        if wanted is None and person in world.unfit and there is not None:
            continue  # unfit to be sent is not gone
        if wanted is None:
            changes[person] = "remove"
        elif there is None:
            changes[person] = "update" if mode is Mode.UPDATE else "add"
        elif wanted != there or person in world.dirty:
            again = person in world.dirty and "update" not in allowed
            changes[person] = "add" if again else "update"
    if mode is Mode.UPDATE:
        changes = {p: "update" if op == "add" else op for p, op in changes.items()}
    changes = {p: op for p, op in changes.items() if op in allowed}
    touched = sum(op != "remove" for op in changes.values())
    held = {}
    for person, (op, value, given_up, waits) in world.rejected.items():
        same = op == "remove" or world.cohort.get(person) == value
        if changes.get(person) == op and (given_up or (same and waits)):
            held[person] = given_up
    changes = {p: op for p, op in changes.items() if p not in held}
    count = list(changes.values()).count
    diff = Diff(
        add=count("add"),
        update=count("update"),
        remove=count("remove"),
        unchanged=len(world.cohort) - touched,
        backed_off=sum(not given_up for given_up in held.values()),
        given_up=sum(held.values()),
    )
    return diff, changes


sides = st.dictionaries(st.sampled_from(PEOPLE), st.integers(0, 2), max_size=8)
worlds = st.builds(
    World,
    cohort=sides,
    members=sides,
    invalid=st.integers(0, 2),
    dirty=st.sets(st.sampled_from(PEOPLE), max_size=3),
    rejected=st.dictionaries(
        st.sampled_from(PEOPLE),
        st.tuples(st.sampled_from(["add", "update", "remove"]), st.integers(0, 2), st.booleans(), st.booleans()),
        max_size=4,
    ),
    unfit=st.sets(st.sampled_from(PEOPLE), max_size=3),
)


@given(worlds, st.sampled_from(Mode))
@settings(max_examples=60, deadline=None)
def test_the_diff_is_what_the_model_says(world: World, mode: Mode) -> None:
    assert found(world, mode) == model(world, mode)


@given(worlds, st.sets(st.sampled_from(Op), min_size=1))
@settings(max_examples=40, deadline=None)
def test_an_object_that_lacks_an_op_is_never_given_it(world: World, ops: set[Op]) -> None:
    diff, changes = found(world, Mode.MIRROR, frozenset(ops))
    assert set(changes.values()) <= {str(op) for op in ops}
    assert (diff, changes) == model(world, Mode.MIRROR, frozenset(ops))


@given(worlds)
@settings(max_examples=40, deadline=None)
def test_checksums_are_equal_only_where_nothing_differs(world: World) -> None:
    sides = tables(world)
    scan(DB, sides.cohort)
    assert (differing(DB, sides.members) == 0) == (world.cohort == world.members)


@given(sides, sides)
@settings(max_examples=15, deadline=None)
def test_carrying_the_changes_out_leaves_nothing_to_do(cohort: dict[str, int], members: dict[str, int]) -> None:
    _, changes = found(World(cohort, members), Mode.MIRROR)
    after = {p: v for p, v in members.items() if changes.get(p) != "remove"}
    after |= {p: cohort[p] for p, op in changes.items() if op != "remove"}
    diff, _ = found(World(cohort, after), Mode.MIRROR)
    assert (diff.changes, diff.unchanged) == (0, len(cohort))


# --- duplicates -----------------------------------------------------------------------------------------------


@given(
    sides.filter(lambda c: len(c) > 0),
    sides,
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 2)), min_size=1, max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_rows_that_share_a_key_are_always_noticed(
    cohort: dict[str, int], members: dict[str, int], copies: list[tuple[int, int]]
) -> None:
    both = tables(World(cohort, members))
    people = sorted(cohort)
    for n, (index, value) in enumerate(copies):
        person = people[index % len(people)]
        DB.execute(
            "INSERT INTO cohort VALUES (?::DECIMAL(38,0), ?, ?, NULL, NULL)", [KEYS[person], value, f"z{n}"]
        )
    scan(DB, both.cohort)
    differing(DB, both.members)
    with pytest.raises(Duplicates):
        compare(DB, both, Mode.MIRROR.ops, Mode.MIRROR)
    single = Sides(without_duplicates(both.cohort), both.members)
    seen = scan(DB, single.cohort)
    differing(DB, single.members)
    compare(DB, single, Mode.MIRROR.ops, Mode.MIRROR)
    assert (seen.rows, seen.invalid) == (len(cohort) + len(copies), len(copies))


def test_of_rows_with_one_key_the_same_one_is_always_kept() -> None:
    both = tables(World({"p1@x": 1}, {}))
    for value, source_key in ((5, "a"), (2, "zz"), (7, "q")):
        DB.execute(
            "INSERT INTO cohort VALUES (?::DECIMAL(38,0), ?, ?, NULL, NULL)", [KEYS["p1@x"], value, source_key]
        )
    kept = f"SELECT source_key, fingerprint FROM ({without_duplicates(both.cohort)}) WHERE why IS NULL"
    assert DB.execute(kept).fetchall() == [("a", 5)]


def test_repeated_source_keys_are_counted_and_null_ones_are_not() -> None:
    rows = "SELECT unnest(['a', 'a', 'a', 'b', 'c', 'c', NULL, NULL]) AS source_key"
    assert duplicate_keys(DB, rows) == 3


# --- many -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [0, 3, 20_000])
def test_few_and_many_differing_buckets_give_the_same(changed: int) -> None:
    """Below 2,048 differing buckets only those are joined, above it everything."""
    DB.execute(
        f"CREATE OR REPLACE TEMP TABLE cohort AS SELECT {key_sql(['i'])} AS key, "
        f"hash(i, i <= {changed}) AS fingerprint, "
        "i::VARCHAR AS source_key, NULL::VARCHAR AS why, NULL::TIMESTAMP AS newest FROM range(1, 20001) t(i)"
    )
    DB.execute(
        f"CREATE OR REPLACE TEMP TABLE members AS SELECT {key_sql(['i'])} AS key, hash(i, false) AS fingerprint "
        "FROM range(101, 20101) t(i)"
    )
    both = Sides("SELECT * FROM cohort", "SELECT * FROM members")
    scan(DB, both.cohort)
    buckets = differing(DB, both.members)
    assert (buckets < 2048) == (changed < 20_000)
    diff = compare(DB, both, Mode.MIRROR.ops, Mode.MIRROR)
    update = max(0, changed - 100)
    assert diff == Diff(add=100, update=update, remove=100, unchanged=19_900 - update)
    assert len(changed_keys(DB)) == diff.changes
