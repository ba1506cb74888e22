"""Traces and lineage of real runs of the command, sent to servers on the loopback."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import jsonschema
import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sync.testing.fakes.server import serve
from tests.acceptance import openlineage
from tests.acceptance.project import Project

EMAIL = "@mail.example"


@dataclass
class Collector:
    """Takes spans as OTLP over HTTP has them, and lineage events."""

    spans: list[dict[str, Any]] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    url: str = ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        if request.url.path == "/v1/traces":
            self._traces(request.content)
            return httpx.Response(200, headers={"content-type": "application/x-protobuf"})
        assert request.url.path == "/api/v1/lineage"
        self.events.append(orjson.loads(request.content))
        return httpx.Response(201)

    def _traces(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resource |= _values(resource.resource.attributes)
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                told = {
                    "name": span.name,
                    "id": span.span_id,
                    "parent": span.parent_span_id,
                    "trace": span.trace_id,
                    "failed": span.status.code == 2,
                    "took": span.end_time_unix_nano - span.start_time_unix_nano,
                }
                self.spans.append(told | _values(span.attributes))

    @property
    def environment(self) -> dict[str, str]:
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OPENLINEAGE_URL": self.url}

    def named(self, *names: str) -> list[dict[str, Any]]:
        return [span for span in self.spans if span["name"] in names]


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()
    with serve(collector) as url:
        collector.url = url
        yield collector


def test_a_run_is_traced_and_told_to_lineage_as_the_environment_asks(project: Project) -> None:
    project.people(250)
    with collecting() as collector:
        project.environment = {**collector.environment, "OTEL_SERVICE_NAME": "reverse-etl"}
        done = project.first_run()
    run = str(project.headgate("status", "--json").json["syncs"][0]["last_run"]["run"])

    assert collector.resource["service.name"] == "reverse-etl"
    (root,) = collector.named("run")
    assert (root["parent"], root["failed"]) == (b"", False)
    assert (root["headgate.sync"], root["headgate.run"], root["headgate.applied"]) == ("sink-vip", run, 250)
    phases = collector.named("refresh", "diff", "guard", "deliver", "record")
    assert [p["name"] for p in phases] == ["refresh", "diff", "guard", "deliver", "record"]
    assert {p["parent"] for p in phases} == {root["id"]}
    batches = collector.named("batch")
    assert sorted(b["headgate.records"] for b in batches if b["parent"] == phases[3]["id"]) == [50, 100, 100]
    requests = collector.named("POST")
    assert {r["parent"] for r in requests} == {b["id"] for b in batches}
    assert {r["headgate.batch"] for r in requests} == {b["headgate.batch"] for b in batches}
    assert {(r["http.response.status_code"], r["server.address"]) for r in requests} == {(200, "127.0.0.1")}
    assert {s["trace"] for s in collector.spans} == {root["trace"]}
    assert {s["headgate.run"] for s in collector.spans} == {run}
    assert all(s["took"] > 0 for s in collector.spans)

    start, complete = collector.events
    for event in collector.events:
        openlineage.refuse(event)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert (complete["job"]["namespace"], complete["job"]["name"]) == ("headgate", "sink-vip")
    assert complete["job"]["facets"]["ownership"]["owners"] == [
        {"name": "lifecycle@acme.example", "type": "OWNER"}
    ]
    assert "Everybody in the table." in complete["job"]["facets"]["documentation"]["description"]
    assert complete["run"]["facets"]["headgate"]["run"] == run
    (read,), (written,) = complete["inputs"], complete["outputs"]
    warehouse = (project.root / "warehouse.duckdb").resolve()
    assert (read["namespace"], read["name"]) == (f"duckdb://{warehouse}", "main.vip_cohort")
    assert read["inputFacets"]["inputStatistics"]["rowCount"] == 250
    assert (written["namespace"], written["name"]) == ("webhook://sink", "record")
    assert written["outputFacets"]["outputStatistics"]["rowCount"] == 250
    assert [f["name"] for f in written["facets"]["schema"]["fields"]][:2] == ["user_id", "email"]
    lineage = written["facets"]["columnLineage"]["fields"]["email"]["inputFields"]
    assert lineage == [
        {"namespace": read["namespace"], "name": read["name"], "field": "email", "transformations": []}
    ]
    assert not any(EMAIL.encode() in body or b"person1" in body for body in collector.bodies)
    assert done.sync["requests"] == len(requests) == 3


@pytest.mark.slow
def test_a_run_that_fails_says_so_and_quotes_nothing(project: Project) -> None:
    project.sql("ALTER TABLE vip_cohort DROP COLUMN email")
    with collecting() as collector:
        project.environment = collector.environment
        done = project.run("--first-run")

    assert done.code == 1
    (root,) = collector.named("run")
    assert (root["failed"], root["error.type"]) == (True, done.sync["error"]["code"])
    start, fail = collector.events
    openlineage.refuse(fail)
    assert (start["eventType"], fail["eventType"]) == ("START", "FAIL")
    assert fail["run"]["facets"]["errorMessage"]["message"].startswith(done.sync["error"]["code"])


@pytest.mark.endless
def test_servers_that_are_gone_or_silent_neither_fail_nor_delay_a_run(project: Project) -> None:
    project.people(50)
    gone = "http://127.0.0.1:9"
    project.environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": gone, "OPENLINEAGE_URL": gone}
    done = project.run("--first-run", timeout=60)

    assert (done.code, done.sync["applied"]) == (0, 50)
    assert done.sync["wall_s"] < 10


@pytest.mark.parametrize("judge", [openlineage.refuse, openlineage.refuse_as_published])
def test_what_is_no_event_is_refused(judge: Callable[[dict[str, Any]], None]) -> None:
    if judge is openlineage.refuse_as_published and not openlineage.PUBLISHED.is_dir():
        pytest.skip("OpenLineage's published schemas are not here")
    with pytest.raises(jsonschema.ValidationError):
        judge({"eventType": "START", "eventTime": "2026-01-01T00:00:00Z"})
