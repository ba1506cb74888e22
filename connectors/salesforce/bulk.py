"""Jobs of Bulk API 2.0: a CSV file of records goes in, and three of results come out."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Literal
from urllib.parse import quote

import httpx
from pydantic import Field as Option

from connectors.salesforce.answers import BOTH, LATER, SILENT
from connectors.salesforce.session import Session, plain
from connectors.salesforce.soql import ID, is_id
from sync.errors import ProtocolError
from sync.sdk.answer import Shape, read
from sync.sdk.nouns import Batch, Change, Job, Outcome, Receipt, Status
from sync.sdk.values import text
from sync.sdk.wire import MAX_ANSWER

__all__ = ["begin", "poll"]

_JOBS = "/jobs/ingest"
_LONGEST = 60.0  # seconds between two polls
_OVER = ("JobComplete", "Failed", "Aborted")
_RESULTS = {"successfulResults": "sf__Id", "failedResults": "sf__Error", "unprocessedrecords": ""}
_GONE = "Salesforce does not have the job any more: it keeps them for seven days"

# A result repeats a record that was refused because a field was too long; csv would stop at 128 KiB of it.
csv.field_size_limit(MAX_ANSWER)


class _Info(Shape):
    id: str = Option(pattern=f"^{ID}$")
    state: Literal["Open", "UploadComplete", "InProgress", "Aborted", "JobComplete", "Failed"]
    why: str | None = Option(None, alias="errorMessage")


def begin(session: Session, kind: str, key: str, changes: Sequence[Change]) -> Job:
    """Make a job that upserts records by the field `key`, give it its rows, and let it begin."""
    form = {"contentType": "CSV", "lineEnding": "LF", "columnDelimiter": "COMMA"}
    body = {"object": kind, "operation": "upsert", "externalIdFieldName": key, **form}
    job = read(_Info, session.send("POST", _JOBS, body))
    path = f"{_JOBS}/{job.id}"
    rows, headers = _file(key, changes), {"Content-Type": "text/csv"}
    taken = session.http.put(f"{session.data}{path}/batches", content=rows, headers=headers).status_code == 201
    closed = read(_Info, session.send("PATCH", path, {"state": "UploadComplete" if taken else "Aborted"}))
    if not taken or closed.id != job.id or closed.state in ("Open", "Aborted"):
        raise ProtocolError("Salesforce did not take the job's rows")
    return Job(job.id)


def poll(session: Session, key: str, job: Job, batch: Batch) -> Outcome:
    """Ask for the job's state; once it is over, read what became of its rows, which are told apart by `key`."""
    url = f"{session.data}{_JOBS}/{quote(job.id, safe='')}"
    response = session.http.get(url, extensions={"expects": frozenset({404})})
    if response.status_code == 404:
        return [Receipt(change.key, Status.UNKNOWN, _GONE) for change in batch.changes]
    info = read(_Info, response)
    if info.id != job.id:
        raise ProtocolError("Salesforce answered for another job")
    if info.state not in _OVER:
        return Job(job.id, job.data, poll_after=min(job.poll_after * 1.5, _LONGEST))
    told: dict[str, list[Receipt]] = {}
    for name, column in _RESULTS.items():
        for row in _table(session.http.get(f"{url}/{name}"), {key, column} - {""}):
            told.setdefault(row[key], []).append(_outcome(name, row, info.why))
    return [_only(change.key, told.get(text(change.identifiers[key]), [])) for change in batch.changes]


def _file(key: str, changes: Sequence[Change]) -> bytes:
    names = [key, *dict.fromkeys(name for c in changes for name in c.fields if name != key)]
    file = io.StringIO()
    writer = csv.DictWriter(file, names, lineterminator="\n")
    writer.writeheader()
    for change in changes:
        cells = {name: text(plain(value)) or "#N/A" for name, value in change.fields.items()}
        writer.writerow(cells | {key: text(change.identifiers[key])})
    return file.getvalue().encode("utf-8", "replace")


def _table(response: httpx.Response, needed: set[str]) -> list[dict[str, str]]:
    """The rows of a result. Raises `ProtocolError` where it is no whole CSV with the columns that are `needed`."""
    rows = csv.DictReader(io.StringIO(response.text, newline=""), strict=True)
    try:
        found = list(rows)
        whole = needed <= set(rows.fieldnames or ()) and all(None not in (*row, *row.values()) for row in found)
    except csv.Error:
        whole = False
    if not whole:
        raise ProtocolError("a job's results are not the CSV they should be", response.text)
    return found


def _outcome(name: str, row: Mapping[str, str], why: str | None) -> Receipt:
    """The receipt of a row, without a key."""
    if name == "successfulResults":
        id = row["sf__Id"]
        return Receipt("", Status.APPLIED, remote_id=id) if is_id(id) else Receipt("", Status.UNKNOWN, SILENT)
    if name == "failedResults":
        status = Status.DEFERRED if row["sf__Error"].startswith(LATER) else Status.REJECTED
        return Receipt("", status, row["sf__Error"][:500] or "Salesforce gave no reason")
    reason = f"the job ended before it came to this record: {why or 'Salesforce gave no reason'}"
    return Receipt("", Status.DEFERRED, reason[:500])


def _only(key: str, told: Sequence[Receipt]) -> Receipt:
    if len(told) != 1:
        return Receipt(key, Status.UNKNOWN, BOTH if told else SILENT)
    return Receipt(key, told[0].status, told[0].reason, told[0].remote_id)
