"""HubSpot's own description judges our requests and our fake's answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from connectors.hubspot import HubSpot, HubSpotConfig
from sync.errors import AuthError, RateLimited, RequestError
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Rate, Status
from sync.testing.fakes.hubspot import FakeHubSpot
from sync.testing.openapi import Checked, Described, Violation

DESCRIBED = Described(
    "hubspot/contacts_v3.json",
    "hubspot/lists_v3.json",
    authenticated=lambda request: request.headers.get("authorization", "").startswith("Bearer pat-"),
)

pytestmark = pytest.mark.skipif(not DESCRIBED.available, reason="the vendors' descriptions are not here")

CONFIG = HubSpotConfig(token="pat-test")


def checked(app: Any) -> Checked:
    return Checked(app, DESCRIBED)


@pytest.fixture
def fake() -> FakeHubSpot:
    return FakeHubSpot("pat-test")


@pytest.fixture
def wire(fake: FakeHubSpot) -> Checked:
    return checked(fake)


@pytest.fixture
def hubspot(wire: Checked) -> Iterator[HubSpot]:
    with build_client(HubSpot, CONFIG, timeout=5, transport=wire) as client:
        yield HubSpot(CONFIG, client)


def change(name: str, op: Op = Op.ADD, **fields: Any) -> Change:
    return Change(op, name, {"email": f"{name}@example.com"}, fields)


def push(hubspot: HubSpot, object: str, *changes: Change, audience: str = "1") -> list[Status]:
    outcome = hubspot.push(Batch("b1", "winback", object, audience, changes))
    assert isinstance(outcome, list)
    return [receipt.status for receipt in outcome]


def test_everything_the_connector_does_is_as_described(hubspot: HubSpot, fake: FakeHubSpot, wire: Checked) -> None:
    fake.add_contact("ada@example.com")
    hubspot.check()
    audience = hubspot.create_audience("list_member", "Lapsed buyers")

    for _ in range(2):
        push(hubspot, "list_member", change("ada", firstname="Ada", phone=None), audience=audience)
    push(hubspot, "list_member", change("ada"), change("nobody"), audience=audience)
    push(hubspot, "list_member", change("ada", shoe_size=1), audience=audience)
    assert len(hubspot.members("list_member", audience).members) == 1
    push(hubspot, "list_member", change("ada", Op.REMOVE), audience=audience)
    push(hubspot, "contact", change("ada", firstname="Ada"), change("bob", firstname="Bob"))
    push(hubspot, "contact", change("ada", shoe_size=1), change("bob", firstname="Bob"))

    assert wire.seen == {
        "GET /crm/v3/objects/contacts 200",
        "POST /crm/v3/lists 200",
        "POST /crm/v3/objects/contacts/batch/read 200",
        "POST /crm/v3/objects/contacts/batch/read 207",
        "POST /crm/v3/objects/contacts/batch/update 200",
        "POST /crm/v3/objects/contacts/batch/update 207",
        "POST /crm/v3/objects/contacts/batch/upsert 200",
        "POST /crm/v3/objects/contacts/batch/upsert 207",
        "PUT /crm/v3/lists/{listId}/memberships/add-and-remove 200",
        "POST /crm/v3/lists/records/memberships/batch/read 200",
        "GET /crm/v3/lists/{listId}/memberships 200",
    }


def test_pages_are_as_described(hubspot: HubSpot, fake: FakeHubSpot) -> None:
    audience = fake.add_list("Lapsed buyers")
    fake.lists[audience] = {fake.add_contact(f"p{n}@example.com") for n in range(251)}

    first = hubspot.members("list_member", audience)
    last = hubspot.members("list_member", audience, first.next)

    assert (len(first.members), len(last.members), last.next) == (250, 1, None)


def test_errors_of_the_fake_are_as_described(fake: FakeHubSpot, wire: Checked, hubspot: HubSpot) -> None:
    fake.add_contact("ada@example.com")
    dynamic = fake.add_list("Dynamic", "DYNAMIC")

    with pytest.raises(RequestError):
        push(hubspot, "list_member", change("ada"), audience=dynamic)
    with pytest.raises(RequestError):
        push(hubspot, "list_member", change("ada"), audience="404")
    fake.rate = Rate(0, 10)
    with pytest.raises(RateLimited):
        hubspot.check()
    fake.token = "pat-other"
    with pytest.raises(AuthError):
        hubspot.check()

    assert {entry.rsplit(" ", 1)[1] for entry in wire.seen} == {"200", "400", "404", "429", "401"}


SEND = "https://api.hubapi.com"
UPSERT = f"{SEND}/crm/v3/objects/contacts/batch/upsert"
MOVE = f"{SEND}/crm/v3/lists/1/memberships/add-and-remove"
GOOD = {"id": "a@b.example", "idProperty": "email", "properties": {"firstname": "A"}}


@pytest.mark.parametrize(
    ("method", "url", "body"),
    [
        ("POST", UPSERT, {"input": [GOOD]}),
        ("POST", UPSERT, {"inputs": [{**GOOD, "properties": {"ltv": 12.5}}]}),
        ("POST", UPSERT, {"inputs": [{**GOOD, "id": 7}]}),
        ("POST", UPSERT, {"inputs": [{**GOOD, "idProprety": "email"}]}),
        ("PUT", UPSERT, {"inputs": [GOOD]}),
        ("PUT", MOVE, ["1", "2"]),
        ("PUT", MOVE, {"recordIdsToAdd": ["1"]}),
        ("PUT", MOVE, {"recordIdsToAdd": [1], "recordIdsToRemove": []}),
        ("POST", MOVE, {"recordIdsToAdd": [], "recordIdsToRemove": []}),
        ("PUT", f"{SEND}/crm/v3/list/1/memberships/add", ["1"]),
    ],
)
def test_the_description_finds_a_wrong_request(wire: Checked, method: str, url: str, body: Any) -> None:
    headers = {"authorization": "Bearer pat-test"}

    with pytest.raises(Violation):
        wire.handle_request(httpx.Request(method, url, json=body, headers=headers))


def test_the_description_finds_a_wrong_answer_and_missing_credentials() -> None:
    request = httpx.Request(
        "PUT",
        MOVE,
        json={"recordIdsToAdd": ["1"], "recordIdsToRemove": []},
        headers={"authorization": "Bearer pat-test"},
    )
    answer = {"recordIdsMissing": [], "recordIdsAdded": ["1"], "recordIdsRemoved": []}

    with pytest.raises(Violation, match="recordsIdsAdded"):
        checked(lambda _: httpx.Response(200, json=answer)).handle_request(request)

    del request.headers["authorization"]
    with pytest.raises(Violation, match="credentials"):
        checked(lambda _: httpx.Response(200)).handle_request(request)
