"""Meta: people of a customer file custom audience, by hashed contact data.

Facts and where they come from. *Reference* is "Custom Audience Users", *guide* "Customer File Custom Audiences"
and *limits* "Rate Limits" (Graph API) of developers.facebook.com; *codegen* is Meta's own list of operations
(facebook-business-sdk-codegen, api_specs). What a payload looks like is described nowhere for machines: it follows
the reference's examples.

- `POST` and `DELETE /{version}/{audience}/users` with `{"payload": {"schema": [...], "data": [[...], ...]}}`, at
  most 10,000 rows; changes take up to 24 hours (reference). So a row that was received is accepted.
- The answer has counts only: `num_received`, `num_invalid_entries` and samples of unknown form (reference). Where
  some are invalid, the whole batch counts as refused: it is sent again in halves, which adds nobody twice, until
  an invalid entry stands alone and is rejected. What Headgate sends is well-formed, so this is rare.
- Values are hashed with SHA-256 in lower-case hex after normalising: addresses trimmed, in lower case; telephone
  numbers in digits with their country's code, no leading zeros; names without punctuation; places a to z without
  spaces, US states as two letters; `EXTERN_ID` and `MADID` as they are (guide, as two public integrations apply
  it).
- A flagged audience (`operation_status` 471) answers 100 with the subcode 1713230 until a person mends it
  (reference).
- 190 is a token that is over, 10 and 200 to 299 a missing permission, 4, 17, 32, 613 and 80000 to 80014 too many
  calls, 1 and 2 trouble on Meta's side (Graph API, "Handle errors", and limits); most come with a 400. How many
  minutes to wait stands in `X-Business-Use-Case-Usage`, `estimated_time_to_regain_access` (limits).
- 5,000 calls an hour and more, by access tier and number of audiences (limits; from memory, not confirmed).
- `appsecret_proof` is the HMAC-SHA256 of the token under the app's secret (Graph API, "Secure Requests").

Nobody can read who is in an audience. Leaving one changes nothing else.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Generator, Iterable
from typing import Any, Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.answer import Made, Shape, read
from sync.sdk.auth import Bearer
from sync.sdk.connector import Config, Connector
from sync.sdk.http import retry_after
from sync.sdk.nouns import Batch, Outcome, Receipt, Status, Value
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order, Rate
from sync.sdk.values import given, json_object, path_part

__all__ = ["Meta", "MetaConfig"]

_KEYS = {
    "email": ("EMAIL", "email"),
    "phone": ("PHONE", "phone_digits"),
    "first_name": ("FN", "name"),
    "last_name": ("LN", "name"),
    "gender": ("GEN", "gender"),
    "birth_year": ("DOBY", "digits"),
    "birth_month": ("DOBM", "two_digits"),
    "birth_day": ("DOBD", "two_digits"),
    "city": ("CT", "a_to_z"),
    "state": ("ST", "a_to_z"),
    "zip": ("ZIP", "zip"),
    "country": ("COUNTRY", "country_lower"),
    "madid": ("MADID", "device_id"),
    "extern_id": ("EXTERN_ID", "trim"),
}
_PLAIN = {"madid", "extern_id"}  # never hashed
_MEANINGS: dict[type[DestinationError], set[int]] = {
    RateLimited: {4, 17, 32, 613, *range(80000, 80015)},
    AuthError: {10, 102, 190, *range(200, 300)},
    Unavailable: {1, 2},
}
_FLAGGED = 1713230
_USAGE = "x-business-use-case-usage"
_EMPTY = "it has nothing to be matched by"


class MetaConfig(Config):
    """One ad account, reached with a system user's token."""

    token: SecretStr = Option(description="Of a system user with the permission ads_management.")
    ad_account_id: str = Option(pattern=r"^\d{1,20}$", description="The ad account's number, without act_.")
    app_secret: SecretStr | None = Option(None, description="Of the token's app: proves each request.")
    source: Literal["USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED"] = Option(
        "USER_PROVIDED_ONLY", description="Where new audiences' people come from (customer_file_source)."
    )
    version: str = Option("v25.0", pattern=r"^v\d{1,3}\.\d$", description="Of the Graph API.")
    base_url: str = Option("https://graph.facebook.com", description="Where the API is.")


class _Proved(Bearer):
    """The token, and the proof that its app sends it."""

    def __init__(self, token: SecretStr, secret: SecretStr) -> None:
        super().__init__(token)
        key, text = secret.get_secret_value().encode(), token.get_secret_value().encode()
        self._proof = hmac.new(key, text, hashlib.sha256).hexdigest()

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.url = request.url.copy_merge_params({"appsecret_proof": self._proof})
        yield from super().auth_flow(request)


class _Counts(Shape):
    audience: str = Option(alias="audience_id")
    received: int = Option(alias="num_received", ge=0, strict=True)
    invalid: int = Option(alias="num_invalid_entries", ge=0, strict=True)


_USER = ObjectSpec(
    name="audience_user",
    title="Person of a custom audience",
    ops=frozenset({Op.ADD, Op.REMOVE}),
    fields=tuple(
        Field(n, identifier=True, normalise=how, hash=None if n in _PLAIN else "sha256", description=key)
        for n, (key, how) in _KEYS.items()
    ),
    limits=Limits(batch_size=10_000, rates=(Rate(5_000, 3600.0),)),
    # Removals go first: where one of a person's values changed, both rows are the same account.
    order=Order.REMOVALS_FIRST,
)


class Meta(Connector[MetaConfig]):
    """Keeps custom audiences. Meta matches people later and tells nobody who was matched."""

    name = "meta"
    title = "Meta custom audiences"
    docs = __doc__ or ""
    config_model = MetaConfig
    objects = {_USER.name: _USER}  # noqa: RUF012

    @classmethod
    def auth(cls, config: MetaConfig) -> httpx.Auth:
        """The token, with the proof where the app's secret is known."""
        return _Proved(config.token, config.app_secret) if config.app_secret else Bearer(config.token)

    @classmethod
    def retry_after(cls, response: httpx.Response) -> float | None:
        """`Retry-After`, or the longest of the times in Meta's own header."""
        waits = _waits(json_object(response.headers.get(_USAGE, "").encode()))
        return retry_after(response) or max((60.0 * minutes for minutes in waits), default=None)

    @classmethod
    def refusal(cls, response: httpx.Response) -> type[DestinationError] | None:
        """By the code in the body, which says more than the status."""
        code = _codes(response.content)[0]
        return next((kind for kind, codes in _MEANINGS.items() if code in codes), None)

    def check(self) -> None:
        """Read the id of one custom audience of the ad account."""
        self.http.get(f"{self._account}/customaudiences", params={"fields": "id", "limit": 1})

    def push(self, batch: Batch) -> Outcome:
        """One request for those who have a value. Raises `RequestError` where Meta calls entries invalid."""
        rows = {change.key: row for change in batch.changes if (row := given(change))}
        empty = [Receipt(c.key, Status.REJECTED, _EMPTY) for c in batch.changes if c.key not in rows]
        if not rows:
            return empty
        used = [name for name in _KEYS if any(name in row for row in rows.values())]
        data = [[row.get(name, "") for name in used] for row in rows.values()]  # empty where there is none
        body = {"payload": {"schema": [_KEYS[name][0] for name in used], "data": data}}
        method = "DELETE" if batch.changes[0].op is Op.REMOVE else "POST"
        self._judge(self._change(method, batch.audience, body), batch.audience, len(data))
        return empty + [Receipt(key, Status.ACCEPTED) for key in rows]

    def create_audience(self, object: str, title: str) -> str:  # noqa: ARG002 - there is one object
        """Make an empty customer file audience; its id."""
        body = {"name": title, "subtype": "CUSTOM", "customer_file_source": self.config.source}
        return read(Made, self.send("POST", f"{self._account}/customaudiences", body)).id

    @property
    def _account(self) -> str:
        return f"/{self.config.version}/act_{self.config.ad_account_id}"

    def _change(self, method: str, audience: str | None, body: Value) -> httpx.Response:
        try:
            return self.send(method, f"/{self.config.version}/{path_part(audience)}/users", body)
        except RequestError as error:
            if _codes(error.detail.encode())[1] != _FLAGGED:
                raise
            detail = error.detail
        fix = "Appeal in Audience Manager, or make a new audience, before anything is sent to it again."
        raise AuthError("Meta flagged this audience and takes no changes to it", detail, fix=fix)

    def _judge(self, response: httpx.Response, audience: str | None, sent: int) -> None:
        """Raise unless the counts say that every row was received and is valid."""
        counts = read(_Counts, response)
        if counts.audience != audience or counts.received != sent or counts.invalid > sent:
            raise ProtocolError("Meta's counts do not fit what was sent", response.text)
        if counts.invalid:
            raise RequestError(f"Meta calls {counts.invalid:,} of {sent:,} entries invalid, and not which")


def _codes(refusal: bytes) -> tuple[int, int]:
    """The code and the subcode of a refusal; 0 where there is none."""
    error = (json_object(refusal) or {}).get("error")
    found = [error.get(name) if isinstance(error, dict) else 0 for name in ("code", "error_subcode")]
    code, subcode = (number if isinstance(number, int) else 0 for number in found)
    return code, subcode


def _waits(usage: dict[str, Any] | None) -> Iterable[float]:
    """Every `estimated_time_to_regain_access` above 0, in minutes."""
    lists = [entries for entries in (usage or {}).values() if isinstance(entries, list)]
    found = [e.get("estimated_time_to_regain_access") for entries in lists for e in entries if isinstance(e, dict)]
    return [float(wait) for wait in found if isinstance(wait, int | float) and 0 < wait < 10_000]
