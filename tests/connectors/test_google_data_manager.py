"""Google Data Manager: what becomes of an audience's members, against the API in memory."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.google_data_manager import DataManager, DataManagerConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.nouns import Batch, Change, Job, Op, Rate, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.google_data_manager import FakeDataManager, ready
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, statuses
from tests.connectors.uploads import Upload

PERSON = {"client_id": "c1", "client_secret": "GOCSPX-0123456789", "refresh_token": "1//refresh"}
OPTIONS = {
    "account_id": "1234567890",
    "base_url": "https://datamanager.googleapis.com",
    "token_url": "https://datamanager.googleapis.com/token",
    "poll_after": 0.01,
    **PERSON,
}
LIST = "900000"
NO_CONSENT = "PROCESSING_ERROR_REASON_NO_CONSENT"
INTERNAL = "PROCESSING_ERROR_REASON_INTERNAL_ERROR"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wrong_members(request: httpx.Request) -> Iterator[str]:
    """One kind of data, digests in hex, and their encoding: what the protos say in words."""
    if "/audienceMembers:" not in request.url.path:
        return
    body = json.loads(request.content)
    members = body.get("audienceMembers") or []
    for member in members:
        for one in (member.get("userData") or {}).get("userIdentifiers") or []:
            address = one.get("address") or {}
            hashed = [
                *(v for k, v in one.items() if k != "address"),
                *(address.get(k) for k in ("givenName", "familyName") if address),
            ]
            if not one or not all(isinstance(v, str) and re.fullmatch("[0-9a-f]{64}", v) for v in hashed):
                yield "an identifier is not a SHA-256 in lower-case hex"
        if len(member.keys() & {"userData", "mobileData"}) != 1:
            yield "a member has not exactly one kind of data"
    if any("userData" in member for member in members) and body.get("encoding") != "HEX":
        yield "`encoding` is required for user data"


class TestDataManagerContract(ConnectorContract):
    connector = DataManager
    config: ClassVar[dict[str, Any]] = OPTIONS | {
        "login_account_id": "99",
        "ad_user_data": "granted",
        "ad_personalization": "granted",
        "customer_match_terms_accepted": True,
        "app_id": "com.example.shop",
    }
    audience = LIST
    described = Described(
        "google_data_manager/v1.json",
        authenticated=lambda request: request.headers.get("authorization", "").startswith("Bearer "),
        rules=(wrong_members,),
        # The description has the request message here; its HTTP rule sends the list itself (`body: "user_list"`).
        overlays={
            ("UserListService.CreateUserList", "application/json"): {"$ref": "#/components/schemas/UserList"},
        },
    )
    mutants_caught = 0.90

    def begin(self) -> None:
        """An upload's number is the next one: a fresh account for what is compared."""
        self.__dict__.pop("fake", None)

    @cached_property
    def fake(self) -> FakeDataManager:
        """Time passes with every look at the clock, so that an upload takes two questions."""
        fake = FakeDataManager(clock=map(float, itertools.count()).__next__, takes=2.0)
        fake.tokens.given["kit-token"] = float("inf")
        fake.add_list()
        return fake

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.fake.kinds[LIST] = "MOBILE_ID" if b'"mobileData"' in request.read() else "CONTACT_ID"
        return self.fake(request)


@pytest.fixture
def fake() -> FakeDataManager:
    return FakeDataManager()


@pytest.fixture
def google(fake: FakeDataManager) -> Iterator[DataManager]:
    with connected(fake) as connector:
        yield connector


def connected(app: App, **options: Any) -> AbstractContextManager[DataManager]:
    """A connector with its production client, whose wire is a function."""
    given = {name: value for name, value in {**OPTIONS, **options}.items() if value is not None}
    return connection(DataManager, app, **given)


def change(name: str, op: Op = Op.ADD, **identifiers: Any) -> Change:
    return Change(op, name, identifiers or {"email": sha(f"{name}@x.example"), "phone": None}, {})


def batch(audience: str, *changes: Change, object: str = "audience_member") -> Batch:
    return Batch("b1", "winback", object, audience, changes)


def through(connector: DataManager, given: Batch) -> dict[str, Receipt]:
    """Push, and ask until it is over."""
    outcome = connector.push(given)
    settled: list[Receipt] = []
    for _ in range(5):
        if not isinstance(outcome, Job):
            break
        settled = list(outcome.settled)
        outcome = connector.poll(outcome, given)
    assert not isinstance(outcome, Job)
    return {receipt.key: receipt for receipt in [*settled, *outcome]}


def test_members_are_added_and_removed_once_google_is_done(fake: FakeDataManager, google: DataManager) -> None:
    audience = fake.add_list()
    address = {"first_name": sha("ada"), "last_name": sha("l"), "region_code": "AU", "postal_code": "3000"}

    added = through(google, batch(audience, change("ada"), change("bob", email=None, phone=sha("+1"), **address)))
    there = set(fake.lists[audience])
    removed = through(google, batch(audience, change("ada", Op.REMOVE)))

    assert statuses(added) == {"ada": "applied", "bob": "applied"}
    assert there == {sha("ada@x.example"), sha("+1"), f"{sha('ada')}|{sha('l')}|AU|3000"}
    assert statuses(removed) == {"ada": "applied"}
    assert fake.lists[audience] == there - {sha("ada@x.example")}


def test_an_upload_is_asked_about_less_and_less_often_until_it_is_over(fake: FakeDataManager) -> None:
    audience = fake.add_list()
    fake.takes, now = 60.0, [0.0]
    fake.clock = lambda: now[0]
    given = batch(audience, change("ada"))
    waits = []

    with connected(fake, poll_after=1800) as connector:
        job = connector.push(given)
        for _ in range(4):
            assert isinstance(job, Job)
            waits.append(job.poll_after)
            job = connector.poll(job, given)
        now[0] = 60.0
        assert isinstance(job, Job)
        outcome = connector.poll(job, given)

    assert waits == [1800, 3600, 7200, 7200]
    assert isinstance(outcome, list)
    assert [r.status for r in outcome] == [Status.APPLIED]


def test_an_incomplete_address_is_left_out_and_alone_it_identifies_nobody(
    fake: FakeDataManager, google: DataManager
) -> None:
    audience = fake.add_list()
    part = {"first_name": sha("a"), "last_name": sha("b"), "region_code": "AU", "postal_code": ""}

    receipts = through(google, batch(audience, change("ada", email=sha("e"), **part), change("bob", **part)))

    assert statuses(receipts) == {"ada": "applied", "bob": "rejected"}
    assert receipts["bob"].reason.startswith("it has nothing to be matched by")
    assert fake.lists[audience] == {sha("e")}


def test_nothing_is_asked_where_nobody_can_be_matched(fake: FakeDataManager, google: DataManager) -> None:
    receipts = through(google, batch(fake.add_list(), change("bob", email="")))

    assert statuses(receipts) == {"bob": "rejected"}
    assert fake.requests == 0


def test_devices_are_members_of_audiences_of_their_own(fake: FakeDataManager, google: DataManager) -> None:
    audience = fake.add_list("MOBILE_ID")
    devices = batch(audience, change("ada", mobile_id="aece-52e7"), object="audience_device")

    assert statuses(through(google, devices)) == {"ada": "applied"}
    assert fake.lists[audience] == {"aece-52e7"}
    with pytest.raises(RequestError) as raised:
        google.push(batch(audience, change("ada")))
    assert raised.value.detail == "This kind of data is not of this audience's type. (audience_members[0])"


@pytest.mark.parametrize(
    ("reason", "failing", "status", "words"),
    [
        (NO_CONSENT, 1, Status.ACCEPTED, "did not take some of 3 records, and does not say which (NO_CONSENT: 1)"),
        (NO_CONSENT, 3, Status.REJECTED, "took none of the upload (NO_CONSENT: 3)"),
        (INTERNAL, 3, Status.DEFERRED, "took none of the upload (INTERNAL_ERROR: 3)"),
    ],
)
def test_counts_of_failures_are_told_and_blamed_on_nobody(
    fake: FakeDataManager, google: DataManager, reason: str, failing: int, status: Status, words: str
) -> None:
    audience = fake.add_list()
    people = [change(name) for name in ("ada", "bob", "eve")]
    fake.failing = {str(one.identifiers["email"]): reason for one in people[:failing]}

    receipts = through(google, batch(audience, *people))

    assert {receipt.status for receipt in receipts.values()} == {status}
    assert receipts["ada"].reason == f"Google {words}"


def status_of(**answer: Any) -> httpx.Response:
    return httpx.Response(200, json={"requestStatusPerDestination": [answer]})


def count(records: Any) -> dict[str, Any]:
    return {"audienceMembersIngestionStatus": {"userDataIngestionStatus": {"recordCount": records}}}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (status_of(requestStatus="SUCCESS", **count("1")), Status.APPLIED),
        (status_of(requestStatus="SUCCESS", **count("2")), Status.UNKNOWN),
        (status_of(requestStatus="FAILED", **count("2")), Status.UNKNOWN),
        (status_of(requestStatus="SUCCESS"), Status.ACCEPTED),
        (status_of(requestStatus="FAILED"), Status.REJECTED),
    ],
)
def test_what_is_over_is_only_as_good_as_its_counts(answer: httpx.Response, status: Status) -> None:
    with connected(lambda _: answer, service_account=None) as connector:
        connector.client = None  # type: ignore[attr-defined]
        receipts = poll_once(connector)

    assert [receipt.status for receipt in receipts] == [status]


def poll_once(connector: DataManager) -> list[Receipt]:
    connector.http.auth = None  # the token is not what this is about
    outcome = connector.poll(Job("r1"), batch("1", change("ada")))
    assert isinstance(outcome, list)
    return outcome


@pytest.mark.parametrize(
    "answer",
    [
        status_of(requestStatus="REQUEST_STATUS_UNKNOWN"),
        status_of(requestStatus="DONE", **count("1")),
        status_of(requestStatus="SUCCESS", destination={"productDestinationId": "2"}, **count("1")),
        status_of(requestStatus="SUCCESS", **count("many")),
        httpx.Response(200, json={"requestStatusPerDestination": []}),
        httpx.Response(200, json={"requestStatusPerDestination": [{"requestStatus": "SUCCESS"}] * 2}),
    ],
)
def test_a_state_that_is_none_settles_nothing(answer: httpx.Response) -> None:
    with connected(lambda _: answer) as connector, pytest.raises(ProtocolError):
        poll_once(connector)


def test_one_bad_value_refuses_the_request_and_the_reason_says_which(
    fake: FakeDataManager, google: DataManager
) -> None:
    audience = fake.add_list()

    with pytest.raises(RequestError) as raised:
        google.push(batch(audience, change("ada"), change("bad", email="not a digest")))

    path = "audience_members[1].user_data.user_identifiers[0]"
    assert raised.value.detail == f"The SHA-256 value is malformed. ({path})"
    assert fake.lists[audience] == set()


@pytest.mark.parametrize("detail", ["", "[]", '{"error": 3}', '{"error": {"message": "m", "details": [3]}}'])
def test_a_refusal_in_another_shape_is_kept_as_it_is(detail: str) -> None:
    with connected(lambda _: httpx.Response(400, text=detail)) as connector:
        connector.http.auth = None
        with pytest.raises(RequestError) as raised:
            connector.push(batch("1", change("ada")))

    assert raised.value.detail == ("m" if "details" in detail else detail)


def test_what_the_configuration_states_of_these_people_goes_with_additions(fake: FakeDataManager) -> None:
    bodies: list[dict[str, Any]] = []

    def watched(request: httpx.Request) -> httpx.Response:
        if "audienceMembers" in request.url.path:
            bodies.append(json.loads(request.read()))
        return fake(request)

    stated = {"ad_user_data": "granted", "customer_match_terms_accepted": True, "login_account_id": "99"}
    with connected(watched, **stated) as connector:
        for op in (Op.ADD, Op.REMOVE):
            connector.push(batch(fake.add_list(), change("ada", op)))

    added, removed = bodies
    assert added["consent"] == {"adUserData": "CONSENT_GRANTED"}
    assert added["termsOfService"] == {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    assert not {"consent", "termsOfService"} & removed.keys()
    assert removed["destinations"][0]["loginAccount"] == {"accountType": "GOOGLE_ADS", "accountId": "99"}


def test_an_upload_can_be_looked_at_without_being_done(fake: FakeDataManager) -> None:
    audience = fake.add_list()

    with connected(fake, validate_only=True) as connector:
        fine = through(connector, batch(audience, change("ada")))
        with pytest.raises(RequestError):
            connector.push(batch(audience, change("bad", email="x")))

    assert statuses(fine) == {"ada": "deferred"}
    assert fake.lists[audience] == set()


def test_audiences_are_made_of_contact_data_or_of_an_apps_ids(fake: FakeDataManager, google: DataManager) -> None:
    made = google.create_audience("audience_member", "Lapsed buyers")
    with connected(fake, app_id="com.example.shop", app_platform="IOS") as connector:
        devices = connector.create_audience("audience_device", "Lapsed shoppers")

    assert (fake.kinds[made], fake.kinds[devices]) == ("CONTACT_ID", "MOBILE_ID")
    with pytest.raises(RequestError, match="belongs to an app"):
        google.create_audience("audience_device", "Lapsed shoppers")


def test_the_quota_is_a_rate_limit_without_a_time() -> None:
    with connected(FakeDataManager(rate=Rate(2, 60.0))) as connector:  # the token is asked for first
        connector.check()

        with pytest.raises(RateLimited):
            connector.check()


@pytest.mark.parametrize("wrong", [{"refresh_token": "1//wrong"}, {"account_id": "1"}])
def test_wrong_credentials_or_somebody_elses_account_are_an_auth_error(
    fake: FakeDataManager, wrong: dict[str, str]
) -> None:
    with connected(fake, **wrong) as connector, pytest.raises(AuthError):
        connector.check()


@pytest.mark.parametrize("more", [{"client_id": ""}, {"refresh_token": None}, {"service_account": "{}"}])
def test_there_is_exactly_one_way_in(more: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="give service_account, or client_id"):
        DataManagerConfig(**{**OPTIONS, **more})


def test_a_service_account_gets_in(fake: FakeDataManager) -> None:
    key = fake.tokens.key("https://datamanager.googleapis.com/token")
    ours = dict.fromkeys(PERSON) | {"client_id": None, "service_account": key}

    with connected(fake, **ours) as connector:
        connector.check()
        assert statuses(through(connector, batch(fake.add_list(), change("ada")))) == {"ada": "applied"}


def test_what_arrives_is_the_digest_that_googles_own_formatter_makes(tmp_path: Path) -> None:
    """The first two digests are those of the vendor's tests of its formatter; the others by hand."""
    fake = FakeDataManager()
    audience = fake.add_list()
    people = [
        {"email": "  ALEXZ@example.com   ", "phone": "   +1-800-555-0100"},
        {"email": "Cloudy.SanFrancisco+shopping@googlemail.com", "phone": None},
        {"email": "user.name+NYC@Example.com", "phone": "1 800 555 0101"},
    ]
    address = {"first_name": " Anne-Marie ", "last_name": "O'Neill", "region_code": " au", "postal_code": " 3000 "}
    nobody = dict.fromkeys(address)
    upload = Upload(
        tmp_path, kind=DataManager, options=OPTIONS, app=fake, object="audience_member", audience=audience
    )

    upload.cohort(*({**person, **nobody} for person in people), {"email": None, "phone": None, **address}).run()
    there = set(fake.lists[audience])
    upload.cohort(*({**person, **nobody} for person in people)).run()

    listed = {
        "509e933019bb285a134a9334b8bb679dff79d0ce023d529af4bd744d47b4fd8a",
        "fb4f73a6ec5fdb7077d564cdd22c3554b43ce49168550c3b12c547b78c517b30",
        sha("cloudysanfrancisco@googlemail.com"),
        sha("user.name+nyc@example.com"),
        sha("+18005550101"),
    }
    assert there == listed | {f"{sha('annemarie')}|{sha('oneill')}|AU|3000"}
    assert fake.lists[audience] == listed
    upload.close()


def test_the_ready_made_account_takes_its_own_options() -> None:
    made = ready()
    with connected(made.app, **dict.fromkeys(PERSON), **made.options(OPTIONS["base_url"])) as connector:
        connector.check()
        assert isinstance(connector.push(batch(made.audiences["audience_member"], change("ada"))), Job)
