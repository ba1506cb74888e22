"""Connectors for the sink with what the webhook has not: jobs that are polled, and an object that takes no keys.

Found by the command through an entry point of a distribution that `install` writes.
"""

from __future__ import annotations

from pathlib import Path

import httpx

from connectors.webhook import Webhook, WebhookConfig
from sync.sdk.connector import Connector
from sync.sdk.nouns import Batch, Job, Limits, ObjectSpec, Op, Outcome, Receipt, Status


def _object(*, idempotent: bool) -> ObjectSpec:
    limits = Limits(batch_size=20, concurrency=2)
    return ObjectSpec(
        "record", "Record", frozenset(Op), limits=limits, open_fields=True, audience=False, idempotent=idempotent
    )


class Jobs(Connector[WebhookConfig]):
    """Posts like the webhook, and is told a job, which is done when it is asked about the second time."""

    name = "crash_jobs"
    title = "Jobs"
    config_model = WebhookConfig
    objects = {"record": _object(idempotent=True)}  # noqa: RUF012

    @classmethod
    def base_url(cls, config: WebhookConfig) -> str:
        return config.url

    def check(self) -> None:
        self.http.get(self.config.url)

    def push(self, batch: Batch) -> Outcome:
        self.http.send(Webhook(self.config, self.http).request(batch))
        return Job(batch.id, {"asked": 0}, poll_after=0.0)

    def poll(self, job: Job, batch: Batch) -> Outcome:
        self.http.send(httpx.Request("GET", self.config.url))
        asked = int(job.data["asked"] or 0) + 1
        if asked < 2:
            return Job(job.id, {"asked": asked}, poll_after=0.0)
        return [Receipt(change.key, Status.APPLIED) for change in batch.changes]


class SlowJobs(Jobs):
    """Is done when it is asked about the fourth time, and says to ask once a second."""

    name = "crash_slow_jobs"
    title = "Slow jobs"

    def push(self, batch: Batch) -> Outcome:
        self.http.send(Webhook(self.config, self.http).request(batch))
        return Job(batch.id, {"asked": 0}, poll_after=1.0)

    def poll(self, job: Job, batch: Batch) -> Outcome:
        self.http.send(httpx.Request("GET", self.config.url))
        asked = int(job.data["asked"] or 0) + 1
        if asked < 4:
            return Job(job.id, {"asked": asked}, poll_after=1.0)
        return [Receipt(change.key, Status.APPLIED) for change in batch.changes]


class Counter(Webhook):
    """The same requests to an object where sending a batch twice does not have the effect of one."""

    name = "crash_counter"
    title = "Counter"
    objects = {"record": _object(idempotent=False)}  # noqa: RUF012

    def __init__(self, config: WebhookConfig, http: httpx.Client) -> None:
        super().__init__(config, http)
        self.objects = Counter.objects


_ENTRY_POINTS = """\
[headgate.connectors]
crash_jobs = tests.crash.plugin:Jobs
crash_slow_jobs = tests.crash.plugin:SlowJobs
crash_counter = tests.crash.plugin:Counter
"""


def install(folder: Path) -> Path:
    """Write the distribution into a folder that is then to be on the path, and return the folder."""
    info = folder / "headgate_crash-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: headgate-crash\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)
    return folder
