"""LaunchDarkly: the individual targets of a segment, in one environment of one project.

Facts and where they come from. *Spec* is LaunchDarkly's own OpenAPI description (launchdarkly/api-client-go,
api/openapi.yaml).

- A standard segment is changed by a semantic patch, `PATCH /api/v2/segments/{project}/{environment}/{segment}`
  with `domain-model=launchdarkly.semanticpatch` in the content type and the environment's key in the body. At
  most 1,500 operations on targets; a key that would be both included and excluded is an error, and then nothing
  of the patch is applied. The answer is the segment with everybody in it (spec, patchSegment). That to remove
  somebody who is not in it is no error is from memory, not confirmed.
- A big segment has one context kind and takes `POST .../contexts` with `included: {add, remove}`; the answer is
  204 without a body (spec, updateBigSegmentContextTargets). The spec states no cap; 1,000 keys a request is
  what other public integrations send. Who is in it cannot be listed. Only to be used for more than 15,000
  targets (spec, SegmentBody), and part of some plans only.
- The number of requests in 10 seconds is not published and is shared by all tokens of an account; a 429 says
  when its window ends in `X-Ratelimit-Reset`, in milliseconds since 1970, or in `Retry-After` (spec, "Rate
  limiting").
- 409: another request changed the same thing; it is to be tried again (spec, StatusConflictErrorRep). So one
  request at a time.
- Keys of a segment have letters, digits, `.`, `_` and `-`, and begin with a letter or digit (from memory, not
  confirmed in the spec).

Rules, exclusions and other context kinds of a segment stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Shape, read
from sync.sdk.auth import Header
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.http import reset_after
from sync.sdk.nouns import Batch, Field, Limits, Member, ObjectSpec, Op, Page, Receipt, Status
from sync.sdk.settled import every
from sync.sdk.values import path_part, text

__all__ = ["LaunchDarkly", "LaunchDarklyConfig"]

_SEMANTIC = {"Content-Type": "application/json; domain-model=launchdarkly.semanticpatch"}
_SILENT = "LaunchDarkly's answer shows the segment without this change"
_INCLUDE = {Op.ADD: "addIncludedTargets", Op.REMOVE: "removeIncludedTargets"}


class LaunchDarklyConfig(Config):
    """One environment of one project."""

    token: SecretStr = Option(description="A service or personal access token that may update segments.")
    project: str = Option(min_length=1, description="The project's key.")
    environment: str = Option(min_length=1, description="The environment's key.")
    context_kind: str = Option("user", min_length=1, description="What the keys in a segment are keys of.")
    base_url: str = Option(
        "https://app.launchdarkly.com",
        description="Where the API is: app.eu.launchdarkly.com and app.launchdarkly.us are others.",
    )


class _Targets(Shape):
    kind: str = Option(alias="contextKind")
    values: list[str]


class _Segment(Shape):
    key: str
    version: int
    unbounded: bool = False
    included: tuple[str, ...] = ()
    contexts: tuple[_Targets, ...] = Option((), alias="includedContexts")

    def targets(self, kind: str) -> list[str]:
        """Who is included one by one; of the kind `user` they may stand in either list."""
        found = self.included if kind == "user" else ()
        return [*found, *(value for one in self.contexts if one.kind == kind for value in one.values)]


def _object(name: str, title: str, size: int, *, readable: bool) -> ObjectSpec:
    return ObjectSpec(
        name=name,
        title=title,
        ops=frozenset({Op.ADD, Op.REMOVE}),
        fields=(Field("key", required=True, identifier=True, description="The context's key."),),
        limits=Limits(batch_size=size),
        readable=readable,
    )


class LaunchDarkly(HttpConnector[LaunchDarklyConfig]):
    """Keeps the included targets of segments. The audience is the segment's key."""

    name = "launchdarkly"
    title = "LaunchDarkly"
    docs = __doc__ or ""
    config_model = LaunchDarklyConfig
    objects: Mapping[str, ObjectSpec] = {
        "segment_member": _object("segment_member", "Target of a segment", 1500, readable=True),
        "big_segment_member": _object("big_segment_member", "Target of a big segment", 1000, readable=False),
    }
    unavailable: ClassVar[frozenset[int]] = frozenset({409})

    @classmethod
    def auth(cls, config: LaunchDarklyConfig) -> httpx.Auth:
        """The token alone: LaunchDarkly knows no scheme before it."""
        return Header("Authorization", config.token)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`Retry-After`, or the end of the window."""
        return reset_after(response, "x-ratelimit-reset", "epoch_ms")

    def check(self) -> None:
        """Read one segment of the environment, or none."""
        read(list[_Segment], self.send("GET", self._path(), params={"limit": 1}), at="items")

    def request(self, batch: Batch) -> httpx.Request:
        """One op, for all keys of the batch."""
        op, keys = batch.changes[0].op, [text(change.identifiers["key"]) for change in batch.changes]
        if batch.object == "big_segment_member":
            return self.build("POST", f"{self._path(batch.audience)}/contexts", {"included": {op.value: keys}})
        instruction = {"kind": _INCLUDE[op], "contextKind": self.config.context_kind, "values": keys}
        body = {"environmentKey": self.config.environment, "instructions": [instruction]}
        return self.build("PATCH", self._path(batch.audience), body, headers=_SEMANTIC)

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        """All or nothing; of a standard segment the answer shows it for each key. Raises `ProtocolError`."""
        if batch.object == "big_segment_member":
            if response.status_code != 204:
                raise ProtocolError("LaunchDarkly answered an update of a big segment with other than 204")
            return every(batch.changes, Status.APPLIED)
        segment = read(_Segment, response)
        if segment.key != batch.audience or segment.unbounded:
            raise ProtocolError("LaunchDarkly answered with another segment than the one that was changed")
        there = set(segment.targets(self.config.context_kind))
        return [
            _receipt(change.key, text(change.identifiers["key"]) in there, change.op) for change in batch.changes
        ]

    def create_audience(self, object: str, title: str) -> str:
        """Make a segment whose key is made of its title; the key. Raises `RequestError` where there is none."""
        key = re.sub(r"[^a-z0-9._-]+", "-", title.lower()).strip("-._")
        if not key:
            fix = "use letters of the Latin alphabet or digits"
            raise RequestError("no key of a segment can be made of this title", fix=fix)
        body: dict[str, Any] = {"key": key, "name": title, "tags": ["headgate"]}
        if object == "big_segment_member":
            body |= {"unbounded": True, "unboundedContextKind": self.config.context_kind}
        return read(_Segment, self.send("POST", self._path(), body)).key

    def members(self, object: str, audience: str | None, after: str | None = None) -> Page:  # noqa: ARG002 - one page
        """Everybody who is included one by one."""
        segment = read(_Segment, self.http.get(self._path(audience)))
        if segment.key != audience or segment.unbounded:
            fix = "map `object: big_segment_member` for a big segment"
            raise RequestError(f"LaunchDarkly does not list who is in the segment '{audience}'", fix=fix)
        return Page([Member({"key": key}) for key in segment.targets(self.config.context_kind)])

    def _path(self, audience: str | None = None) -> str:
        parts = [self.config.project, self.config.environment, *([audience] if audience else [])]
        return "/api/v2/segments/" + "/".join(path_part(part) for part in parts)


def _receipt(key: str, there: bool, op: Op) -> Receipt:
    if there is (op is Op.ADD):
        return Receipt(key, Status.APPLIED)
    return Receipt(key, Status.UNKNOWN, _SILENT)
