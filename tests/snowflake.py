"""A server that speaks Snowflake's protocol: installed once, started once for all processes of a pytest run."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.environments import alone, made_environment
from tests.servers import absent, answers, free_port, until

__all__ = ["Snowflake", "server_python", "snowflake"]

SERVER = Path(__file__).parent / "integration" / "snowflake_server.py"
PACKAGES = ["fakesnow[server]==0.12.*", "snowflake-connector-python==4.8.*"]


@dataclass(frozen=True)
class Snowflake:
    """The server. Each process of a pytest run has a database of its own in it, and sees what that was asked."""

    port: int
    database: str = field(default_factory=lambda: f"db_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
    host: str = "127.0.0.1"

    def options(self, **more: Any) -> dict[str, Any]:
        """`[sources.NAME]` of it; None takes an option out."""
        given = {
            "type": "snowflake",
            "account": "test",
            "user": "loader",
            "password": "canary-password",
            "host": self.host,
            "port": self.port,
            "protocol": "http",
            "database": self.database,
            "schema": "marts",
            "login_timeout": 5,
            **more,
        }
        return {name: value for name, value in given.items() if value is not None}

    def seen(self) -> dict[str, Any]:
        """The sign-ins to our database and the statements in it so far: `logins`, `queries`."""
        where = urllib.parse.urlencode({"database": self.database})
        with urllib.request.urlopen(f"http://{self.host}:{self.port}/seen?{where}") as answer:
            return dict(json.load(answer))


def server_python(config: pytest.Config) -> Path:
    """The interpreter of an environment that has the server."""
    return made_environment(config, "snowflake-server", PACKAGES, absent)


def _started(python: Path, folder: Path) -> int:
    """The port of a server that ends when the pytest run does."""
    run = os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
    port, log = free_port(), folder / "snowflake.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(python), str(SERVER), str(port), str(run)]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env=environment)
    until(lambda: answers(port), process, log, "the Snowflake server")
    process.returncode = 0  # it outlives this process, which is not to wait for it
    return port


@pytest.fixture(scope="session")
def snowflake(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Snowflake:
    """The server of this pytest run, with a database of this process's own in it."""
    python = server_python(request.config)
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all processes of the run
    port = folder / "snowflake.port"
    with alone(folder / "snowflake.lock"):
        if not port.exists():
            port.write_text(str(_started(python, folder)))
    return Snowflake(int(port.read_text()))
