"""Pinterest: what becomes of a customer list's members, against an ad account in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from connectors.pinterest import Pinterest
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.connector import Creates
from sync.sdk.nouns import Batch, Change, Op, Order, Rate, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.pinterest import FakePinterest, ready
from sync.testing.hostile import RateSignal
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed
from tests.connectors.uploads import Upload

TOKEN = "pina_0123456789"
ACCOUNT = "549755885175"
OPTIONS = {"token": TOKEN, "ad_account_id": ACCOUNT}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wrong_records(request: httpx.Request) -> Iterator[str]:
    """The description says "joined by commas" and which forms there are, its schema only that it is a text."""
    if request.method in ("PATCH", "POST") and "/customer_lists" in request.url.path:
        records = str(json.loads(request.content).get("records")).split(",")
        if not all(re.fullmatch("[0-9a-f]{64}", record) for record in records):
            yield "a record is not a SHA-256 in lower-case hex"


class TestPinterestContract(ConnectorContract):
    connector = Pinterest
    config: ClassVar[dict[str, Any]] = OPTIONS
    audience = "643"
    mutants_caught = 0.95
    described = Described(
        "pinterest/v5.json",
        authenticated=lambda request: request.headers.get("authorization", "").startswith("Bearer "),
        rules=(wrong_records,),
    )
    rate_signals = (*RateSignal.usual(), RateSignal("reset", lambda _: {"x-ratelimit-reset": "9"}, 9))

    @cached_property
    def fake(self) -> FakePinterest:
        fake = FakePinterest(TOKEN, ACCOUNT)
        fake.add_list("Lapsed buyers")
        return fake

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)


@pytest.fixture
def fake() -> FakePinterest:
    return FakePinterest(TOKEN, ACCOUNT)


@pytest.fixture
def pinterest(fake: FakePinterest) -> Iterator[Pinterest]:
    with connected(fake) as connector:
        yield connector


def connected(app: App, **options: Any) -> AbstractContextManager[Pinterest]:
    """A connector with its production client, whose wire is a function."""
    return connection(Pinterest, app, **{**OPTIONS, **options})


def change(name: str, op: Op = Op.ADD, **identifiers: Any) -> Change:
    return Change(op, name, identifiers or {"email": sha(f"{name}@x.example"), "maid": None}, {})


def push(connector: Pinterest, audience: str, *changes: Change) -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", "customer_list_member", audience, changes))


def test_members_are_added_and_removed_by_digest_and_pinterest_decides_later(
    fake: FakePinterest, pinterest: Pinterest
) -> None:
    audience = fake.add_list("Lapsed")

    added = push(pinterest, audience, change("ada"), change("bob", email=sha("b"), maid=sha("m")))
    members = set(fake.lists[audience])
    removed = push(pinterest, audience, change("ada", Op.REMOVE))

    assert members == {sha("ada@x.example"), sha("b"), sha("m")}
    assert fake.lists[audience] == {sha("b"), sha("m")}
    assert {r.status for r in (*added.values(), *removed.values())} == {Status.ACCEPTED}


def test_somebody_without_any_identifier_is_rejected_and_the_others_are_sent(
    fake: FakePinterest, pinterest: Pinterest
) -> None:
    audience = fake.add_list("Lapsed")

    receipts = push(pinterest, audience, change("nobody", email=None, maid=""), change("ada"))

    assert receipts["nobody"] == Receipt(
        "nobody", Status.REJECTED, "it has neither an e-mail address nor an advertising id"
    )
    assert receipts["ada"].status is Status.ACCEPTED
    assert fake.lists[audience] == {sha("ada@x.example")}


def test_nothing_is_sent_where_nobody_has_an_identifier(fake: FakePinterest, pinterest: Pinterest) -> None:
    audience, requests = fake.add_list("Lapsed"), fake.requests

    assert push(pinterest, audience, change("x", email=None))["x"].status is Status.REJECTED
    assert fake.requests == requests


def test_an_answer_for_another_list_is_no_answer(fake: FakePinterest) -> None:
    audience, other = fake.add_list("Lapsed"), fake.add_list("Other")

    def mixed_up(request: httpx.Request) -> httpx.Response:
        answer = json.loads(fake(request).content)
        return httpx.Response(200, json=answer | {"id": other})

    with connected(mixed_up) as connector, pytest.raises(ProtocolError):
        push(connector, audience, change("ada"))


def test_errors_of_the_list_as_a_whole_are_told_and_blamed_on_nobody(
    fake: FakePinterest, pinterest: Pinterest
) -> None:
    audience = fake.add_list("Lapsed")
    fake.fickle.add(audience)

    receipt = push(pinterest, audience, change("ada"))["ada"]

    assert (receipt.status, receipt.reason) == (
        Status.ACCEPTED,
        "Pinterest reports errors of the customer list as a whole",
    )


@pytest.mark.parametrize("audience", ["77", "../../audiences?x=", ""])
def test_a_list_that_is_not_there_refuses_the_batch(pinterest: Pinterest, audience: str) -> None:
    with pytest.raises(RequestError):
        push(pinterest, audience, change("ada"))


def test_a_list_is_made_with_nobody_in_it_and_can_be_targeted(fake: FakePinterest, pinterest: Pinterest) -> None:
    made = pinterest.create_audience("customer_list_member", "Lapsed buyers")

    assert isinstance(pinterest, Creates)
    assert fake.lists[made] == {sha("nobody@headgate.invalid")}
    (audience,) = fake.audiences.values()
    assert audience["rule"] == {"customer_list_id": made}
    assert audience["audience_type"] == "CUSTOMER_LIST"


def test_a_list_that_was_made_and_cannot_be_targeted_is_named(fake: FakePinterest) -> None:
    def refusing(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/audiences"):
            return httpx.Response(400, json={"code": 400, "message": "Invalid ad account audience parameters."})
        return fake(request)

    with connected(refusing) as connector, pytest.raises(RequestError, match="customer list 643") as raised:
        connector.create_audience("customer_list_member", "Lapsed buyers")

    assert "Ads Manager" in raised.value.fix


def test_the_rate_limit_of_the_account_says_when_to_come_back() -> None:
    fake = FakePinterest(TOKEN, ACCOUNT, rate=Rate(1, 60.0), clock=lambda: 0.0)
    with connected(fake) as connector:
        connector.check()

        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after == 60


@pytest.mark.parametrize("wrong", [{"token": "pina_wrong"}, {"ad_account_id": "1"}])
def test_a_wrong_token_or_somebody_elses_account_is_an_auth_error(
    fake: FakePinterest, wrong: dict[str, str]
) -> None:
    with connected(fake, **wrong) as connector, pytest.raises(AuthError):
        connector.check()


def test_what_arrives_is_the_digest_of_the_normalised_value(tmp_path: Path) -> None:
    """By hand: an address in lower case and trimmed, its dots and tags kept; an id in lower case with hyphens."""
    fake = FakePinterest(TOKEN, ACCOUNT)
    audience = fake.add_list("Lapsed")
    upload = Upload(
        tmp_path, kind=Pinterest, options=OPTIONS, app=fake, object="customer_list_member", audience=audience
    )
    ada = {"email": " Ada.Lovelace+x@GMail.com ", "maid": "AECE52E7-03EE-455A-B3C4-E57283966239"}
    bob = {"email": "BOB@x.example", "maid": None}

    upload.cohort(ada, bob).run()
    there = set(fake.lists[audience])
    upload.cohort(bob).run()

    assert there == {
        sha("ada.lovelace+x@gmail.com"),
        sha("aece52e7-03ee-455a-b3c4-e57283966239"),
        sha("bob@x.example"),
    }
    assert fake.lists[audience] == {sha("bob@x.example")}
    upload.close()


def test_removals_go_first_because_two_sets_of_identifiers_can_be_one_account(tmp_path: Path) -> None:
    fake = FakePinterest(TOKEN, ACCOUNT)
    audience = fake.add_list("Lapsed")
    upload = Upload(
        tmp_path, kind=Pinterest, options=OPTIONS, app=fake, object="customer_list_member", audience=audience
    )
    upload.cohort({"email": "ada@x.example", "maid": "old"}).run()
    upload.cohort({"email": "ada@x.example", "maid": "new"}).run()

    assert Pinterest.objects["customer_list_member"].order is Order.REMOVALS_FIRST
    assert fake.lists[audience] == {sha("ada@x.example"), sha("new")}
    upload.close()


def test_the_fake_refuses_what_is_neither_an_address_nor_a_digest(fake: FakePinterest) -> None:
    audience = fake.add_list("Lapsed")
    url = f"https://api.pinterest.com/v5/ad_accounts/{ACCOUNT}/customer_lists/{audience}"

    def status(records: Any) -> int:
        body = {"operation_type": "ADD", "records": records}
        return fake(
            httpx.Request("PATCH", url, json=body, headers={"authorization": f"Bearer {TOKEN}"})
        ).status_code

    assert [status(r) for r in ("ada@x.example", sha("a"), "Ada@x.example", "xyz", "", [sha("a")])] == [
        200,
        200,
        400,
        400,
        400,
        400,
    ]


def test_the_ready_made_account_takes_its_own_options() -> None:
    made = ready()
    with connected(made.app, **made.options("https://api.pinterest.com")) as connector:
        audience = made.audiences["customer_list_member"]
        assert push(connector, audience, change("ada"))["ada"].status is Status.ACCEPTED
