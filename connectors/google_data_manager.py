"""Google Data Manager: members of a Customer Match audience (Google Ads, Display & Video 360), by hashed contact
data.

Facts and where they come from. *Protos* are Google's own (googleapis, google/ads/datamanager/v1), *guide* the Data
Manager API's pages at developers.google.com/data-manager.

- `POST /v1/audienceMembers:ingest` and `:remove`, at most 10,000 members with 10 identifiers each; the answer is a
  `requestId` (protos). One bad value refuses the whole request and nothing of it is done (guide, "Understand API
  errors"), so that the engine finds it by halves.
- `GET /v1/requestStatus:retrieve` says per destination PROCESSING, SUCCESS, PARTIAL_SUCCESS or FAILED, with counts
  of failed records by reason and never which (protos). It takes from 30 minutes to 24 hours (guide,
  "Diagnostics"). After SUCCESS for as many records as were sent they are applied; after PARTIAL_SUCCESS they are
  accepted and the counts are told; after FAILED all are rejected, or left for a later run where Google says that
  the fault was its own.
- E-mail addresses, telephone numbers and names are hashed with SHA-256 after normalising; region and postal codes
  are not; an address needs all four of its parts (protos, guide "Format user data", and the vendor's
  data-manager-python, format.py). The protos want names without punctuation, which its format.py does not see to.
  Contact data goes as `userData`; `compositeData`, which the guide recommends for what may come, takes the same.
- An audience is of contact data or of mobile ids, never both (protos, `uploadKeyTypes`): hence two objects.
- Making one sends the `UserList` itself, as the protos' HTTP rule says; `login-account` is a header there
  (protos).
- 300 requests a minute and 100,000 a day for a Google Cloud project, by service and read or write (guide,
  "Limits").

Nobody can read who is in an audience. Leaving one changes nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import httpx
from pydantic import Field as Option
from pydantic import SecretStr

from sync.errors import ProtocolError, RequestError
from sync.sdk.answer import Made, Shape, read
from sync.sdk.auth import account_of
from sync.sdk.connector import Connector
from sync.sdk.google import GoogleConfig
from sync.sdk.nouns import Batch, Change, Job, Outcome, Receipt, Status, Value
from sync.sdk.objects import Field, Limits, ObjectSpec, Op, Order, Rate
from sync.sdk.settled import every
from sync.sdk.values import given, json_object

__all__ = ["DataManager", "DataManagerConfig"]

_OWN_FAULT = "PROCESSING_ERROR_REASON_INTERNAL_ERROR"
_LONGEST = 7200.0  # seconds between two questions
_EMPTY = "it has nothing to be matched by: an address needs first_name, last_name, region_code and postal_code"
_VALIDATED = "Google found nothing wrong, and nothing was done: validate_only is set"
AccountType = Literal["GOOGLE_ADS", "DISPLAY_VIDEO_PARTNER", "DISPLAY_VIDEO_ADVERTISER", "DATA_PARTNER"]
Consent = Literal["granted", "denied"]


class DataManagerConfig(GoogleConfig):
    """One advertiser's account, with a service account's key or with the consent of a person who may edit it."""

    account_id: str = Option(
        pattern=r"^\d{1,20}$", description="The account that owns the audiences, digits only."
    )
    account_type: AccountType = Option("GOOGLE_ADS", description="What kind of account that is.")
    login_account_id: str | None = Option(None, pattern=r"^\d{1,20}$", description="A manager account, if by one.")
    login_account_type: AccountType = Option("GOOGLE_ADS", description="What kind of account that is.")
    ad_user_data: Consent | None = Option(None, description="Do these people agree to ad user data (DMA).")
    ad_personalization: Consent | None = Option(None, description="Do they agree to personalised ads (DMA).")
    customer_match_terms_accepted: bool = Option(False, description="The account accepted Customer Match's terms.")
    app_id: str = Option("", description="The app that mobile ids are from, to make an audience of them.")
    app_platform: Literal["IOS", "ANDROID"] = Option("ANDROID", description="That app's.")
    validate_only: bool = Option(False, description="Let Google look at uploads and do nothing with them.")
    poll_after: float = Option(1800.0, gt=0, le=86400, description="Seconds until Google is first asked.")
    base_url: str = Option("https://datamanager.googleapis.com", description="Where the API is.")


class _Requested(Shape):
    id: str = Option(alias="requestId", min_length=1, max_length=1000)


class _Records(Shape):
    count: int | None = Option(None, alias="recordCount")


class _Failed(Shape):
    count: int = Option(0, alias="recordCount")
    reason: str = Option("", pattern="^[A-Z_]{0,120}$")  # it is told: no room for anybody's data


class _Errors(Shape):
    counts: list[_Failed] = Option([], alias="errorCounts")


class _Destination(Shape):
    audience: str = Option("", alias="productDestinationId")


class _Progress(Shape):
    state: Literal["PROCESSING", "SUCCESS", "PARTIAL_SUCCESS", "FAILED"] = Option(alias="requestStatus")
    destination: _Destination = _Destination()
    errors: _Errors = Option(_Errors(), alias="errorInfo")
    added: dict[str, _Records] = Option({}, alias="audienceMembersIngestionStatus")
    removed: dict[str, _Records] = Option({}, alias="audienceMembersRemovalStatus")


class _Status(Shape):
    destinations: list[_Progress] = Option(alias="requestStatusPerDestination", min_length=1, max_length=1)


def _object(name: str, title: str, *fields: Field) -> ObjectSpec:
    # Removals go first: where one of a person's values changed, both sets are the same account.
    limits = Limits(batch_size=10_000, concurrency=2, rates=(Rate(300, 60.0),))
    ops = frozenset({Op.ADD, Op.REMOVE})
    return ObjectSpec(name, title, ops, fields, limits, order=Order.REMOVALS_FIRST)


_MEMBER = _object(
    "audience_member",
    "Member of an audience of contact data",
    Field("email", identifier=True, normalise="gmail", hash="sha256"),
    Field("phone", identifier=True, normalise="phone_plus", hash="sha256", description="With its country's code."),
    Field("first_name", identifier=True, normalise="name", hash="sha256", description="Without titles."),
    Field("last_name", identifier=True, normalise="name", hash="sha256", description="Without suffixes."),
    Field("region_code", identifier=True, normalise="country_code", description="The country as two letters."),
    Field("postal_code", identifier=True, normalise="trim"),
)
_DEVICE = _object(
    "audience_device",
    "Member of an audience of mobile ids",
    Field("mobile_id", identifier=True, required=True, normalise="trim", description="IDFA or Android's id."),
)


class DataManager(Connector[DataManagerConfig]):
    """Keeps Customer Match audiences; Google tells later, and in numbers, what became of an upload."""

    name = "google_data_manager"
    title = "Google Data Manager"
    docs = __doc__ or ""
    config_model = DataManagerConfig
    objects = {_MEMBER.name: _MEMBER, _DEVICE.name: _DEVICE}  # noqa: RUF012

    @classmethod
    def auth(cls, config: DataManagerConfig) -> httpx.Auth:
        """The service account's, or the person's."""
        return config.tokens("https://www.googleapis.com/auth/datamanager")

    @classmethod
    def account(cls, config: DataManagerConfig) -> str:
        """Quotas are those of a Google Cloud project, which the credentials belong to."""
        return account_of(config.base_url, config.service_account or config.client_secret or SecretStr(""))

    def check(self) -> None:
        """Read one audience of the account."""
        self.http.get(f"/v1/{self._parent}/userLists", params={"pageSize": 1}, headers=self._login)

    def push(self, batch: Batch) -> Outcome:
        """One request, which becomes a job. Raises `RequestError` with what Google says is wrong."""
        members = {c.key: member for c in batch.changes if (member := _member(batch.object, c))}
        empty = tuple(every((c for c in batch.changes if c.key not in members), Status.REJECTED, _EMPTY))
        if not members:
            return empty
        remove = batch.changes[0].op is Op.REMOVE
        verb = "remove" if remove else "ingest"
        body = self._body(batch, list(members.values())) | ({} if remove else self._statements)
        response = self._post(f"/v1/audienceMembers:{verb}", body, {})
        if self.config.validate_only:
            return [*empty, *(Receipt(key, Status.DEFERRED, _VALIDATED) for key in members)]
        return Job(read(_Requested, response).id, {"asked": 0}, empty, self.config.poll_after)

    def poll(self, job: Job, batch: Batch) -> Outcome:
        """Ask once; again after twice the time while Google is at it. Raises `ProtocolError`."""
        response = self.http.get("/v1/requestStatus:retrieve", params={"requestId": job.id})
        (found,) = read(_Status, response).destinations
        if found.destination.audience not in ("", batch.audience):
            raise ProtocolError("Google answered for another audience", response.text)
        if found.state == "PROCESSING":
            asked = int(job.data.get("asked", 0)) + 1
            wait = min(self.config.poll_after * 2.0**asked, max(_LONGEST, self.config.poll_after))
            return Job(job.id, {"asked": asked}, job.settled, wait)
        settled = {receipt.key for receipt in job.settled}
        rest = [change for change in batch.changes if change.key not in settled]
        return every(rest, *_outcome(found, len(rest)))

    def create_audience(self, object: str, title: str) -> str:
        """Make an empty Customer Match audience; its id. Raises `RequestError`."""
        source = {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"}
        info: dict[str, Value] = {"uploadKeyTypes": ["CONTACT_ID"], "contactIdInfo": source}
        if object == _DEVICE.name:
            if not self.config.app_id:
                fix = "Set app_id and app_platform of the destination, or make the audience in Google Ads."
                raise RequestError("an audience of mobile ids belongs to an app", fix=fix)
            app = {"appId": self.config.app_id, "keySpace": self.config.app_platform}
            info = {"uploadKeyTypes": ["MOBILE_ID"], "mobileIdInfo": source | app}
        body: dict[str, Value] = {"displayName": title, "membershipStatus": "OPEN", "ingestedUserListInfo": info}
        return read(Made, self._post(f"/v1/{self._parent}/userLists", body, self._login)).id

    @property
    def _parent(self) -> str:
        return f"accountTypes/{self.config.account_type}/accounts/{self.config.account_id}"

    @property
    def _login(self) -> dict[str, str]:
        config = self.config
        value = f"accountTypes/{config.login_account_type}/accounts/{config.login_account_id}"
        return {"login-account": value} if config.login_account_id else {}

    @property
    def _statements(self) -> dict[str, Value]:
        """What the configuration says of all these people: consent, and the terms."""
        asked = {"adUserData": self.config.ad_user_data, "adPersonalization": self.config.ad_personalization}
        consent = {name: f"CONSENT_{value.upper()}" for name, value in asked.items() if value}
        accepted = self.config.customer_match_terms_accepted
        terms = {"customerMatchTermsOfServiceStatus": "ACCEPTED"} if accepted else {}
        return {k: v for k, v in {"consent": consent, "termsOfService": terms}.items() if v}

    def _body(self, batch: Batch, members: Sequence[Value]) -> dict[str, Value]:
        config = self.config
        destination: dict[str, Value] = {
            "operatingAccount": {"accountType": config.account_type, "accountId": config.account_id},
            "productDestinationId": batch.audience,
        }
        if config.login_account_id:
            login = {"accountType": config.login_account_type, "accountId": config.login_account_id}
            destination["loginAccount"] = login
        body: dict[str, Value] = {"destinations": [destination], "audienceMembers": members}
        body |= {"encoding": "HEX"} if batch.object == _MEMBER.name else {}
        return body | ({"validateOnly": True} if config.validate_only else {})

    def _post(self, path: str, body: Value, headers: dict[str, str]) -> httpx.Response:
        try:
            return self.send("POST", path, body, headers=headers)
        except RequestError as error:
            refusal = error
        raise RequestError(refusal.message, _why(refusal.detail) or refusal.detail)


def _member(object: str, change: Change) -> Value:
    """A member as Google takes it; None where nothing identifies it."""
    known = given(change)
    if object == _DEVICE.name:
        return {"mobileData": {"mobileIds": [known["mobile_id"]]}} if "mobile_id" in known else None
    names = {"first_name": "givenName", "last_name": "familyName", "region_code": "regionCode"}
    address = {key: known[name] for name, key in (names | {"postal_code": "postalCode"}).items() if name in known}
    contacts = (("email", "emailAddress"), ("phone", "phoneNumber"))
    found: list[Value] = [{key: known[name]} for name, key in contacts if name in known]
    found += [{"address": address}] if len(address) == 4 else []
    return {"userData": {"userIdentifiers": found}} if found else None


def _outcome(found: _Progress, sent: int) -> tuple[Status, str]:
    """What may be said of every record of an upload that is over."""
    counted = [records.count for records in (*found.added.values(), *found.removed.values()) if records.count]
    if any(count != sent for count in counted):
        return Status.UNKNOWN, "Google counts more or fewer records than were sent"
    failed = found.errors.counts
    reasons = ", ".join(f"{f.reason.removeprefix('PROCESSING_ERROR_REASON_')}: {f.count:,}" for f in failed)
    if found.state == "SUCCESS":
        return (Status.APPLIED if counted and not failed else Status.ACCEPTED), reasons
    if found.state == "PARTIAL_SUCCESS":
        return Status.ACCEPTED, f"Google did not take some of {sent:,} records, and does not say which ({reasons})"
    own = bool(failed) and all(f.reason == _OWN_FAULT for f in failed)
    none = f"Google took none of the upload ({reasons or 'no reason'})"
    return Status.DEFERRED if own else Status.REJECTED, none


def _why(refusal: str) -> str:
    """The violations of a google.rpc.Status, or its message; empty where it has neither."""
    error = (json_object(refusal.encode()) or {}).get("error")
    found: dict[str, Any] = error if isinstance(error, dict) else {}
    details = found.get("details")
    parts = [d.get("fieldViolations") for d in details if isinstance(d, dict)] if isinstance(details, list) else []
    listed = [v for part in parts if isinstance(part, list) for v in part if isinstance(v, dict)]
    words = [f"{v.get('description') or v.get('reason')} ({v.get('field')})" for v in listed]
    return "; ".join(words) or str(found.get("message") or "")
