"""A small CRM that speaks the webhook connector's protocol, for the demo and for tests."""

from __future__ import annotations

import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import httpx

from sync.testing.fakes.server import serve

__all__ = ["Crm"]

Person = dict[str, Any]
_OPS = ("add", "update", "remove")


class Crm:
    """People by identifier, in memory; what was sent twice under one `Idempotency-Key` is done once.

    `people` is what the CRM holds, `requests` counts the POSTs by op, `records` the records in them,
    `repeats` the POSTs that were answered from memory. Call it with a request, or `serve` it.
    """

    def __init__(self, identifier: str = "email") -> None:
        self.identifier = identifier
        self.people: dict[str, Person] = {}
        self.requests: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.repeats = 0
        self._answers: dict[str, httpx.Response] = {}
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer one request of the protocol."""
        if request.method == "HEAD":
            return httpx.Response(200)
        if request.method != "POST":
            return httpx.Response(405, headers={"Allow": "HEAD, POST"})
        with self._lock:
            key = request.headers.get("idempotency-key", "")
            if key in self._answers:
                self.repeats += 1
                return self._answers[key]
            answer = self._take(request.content)
            if key and answer.is_success:
                self._answers[key] = answer
            return answer

    @contextlib.contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve it on the loopback, on a free port unless one is given; yields the URL to post to."""
        with serve(self, port) as base:
            yield f"{base}/people"

    def _take(self, content: bytes) -> httpx.Response:
        try:
            body = json.loads(content)
            op, records = body["op"], body["records"]
        except (ValueError, KeyError, TypeError):
            return httpx.Response(400, json={"error": "post a JSON object with `op` and `records`"})
        if op not in _OPS or not isinstance(records, list):
            return httpx.Response(400, json={"error": f"`op` is one of {', '.join(_OPS)}, `records` a list"})
        self.requests[op] += 1
        self.records[op] += len(records)
        errors = [self._apply(op, record) for record in records]
        if any(errors):
            return httpx.Response(207, json={"errors": errors})
        return httpx.Response(200, json={"received": len(records)})

    def _apply(self, op: str, record: Any) -> Mapping[str, str] | None:
        """Do one record; the reason where it cannot be done."""
        who = record.get(self.identifier) if isinstance(record, dict) else None
        if not isinstance(who, str) or not who:
            return {"message": f"the record has no `{self.identifier}`"}
        if op == "remove":
            self.people.pop(who, None)
        elif op == "add":
            self.people[who] = record
        else:
            self.people[who] = self.people.get(who, {}) | record
        return None
