"""Customer.io: what becomes of people and segment members, against a workspace in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx
import pytest

from connectors.customerio import CustomerIO
from sync.errors import AuthError, ProtocolError, RequestError
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, ObjectSpec, Op, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.customerio import FakeCustomerIO, ready
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import statuses

SITE, KEY = "site-1", "k3y-of-customerio"


def authenticated(request: httpx.Request) -> bool:
    return bool(httpx.BasicAuth(SITE, KEY)._auth_header == request.headers.get("authorization"))


def told_apart(request: httpx.Request) -> Iterator[str]:
    """The kind of identifiers has a default, which is not always ours (parameter `id_type`)."""
    if "/segments/" in request.url.path and request.url.params.get("id_type") not in ("id", "email", "cio_id"):
        yield "the kind of identifiers is not named"


def single(request: httpx.Request) -> Iterator[str]:
    """A batch is people, each with exactly one identifier, and an action (text of `identifiers`; `action`)."""
    if request.url.path != "/api/v2/batch":
        return
    body = json.loads(request.content)
    batch = body.get("batch") if isinstance(body, dict) else None
    if not isinstance(batch, list) or not batch:
        yield "there is no batch"
        return
    for one in batch:
        if not isinstance(one, dict) or one.keys() - {"type", "action", "identifiers", "attributes"}:
            yield "an entry is not an identified person"
        elif one.get("type") != "person" or one.get("action") != "identify":
            yield "an entry does not identify a person"
        elif len(one.get("identifiers") or ()) != 1 or not {"id", "email"} & set(one["identifiers"]):
            yield "a person has one identifier"


class TestCustomerIOContract(ConnectorContract):
    connector = CustomerIO
    config: ClassVar = {"site_id": SITE, "api_key": KEY}
    audience = "1"
    mutants_caught = 0.95
    described = Described(
        "customerio/track.json",
        authenticated=authenticated,
        rules=(told_apart, single),
        also=(r"GET https://track\.customer\.io/api/v1/accounts/region",),
    )

    def begin(self) -> None:
        self.fake = FakeCustomerIO(SITE, KEY)
        self.fake.add_segment()

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People whom the workspace knows where they are to be in a segment."""
        made = samples.changes(spec, op, count, prefix)
        if spec.audience:
            for change in made:
                self.fake.add_person(**change.identifiers)
        return made


@pytest.fixture
def fake() -> FakeCustomerIO:
    fake = FakeCustomerIO(SITE, KEY)
    fake.add_segment()
    return fake


def connect(app: Callable[[httpx.Request], httpx.Response], **config: Any) -> Any:
    """A connector with its production client, whose wire is a function."""
    settings = CustomerIO.config_model.model_validate({"site_id": SITE, "api_key": KEY, **config})
    client = build_client(CustomerIO, settings, timeout=5, transport=httpx.MockTransport(app))
    return CustomerIO(settings, client)


def push(connector: Any, object: str, *changes: Change, audience: str = "1") -> dict[str, Receipt]:
    outcome = connector.push(Batch("b1", "winback", object, audience, changes))
    return {receipt.key: receipt for receipt in outcome}


def member(id: str, op: Op = Op.ADD) -> Change:
    return Change(op, id, {"id": id}, {})


def test_members_come_and_go_and_an_answer_that_names_nobody_proves_nothing(fake: FakeCustomerIO) -> None:
    ada, bob = fake.add_person(id="ada"), fake.add_person(id="bob")

    added = push(connect(fake), "segment_member", member("ada"), member("bob"), member("nobody"))
    assert fake.segments["1"] == {ada, bob}
    removed = push(connect(fake), "segment_member", member("bob", Op.REMOVE))

    assert set(statuses(added | removed).values()) == {"accepted"}
    assert fake.segments["1"] == {ada}
    assert set(fake.people) == {ada, bob}


def test_identifiers_are_of_the_kind_that_is_configured(fake: FakeCustomerIO) -> None:
    ada = fake.add_person(id="7", email="ada@example.com")

    push(connect(fake), "segment_member", member("ada@example.com"))
    assert fake.segments["1"] == set()
    push(connect(fake, id_type="email"), "segment_member", member("ADA@example.com"))
    assert fake.segments["1"] == {ada}


def test_a_request_says_where_and_of_whom() -> None:
    seen: list[httpx.Request] = []

    def app(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={})

    config = {"site_id": "site", "api_key": "key", "id_type": "email", "host": "track-eu.customer.io"}
    push(connect(app, **config), "segment_member", member("ana@acme.example", Op.REMOVE), audience="7")

    (request,) = seen
    assert str(request.url) == "https://track-eu.customer.io/api/v1/segments/7/remove_customers?id_type=email"
    assert json.loads(request.content) == {"ids": ["ana@acme.example"]}
    assert request.headers["authorization"] == "Basic c2l0ZTprZXk="


@pytest.mark.parametrize("audience", ["77", "2"])
def test_a_segment_that_is_not_there_or_not_manual_refuses_the_batch(fake: FakeCustomerIO, audience: str) -> None:
    fake.driven.add(fake.add_segment())

    with pytest.raises(RequestError) as raised:
        push(connect(fake), "segment_member", member("ada"), audience=audience)

    assert "not a manual segment" in raised.value.detail


def test_people_are_made_and_changed_by_id_or_by_address(fake: FakeCustomerIO) -> None:
    ada = fake.add_person(id="7", email="ada@example.com", plan="free")

    by_id = push(
        connect(fake),
        "person",
        Change(Op.UPDATE, "ada", {"id": "7"}, {"plan": "pro", "ltv": 12.5}),
        Change(Op.ADD, "bob", {"id": "8"}, {"email": "bob@example.com"}),
    )
    by_email = push(
        connect(fake), "person_by_email", Change(Op.UPDATE, "ada", {"email": "ada@example.com"}, {"vip": True})
    )

    assert set(statuses(by_id | by_email).values()) == {"accepted"}
    assert fake.people[ada] == {"id": "7", "email": "ada@example.com", "plan": "pro", "ltv": 12.5, "vip": True}
    assert fake.find("email", "bob@example.com") == fake.find("id", "8")


def test_who_is_listed_by_place_is_rejected_and_the_others_are_accepted(fake: FakeCustomerIO) -> None:
    people = [
        Change(Op.ADD, "bad", {"email": "ada at home"}, {}),
        Change(Op.ADD, "ada", {"email": "ada@example.com"}, {"plan": "pro"}),
        Change(Op.ADD, "large", {"email": "large@example.com"}, {"note": "x" * 33_000}),
    ]

    receipts = push(connect(fake), "person_by_email", *people)

    assert receipts["bad"] == Receipt("bad", Status.REJECTED, "the e-mail address is invalid")
    assert receipts["large"] == Receipt("large", Status.REJECTED, "the entry is larger than 32kb")
    assert receipts["ada"].status is Status.ACCEPTED
    assert len(fake.people) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(207, json={}),
        httpx.Response(200, json={"status": "ok"}),
        httpx.Response(207, json={"errors": [{"batch_index": 9, "message": "no"}]}),
        httpx.Response(207, json={"errors": [{"message": "no"}]}),
    ],
)
def test_an_answer_that_is_neither_plain_nor_a_list_of_errors_proves_nothing(answer: httpx.Response) -> None:
    with pytest.raises(ProtocolError):
        push(connect(lambda _: answer), "person", Change(Op.ADD, "ada", {"id": "7"}, {"plan": "pro"}))


def test_people_are_never_removed() -> None:
    for name in ("person", "person_by_email"):
        assert CustomerIO.objects[name].ops == {Op.ADD, Op.UPDATE}


def test_a_wrong_key_is_an_auth_error_and_two_keys_are_two_accounts(fake: FakeCustomerIO) -> None:
    with pytest.raises(AuthError):
        connect(fake, api_key="wrong").check()

    model = CustomerIO.config_model
    accounts = {CustomerIO.account(model(site_id=SITE, api_key=key)) for key in (KEY, KEY, "other")}
    assert len(accounts) == 2
    assert KEY not in str(accounts)


def test_the_fake_that_is_ready_works_over_a_real_connection() -> None:
    made = ready()
    with serve(made.app) as url:
        config = CustomerIO.config_model.model_validate(made.options(url))
        with build_client(CustomerIO, config, timeout=5) as client:
            receipts = push(
                CustomerIO(config, client), "person", Change(Op.ADD, "8", {"id": "8"}, {"plan": "pro"})
            )

    assert statuses(receipts) == {"8": "accepted"}
