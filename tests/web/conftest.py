"""A real project behind the API, whose daemon works when a test says so."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sync.address import Address
from sync.cli.context import Session
from sync.cli.options import Options
from sync.daemon.life import Life
from sync.daemon.service import Daemon
from sync.engine.runner import Runner
from sync.state.access import Scope
from sync.state.ledger import Ledger
from sync.web.app import make_app
from sync.web.callers import Failures
from sync.web.guard import Guard
from sync.web.server import bound, serving
from sync.web.site import Site
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink, running

SYNC = "sink-vip"


class Api:
    """One project's API, called without a network in between, and the daemon beside it."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.session = Session(Options(project=project.root))
        self.daemon = Daemon(self._jobs, self.ledger, self._runner)
        self.daemon.clock.read()
        jobs = self.daemon.clock
        self.site = Site(self.ledger, self.ledger.access, self.session.engine, lambda: jobs.jobs)
        self.clients: list[Client] = []
        self.url = ""

    @property
    def ledger(self) -> Ledger:
        return self.session.ledger

    def work(self) -> None:
        """Do what was asked for."""
        self.daemon.once()

    def token(self, *scopes: str, name: str = "", **more: Any) -> str:
        """A token's text."""
        name = name or f"t{len(self.ledger.access.tokens())}"
        given = {"ttl": 3600.0, "actor": "ana@acme.example", **more}
        return self.ledger.access.create(name, [Scope(s) for s in scopes], **given)[1]

    def client(self, *scopes: str, **more: Any) -> Client:
        """A client with a token of its own; without scopes, one without a token."""
        self.clients.append(Client(self.url, self.token(*scopes, **more) if scopes else ""))
        return self.clients[-1]

    def actions(self, *actions: str) -> list[tuple[str, str, Any]]:
        """(actor, object, data) of what the audit log has of these actions, oldest first."""
        with self.ledger.reading() as connection:
            found = self.session.audit.search(connection, limit=1000)
        return [(e.actor, e.object, e.data) for e in reversed(found) if e.action in actions]

    def _jobs(self) -> Any:
        self.session.__dict__.pop("project", None)
        return self.session.project.jobs(disabled=True)

    def _runner(self, trigger: str, actor: str, life: Life) -> Runner:
        told: Any = {"observer": life, "stop": life.stop}
        return Runner(self.ledger, self.session.engine, actor=actor, trigger=trigger, **told)


class Client:
    """Calls the API and gives its answers."""

    def __init__(self, url: str, token: str = "") -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=30, verify=False)

    def get(self, path: str, **query: Any) -> httpx.Response:
        return self.http.get(path, params=query)

    def post(self, path: str, body: Any = None, key: str = "") -> httpx.Response:
        return self.http.post(path, json=body, headers={"Idempotency-Key": key} if key else {})


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    with running(tmp_path / "sink.jsonl") as started:
        yield started


@pytest.fixture
def api(tmp_path: Path, sink: Sink) -> Iterator[Api]:
    with served(tmp_path, sink) as made:
        yield made


@contextmanager
def served(folder: Path, sink: Sink, failures: Failures | None = None) -> Iterator[Api]:
    """A project of 40 people, nothing sent yet, behind its API."""
    made = Api(Project(folder, sink.url).write().people(40))
    app = make_app(made.site)
    app.state.failures = failures or app.state.failures
    with serving(Guard(app, made.site.hosts), bound(Address("127.0.0.1", 0))) as address:
        made.url = f"http://{address}"
        yield made
    for client in made.clients:
        client.http.close()
    made.session.close()
