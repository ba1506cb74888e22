"""Statsig: the ids of a segment that is a user-store id list.

Facts and where they come from. *Spec* is Statsig's own OpenAPI description of the Console API (statsig-io/docs,
console-api/capiopenapi.json), *docs* are pages of docs.statsig.com.

- `PATCH /console/v1/segments/{id}/add_ids` and `.../remove_ids`, at most 1,000 ids, only where the segment's
  type is `user_store_id_list`; the answer is a message (spec). It speaks for all ids of the request. That the
  message has the word "successfully" is known from the spec's examples alone. That ids which are there already,
  or are not, are no error is from memory, not confirmed.
- `GET .../id_list` lists the ids page by page (spec: its schema wants `data` to be a list and an object at
  once; its example and the docs have the object). That it lists user-store lists, too, and how large a page may
  be, is not said: pages of 100 are asked for, and `nextPage` decides.
- `DELETE .../id_list` is never used: its body is not described, and `remove_ids` does what is wanted.
- A name has 3 to 100 letters, digits, spaces, `_` and `-` (spec, SegmentCreateContractDto).
- About 100 requests in 10 seconds and 900 in 15 minutes a project, where they change something (docs, Console
  API, "Rate limiting"); an answer does not tell how many are left. A project holds at most 10 million ids
  (docs).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Made, Shape, read
from sync.sdk.auth import Header
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.nouns import Batch, Field, Limits, Member, ObjectSpec, Op, Page, Rate, Receipt, Status
from sync.sdk.settled import every
from sync.sdk.values import path_part, text

__all__ = ["Statsig", "StatsigConfig"]

_SEGMENTS = "/console/v1/segments"
_NAME = re.compile(r"[A-Za-z0-9_ -]{3,100}")
# Of the API: optional now, to be required later (docs, Console API, "API version").
_VERSION = {"STATSIG-API-VERSION": "20240601"}
_PATHS = {Op.ADD: "add_ids", Op.REMOVE: "remove_ids"}


class StatsigConfig(Config):
    """One project."""

    key: SecretStr = Option(description="A Console API key that may write: Project Settings, Keys & Environments.")
    id_type: str = Option("userID", min_length=1, description="What the ids of new segments are ids of.")
    base_url: str = Option("https://statsigapi.net", description="Where the API is.")


class _Ids(Shape):
    ids: list[str]


class _Paging(Shape):
    number: int = Option(alias="pageNumber")
    next: str | None = Option(alias="nextPage")


class _Listed(Shape):
    data: _Ids
    pagination: _Paging


class Statsig(HttpConnector[StatsigConfig]):
    """Keeps id lists. The audience is the segment's id."""

    name = "statsig"
    title = "Statsig"
    docs = __doc__ or ""
    config_model = StatsigConfig
    objects: Mapping[str, ObjectSpec] = {
        "segment_member": ObjectSpec(
            name="segment_member",
            title="Id in a segment",
            ops=frozenset({Op.ADD, Op.REMOVE}),
            fields=(Field("id", required=True, identifier=True, description="Of the segment's type of id."),),
            limits=Limits(batch_size=1000, concurrency=2, rates=(Rate(100, 10), Rate(900, 900))),
        )
    }

    @classmethod
    def auth(cls, config: StatsigConfig) -> httpx.Auth:
        """The Console API key, in a header of its own."""
        return Header("STATSIG-API-KEY", config.key)

    def check(self) -> None:
        """Read one segment of the project, or none."""
        read(list[Any], self.send("GET", _SEGMENTS, params={"limit": 1}, headers=_VERSION), at="data")

    def request(self, batch: Batch) -> httpx.Request:
        """One op, for all ids of the batch."""
        ids = [text(change.identifiers["id"]) for change in batch.changes]
        path = f"{_segment(batch.audience)}/{_PATHS[batch.changes[0].op]}"
        return self.build("PATCH", path, {"ids": ids}, headers=_VERSION)

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        """All or nothing. Raises `ProtocolError` where the answer does not say that it was done."""
        if "successfully" not in read(str, response, at="message"):
            raise ProtocolError("Statsig's answer does not say that the ids were taken", response.text)
        return every(batch.changes, Status.APPLIED)

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - there is one object
        """Make an id list; its id. Raises `RequestError` where Statsig takes no such name."""
        if not _NAME.fullmatch(title):
            fix = "use 3 to 100 letters, digits, spaces, `_` and `-`"
            raise RequestError("Statsig takes no such name for a segment", fix=fix)
        body = {"name": title, "type": "user_store_id_list", "idType": self.config.id_type}
        return read(Made, self.send("POST", _SEGMENTS, body, headers=_VERSION), at="data").id

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - as above
        """A page of a segment's ids."""
        path, params = f"{_segment(audience)}/id_list", {"limit": "100", "page": after or "1"}
        listed = read(_Listed, self.send("GET", path, params=params, headers=_VERSION))
        following = str(listed.pagination.number + 1) if listed.pagination.next else None
        return Page([Member({"id": id}) for id in listed.data.ids], following)


def _segment(audience: str | None) -> str:
    return f"{_SEGMENTS}/{path_part(audience)}"
