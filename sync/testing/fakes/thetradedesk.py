"""The Trade Desk's data server in memory, for one advertiser: segments by name, whose memberships expire.

Answers have the shapes of The Trade Desk's OpenAPI description (Data API v0.1); failed lines are as public
integrations have seen them.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import Any, ClassVar

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeTradeDesk", "ready"]

Json = dict[str, Any]
_OPAQUE = ("RampID", "CoreID", "ID5", "NetID", "FirstID", "UtiqID", "MerkuryID", "IqviaPPID", "UID2Token")
_IDS = {"TDID", "DAID", "UID2", "EUID", *_OPAQUE}
_LARGEST = 2_500_000  # bytes
_MOST = 10_000  # items
_LONGEST = 180 * 24 * 60  # minutes
_LONG_NAME = 256


class FakeTradeDesk(Fake):
    """`segments` has, by name, the moment each id expires, by the clock: `("TDID", "...")` is an id."""

    routes: ClassVar[tuple[Route, ...]] = (("POST", "/data/advertiser", "_ingest"),)

    def __init__(self, token: str = "ttd-test", advertiser: str = "adv1", **options: Any) -> None:  # noqa: S107
        super().__init__(**options)
        self.token = token
        self.advertiser = advertiser
        self.segments: dict[str, dict[tuple[str, str], float]] = {}

    def members(self, segment: str) -> set[str]:
        """The ids whose time is not over."""
        now = self.clock()
        return {id for (_, id), ends in self.segments.get(segment, {}).items() if ends > now}

    def authorised(self, request: httpx.Request) -> bool:
        return bool(request.headers.get("ttd-auth") == self.token)

    def unauthorised(self) -> httpx.Response:
        return httpx.Response(401, json="Unauthorized")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - no header says for how long
        return httpx.Response(429, json={"FailedLines": None})

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever it is
        return httpx.Response(404, json="Not found")

    def _ingest(self, asked: Asked) -> httpx.Response:
        if len(asked.request.content) > _LARGEST:
            return httpx.Response(413, json="Request entity too large")
        body = asked.body
        if not isinstance(body, dict) or not body.get("AdvertiserId"):
            return _refused("AdvertiserId is missing")
        if body["AdvertiserId"] != self.advertiser:
            return httpx.Response(403, json="Cannot create new targeting data for this advertiser")
        items = body.get("Items")
        if not isinstance(items, list) or not items:
            return _refused("Items are missing")
        if len(items) > _MOST:
            return httpx.Response(413, json="Too many items")
        failed = [line for number, item in enumerate(items, 1) if (line := self._take(number, item))]
        return httpx.Response(200, json={"FailedLines": failed} if failed else {})

    def _take(self, number: int, item: Json) -> Json | None:
        """Do one item; its line where it fails."""
        ids = {name: value for name, value in item.items() if name in _IDS and value}
        if len(ids) != 1:
            return _line(number, "MissingUserId", f"One id is needed, item #{number}")
        ((kind, id),) = ids.items()
        if not _well_formed(kind, id):
            return _line(number, "MissingUserId", f"Invalid {kind}, item #{number}")
        for data in item.get("Data") or [{}]:
            if problem := _wrong_data(data):
                return _line(number, problem, f"{problem}, item #{number}")
        for data in item["Data"]:
            self._keep(data["Name"], (kind, id), data.get("TtlInMinutes", _LONGEST))
        return None

    def _keep(self, segment: str, id: tuple[str, str], minutes: int) -> None:
        members = self.segments.setdefault(segment, {})
        members.pop(id, None)
        if minutes:
            members[id] = self.clock() + minutes * 60


def _wrong_data(data: Json) -> str | None:
    name, ttl = data.get("Name"), data.get("TtlInMinutes", _LONGEST)
    if not isinstance(name, str) or not 0 < len(name) <= _LONG_NAME:
        return "DataNameTooLong"
    whole = isinstance(ttl, int) and not isinstance(ttl, bool)
    return None if whole and 0 <= ttl <= _LONGEST else "InvalidTtlInMinutes"


def _well_formed(kind: str, id: Any) -> bool:
    """GUIDs, and 32 bytes in Base64 as UID2s and EUIDs are (with a first byte for the kind: 33)."""
    try:
        if kind in ("TDID", "DAID"):
            return str(uuid.UUID(id)) == str(id).lower()
        if kind in ("UID2", "EUID"):
            return len(base64.b64decode(id, validate=True)) in (32, 33)
    except (ValueError, AttributeError, TypeError, binascii.Error):
        return False
    return isinstance(id, str)


def _line(number: int, code: str, message: str) -> Json:
    return {"ErrorCode": code, "Message": message, "ItemNumber": str(number)}


def _refused(message: str) -> httpx.Response:
    return httpx.Response(400, json={"FailedLines": [{"ErrorCode": "InvalidParameterFormat", "Message": message}]})


def ready() -> Ready:
    """An advertiser; its segments are made as they are named."""
    fake = FakeTradeDesk(rate=Rate(100, 10.0))
    return Ready(
        fake,
        lambda url: {"token": fake.token, "advertiser_id": fake.advertiser, "base_url": url},
        {"segment_member": "lapsed-buyers"},
        members=lambda _, audience: fake.members(audience),
    )
