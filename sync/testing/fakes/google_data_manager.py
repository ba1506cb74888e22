"""Google's Data Manager API in memory: audiences of an advertiser, and uploads that take time.

Answers have the shapes of Google's protos (google/ads/datamanager/v1); what is refused, and with which reasons,
follows its `ErrorReason` and the guide's pages on errors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl

import httpx

from sync.sdk.nouns import Rate
from sync.testing.fakes.google import TokenServer, error
from sync.testing.fakes.platform import Asked, Fake, Ready, Route

__all__ = ["FakeDataManager", "ready"]

Json = dict[str, Any]
_SCOPE = "https://www.googleapis.com/auth/datamanager"
_LISTS = r"/v1/accountTypes/([A-Z_]+)/accounts/(\d+)/userLists"
_DIGEST = re.compile("[0-9a-fA-F]{64}")
_KINDS = {"CONTACT_ID": "userData", "MOBILE_ID": "mobileData"}
_STATEMENTS = {"consent", "termsOfService"}
_MOST, _MOST_IDS = 10_000, 10


@dataclass
class _Upload:
    """An accepted request."""

    destination: Json
    members: list[Json]
    remove: bool
    denied: bool
    over: float
    done: bool = False


class FakeDataManager(Fake):
    """`lists` has the identifiers by audience id: digests, addresses' digests and codes, mobile ids; `kinds` says
    which of them an audience takes.

    An upload takes `takes` seconds by the clock. Records with an identifier in `failing` fail then, for the reason
    given. Tokens are given to the service account whose key is `tokens.key(url)`, and for `refresh_token`.
    """

    routes: ClassVar[tuple[Route, ...]] = (
        ("POST", "/token", "_token"),
        ("POST", r"/v1/audienceMembers:(ingest|remove)", "_change"),
        ("GET", "/v1/requestStatus:retrieve", "_status"),
        ("GET", _LISTS, "_page"),
        ("POST", _LISTS, "_create"),
    )

    def __init__(self, account: str = "1234567890", *, takes: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.account = account
        self.takes = takes
        self.tokens = TokenServer(_SCOPE)
        self.refresh_token = "1//refresh"  # noqa: S105 - nobody's
        self.lists: dict[str, set[str]] = {}
        self.failing: dict[str, str] = {}
        self.kinds: dict[str, str] = {}
        self._uploads: dict[str, _Upload] = {}

    def add_list(self, kind: str = "CONTACT_ID") -> str:
        """An audience that was there before; its id."""
        id = str(900_000 + len(self.lists))
        self.lists[id], self.kinds[id] = set(), kind
        return id

    def authorised(self, request: httpx.Request) -> bool:
        return request.url.path == "/token" or self.tokens.accepts(request)

    def unauthorised(self) -> httpx.Response:
        return error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def too_fast(self, wait: float) -> httpx.Response:  # noqa: ARG002 - Google does not say for how long
        return error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Requests per minute'.")

    def no_route(self, request: httpx.Request) -> httpx.Response:  # noqa: ARG002 - whatever it is
        return error(404, "NOT_FOUND", "Requested entity was not found.")

    def _token(self, asked: Asked) -> httpx.Response:
        form = dict(parse_qsl(asked.request.content.decode()))
        if form.get("grant_type") != "refresh_token":
            return self.tokens(asked.request)
        if form.get("refresh_token") != self.refresh_token:
            return httpx.Response(400, json={"error": "invalid_grant", "error_description": "Bad Request"})
        token = f"ya29.refreshed-{len(self.tokens.given)}"
        self.tokens.given[token] = self.tokens.clock() + 3599
        return httpx.Response(200, json={"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    # -- uploads

    def _change(self, asked: Asked) -> httpx.Response:
        body, remove = asked.body, asked.parts[0] == "remove"
        problems = list(self._wrong(body, remove))
        if problems:
            return _refused(problems)
        if body.get("validateOnly"):
            return httpx.Response(200, json={})
        id = f"request-{len(self._uploads) + 1}"
        denied = "CONSENT_DENIED" in (body.get("consent") or {}).values()
        over = self.clock() + self.takes
        upload = _Upload(body["destinations"][0], body["audienceMembers"], remove, denied, over)
        self._uploads[id] = upload
        return httpx.Response(200, json={"requestId": id})

    def _wrong(self, body: Any, remove: bool) -> Iterator[Json]:
        """What fails fast: then nothing of the request is done."""
        body = body if isinstance(body, dict) else {}
        destinations, members = body.get("destinations") or [], body.get("audienceMembers") or []
        if len(destinations) != 1 or not members:
            yield _violation(
                "destinations", "REQUIRED_FIELD_MISSING", "One destination and some members are needed."
            )
            return
        if len(members) > _MOST:
            yield _violation("audience_members", "TOO_MANY_AUDIENCE_MEMBERS", "At most 10,000 members.")
        if remove and body.keys() & _STATEMENTS:
            yield _violation("consent", "INVALID_ARGUMENT", "Unknown name.")
        owner = (destinations[0].get("operatingAccount") or {}).get("accountId")
        id = destinations[0].get("productDestinationId")
        if owner != self.account or id not in self.lists:
            yield _violation("destinations[0]", "INVALID_DESTINATION", "This destination is not valid.")
            return
        wanted = _KINDS[self.kinds[id]]
        if wanted == "userData" and body.get("encoding") != "HEX":
            yield _violation("encoding", "REQUIRED_FIELD_MISSING", "The encoding is missing.")
        for number, member in enumerate(members):
            yield from _wrong_member(f"audience_members[{number}]", wanted, member)

    def _status(self, asked: Asked) -> httpx.Response:
        upload = self._uploads.get(asked.params.get("requestId", ""))
        if upload is None:
            return error(404, "NOT_FOUND", "Requested entity was not found.")
        answer: Json = {"destination": upload.destination, "requestStatus": "PROCESSING"}
        if self.clock() >= upload.over:
            answer |= self._finish(upload)
        return httpx.Response(200, json={"requestStatusPerDestination": [answer]})

    def _finish(self, upload: _Upload) -> Json:
        failed: Counter[str] = Counter()
        for member in upload.members:
            found = list(_identifiers(member))
            reason = next((self.failing[one] for one in found if one in self.failing), None)
            if upload.denied or reason:
                failed[reason or "PROCESSING_ERROR_REASON_DENIED_CONSENT"] += 1
            elif not upload.done:
                self._keep(upload, set(found))
        upload.done = True
        count, kind = len(upload.members), "mobileData" if "mobileData" in upload.members[0] else "userData"
        word, name = (
            ("Removal", f"{kind}RemovalStatus") if upload.remove else ("Ingestion", f"{kind}IngestionStatus")
        )
        state = "SUCCESS" if not failed else "FAILED" if failed.total() == count else "PARTIAL_SUCCESS"
        errors = [{"reason": reason, "recordCount": str(n)} for reason, n in failed.items()]
        return {
            "requestStatus": state,
            f"audienceMembers{word}Status": {name: {"recordCount": str(count)}},
        } | ({"errorInfo": {"errorCounts": errors}} if errors else {})

    def _keep(self, upload: _Upload, found: set[str]) -> None:
        members = self.lists[upload.destination["productDestinationId"]]
        if upload.remove:
            members -= found
        else:
            members |= found

    # -- audiences

    def _page(self, asked: Asked) -> httpx.Response:
        if asked.parts[1] != self.account:
            return error(403, "PERMISSION_DENIED", "The caller does not have permission.")
        size = int(asked.params.get("pageSize", "50"))
        found = [{"id": id, "displayName": f"Audience {id}"} for id in list(self.lists)[:size]]
        return httpx.Response(200, json={"userLists": found})

    def _create(self, asked: Asked) -> httpx.Response:
        body = asked.body
        if asked.parts[1] != self.account:
            return error(403, "PERMISSION_DENIED", "The caller does not have permission.")
        info = body.get("ingestedUserListInfo") or {}
        (kind,) = info.get("uploadKeyTypes") or ["?"]
        if not body.get("displayName") or kind not in _KINDS:
            return _refused([_violation("user_list", "REQUIRED_FIELD_MISSING", "A required field is missing.")])
        app = info.get("mobileIdInfo") or {}
        if kind == "MOBILE_ID" and not (app.get("appId") and app.get("keySpace") in ("IOS", "ANDROID")):
            return _refused(
                [_violation("mobile_id_info", "REQUIRED_FIELD_MISSING", "App and key space are needed.")]
            )
        id = self.add_list(kind)
        name = f"accountTypes/{asked.parts[0]}/accounts/{asked.parts[1]}/userLists/{id}"
        return httpx.Response(200, json={"name": name, "id": id, **body})


def _wrong_member(path: str, wanted: str, member: Json) -> Iterator[Json]:
    if set(member) != {wanted}:
        yield _violation(path, "INVALID_USER_LIST_TYPE", "This kind of data is not of this audience's type.")
        return
    if wanted == "mobileData":
        if not all(member[wanted].get("mobileIds") or [""]):
            yield _violation(path, "INVALID_FORMAT", "A mobile id is missing.")
        return
    found = member[wanted].get("userIdentifiers") or []
    if not 0 < len(found) <= _MOST_IDS:
        yield _violation(path, "TOO_MANY_USER_IDENTIFIERS", "From 1 to 10 identifiers.")
    for number, one in enumerate(found):
        yield from _wrong_identifier(f"{path}.user_data.user_identifiers[{number}]", one)


def _wrong_identifier(path: str, one: Json) -> Iterator[Json]:
    address = one.get("address")
    if len(one) != 1 or (address is not None and len(address) != 4):
        yield _violation(
            path, "REQUIRED_FIELD_MISSING", "One identifier, and all parts of an address, are needed."
        )
        return
    digests = [address["givenName"], address["familyName"]] if address else list(one.values())
    if not all(isinstance(text, str) and _DIGEST.fullmatch(text) for text in digests):
        yield _violation(path, "INVALID_SHA256_FORMAT", "The SHA-256 value is malformed.")
    if address and not re.fullmatch("[A-Z]{2}", str(address["regionCode"])):
        yield _violation(path, "INVALID_COUNTRY_CODE", "The country code is not valid.")


def _identifiers(member: Json) -> Iterator[str]:
    """What an audience keeps of a member."""
    yield from member.get("mobileData", {}).get("mobileIds", [])
    for one in member.get("userData", {}).get("userIdentifiers", []):
        (value,) = one.values()
        yield "|".join(value.values()) if isinstance(value, dict) else value


def _violation(field: str, reason: str, description: str) -> Json:
    return {"field": field, "reason": reason, "description": description}


def _refused(violations: list[Json]) -> httpx.Response:
    answer = error(400, "INVALID_ARGUMENT", "There was a problem with the request.")
    bad = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations[:20]}
    return httpx.Response(400, json={"error": answer.json()["error"] | {"details": [bad]}})


def ready() -> Ready:
    """An advertiser with an audience of contact data and one of mobile ids; uploads take two seconds."""
    fake = FakeDataManager(rate=Rate(300, 60.0), takes=2.0)
    audiences = {"audience_member": fake.add_list(), "audience_device": fake.add_list("MOBILE_ID")}

    def options(url: str) -> Json:
        key = fake.tokens.key(f"{url}/token")
        known = {"account_id": fake.account, "service_account": key, "app_id": "com.acme.shop"}
        return {**known, "base_url": url, "poll_after": 1.0}

    return Ready(fake, options, audiences, members=lambda _, audience: fake.lists[audience])
