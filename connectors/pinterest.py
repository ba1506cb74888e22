"""Pinterest: members of a customer list, by hashed e-mail address or advertising id.

Facts and where they come from. *Spec* is Pinterest's own OpenAPI description (pinterest/api-description, v5).

- `PATCH /ad_accounts/{id}/customer_lists/{id}` with `operation_type` ADD or REMOVE and `records`, joined by
  commas: e-mail addresses in lower case and advertising ids, each as SHA-256, in any combination (spec).
- The answer is the list: counters that rise whether or not somebody was in it already, and a status. Matching
  comes later and is never told per record; `exceptions` are errors of the list as a whole (spec). So a record is
  accepted.
- A list cannot be made empty: `records` is required (spec). It is made with one record, the digest of an address
  that nobody can have (RFC 2606, `.invalid`), and as a targeting audience of type CUSTOMER_LIST, "to use your
  customer list after creating it" (spec, customer_lists/create). Ads need 100 matched accounts (spec).
- 400 writes a minute for each user of an app with standard access (developers.pinterest.com, "Rate limits",
  category ads_write); 1,000 requests a day in trial access.
- 10,000 records and 1 MB a request, as another public integration sends; the spec states no cap.
- The moment of the next request stands in `x-ratelimit-reset`, in seconds (from memory, not confirmed).

Who is in a list cannot be read back. Leaving one changes nothing else of an account.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import DestinationError, ProtocolError, RequestError
from sync.sdk.answer import Made, Shape, read
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, Connector
from sync.sdk.http import reset_after
from sync.sdk.nouns import Batch, Outcome, Receipt, Status
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order, Rate
from sync.sdk.values import given, path_part

__all__ = ["Pinterest", "PinterestConfig"]

_NOBODY = hashlib.sha256(b"nobody@headgate.invalid").hexdigest()
_EMPTY = "it has neither an e-mail address nor an advertising id"


class PinterestConfig(Config):
    """One ad account, reached with the access token of somebody who may edit its audiences."""

    token: SecretStr = Option(description="An access token with the scopes ads:read and ads:write.")
    ad_account_id: str = Option(pattern=r"^\d{1,18}$", description="The ad account's number.")
    base_url: str = Option("https://api.pinterest.com", description="Where the API is, without /v5.")


class _CustomerList(Shape):
    id: str = Option(min_length=1)
    status: Literal["PROCESSING", "READY", "TOO_SMALL", "UPLOADING"]
    exceptions: dict[str, object] | None = None


_MEMBER = ObjectSpec(
    name="customer_list_member",
    title="Member of a customer list",
    ops=frozenset({Op.ADD, Op.REMOVE}),
    fields=(
        Field("email", identifier=True, normalise="email", hash="sha256"),
        Field("maid", identifier=True, normalise="device_id", hash="sha256", description="IDFA or Android's id."),
    ),
    limits=Limits(batch_size=10_000, batch_bytes=1_000_000, concurrency=2, rates=(Rate(400, 60.0),)),
    # Removals go first: where one of a person's identifiers changed, both sets are the same account.
    order=Order.REMOVALS_FIRST,
)


class Pinterest(Connector[PinterestConfig]):
    """Keeps customer lists. Pinterest matches people later and tells nobody who was matched."""

    name = "pinterest"
    title = "Pinterest"
    docs = __doc__ or ""
    config_model = PinterestConfig
    objects = {_MEMBER.name: _MEMBER}  # noqa: RUF012

    @classmethod
    def auth(cls, config: PinterestConfig) -> httpx.Auth:
        """The access token."""
        return Bearer(config.token)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`Retry-After`, or Pinterest's own header."""
        return reset_after(response, "x-ratelimit-reset", "seconds")

    def check(self) -> None:
        """Read one customer list."""
        self.http.get(f"{self._root}/customer_lists", params={"page_size": 1})

    def push(self, batch: Batch) -> Outcome:
        """One request for those who have an identifier. Raises `RequestError` where the list is unknown."""
        sent = {change.key: found for change in batch.changes if (found := given(change))}
        empty = [Receipt(c.key, Status.REJECTED, _EMPTY) for c in batch.changes if c.key not in sent]
        if not sent:
            return empty
        op = "REMOVE" if batch.changes[0].op is Op.REMOVE else "ADD"
        body = {
            "operation_type": op,
            "records": ",".join(record for records in sent.values() for record in records.values()),
        }
        path = f"{self._root}/customer_lists/{path_part(batch.audience)}"
        response = self.send("PATCH", path, body)
        answer = read(_CustomerList, response)
        if answer.id != batch.audience:
            raise ProtocolError("Pinterest answered for another customer list", response.text)
        reason = "Pinterest reports errors of the customer list as a whole" if answer.exceptions else ""
        return empty + [Receipt(key, Status.ACCEPTED, reason) for key in sent]

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - there is one object
        """Make a customer list, and an audience of it to target; the list's id. Raises `RequestError`."""
        body = {"name": title, "list_type": "EMAIL", "records": _NOBODY}
        made = read(_CustomerList, self.send("POST", f"{self._root}/customer_lists", body)).id
        target = {"name": title, "audience_type": "CUSTOMER_LIST", "rule": {"customer_list_id": made}}
        try:
            read(Made, self.send("POST", f"{self._root}/audiences", target))
        except DestinationError as error:
            fix = f"Make an audience of customer list {made} in Ads Manager; its members can be kept already."
            message = f"Pinterest made customer list {made}, and no audience of it: {error.message}"
            raise RequestError(message, error.detail, fix=fix) from error
        return made

    @property
    def _root(self) -> str:
        return f"/v5/ad_accounts/{self.config.ad_account_id}"
