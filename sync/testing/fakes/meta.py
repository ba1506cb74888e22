"""A Meta ad account in memory: customer file custom audiences, as far as the connector uses them.

Payloads and answers follow the examples of Meta's reference; refusals its pages on errors and rate limits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeMeta", "ready"]

Json = dict[str, Any]
Pair = tuple[str, str]
_HASHED = {"EMAIL", "PHONE", "GEN", "DOBY", "DOBM", "DOBD", "LN", "FN", "FI", "CT", "ST", "ZIP", "COUNTRY"}
_PLAIN = {"MADID", "EXTERN_ID", "LOOKALIKE_VALUE"}
_TELLING = {"EMAIL", "PHONE", "MADID", "EXTERN_ID"}  # the others are shared by many
_DIGEST = re.compile("[0-9a-f]{64}")
_SOURCES = {"USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED"}
_MOST = 10_000
_USERS = r"/v\d+\.\d/([^/]+)/users"


class FakeMeta(Fake):
    """`audiences` has the rows by audience id, each a set of (key, value); `flagged` the ids of restricted ones.

    A removal takes out every row that is the same, or has something of a person's own in common with it, as rows
    of one account do. With `secret`, requests have to prove that they come from the app.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", _USERS, "_add"),
        ("DELETE", _USERS, "_remove"),
        ("GET", r"/v\d+\.\d/act_(\d+)/customaudiences", "_page"),
        ("POST", r"/v\d+\.\d/act_(\d+)/customaudiences", "_create"),
    )

    def __init__(self, token: str = "EAAtest", account: str = "1234", secret: str = "", **options: Any) -> None:  # noqa: S107
        super().__init__(**options)
        self.token = token
        self.account = account
        self.secret = secret
        self.audiences: dict[str, set[frozenset[Pair]]] = {}
        self.flagged: set[str] = set()

    def add_audience(self) -> str:
        """An audience that was there before; its id."""
        id = str(23840000000000000 + len(self.audiences))
        self.audiences[id] = set()
        return id

    def values(self, audience: str) -> set[Pair]:
        """What everybody in an audience is matched by."""
        return {pair for row in self.audiences[audience] for pair in row}

    def authorised(self, request: httpx.Request) -> bool:
        proof = hmac.new(self.secret.encode(), self.token.encode(), hashlib.sha256).hexdigest()
        proved = not self.secret or request.url.params.get("appsecret_proof") == proof
        return proved and bool(request.headers.get("authorization") == f"Bearer {self.token}")

    def unauthorised(self) -> httpx.Response:
        return _error(400, 190, "Error validating access token: the session has expired.")

    def too_fast(self, wait: float) -> httpx.Response:
        answer = _error(400, 80003, "(#80003) There have been too many calls from this ad-account.")
        answer.headers["X-Business-Use-Case-Usage"] = self._usage(math.ceil(wait / 60))
        return answer

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever it is
        return _error(400, 2500, "Unknown path components.")

    def rate_headers(self) -> Mapping[str, str]:
        return {} if self.rate is None else {"X-Business-Use-Case-Usage": self._usage(0)}

    def _usage(self, minutes: int) -> str:
        share = 0 if self.rate is None else 100 - 100 * self.room // self.rate.requests
        used = {"type": "custom_audience", "call_count": share, "estimated_time_to_regain_access": minutes}
        return json.dumps({self.account: [used]})

    def _add(self, asked: Asked) -> httpx.Response:
        return self._change(asked, lambda rows, row: rows.add(row))

    def _remove(self, asked: Asked) -> httpx.Response:
        return self._change(asked, lambda rows, row: rows.difference_update([r for r in rows if _same(r, row)]))

    def _change(self, asked: Asked, change: Any) -> httpx.Response:
        (id,) = asked.parts
        payload: Any = asked.body.get("payload") if isinstance(asked.body, dict) else None
        if refused := self._wrong(id, payload):
            return refused
        rows = [_row(payload["schema"], data) for data in payload["data"]]
        for row in rows:
            if row is not None:
                change(self.audiences[id], row)
        return httpx.Response(
            200,
            json={
                "audience_id": id,
                "session_id": "8174652039",
                "num_received": len(rows),
                "num_invalid_entries": rows.count(None),
                "invalid_entry_samples": {},
            },
        )

    def _wrong(self, id: str, payload: Any) -> httpx.Response | None:
        if id not in self.audiences:
            return _error(400, 100, f"Unsupported request. Object with ID '{id}' does not exist.", 33)
        if id in self.flagged:
            return _error(400, 100, "Invalid parameter", 1713230)
        given: Json = payload if isinstance(payload, dict) else {}
        schema: Any = given.get("schema")
        data: Any = given.get("data")
        known = isinstance(schema, list) and schema and set(schema) <= _HASHED | _PLAIN
        if not known or len(set(schema)) < len(schema) or not isinstance(data, list) or not data:
            return _error(400, 100, "(#100) Data is missing or does not match schema")
        if len(data) > _MOST:
            return _error(400, 105, "(#105) The number of parameters exceeded the maximum for this operation")
        if any(not isinstance(row, list) or len(row) != len(schema) for row in data):
            return _error(400, 100, "(#100) Data is missing or does not match schema")
        return None

    def _page(self, asked: Asked) -> httpx.Response:
        if asked.parts[0] != self.account:
            return _error(403, 200, "(#200) The ad account owner has not granted permission.")
        return httpx.Response(200, json={"data": [{"id": id} for id in self.audiences][:1], "paging": {}})

    def _create(self, asked: Asked) -> httpx.Response:
        body = asked.body
        if asked.parts[0] != self.account:
            return _error(403, 200, "(#200) The ad account owner has not granted permission.")
        if (
            not body.get("name")
            or body.get("subtype") != "CUSTOM"
            or body.get("customer_file_source") not in _SOURCES
        ):
            return _error(400, 100, "(#100) Invalid parameter")
        return httpx.Response(200, json={"id": self.add_audience()})


def _same(one: frozenset[Pair], other: frozenset[Pair]) -> bool:
    """Are two rows about one person."""
    return one == other or any(kind in _TELLING for kind, _ in one & other)


def _row(schema: list[str], data: list[Any]) -> frozenset[Pair] | None:
    """What a row is matched by; None where the entry is invalid."""
    pairs = [(key, value) for key, value in zip(schema, data, strict=True) if value != ""]
    fine = pairs and all(
        isinstance(value, str) and (key in _PLAIN or bool(_DIGEST.fullmatch(value))) for key, value in pairs
    )
    return frozenset(pairs) if fine else None


def _error(status: int, code: int, message: str, subcode: int = 0) -> httpx.Response:
    error = {"message": message, "type": "OAuthException", "code": code, "fbtrace_id": "AzJKjF6OyDj"}
    return httpx.Response(status, json={"error": error | ({"error_subcode": subcode} if subcode else {})})


def ready() -> Ready:
    """An ad account with a custom audience."""
    fake = FakeMeta(rate=Rate(5_000, 3600.0))
    audience = fake.add_audience()
    return Ready(
        fake,
        lambda url: {"token": fake.token, "ad_account_id": fake.account, "base_url": url},
        {"audience_user": audience},
        members=lambda _, audience: {value for kind, value in fake.values(audience) if kind in _TELLING},
    )
