"""A real Unleash server on the loopback, for tests: installed with npm once, started once a session.

It is the npm package `unleash-server`, of one version, in a folder of the checkout that git ignores. The
database is one of the PostgreSQL cluster that tests share.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers import Postgres, absent, end, free_port, until

__all__ = ["UnleashServer", "unleash_server"]

VERSION = "6.10.1"  # the newest for Node 18 to 20
_CACHE = Path(__file__).parents[2] / ".cache" / f"unleash-server-{VERSION}"
_SERVER = Path("node_modules") / "unleash-server" / "dist" / "server.js"
_ADMIN, _FRONTEND = "*:*.admin-of-tests", "default:development.frontend-of-tests"
_PATIENCE = 30.0  # seconds until a change is seen by those who evaluate flags
_FLAGS = "/api/admin/projects/default/features"
_STRATEGY = {"name": "flexibleRollout", "parameters": {"rollout": "100", "stickiness": "default"}}


@dataclass(frozen=True)
class UnleashServer:
    """The server, and clients with a token for each of its two sides."""

    url: str
    admin: httpx.Client
    frontend: httpx.Client
    token: str = _ADMIN
    _markers: Iterator[int] = field(default_factory=lambda: count(1))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the admin API; the JSON of a good answer."""
        response = self.admin.request(method, path, json=body)
        assert response.is_success, (method, path, response.status_code, response.text)
        return response.json() if response.content else None

    def flag(self, name: str, *segments: str) -> None:
        """Make a flag that is on for whoever is in all of these segments."""
        self.ask("POST", _FLAGS, {"name": name, "type": "release"})
        strategy = _STRATEGY | {"segments": [int(segment) for segment in segments]}
        self.ask("POST", f"{_FLAGS}/{name}/environments/development/strategies", strategy)
        self.ask("POST", f"{_FLAGS}/{name}/environments/development/on")

    def on(self, flag: str, user: str, **context: str) -> bool:
        """Is a flag on for somebody: evaluated by the server, as it does for browsers and phones."""
        answer = self.frontend.get("/api/frontend", params={"userId": user, **context})
        assert answer.status_code == 200, answer.text
        return any(toggle["name"] == flag and toggle["enabled"] for toggle in answer.json()["toggles"])

    def settle(self) -> None:
        """Wait until what was changed so far is seen by `on`: a flag that is made now is."""
        name = f"marker-{next(self._markers)}"
        self.flag(name)
        wait(lambda: self.on(name, "anybody"))


def wait(until_true: Callable[[], bool]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + _PATIENCE
    while not until_true():
        assert time.monotonic() < deadline, "a change is not seen by those who evaluate flags"
        time.sleep(0.1)


@pytest.fixture(scope="session")
def unleash_server(postgres: Postgres) -> Iterator[UnleashServer]:
    """An Unleash server of this session's own, in its default project with its environment `development`."""
    node, folder = shutil.which("node"), _installed()
    if node is None:
        absent("Node.js is not installed (Debian: nodejs)")
    url = f"http://127.0.0.1:{(port := free_port())}"
    log = Path(tempfile.mkstemp(prefix="hg-unleash-")[1])
    with log.open("wb") as out:
        command = [node, str(folder / _SERVER)]
        environment = _environment(postgres.url(postgres.database()), port)
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=folder, env=environment)
    try:
        until(lambda: _healthy(url), process, log, "Unleash")
        with (
            httpx.Client(base_url=url, headers={"authorization": _ADMIN}, trust_env=False) as admin,
            httpx.Client(base_url=url, headers={"authorization": _FRONTEND}, trust_env=False) as frontend,
        ):
            yield UnleashServer(url, admin, frontend)
    finally:
        end(process, signal.SIGTERM)
        log.unlink()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def _environment(database: str, port: int) -> dict[str, str]:
    """What the server reads; nothing of the machine's own, and it calls nobody."""
    tokens = {"INIT_ADMIN_API_TOKENS": _ADMIN, "INIT_FRONTEND_API_TOKENS": _FRONTEND}
    quiet = {"CHECK_VERSION": "false", "SEND_TELEMETRY": "false", "LOG_LEVEL": "error"}
    place = {"HTTP_HOST": "127.0.0.1", "HTTP_PORT": str(port), "DATABASE_URL": database, "DATABASE_SSL": "false"}
    path = {"PATH": os.environ.get("PATH", os.defpath), "HOME": tempfile.gettempdir(), "TZ": "UTC"}
    return path | tokens | quiet | place


def _installed() -> Path:
    """The folder the server is installed in; a folder that is there is whole."""
    if (_CACHE / _SERVER).exists():
        return _CACHE
    npm = shutil.which("npm")
    if npm is None:
        absent("npm is not installed (Debian: npm)")
    _CACHE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_CACHE.parent) as aside:
        made = Path(aside) / "unleash"
        made.mkdir()
        (made / "package.json").write_text("{}")
        command = [npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts"]
        command += ["--loglevel=error", f"unleash-server@{VERSION}"]
        done = subprocess.run(command, cwd=made, capture_output=True, text=True, check=False)
        if done.returncode:
            absent(f"npm could not install unleash-server: {done.stderr[-500:]}")
        shutil.rmtree(_CACHE, ignore_errors=True)
        made.rename(_CACHE)
    return _CACHE
