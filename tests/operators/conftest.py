"""A real daemon with its API, and a project whose first run waits for a person."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink, running

SYNC = "sink-vip"


@dataclass
class Served:
    """The daemon's address, and tokens: one that asks, one that decides."""

    url: str
    token: str
    approves: str
    sink: Sink


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with running(folder / "sink.jsonl") as sink:
        project = Project(folder / "project", sink.url).write().people(40)
        tokens = []
        for name, scopes in {"asks": ("read", "run"), "decides": ("read", "approve")}.items():
            words = [word for scope in scopes for word in ("--scope", scope)]
            tokens.append(str(project.headgate("token", "create", name, *words, "--json").json["token"]))
        daemon = project.start("daemon", "--listen", "127.0.0.1:0")
        deadline = time.monotonic() + 60
        while (found := re.search(r'"address": ?"([^"]+)"', daemon._err.read_text())) is None:
            assert time.monotonic() < deadline, daemon._err.read_text()
            time.sleep(0.05)
        try:
            yield Served(f"http://{found[1]}", *tokens, sink)
        finally:
            daemon.terminate()
            daemon.wait(600)  # since it was started


def approve_what_is_held(served: Served) -> None:
    """Decide as a person would, by another token."""
    headers = {"Authorization": f"Bearer {served.approves}"}
    with httpx.Client(base_url=f"{served.url}/api/v1", headers=headers) as http:
        (plan,) = http.get("/plans", params={"status": "held"}).json()["items"]
        decision = {"digest": plan["digest"], "reason": "the first run is right"}
        http.post(f"/plans/{plan['plan']}/approve", json=decision).raise_for_status()
        deadline = time.monotonic() + 30
        while http.get(f"/plans/{plan['plan']}").json()["status"] != "executed":
            assert time.monotonic() < deadline
            time.sleep(0.05)
