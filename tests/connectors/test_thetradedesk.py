"""The Trade Desk: what becomes of a segment's members, against a data server in memory."""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.thetradedesk import TheTradeDesk, TheTradeDeskConfig
from sync.errors import AuthError, RateLimited
from sync.sdk.nouns import Batch, Change, ObjectSpec, Op, Rate, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.thetradedesk import FakeTradeDesk, ready
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed
from tests.connectors.uploads import Upload

TOKEN = "ttd-0123456789"
OPTIONS = {"token": TOKEN, "advertiser_id": "adv1"}
DAY = 86_400.0


def guid(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def uid2(name: str) -> str:
    return base64.b64encode(hashlib.sha256(name.encode()).digest()).decode()


FORMS = {"tdid": guid, "daid": guid, "uid2": uid2, "euid": uid2}


def wrong_items(request: httpx.Request) -> Iterator[str]:
    """One id an item, and a time that is kept: what the description leaves open."""
    items = json.loads(request.content).get("Items", [])
    if len(items) > 10_000:
        yield "more than 10,000 items"
    for item in items:
        if len(item.keys() - {"Data"}) != 1:
            yield "an item has not exactly one id"
        for data in item.get("Data", []):
            if not 0 <= data.get("TtlInMinutes", -1) <= 180 * 24 * 60:
                yield "a time to live is missing, or beyond 180 days"


class TestTheTradeDeskContract(ConnectorContract):
    connector = TheTradeDesk
    config: ClassVar[dict[str, Any]] = OPTIONS
    audience = "lapsed-buyers"
    mutants_caught = 0.80
    check_methods = frozenset({"POST"})  # there is nothing to read
    described = Described(
        "thetradedesk/data_api_v0.1.json",
        authenticated=lambda request: bool(request.headers.get("ttd-auth")),
        rules=(wrong_items,),
    )

    @cached_property
    def fake(self) -> FakeTradeDesk:
        return FakeTradeDesk(TOKEN)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        """Every id of the first record: there are as many as kinds of ids."""
        count = len([f for f in TheTradeDesk.objects["segment_member"].fields if f.identifier])
        lines = [{"ErrorCode": "UserNotMapped", "Message": f"item #{n}"} for n in range(1, count + 1)]
        return httpx.Response(200, json={"FailedLines": lines})

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """Ids in the forms that the fake looks at."""
        made = samples.changes(spec, op, count, prefix)
        return [
            replace(c, identifiers={k: FORMS[k](v) if k in FORMS else v for k, v in c.identifiers.items()})
            for c in made
        ]


class Clock:
    """Seconds, set by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def fake(clock: Clock) -> FakeTradeDesk:
    return FakeTradeDesk(TOKEN, clock=clock)


@pytest.fixture
def desk(fake: FakeTradeDesk) -> Iterator[TheTradeDesk]:
    with connected(fake) as connector:
        yield connector


def connected(app: App, **options: Any) -> AbstractContextManager[TheTradeDesk]:
    """A connector with its production client, whose wire is a function."""
    return connection(TheTradeDesk, app, **{**OPTIONS, **options})


def change(name: str, op: Op = Op.ADD, **ids: Any) -> Change:
    return Change(op, name, ids or {"ramp_id": f"Xi{name}"}, {})


def push(connector: TheTradeDesk, *changes: Change) -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", "segment_member", "lapsed", changes))


def test_a_member_stays_for_as_long_as_configured_and_is_then_forgotten(fake: FakeTradeDesk, clock: Clock) -> None:
    with connected(fake, ttl_days=7) as connector:
        receipts = push(connector, change("ada"))

    clock.now = 7 * DAY - 1
    assert (receipts["ada"].status, fake.members("lapsed")) == (Status.ACCEPTED, {"Xiada"})
    clock.now = 7 * DAY
    assert fake.members("lapsed") == set()


def test_a_removal_ends_the_membership_at_once(fake: FakeTradeDesk, desk: TheTradeDesk) -> None:
    push(desk, change("ada"), change("bob"))

    removed = push(desk, change("ada", Op.REMOVE))

    assert removed["ada"].status is Status.ACCEPTED
    assert fake.members("lapsed") == {"Xibob"}


def test_each_id_of_a_person_is_an_item_of_its_own(fake: FakeTradeDesk, desk: TheTradeDesk) -> None:
    push(desk, change("ada", tdid=guid("t"), daid=guid("d"), uid2=uid2("u"), euid=None, ramp_id=""))

    assert set(fake.segments["lapsed"]) == {("TDID", guid("t")), ("DAID", guid("d")), ("UID2", uid2("u"))}


def test_a_refused_line_rejects_its_record_and_no_other(fake: FakeTradeDesk, desk: TheTradeDesk) -> None:
    receipts = push(desk, change("ada"), change("bad", tdid="not-a-guid"), change("bob", tdid=guid("b")))

    assert receipts["bad"] == Receipt("bad", Status.REJECTED, "MissingUserId: Invalid TDID")
    assert {receipts["ada"].status, receipts["bob"].status} == {Status.ACCEPTED}
    assert fake.members("lapsed") == {"Xiada", guid("b")}


def test_a_line_is_also_found_by_the_number_in_its_message() -> None:
    lines = [{"ErrorCode": "MissingUserId", "Message": "Invalid UID2, item #2"}]

    with connected(lambda _: httpx.Response(200, json={"FailedLines": lines})) as connector:
        receipts = push(connector, change("ada"), change("bob"))

    assert {k: r.status for k, r in receipts.items()} == {"ada": Status.ACCEPTED, "bob": Status.REJECTED}


def test_somebody_of_whom_one_id_was_taken_and_one_refused_is_in_between(desk: TheTradeDesk) -> None:
    receipt = push(desk, change("ada", ramp_id="Xi1", tdid="not-a-guid"))["ada"]

    assert receipt.status is Status.UNKNOWN
    assert "one of its ids was refused" in receipt.reason


@pytest.mark.parametrize("line", [{}, {"ItemNumber": "0"}, {"ItemNumber": "3"}, {"ItemNumber": "one"}])
def test_a_refused_line_that_is_nobodys_leaves_all_unknown(line: dict[str, str]) -> None:
    answer = httpx.Response(200, json={"FailedLines": [{"ErrorCode": "Unknown", "Message": None, **line}]})

    with connected(lambda _: answer) as connector:
        receipts = push(connector, change("ada"), change("bob"))

    assert {r.status for r in receipts.values()} == {Status.UNKNOWN}


@pytest.mark.parametrize("answer", [{}, {"FailedLines": None}, {"FailedLines": []}])
def test_an_answer_without_failed_lines_accepts_everybody(answer: Any) -> None:
    with connected(lambda _: httpx.Response(200, json=answer)) as connector:
        assert push(connector, change("ada"))["ada"].status is Status.ACCEPTED


def test_checking_sends_no_items_and_changes_nothing(fake: FakeTradeDesk, desk: TheTradeDesk) -> None:
    desk.check()

    assert (fake.requests, fake.segments) == (1, {})


@pytest.mark.parametrize("wrong", [{"token": "ttd-wrong"}, {"advertiser_id": "adv2"}])
def test_a_wrong_token_or_advertiser_is_an_auth_error(fake: FakeTradeDesk, wrong: dict[str, str]) -> None:
    with connected(fake, **wrong) as connector, pytest.raises(AuthError):
        connector.check()


def test_too_many_requests_are_a_rate_limit_without_a_time() -> None:
    with connected(FakeTradeDesk(TOKEN, rate=Rate(1, 10.0))) as connector:
        connector.check()

        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after is None


def test_the_provider_is_named_where_there_is_one() -> None:
    bodies: list[bytes] = []

    def watched(request: httpx.Request) -> httpx.Response:
        bodies.append(request.read())
        return httpx.Response(200, json={})

    for options in ({}, {"data_provider_id": "acme"}):
        with connected(watched, **options) as connector:
            push(connector, change("ada"))

    assert [b'"DataProviderId":"acme"' in body for body in bodies] == [False, True]
    assert b"null" not in bodies[0]


def test_a_time_beyond_what_is_kept_is_refused() -> None:
    with pytest.raises(ValidationError):
        TheTradeDeskConfig(token=TOKEN, advertiser_id="adv1", ttl_days=181)


def test_members_are_sent_again_when_they_are_to_be_renewed(
    tmp_path: Path, fake: FakeTradeDesk, clock: Clock
) -> None:
    """Through the engine: without a change nothing is sent, and the membership would end."""
    upload = Upload(
        tmp_path, kind=TheTradeDesk, options=OPTIONS | {"ttl_days": 10}, app=fake, object="segment_member",
        audience="lapsed", more=("renewed_at",),
    )  # fmt: skip
    ada = {"ramp_id": "Xiada", "tdid": f" {guid('t').upper()} "}

    upload.cohort({**ada, "renewed_at": "2026-01-05"}).run()
    clock.now = 7 * DAY
    requests = fake.requests
    upload.run()
    assert fake.requests == requests
    upload.cohort({**ada, "renewed_at": "2026-01-12"}).run()
    clock.now = 16 * DAY

    assert fake.members("lapsed") == {"Xiada", guid("t").upper()}
    upload.cohort({"ramp_id": "Xibob", "tdid": None, "renewed_at": "2026-01-12"}).run()
    assert fake.members("lapsed") == {"Xibob"}
    upload.close()


def test_the_ready_made_server_takes_its_own_options() -> None:
    made = ready()
    with connected(made.app, **made.options("https://usw-data.adsrvr.org")) as connector:
        assert push(connector, change("ada"))["ada"].status is Status.ACCEPTED


def test_whoever_has_no_id_at_all_is_refused_and_not_sent(fake: FakeTradeDesk, desk: TheTradeDesk) -> None:
    receipts = push(desk, change("ada"), change("bob", tdid=None))

    assert {key: receipt.status for key, receipt in receipts.items()} == {
        "ada": Status.ACCEPTED,
        "bob": Status.REJECTED,
    }
    assert fake.members("lapsed") == {"Xiada"}
