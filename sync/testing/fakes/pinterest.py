"""A Pinterest ad account in memory: customer lists and the audiences made of them.

Answers have the shapes of Pinterest's OpenAPI description (v5). What it refuses, and in which words, is made up
where the description only says that there is an `Error`; the headers of the rate limit are from memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakePinterest", "ready"]

Json = dict[str, Any]
_ACCOUNT = "549755885175"
_TOKEN = "pina_test"  # noqa: S105 - nobody's
_DIGEST = re.compile(r"[0-9a-f]{64}|[0-9a-f]{40}|[0-9a-f]{32}")
_EMAIL = re.compile(r"[^\sA-Z,@]+@[^\sA-Z,@]+")
_MOST = 10_000
_ENOUGH = 100
_MADE = 1_700_000_000


class FakePinterest(Fake):
    """`lists` has the members' digests by list id, `audiences` what was made of lists. The whole of `fickle` lists
    get errors of the list as a whole."""

    routes: ClassVar[tuple[Route, ...]] = (
        ("GET", r"/v5/ad_accounts/(\d+)/customer_lists", "_page"),
        ("POST", r"/v5/ad_accounts/(\d+)/customer_lists", "_create"),
        ("PATCH", r"/v5/ad_accounts/(\d+)/customer_lists/([^/]+)", "_update"),
        ("POST", r"/v5/ad_accounts/(\d+)/audiences", "_target"),
    )

    def __init__(self, token: str = _TOKEN, account: str = _ACCOUNT, **options: Any) -> None:
        super().__init__(**options)
        self.token = token
        self.account = account
        self.lists: dict[str, set[str]] = {}
        self.audiences: dict[str, Json] = {}
        self.fickle: set[str] = set()
        self._counts: dict[str, Json] = {}

    def add_list(self, name: str) -> str:
        """A customer list that was there before; its id."""
        id = str(643 + len(self.lists))
        self.lists[id] = set()
        counts = {"num_batches": 1, "num_uploaded_user_records": 0, "num_removed_user_records": 0}
        self._counts[id] = {"name": name, **counts}
        return id

    def authorised(self, request: httpx.Request) -> bool:
        return bool(request.headers.get("authorization") == f"Bearer {self.token}")

    def unauthorised(self) -> httpx.Response:
        return _error(401, 2, "Authentication failed.")

    def too_fast(self, wait: float) -> httpx.Response:
        answer = _error(429, 8, "You have exceeded your rate limit. Try again later.")
        answer.headers["x-ratelimit-reset"] = str(math.ceil(wait))
        return answer

    def no_route(self, request: httpx.Request) -> httpx.Response:
        return _error(404, 404, f"No endpoint for {request.method}.")

    def rate_headers(self) -> Mapping[str, str]:
        return {} if self.rate is None else {"x-ratelimit-remaining": str(self.room)}

    def _page(self, asked: Asked) -> httpx.Response:
        if refused := self._foreign(asked):
            return refused
        size = int(asked.params.get("page_size", "25"))
        return httpx.Response(
            200, json={"items": [self._list(id) for id in list(self.lists)[:size]], "bookmark": None}
        )

    def _create(self, asked: Asked) -> httpx.Response:
        body = asked.body
        if refused := self._foreign(asked) or _wrong_records(body):
            return refused
        if not body.get("name"):
            return _error(400, 1, "A customer list needs a name.")
        id = self.add_list(body["name"])
        self._add(id, _split(body))
        return httpx.Response(200, json=self._list(id))

    def _update(self, asked: Asked) -> httpx.Response:
        body, id = asked.body, asked.parts[1]
        if refused := self._foreign(asked) or _wrong_records(body):
            return refused
        if id not in self.lists:
            return _error(404, 404, "Customer list not found.")
        if body.get("operation_type") not in ("ADD", "REMOVE"):
            return _error(400, 1, "operation_type is ADD or REMOVE.")
        self._counts[id]["num_batches"] += 1
        if body["operation_type"] == "ADD":
            self._add(id, _split(body))
        else:
            self.lists[id] -= set(_split(body))
            self._counts[id]["num_removed_user_records"] += len(_split(body))
        return httpx.Response(200, json=self._list(id))

    def _add(self, id: str, records: list[str]) -> None:
        self.lists[id] |= set(records)
        self._counts[id]["num_uploaded_user_records"] += len(records)

    def _target(self, asked: Asked) -> httpx.Response:
        body = asked.body
        source = (body.get("rule") or {}).get("customer_list_id")
        if refused := self._foreign(asked):
            return refused
        if body.get("audience_type") != "CUSTOMER_LIST" or source not in self.lists or not body.get("name"):
            return _error(400, 1, "Invalid ad account audience parameters.")
        id = str(2542620000 + len(self.audiences))
        self.audiences[id] = {
            "id": id,
            "ad_account_id": self.account,
            "type": "audience",
            "status": "INITIALIZING",
        } | {name: body[name] for name in ("name", "audience_type", "rule")}
        return httpx.Response(200, json=self.audiences[id])

    def _foreign(self, asked: Asked) -> httpx.Response | None:
        own = asked.parts[0] == self.account
        return None if own else _error(403, 29, "You are not permitted to access that resource.")

    def _list(self, id: str) -> Json:
        status = "READY" if len(self.lists[id]) >= _ENOUGH else "TOO_SMALL"
        answer = {"id": id, "ad_account_id": self.account, "type": "customerlist", "status": status}
        moments = {"created_time": _MADE, "updated_time": _MADE}
        trouble = {"1": "Some records could not be read."} if id in self.fickle else {}
        return answer | moments | self._counts[id] | {"exceptions": trouble}


def _split(body: Json) -> list[str]:
    return [record for record in body["records"].split(",") if record]


def _wrong_records(body: Any) -> httpx.Response | None:
    records = body.get("records") if isinstance(body, dict) else None
    if not isinstance(records, str) or not _split(body):
        return _error(400, 1, "records must be a list joined by commas.")
    found = _split(body)
    if len(found) > 2 * _MOST:
        return _error(413, 1, "Too many records.")
    if not all(_DIGEST.fullmatch(record) or _EMAIL.fullmatch(record) for record in found):
        return _error(400, 1, "A record is neither an e-mail address in lower case nor a digest.")
    return None


def _error(status: int, code: int, message: str) -> httpx.Response:
    return httpx.Response(status, json={"code": code, "message": message})


def ready() -> Ready:
    """An ad account with a customer list."""
    fake = FakePinterest(rate=Rate(400, 60.0))
    audience = fake.add_list("Lapsed buyers")
    return Ready(
        fake,
        lambda url: {"token": fake.token, "ad_account_id": fake.account, "base_url": url},
        {"customer_list_member": audience},
        members=lambda _, audience: fake.lists[audience],
    )
