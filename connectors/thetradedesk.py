"""The Trade Desk: members of a first-party data segment of an advertiser, each for a time.

Facts and where they come from. *Spec* is The Trade Desk's own OpenAPI description of its Data API
(thetradedesk/ttd-data-python, v0.1); *integrations* are two public ones, RudderStack's and Adobe's.

- `POST /data/advertiser` with the header `TTD-Auth`: items with an id and `Data`, segments by name with
  `TtlInMinutes` (spec). A segment is made when its name is first used; there is none to make before (from memory,
  not confirmed).
- **A membership is an expiry.** After `ttl_days` The Trade Desk forgets it, and Headgate does not know: it sends
  changes. Map `renewed_at` to something that changes before the time is over (the first day of the week or of the
  month, say): the member counts as updated then, and is sent again with its whole time. `renewed_at` itself is not
  sent. With `ttl_days = 30`, renew weekly.
- Removing somebody is sending `TtlInMinutes` 0 (integrations; not in the spec).
- At most 180 days (integrations).
- One id an item, 10,000 ids and 2.5 MB a request (integrations; 413 beyond, spec).
- Refused items are in `FailedLines` of a 200, each with `ItemNumber`, or with `item #2` in its message; they count
  from 1 (spec, and fixtures of the integrations for the message and where counting starts). An answer without any
  is `{}` (integrations). Ids are matched later, so a line that did not fail is accepted.
- 401 and 403 for a wrong token or advertiser, 429 for too much (spec); no header says for how long.
- There is nothing to read. To check the token, no items are sent: 400 for "missing items" (spec) proves it.

E-mail addresses and telephone numbers are no ids here: have UID2s or EUIDs made of them first. Leaving a segment
is not an opt-out, which is a request of its own and never sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import httpx
from pydantic import ConfigDict, SecretStr
from pydantic import Field as Option

from sync.sdk.answer import Shape, read
from sync.sdk.auth import Header
from sync.sdk.connector import Config, HttpConnector
from sync.sdk.nouns import Batch, Change, Field, Limits, ObjectSpec, Op, Order, Receipt, Status, Value
from sync.sdk.settled import every
from sync.sdk.values import given

__all__ = ["TheTradeDesk", "TheTradeDeskConfig"]

_IDS = {
    "ramp_id": "RampID",
    "tdid": "TDID",
    "daid": "DAID",
    "uid2": "UID2",
    "euid": "EUID",
    "core_id": "CoreID",
    "id5": "ID5",
    "net_id": "NetID",
    "first_id": "FirstID",
    "utiq_id": "UtiqID",
    "merkury_id": "MerkuryID",
    "iqvia_ppid": "IqviaPPID",
}
_PATH = "/data/advertiser"
_DAY = 24 * 60  # minutes
_NUMBER = re.compile(r"item #(\d{1,6})")
_PART = "one of its ids was refused and another was taken"
_STRAY = "The Trade Desk refused a line and does not say whose"


class TheTradeDeskConfig(Config):
    """One advertiser."""

    token: SecretStr = Option(description="A token of the Data API, for the header TTD-Auth.")
    advertiser_id: str = Option(min_length=1, description="Whose segments they are.")
    data_provider_id: str | None = Option(None, description="Yours, where The Trade Desk gave you one.")
    ttl_days: int = Option(30, ge=1, le=180, description="Days for which somebody is in a segment once sent.")
    base_url: str = Option(
        "https://usw-data.adsrvr.org",
        description="The data server nearest to your users: also use-, euw-, sin- and tok-data.adsrvr.org.",
    )


class _Line(Shape):
    code: str | None = Option(None, alias="ErrorCode")
    message: str | None = Option(None, alias="Message")
    item: str | None = Option(None, alias="ItemNumber")

    @property
    def number(self) -> int:
        """Which item it is about, from 1; 0 where it does not say."""
        found = _NUMBER.search(self.message or "")
        text = self.item or (found[1] if found else "")
        return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0

    @property
    def reason(self) -> str:
        """The code and the words, without the number of the item, which says nothing afterwards."""
        words = re.sub(rf",? *{_NUMBER.pattern}", "", self.message or "")
        return ": ".join(part for part in (self.code, words) if part) or "The Trade Desk gave no reason"


class _Answer(Shape):
    """The one property there is, or none: an object with others is something else (spec)."""

    model_config = ConfigDict(extra="forbid")
    failed: list[_Line] | None = Option(None, alias="FailedLines")


_MEMBER = ObjectSpec(
    name="segment_member",
    title="Member of a data segment",
    ops=frozenset(Op),
    fields=(
        *(Field(name, identifier=True, normalise="trim") for name in _IDS),
        Field("renewed_at", description="Not sent: when it changes, the member is sent again for its whole time."),
    ),
    limits=Limits(batch_size=10_000 // len(_IDS), batch_bytes=1_000_000, concurrency=2),
    # Removals go first: a removed id may be of somebody who is in the segment by another.
    order=Order.REMOVALS_FIRST,
)


class TheTradeDesk(HttpConnector[TheTradeDeskConfig]):
    """Keeps first-party segments; the audience is a segment's name. Memberships expire: map `renewed_at`."""

    name = "thetradedesk"
    title = "The Trade Desk"
    docs = __doc__ or ""
    config_model = TheTradeDeskConfig
    objects = {_MEMBER.name: _MEMBER}  # noqa: RUF012
    plain_success = frozenset({"{}"})

    @classmethod
    def auth(cls, config: TheTradeDeskConfig) -> httpx.Auth:
        """The token in its own header."""
        return Header("TTD-Auth", config.token)

    def check(self) -> None:
        """Send no items, which changes nothing: 400 says that the token was accepted."""
        self.send("POST", _PATH, self._body([]), expects={400})

    def request(self, batch: Batch) -> httpx.Request:
        """The items of the batch, one for each id."""
        items = [item for change in batch.changes for item in self._items(change, batch.audience)]
        return self.build("POST", _PATH, self._body(items))

    def receipts(self, batch: Batch, response: httpx.Response) -> Iterable[Receipt]:
        """Accepted unless a line of theirs failed. Raises `ProtocolError`."""
        lines = read(_Answer, response).failed or []
        owners = [change.key for change in batch.changes for _ in given(change)]
        if any(not 1 <= line.number <= len(owners) for line in lines):
            return every(batch.changes, Status.UNKNOWN, _STRAY)
        refused = {line.number: line.reason for line in lines}
        by_key: dict[str, list[str]] = {change.key: [] for change in batch.changes}
        for number, key in enumerate(owners, 1):
            by_key[key] += [refused[number]] if number in refused else []
        return [_receipt(change, by_key[change.key]) for change in batch.changes]

    def _items(self, change: Change, segment: str | None) -> list[Value]:
        ttl = 0 if change.op is Op.REMOVE else self.config.ttl_days * _DAY
        data = [{"Name": segment, "TtlInMinutes": ttl}]
        return [{_IDS[name]: value, "Data": data} for name, value in given(change).items()]

    def _body(self, items: Sequence[Value]) -> dict[str, Value]:
        provider = self.config.data_provider_id
        body: dict[str, Value] = {"AdvertiserId": self.config.advertiser_id, "Items": items}
        return body | ({"DataProviderId": provider} if provider else {})


def _receipt(change: Change, reasons: Sequence[str]) -> Receipt:
    """One refused id of several leaves the member in between."""
    if not given(change):
        return Receipt(change.key, Status.REJECTED, "it has no id of those that The Trade Desk takes")
    if not reasons:
        return Receipt(change.key, Status.ACCEPTED)
    if len(reasons) < len(given(change)):
        return Receipt(change.key, Status.UNKNOWN, f"{_PART} ({reasons[0]})")
    return Receipt(change.key, Status.REJECTED, reasons[0])
