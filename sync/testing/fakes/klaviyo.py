"""A Klaviyo account in memory: profiles, lists, and imports that take a while.

It answers in the shapes of Klaviyo's OpenAPI description (revision 2026-07-15). What that leaves open is marked.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeKlaviyo", "ready"]

Json = dict[str, Any]
_JSON = "application/vnd.api+json"
_HOST = "https://a.klaviyo.com"
_MOMENT = "2026-01-02T03:04:05+00:00"
_KINDS = ("email", "phone_number", "external_id")
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_PHONE = re.compile(r"\+[1-9]\d{6,14}")
_ROW = "/data/attributes/profiles/data/{}/attributes"


class FakeKlaviyo(Fake):
    """`profiles` has attributes by profile id, `lists` the member ids by list id.

    A job is `queued`, then `processing` for `slow` looks at it, then `complete`; its profiles are written when
    it is made. A profile whose identifiers are those of two people is an import error.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", "/api/lists", "_all_lists"),
        ("POST", "/api/lists", "_create"),
        ("GET", "/api/lists/([^/]+)/profiles", "_members"),
        ("DELETE", "/api/lists/([^/]+)/relationships/profiles", "_remove"),
        ("GET", "/api/profiles", "_find"),
        ("POST", "/api/profile-bulk-import-jobs", "_import"),
        ("GET", "/api/profile-bulk-import-jobs/([^/]+)", "_job"),
        ("GET", "/api/profile-bulk-import-jobs/([^/]+)/import-errors", "_errors"),
    )

    def __init__(
        self,
        api_key: str = "pk_test",
        *,
        rate: Rate | None = None,
        slow: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(rate=rate, clock=clock)
        self.api_key = api_key
        self.slow = slow
        self.profiles: dict[str, Json] = {}
        self.lists: dict[str, set[str]] = {}
        self.titles: dict[str, str] = {}
        self._jobs: dict[str, Json] = {}
        self._by: dict[tuple[str, str], set[str]] = {}

    # -- what was there before

    def add_list(self, title: str) -> str:
        """A list; its id."""
        id = f"LST{len(self.lists) + 1:03}"
        self.lists[id] = set()
        self.titles[id] = title
        return id

    def add_profile(self, **attributes: Any) -> str:
        """A profile; its id."""
        id = f"01PROFILE{len(self.profiles) + 1:06}"
        self.profiles[id] = {}
        self._write(id, attributes)
        return id

    def ids(self, kind: str, value: str) -> set[str]:
        """The profiles with this identifier."""
        return self._by.get((kind, value.lower()), set())

    # -- what every request meets

    def authorised(self, request: httpx.Request) -> bool:
        """The key, in the vendor's own scheme."""
        return bool(request.headers.get("authorization") == f"Klaviyo-API-Key {self.api_key}")

    def unauthorised(self) -> httpx.Response:
        """401."""
        return _error(401, "not_authenticated", "Missing or invalid private key.")

    def too_fast(self, wait: float) -> httpx.Response:
        """`Retry-After` instead of the usual headers."""
        answer = _error(429, "throttled", "Request was throttled.")
        answer.headers["Retry-After"] = str(math.ceil(wait))
        return answer

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - one answer for all
        """404."""
        return _error(404, "not_found", "There is no such path.")

    def rate_headers(self) -> Mapping[str, str]:
        """As the vendor's page on rate limits names them."""
        if self.rate is None:
            return {}
        window = math.ceil(self.rate.per)
        limit = f"{self.rate.requests}, {self.rate.requests};w={window}"
        return {"RateLimit-Limit": limit, "RateLimit-Remaining": str(self.room), "RateLimit-Reset": str(window)}

    def _route(self, request: httpx.Request) -> httpx.Response:
        if not re.fullmatch(r"\d{4}-\d\d-\d\d", request.headers.get("revision", "")):
            return _error(400, "invalid", "Missing or invalid `revision` header.")
        if request.content and request.headers.get("content-type") != _JSON:
            return _error(415, "unsupported_media_type", f"Send {_JSON}.")
        return super()._route(request)

    # -- lists

    def _all_lists(self, asked: Asked) -> httpx.Response:
        size = int(asked.params.get("page[size]", "10"))
        return _page("/api/lists", [self._list(id) for id in self.lists], size, asked)

    def _create(self, asked: Asked) -> httpx.Response:
        title = asked.body["data"]["attributes"]["name"]
        return _answer(201, {"data": self._list(self.add_list(title))})

    def _list(self, id: str) -> Json:
        attributes = {"name": self.titles[id], "created": _MOMENT, "updated": _MOMENT}
        return {"type": "list", "id": id, "attributes": attributes, "links": _links(f"/api/lists/{id}")}

    def _members(self, asked: Asked) -> httpx.Response:
        (id,) = asked.parts
        if id not in self.lists:
            return _error(404, "not_found", f"A list with id {id} does not exist.")
        people = [self._shown(one, asked, joined_group_at=_MOMENT) for one in sorted(self.lists[id])]
        return _page(f"/api/lists/{id}/profiles", people, int(asked.params.get("page[size]", "20")), asked)

    def _remove(self, asked: Asked) -> httpx.Response:
        """Whoever is not in the list is ignored; consent is left as it is."""
        (id,), data = asked.parts, asked.body["data"]
        if id not in self.lists:
            return _error(404, "not_found", f"A list with id {id} does not exist.")
        if len(data) > 1000:
            return _error(400, "invalid", "At most 1000 profiles in one request.", "/data")
        unknown = [one["id"] for one in data if one["id"] not in self.profiles]
        if unknown:
            return _error(404, "not_found", f"A profile with id {unknown[0]} does not exist.")
        self.lists[id] -= {one["id"] for one in data}
        return httpx.Response(204)

    # -- profiles

    def _find(self, asked: Asked) -> httpx.Response:
        size = int(asked.params.get("page[size]", "20"))
        if not 1 <= size <= 100:
            return _error(400, "invalid", "The page size is 1 to 100.")
        ids = sorted(self.profiles)
        if "filter" in asked.params:
            match = re.fullmatch(r"any\((email|phone_number|external_id),(\[.*\])\)", asked.params["filter"])
            values = _strings(match[2]) if match else None
            if match is None or values is None or len(values) > 100:  # the cap is from hearsay
                return _error(400, "invalid", "Invalid filter provided.")
            ids = sorted({id for value in values for id in self.ids(match[1], value)})
        return _page("/api/profiles", [self._shown(id, asked) for id in ids], size, asked)

    def _shown(self, id: str, asked: Asked, **more: str) -> Json:
        wanted = asked.params.get("fields[profile]", "").split(",")
        attributes = {k: v for k, v in self.profiles[id].items() if wanted == [""] or k in wanted} | more
        return {"type": "profile", "id": id, "attributes": attributes, "links": _links(f"/api/profiles/{id}")}

    def _write(self, id: str, attributes: Mapping[str, Any]) -> None:
        """Absent and null fields stay as they are; properties are merged."""
        mine = self.profiles[id]
        given = {k: v for k, v in attributes.items() if v is not None}
        properties = {**mine.get("properties", {}), **given.pop("properties", {})}
        location = {**mine.get("location", {}), **given.pop("location", {})}
        for kind in _KINDS:
            if kind in given:
                self.ids(kind, str(mine.get(kind, ""))).discard(id)
                self._by.setdefault((kind, str(given[kind]).lower()), set()).add(id)
        mine.update(given, properties=properties, location=location)

    # -- imports

    def _import(self, asked: Asked) -> httpx.Response:
        data = asked.body["data"]
        rows = data["attributes"]["profiles"]["data"]
        lists = [one["id"] for one in data.get("relationships", {}).get("lists", {}).get("data", [])]
        if len(rows) > 10_000 or len(asked.request.content) > 5_000_000:
            return _error(413 if len(rows) <= 10_000 else 400, "invalid", "Too much for one import.", "/data")
        if missing := [id for id in lists if id not in self.lists]:
            return _error(400, "invalid", f"List ID {missing[0]} does not exist.", "/data")
        problems = [(n, *problem) for n, row in enumerate(rows) if (problem := _malformed(row))]
        if problems:
            return _errors_answer(
                400, [_problem("invalid", words, f"{_ROW.format(n)}{at}") for n, at, words in problems]
            )
        id = f"job-{len(self._jobs) + 1}"
        failures = [f for n, row in enumerate(rows) if (f := self._take(n, row, lists))]
        self._jobs[id] = {"looks": 0, "total": len(rows), "failures": failures}
        return _answer(202, {"data": self._job_of(id, "queued")})

    def _take(self, number: int, row: Json, lists: list[str]) -> Json | None:
        """Write one profile; what went wrong where its identifiers are those of two."""
        attributes = row["attributes"]
        owners = set().union(*(self.ids(kind, str(attributes[kind])) for kind in _KINDS if attributes.get(kind)))
        if len(owners) > 1:
            words = "The identifiers belong to several profiles."
            error: Json = {"code": "duplicate_profile", "title": "Conflict.", "detail": words}
            error |= {"source": {"pointer": f"{_ROW.format(number)}"}, "original_payload": attributes}
            return {"type": "import-error", "id": f"error-{number}", "attributes": error}
        id = owners.pop() if owners else self.add_profile()
        self._write(id, attributes)
        for name in row.get("meta", {}).get("patch_properties", {}).get("unset") or []:
            self.profiles[id]["properties"].pop(name, None)
        for one in lists:
            self.lists[one].add(id)
        return None

    def _job(self, asked: Asked) -> httpx.Response:
        (id,) = asked.parts
        if id not in self._jobs:
            return _error(404, "not_found", f"A job with id {id} does not exist.")
        self._jobs[id]["looks"] += 1
        done = self._jobs[id]["looks"] > self.slow
        return _answer(200, {"data": self._job_of(id, "complete" if done else "processing")})

    def _job_of(self, id: str, status: str) -> Json:
        job = self._jobs[id]
        attributes = {"status": status, "created_at": _MOMENT, "total_count": job["total"]}
        if status == "complete":
            failed = len(job["failures"])
            attributes |= {"completed_count": job["total"] - failed, "failed_count": failed}
        links = _links(f"/api/profile-bulk-import-jobs/{id}")
        return {"type": "profile-bulk-import-job", "id": id, "attributes": attributes, "links": links}

    def _errors(self, asked: Asked) -> httpx.Response:
        (id,) = asked.parts
        if id not in self._jobs:
            return _error(404, "not_found", f"A job with id {id} does not exist.")
        path = f"/api/profile-bulk-import-jobs/{id}/import-errors"
        return _page(path, self._jobs[id]["failures"], int(asked.params.get("page[size]", "20")), asked)


def _malformed(row: Json) -> tuple[str, str] | None:
    """Where a profile is malformed, and how; Klaviyo says so of the request as a whole."""
    given = row["attributes"]
    if not any(given.get(kind) for kind in _KINDS):
        return "/", "One of email, phone_number and external_id is required."
    if given.get("email") and not _EMAIL.fullmatch(given["email"]):
        return "/email", "Invalid email address"
    if given.get("phone_number") and not _PHONE.fullmatch(given["phone_number"]):
        return "/phone_number", "Invalid phone number format"
    if len(json.dumps(row).encode()) > 100_000:
        return "", "The profile is larger than 100 KB."
    return None


def _strings(text: str) -> list[str] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return [str(one) for one in found]


def _page(path: str, everything: list[Json], size: int, asked: Asked) -> httpx.Response:
    start = int(asked.params.get("page[cursor]") or 0)
    links = {"self": f"{_HOST}{path}"}
    if start + size < len(everything):
        links["next"] = f"{_HOST}{path}?page%5Bcursor%5D={start + size}"
    return _answer(200, {"data": everything[start : start + size], "links": links})


def _links(path: str) -> Json:
    return {"self": f"{_HOST}{path}"}


def _answer(status: int, body: Json) -> httpx.Response:
    return httpx.Response(status, content=json.dumps(body).encode(), headers={"content-type": _JSON})


def _problem(code: str, detail: str, pointer: str = "") -> Json:
    problem = {"id": "6d7f9a3c-0000-4000-8000-000000000000", "code": code, "title": detail, "detail": detail}
    return problem | ({"source": {"pointer": pointer}} if pointer else {})


def _errors_answer(status: int, problems: list[Json]) -> httpx.Response:
    return _answer(status, {"errors": problems})


def _error(status: int, code: str, detail: str, pointer: str = "") -> httpx.Response:
    return _errors_answer(status, [_problem(code, detail, pointer)])


def ready() -> Ready:
    """An account with a list and somebody in it."""
    app = FakeKlaviyo(rate=Rate(10, 1.0))
    audience = app.add_list("Lapsed buyers")
    app.lists[audience].add(app.add_profile(email="ada@example.com", first_name="Ada"))

    def members(object: str, audience: str) -> set[str]:
        ids = app.profiles if object == "profile" else app.lists[audience]
        return {app.profiles[id]["email"] for id in ids}

    audiences = {"list_member": audience}
    return Ready(app, lambda url: {"api_key": app.api_key, "base_url": url}, audiences, members=members)
