"""What probes and Prometheus are told by a daemon that works, and its log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed

from sync.telemetry.metrics import Metrics
from sync.telemetry.vitals import Pulse, Vitals
from sync.web.app import make_app
from sync.web.site import Site
from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.web.conftest import Api
from tests.web.test_daemon import address_of

OPEN = {"Accept": "application/openmetrics-text; version=1.0.0"}


def until(look: Callable[[], Any], seconds: float = 60) -> Any:
    """What it gives, once it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)
    return found


@pytest.mark.slow
def test_a_daemon_that_works_is_alive_and_ready_and_counts_and_logs_its_runs(tmp_path: Path, sink: Sink) -> None:
    project = Project(tmp_path / "p", sink.url, more="    schedule: { every: 1s }\n").write().people(20)
    project.first_run()
    project.more_people(21, 40)
    token = project.headgate("token", "create", "prometheus", "--scope", "read", "--json").json["token"]
    daemon = project.start("daemon", "--listen", "127.0.0.1:0")
    url = address_of(daemon)
    headers = {**OPEN, "Authorization": f"Bearer {token}"}

    def sent() -> dict[str, float]:
        page = httpx.get(f"{url}/metrics", headers=headers)
        found = {
            f"{sample.name} {' '.join(sample.labels.values())}".strip(): sample.value
            for family in parsed(page.text)
            for sample in family.samples
        }
        return found if found.get("headgate_runs_total completed sink-vip", 0) > 0 else {}

    found = until(sent)
    assert found["headgate_changes_total add applied sink-vip"] == 40
    assert found["headgate_requests_total sink"] == 1
    assert found["headgate_members sink-vip"] in (20, 60)  # the ledger is read every five seconds
    assert found["headgate_clock_late_seconds"] < 5
    assert time.time() - found["headgate_last_turn_timestamp_seconds"] < 30
    assert (httpx.get(f"{url}/healthz").status_code, httpx.get(f"{url}/readyz").status_code) == (200, 200)
    assert httpx.get(f"{url}/metrics").status_code == 401

    mapping = project.root / "mappings" / "vip.yaml"
    mapping.write_text(mapping.read_text().replace("mode: mirror", "mode: mirrored"))
    refused = until(lambda: r if (r := httpx.get(f"{url}/readyz")).status_code == 503 else None)
    assert [check["check"] for check in refused.json()["checks"] if not check["ok"]] == ["files"]
    assert httpx.get(f"{url}/healthz").status_code == 200

    daemon.terminate()
    done = daemon.wait(60)
    assert done.code == 0
    lines = [json.loads(line) for line in done.err.splitlines() if line.startswith("{")]
    (run,) = [line for line in lines if line["event"] == "run" and line.get("applied") == 40]
    assert run["sync"] == "sink-vip"
    assert run["run"] in {line["run"] for line in lines if line["event"] == "run"}
    assert "@mail.example" not in done.text


def test_metrics_are_for_tokens_that_see_every_sync_unless_they_are_open(api: Api) -> None:
    vitals = Vitals(api.ledger, api.daemon.clock, Pulse())
    metrics = Metrics(api.ledger, api.session.engine.folder, vitals, 30.0)

    def asked(token: str = "", *, open_metrics: bool = False) -> int:
        site = Site(
            api.ledger,
            api.ledger.access,
            api.session.engine,
            dict,
            vitals=vitals,
            metrics=metrics,
            open_metrics=open_metrics,
        )
        transport = httpx.ASGITransport(make_app(site))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return _status(transport, headers)

    assert asked() == 401
    assert asked(api.token("run")) == 403
    assert asked(api.token("read", syncs=["sink-vip"])) == 403
    assert asked(api.token("read")) == 200
    assert asked(open_metrics=True) == 200


def _status(transport: httpx.ASGITransport, headers: dict[str, str]) -> int:
    import asyncio

    async def ask() -> int:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            return (await client.get("/metrics")).status_code

    return asyncio.run(ask())
