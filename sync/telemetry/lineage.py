"""Lineage: one START and one COMPLETE, ABORT or FAIL of OpenLineage for each run, sent beside it.

Needs the extra `openlineage`. Where to is said by the variables of its client (OPENLINEAGE_URL and others). A
server that does not answer delays nobody: events wait in a queue that is bounded, and are dropped past that.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from openlineage.client import OpenLineageClient
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import (
    RunFacet,
    column_lineage_dataset,
    documentation_job,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    output_statistics_output_dataset,
    ownership_job,
    schema_dataset,
)

from sync.codes import catalog
from sync.engine.job import SyncJob
from sync.project import Project
from sync.spans import Fact, Span
from sync.telemetry.datasets import DatasetName, read_by, written_by

__all__ = ["Lineage", "wanted"]

log = logging.getLogger("headgate.lineage")

PRODUCER = f"urn:headgate:{version('headgate')}"
_NAMESPACE = uuid.UUID("5b6f1c1e-7a63-5e0c-9f0a-2f4f6f1b8d11")
"""Of run ids: they are UUIDs there, and made of ours."""

_MOST = 1000  # events that wait
_LINGER_S = 3.0  # for what waits at the end
_QUIET_S = 60.0  # between two lines of the log about a server that does not answer

_STATES = {"failed": RunState.FAIL, "stopped": RunState.ABORT, "cancelled": RunState.ABORT}
_COUNTS = ("applied", "accepted", "rejected", "deferred", "unknown")


def wanted(environment: Mapping[str, str]) -> bool:
    """Do the variables say where to send lineage to."""
    if environment.get("OPENLINEAGE_DISABLED", "").lower() in ("true", "1"):
        return False
    named = ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG")
    return any(environment.get(one) for one in named) or any(n.startswith("OPENLINEAGE__") for n in environment)


class Lineage:
    """A watcher that tells of runs. `project` gives the project as it is in force."""

    def __init__(
        self,
        project: Callable[[], Project],
        environment: Mapping[str, str],
        client: OpenLineageClient | None = None,
    ) -> None:
        self._project = project
        self._job_namespace = environment.get("OPENLINEAGE_NAMESPACE") or "headgate"
        self._client = client or OpenLineageClient()
        self._begun: dict[Span, tuple[SyncJob, str]] = {}
        self._rows: dict[Span, int] = {}
        self._queue: queue.Queue[RunEvent | None] = queue.Queue(_MOST)
        self._warned = float("-inf")
        self._thread = threading.Thread(target=self._send, name="headgate-lineage", daemon=True)
        self._thread.start()

    # --- as a watcher -------------------------------------------------------------------------------------

    def begins(self, span: Span) -> None:
        """A run begins."""
        if span.kind != "run":
            return
        job = self._project().jobs([str(span.facts["sync"])], disabled=True)[0]
        self._begun[span] = job, str(uuid.uuid5(_NAMESPACE, str(span.facts["run"])))
        if not _polls(span):
            self._put(self._event(RunState.START, span))

    def ends(self, span: Span) -> None:
        """A run is over, or it is known how many rows its cohort has."""
        if span.kind == "phase" and span.parent in self._begun and "rows" in span.facts:
            self._rows[span.parent] = int(span.facts["rows"])
        elif span in self._begun:
            status = str(span.facts.get("status", "failed"))
            if _polls(span) and status != "waiting":
                self._put(self._event(RunState.START, span))
            if not _polls(span) or status != "waiting":
                self._put(self._event(_STATES.get(status, RunState.COMPLETE), span))
            self._begun.pop(span)
            self._rows.pop(span, None)

    def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
        """No event of its own."""

    def close(self) -> None:
        """Send what waits, for some seconds."""
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            return
        self._thread.join(_LINGER_S)

    # --- the event ----------------------------------------------------------------------------------------

    def _event(self, state: RunState, span: Span) -> RunEvent:
        job, id = self._begun[span]
        project = self._project()
        read, written = read_by(project, job), written_by(project, job)
        at = span.began / 1e9 if state is RunState.START else time.time()
        return RunEvent(
            eventType=state,
            eventTime=datetime.fromtimestamp(at, UTC).isoformat(),
            run=Run(id, _run_facets(span)),
            job=Job(self._job_namespace, job.name, _job_facets(job)),
            producer=PRODUCER,
            inputs=[_input(one, job, self._rows.get(span) if len(read) == 1 else None) for one in read],
            outputs=[_output(written, read, job, span)],
        )

    # --- sending ------------------------------------------------------------------------------------------

    def _put(self, event: RunEvent) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            self._warn("too many events wait; this one is dropped")

    def _send(self) -> None:
        while (event := self._queue.get()) is not None:
            try:
                self._client.emit(event)
            except Exception as error:  # noqa: BLE001 - whatever a transport raises, lineage ends no run
                self._warn(f"an event was not taken ({type(error).__name__})")

    def _warn(self, why: str) -> None:
        if time.monotonic() - self._warned >= _QUIET_S:
            self._warned = time.monotonic()
            log.warning("lineage is lost: %s; check OPENLINEAGE_URL and the server behind it", why)


def _polls(span: Span) -> bool:
    """Does it ask about a platform's jobs: as long as these are not done, that is not worth telling."""
    return span.facts.get("trigger") == "poll"


def _run_facets(span: Span) -> dict[str, Any]:
    """Our own names and counts; of an error its code and what that means, not the words, which may quote."""
    told = {name: span.facts[name] for name in ("run", "trigger", "status", *_COUNTS) if name in span.facts}
    facets: dict[str, Any] = {"headgate": RunFacet(producer=PRODUCER).with_additional_properties(**told)}
    if span.error:
        known = catalog().get(span.error)
        said = f"{span.error}: {known.title}" if known is not None else span.error
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(said, "PYTHON", producer=PRODUCER)
    return facets


def _job_facets(job: SyncJob) -> dict[str, Any]:
    cohort = job.cohort
    facets: dict[str, Any] = {
        "jobType": job_type_job.JobTypeJobFacet("BATCH", "HEADGATE", "SYNC", producer=PRODUCER)
    }
    words = "\n\n".join(text for text in (cohort.title, cohort.purpose, cohort.definition) if text)
    if words:
        facets["documentation"] = documentation_job.DocumentationJobFacet(words, producer=PRODUCER)
    if cohort.owner:
        owners = [ownership_job.Owner(cohort.owner, "OWNER")]
        facets["ownership"] = ownership_job.OwnershipJobFacet(owners, producer=PRODUCER)
    return facets


def _input(named: DatasetName, job: SyncJob, rows: int | None) -> InputDataset:
    mapped = [m.from_ for m in (*job.sync.identifiers, *job.sync.fields) if m.from_]
    columns = dict.fromkeys([job.cohort.source.key, *mapped])
    fields = [schema_dataset.SchemaDatasetFacetFields(column) for column in columns]
    facets: dict[str, Any] = {"schema": schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER)}
    counted = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(rowCount=rows, producer=PRODUCER)
    return InputDataset(
        named.namespace,
        named.name,
        facets=facets,
        inputFacets={} if rows is None else {"inputStatistics": counted},
    )


def _output(named: DatasetName, read: list[DatasetName], job: SyncJob, span: Span) -> OutputDataset:
    types = {field.name: field.type for field in job.spec.fields}
    mapped = (*job.sync.identifiers, *job.sync.fields)
    fields = [schema_dataset.SchemaDatasetFacetFields(m.to, types.get(m.to)) for m in mapped]
    facets: dict[str, Any] = {"schema": schema_dataset.SchemaDatasetFacet(fields, producer=PRODUCER)}
    if len(read) == 1:
        (source,) = read
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            {
                m.to: column_lineage_dataset.Fields(
                    [column_lineage_dataset.InputField(source.namespace, source.name, m.from_)]
                )
                for m in mapped
                if m.from_
            },
            producer=PRODUCER,
        )
    taken = [int(span.facts[name]) for name in ("applied", "accepted") if name in span.facts]
    counted = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
        rowCount=sum(taken), producer=PRODUCER
    )
    return OutputDataset(
        named.namespace, named.name, facets=facets, outputFacets={"outputStatistics": counted} if taken else {}
    )
