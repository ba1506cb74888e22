"""Traces: a span a run, its phases, batches and requests, sent by OTLP over HTTP as the OTEL_* variables say.

Needs the extra `otel`. Nothing is sent to destinations, and no context is taken from anybody.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from sync.spans import Fact, Span

__all__ = ["Traces", "wanted"]

_LINGER_S = 3.0  # for what waits at the end

# Names of the semantic conventions for HTTP clients, where there are some.
_HTTP = {"method": "http.request.method", "host": "server.address", "status": "http.response.status_code"}


def wanted(environment: Mapping[str, str]) -> bool:
    """Do the variables ask for traces (opentelemetry.io, "OpenTelemetry Environment Variable Specification")."""
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "")
    named = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return exporter == "otlp" or (not exporter and any(environment.get(name) for name in named))


class Traces:
    """A watcher that makes spans of OpenTelemetry; a thread of its own sends them, and drops what is too much."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours = {"service.version": version("headgate")}
        if not environment.get("OTEL_SERVICE_NAME") and "service.name=" not in environment.get(_RESOURCE, ""):
            ours["service.name"] = "headgate"
        self._provider = TracerProvider(resource=Resource.create(ours), shutdown_on_exit=False)
        self._exporter = OTLPSpanExporter()
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("headgate", version("headgate"))
        self._open: dict[Span, trace.Span] = {}

    def begins(self, span: Span) -> None:
        """Begin it, under the one it is a part of."""
        above = self._open.get(span.parent) if span.parent is not None else None
        self._open[span] = self._tracer.start_span(
            _name(span),
            Context() if above is None else trace.set_span_in_context(above, Context()),
            trace.SpanKind.CLIENT if span.kind == "request" else trace.SpanKind.INTERNAL,
            _attributes(span, span.facts),
            start_time=span.began,
        )

    def ends(self, span: Span) -> None:
        """End it, with what was learnt and what went wrong."""
        ours = self._open.pop(span, None)
        if ours is None:  # it began before anybody watched
            return
        ours.set_attributes(_attributes(span, span.facts))
        status = span.facts.get("status")
        failed = span.error or (str(status) if span.kind == "request" and int(status or 0) >= 400 else "")
        if failed:
            ours.set_attribute("error.type", failed)
            ours.set_status(trace.Status(trace.StatusCode.ERROR, span.error))
        ours.end(span.ended)

    def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
        """An event of the span it happened in."""
        ours = self._open.get(span) if span is not None else None
        if ours is not None and span is not None:
            ours.add_event(name, _attributes(span, facts))

    def close(self) -> None:
        """Send what is left, for some seconds."""
        impatient = threading.Timer(_LINGER_S, self._exporter.shutdown)
        impatient.daemon = True
        impatient.start()
        self._provider.shutdown()
        impatient.cancel()


_RESOURCE = "OTEL_RESOURCE_ATTRIBUTES"


def _name(span: Span) -> str:
    """Of low cardinality, as the conventions ask: which batch or run it was stands in the attributes."""
    if span.kind == "request":
        return str(span.facts["method"])
    return str(span.facts["phase"]) if span.kind == "phase" else span.kind


def _attributes(span: Span, facts: Mapping[str, Fact]) -> dict[str, Any]:
    """Facts under their names, and of each span the run and batch it belongs to."""
    linked = {name: span.fact(name) for name in ("run", "sync", "batch")}
    said = {**{name: value for name, value in linked.items() if value is not None}, **facts}
    if span.kind != "request":
        return {f"headgate.{name}": value for name, value in said.items()}
    return {_HTTP.get(name, f"headgate.{name}"): value for name, value in said.items()}
