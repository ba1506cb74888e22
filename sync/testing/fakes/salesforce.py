"""A Salesforce org in memory: contacts, leads, campaigns and their members, as far as the connector uses them.

It answers in the shapes of Salesforce's REST API and Bulk API 2.0 guides. What is from memory: the codes and words
of errors, and what a bulk job makes of empty cells.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qs

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route
from sync.testing.fakes.sobjects import (
    FIELDS,
    FIXED,
    LONGEST,
    PREFIXES,
    READ_ONLY,
    Json,
    described,
    failed,
    is_id,
    kept,
    refusal,
    with_suffix,
)
from sync.testing.fakes.soql import Malformed, Query, parse

__all__ = ["FakeSalesforce", "ready"]

Refused = tuple[str, str]
_DATA = r"/services/data/v\d\d\.0"
_JOB = rf"{_DATA}/jobs/ingest/(\w+)"
_MOST, _ADDRESS, _FILE = 200, 16_384, 100_000_000


csv.field_size_limit(_FILE)


class FakeSalesforce(Fake):
    """Call it with a request, or serve it with `sync.testing.fakes.server.serve`.

    `records` has fields by id, by object; `fields` the types of fields, by object, and `required` those that a new
    record has to have. A job takes as many polls as `polls` says before it is over. `locked` has the ids of
    records that somebody else is writing. `page` is how many rows a page of a query has.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/services/oauth2/token", "_token"),
        ("GET", f"{_DATA}/query", "_query"),
        ("GET", rf"{_DATA}/query/([\w-]+)", "_more"),
        ("GET", rf"{_DATA}/sobjects/(\w+)/describe", "_describe"),
        ("POST", f"{_DATA}/composite/sobjects", "_insert"),
        ("PATCH", f"{_DATA}/composite/sobjects", "_update"),
        ("DELETE", f"{_DATA}/composite/sobjects", "_delete"),
        ("PATCH", rf"{_DATA}/composite/sobjects/(\w+)/(\w+)", "_upsert"),
        ("POST", f"{_DATA}/jobs/ingest", "_make_job"),
        ("GET", _JOB, "_job"),
        ("PATCH", _JOB, "_end_job"),
        ("PUT", f"{_JOB}/batches", "_upload"),
        ("GET", f"{_JOB}/(successfulResults|failedResults|unprocessedrecords)", "_results"),
    )

    def __init__(self, token: str = "session-1", *, rate: Rate | None = None, **options: Any) -> None:  # noqa: S107 - nobody's
        super().__init__(rate=rate, **options)
        self.token = token
        self.client = ("consumer-1", "secret-1")
        self.records: dict[str, dict[str, Json]] = {kind: {} for kind in FIELDS}
        self.fields = {kind: dict(fields) for kind, fields in FIELDS.items()}
        self.required = {"Contact": {"LastName"}, "Lead": {"LastName", "Company"}, "Campaign": {"Name"}}
        self.jobs: dict[str, Json] = {}
        self.polls = 2
        self.page = 2000
        self.locked: set[str] = set()
        self._made = 0
        self._cursors: dict[str, tuple[Query, list[Json]]] = {}

    def add(self, kind: str, **fields: Any) -> str:
        """A record that was there before; its id."""
        self._made += 1
        id = with_suffix(f"{PREFIXES[kind]}5g{self._made:010}")
        self.records.setdefault(kind, {})[id] = fields
        return id

    def members(self, campaign: str) -> dict[str, Json]:
        """A campaign's rows, by the id of their contact or lead."""
        rows = self.records["CampaignMember"].values()
        return {r.get("ContactId") or r["LeadId"]: r for r in rows if r["CampaignId"] == campaign}

    # -- who may ask, and how often

    def authorised(self, request: httpx.Request) -> bool:
        """The session's token; the token server asks for the client's credentials itself."""
        token = request.headers.get("authorization") == f"Bearer {self.token}"
        return token or request.url.path == "/services/oauth2/token"

    def unauthorised(self) -> httpx.Response:
        """As a session that is over."""
        return refusal(401, "INVALID_SESSION_ID", "Session expired or invalid")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - it does not say
        """403, and not a word on when to come back."""
        return refusal(403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever it was
        """What it says to any other address."""
        return refusal(404, "NOT_FOUND", "The requested resource does not exist")

    def rate_headers(self) -> Mapping[str, str]:
        """How much of the allowance is used."""
        if self.rate is None:
            return {}
        return {"Sforce-Limit-Info": f"api-usage={self.rate.requests - self.room}/{self.rate.requests}"}

    def _token(self, asked: Asked) -> httpx.Response:
        form = {name: values[0] for name, values in parse_qs(asked.request.content.decode()).items()}
        if form.get("grant_type") != "client_credentials":
            return httpx.Response(400, json={"error": "unsupported_grant_type"})
        if (form.get("client_id"), form.get("client_secret")) != self.client:
            return httpx.Response(400, json={"error": "invalid_client", "error_description": "invalid client"})
        url = f"https://{asked.request.url.host}"
        return httpx.Response(
            200,
            json={"access_token": self.token, "instance_url": url, "token_type": "Bearer", "issued_at": "0"},
        )

    # -- reading

    def _query(self, asked: Asked) -> httpx.Response:
        if len(str(asked.request.url)) > _ADDRESS:
            return refusal(414, "URI_TOO_LONG", "URI Too Long")
        try:
            query = parse(asked.params.get("q", ""))
        except Malformed as exc:
            return refusal(400, "MALFORMED_QUERY", str(exc))
        if query.kind not in self.records:
            return refusal(400, "INVALID_TYPE", f"sObject type '{query.kind}' is not supported.")
        unknown = [name for name in query.columns if not self._column(query.kind, name)]
        if unknown:
            return refusal(400, "INVALID_FIELD", f"No such column '{unknown[0]}' on entity '{query.kind}'.")
        for column, values in query.where:
            bad = [v for v in values if column.endswith("Id") and column != "External_Id__c" and not is_id(v)]
            if bad:
                return refusal(400, "INVALID_QUERY_FILTER_OPERATOR", "invalid ID field: " + str(bad[0]))
        rows = [row for id, one in sorted(self.records[query.kind].items()) if query.fits(row := one | {"Id": id})]
        return self._rows(query, rows[: query.limit], 0)

    def _column(self, kind: str, name: str) -> bool:
        known = {*self.fields[kind], "Id"}
        parent, _, inner = name.partition(".")
        return name in known or (bool(inner) and f"{parent}Id" in known and inner in self.fields.get(parent, {}))

    def _more(self, asked: Asked) -> httpx.Response:
        locator, _, start = asked.parts[0].rpartition("-")
        if locator not in self._cursors:
            return refusal(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
        query, rows = self._cursors[locator]
        return self._rows(query, rows, int(start))

    def _rows(self, query: Query, rows: list[Json], start: int) -> httpx.Response:
        part = [self._row(query, row) for row in rows[start : start + self.page]]
        page: Json = {"totalSize": len(rows), "done": start + len(part) >= len(rows), "records": part}
        if not page["done"]:
            locator = f"01g5g{len(self._cursors):010}AAA"
            self._cursors[locator] = (query, rows)
            page["nextRecordsUrl"] = f"/services/data/v64.0/query/{locator}-{start + len(part)}"
        return httpx.Response(200, json=page)

    def _row(self, query: Query, row: Json) -> Json:
        url = f"/services/data/v64.0/sobjects/{query.kind}/{row['Id']}"
        shown: Json = {"attributes": {"type": query.kind, "url": url}}
        for name in query.shown:
            parent, _, inner = name.partition(".")
            if inner:
                other = self.records[parent].get(str(row.get(f"{parent}Id")))
                shown.setdefault(parent, None if other is None else {"attributes": {"type": parent}})
                if other is not None:
                    shown[parent][inner] = other.get(inner)
            else:
                shown[name] = row.get(name)
        return shown

    def _describe(self, asked: Asked) -> httpx.Response:
        kind = asked.parts[0]
        if kind not in self.fields:
            return refusal(404, "NOT_FOUND", "The requested resource does not exist")
        made = [described("Id", "id", required=False)]
        required = self.required.get(kind, set())
        made += [described(name, type, required=name in required) for name, type in self.fields[kind].items()]
        return httpx.Response(200, json={"name": kind, "fields": made})

    # -- writing

    def _collection(self, asked: Asked) -> list[Json] | httpx.Response:
        """The records of a request, or what is said to a request that is not well formed."""
        body = asked.body
        records = body.get("records") if isinstance(body, dict) else None
        if not isinstance(records, list) or not records:
            return refusal(400, "INVALID_INPUT", "Missing value for parameter: records")
        if len(records) > _MOST:
            return refusal(400, "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records")
        if any(one.get("attributes", {}).get("type") not in self.fields for one in records):
            return refusal(400, "INVALID_TYPE", "sObject type is not supported.")
        if any(isinstance(v, list | dict) for one in records for k, v in one.items() if k != "attributes"):
            return refusal(400, "JSON_PARSER_ERROR", "Cannot deserialize instance of a field from START_ARRAY")
        return records

    def _insert(self, asked: Asked) -> httpx.Response:
        return self._each(asked, lambda kind, fields: self._new(kind, fields))

    def _update(self, asked: Asked) -> httpx.Response:
        def change(kind: str, fields: Json) -> Json:
            id = str(fields.pop("Id", fields.pop("id", "")))
            if id not in self.records[kind]:
                return failed("INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id")
            return self._change(kind, id, fields)

        return self._each(asked, change)

    def _upsert(self, asked: Asked) -> httpx.Response:
        kind, key = asked.parts
        if kind not in self.fields or not self._external(kind, key):
            return refusal(
                404, "NOT_FOUND", f"Provided external ID field does not exist or is not accessible: {key}"
            )
        records = self._collection(asked)
        if isinstance(records, httpx.Response):
            return records
        put = self._upserting(kind, key, records)
        return self._each(asked, lambda of, fields: put(fields if of == kind else {"Id": of}))

    def _external(self, kind: str, key: str) -> bool:
        return key in self.fields[kind] and key.endswith("External_Id__c")

    def _upserting(self, kind: str, key: str, records: Iterable[Json]) -> Callable[[Json], Json]:
        """What upserts the fields of one of these records."""
        given = Counter(one.get(key) for one in records)
        known: dict[Any, list[str]] = {}
        for id, one in self.records[kind].items():
            known.setdefault(one.get(key), []).append(id)

        def put(fields: Json) -> Json:
            value = fields.get(key)
            if "Id" in fields or "id" in fields:
                return failed("INVALID_FIELD", "The Id field should not be specified in the sobject data.")
            if value in (None, ""):
                return failed("MISSING_ARGUMENT", f"{key} not specified")
            if given[value] > 1:
                return failed("DUPLICATE_VALUE", f"Duplicate external id specified: {value}")
            found = known.get(value, [])
            if len(found) > 1:
                return failed("DUPLICATE_EXTERNAL_ID", f"{key}: more than one record found for external id field")
            return {**self._change(kind, found[0], fields), "created": False} if found else self._new(kind, fields)

        return put

    def _each(self, asked: Asked, write: Any) -> httpx.Response:
        records = self._collection(asked)
        if isinstance(records, httpx.Response):
            return records
        made = [
            write(one["attributes"]["type"], {k: v for k, v in one.items() if k != "attributes"})
            for one in records
        ]
        return httpx.Response(200, json=made)

    def _new(self, kind: str, fields: Json) -> Json:
        missing = sorted(name for name in self.required.get(kind, ()) if fields.get(name) in (None, ""))
        if missing:
            return failed("REQUIRED_FIELD_MISSING", f"Required fields are missing: {missing}", missing)
        fields = fields | {name: self._whole(fields[name]) for name in FIXED & fields.keys()}
        if kind == "CampaignMember" and (refused := self._no_member(fields)):
            return failed(*refused)
        if refused := self._wrong(kind, fields):
            return failed(*refused)
        return {"id": self.add(kind, **kept(fields)), "success": True, "created": True, "errors": []}

    def _whole(self, id: Any) -> Any:
        """An id's 18 characters."""
        return with_suffix(id) if is_id(id) and len(id) == 15 else id

    def _no_member(self, fields: Json) -> Refused | None:
        person = fields.get("ContactId") or fields.get("LeadId")
        known = self.records["Contact"].keys() | self.records["Lead"].keys()
        if fields.get("CampaignId") not in self.records["Campaign"] or person not in known:
            return "INVALID_CROSS_REFERENCE_KEY", "invalid cross reference id"
        if person in self.members(str(fields["CampaignId"])):
            return "DUPLICATE_VALUE", "Already a campaign member."
        return (
            ("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
            if person in self.locked
            else None
        )

    def _change(self, kind: str, id: str, fields: Json) -> Json:
        if id in self.locked:
            return failed("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
        if fixed := FIXED & fields.keys():
            return failed("INVALID_FIELD_FOR_INSERT_UPDATE", f"Unable to create/update fields: {min(fixed)}.")
        if refused := self._wrong(kind, fields):
            return failed(*refused)
        self.records[kind][id] = kept(self.records[kind][id] | fields)
        return {"id": id, "success": True, "errors": []}

    def _wrong(self, kind: str, fields: Json) -> Refused | None:
        for name, value in fields.items():
            if name not in self.fields[kind] or name in READ_ONLY:
                return "INVALID_FIELD", f"No such column '{name}' on sobject of type {kind}"
            if isinstance(value, str) and len(value) > LONGEST.get(name, 131_072):
                return "STRING_TOO_LONG", f"{name}: data value too large"
            if self.fields[kind][name] == "email" and value and "@" not in str(value):
                return "INVALID_EMAIL_ADDRESS", f"{name}: invalid email address"
        return None

    def _delete(self, asked: Asked) -> httpx.Response:
        ids = asked.params.get("ids", "").split(",")
        if len(ids) > _MOST:
            return refusal(400, "EXCEEDED_ID_LIMIT", "record limit reached. cannot submit more than 200 records")
        return httpx.Response(200, json=[self._gone(id) for id in ids])

    def _gone(self, id: str) -> Json:
        if not is_id(id):
            return failed("MALFORMED_ID", f"malformed id {id}")
        if id in self.locked:
            return failed("UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
        kind = next((kind for kind, records in self.records.items() if id in records), None)
        if kind is None:
            return failed("ENTITY_IS_DELETED", "entity is deleted")
        del self.records[kind][id]
        return {"id": id, "success": True, "errors": []}

    # -- jobs

    def _make_job(self, asked: Asked) -> httpx.Response:
        body = asked.body
        kind, key = body.get("object"), body.get("externalIdFieldName", "")
        if body.get("operation") != "upsert" or kind not in self.fields or not self._external(kind, key):
            return refusal(400, "INVALIDJOB", "the job needs an object, an operation and an external id field")
        self._made += 1
        id = with_suffix(f"750XY{self._made:010}")
        self.jobs[id] = {"id": id, "object": kind, "operation": "upsert", "state": "Open"}
        self.jobs[id] |= {"externalIdFieldName": key, "contentType": "CSV", "columnDelimiter": "COMMA", "left": 0}
        return httpx.Response(200, json=_public(self.jobs[id]))

    def _upload(self, asked: Asked) -> httpx.Response:
        job = self.jobs.get(asked.parts[0])
        if job is None or job["state"] != "Open" or "rows" in job:
            return refusal(400, "INVALIDJOBSTATE", "the job takes no data")
        kind = asked.request.headers.get("content-type", "").partition(";")[0]
        if kind != "text/csv" or len(asked.request.content) > _FILE:
            return refusal(400, "INVALIDBATCH", "send a CSV file of at most 100 MB")
        job["rows"] = list(csv.DictReader(io.StringIO(asked.request.content.decode(), newline="")))
        return httpx.Response(201)

    def _end_job(self, asked: Asked) -> httpx.Response:
        job = self.jobs.get(asked.parts[0])
        if job is None or asked.body.get("state") not in ("UploadComplete", "Aborted"):
            return refusal(404 if job is None else 400, "INVALIDJOBSTATE", "the job cannot be put into that state")
        if "rows" not in job and asked.body["state"] == "UploadComplete":
            return refusal(400, "INVALIDJOBSTATE", "the job has no data")
        job |= {"state": asked.body["state"], "left": self.polls, "done": [], "failed": [], "rest": []}
        if job["state"] == "Aborted":
            job["rest"] = job.get("rows", [])
        return httpx.Response(200, json=_public(job))

    def _job(self, asked: Asked) -> httpx.Response:
        job = self.jobs.get(asked.parts[0])
        if job is None:
            return refusal(404, "NOT_FOUND", "The requested resource does not exist")
        if job["state"] in ("UploadComplete", "InProgress"):
            job["left"] -= 1
            job["state"] = "InProgress"
            if job["left"] < 0:
                self._work(job)
        return httpx.Response(200, json=_public(job))

    def _work(self, job: Job) -> None:
        kind, key = job["object"], job["externalIdFieldName"]
        put = self._upserting(kind, key, job["rows"])
        for row in job["rows"]:
            fields = {name: None if cell == "#N/A" else cell for name, cell in row.items() if cell != ""}
            made = put(fields)
            if made["success"]:
                created = "true" if made.get("created") else "false"
                job["done"].append({"sf__Id": made["id"], "sf__Created": created, **row})
            else:
                (error,) = made["errors"]
                said = f"{error['statusCode']}:{error['message']}:{' '.join(error['fields'])} --"
                job["failed"].append({"sf__Id": "", "sf__Error": said, **row})
        job["state"] = "JobComplete"

    def _results(self, asked: Asked) -> httpx.Response:
        job = self.jobs.get(asked.parts[0])
        if job is None or job["state"] not in ("JobComplete", "Failed", "Aborted"):
            return refusal(400, "INVALIDJOBSTATE", "the job is not over")
        name = asked.parts[1]
        rows, first = {
            "successfulResults": (job["done"], ["sf__Id", "sf__Created"]),
            "failedResults": (job["failed"], ["sf__Id", "sf__Error"]),
            "unprocessedrecords": (job["rest"], []),
        }[name]
        file = io.StringIO()
        writer = csv.DictWriter(file, [*first, *(job["rows"][0] if job["rows"] else ())], quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
        return httpx.Response(200, text=file.getvalue(), headers={"Content-Type": "text/csv"})


Job = Json


def _public(job: Job) -> Json:
    shown = {"id": job["id"], "state": job["state"]}
    if job["state"] == "Open":
        shown["contentUrl"] = f"services/data/v64.0/jobs/ingest/{job['id']}/batches"
    if job.get("done") or job.get("failed"):
        shown["numberRecordsProcessed"] = len(job["done"]) + len(job["failed"])
        shown["numberRecordsFailed"] = len(job["failed"])
    return shown | ({"errorMessage": job["why"]} if "why" in job else {})


def ready() -> Ready:
    """An org with a campaign."""
    org = FakeSalesforce()
    campaign = org.add("Campaign", Name="Lapsed buyers")

    def members(object: str, audience: str) -> set[str]:
        if object == "campaign_member":
            return {org.records["Contact"][id]["Email"] for id in org.members(audience)}
        return {one["External_Id__c"] for one in org.records[object.capitalize()].values()}

    def know(object: str, people: Iterable[str]) -> None:
        for address in people if object == "campaign_member" else ():
            org.add("Contact", LastName="Buyer", Email=address)

    options = {"access_token": org.token}
    audiences = {"campaign_member": campaign}
    return Ready(org, lambda url: {"base_url": url, **options}, audiences, members=members, know=know)
