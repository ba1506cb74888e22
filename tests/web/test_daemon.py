"""The daemon with its API, as a process."""

from __future__ import annotations

import re
import time
from pathlib import Path

import httpx
import pytest

from sync.cli.app import run
from tests.acceptance.project import Process, Project
from tests.servers import free_port


def address_of(daemon: Process) -> str:
    """Where it listens, as its log says."""
    deadline = time.monotonic() + 30
    while (found := re.search(r'"address": ?"([^"]+)"', daemon._err.read_text())) is None:
        assert time.monotonic() < deadline, daemon._err.read_text()
        time.sleep(0.02)
    return f"http://{found[1]}"


def test_it_is_served_until_the_daemon_is_told_to_stop(tmp_path: Path) -> None:
    project = Project(tmp_path, "http://127.0.0.1:9").write().people(3)
    daemon = project.start("daemon", "--listen", "127.0.0.1:0")
    url = address_of(daemon)

    assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
    taken = project.headgate("daemon", "--listen", url.removeprefix("http://"), "--json")
    daemon.terminate()

    assert daemon.wait(30).code == 0
    assert taken.code == 1
    assert "another process listens there" in taken.text
    assert "HG801" in taken.text


def test_nothing_is_served_where_nobody_asked_for_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    project = Project(tmp_path, "http://127.0.0.1:9").write().people(3)

    assert run(["daemon", "--listen", f":{free_port()}", "--project", str(project.root)]) == 2
    assert run(["daemon", "--once", "--project", str(project.root)]) == 0

    told = "".join(capfd.readouterr())
    assert "write a host and a port" in told
    assert "listening" not in told
