"""HubSpot: what becomes of list members and contacts, against an account in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.hubspot import HubSpot, HubSpotConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.connector import Creates, Describes, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, ObjectSpec, Op, Order, Page, Rate, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.hubspot import FakeHubSpot, ready
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

TOKEN = "pat-na1-0123456789"


def _traced(request: httpx.Request) -> Iterator[str]:
    """What a batch has to carry: without a trace nobody knows whose an error is (docs, "Error handling",
    multi-status errors), and without `idProperty` an id is a contact's own (spec)."""
    if "/objects/contacts/batch/" not in request.url.path:
        return
    body = json.loads(request.content)
    for one in body["inputs"]:
        if "/batch/read" not in request.url.path and "objectWriteTraceId" not in one:
            yield "an input has no trace"
        if "@" in one["id"] and "email" not in (body.get("idProperty"), one.get("idProperty")):
            yield "an address is no contact's id"


def _at_most_100(request: httpx.Request) -> Iterator[str]:
    """As other public integrations send; the spec states no cap."""
    if "/objects/contacts/batch/" in request.url.path and len(json.loads(request.content)["inputs"]) > 100:
        yield "more than 100 inputs"


class TestHubSpotContract(ConnectorContract):
    connector = HubSpot
    config: ClassVar[dict[str, Any]] = {"token": TOKEN}
    audience = "1"
    mutants_caught = 0.95
    described = Described(
        "hubspot/contacts_v3.json",
        "hubspot/lists_v3.json",
        authenticated=lambda request: request.headers.get("authorization") == f"Bearer {TOKEN}",
        also=(r"GET https://api\.hubapi\.com/crm/v3/properties/contacts",),  # CRM/Properties v3, not at hand
        rules=(_traced, _at_most_100),
    )

    @cached_property
    def fake(self) -> FakeHubSpot:
        fake = FakeHubSpot(TOKEN, limit=100_000)
        fake.properties |= {"first_name", "score", "vip"}
        fake.add_list("Lapsed buyers")
        return fake

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People whom the account knows, and who are in the list if they are to be removed."""
        made = samples.changes(spec, op, count, prefix)
        emails = [change.identifiers["email"] for change in made]
        ids = [self.fake.id_of(email) or self.fake.add_contact(email) for email in emails]
        self.fake.lists["1"] = set(ids) if op is Op.REMOVE else set()
        return [replace(change, remote_id=id) for change, id in zip(made, ids, strict=True)]


@pytest.fixture
def fake() -> FakeHubSpot:
    return FakeHubSpot(TOKEN)


@pytest.fixture
def hubspot(fake: FakeHubSpot) -> Iterator[HubSpot]:
    with connect(fake) as connector:
        yield connector


def connect(app: App, **config: Any) -> AbstractContextManager[HubSpot]:
    """A connector with its production client, whose wire is a function."""
    return connection(HubSpot, app, **{"token": TOKEN, **config})


def change(name: str, op: Op = Op.ADD, /, id: str | None = None, **fields: Any) -> Change:
    return Change(op, f"key-{name}", {"email": f"{name}@example.com"}, fields, id)


def push(connector: HubSpot, object: str, *changes: Change, audience: str = "1") -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", object, audience, changes))


# -- list members


def test_a_contact_is_added_by_its_address_and_its_id_is_kept_for_the_removal(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    ada, list_id = fake.add_contact("Ada@example.com"), fake.add_list("Lapsed")

    added = push(hubspot, "list_member", change("ada"))
    fake.change_contact(ada, email="ada@new.example")
    requests = fake.requests
    removed = push(hubspot, "list_member", change("ada", Op.REMOVE, id=added["ada"].remote_id))

    assert added["ada"] == Receipt("key-ada", Status.APPLIED, remote_id=ada)
    assert statuses(removed) == {"ada": "applied"}
    assert fake.lists[list_id] == set()
    assert fake.requests - requests == 1


def test_a_secondary_address_finds_its_contact(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    ada = fake.add_contact("ada@work.example", hs_additional_emails="x@y.example;ada@example.com")
    fake.add_list("Lapsed")

    assert push(hubspot, "list_member", change("ada"))["ada"].remote_id == ada


def test_somebody_hubspot_does_not_know_is_rejected_and_the_others_are_added(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    ada, list_id = fake.add_contact("ada@example.com"), fake.add_list("Lapsed")

    receipts = push(hubspot, "list_member", change("ada"), change("nobody"))

    assert statuses(receipts) == {"ada": "applied", "nobody": "rejected"}
    assert receipts["nobody"].reason == "HubSpot has no contact with this e-mail address"
    assert fake.lists[list_id] == {ada}


def test_removing_somebody_hubspot_does_not_know_has_its_effect_already(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    fake.add_list("Lapsed")

    gone = [change("nobody", Op.REMOVE), change("deleted", Op.REMOVE, id="999")]

    assert statuses(push(hubspot, "list_member", *gone)) == {"nobody": "applied", "deleted": "applied"}


def test_a_replay_is_confirmed_by_looking_because_the_answer_does_not_name_who_was_in_already(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    fake.add_contact("ada@example.com")
    fake.add_contact("bob@example.com")
    list_id = fake.add_list("Lapsed")
    push(hubspot, "list_member", change("ada"))

    again = push(hubspot, "list_member", change("ada"), change("bob"))

    assert statuses(again) == {"ada": "applied", "bob": "applied"}
    assert len(fake.lists[list_id]) == 2


@pytest.mark.parametrize("op", [Op.ADD, Op.REMOVE])
def test_whoever_the_answer_leaves_out_and_the_list_does_not_confirm_is_unknown(fake: FakeHubSpot, op: Op) -> None:
    fake.lists[fake.add_list("Lapsed")] = set() if op is Op.ADD else {fake.add_contact("ada@example.com")}
    fake.add_contact("ada@example.com")

    def forgetful(request: httpx.Request) -> httpx.Response:
        if request.method != "PUT":
            return fake(request)
        return httpx.Response(200, json={"recordIdsMissing": [], "recordsIdsAdded": [], "recordIdsRemoved": []})

    with connect(forgetful) as connector:
        receipts = push(connector, "list_member", change("ada", op))

    assert statuses(receipts) == {"ada": "unknown"}
    assert receipts["ada"].reason


def test_a_contact_that_vanishes_between_lookup_and_addition_is_rejected(fake: FakeHubSpot) -> None:
    fake.add_contact("ada@example.com")
    fake.add_list("Lapsed")

    def vanishing(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        fake.contacts.clear()
        return answer

    with connect(vanishing) as connector:
        assert statuses(push(connector, "list_member", change("ada"))) == {"ada": "rejected"}


def test_a_lookup_that_fails_for_another_reason_defers_instead_of_deciding(fake: FakeHubSpot) -> None:
    list_id = fake.add_list("Lapsed")

    def troubled(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/batch/read"):
            return fake(request)
        trouble = {"category": "INTERNAL_ERROR", "message": "try later"}
        return httpx.Response(207, json={"status": "COMPLETE", "results": [], "errors": [trouble]})

    with connect(troubled) as connector:
        receipts = push(connector, "list_member", change("ada"), change("bob", Op.REMOVE))

    assert statuses(receipts) == {"ada": "deferred", "bob": "deferred"}
    assert "try later" in receipts["ada"].reason
    assert fake.lists[list_id] == set()


def test_fields_of_a_member_are_written_to_the_contact(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    ada, list_id = fake.add_contact("ada@example.com"), fake.add_list("Lapsed")

    push(hubspot, "list_member", change("ada", firstname="Ada", phone=None))

    assert fake.contacts[ada] == {"email": "ada@example.com", "firstname": "Ada", "phone": ""}
    assert fake.lists[list_id] == {ada}


def test_a_member_whose_fields_are_refused_is_rejected_and_not_added(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    fake.add_contact("ada@example.com")
    bob, list_id = fake.add_contact("bob@example.com"), fake.add_list("Lapsed")

    receipts = push(hubspot, "list_member", change("ada", shoe_size=38), change("bob", firstname="Bob"))

    assert statuses(receipts) == {"ada": "rejected", "bob": "applied"}
    assert "shoe_size" in receipts["ada"].reason
    assert fake.lists[list_id] == {bob}


def test_removals_go_first_because_an_old_and_a_new_address_can_be_one_contact(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    ada, list_id = fake.add_contact("new@example.com"), fake.add_list("Lapsed")
    fake.lists[list_id] = {ada}

    assert hubspot.objects["list_member"].order is Order.REMOVALS_FIRST
    push(hubspot, "list_member", change("old", Op.REMOVE, id=ada))
    push(hubspot, "list_member", change("new"))

    assert fake.lists[list_id] == {ada}


def test_a_list_that_does_not_exist_is_named(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    fake.add_contact("ada@example.com")

    with pytest.raises(RequestError, match="HubSpot has no list 77") as raised:
        push(hubspot, "list_member", change("ada"), audience="77")

    assert "MANUAL" in raised.value.fix


def test_an_audience_cannot_reach_another_path(fake: FakeHubSpot) -> None:
    paths: list[bytes] = []
    fake.add_contact("ada@example.com")

    def watched(request: httpx.Request) -> httpx.Response:
        paths.append(request.url.raw_path)
        return fake(request)

    with connect(watched) as connector, pytest.raises(RequestError):
        push(connector, "list_member", change("ada"), audience="../objects?x")

    assert paths[-1] == b"/crm/v3/lists/..%2Fobjects%3Fx/memberships/add-and-remove"


# -- contacts


def test_contacts_are_made_and_updated_and_their_ids_come_back(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    ada = fake.add_contact("ada@example.com", lastname="Lovelace")

    receipts = push(
        hubspot,
        "contact",
        change("ada", Op.UPDATE, firstname="Ada"),
        change("bob", firstname="Bob"),
    )

    assert statuses(receipts) == {"ada": "applied", "bob": "applied"}
    assert receipts["ada"].remote_id == ada
    assert fake.contacts[ada] == {"email": "ada@example.com", "lastname": "Lovelace", "firstname": "Ada"}
    assert fake.contacts[str(receipts["bob"].remote_id)]["email"] == "bob@example.com"


def test_a_refused_contact_is_found_by_its_trace_and_the_others_are_applied(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    receipts = push(hubspot, "contact", change("bad", shoe_size=38), change("good", firstname="G"))

    assert statuses(receipts) == {"bad": "rejected", "good": "applied"}
    assert receipts["bad"].reason == 'Property "shoe_size" does not exist'


def test_results_without_a_trace_are_matched_by_address_and_what_is_left_is_unknown() -> None:
    def vague(request: httpx.Request) -> httpx.Response:
        ada = {"id": "1", "properties": {"email": "Ada@example.com", "phone": None}}
        trouble = {"message": "something went wrong"}
        return httpx.Response(207, json={"status": "COMPLETE", "results": [ada], "errors": [trouble]})

    with connect(vague) as connector:
        receipts = push(connector, "contact", change("ada"), change("bob"))

    assert statuses(receipts) == {"ada": "applied", "bob": "unknown"}


def test_values_become_the_text_that_properties_take(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    fake.properties |= {"vip", "ltv", "orders", "tags", "gone"}

    receipts = push(hubspot, "contact", change("ada", vip=True, ltv=12.5, orders=3, tags=["a", "b"], gone=None))

    written = fake.contacts[str(receipts["ada"].remote_id)]
    assert written == {
        "email": "ada@example.com",
        "vip": "true",
        "ltv": "12.5",
        "orders": "3",
        "tags": "a;b",
        "gone": "",
    }


def test_contacts_are_never_removed(hubspot: HubSpot) -> None:
    assert hubspot.objects["contact"].ops == {Op.ADD, Op.UPDATE}


# -- the account


def pages_of(hubspot: HubSpot, audience: str) -> Iterator[Page]:
    page = hubspot.members("list_member", audience)
    yield page
    while page.next is not None:
        page = hubspot.members("list_member", audience, page.next)
        yield page


def test_a_list_can_be_made_and_read(fake: FakeHubSpot, hubspot: HubSpot) -> None:
    list_id = hubspot.create_audience("list_member", "Lapsed buyers")
    people = {f"p{n:03}@example.com" for n in range(600)}
    fake.lists[list_id] = {fake.add_contact(email) for email in people}
    fake.lists[list_id].add(fake.add_contact(""))

    pages = list(pages_of(hubspot, list_id))
    members = [member for page in pages for member in page.members]
    assert [len(page.members) for page in pages] == [250, 250, 101]
    assert {member.identifiers["email"] for member in members if member.identifiers} == people
    assert {member.remote_id for member in members} == fake.lists[list_id]
    assert isinstance(hubspot, Creates)
    assert isinstance(hubspot, Reads)


def test_the_accounts_properties_are_its_fields_but_those_that_cannot_be_written(
    fake: FakeHubSpot, hubspot: HubSpot
) -> None:
    fake.properties.add("shoe_size")

    fields = {one.name: one for one in hubspot.describe("contact")}

    assert isinstance(hubspot, Describes)
    assert {"email", "firstname", "shoe_size"} <= set(fields)
    assert "hs_additional_emails" not in fields
    assert fields["email"].identifier
    assert fields["shoe_size"].description == "Shoe_size"


@pytest.mark.parametrize(
    ("type", "ours"),
    [
        ("string", "string"),
        ("number", "number"),
        ("bool", "boolean"),
        ("date", "date"),
        ("datetime", "timestamp"),
        ("enumeration", "string"),
        ("phone_number", "string"),
    ],
)
def test_a_propertys_type_is_said_in_our_words(type: str, ours: str) -> None:
    answer = {"results": [{"name": "p", "label": "P", "type": type, "fieldType": "text"}]}

    with connect(lambda _: httpx.Response(200, json=answer)) as connector:
        assert [one.type for one in connector.describe("contact") if one.name == "p"] == [ours]


def test_fields_that_cannot_be_read_are_an_error() -> None:
    with connect(lambda _: httpx.Response(200, json={})) as connector, pytest.raises(ProtocolError):
        list(connector.describe("contact"))


def test_the_ready_account_can_be_tried_at_once() -> None:
    given = ready()
    with serve(given.app) as url:
        config = HubSpotConfig(**given.options(url))
        with build_client(HubSpot, config, timeout=5) as client:
            receipts = push(
                HubSpot(config, client), "list_member", change("person7"), audience=given.audiences["list_member"]
            )

    assert statuses(receipts) == {"person7": "applied"}


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"inputs": [{}]}', b'{"inputs": 7}', b"{"])
@pytest.mark.parametrize("path", ["read", "upsert", "update"])
def test_the_account_refuses_what_has_not_the_shape(fake: FakeHubSpot, path: str, body: bytes) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    url = f"https://api.hubapi.com/crm/v3/objects/contacts/batch/{path}"

    assert fake(httpx.Request("POST", url, content=body, headers=headers)).status_code == 400


def test_a_wrong_token_is_an_auth_error(fake: FakeHubSpot) -> None:
    with connect(fake, token="pat-wrong") as connector, pytest.raises(AuthError):
        connector.check()


def test_the_limit_of_the_account_is_a_rate_limit() -> None:
    with connect(FakeHubSpot(TOKEN, limit=1)) as connector:
        connector.check()

        with pytest.raises(RateLimited):
            connector.check()


@pytest.mark.parametrize("status", [423, 477])
def test_a_locked_record_or_a_migrating_account_is_tried_again(status: int) -> None:
    with connect(lambda _: httpx.Response(status)) as connector, pytest.raises(Unavailable):
        push(connector, "contact", change("ada"))


@pytest.mark.parametrize("state", ["PENDING", "CANCELED"])
def test_a_batch_that_is_not_complete_is_an_unknown_outcome(state: str) -> None:
    answer = httpx.Response(200, json={"status": state, "results": []})

    with connect(lambda _: answer) as connector, pytest.raises(ProtocolError):
        push(connector, "contact", change("ada"))


@pytest.mark.parametrize(("rate", "requests"), [("standard", 100), ("professional", 190), ("capacity_pack", 250)])
def test_the_pace_is_that_of_the_account(rate: str, requests: int) -> None:
    with connect(FakeHubSpot(), rate=rate) as connector:
        paces = {spec.limits.rates for spec in connector.objects.values()}

    assert paces == {(Rate(requests, 10.0),)}


def test_two_private_apps_are_two_accounts_and_the_token_is_not_told() -> None:
    one, other = HubSpotConfig(token=TOKEN), HubSpotConfig(token="pat-other")

    assert HubSpot.account(one) != HubSpot.account(other)
    assert HubSpot.account(one) == HubSpot.account(HubSpotConfig(token=TOKEN))
    assert TOKEN not in HubSpot.account(one) + repr(one)


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError):
        HubSpotConfig(token=TOKEN, rates="professional")


def test_it_works_over_a_real_connection(fake: FakeHubSpot) -> None:
    ada, list_id = fake.add_contact("ada@example.com"), fake.add_list("Lapsed")
    with serve(fake) as url:
        config = HubSpotConfig(token=TOKEN, base_url=url)
        with build_client(HubSpot, config, timeout=5) as client:
            assert statuses(push(HubSpot(config, client), "list_member", change("ada"))) == {"ada": "applied"}

    assert fake.lists[list_id] == {ada}


# -- answers that contradict themselves, or say nothing


def _told(answers: dict[str, Any], object: str, *changes: Change) -> dict[str, str]:
    """What becomes of changes where HubSpot answers so, by the last word of a path."""

    def app(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answers[request.url.path.rsplit("/", 1)[-1]])

    with connect(app) as connector:
        return statuses(push(connector, object, *changes))


def _contact(id: str, email: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "properties": {"email": email}, **more}


def _several(*results: dict[str, Any], errors: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"status": "COMPLETE", "results": list(results), "errors": errors or []}


def test_a_record_that_is_both_written_and_refused_is_unknown() -> None:
    refused = {"category": "X", "message": "no", "context": {"objectWriteTraceId": ["key-ada"]}}
    answer = _several(_contact("1", "ada@example.com", objectWriteTraceId="key-ada"), errors=[refused])

    assert _told({"upsert": answer}, "contact", change("ada")) == {"ada": "unknown"}


def test_a_record_that_is_written_to_two_contacts_is_unknown() -> None:
    answer = _several(*[_contact(id, "ada@example.com", objectWriteTraceId="key-ada") for id in ("1", "2")])

    assert _told({"upsert": answer}, "contact", change("ada")) == {"ada": "unknown"}


@pytest.mark.parametrize("id", ["", "9" * 101])
def test_an_id_that_is_none_is_an_answer_of_an_unknown_shape(id: str) -> None:
    with pytest.raises(ProtocolError):
        _told({"upsert": _several(_contact(id, "ada@example.com"))}, "contact", change("ada"))


@pytest.mark.parametrize("op", [Op.ADD, Op.REMOVE])
def test_an_address_that_the_answer_does_not_mention_is_tried_later(op: Op) -> None:
    other = {"category": "OBJECT_NOT_FOUND", "message": "no", "context": {"ids": ["bob@example.com"]}}

    assert _told({"read": _several()}, "list_member", change("ada", op)) == {"ada": "deferred"}
    assert _told({"read": _several(errors=[other])}, "list_member", change("ada", op)) == {"ada": "deferred"}


@pytest.mark.parametrize(("op", "status"), [(Op.ADD, "rejected"), (Op.REMOVE, "applied")])
@pytest.mark.parametrize("context", [{}, {"ids": ["ADA@example.com"]}])
def test_an_address_that_hubspot_says_it_does_not_have_is_settled(op: Op, status: str, context: Any) -> None:
    missing = {"category": "OBJECT_NOT_FOUND", "message": "no", "context": context}

    assert _told({"read": _several(errors=[missing])}, "list_member", change("ada", op)) == {"ada": status}


def test_an_address_of_several_contacts_is_tried_later() -> None:
    found = _several(_contact("1", "ada@example.com"), _contact("2", "ada@example.com"))

    assert _told({"read": found}, "list_member", change("ada")) == {"ada": "deferred"}


@pytest.mark.parametrize(
    ("missing", "added", "removed", "op", "status"),
    [
        ("1", "1", "", Op.ADD, "unknown"),
        ("", "1", "1", Op.ADD, "unknown"),
        ("", "", "1", Op.ADD, "unknown"),
        ("", "1", "", Op.ADD, "applied"),
        ("1", "", "", Op.ADD, "rejected"),
        ("", "1", "", Op.REMOVE, "unknown"),
        ("1", "", "1", Op.REMOVE, "unknown"),
        ("", "", "1", Op.REMOVE, "applied"),
        ("1", "", "", Op.REMOVE, "applied"),
    ],
)
def test_a_move_that_is_told_two_ways_is_unknown(
    missing: str, added: str, removed: str, op: Op, status: str
) -> None:
    moved = {"recordIdsMissing": list(missing), "recordsIdsAdded": list(added), "recordIdsRemoved": list(removed)}
    answers = {"read": _several(_contact("1", "ada@example.com")), "add-and-remove": moved}

    assert _told(answers, "list_member", change("ada", op)) == {"ada": status}
