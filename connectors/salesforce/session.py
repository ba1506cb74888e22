"""Queries and collections: the requests that the objects share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import httpx

from connectors.salesforce.answers import Rows, Saved
from sync.errors import ProtocolError
from sync.sdk.answer import read, read_list
from sync.sdk.nouns import Value
from sync.sdk.values import dumps, text

__all__ = ["MOST", "Session", "plain", "record"]

MOST = 200  # records of a collection


class Session:
    """An org's REST API in one version: `data` is what its paths begin with."""

    def __init__(self, http: httpx.Client, version: str) -> None:
        self.http = http
        self.data = f"/services/data/v{version}"

    def send(self, method: str, path: str, body: Value) -> httpx.Response:
        """A request with a JSON body; `path` is that below `data`."""
        headers = {"Content-Type": "application/json"}
        return self.http.request(method, f"{self.data}{path}", content=dumps(body), headers=headers)

    def save(self, method: str, records: Sequence[Value], path: str = "") -> list[Saved]:
        """Write a collection of records; a result for each, in their order."""
        body = {"allOrNone": False, "records": records}
        answer = self.send(method, f"/composite/sobjects{path}", body)
        return _sized(read_list(Saved, answer), len(records))

    def delete(self, ids: Sequence[str]) -> list[Saved]:
        """Delete records; a result for each, in their order."""
        params = {"ids": ",".join(ids), "allOrNone": "false"}
        answer = self.http.delete(f"{self.data}/composite/sobjects", params=params)
        return _sized(read_list(Saved, answer), len(ids))

    def query(self, query: str) -> list[dict[str, Any]]:
        """All rows of a query."""
        page = self.first(query)
        rows = page.records
        while not page.done:
            page = self.page(page.next, len(rows))
            rows = [*rows, *page.records]
        return rows

    def first(self, query: str) -> Rows:
        """The first page of a query's rows."""
        return self.page(f"{self.data}/query?q={quote(query, safe='', errors='replace')}", 0)

    def page(self, path: str, seen: int) -> Rows:
        """A page of rows, `seen` having come before. Raises `ProtocolError` where it does not have those that
        it counts, or where the page after it would be somewhere else."""
        page = read(Rows, self.http.get(path))
        count = seen + len(page.records)
        if page.done:
            whole = count == page.total
        else:
            whole = seen < count < page.total and page.next.startswith(f"{self.data}/query/")
        if not whole:
            raise ProtocolError("Salesforce's answer to a query does not have the rows that it counts")
        return page


def _sized(saved: list[Saved], count: int) -> list[Saved]:
    if len(saved) != count:
        raise ProtocolError("Salesforce's answer does not have a result for each record")
    return saved


def record(kind: str, fields: Mapping[str, Value]) -> dict[str, Value]:
    """A record of a collection."""
    return {"attributes": {"type": kind}, **{name: plain(value) for name, value in fields.items()}}


def plain(value: Value) -> Value:
    """A value as a field takes it: several choices with semicolons between them."""
    if isinstance(value, list):
        return ";".join(map(text, value))
    return text(value) if isinstance(value, dict) else value
