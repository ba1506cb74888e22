"""What is in deploy/: a unit that systemd takes, and a daemon that is what unit and container file say."""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.project import Process, Project

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "deploy" / "systemd" / "headgate.service"
CONTAINER = ROOT / "deploy" / "Containerfile"

pytestmark = pytest.mark.timeout(120)


def setting(name: str) -> list[str]:
    """Every value that the unit gives a setting."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), flags=re.MULTILINE)


def tried(tmp_path: Path) -> Path:
    """The unit with a program that is here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/headgate/bin/headgate", shutil.which("true") or "/bin/true"))
    return unit


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", str(tried(tmp_path))], capture_output=True, text=True, check=False
    )
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(tried(tmp_path))],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (verified.returncode, verified.stderr) == (0, "")
    assert judged.returncode == 0, judged.stdout[-300:]


def test_nobody_is_root_and_nothing_but_the_state_is_writable() -> None:
    container = CONTAINER.read_text()

    assert setting("User") == ["headgate"]
    assert setting("ProtectSystem") == ["strict"]
    assert re.findall(r"^USER (.*)$", container, flags=re.MULTILINE) == ["10001:10001"]
    assert "--read-only" in container
    for place in ("HEADGATE__STATE__PATH", "HEADGATE__AUDIT__CHECKPOINTS"):
        (folder,) = re.findall(rf"{place}=(\S+)", container)
        assert f'"{folder}"' in container, "it is a volume"
        assert Path(folder).name in setting("StateDirectory")[0].split()


def test_the_units_settings_are_no_strangers_to_systemd() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)

    assert parser.sections() == ["Unit", "Service", "Install"]
    assert setting("Type") == ["notify"]
    assert int(setting("WatchdogSec")[0]) > 60, "a locked ledger is waited for half a minute"
    assert setting("TimeoutStartSec") == ["30min"], "a large ledger is checked for longer than the default of 90 s"
    assert "ProcSubset" not in parser["Service"], "the boot's id stands outside of the processes' own part"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[tuple[Project, Process, socket.socket]]:
    """A daemon that is started as systemd does, and systemd's end of its socket."""
    project = Project(tmp_path / "project", "http://127.0.0.1:9/").write().people(3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "notify"))
        server.settimeout(60)
        project.environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        process = project.start("daemon")
        yield project, process, server
        if Path(f"/proc/{process.pid}").exists():
            process.kill()
            process.wait()


def test_the_daemon_tells_systemd_and_a_health_check_that_it_is_well(
    daemon: tuple[Project, Process, socket.socket],
) -> None:
    project, process, server = daemon
    said = [server.recv(4096).decode()]
    while "WATCHDOG=1" not in said[-1]:
        said.append(server.recv(4096).decode())
    (pulse,) = (project.root / ".headgate" / "pulse").iterdir()
    first = json.loads(pulse.read_text())["at"]
    well = project.headgate("daemon", "--health", "--json")
    while json.loads(pulse.read_text())["at"] <= first:
        time.sleep(0.1)
    process.send(signal.SIGTERM)
    while "STOPPING=1" not in said[-1]:
        said.append(server.recv(4096).decode())
    assert process.wait().code == 0
    over = project.headgate("daemon", "--health")

    assert said[0].startswith("READY=1\nSTATUS=")
    assert (well.code, well.json["healthy"]) == (0, True)
    assert over.code == 1
    assert os.listdir(project.root / ".headgate" / "pulse") == [socket.gethostname().replace("/", "-")]


def test_a_health_check_where_no_daemon_ever_was_says_so(tmp_path: Path) -> None:
    project = Project(tmp_path / "project", "http://127.0.0.1:9/").write()

    done = project.headgate("daemon", "--health")

    assert done.code == 1
    assert "no daemon works" in done.text
