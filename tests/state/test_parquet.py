"""State files are encrypted where there is a key, and tell by themselves how they are to be read."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.engine.database import lock_down, open_database, translate
from sync.engine.job import EngineSettings
from sync.errors import Corrupt, StateError
from sync.state.parquet import key_of, name_of, source, write

NEW, OLD = os.urandom(32), os.urandom(16)
CANARY = "canary-person"
PEOPLE = f"SELECT i, '{CANARY}-' || i AS email FROM range(1000) r(i)"


@contextmanager
def opened(folder: Path, *keys: bytes) -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(open_database(EngineSettings(folder, keys=keys))) as connection:
        lock_down(connection)
        yield connection


def written(path: Path, select: str, *keys: bytes) -> Path:
    with opened(path.parent, *keys) as connection:
        write(connection, select, path)
    return path


def rows(folder: Path, keys: tuple[bytes, ...], *paths: Path) -> list[tuple[Any, ...]]:
    with opened(folder, *keys) as connection, translate("reading", StateError):
        return connection.execute(f"SELECT * FROM {source(connection, *paths)} ORDER BY 1").fetchall()


def test_without_a_key_a_file_is_in_the_clear(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", PEOPLE)

    assert key_of(path) is None
    assert CANARY.encode() in path.read_bytes()


@pytest.mark.parametrize("bits", [128, 192, 256])
def test_with_a_key_nothing_of_a_file_can_be_read_without_it(tmp_path: Path, bits: int) -> None:
    key = os.urandom(bits // 8)
    path = written(tmp_path / "a.parquet", PEOPLE, key)

    assert CANARY.encode() not in path.read_bytes()
    assert b"email" not in path.read_bytes(), "not even the names of columns"
    assert key_of(path) == name_of(key)
    assert rows(tmp_path, (key,), path)[7] == (7, f"{CANARY}-7")


def test_files_of_old_keys_of_new_ones_and_of_none_are_read_as_one(tmp_path: Path) -> None:
    new = written(tmp_path / "it's new.parquet", "SELECT 1 AS i, 'n' AS a", NEW, OLD)
    old = written(tmp_path / "old.parquet", "SELECT 2 AS i, 'o' AS b", OLD)
    plain = written(tmp_path / "plain.parquet", "SELECT 3 AS i, 'p' AS c")

    assert rows(tmp_path, (NEW, OLD), new, old, plain) == [
        (1, "n", None, None),
        (2, None, "o", None),
        (3, None, None, "p"),
    ]


@pytest.mark.parametrize("keys", [(), (NEW,)])
def test_a_file_whose_key_is_not_there_is_refused_by_name(tmp_path: Path, keys: tuple[bytes, ...]) -> None:
    path = written(tmp_path / "a.parquet", PEOPLE, OLD)

    with pytest.raises(StateError, match=f"{path.name}.*{name_of(OLD)}") as caught:
        rows(tmp_path, keys, path)

    assert caught.value.code == "HG342"
    assert "nothing was sent" in str(caught.value)


@pytest.mark.parametrize("where", [4, 20, -60, -12, -9, -7])
def test_an_altered_file_is_refused(tmp_path: Path, where: int) -> None:
    path = written(tmp_path / "a.parquet", PEOPLE, NEW)
    raw = bytearray(path.read_bytes())
    raw[where] ^= 1
    path.write_bytes(raw)

    with pytest.raises(StateError) as caught:
        rows(tmp_path, (NEW,), path)

    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("kept", [4, 11, 100, -1])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, kept: int) -> None:
    path = written(tmp_path / "a.parquet", PEOPLE, NEW)
    path.write_bytes(path.read_bytes()[:kept])

    with pytest.raises(Corrupt, match="damaged"):
        rows(tmp_path, (NEW,), path)


def test_no_two_parts_of_a_file_share_a_nonce(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    with opened(tmp_path, NEW) as connection:
        write(connection, "SELECT i, hash(i) AS h FROM range(600000) r(i)", path, row_group_size=2048)
    nonces = list(_nonces(path.read_bytes()))

    assert len(nonces) > 1000
    assert len(set(nonces)) == len(nonces)


def test_every_file_has_a_key_of_its_own(tmp_path: Path) -> None:
    one, two = (written(tmp_path / f"{n}.parquet", PEOPLE, NEW).read_bytes() for n in "ab")
    mark = one.rindex(b"headgate1")
    salt = slice(mark, mark + 9 + 8 + 32)
    other = two.rindex(b"headgate1")

    assert one[salt] != two[other : other + 49]
    assert one[salt][:17] == two[other : other + 17], "both name the same key of the settings"


def test_a_file_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        paths = [written(tmp_path / name, PEOPLE, *keys) for name, keys in (("a", ()), ("b", (NEW,)))]
    finally:
        os.umask(before)

    assert [path.stat().st_mode & 0o777 for path in paths] == [0o600, 0o600]


def _nonces(raw: bytes) -> Iterator[bytes]:
    """The nonces of the encrypted parts: each part is its length, 12 bytes of nonce, and the rest."""
    end = len(raw) - 8 - int(struct.unpack("<I", raw[-8:-4])[0])
    position = 4
    while position < end:
        (length,) = struct.unpack("<I", raw[position : position + 4])
        yield raw[position + 4 : position + 16]
        position += 4 + length
