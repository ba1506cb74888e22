"""Files by SFTP, against a real OpenSSH server: whole or not at all, and only to the server that we know."""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import httpx
import paramiko  # type: ignore[import-untyped,unused-ignore]
import pytest
from pydantic import ValidationError

from connectors.file import File, FileConfig
from sync.errors import AuthError, ProjectError, RequestError, Unavailable
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.testing.case import told
from sync.testing.contract import ConnectorContract
from tests.cutter import cutter, silent
from tests.servers import Sftp, ssh_key


def change(n: int, **fields: Any) -> Change:
    return Change(Op.ADD, f"k{n}", {"email": f"p{n}@example.com"}, fields)


def batch(*changes: Change, id: str = "run1-1") -> Batch:
    return Batch(id, "crm", "row", None, changes, {"email": "VARCHAR", "name": "VARCHAR"})


LARGE = batch(*(change(n, name="x" * 10_000) for n in range(800)))


def connect(server: Sftp, *, seconds: float = 10.0, port: int | None = None, **more: Any) -> File:
    given = {
        "url": f"sftp://{server.user}@127.0.0.1:{port or server.port}{server.folder}",
        "private_key": server.private_key,
        "host_key": server.host_key,
    }
    config = FileConfig.model_validate({k: v for k, v in (given | more).items() if v is not None})
    return File(config, build_client(File, config, timeout=seconds))


def push(connector: File, of: Batch) -> list[Receipt]:
    return list(connector.push(of))  # type: ignore[arg-type]


@pytest.fixture
def server(sftp_server: Sftp) -> Sftp:
    for path in sftp_server.folder.iterdir():
        path.unlink()
    return sftp_server


def names(server: Sftp) -> list[str]:
    return sorted(path.name for path in server.folder.iterdir())


def test_a_batch_is_a_file_of_the_users_own(server: Sftp) -> None:
    receipts = push(connect(server), batch(change(1, name="Ada")))

    (written,) = server.folder.iterdir()
    assert [r.status for r in receipts] == [Status.APPLIED]
    assert (written.name, written.read_text()) == (
        "crm-run1-1.csv", "op,email,name\nadd,p1@example.com,Ada\n",
    )  # fmt: skip
    assert written.stat().st_mode & 0o777 == 0o600


def test_a_snapshot_takes_the_place_of_the_one_before_in_one_step(server: Sftp) -> None:
    connector = connect(server, delivery="snapshot", manifest=True)

    push(connector, LARGE)
    push(connector, batch(change(1, name="new")))

    assert names(server) == ["crm.csv", "crm.csv.manifest.json"]
    assert (server.folder / "crm.csv").read_text() == "email,name\np1@example.com,new\n"


def test_a_large_file_arrives_whole(server: Sftp, tmp_path: Path) -> None:
    push(connect(server, format="parquet"), LARGE)
    here = FileConfig(path=tmp_path, format="parquet")
    push(File(here, httpx.Client()), LARGE)

    assert (server.folder / "crm-run1-1.parquet").read_bytes() == (tmp_path / "crm-run1-1.parquet").read_bytes()


def test_what_a_killed_attempt_left_long_ago_is_swept_and_what_is_being_written_is_not(server: Sftp) -> None:
    for name, age in (("old", 7200), ("new", 60)):
        part = server.folder / f".crm-{name}.csv.{'0' * 32}.part"
        part.write_text("half")
        os.chown(part, server.folder.stat().st_uid, -1)
        os.utime(part, (time.time() - age,) * 2)
    (server.folder / ".hidden.part").write_text("not ours")

    push(connect(server), batch(change(1)))

    assert names(server) == [f".crm-new.csv.{'0' * 32}.part", ".hidden.part", "crm-run1-1.csv"]


def test_the_address_may_begin_at_home(server: Sftp) -> None:
    home = "/".join([".."] * 20) + str(server.folder)  # from wherever that is

    push(connect(server, url=f"sftp://{server.user}@127.0.0.1:{server.port}/~/{home}"), batch(change(1)))

    assert names(server) == ["crm-run1-1.csv"]


# --- who the server is ----------------------------------------------------------------------------------------


def test_a_server_with_another_key_is_told_nothing(server: Sftp) -> None:
    other = "SHA256:" + base64.b64encode(hashlib.sha256(b"other").digest()).decode().rstrip("=")
    connector = connect(server, host_key=other)

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(AuthError, match="not the server it should be") as raised:
            attempt()
        assert server.host_key in raised.value.message
    assert names(server) == []


def test_a_known_hosts_file_will_do_and_an_empty_one_will_not(server: Sftp, tmp_path: Path) -> None:
    connect(server, host_key=None, known_hosts=str(server.known_hosts)).check()

    (tmp_path / "empty").touch()
    (tmp_path / "other").write_text(f"[127.0.0.1]:{server.port} {ssh_key()[1]}\n")
    for name in ("empty", "other"):
        with pytest.raises(AuthError, match="not the server it should be"):
            connect(server, host_key=None, known_hosts=str(tmp_path / name)).check()
    with pytest.raises(AuthError, match="cannot read"):
        connect(server, host_key=None, known_hosts=str(tmp_path / "absent")).check()


# --- who we are -----------------------------------------------------------------------------------------------


def test_a_key_that_the_server_does_not_know_pauses_the_destination(server: Sftp) -> None:
    connector = connect(server, private_key=ssh_key()[0])

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(AuthError, match="refused the user's credentials"):
            attempt()


@pytest.mark.parametrize("text", ["canary", "-----BEGIN OPENSSH PRIVATE KEY-----\ncanary\n-----END"])
def test_a_private_key_that_is_none_is_told_without_quoting_it(server: Sftp, text: str) -> None:
    with pytest.raises(AuthError, match="private key cannot be read") as raised:
        connect(server, private_key=text).check()

    assert "canary" not in told(raised.value)


class Door(paramiko.ServerInterface):  # type: ignore[misc]
    """Lets one user in, by password: OpenSSH's own needs the machine's accounts for that."""

    def check_auth_password(self, username: str, password: str) -> int:
        right = (username, password) == ("ana", "pässword")
        return int(paramiko.AUTH_SUCCESSFUL if right else paramiko.AUTH_FAILED)

    def get_allowed_auths(self, username: str) -> str:
        return "password"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return int(paramiko.OPEN_SUCCEEDED)


class Files(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """One folder's files; renames to names that are free only, as version 3 of the protocol has it."""

    root: ClassVar[Path]

    def _path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def stat(self, path: str) -> Any:
        try:
            return paramiko.SFTPAttributes.from_stat(self._path(path).stat())
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def chattr(self, path: str, attr: Any) -> int:
        return int(paramiko.SFTP_OK)

    def open(self, path: str, flags: int, attr: Any) -> Any:
        handle = paramiko.SFTPHandle(flags)
        handle.writefile = handle.readfile = self._path(path).open("x+b")
        return handle

    def remove(self, path: str) -> int:
        try:
            self._path(path).unlink()
        except OSError as error:
            return int(paramiko.SFTPServer.convert_errno(error.errno))
        return int(paramiko.SFTP_OK)

    def rename(self, oldpath: str, newpath: str) -> int:
        if self._path(newpath).exists():
            return int(paramiko.SFTP_FAILURE)
        self._path(oldpath).rename(self._path(newpath))
        return int(paramiko.SFTP_OK)


@contextmanager
def plain_server(folder: Path) -> Iterator[tuple[int, str]]:
    """A server without extensions, with passwords; its port and its key's fingerprint."""
    key = paramiko.RSAKey.generate(2048)
    Files.root = folder
    over, open_ = threading.Event(), []

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            try:
                client, _ = listener.accept()
            except OSError:
                return
            transport = paramiko.Transport(client)
            transport.add_server_key(key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, Files)
            transport.start_server(event=threading.Event(), server=Door())
            open_.append(transport)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        digest = base64.b64encode(hashlib.sha256(key.asbytes()).digest()).decode().rstrip("=")
        yield int(listener.getsockname()[1]), f"SHA256:{digest}"
        over.set()
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        for transport in open_:
            transport.close()


def plain(port: int, key: str, password: str = "pässword", **more: Any) -> File:
    given = {"url": f"sftp://ana@127.0.0.1:{port}/~/.", "password": password, "host_key": key}
    config = FileConfig.model_validate(given | more)
    return File(config, build_client(File, config, timeout=10))


def test_a_password_opens_and_a_wrong_one_pauses_the_destination(tmp_path: Path) -> None:
    with plain_server(tmp_path) as (port, key):
        plain(port, key).check()
        wrong = "".join(["wrong-", "canary"])  # no line of a traceback has it
        with pytest.raises(AuthError, match="refused the user's credentials") as raised:
            plain(port, key, wrong).check()

    assert "canary" not in told(raised.value)


def test_a_server_that_cannot_replace_a_file_in_one_step_is_helped(tmp_path: Path) -> None:
    with plain_server(tmp_path) as (port, key):
        connector = plain(port, key, delivery="snapshot")
        push(connector, batch(change(1, name="old")))
        push(connector, batch(change(1, name="new")))

    assert [path.name for path in tmp_path.iterdir()] == ["crm.csv"]
    assert (tmp_path / "crm.csv").read_text() == "email,name\np1@example.com,new\n"


# --- trouble --------------------------------------------------------------------------------------------------


def test_nobody_listening_is_unavailable_and_nothing_was_applied(server: Sftp) -> None:
    with silent() as port:
        pass

    with pytest.raises(Unavailable, match=r"cannot connect to 127\.0\.0\.1") as raised:
        push(connect(server, port=port), batch(change(1)))

    assert raised.value.applied is False


def test_a_server_that_says_nothing_is_left_in_time(server: Sftp) -> None:
    with silent() as port:
        began = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            push(connect(server, port=port, seconds=0.5), batch(change(1)))

    assert raised.value.applied is False
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("size", [10, 2_000, 200_000, 5_000_000])
def test_a_wire_cut_in_the_middle_leaves_the_old_file(server: Sftp, size: int) -> None:
    push(connect(server, delivery="snapshot"), batch(change(1, name="old")))

    with cutter(server.port, lambda seen: len(seen) > size) as wire:
        with pytest.raises(Unavailable) as raised:
            push(connect(server, port=wire.port, delivery="snapshot"), LARGE)
        assert wire.cut.is_set()

    assert raised.value.applied is False
    assert (server.folder / "crm.csv").read_text() == "email,name\np1@example.com,old\n"


def test_a_wire_that_stalls_is_left_in_time_and_what_comes_late_changes_nothing(server: Sftp) -> None:
    go_on = threading.Event()

    def stall(seen: bytes) -> bool:
        if len(seen) > 1_000_000:
            go_on.wait(30)
        return False

    with cutter(server.port, stall) as wire:
        began = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            push(connect(server, port=wire.port, seconds=1.5), LARGE)
        took = time.monotonic() - began
        go_on.set()

    assert raised.value.applied is False
    assert took < 5
    assert [name for name in names(server) if not name.startswith(".")] == []


PUSH = """
import sys
from connectors.file import File, FileConfig
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op

url, host_key = sys.argv[1:]
config = FileConfig(url=url, private_key=sys.stdin.read(), host_key=host_key, delivery="snapshot")
made = tuple(Change(Op.ADD, str(n), {"email": str(n)}, {"name": "x" * 10_000}) for n in range(800))
File(config, build_client(File, config, timeout=60)).push(Batch("b", "crm", "row", None, made))
"""


def test_a_process_that_is_killed_in_the_middle_leaves_the_old_file(server: Sftp) -> None:
    push(connect(server, delivery="snapshot"), batch(change(1, name="old")))
    reached, go_on = threading.Event(), threading.Event()

    def hold(seen: bytes) -> bool:
        if len(seen) > 4_000_000:
            reached.set()
            go_on.wait(60)
        return False

    with cutter(server.port, hold) as wire:
        url = f"sftp://{server.user}@127.0.0.1:{wire.port}{server.folder}"
        command = [sys.executable, "-c", PUSH, url, server.host_key]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.stdin is not None
            process.stdin.write(server.private_key.encode())
            process.stdin.close()
            assert reached.wait(60)
            process.kill()
        go_on.set()

    assert (server.folder / "crm.csv").read_text() == "email,name\np1@example.com,old\n"


def test_a_folder_that_is_not_there_waits_for_somebody_to_make_it(server: Sftp) -> None:
    connector = connect(server, url=f"sftp://{server.user}@127.0.0.1:{server.port}{server.folder}/absent")

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(Unavailable, match="no such folder") as raised:
            attempt()
        assert raised.value.applied is False


def test_a_folder_that_the_user_may_not_write_pauses_the_destination(server: Sftp) -> None:
    connector = connect(server, url=f"sftp://{server.user}@127.0.0.1:{server.port}/usr")

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(AuthError, match="does not let the user write"):
            attempt()


def test_a_full_disk_is_unavailable_and_the_old_file_stays(server: Sftp) -> None:
    connector = connect(server, delivery="snapshot")
    push(connector, batch(change(1, name="old")))
    too_large = batch(*LARGE.changes, *(change(n, name="y" * (server.disk // 100)) for n in range(100)))

    with pytest.raises(Unavailable, match="failed") as raised:
        push(connector, too_large)

    assert raised.value.applied is False
    assert names(server) == ["crm.csv"]
    assert (server.folder / "crm.csv").read_text() == "email,name\np1@example.com,old\n"


def test_a_full_disk_here_is_told_as_ours(server: Sftp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sync.sdk.folders._IN_MEMORY", 1000)
    was = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, was[1]))
    try:
        with pytest.raises(Unavailable, match=f"temporary file: {os.strerror(errno.EFBIG)}") as raised:
            push(connect(server), LARGE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)

    assert raised.value.applied is False


def test_a_row_that_cannot_be_written_sends_nothing(server: Sftp) -> None:
    with pytest.raises(RequestError, match="'op'"):
        push(connect(server), batch(change(1, op="x")))

    assert names(server) == []


def test_without_the_library_it_says_what_to_install(server: Sftp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paramiko", None)

    with pytest.raises(ProjectError, match="`paramiko` is not installed") as raised:
        connect(server).check()

    assert raised.value.fix == "Install it: pip install 'headgate[sftp]'."


CONFIG = """
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.partner]
type = "file"
url = "sftp://{user}@127.0.0.1:{port}{folder}"
private_key = "file:partner_key"
known_hosts = "known_hosts"
delivery = "snapshot"
manifest = true
"""
MAPPING = """
version: 1
cohort:
  name: people
  owner: data@acme.example
  purpose: Tell the partner who is who.
  definition: Everybody.
  source: { connection: warehouse, table: people, key: id }
syncs:
  - name: partner-people
    destination: partner
    mode: mirror
    identifiers: [{ to: email, from: email }]
"""


def test_a_cohort_goes_to_a_partner_with_keys_that_are_files_of_the_project(server: Sftp, tmp_path: Path) -> None:
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "people.yaml").write_text(MAPPING)
    given = {"user": server.user, "port": server.port, "folder": server.folder}
    (tmp_path / "config.toml").write_text(CONFIG.format(**given))
    (tmp_path / "partner_key").write_text(server.private_key)
    (tmp_path / "known_hosts").write_text(server.known_hosts.read_text())
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        warehouse.execute("CREATE TABLE people AS SELECT i AS id, 'p' || i AS email FROM range(100) t(i)")
    command = [sys.executable, "-m", "sync.cli.app", "--project", str(tmp_path), "run", "--first-run", "--json"]

    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)

    (report,) = json.loads(done.stdout)["syncs"]
    assert (report["applied"], report["requests"]) == (100, 2)
    written = (server.folder / "partner-people.csv").read_text().splitlines()
    told = json.loads((server.folder / "partner-people.csv.manifest.json").read_text())
    assert (len(written), written[0], told["rows"]) == (101, "email", 100)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"url": "sftp://h/x"}, "USER@HOST"),
        ({"url": "sftp://u@h"}, "USER@HOST"),
        ({"url": "sftp://u@h:x/y"}, "USER@HOST"),
        ({"url": "sftp://u:pw@h/y"}, "the password as `password`"),
        ({"host_key": ""}, "how the server is known"),
        ({"host_key": "MD5:aa:bb"}, "pattern"),
        ({"password": None}, "`password` or `private_key`"),
        ({"region": "x"}, "`region` means nothing for sftp"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, Any], reason: str) -> None:
    given = {"url": "sftp://u@h/x", "password": "pw", "host_key": f"SHA256:{'A' * 43}"}

    with pytest.raises(ValidationError, match=reason):
        FileConfig.model_validate({k: v for k, v in (given | options).items() if v is not None})


class TestSftpContract(ConnectorContract):
    connector = File
    server: ClassVar[Sftp | None] = None

    @pytest.fixture(autouse=True)
    def _server(self, sftp_server: Sftp) -> None:
        type(self).server = sftp_server

    def options(self, folder: Path) -> dict[str, Any]:
        if self.server is None:
            return {"url": "sftp://u@127.0.0.1/x", "private_key": "none", "host_key": f"SHA256:{'A' * 43}"}
        return {
            "url": f"sftp://{self.server.user}@127.0.0.1:{self.server.port}{self.server.folder}",
            "private_key": self.server.private_key,
            "host_key": self.server.host_key,
        }
