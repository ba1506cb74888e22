"""Ed25519 keys and signature lines as signed notes have them (C2SP `signed-note` v1, signature type 0x01)."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sync.errors import StateError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["create", "parse_verifier", "private_key", "public_key", "signature_line", "verifier", "verifies"]

_ED25519 = b"\x01"  # C2SP signed-note, "Signature types"


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key in the PKCS #8 file, which is made (mode 0600) where it does not exist.

    Raises `StateError` (HG321) where the file is something else.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if not path.exists():
        pem = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        create(path, pem, 0o600)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise StateError(f"{path} is not an Ed25519 private key", code="HG321", fix="bring the old file back")
    return key


def public_key(path: Path) -> bytes | None:
    """The public half (32 bytes) of the key in the file; None where there is none, or something else."""
    if not path.exists():
        return None
    try:
        return private_key(path).public_key().public_bytes_raw()
    except StateError:
        return None


def signature_line(name: str, key: Ed25519PrivateKey, text: str) -> str:
    """The line that follows the text of a note and an empty line."""
    signature = _key_id(name, key.public_key().public_bytes_raw()) + key.sign(text.encode())
    return f"— {name} {base64.b64encode(signature).decode()}\n"


def verifies(name: str, raw: bytes, text: bytes, signature: bytes) -> bool:
    """Was the text signed with the key whose public half is `raw`; `signature` is Base64, key ID first."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signed = base64.b64decode(signature, validate=True)
        Ed25519PublicKey.from_public_bytes(raw).verify(signed[4:], text)
    except (ValueError, InvalidSignature):
        return False
    return signed[:4] == _key_id(name, raw)


def verifier(name: str, key: Ed25519PrivateKey) -> str:
    """The public key as text: name, key ID and key, joined by `+` (C2SP signed-note, "Verifier keys")."""
    return _verifier(name, key.public_key().public_bytes_raw())


def parse_verifier(name: str, line: str) -> bytes | None:
    """The public half (32 bytes) of a verifier key; None where the line is something else."""
    parts = line.strip().split("+", 2)
    try:
        raw = base64.b64decode(parts[2], validate=True)[1:] if len(parts) == 3 else b""
    except ValueError:
        return None
    return raw if len(raw) == 32 and _verifier(name, raw) == line.strip() else None


def create(file: Path, content: bytes, mode: int) -> None:
    """Write a new file whole or not at all."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    draft.replace(file)


def _verifier(name: str, raw: bytes) -> str:
    return f"{name}+{_key_id(name, raw).hex()}+{base64.b64encode(_ED25519 + raw).decode()}"


def _key_id(name: str, raw: bytes) -> bytes:
    """C2SP signed-note, "Signatures": SHA-256 of name, newline, signature type and key; its first four bytes."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + raw).digest()[:4]
