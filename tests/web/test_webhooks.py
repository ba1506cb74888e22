"""dbt's platform tells a daemon that a job ended: over HTTP, signed, and a run follows."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from tests.acceptance.project import Project
from tests.acceptance.sink import Sink
from tests.web.test_daemon import address_of

SECRET = "a secret of dbt's"
RAN = re.compile(r'"event": ?"run"')
WEBHOOK = '[webhooks.cloud]\nsecret = "env:DBT_SECRET"\n'


def event() -> bytes:
    data = {"jobId": "278164", "runId": "155144666", "runStatus": "Success", "runStatusCode": 10}
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.06660617Z"
    return json.dumps({"eventType": "job.run.completed", "timestamp": at, "data": data}).encode()


def send(url: str, body: bytes, secret: str = SECRET, name: str = "cloud") -> httpx.Response:
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return httpx.post(f"{url}/webhooks/{name}", content=body, headers={"Authorization": signature})


def test_a_signed_event_runs_the_sync_and_any_other_is_refused(tmp_path: Path, sink: Sink) -> None:
    schedule = "    schedule: { dbt: { webhook: cloud } }\n"
    project = Project(tmp_path / "project", sink.url, extra=WEBHOOK, more=schedule)
    project.environment = {"DBT_SECRET": SECRET}
    project.write().people(5).first_run()
    daemon = project.start("daemon", "--listen", "127.0.0.1:0")
    url = address_of(daemon)
    told = event()

    refused = [
        send(url, told, secret="guessed"),
        send(url, told, name="other"),
        send(url, b"[]"),
        send(url, b"x" * 99_000),
    ]
    first, again = send(url, told), send(url, told)
    deadline = time.monotonic() + 30
    while not RAN.search(daemon._err.read_text()):
        assert time.monotonic() < deadline, daemon._err.read_text()
        time.sleep(0.1)
    daemon.terminate()
    log = daemon.wait(30).err

    assert [(r.status_code, problem(r)) for r in refused] == [
        (401, "HG814"), (404, "HG806"), (400, "HG803"), (413, "HG808")
    ]  # fmt: skip
    assert (first.status_code, first.json()["syncs"], again.status_code) == (200, ["sink-vip"], 200)
    assert len(RAN.findall(log)) == 1
    assert log.count("dbt-cloud-155144666") == 1
    assert SECRET not in log


def problem(answer: httpx.Response) -> Any:
    return answer.json()["code"]
