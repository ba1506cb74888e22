"""The keys that encrypt state files: references in config.toml, and what they must point to."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from pathlib import Path

from sync.logging import register_secret
from sync.secrets import SecretError, parse, resolve

__all__ = ["read_keys"]

_BYTES = (16, 24, 32)


def read_keys(references: Sequence[tuple[str, str]], root: Path) -> tuple[bytes, ...]:
    """The keys that (setting, reference) pairs point to, in their order: 16, 24 or 32 bytes each.

    Raises `SecretError` where one is not there, or is no base64 of that length (HG153). No log line shows them
    from now on.
    """
    return tuple(_key(setting, reference, root) for setting, reference in references)


def _key(setting: str, reference: str, root: Path) -> bytes:
    try:
        text = resolve(parse(reference), root).get_secret_value().strip()
    except SecretError as error:
        raise SecretError(f"[state] {setting}: {error.message}", code=error.code, fix=error.fix) from None
    register_secret(text)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) not in _BYTES:
        raise SecretError(
            f"[state] {setting}: {parse(reference)} is no base64 of 16, 24 or 32 bytes",
            code="HG153",
            fix="make one: openssl rand -base64 32",
        )
    return key
