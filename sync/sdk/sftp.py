"""Files by SFTP: written aside, then renamed; the server has to prove who it is before anything is said to it.

SFTP is version 3 (draft-ietf-secsh-filexfer-02) with OpenSSH's `posix-rename@openssh.com`, which replaces a file
in one step (OpenSSH, PROTOCOL, section 4.3). A server without it renames to names that are free only; there a file
of the same name is removed first, and for a moment neither is there.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import io
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

import httpx
from pydantic import SecretStr

from sync.errors import AuthError, DestinationError, Unavailable
from sync.sdk.extras import need
from sync.sdk.folders import spooled
from sync.sdk.http import turn

if TYPE_CHECKING:
    import paramiko

__all__ = ["SftpFolder", "SshLogin", "fingerprint"]

_PIECE = 1 << 18  # bytes handed over at once
_STALE = 3600.0  # seconds after which nobody can still be writing a file
_PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")
_KEYS = ("Ed25519Key", "ECDSAKey", "RSAKey")


def fingerprint(key: bytes) -> str:
    """`SHA256:...`, as `ssh-keygen -l` prints it, of a public key in SSH's own format."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class SshLogin:
    """Who we are, and how the server proves who it is: by a fingerprint, or by its key in a known_hosts file."""

    host: str
    port: int
    user: str
    password: SecretStr | None = None
    private_key: SecretStr | None = None
    passphrase: SecretStr | None = None
    host_key: str = ""
    known_hosts: Path | None = None

    @property
    def server(self) -> str:
        """For messages."""
        return f"{self.host}:{self.port}"


class SftpFolder:
    """A folder of an SFTP server, which has to exist. `http` gives turns; it sends nothing."""

    def __init__(self, http: httpx.Client, login: SshLogin, path: str) -> None:
        self._http = http
        self._login = login
        self._path = path
        self._swept = False

    def check(self) -> None:
        """Sign in, then write and remove an empty file."""
        part = f"{self._path}/.check.{uuid4().hex}.part"
        with _Session(self._login, turn(self._http)) as session:
            session.client.open(part, "wx").close()
            session.client.remove(part)

    @contextlib.contextmanager
    def published(self, name: str) -> Iterator[IO[bytes]]:
        """A file that appears under its name when the server has all of it."""
        with spooled(lambda file: self._send(name, file)) as out:
            yield out

    def _send(self, name: str, file: IO[bytes]) -> None:
        part = f"{self._path}/.{name}.{uuid4().hex}.part"
        with _Session(self._login, turn(self._http)) as session:
            try:
                written = _write(session.client, part, file)
                session.publish(part, f"{self._path}/{name}")
            except BaseException:
                with contextlib.suppress(Exception):
                    session.client.remove(part)
                raise
            if not self._swept:
                self._swept = True
                with contextlib.suppress(Exception):
                    _sweep(session.client, self._path, before=written - _STALE)


def _write(client: paramiko.SFTPClient, part: str, file: IO[bytes]) -> float:
    """All of it, and what the server then says of its size is so. Returns when that was, by the server's clock."""
    size = 0
    with client.open(part, "wx") as out:
        client.chmod(part, 0o600)
        out.set_pipelined(True)
        while piece := file.read(_PIECE):
            out.write(piece)
            size += len(piece)
    found = client.stat(part)
    if found.st_size != size:
        raise OSError(errno.EIO, "the file there is not as long as what was sent")
    return float(found.st_mtime or 0)


def _sweep(client: paramiko.SFTPClient, path: str, before: float) -> None:
    """Remove what attempts that were cut short have left, long ago."""
    for found in client.listdir_attr(path):
        if _PART.fullmatch(found.filename) and (found.st_mtime or before) < before:
            client.remove(f"{path}/{found.filename}")


class _Session:
    """One connection, ended at its deadline; every failure in it is a `DestinationError`."""

    client: paramiko.SFTPClient

    def __init__(self, login: SshLogin, seconds: float) -> None:
        self._ssh = need("paramiko", "sftp")
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)  # it logs names of files, and tracebacks
        self._login = login
        self._seconds = seconds
        self._ends = time.monotonic() + seconds
        self._renaming = False
        self._transport: Any = None

    def __enter__(self) -> _Session:
        failure: DestinationError | None = None
        try:
            self._transport = self._connected()
            self._timer = threading.Timer(self._left, self._transport.close)
            self._timer.daemon = True
            self._timer.start()
            self._identify()
            self._sign_in()
            self.client = self._ssh.SFTPClient.from_transport(self._transport)
            self.client.get_channel().settimeout(self._left)
        except DestinationError as error:
            failure = error
        except (OSError, EOFError, self._ssh.SSHException) as error:
            failure = self._failed(error)
        if failure is not None:
            self.close()
            raise failure
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.close()
        if isinstance(error, OSError | EOFError | self._ssh.SSHException):
            raise self._failed(error) from error

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._timer.cancel()
            self._transport.close()
            self._transport.sock.close()  # close() leaves that to the server where it hung up first

    def publish(self, part: str, name: str) -> None:
        """Rename, unless the time is up."""
        if self._left <= 0.05:
            raise TimeoutError("the time is up")
        self._renaming = True
        try:
            self.client.posix_rename(part, name)
        except OSError as error:
            if error.errno is not None or "unsupported" not in str(error).lower():
                raise
            with contextlib.suppress(FileNotFoundError):
                self.client.remove(name)
            self.client.rename(part, name)

    # --- signing in -------------------------------------------------------------------------------------------

    @property
    def _left(self) -> float:
        return max(0.01, self._ends - time.monotonic())

    def _connected(self) -> Any:
        """A transport that asks the server for a key of a kind that we know, where we know kinds."""
        types = self._known().keys()
        line = socket.create_connection((self._login.host, self._login.port), timeout=self._left)
        transport = self._ssh.Transport(line)
        transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = self._left
        options = transport.get_security_options()
        wanted = [t for t in options.key_types if t in types or (t.startswith("rsa-sha2") and "ssh-rsa" in types)]
        options.key_types = wanted or list(options.key_types)
        return transport

    def _known(self) -> dict[str, Any]:
        """The server's keys that the known_hosts file has, by type."""
        login = self._login
        if login.known_hosts is None:
            return {}
        try:
            hosts = self._ssh.HostKeys(str(login.known_hosts))
        except OSError:
            fix = "Give a `known_hosts` that can be read, or `host_key`."
            raise AuthError(f"cannot read {login.known_hosts}", fix=fix) from None
        found = hosts.lookup(login.host if login.port == 22 else f"[{login.host}]:{login.port}")
        return dict(found) if found else {}

    def _identify(self) -> None:
        """The server proves that it has the key that we know; raises `AuthError` before we say who we are."""
        self._transport.start_client(timeout=self._left)
        key, login = self._transport.get_remote_server_key(), self._login
        shown = fingerprint(key.asbytes())
        if login.host_key == shown or self._known().get(key.get_name()) == key:
            return
        raise AuthError(
            f"{login.server} is not the server it should be: its key has the fingerprint {shown}",
            fix="Ask whoever runs it whether that is its key; then give it as `host_key`, or in `known_hosts`.",
        )

    def _sign_in(self) -> None:
        login, transport = self._login, self._transport
        try:
            if login.private_key is not None:
                transport.auth_publickey(login.user, self._private_key(login.private_key))
            elif login.password is not None:
                transport.auth_password(login.user, login.password.get_secret_value())
            else:
                transport.auth_none(login.user)
        except self._ssh.AuthenticationException:
            refused = AuthError(
                f"{login.server} refused the user's credentials", fix="Check user, password or private key."
            )
        else:
            return
        raise refused

    def _private_key(self, secret: SecretStr) -> Any:
        word = self._login.passphrase.get_secret_value() if self._login.passphrase else None
        for name in _KEYS:
            with contextlib.suppress(self._ssh.SSHException, ValueError):
                return getattr(self._ssh, name).from_private_key(io.StringIO(secret.get_secret_value()), word)
        fix = "It is an OpenSSH or PEM private key (Ed25519, ECDSA, RSA), whole, and `passphrase` opens it."
        raise AuthError("the private key cannot be read", fix=fix)

    def _failed(self, error: BaseException) -> DestinationError:
        """What a failure means; nothing was applied unless the file was being renamed."""
        applied = None if self._renaming else False
        number = getattr(error, "errno", None)
        if number == errno.EACCES:
            fix = "Let the user write to the folder."
            return AuthError(f"{self._login.server} does not let the user write there", str(error), fix=fix)
        if self._transport is None:
            reason = getattr(error, "strerror", None) or "no connection in time"
            return Unavailable(f"cannot connect to {self._login.server}: {reason}", applied=False)
        if number == errno.ENOENT:
            fix = "make the folder, or correct the address"
            return Unavailable(f"{self._login.server} has no such folder", str(error), applied=applied, fix=fix)
        what = f"failed ({type(error).__name__})" if number or str(error) == "Failure" else "broke off"
        return Unavailable(f"{self._login.server} {what}", str(error), applied=applied)
