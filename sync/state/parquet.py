"""How state files (members, plans, rejected copies) are read and written: Parquet, encrypted where there is a key.

Encryption is DuckDB's own, of the whole file with AES-GCM. Every file has a key of its own, made with HKDF from a
key of the settings and 32 random bytes. Those bytes, and which key of the settings it was, stand in the file where
the Parquet format has a place for them (`key_metadata`), so that a file tells by itself how it is to be read.
Files without encryption stay readable when a key is set.
"""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import struct
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sync.errors import Corrupt, StateError

if TYPE_CHECKING:
    import duckdb

__all__ = ["key_of", "name_of", "source", "unlock", "write"]

_MAGIC = b"PARE"
_MARK = b"headgate1"
_NAME, _SALT = 8, 32  # bytes
_BARE = b"\x1c\x1c\x00\x00\x00"  # FileCryptoMetaData{algorithm: AES_GCM_V1{}}, as DuckDB writes it
_TAIL = struct.Struct("<I4s")  # length of the footer, magic
_HEAD = b"\x1c\x1c\x00\x00\x18" + bytes([len(_MARK) + _NAME + _SALT]) + _MARK  # the same with key_metadata

_opened: weakref.WeakKeyDictionary[duckdb.DuckDBPyConnection, tuple[bytes, ...]] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class _Seal:
    """What an encrypted file says of its key."""

    name: str
    salt: bytes


def name_of(key: bytes) -> str:
    """What a key of the settings is called where it must not be shown: 16 hex digits of a digest of it."""
    return hashlib.sha256(b"headgate state key name\0" + key).digest()[:_NAME].hex()


def unlock(connection: duckdb.DuckDBPyConnection, keys: Sequence[bytes]) -> None:
    """Let a connection read what was encrypted with any of the keys, and write with the first.

    Without keys it writes files in the clear. Call it before the configuration is locked.
    """
    _opened[connection] = tuple(keys)
    if keys:
        # DuckDB doubts its nonces, which have 64 random bits. That is far too few for one key over many files, and
        # enough for a key over one file: see docs/adr/0008.
        connection.execute("SET force_mbedtls_unsafe = 'true'")


def source(connection: duckdb.DuckDBPyConnection, *paths: Path) -> str:
    """What stands after FROM to read these files; a column that only some of them have is null in the others.

    Raises `StateError` where a file's key is none of the connection's.
    """
    seals = [(path, _sealed(path)) for path in paths]
    plain = [path for path, seal in seals if seal is None]
    parts = [f"read_parquet({_unsealed(connection, path, seal)})" for path, seal in seals if seal is not None]
    if plain:
        files = ", ".join(_text(path) for path in plain)
        parts.append(f"read_parquet([{files}], union_by_name = true)" if plain[1:] else f"read_parquet({files})")
    if not parts[1:]:
        return parts[0]
    return "(" + " UNION ALL BY NAME ".join(f"SELECT * FROM {part}" for part in parts) + ")"


def write(
    connection: duckdb.DuckDBPyConnection, select: str, path: Path, *, row_group_size: int | None = None
) -> None:
    """Write a SELECT to a file, for its owner only. It is not durable yet (`members.publish`)."""
    options = ["FORMAT parquet", "COMPRESSION zstd"]
    if row_group_size is not None:
        # Small row groups are for rows that are read a few at a time, and gain nothing from dictionaries.
        options += [f"ROW_GROUP_SIZE {row_group_size}", "DICTIONARY_SIZE_LIMIT 1"]
    keys = _opened.get(connection, ())
    seal = _Seal(name_of(keys[0]), secrets.token_bytes(_SALT)) if keys else None
    if seal is not None:
        options.append(f"ENCRYPTION_CONFIG {{footer_key: '{_add(connection, keys[0], seal.salt)}'}}")
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    connection.execute(f"COPY ({select}) TO {_text(path)} ({', '.join(options)})")
    path.chmod(0o600)
    if seal is not None:
        _mark(path, seal)


def key_of(path: Path) -> str | None:
    """The name of the key a file is encrypted with; None where it is not, or is not there.

    Raises `Corrupt` where an encrypted file does not say.
    """
    seal = _sealed(path)
    return seal.name if seal is not None else None


def _unsealed(connection: duckdb.DuckDBPyConnection, path: Path, seal: _Seal) -> str:
    keys = {name_of(key): key for key in _opened.get(connection, ())}
    if seal.name not in keys:
        known = "no key is set" if not keys else f"the keys set are {', '.join(keys)}"
        raise StateError(
            f"the state file {path.name} is encrypted with the key {seal.name}, and {known}; nothing was sent",
            code="HG342",
            fix="name that key as `key`, or among `previous_keys`, under [state] in config.toml",
        )
    return f"{_text(path)}, encryption_config = {{footer_key: '{_add(connection, keys[seal.name], seal.salt)}'}}"


def _add(connection: duckdb.DuckDBPyConnection, key: bytes, salt: bytes) -> str:
    """Give the connection one file's key, and return what it is called there."""
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    own = HKDF(algorithm=SHA256(), length=32, salt=salt, info=b"headgate state file").derive(key)
    connection.execute(f"PRAGMA add_parquet_key('{salt.hex()}', '{base64.b64encode(own).decode()}')")
    return salt.hex()


def _mark(path: Path, seal: _Seal) -> None:
    """Write into a fresh file which key is its own: as `key_metadata`, beside the algorithm's name."""
    with path.open("r+b") as file:
        start = _footer(file, path)
        footer = file.read()[: -_TAIL.size]
        if not footer.startswith(_BARE):
            raise StateError(
                "DuckDB encrypts files in a way this version does not know; nothing was sent",
                code="HG343",
                fix="install the version of duckdb that constraints.txt names",
            )
        told = _HEAD + bytes.fromhex(seal.name) + seal.salt + footer[len(_BARE) - 1 :]
        file.seek(start)
        file.write(told + _TAIL.pack(len(told), _MAGIC))


def _sealed(path: Path) -> _Seal | None:
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return None
            _footer(file, path)
            told = file.read(len(_HEAD) + _NAME + _SALT)
    except FileNotFoundError:
        return None  # whoever reads it says so
    if not told.startswith(_HEAD):
        raise _damaged(path)
    told = told.removeprefix(_HEAD)
    return _Seal(told[:_NAME].hex(), told[_NAME:])


def _footer(file: BinaryIO, path: Path) -> int:
    """Go to where the footer begins, and return that."""
    size = file.seek(0, os.SEEK_END)
    if size < len(_MAGIC) + _TAIL.size:
        raise _damaged(path)
    file.seek(size - _TAIL.size)
    length, magic = _TAIL.unpack(file.read())
    start: int = size - _TAIL.size - length
    if magic != _MAGIC or start < len(_MAGIC):
        raise _damaged(path)
    return file.seek(start)


def _damaged(path: Path) -> Corrupt:
    return Corrupt(
        f"the encrypted state file {path.name} is cut or damaged; nothing is sent on a doubt",
        fix="restore the state folder from a backup, ledger and files together",
    )


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
