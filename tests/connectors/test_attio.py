"""Attio: what becomes of list entries, people and companies, against a workspace in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.attio import Attio, AttioConfig
from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError
from sync.sdk.connector import Creates, Describes, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Member, ObjectSpec, Op, Order, Page, Rate, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.attio import FakeAttio
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

TOKEN = "attio-0123456789abcdef"
NOBODY = "00000000-0000-4000-8000-00000000dead"


def rules(request: httpx.Request) -> Iterator[str]:
    """Conditions and identifiers that the description leaves open (docs.attio.com, "Filtering and sorting")."""
    body = _json(request)
    if request.url.path.endswith("/records/query"):
        either = body.get("filter", {}).get("$or") if isinstance(body.get("filter"), dict) else None
        if not isinstance(either, list) or not all(_is_condition(one) for one in either):
            yield "records are looked up by conditions that are joined with `$or`"
        if not _whole(body.get("limit"), 1, 500) or not _whole(body.get("offset"), 0):
            yield "a page of records has a limit of at most 500, and an offset"
    if request.url.path.endswith("/entries/query") and not (
        _whole(body.get("limit"), 1, 500) and _whole(body.get("offset"), 0)
    ):
        yield "a page of entries has a limit of at most 500, and an offset"
    if request.method == "PUT" and "matching_attribute" in request.url.params:
        name = request.url.params["matching_attribute"]
        values = body.get("data", {}).get("values", {}) if isinstance(body.get("data"), dict) else {}
        given = values.get(name) if isinstance(values, dict) else None
        if not given or not all(isinstance(one, str) for one in given):
            yield "the attribute that records are matched by has a text as its value"
        if isinstance(values, dict) and not all(map(_known, values)):
            yield "an attribute is one that the workspace has"


def _json(request: httpx.Request) -> dict[str, Any]:
    try:
        body = httpx.Response(200, content=request.content).json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _whole(value: Any, least: int, most: int = 10**9) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_condition(one: Any) -> bool:
    known = {"email_addresses": "email_address", "domains": "domain"}
    try:
        ((name, inner),) = one.items()
        ((part, comparison),) = inner.items()
        ((operator, value),) = comparison.items()
    except (AttributeError, ValueError):
        return False
    return known.get(name) == part and operator == "$eq" and isinstance(value, str)


def _known(name: str) -> bool:
    return name in {"email_addresses", "domains", "name"}


class TestAttioContract(ConnectorContract):
    connector = Attio
    config: ClassVar[dict[str, Any]] = {"token": TOKEN}
    audience = "lapsed_buyers"
    described = Described(
        "attio/attio_v2.json",
        Path(__file__).parent / "descriptions" / "attio_more.yaml",
        authenticated=lambda request: request.headers.get("authorization") == f"Bearer {TOKEN}",
        rules=(rules,),
    )
    mutants_caught: ClassVar[float] = 0.95

    @cached_property
    def fake(self) -> FakeAttio:
        fake = FakeAttio(TOKEN)
        fake.attributes["entries"] |= {"first_name": "text"}
        fake.add_list("Lapsed buyers")
        return fake

    def begin(self) -> None:
        """A workspace as it was at first."""
        self.__dict__.pop("fake", None)

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        """The workspace does not take the first record of each op."""
        if request.url.host != "localhost" and not any(mark in self._about(request) for mark in self._firsts):
            return None
        code = "multiple_match_results" if request.url.path.endswith("/entries") else "value_not_found"
        said = {"status_code": 400, "type": "invalid_request_error", "code": code, "message": "Not today."}
        return httpx.Response(400, json=said)

    @property
    def _firsts(self) -> list[str]:
        """What the first records of each op are written with: addresses, domains, ids of people and entries."""
        people = self.fake.records["people"].items()
        marks = [f"{op.value}0{end}" for op in Op for end in ("@acme", ".example")]
        ids = [id for id, one in people if any(mark in one["email_addresses"][0] for mark in marks)]
        entries = [id for known in self.fake.entries.values() for id, one in known.items() if one["parent"] in ids]
        return [*marks, *ids, *entries]

    def _about(self, request: httpx.Request) -> str:
        path = request.url.path.rpartition("/")[2] if request.method == "DELETE" else ""
        return request.content.decode() if request.method == "PUT" else path

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People whom the workspace knows, and who are in the list if they are to be changed or removed."""
        made = samples.changes(spec, op, count, prefix)
        if spec.name == "company":
            return [replace(c, identifiers={"domains": c.key.replace("key-", "") + ".example"}) for c in made]
        if spec.name == "person":
            return made
        list_id = next(iter(self.fake.lists))
        people = [self._person(str(change.identifiers["email_addresses"])) for change in made]
        there = self.fake.members(list_id)
        for person in people:
            if op is not Op.ADD and person not in there:
                self.fake.enter(list_id, person)
        return [replace(change, remote_id=id) for change, id in zip(made, people, strict=True)]

    def _person(self, address: str) -> str:
        people = self.fake.records["people"].items()
        found = next((id for id, one in people if address in one["email_addresses"]), None)
        return found or self.fake.add("people", address)


@pytest.fixture
def fake() -> FakeAttio:
    return FakeAttio(TOKEN)


@pytest.fixture
def attio(fake: FakeAttio) -> Iterator[Attio]:
    with connect(fake) as connector:
        yield connector


def connect(app: App, **config: Any) -> AbstractContextManager[Attio]:
    """A connector with its production client, whose wire is a function."""
    return connection(Attio, app, **{"token": TOKEN, **config})


def entry(name: str, op: Op = Op.ADD, /, id: str | None = None, **fields: Any) -> Change:
    return Change(op, name, {"email_addresses": f"{name}@example.com"}, fields, id)


def push(connector: Attio, object: str, *changes: Change, audience: str | None = None) -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", object, audience, changes))


# -- list entries


def test_a_person_is_found_by_address_and_entered_by_its_id_or_the_lists_slug(
    fake: FakeAttio, attio: Attio
) -> None:
    lapsed, ada = fake.add_list("Lapsed"), fake.add("people", "ada@example.com")
    bob = fake.add("people", "bob@example.com")

    added = push(attio, "list_entry", entry("ada", stage="new", score=3), audience=lapsed)
    by_slug = push(attio, "list_entry", entry("Bob"), audience="lapsed")

    assert added == {"ada": Receipt("ada", Status.APPLIED, remote_id=ada)}
    assert statuses(by_slug) == {"Bob": "applied"}
    assert fake.members(lapsed) == {ada: {"stage": ["new"], "score": [3]}, bob: {}}


def test_somebody_attio_does_not_know_is_rejected_and_the_others_are_entered(
    fake: FakeAttio, attio: Attio
) -> None:
    lapsed, ada = fake.add_list("Lapsed"), fake.add("people", "ada@example.com")

    receipts = push(attio, "list_entry", entry("ada"), entry("nobody"), audience=lapsed)

    assert statuses(receipts) == {"ada": "applied", "nobody": "rejected"}
    assert receipts["nobody"].reason == "Attio has no record with this identifier"
    assert set(fake.members(lapsed)) == {ada}


def test_a_replay_changes_the_entry_that_is_there_and_makes_no_other(fake: FakeAttio, attio: Attio) -> None:
    lapsed, ada = fake.add_list("Lapsed"), fake.add("people", "ada@example.com")
    first = push(attio, "list_entry", entry("ada", stage="new"), audience=lapsed)

    again = push(attio, "list_entry", entry("ada", stage="new"), audience=lapsed)
    changed = push(attio, "list_entry", entry("ada", Op.UPDATE, stage="won"), audience=lapsed)

    assert first == again == changed
    assert len(fake.entries[lapsed]) == 1
    assert fake.members(lapsed) == {ada: {"stage": ["won"]}}


def test_a_removal_deletes_every_entry_of_the_record_and_not_the_record(fake: FakeAttio, attio: Attio) -> None:
    lapsed, other = fake.add_list("Lapsed"), fake.add_list("Other")
    ada, bob = (fake.add("people", f"{name}@example.com") for name in ("ada", "bob"))
    for list_id, person in ((lapsed, ada), (lapsed, ada), (lapsed, bob), (other, ada)):
        fake.enter(list_id, person)
    fake.records["people"][ada]["email_addresses"] = ["ada@new.example"]

    gone = push(attio, "list_entry", entry("ada", Op.REMOVE, id=ada), audience=lapsed)
    by_slug = push(attio, "list_entry", entry("bob", Op.REMOVE), audience="lapsed")

    assert statuses(gone) | statuses(by_slug) == {"ada": "applied", "bob": "applied"}
    assert (fake.members(lapsed), set(fake.members(other))) == ({}, {ada})
    assert ada in fake.records["people"]


def test_removing_who_is_not_in_the_list_or_not_there_has_its_effect_already(
    fake: FakeAttio, attio: Attio
) -> None:
    lapsed = fake.add_list("Lapsed")
    fake.add("people", "ada@example.com")

    changes = [entry("ada", Op.REMOVE), entry("nobody", Op.REMOVE), entry("deleted", Op.REMOVE, id=NOBODY)]

    receipts = push(attio, "list_entry", *changes, audience=lapsed)
    assert set(statuses(receipts).values()) == {"applied"}


def test_an_entry_that_somebody_else_deletes_meanwhile_is_gone_as_it_should_be(fake: FakeAttio) -> None:
    lapsed, ada = fake.add_list("Lapsed"), fake.add("people", "ada@example.com")
    fake.enter(lapsed, ada)

    def meddle(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            fake.entries[lapsed].clear()
        return fake(request)

    with connect(meddle) as connector:
        assert statuses(push(connector, "list_entry", entry("ada", Op.REMOVE), audience=lapsed)) == {
            "ada": "applied"
        }


def test_entries_of_a_record_are_read_page_by_page(fake: FakeAttio, attio: Attio) -> None:
    ada = fake.add("people", "ada@example.com")
    crowded, lapsed = fake.add_list("Crowded"), fake.add_list("Lapsed")
    for _ in range(1000):
        fake.enter(crowded, ada)
    fake.enter(lapsed, ada)

    push(attio, "list_entry", entry("ada", Op.REMOVE), audience=lapsed)

    assert (len(fake.entries[crowded]), fake.members(lapsed)) == (1000, {})


def test_several_entries_of_one_record_are_membership_enough_and_cannot_be_changed(
    fake: FakeAttio, attio: Attio
) -> None:
    lapsed, ada = fake.add_list("Lapsed"), fake.add("people", "ada@example.com")
    fake.enter(lapsed, ada)
    fake.enter(lapsed, ada)

    assert statuses(push(attio, "list_entry", entry("ada"), audience=lapsed)) == {"ada": "applied"}
    changed = push(attio, "list_entry", entry("ada", Op.UPDATE, stage="won"), audience=lapsed)
    assert statuses(changed) == {"ada": "rejected"}
    assert changed["ada"].reason.startswith("multiple_match_results: ")


def test_values_a_list_does_not_take_are_rejected_with_the_reason(fake: FakeAttio, attio: Attio) -> None:
    lapsed = fake.add_list("Lapsed")
    for name in ("ada", "bob"):
        fake.add("people", f"{name}@example.com")

    receipts = push(attio, "list_entry", entry("ada", shoe_size=38), entry("bob", score=1), audience=lapsed)

    assert statuses(receipts) == {"ada": "rejected", "bob": "applied"}
    assert receipts["ada"].reason == 'value_not_found: Cannot find attribute with slug/ID "shoe_size".'


def test_a_list_that_is_not_there_fails_the_batch(fake: FakeAttio, attio: Attio) -> None:
    fake.add("people", "ada@example.com")

    with pytest.raises(RequestError, match="Attio has no list no%2Fwhere") as raised:
        push(attio, "list_entry", entry("ada"), audience="no/where")

    assert "slug of a list" in raised.value.fix


def test_lists_of_companies_are_kept_by_domain(fake: FakeAttio) -> None:
    lapsed, acme = fake.add_list("Lapsed", of="companies"), fake.add("companies", "acme.example")
    change = Change(Op.ADD, "acme", {"domains": "acme.example"}, {})

    with connect(fake, list_of="companies") as connector:
        spec = connector.objects["list_entry"]
        assert push(connector, "list_entry", change, audience=lapsed)["acme"].remote_id == acme
        (page,) = pages_of(connector, lapsed)

    assert [field.name for field in spec.identifiers] == ["domains"]
    assert page.members == [Member({"domains": "acme.example"}, acme)]


def test_entries_keep_the_pace_of_writes_and_removals_go_first(attio: Attio) -> None:
    spec = attio.objects["list_entry"]

    assert spec.order is Order.REMOVALS_FIRST
    assert {s.limits.rates for s in attio.objects.values()} == {(Rate(25, 1.0),)}


# -- people and companies


def test_people_are_made_or_changed_by_address_and_keep_their_other_addresses(
    fake: FakeAttio, attio: Attio
) -> None:
    ada = fake.add("people", "ada@work.example", name="Lovelace, Ada", score=1)
    fake.records["people"][ada]["email_addresses"].append("ada@example.com")

    changes = [entry("Ada", score=None, tags=["a", "b"], vip=True), entry("bob", name="Bell, Bob")]
    receipts = push(attio, "person", *changes)

    assert statuses(receipts) == {"Ada": "applied", "bob": "applied"}
    assert receipts["Ada"].remote_id == ada
    assert fake.records["people"][ada] == {
        "email_addresses": ["ada@work.example", "ada@example.com"],
        "name": ["Lovelace, Ada"],
        "tags": ["a", "b"],
        "vip": [True],
    }
    assert fake.records["people"][str(receipts["bob"].remote_id)]["name"] == ["Bell, Bob"]


def test_each_record_that_is_refused_has_its_reason(attio: Attio) -> None:
    odd = Change(Op.ADD, "odd", {"email_addresses": "not an address"}, {})

    receipts = push(attio, "person", entry("ada", shoe_size=38), odd, entry("bob", score="many"), entry("eve"))

    assert statuses(receipts) == {"ada": "rejected", "odd": "rejected", "bob": "rejected", "eve": "applied"}
    assert receipts["bob"].reason == 'value_not_found: An invalid value was passed to attribute with slug "score".'


def test_companies_go_by_domain_which_loses_what_is_not_of_it(fake: FakeAttio, attio: Attio) -> None:
    given = ["acme.example", "https://beta.example/about"]
    changes = [Change(Op.ADD, domain, {"domains": domain}, {"name": "A company"}) for domain in given]

    assert set(statuses(push(attio, "company", *changes)).values()) == {"applied"}
    assert [one["domains"] for one in fake.records["companies"].values()] == [["acme.example"], ["beta.example"]]


def test_people_and_companies_are_never_removed(attio: Attio) -> None:
    assert {attio.objects[name].ops for name in ("person", "company")} == {frozenset({Op.ADD, Op.UPDATE})}


# -- the workspace


def pages_of(attio: Attio, audience: str) -> Iterator[Page]:
    page = attio.members("list_entry", audience)
    yield page
    while page.next is not None:
        page = attio.members("list_entry", audience, page.next)
        yield page


def test_a_list_can_be_made_and_read_page_by_page(fake: FakeAttio, attio: Attio) -> None:
    lapsed = attio.create_audience("list_entry", "Lapsed buyers, 2026!")
    people = [fake.add("people", f"p{n}@example.com") for n in range(60)]
    for person in people:
        fake.enter(lapsed, person)
    del fake.records["people"][people[-1]]

    pages = list(pages_of(attio, lapsed))

    assert fake.lists[lapsed] == {
        "name": "Lapsed buyers, 2026!",
        "api_slug": "lapsed_buyers_2026",
        "parent_object": ["people"],
    }
    assert [len(page.members) for page in pages] == [50, 10]
    members = [member for page in pages for member in page.members]
    assert members[0] == Member({"email_addresses": "p0@example.com"}, people[0])
    assert members[-1] == Member({}, people[-1])
    assert [*pages_of(attio, attio.create_audience("list_entry", "¡"))] == [Page([], None)]
    with pytest.raises(RequestError):
        attio.create_audience("list_entry", "Lapsed buyers 2026")


def test_the_attributes_that_may_be_written_are_found(attio: Attio) -> None:
    found = {field.name: field for field in attio.describe("person")}

    assert found["email_addresses"].identifier
    assert {name: field.type for name, field in found.items()} == {
        "email_addresses": "string",
        "name": "string",
        "description": "string",
        "score": "number",
        "vip": "boolean",
        "tags": "string",
    }
    assert "employees" in {field.name for field in attio.describe("company")}
    assert not list(attio.describe("list_entry"))  # each list has its own
    for protocol in (Creates, Describes, Reads):
        assert isinstance(attio, protocol)


def test_a_wrong_token_is_an_auth_error(fake: FakeAttio) -> None:
    with connect(fake, token="other") as connector, pytest.raises(AuthError):
        connector.check()


def test_the_limit_of_a_second_is_a_rate_limit_that_says_when_it_is_over() -> None:
    with connect(FakeAttio(TOKEN, rate=Rate(1, 30.0))) as connector:
        connector.check()
        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after == pytest.approx(30, abs=2)


def test_two_tokens_are_two_accounts_and_no_token_is_told() -> None:
    one, other = AttioConfig(token=TOKEN), AttioConfig(token="attio-other")

    assert Attio.account(one) != Attio.account(other)
    assert TOKEN not in Attio.account(one) + repr(one)


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError):
        AttioConfig(token=TOKEN, list_of="deals")


def test_it_works_over_a_real_connection(fake: FakeAttio) -> None:
    lapsed, ada = fake.add_list("Lapsed"), fake.add("people", "ada@example.com")
    with serve(fake) as url:
        config = AttioConfig(token=TOKEN, base_url=url)
        with build_client(Attio, config, timeout=5) as client:
            assert statuses(push(Attio(config, client), "list_entry", entry("ada"), audience=lapsed)) == {
                "ada": "applied"
            }

    assert set(fake.members(lapsed)) == {ada}


# -- answers that contradict themselves, or say nothing

ADA, BOB, LIST = (f"0000000{n}-0000-4000-8000-000000000000" for n in (1, 2, 3))


def person(id: str, *addresses: str) -> dict[str, Any]:
    return {"id": {"record_id": id}, "values": {"email_addresses": [{"email_address": one} for one in addresses]}}


def told(answers: list[Any], object: str, change: Change) -> str | type[DestinationError]:
    """What becomes of a change where Attio answers so, in turn; a number is a status with nothing."""
    waiting = iter(answers)

    def app(request: httpx.Request) -> httpx.Response:
        answer = next(waiting)
        return httpx.Response(answer) if isinstance(answer, int) else httpx.Response(200, json=answer)

    with connect(app) as connector:
        try:
            return statuses(push(connector, object, change, audience=LIST))[change.key]
        except DestinationError as exc:
            return type(exc)


FOUND = {"data": [person(ADA, "ada@example.com")]}
PLACE = {"list_id": LIST, "list_api_slug": "lapsed", "entry_id": BOB}


@pytest.mark.parametrize(
    ("answers", "op", "outcome"),
    [
        ([{"data": [person(ADA, "bob@example.com")]}], Op.ADD, ProtocolError),
        ([{"data": [person("", "ada@example.com")]}], Op.ADD, ProtocolError),
        ([{"data": [person("7", "ada@example.com")]}], Op.ADD, ProtocolError),
        ([{"data": [*FOUND["data"], *FOUND["data"]]}], Op.ADD, ProtocolError),
        ([{"data": [*FOUND["data"], person(BOB, "Ada@example.com")]}], Op.ADD, "deferred"),
        ([FOUND, {"data": {"id": {"entry_id": BOB}, "parent_record_id": BOB}}], Op.ADD, "unknown"),
        ([FOUND, {"data": {"id": {}, "parent_record_id": ADA}}], Op.ADD, "unknown"),
        ([FOUND, {"data": {}}], Op.ADD, ProtocolError),
        ([FOUND, {}], Op.ADD, ProtocolError),
        ([{}], Op.REMOVE, ProtocolError),
        ([FOUND, {}], Op.REMOVE, ProtocolError),
        ([FOUND, 400], Op.ADD, "rejected"),
        ([FOUND, {"data": [PLACE]}, {"deleted": False}], Op.REMOVE, ProtocolError),
        ([FOUND, {"data": [PLACE]}, 204], Op.REMOVE, ProtocolError),
        ([FOUND, {"data": [PLACE]}, 400], Op.REMOVE, "rejected"),
        ([FOUND, {"data": [PLACE]}, 404], Op.REMOVE, RequestError),
        ([FOUND, 404], Op.REMOVE, RequestError),
        ([FOUND, {"data": [PLACE]}, {}], Op.REMOVE, "applied"),
        ([FOUND, {"data": [{**PLACE, "entry_id": "x/../y"}]}], Op.REMOVE, ProtocolError),
    ],
)
def test_an_entrys_answer_is_believed_where_it_is_about_the_record(
    answers: list[Any], op: Op, outcome: Any
) -> None:
    assert told(answers, "list_entry", entry("ada", op)) == outcome


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ({"data": person(ADA, "ada@example.com")}, "applied"),
        ({"data": person(ADA, "ADA@example.com", "x@y.example")}, "applied"),
        ({"data": person(ADA, "bob@example.com")}, "unknown"),
        ({"data": person(ADA)}, "unknown"),
        ({"data": person("", "ada@example.com")}, "unknown"),
        ({"data": []}, ProtocolError),
        ({}, ProtocolError),
        (400, "rejected"),
        (404, RequestError),
    ],
)
def test_a_person_is_written_where_the_answer_has_the_address(answer: Any, outcome: Any) -> None:
    assert told([answer], "person", entry("ada")) == outcome
