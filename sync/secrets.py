"""Secrets, which files only refer to: `env:NAME`, `file:/run/secrets/x`, `keyring:service/user`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr, Strict

from sync.errors import HeadgateError
from sync.files import nearest

__all__ = ["FORMS", "Reference", "SecretError", "SecretReference", "parse", "resolve"]

FORMS = "`env:NAME`, `file:/run/secrets/name` or `keyring:service/user`"
_MAX_BYTES = 64 * 1024
_REFERENCE = re.compile(r"^(env|file|keyring):(.*)$", re.DOTALL)
_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


class SecretError(HeadgateError):
    """A reference is malformed, or what it points to is not there. The message never holds a secret."""

    code = "HG151"


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a secret is kept: `kind` is env, file or keyring."""

    kind: str
    target: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.target}"


def parse(text: str) -> Reference:
    """The reference written as text.

    Raises `SecretError` with code HG150 for anything else: it may be the secret itself, so the message does
    not repeat it; and with HG152 where the part after the colon cannot be right.
    """
    match = _REFERENCE.match(text.strip())
    if match is None:
        raise SecretError("a secret stands here in plain text", code="HG150", fix=f"Refer to it: {FORMS}.")
    kind, target = match[1], match[2].strip()
    if kind == "env" and not _NAME.match(target):
        raise SecretError("`env:` needs the name of a variable", code="HG152", fix="Write `env:HUBSPOT_TOKEN`.")
    if kind == "keyring" and not all(target.partition("/")):
        raise SecretError(
            "`keyring:` needs a service and a user", code="HG152", fix="Write `keyring:service/user`."
        )
    if kind == "file" and (not target or "\0" in target or "\n" in target):
        raise SecretError("`file:` needs a path", code="HG152", fix="Write `file:/run/secrets/name`.")
    return Reference(kind, target)


class _NoReference(ValueError):
    """A reference is malformed; says how to write one."""

    def __init__(self, error: SecretError) -> None:
        super().__init__(error.message)
        self.code = error.code
        self.fix = error.fix


def _checked(text: str) -> str:
    try:
        parse(text)
    except SecretError as error:
        raise _NoReference(error) from None
    return text


SecretReference = Annotated[str, Strict(), AfterValidator(_checked)]
"""Where a secret is kept: `env:NAME`, `file:PATH` or `keyring:service/user`; never the secret itself."""


def resolve(reference: Reference, root: Path) -> SecretStr:
    """The secret itself. Relative paths are relative to the project `root`; raises `SecretError`."""
    read = {"env": _from_environment, "file": _from_file, "keyring": _from_keyring}[reference.kind]
    value = read(reference.target, root)
    if not value.strip():
        raise SecretError(f"the secret {reference} is empty", fix="Give it a value.")
    return SecretStr(value)


def _from_environment(name: str, _root: Path) -> str:
    if (value := os.environ.get(name)) is not None:
        return value
    near = nearest(name, os.environ)
    hint = f" `{near}` is set: did you mean that?" if near else ""
    raise SecretError(f"the environment variable `{name}` is not set", fix=f"Set it before the command.{hint}")


def _from_file(target: str, root: Path) -> str:
    """The file's text without one final line break; keys of several lines stay as they are."""
    path = root / Path(target).expanduser()
    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        raise SecretError(
            f"cannot read the secret file:{target}: {reason}", fix="Check path and rights."
        ) from None
    if len(raw) > _MAX_BYTES:
        raise SecretError(f"the secret file:{target} is larger than 64 KiB", fix="Check the path.")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise SecretError(f"the secret file:{target} is not UTF-8 text", fix="Check the path.") from None
    return text.removesuffix("\n").removesuffix("\r")


def _from_keyring(target: str, _root: Path) -> str:
    import keyring
    from keyring.errors import KeyringError

    service, _, user = target.partition("/")
    try:
        value = keyring.get_password(service, user)
    except KeyringError as error:
        why = f"the keyring does not answer ({type(error).__name__})"
        raise SecretError(why, fix="On a server without a keyring, use `env:` or `file:`.") from None
    if value is None:
        fix = f"Store it with: keyring set {service} {user}"
        raise SecretError(f"the keyring has no password for `{target}`", fix=fix)
    return value
