"""Real servers for tests, on the loopback: started where a test first asks for one, and ended with the session."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import pwd
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import NoReturn

import pytest

_PATIENCE = 60.0  # seconds a server may take to answer
_ALWAYS = [
    *("-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off"),
    *("-c", "shared_buffers=16MB", "-c", "max_connections=40", "-c", "autovacuum=off"),
]
_NAMES = count(1)


def absent(reason: str) -> NoReturn:
    """Skip on somebody's machine; fail where the tests are the gate."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def servant() -> str | None:
    """The user a server runs as, which must not be root; None: the user that runs the tests."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in known), None)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, what: str) -> None:
    """Wait until a server answers; `absent` where it ends or does not."""
    deadline = time.monotonic() + _PATIENCE
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            absent(f"{what} does not start: {log.read_text(errors='replace')[-500:]}")
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Does anybody take connections there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def write_certificate(certificate: Path, key: Path) -> None:
    """A certificate of the loopback's that vouches for itself, and its key, for this day."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    hosts = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(issuer_name=name, subject_name=name, public_key=secret.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, form, plain))
    key.chmod(0o600)


def end(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """End a server that this process started."""
    process.send_signal(how)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


# --- PostgreSQL -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Postgres:
    """A cluster on the loopback. `user` is a superuser: by password over TCP, by `sockets` without one.

    It speaks TLS where it is asked to, as 127.0.0.1 and localhost; `certificate` is what a client may trust.
    """

    port: int
    sockets: Path
    programs: Path
    certificate: Path
    host: str = "127.0.0.1"
    user: str = "headgate"
    password: str = "s3cret-of-tests"

    def database(self) -> str:
        """Make an empty database and return its name."""
        name = f"test{next(_NAMES)}"
        self.ask("postgres", f"create database {name} template template0")
        return name

    def ask(self, database: str, *statements: str) -> str:
        """Run statements with psql, and return what it prints: rows by line, columns by `|`."""
        command = [str(self.programs / "psql"), "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-U", self.user]
        command += ["-h", str(self.sockets), "-p", str(self.port), "-d", database]
        for statement in statements:
            command += ["-c", statement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def url(self, database: str) -> str:
        """The address of a database, password and all."""
        return f"postgres://{self.user}:{self.password}@{self.host}:{self.port}/{database}"


def postgres_programs() -> Path | None:
    """The newest installed PostgreSQL's folder of programs."""
    versions = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    newest = sorted(versions, key=lambda path: int(path.parts[-3].split(".")[0]))
    if newest:
        return newest[-1].parent
    found = shutil.which("postgres")
    return Path(found).resolve().parent if found else None


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL cluster of this process's own; a test takes a database of it: `postgres.database()`."""
    programs = postgres_programs()
    if programs is None:
        absent("PostgreSQL is not installed (Debian: postgresql)")
    # Not below pytest's own folder: the server's user may not enter that, and a socket's path has to be short.
    folder = Path(tempfile.mkdtemp(prefix="hg-pg-"))
    try:
        yield from _cluster(programs, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cluster(programs: Path, folder: Path) -> Generator[Postgres, None, None]:
    server = Postgres(free_port(), folder, programs, folder / "server.crt")
    word, key, data, log = folder / "password", folder / "server.key", folder / "data", folder / "log"
    word.write_text(server.password)
    write_certificate(server.certificate, key)
    user = servant()
    if user is not None:
        for path in (folder, word, key):
            shutil.chown(path, user)
    trust = ["--auth-local=trust", "--auth-host=scram-sha-256", "--pwfile", str(word), "-U", server.user]
    settings = ["--no-sync", "--no-instructions", "--locale=C", "--encoding=UTF8"]
    _run([str(programs / "initdb"), "-D", str(data), *trust, *settings], user, folder)
    where = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    where += ["-c", "ssl=on", "-c", f"ssl_cert_file={server.certificate}", "-c", f"ssl_key_file={key}"]
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(server.port), *where, *_ALWAYS]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, user=user, env=_clean())
    try:
        ready = [str(programs / "pg_isready"), "-q", "-h", str(folder), "-p", str(server.port)]
        until(lambda: subprocess.run(ready, check=False).returncode == 0, process, log, "PostgreSQL")
        yield server
    finally:
        end(process, signal.SIGQUIT)


def _run(command: Sequence[str], user: str | None, folder: Path) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, user=user, cwd=folder, env=_clean(), check=False
    )
    if done.returncode:
        absent(f"{Path(command[0]).name} failed: {done.stderr[-500:]}")


def _clean() -> dict[str, str]:
    """An environment without the settings of somebody's own servers and interpreters."""
    path = os.environ.get("PATH", os.defpath)
    return {"PATH": path, "LC_ALL": "C", "HOME": tempfile.gettempdir(), "TZ": "UTC"}


# --- SFTP and S3 ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sftp:
    """An OpenSSH server that gives files alone. `folder` is one that its user may write."""

    port: int
    user: str
    folder: Path
    private_key: str
    host_key: str  # its fingerprint
    known_hosts: Path
    disk: int = 20_000_000  # bytes that a file may have there


_SSHD = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/authorized
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
PasswordAuthentication no
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


@pytest.fixture(scope="session")
def sftp_server() -> Iterator[Sftp]:
    """An OpenSSH server of this process's own, with a host key of its own."""
    program = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        absent("sshd is not installed (Debian: openssh-server)")
    folder = Path(tempfile.mkdtemp(prefix="hg-ssh-"))
    try:
        yield from _sshd(program, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sshd(program: str, folder: Path) -> Iterator[Sftp]:
    private, public = ssh_key()
    host, known = ssh_key()
    port, user = free_port(), servant()
    blob = base64.b64decode(known.split()[1])
    server = Sftp(
        port=port,
        user=user or pwd.getpwuid(os.geteuid()).pw_name,
        folder=folder / "files",
        private_key=private,
        host_key="SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("="),
        known_hosts=folder / "known_hosts",
    )
    server.folder.mkdir()
    (folder / "host").write_text(host)
    (folder / "host").chmod(0o600)
    (folder / "authorized").write_text(public)
    server.known_hosts.write_text(f"[127.0.0.1]:{port} {known}\n")
    (folder / "config").write_text(_SSHD.format(port=port, folder=folder))
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user)
    command, log = [program, "-D", "-e", "-f", str(folder / "config")], folder / "log"
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (server.disk, was[1]))  # of this process, and so of the server
    try:
        with log.open("wb") as out:  # signals as they are here: a file too large is an error, and no death
            process = subprocess.Popen(
                command, stdout=out, stderr=out, cwd=folder, user=user, env=_clean(), restore_signals=False
            )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
    try:
        until(lambda: answers(port), process, log, "sshd")
        yield server
    finally:
        end(process, signal.SIGTERM)


def ssh_key() -> tuple[str, str]:
    """A private key as OpenSSH writes it, and its public one as a line."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    made = ed25519.Ed25519PrivateKey.generate()
    form = serialization.PrivateFormat.OpenSSH
    private = made.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    public = made.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return private.decode(), public.decode()


@dataclass(frozen=True)
class S3:
    """moto's server, which checks signatures and policies, with a user who may write one bucket."""

    url: str
    bucket: str
    access_key: str
    secret_key: str


_POLICY = """{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Resource": "*",
    "Action": ["s3:PutObject", "s3:GetObject", "s3:AbortMultipartUpload", "s3:ListBucket",
    "s3:ListBucketMultipartUploads"]}]}"""


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A server of S3's protocol, of this process's own."""
    import boto3  # type: ignore[import-untyped,unused-ignore]

    port, log = free_port(), tmp_path_factory.mktemp("moto") / "log"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = _clean() | {"INITIAL_NO_AUTH_ACTION_COUNT": "4"}  # that many requests are ours, to set it up
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    try:
        until(lambda: answers(port), process, log, "moto")
        url = f"http://127.0.0.1:{port}"
        given = {
            "endpoint_url": url,
            "region_name": "us-east-1",
            "aws_access_key_id": "x",
            "aws_secret_access_key": "x",
        }
        boto3.client("s3", **given).create_bucket(Bucket="exports")
        iam = boto3.client("iam", **given)
        iam.create_user(UserName="headgate")
        iam.put_user_policy(UserName="headgate", PolicyName="write", PolicyDocument=_POLICY)
        key = iam.create_access_key(UserName="headgate")["AccessKey"]
        yield S3(url, "exports", key["AccessKeyId"], key["SecretAccessKey"])
    finally:
        end(process, signal.SIGTERM)
