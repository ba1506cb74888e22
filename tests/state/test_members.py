"""Members as Parquet generations: right after any history, never altered, and never half there."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sync.errors import Corrupt
from sync.state.members import COMPACT_AT, collect_orphans, digest_file, fold, folder_of, publish, relation, verify
from sync.state.nouns import Generation

BLANK = Generation("s", 0, 0)
COLUMNS = (
    "key DECIMAL(38,0), fingerprint UBIGINT, nulls VARCHAR, source_key VARCHAR, remote_id VARCHAR, "
    "first_refresh VARCHAR, first_at DOUBLE, last_refresh VARCHAR, last_at DOUBLE, "
    '"id.email" VARCHAR, removed BOOLEAN'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path, "s")


def change(
    folder: Path, before: Generation, changes: dict[int, int | None], ids: tuple[str, ...] = ("email",)
) -> Generation:
    """The next generation: person -> value, None removes."""
    with closing(duckdb.connect(config={"threads": 1})) as connection:
        connection.execute(f"CREATE TABLE changed ({COLUMNS})")
        rows = [(k, v or 0, f"k{k}", f"p{k}@x", v is None) for k, v in changes.items()]
        if rows:
            key, value, source, email, gone = [list(c) for c in zip(*rows, strict=True)]
            connection.execute(
                "INSERT INTO changed SELECT unnest(?::DECIMAL(38,0)[]), unnest(?::UBIGINT[]), '', unnest(?), "
                "NULL, 'f', 1.0, 'f', 2.0, unnest(?), unnest(?)",
                [key, value, source, email, gone],
            )
        after = Generation("s", before.number + 1, 0)
        columns = [f'"id.{n}"' if n == "email" else f"'new' AS \"id.{n}\"" for n in ids]
        select = f'SELECT * EXCLUDE (removed, "id.email"), {", ".join(columns)}, removed FROM changed'
        return fold(connection, folder, before, after, select, ids)


def members(folder: Path, generation: Generation) -> dict[int, int]:
    with closing(duckdb.connect()) as connection:
        select = f"SELECT key::BIGINT, fingerprint FROM ({relation(connection, folder, generation, ['email'])})"
        rows = connection.execute(select).fetchall()
    assert len(rows) == len(dict(rows)), "a member stands twice"
    return dict(rows)


def files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_before_the_first_run_there_is_nobody(folder: Path) -> None:
    assert members(folder, BLANK) == {}
    verify(folder, BLANK)


def test_the_first_generation_is_a_base(folder: Path) -> None:
    made = change(folder, BLANK, {1: 5, 2: 6, 3: None})
    assert (made.members, made.delta, made.number) == (2, None, 1)
    assert members(folder, made) == {1: 5, 2: 6}


def test_a_small_change_is_a_delta_and_the_base_stays(folder: Path) -> None:
    one = change(folder, BLANK, dict.fromkeys(range(100), 1))
    before = files(folder)
    two = change(folder, one, {1: 9, 200: 2, 3: None})
    assert (two.base, two.delta is not None, two.members) == (one.base, True, 100)
    assert {n: b for n, b in files(folder).items() if n in before} == before
    assert members(folder, two) == {n: 1 for n in range(100) if n != 3} | {1: 9, 200: 2}
    assert members(folder, one) == dict.fromkeys(range(100), 1), "the generation before is still there"


@pytest.mark.parametrize(("changes", "compacted"), [(10, False), (11, True)])
def test_a_delta_past_its_share_becomes_a_new_base(folder: Path, changes: int, compacted: bool) -> None:
    assert COMPACT_AT == 0.1
    one = change(folder, BLANK, dict.fromkeys(range(100), 1))
    two = change(folder, one, dict.fromkeys(range(changes), 2))
    assert (two.delta is None, two.base != one.base) == (compacted, compacted)
    assert sum(members(folder, two).values()) == 100 + changes


def test_deltas_add_up_until_they_are_compacted(folder: Path) -> None:
    now = change(folder, BLANK, dict.fromkeys(range(100), 1))
    for n in range(12):
        now = change(folder, now, {n: 2})
    assert sum(members(folder, now).values()) == 112
    assert now.base is not None
    assert now.base.startswith("base-12"), "eleven changes are more than a tenth"


def test_who_was_removed_can_come_back(folder: Path) -> None:
    one = change(folder, BLANK, dict.fromkeys(range(100), 1))
    two = change(folder, one, {1: None})
    three = change(folder, two, {1: 7})
    four = change(folder, three, {1: None})
    assert [1 in members(folder, g) for g in (one, two, three, four)] == [True, False, True, False]
    assert [g.members for g in (one, two, three, four)] == [100, 99, 100, 99]


def test_everybody_may_leave_and_come_back(folder: Path) -> None:
    one = change(folder, BLANK, {1: 1, 2: 1})
    two = change(folder, one, {1: None, 2: None})
    assert (members(folder, two), two.members, two.blank) == ({}, 0, False)
    assert members(folder, change(folder, two, {2: 3})) == {2: 3}


def test_no_change_makes_no_file(folder: Path) -> None:
    one = change(folder, BLANK, {1: 1})
    before = files(folder)
    two = change(folder, one, {})
    assert (two.base, two.delta, two.members, two.digests) == (one.base, one.delta, 1, one.digests)
    assert files(folder) == before


changes = st.dictionaries(st.integers(0, 30), st.one_of(st.none(), st.integers(1, 3)), max_size=12)


@given(st.lists(changes, min_size=1, max_size=6))
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_history_gives_what_a_dictionary_gives(
    tmp_path_factory: pytest.TempPathFactory, history: list[Any]
) -> None:
    folder = folder_of(tmp_path_factory.mktemp("members"), "s")
    now, expected, seen = BLANK, {}, []
    for step in history:
        now = change(folder, now, step)
        for person, value in step.items():
            expected.pop(person, None)
            if value is not None:
                expected[person] = value
        seen.append((now, dict(expected)))
        verify(folder, now)
    for generation, then in seen:
        assert members(folder, generation) == then
        assert generation.members == len(then)


def test_another_set_of_identifiers_keeps_those_of_before(folder: Path) -> None:
    one = change(folder, BLANK, dict.fromkeys(range(100), 1))
    two = change(folder, one, {500: 1}, ids=("phone",))
    with closing(duckdb.connect()) as connection:
        everybody = relation(connection, folder, two, ["phone", 'it\'s "so"'])
        select = f'SELECT "id.email", "id.phone" FROM ({everybody}) WHERE key IN (1, 500)'
        assert sorted(connection.execute(select).fetchall(), key=str) == [("p1@x", None), (None, "new")]


# --- files ----------------------------------------------------------------------------------------------------


def test_files_are_named_by_their_content_and_are_the_owners_alone(folder: Path) -> None:
    made = change(folder, BLANK, {1: 1})
    (path,) = folder.iterdir()
    assert path.name == made.base
    assert digest_file(path)[:8] in path.name
    assert made.digests == {path.name: digest_file(path)}
    assert (path.stat().st_mode & 0o777, folder.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("harm", ["cut", "gone", "longer"])
@pytest.mark.parametrize("which", ["base", "delta"])
def test_a_file_that_is_not_whole_is_noticed_before_anything_is_sent(folder: Path, harm: str, which: str) -> None:
    now = change(folder, change(folder, BLANK, dict.fromkeys(range(100), 1)), {1: 2})
    path = folder / str(getattr(now, which))
    if harm == "gone":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[:-1] if harm == "cut" else content + b"x")
    with pytest.raises(Corrupt, match="nothing is sent on a doubt"):
        verify(folder, now)


def test_what_a_crash_leaves_is_collected_and_nothing_else(folder: Path) -> None:
    one = change(folder, BLANK, dict.fromkeys(range(100), 1))
    two = change(folder, one, {1: 2})
    lost = change(folder, two, {2: 2})
    (folder / ".base-9-123.tmp").write_bytes(b"half")
    assert collect_orphans(folder, [BLANK, one, two]) == 2
    assert {p.name for p in folder.iterdir()} == {one.base, two.delta}
    assert lost.delta not in os.listdir(folder)
    assert members(folder, two)[1] == 2
    assert collect_orphans(folder, [one, two]) == 0


def test_two_processes_that_fold_at_once_do_not_overwrite_each_other(folder: Path) -> None:
    one = change(folder, BLANK, dict.fromkeys(range(100), 1))
    mine, theirs = change(folder, one, {1: 2}), change(folder, one, {1: 3})
    assert mine.delta != theirs.delta
    assert (members(folder, mine)[1], members(folder, theirs)[1]) == (2, 3)


def test_publishing_gives_a_written_file_its_name_at_once(tmp_path: Path) -> None:
    (tmp_path / "x.tmp").write_bytes(b"new")
    (tmp_path / "x").write_bytes(b"old")
    publish(tmp_path / "x.tmp", tmp_path / "x")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"x": b"new"}


@pytest.fixture
def quoted(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "o'brien", "s")


def test_a_folder_may_have_any_name(quoted: Path) -> None:
    now = change(quoted, change(quoted, BLANK, dict.fromkeys(range(50), 1)), {1: 2})
    assert members(quoted, replace(now))[1] == 2
