"""A dbt run told by a webhook: who sent it, what became of the run, and which syncs hear of it.

dbt's platform signs the body with HMAC-SHA256 under the webhook's secret. The hexadecimal digest is the whole of
the header `Authorization` (docs.getdbt.com, "Webhooks for your jobs"). It sends each event up to five times.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import structlog

from sync.daemon.dbt import HEARD
from sync.engine.job import SyncJob
from sync.state.base import State

__all__ = ["MOST_BYTES", "Answer", "Webhooks"]

log = structlog.get_logger("headgate.daemon")

MOST_BYTES = 64 * 1024
_OLDEST_S = 7 * 86400.0
_SUCCESS = 10  # dbt's `runStatusCode`
_ID = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender is told: an HTTP status and a sentence; and the syncs that will be asked for."""

    status: int
    message: str
    syncs: tuple[str, ...] = ()


class Webhooks:
    """`jobs` has the project's syncs by name; `secret` gives a webhook's secret, None where there is none."""

    def __init__(
        self, state: State, jobs: Callable[[], Mapping[str, SyncJob]], secret: Callable[[str], str | None]
    ) -> None:
        self._state, self._jobs, self._secret = state, jobs, secret

    def receive(self, name: str, signature: str | None, body: bytes) -> Answer:
        """Judge an event, and leave word of the run for the syncs that wait for this webhook.

        `signature` is the header `Authorization`. An event that is told again asks for nothing again. Raises
        `HeadgateError` where the secret or the ledger cannot be read.
        """
        if len(body) > MOST_BYTES:
            return Answer(413, "the body is longer than any event of dbt's")
        secret = self._secret(name)
        if secret is None:
            return Answer(404, "there is no such webhook")
        if not _is_signed(secret, signature or "", body):
            return Answer(401, "the signature is not that of the body")
        try:
            event = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Answer(400, "the body is no JSON")
        return self._judge(name, event)

    def _judge(self, name: str, event: Any) -> Answer:
        told = event.get("data") if isinstance(event, dict) else None
        if not isinstance(told, dict) or not isinstance(event.get("eventType"), str):
            return Answer(400, "the body is no event of dbt's")
        if event["eventType"] != "job.run.completed":
            return Answer(200, "only `job.run.completed` asks for runs")
        run, job = str(told.get("runId", "")), str(told.get("jobId", ""))
        if not _ID.match(run) or not _ID.match(job):
            return Answer(400, "the event has no `runId` and `jobId`")
        if told.get("runStatusCode") != _SUCCESS:
            log.warning("dbt_run_failed", webhook=name, run=run, job=job, why="the run did not succeed")
            return Answer(200, "the run did not succeed, so nothing is asked for")
        if self._is_old(event.get("timestamp")):
            return Answer(200, "the event is older than a week, so nothing is asked for")
        heard = tuple(self._tell(name, job, run))
        return Answer(200, f"{len(heard)} syncs heard of it", heard)

    def _is_old(self, timestamp: Any) -> bool:
        """An event may be recorded and sent again; one without a time is as old as can be."""
        try:
            at = datetime.fromisoformat(timestamp)
        except (TypeError, ValueError):
            return True
        at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
        return self._state.now() - at.timestamp() > _OLDEST_S

    def _tell(self, name: str, dbt_job: str, run: str) -> Iterator[str]:
        for sync, job in self._jobs().items():
            dbt = job.sync.schedule.dbt if job.sync.schedule is not None else None
            if dbt is None or dbt.webhook != name or (dbt.jobs and dbt_job not in dbt.jobs):
                continue
            heard = f"{name}/{run}"
            while (before := self._state.note(sync, HEARD)) != heard:
                if self._state.notice(sync, HEARD, before, heard):
                    break
            yield sync


def _is_signed(secret: str, signature: str, body: bytes) -> bool:
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), signature.strip().lower().encode())
