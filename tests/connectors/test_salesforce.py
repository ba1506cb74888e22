"""Salesforce: what becomes of campaign members, contacts and leads, against an org in memory."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.salesforce import Salesforce, SalesforceConfig
from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.connector import Creates, Describes, Polls, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Field, Job, Member, ObjectSpec, Op, Order, Page, Rate, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.salesforce import FakeSalesforce
from sync.testing.fakes.server import serve
from sync.testing.fakes.soql import Malformed, parse
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

TOKEN = "00D5g000000session"
URL = "https://acme.my.salesforce.com"
KINDS = {"campaign_member": "CampaignMember", "contact": "Contact", "lead": "Lead"}
_ID = re.compile(r"[0-9A-Za-z]{18}")
_WRITTEN = {"Campaign", "CampaignMember", "Contact", "Lead"}


def collection_rules(request: httpx.Request) -> Iterator[str]:
    """Whose id a record has, and where (REST API guide, sObject Collections: insert, update, upsert, delete)."""
    path = request.url.path.partition("/composite/sobjects")
    if not path[1]:
        return
    if request.method == "DELETE":
        ids = request.url.params.get("ids", "").split(",")
        if len(ids) > 200 or not all(_ID.fullmatch(id) for id in ids):
            yield "`ids` are at most 200 record ids"
        if request.url.params.get("allOrNone") not in ("true", "false"):
            yield "`allOrNone` is true or false"
        return
    body = Answerless.json(request)
    records = body.get("records") if isinstance(body, dict) else None
    if not isinstance(records, list) or not isinstance(body.get("allOrNone"), bool):
        yield "a collection has `records` and `allOrNone`"
        return
    into = path[2].strip("/").split("/") if path[2] else []
    for one in records:
        kind = one.get("attributes", {}).get("type") if isinstance(one, dict) else None
        if kind not in _WRITTEN:
            yield "a record's type is that of an object"
        elif into and (kind != into[0] or not one.get(into[1]) or "Id" in one):
            yield "an upserted record has the type and the external id of the address, and no id"
        elif not into and (request.method == "PATCH") != bool(_ID.fullmatch(str(one.get("Id", "")))):
            yield "a record has an id where it is updated, and nowhere else"
        elif request.method == "POST":
            yield from new_record_faults(one, kind)


def new_record_faults(record: dict[str, Any], kind: str) -> Iterator[str]:
    """What a new record has to have (Object Reference, "CampaignMember" and "Campaign")."""
    if kind == "CampaignMember":
        people = [name for name in ("ContactId", "LeadId") if name in record]
        if len(people) != 1 or not all(_ID.fullmatch(str(record.get(name))) for name in ("CampaignId", *people)):
            yield "a campaign member has a campaign, and a contact or a lead"
    elif not isinstance(record.get("Name"), str) or not isinstance(record.get("IsActive"), bool):
        yield "a campaign has a name, and is active or not"


def query_rules(request: httpx.Request) -> Iterator[str]:
    """A query can be parsed (SOQL and SOSL Reference)."""
    if request.url.path.endswith("/query"):
        try:
            parse(request.url.params.get("q", ""))
        except Malformed as exc:
            yield f"malformed query: {exc}"


def job_rules(request: httpx.Request) -> Iterator[str]:
    """What an upsert job needs (Bulk API 2.0, "Create a Job" and "Upload Job Data")."""
    if request.method == "POST" and request.url.path.endswith("/jobs/ingest"):
        body = Answerless.json(request)
        body = body if isinstance(body, dict) else {}
        if body.get("operation") == "upsert" and not body.get("externalIdFieldName"):
            yield "an upsert needs `externalIdFieldName`"
        if body.get("operation") == "hardDelete" or body.get("object") not in _WRITTEN:
            yield "the job is for an object, and deletes nothing"
        if any(name not in body for name in ("contentType", "lineEnding", "columnDelimiter")):
            yield "the form of the file is said"
    if request.url.path.endswith("/batches"):
        rows = list(csv.reader(io.StringIO(request.content.decode())))
        if len(rows) < 2 or any(len(row) != len(rows[0]) for row in rows):
            yield "a file has a header, and rows of the same length"


class Answerless:
    """Reads bodies that a mutation may have spoilt."""

    @staticmethod
    def json(request: httpx.Request) -> Any:
        try:
            return httpx.Response(200, content=request.content).json()
        except ValueError:
            return None


DESCRIBED = Described(
    "reconstructed/salesforce/rest_collections_bulk2.json",
    Path(__file__).parent / "descriptions" / "salesforce_reads.yaml",
    authenticated=lambda request: request.headers.get("authorization") == f"Bearer {TOKEN}",
    rules=(collection_rules, query_rules, job_rules),
    reconstructed=True,
)


class TestSalesforceContract(ConnectorContract):
    """Three contacts or leads, what most checks push, are a job; fewer are a collection."""

    connector = Salesforce
    config: ClassVar[dict[str, Any]] = {"base_url": URL, "access_token": TOKEN, "bulk_above": 2}
    described = DESCRIBED
    mutants_caught: ClassVar[float] = 0.9

    @cached_property
    def fake(self) -> FakeSalesforce:
        fake = FakeSalesforce(TOKEN)
        for kind in ("Contact", "Lead", "CampaignMember"):
            fake.fields[kind] |= {"first_name": "string", "score": "double", "vip": "boolean"}
        fake.required = {"Lead": {"LastName"}}  # as in an org that fills the company in by itself
        fake.add("Campaign", Name="Lapsed buyers")
        return fake

    def begin(self) -> None:
        """An org as it was at first."""
        self.__dict__.pop("fake", None)

    @property
    def audience(self) -> str:  # type: ignore[override]
        return min(self.fake.records["Campaign"])

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        """A rule of the org refuses the first record of a collection, or the first row of a job."""
        if request.url.host == "localhost":
            return httpx.Response(200)
        answer = self.fake(request)
        if request.method == "PUT":
            list(self.fake.jobs.values())[-1]["rows"][0]["LastName"] = "x" * 200_000
        if "/composite/" not in request.url.path:
            return answer
        error = {"statusCode": "FIELD_CUSTOM_VALIDATION_EXCEPTION", "message": "Not today.", "fields": []}
        return httpx.Response(200, json=[{"success": False, "errors": [error]}, *answer.json()[1:]])

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People whom the org knows, and who are in the campaign if they are to be changed or removed."""
        made = samples.changes(spec, op, count, prefix)
        if spec.name != "campaign_member":
            return made
        people = [self._person(str(change.identifiers["Email"])) for change in made]
        there = self.fake.members(self.audience)
        for person in people:
            if op is not Op.ADD and person not in there:
                self.fake.add("CampaignMember", CampaignId=self.audience, ContactId=person)
        return [replace(change, remote_id=id) for change, id in zip(made, people, strict=True)]

    def _person(self, email: str) -> str:
        contacts = self.fake.records["Contact"].items()
        found = next((id for id, one in contacts if one.get("Email") == email), None)
        return found or self.fake.add("Contact", LastName="Lovelace", Email=email)


@pytest.fixture
def fake() -> FakeSalesforce:
    return FakeSalesforce(TOKEN)


@pytest.fixture
def salesforce(fake: FakeSalesforce) -> Iterator[Salesforce]:
    with connect(fake) as connector:
        yield connector


def connect(app: App, **config: Any) -> AbstractContextManager[Salesforce]:
    """A connector with its production client, whose wire is a function."""
    return connection(Salesforce, app, **{"base_url": URL, "access_token": TOKEN, **config})


def member(name: str, op: Op = Op.ADD, /, id: str | None = None, **fields: Any) -> Change:
    return Change(op, name, {"Email": f"{name}@example.com"}, fields, id)


def contact(name: str, **fields: Any) -> Change:
    return Change(Op.ADD, name, {"External_Id__c": name}, {"LastName": name.title(), **fields})


def push(connector: Salesforce, object: str, *changes: Change, audience: str | None = None) -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", object, audience, changes))


def people(fake: FakeSalesforce, *names: str, kind: str = "Contact") -> list[str]:
    return [fake.add(kind, LastName=name, Email=f"{name}@example.com") for name in names]


# -- campaign members


def test_people_are_found_by_address_among_contacts_and_then_among_leads(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign, (ada,) = fake.add("Campaign", Name="Lapsed"), people(fake, "Ada")
    people(fake, "ada", kind="Lead")
    (bob,) = people(fake, "bob", kind="Lead")

    added = push(salesforce, "campaign_member", member("ada"), member("bob", Status="Sent"), audience=campaign)

    assert added == {
        "ada": Receipt("ada", Status.APPLIED, remote_id=ada),
        "bob": Receipt("bob", Status.APPLIED, remote_id=bob),
    }
    assert fake.members(campaign) == {
        ada: {"CampaignId": campaign, "ContactId": ada},
        bob: {"CampaignId": campaign, "LeadId": bob, "Status": "Sent"},
    }


def test_somebody_salesforce_does_not_know_is_rejected_and_the_others_are_added(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign, (ada,) = fake.add("Campaign", Name="Lapsed"), people(fake, "ada")

    receipts = push(salesforce, "campaign_member", member("ada"), member("nobody"), audience=campaign)

    assert statuses(receipts) == {"ada": "applied", "nobody": "rejected"}
    assert receipts["nobody"].reason == "Salesforce has no contact or lead with this identifier"
    assert set(fake.members(campaign)) == {ada}


def test_several_people_with_one_address_are_left_for_a_person_to_mend(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign = fake.add("Campaign", Name="Lapsed")
    people(fake, "ada", "ada")

    receipts = push(salesforce, "campaign_member", member("ada"), audience=campaign)

    assert statuses(receipts) == {"ada": "deferred"}
    assert fake.members(campaign) == {}


def test_a_replay_finds_the_row_and_writes_nothing_new(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    campaign, (ada,) = fake.add("Campaign", Name="Lapsed"), people(fake, "ada")
    first = push(salesforce, "campaign_member", member("ada", Status="Sent"), audience=campaign)

    again = push(salesforce, "campaign_member", member("ada", Status="Sent"), audience=campaign)
    changed = push(salesforce, "campaign_member", member("ada", Op.UPDATE, Status="Responded"), audience=campaign)

    assert first == again == changed
    assert len(fake.records["CampaignMember"]) == 1
    assert fake.members(campaign)[ada]["Status"] == "Responded"


def test_a_removal_deletes_the_row_and_not_the_person_whose_address_may_have_changed(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign, other = fake.add("Campaign", Name="Lapsed"), fake.add("Campaign", Name="Other")
    (ada,) = people(fake, "ada")
    added = push(salesforce, "campaign_member", member("ada"), audience=campaign)
    push(salesforce, "campaign_member", member("ada"), audience=other)
    fake.records["Contact"][ada]["Email"] = "ada@new.example"

    gone = member("ada", Op.REMOVE, id=added["ada"].remote_id)

    assert statuses(push(salesforce, "campaign_member", gone, audience=campaign)) == {"ada": "applied"}
    assert (fake.members(campaign), set(fake.members(other))) == ({}, {ada})
    assert ada in fake.records["Contact"]


def test_removing_somebody_who_is_not_in_the_campaign_has_its_effect_already(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign = fake.add("Campaign", Name="Lapsed")
    people(fake, "ada")

    gone = [member("ada", Op.REMOVE), member("nobody", Op.REMOVE)]

    assert statuses(push(salesforce, "campaign_member", *gone, audience=campaign)) == {
        "ada": "applied",
        "nobody": "applied",
    }


def test_a_row_that_somebody_else_deletes_or_makes_meanwhile(fake: FakeSalesforce) -> None:
    campaign, (ada, bob) = fake.add("Campaign", Name="Lapsed"), people(fake, "ada", "bob")
    fake.add("CampaignMember", CampaignId=campaign, ContactId=ada)

    def meddle(request: httpx.Request) -> httpx.Response:
        if request.method == "DELETE":
            fake.records["CampaignMember"].clear()
        elif request.method == "POST":
            fake.add("CampaignMember", CampaignId=campaign, ContactId=bob)
        return fake(request)

    with connect(meddle) as connector:
        assert statuses(push(connector, "campaign_member", member("ada", Op.REMOVE), audience=campaign)) == {
            "ada": "applied"
        }
        added = push(connector, "campaign_member", member("bob"), audience=campaign)

    assert statuses(added) == {"bob": "rejected"}
    assert added["bob"].reason == "DUPLICATE_VALUE: Already a campaign member."


def test_a_record_somebody_else_is_writing_is_tried_later(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    campaign, (ada, bob) = fake.add("Campaign", Name="Lapsed"), people(fake, "ada", "bob")
    fake.locked = {ada}

    receipts = push(salesforce, "campaign_member", member("ada"), member("bob"), audience=campaign)

    assert statuses(receipts) == {"ada": "deferred", "bob": "applied"}
    assert set(fake.members(campaign)) == {bob}


def test_two_records_of_one_person_are_one_row_and_may_not_differ(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign, (ada,) = fake.add("Campaign", Name="Lapsed"), people(fake, "ada")
    twins = [
        replace(member("ada", Status=status), key=key)
        for key, status in (("a", "Sent"), ("b", "Sent"), ("c", "x"))
    ]

    receipts = push(salesforce, "campaign_member", *twins, audience=campaign)

    assert statuses(receipts) == {"a": "applied", "b": "applied", "c": "rejected"}
    assert fake.members(campaign)[ada]["Status"] == "Sent"


def test_people_are_found_by_an_external_id_or_by_their_own(fake: FakeSalesforce) -> None:
    campaign = fake.add("Campaign", Name="Lapsed")
    ada, bob = fake.add("Contact", External_Id__c="c-1"), fake.add("Lead", External_Id__c="c-2")

    with connect(fake, member_key="External_Id__c") as connector:
        (spec,) = (s for s in connector.objects.values() if s.audience)
        added = Change(Op.ADD, "ada", {"External_Id__c": "c-1"}, {})
        assert push(connector, "campaign_member", added, audience=campaign)["ada"].remote_id == ada
    assert spec.identifiers == (Field("External_Id__c", required=True, identifier=True),)

    with connect(fake, member_key="Id") as connector:
        ids = [Change(Op.ADD, id, {"Id": id}, {}) for id in (bob, "0015g00000XYZab", "not an id", ada[:15])]
        receipts = push(connector, "campaign_member", *ids, audience=campaign[:15])
    assert [r.status.value for r in receipts.values()] == ["applied", "rejected", "rejected", "applied"]
    assert set(fake.members(campaign)) == {ada, bob}


def test_only_the_people_that_are_wanted_are_looked_for(fake: FakeSalesforce) -> None:
    campaign = fake.add("Campaign", Name="Lapsed")
    people(fake, "ada", kind="Lead")
    fake.add("Lead", Email="bob@example.com", IsConverted=True)

    with connect(fake, people=["Contact"]) as connector:
        assert statuses(push(connector, "campaign_member", member("ada"), audience=campaign)) == {
            "ada": "rejected"
        }
    with connect(fake, people=["Lead"]) as connector:
        receipts = push(connector, "campaign_member", member("ada"), member("bob"), audience=campaign)
    assert statuses(receipts) == {"ada": "applied", "bob": "rejected"}


@pytest.mark.parametrize("audience", [None, "", "Lapsed", "701' OR Id != '", "7015g000000001\n"])
def test_an_audience_that_is_no_id_is_refused_before_anything_is_asked(
    fake: FakeSalesforce, salesforce: Salesforce, audience: str | None
) -> None:
    with pytest.raises(RequestError, match="not a campaign's id") as raised:
        push(salesforce, "campaign_member", member("ada"), audience=audience)

    assert "18 characters" in raised.value.fix
    assert fake.requests == 0


def test_a_campaign_that_is_not_there_takes_nobody(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    people(fake, "ada")

    receipts = push(salesforce, "campaign_member", member("ada"), audience="7015g00000ABCde")

    assert statuses(receipts) == {"ada": "rejected"}
    assert receipts["ada"].reason == "INVALID_CROSS_REFERENCE_KEY: invalid cross reference id"


@pytest.mark.parametrize(
    "name", ["o'hara", "back\\slash", "x' OR Email != '", "per%cent_", "tab\tnew\nline\r", "it''s", "ø'\\", "#1"]
)
def test_what_people_are_found_by_cannot_break_out_of_the_query(
    fake: FakeSalesforce, salesforce: Salesforce, name: str
) -> None:
    campaign, (id, _) = fake.add("Campaign", Name="Lapsed"), people(fake, name, "other")

    assert push(salesforce, "campaign_member", member(name), audience=campaign)[name].remote_id == id
    assert set(fake.members(campaign)) == {id}


def test_long_lists_of_people_are_looked_up_in_parts(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    campaign = fake.add("Campaign", Name="Lapsed")
    names = [f"{'é' * 60}{n}" for n in range(200)]
    people(fake, *names)

    receipts = push(salesforce, "campaign_member", *map(member, names), audience=campaign)

    assert set(statuses(receipts).values()) == {"applied"}
    assert len(fake.members(campaign)) == 200


def test_many_people_with_the_addresses_asked_for_are_read_page_by_page(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    campaign = fake.add("Campaign", Name="Lapsed")
    fake.page = 3
    people(fake, *"abcdefgh")

    receipts = push(salesforce, "campaign_member", *map(member, "abcdefgh"), audience=campaign)

    assert set(statuses(receipts).values()) == {"applied"}


def test_removals_of_a_campaign_go_first_and_its_requests_one_by_one(salesforce: Salesforce) -> None:
    spec = salesforce.objects["campaign_member"]

    assert (spec.order, spec.limits.concurrency, spec.limits.batch_size) == (Order.REMOVALS_FIRST, 1, 200)


# -- contacts and leads


def test_contacts_are_made_or_changed_by_their_external_id(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    ada = fake.add("Contact", LastName="Ada", External_Id__c="ada", FirstName="A", Phone="1")
    values = {
        "FirstName": "Augusta",
        "Phone": None,
        "Score__c": 1.5,
        "Tags__c": ["a", "b"],
        "HasOptedOutOfEmail": True,
    }

    receipts = push(salesforce, "contact", contact("ada", **values), contact("bob", Tier__c={"a": 1}))

    assert statuses(receipts) == {"ada": "applied", "bob": "applied"}
    assert receipts["ada"].remote_id == ada
    assert fake.records["Contact"][ada] == {
        "LastName": "Ada",
        "External_Id__c": "ada",
        "FirstName": "Augusta",
        "Score__c": 1.5,
        "Tags__c": "a;b",
        "HasOptedOutOfEmail": True,
    }
    assert fake.records["Contact"][str(receipts["bob"].remote_id)]["Tier__c"] == '{"a":1}'


def test_each_record_that_is_refused_has_its_reason(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    fake.locked = {fake.add("Lead", External_Id__c="locked")}
    for _ in range(2):
        fake.add("Lead", External_Id__c="twice")
    leads = [contact("ada", Company="Acme"), contact("bob"), contact("eve", Company="Acme", ShoeSize__c=38)]

    receipts = push(salesforce, "lead", *leads, contact("locked"), contact("twice"))

    assert {key: (receipt.status.value, receipt.reason) for key, receipt in receipts.items()} == {
        "ada": ("applied", ""),
        "bob": ("rejected", "REQUIRED_FIELD_MISSING: Required fields are missing: ['Company']"),
        "eve": ("rejected", "INVALID_FIELD: No such column 'ShoeSize__c' on sobject of type Lead"),
        "locked": ("deferred", "UNABLE_TO_LOCK_ROW: unable to obtain exclusive access to this record"),
        "twice": (
            "rejected",
            "DUPLICATE_EXTERNAL_ID: External_Id__c: more than one record found for external id field",
        ),
    }


def test_up_to_the_threshold_records_go_in_collections_of_two_hundred(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    receipts = push(salesforce, "contact", *(contact(f"p{n}") for n in range(450)))

    assert set(statuses(receipts).values()) == {"applied"}
    assert (fake.requests, len(fake.records["Contact"]), fake.jobs) == (3, 450, {})


@pytest.mark.parametrize(("above", "size"), [(0, 10_000), (9_999, 10_000), (10_000, 200)])
def test_batches_are_as_large_as_a_job_where_there_can_be_one(fake: FakeSalesforce, above: int, size: int) -> None:
    with connect(fake, bulk_above=above) as connector:
        assert {connector.objects[name].limits.batch_size for name in ("contact", "lead")} == {size}


def test_an_external_id_field_of_another_name(fake: FakeSalesforce) -> None:
    fake.fields["Contact"]["Shop_External_Id__c"] = "string"

    with connect(fake, contact_key="Shop_External_Id__c") as connector:
        change = Change(Op.ADD, "ada", {"Shop_External_Id__c": "7"}, {"LastName": "Ada"})
        assert statuses(push(connector, "contact", change)) == {"ada": "applied"}
    with connect(fake, contact_key="Nonsense__c") as connector, pytest.raises(RequestError):
        push(connector, "contact", Change(Op.ADD, "ada", {"Nonsense__c": "7"}, {}))


def test_people_are_never_removed(salesforce: Salesforce) -> None:
    assert {salesforce.objects[name].ops for name in ("contact", "lead")} == {frozenset({Op.ADD, Op.UPDATE})}


# -- jobs


@pytest.fixture
def bulk(fake: FakeSalesforce) -> Iterator[Salesforce]:
    with connect(fake, bulk_above=1) as connector:
        yield connector


def begun(connector: Salesforce, *changes: Change) -> tuple[Job, Batch]:
    batch = Batch("b1", "winback", "contact", None, changes)
    job = connector.push(batch)
    assert isinstance(job, Job)
    return job, batch


def over(connector: Salesforce, *changes: Change) -> dict[str, Receipt]:
    job, batch = begun(connector, *changes)
    for _ in range(5):
        outcome = connector.poll(job, batch)
        if not isinstance(outcome, Job):
            return {receipt.key: receipt for receipt in outcome}
        assert outcome.poll_after > job.poll_after
        job = outcome
    raise AssertionError("the job is not over")


def test_above_the_threshold_a_batch_is_a_job_with_a_receipt_for_each_row(
    fake: FakeSalesforce, bulk: Salesforce
) -> None:
    ada = fake.add("Contact", LastName="A", External_Id__c="ada", FirstName="A", Phone="1", Title="kept")
    fake.locked = {fake.add("Contact", External_Id__c="locked")}
    odd = 'a "quoted", comma;\nand line'
    changes = [
        contact("ada", FirstName=odd, Phone=None, Tags__c=["a", "b"], HasOptedOutOfEmail=True),
        contact("bob", Email="bob"),
        contact("locked"),
        contact('ø, "x"', Score__c=12.5),
    ]

    receipts = over(bulk, *changes)

    assert {key: (receipt.status.value, receipt.reason) for key, receipt in receipts.items()} == {
        "ada": ("applied", ""),
        "bob": ("rejected", "INVALID_EMAIL_ADDRESS:Email: invalid email address: --"),
        "locked": ("deferred", "UNABLE_TO_LOCK_ROW:unable to obtain exclusive access to this record: --"),
        'ø, "x"': ("applied", ""),
    }
    assert receipts["ada"].remote_id == ada
    written = fake.records["Contact"][ada]
    assert written == {
        "LastName": "Ada",
        "External_Id__c": "ada",
        "FirstName": odd,
        "Title": "kept",
        "Tags__c": "a;b",
        "HasOptedOutOfEmail": "true",
    }


@pytest.mark.parametrize("state", ["Failed", "Aborted"])
def test_rows_that_a_job_did_not_come_to_are_tried_later(
    fake: FakeSalesforce, bulk: Salesforce, state: str
) -> None:
    job, batch = begun(bulk, contact("ada"), contact("bob"))
    inside = fake.jobs[job.id]
    inside |= {"state": state, "rest": inside["rows"][1:], "why": "too many triggers"}
    inside["done"] = [{"sf__Id": "0035g00000ABCde", "sf__Created": "true", **inside["rows"][0]}]

    receipts = bulk.poll(job, batch)

    assert isinstance(receipts, list)
    assert [(r.key, r.status.value, r.reason) for r in receipts] == [
        ("ada", "applied", ""),
        ("bob", "deferred", "the job ended before it came to this record: too many triggers"),
    ]


def test_rows_that_no_result_names_and_rows_that_two_name_are_unknown(
    fake: FakeSalesforce, bulk: Salesforce
) -> None:
    job, batch = begun(bulk, contact("ada"), contact("bob"), contact("eve"))
    inside = fake.jobs[job.id]
    done = [
        {"sf__Id": id, "sf__Created": "true", **row}
        for id, row in zip(("0035g00000ABCde", "x"), inside["rows"][:2], strict=True)
    ]
    failed = [{"sf__Id": "", "sf__Error": "NO:no", **inside["rows"][0]}]
    inside |= {"state": "JobComplete", "done": done, "failed": failed}

    receipts = bulk.poll(job, batch)

    assert isinstance(receipts, list)
    assert {r.status for r in receipts} == {Status.UNKNOWN}


def test_a_job_that_salesforce_does_not_have_any_more_is_unknown(fake: FakeSalesforce, bulk: Salesforce) -> None:
    job, batch = begun(bulk, contact("ada"), contact("bob"))
    fake.jobs.clear()

    receipts = bulk.poll(job, batch)

    assert isinstance(receipts, list)
    assert {(r.status.value, r.reason) for r in receipts} == {
        ("unknown", "Salesforce does not have the job any more: it keeps them for seven days")
    }


@pytest.mark.parametrize(
    "told",
    [
        "",
        "<html>Please log in</html>",
        '"sf__Id","sf__Created"\n"0035g00000ABCde","true"\n',
        '"sf__Id","sf__Created","External_Id__c"\n"0035g00000ABCde","true"\n',
        '"sf__Id","sf__Created","External_Id__c"\n"0035g00000ABCde","true","ada","more"\n',
        '"sf__Id","sf__Created","External_Id__c"\n"0035g00000ABCde","true","ad',
    ],
)
def test_results_that_are_not_whole_are_an_unknown_outcome(fake: FakeSalesforce, told: str) -> None:
    def lying(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text=told) if request.url.path.endswith("successfulResults") else fake(request)

    fake.polls = 0
    with connect(lying, bulk_above=1) as connector, pytest.raises(ProtocolError):
        over(connector, contact("ada"), contact("bob"))


def test_a_job_that_does_not_begin_is_an_unknown_outcome(fake: FakeSalesforce) -> None:
    def aborted(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        return (
            answer
            if request.method != "PATCH"
            else httpx.Response(200, json={**answer.json(), "state": "Aborted"})
        )

    def other(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"id": "7505g0000000000", "state": "JobComplete"})

    with connect(aborted, bulk_above=1) as connector, pytest.raises(ProtocolError):
        begun(connector, contact("ada"), contact("bob"))
    with connect(fake, bulk_above=1) as connector:
        job, batch = begun(connector, contact("ada"), contact("bob"))
    with connect(other, bulk_above=1) as connector, pytest.raises(ProtocolError):
        connector.poll(job, batch)


# -- the org


def pages_of(salesforce: Salesforce, audience: str) -> Iterator[Page]:
    page = salesforce.members("campaign_member", audience)
    yield page
    while page.next is not None:
        page = salesforce.members("campaign_member", audience, page.next)
        yield page


def test_a_campaign_can_be_made_and_read_page_by_page(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    campaign = salesforce.create_audience("campaign_member", "Lapsed buyers")
    fake.page = 4
    ids = [
        *people(fake, *"abcdefg"),
        *people(fake, "hij", kind="Lead"),
        fake.add("Contact", LastName="no address"),
    ]
    for id in ids:
        fake.add("CampaignMember", CampaignId=campaign, **{"LeadId" if id.startswith("00Q") else "ContactId": id})

    pages = list(pages_of(salesforce, campaign))

    assert fake.records["Campaign"][campaign] == {"Name": "Lapsed buyers", "IsActive": True}
    assert [len(page.members) for page in pages] == [4, 4, 1]
    members = [member for page in pages for member in page.members]
    assert [member.remote_id for member in members] == ids
    assert members[0] == Member({"Email": "a@example.com"}, ids[0])
    assert members[-1].identifiers == {}
    assert list(pages_of(salesforce, salesforce.create_audience("campaign_member", "Nobody"))) == [Page([], None)]


def test_a_campaign_that_salesforce_does_not_make_is_an_error(
    fake: FakeSalesforce, salesforce: Salesforce
) -> None:
    fake.required["Campaign"] = {"Name", "Region__c"}

    with pytest.raises(RequestError, match="did not make the campaign") as raised:
        salesforce.create_audience("campaign_member", "Lapsed buyers")

    assert "Region__c" in raised.value.detail


def test_the_fields_that_may_be_written_are_found(fake: FakeSalesforce, salesforce: Salesforce) -> None:
    found = {field.name: field for field in salesforce.describe("contact")}
    lead = {field.name: field for field in salesforce.describe("lead")}

    assert found["LastName"] == Field("LastName", required=True, description="LastName")
    assert found["External_Id__c"].identifier
    kinds = {name: found[name].type for name in ("Score__c", "Birthdate", "HasOptedOutOfEmail", "Tier__c")}
    assert kinds == {
        "Score__c": "number",
        "Birthdate": "date",
        "HasOptedOutOfEmail": "boolean",
        "Tier__c": "string",
    }
    assert not found["HasOptedOutOfEmail"].required
    assert "Id" not in found
    assert "IsConverted" not in lead
    assert "Status" in {field.name for field in salesforce.describe("campaign_member")}
    for protocol in (Creates, Describes, Polls, Reads):
        assert isinstance(salesforce, protocol)


def test_a_session_that_is_over_is_an_auth_error(fake: FakeSalesforce) -> None:
    with connect(fake, access_token="00Dother") as connector, pytest.raises(AuthError):
        connector.check()


def test_a_403_is_a_rate_limit_where_it_says_so_and_an_auth_error_elsewhere() -> None:
    with connect(FakeSalesforce(TOKEN, rate=Rate(1, 86400))) as connector:
        connector.check()
        with pytest.raises(RateLimited, match="403 Forbidden, which is its rate limit") as raised:
            connector.check()
    assert raised.value.retry_after is None
    assert raised.value.applied is False

    for status, code, error in (
        (403, "API_DISABLED_FOR_ORG", AuthError),
        (503, "REQUEST_LIMIT_EXCEEDED", Unavailable),
    ):
        answer = httpx.Response(status, json=[{"errorCode": code, "message": "no"}])
        with connect(lambda _, a=answer: a) as connector, pytest.raises(error) as other:
            connector.check()
        assert type(other.value) is error


def test_the_fake_says_how_much_of_the_allowance_is_used() -> None:
    fake = FakeSalesforce(TOKEN, rate=Rate(5, 86400))
    request = httpx.Request(
        "GET",
        f"{URL}/services/data/v64.0/query?q=SELECT Id FROM Lead",
        headers={"authorization": f"Bearer {TOKEN}"},
    )

    assert fake(request).headers["Sforce-Limit-Info"] == "api-usage=1/5"


def test_a_client_gets_its_token_from_the_org_itself(fake: FakeSalesforce) -> None:
    client = {"access_token": None, "client_id": fake.client[0]}
    with connect(fake, **client, client_secret=fake.client[1]) as connector:
        connector.check()
    with connect(fake, **client, client_secret="other") as connector, pytest.raises(AuthError):
        connector.check()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"client_id": "a"},
        {"client_secret": "b"},
        {"access_token": "t", "client_id": "a"},
        {"access_token": "t", "client_id": "a", "client_secret": "b"},
        {"access_token": "t", "contact_key": "x; DROP"},
        {"access_token": "t", "member_key": "Email FROM Contact"},
        {"access_token": "t", "people": ["Account"]},
        {"access_token": "t", "api_version": "64"},
        {"access_token": "t", "base_url": "https://acme.my.salesforce.com/path"},
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SalesforceConfig(**{"base_url": URL, **options})


def test_the_quota_is_the_orgs_whoever_asks() -> None:
    one = SalesforceConfig(base_url=URL, access_token="a")
    other = SalesforceConfig(base_url=URL, client_id="b", client_secret="c")

    assert Salesforce.account(one) == Salesforce.account(other) == URL


def test_it_works_over_a_real_connection(fake: FakeSalesforce) -> None:
    campaign, (ada,) = fake.add("Campaign", Name="Lapsed"), people(fake, "ada")
    with serve(fake) as url:
        config = SalesforceConfig(base_url=url, access_token=TOKEN)
        with build_client(Salesforce, config, timeout=5) as client:
            receipts = push(Salesforce(config, client), "campaign_member", member("ada"), audience=campaign)

    assert statuses(receipts) == {"ada": "applied"}
    assert set(fake.members(campaign)) == {ada}


# -- answers that contradict themselves, or say nothing

ADA, BOB, ROW = "0035g00000ABCde", "0035g00000FGHij", "00v5g00000ABCde"
CAMPAIGN = "7015g00000ABCde"


def told(answers: list[Any], object: str, *changes: Change) -> dict[str, str] | type[DestinationError]:
    """What becomes of changes where Salesforce answers so, in turn."""
    waiting = iter(answers)

    def app(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=next(waiting))

    with connect(app, people=["Contact"]) as connector:
        try:
            return statuses(push(connector, object, *changes, audience=CAMPAIGN))
        except DestinationError as exc:
            return type(exc)


def rows(*records: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"totalSize": len(records), "done": True, "records": list(records), **more}


WHO = rows({"Id": ADA, "Email": "Ada@example.com"})
THERE = rows({"Id": ROW, "CampaignId": CAMPAIGN, "ContactId": ADA})


@pytest.mark.parametrize(
    "answers",
    [
        [rows({"Id": ADA, "Email": "bob@example.com"})],
        [rows({"Id": "00Q5g00000ABCde", "Email": "ada@example.com"})],
        [rows({"Email": "ada@example.com"})],
        [rows(totalSize=1)],
        [rows(*WHO["records"], totalSize=2)],
        [rows(done=False, nextRecordsUrl="/services/data/v64.0/query/01g-1")],
        [rows(*WHO["records"], done=False, totalSize=2, nextRecordsUrl="/services/apexrest/steal")],
        [rows(*WHO["records"], done=False, totalSize=2)],
        [WHO, rows({"Id": ROW, "CampaignId": CAMPAIGN, "ContactId": BOB})],
        [WHO, rows({"Id": ROW, "CampaignId": "7015g00000FGHij", "ContactId": ADA})],
        [WHO, rows({"Id": None, "CampaignId": CAMPAIGN, "ContactId": ADA})],
        [WHO, rows(), []],
        [WHO, rows(), [{"success": True, "id": ROW}] * 2],
        [WHO, rows(), [{"success": "yes", "id": ROW}]],
        [WHO, rows(), [{"success": True, "id": "x"}]],
    ],
)
def test_an_answer_that_is_not_to_the_question_is_an_unknown_outcome(answers: list[Any]) -> None:
    assert told(answers, "campaign_member", member("ada")) is ProtocolError


@pytest.mark.parametrize(
    ("answers", "op", "status"),
    [
        ([WHO, rows(), [{"success": True, "id": ROW, "errors": []}]], Op.ADD, "applied"),
        ([WHO, rows(), [{"success": True, "id": ROW, "errors": [{"message": "no"}]}]], Op.ADD, "unknown"),
        ([WHO, rows(), [{"success": False, "id": ROW, "errors": []}]], Op.ADD, "rejected"),
        ([WHO, THERE, [{"success": True, "id": ROW + "AAA"}]], Op.REMOVE, "applied"),
        ([WHO, THERE, [{"success": True, "id": BOB}]], Op.REMOVE, "unknown"),
        ([WHO, THERE, [{"success": True}]], Op.REMOVE, "unknown"),
        ([WHO, THERE, [{"success": True, "errors": [{"statusCode": "ENTITY_IS_DELETED"}]}]], Op.REMOVE, "unknown"),
        ([WHO, rows()], Op.REMOVE, "applied"),
    ],
)
def test_a_result_is_believed_where_it_is_about_the_record_and_whole(
    answers: list[Any], op: Op, status: str
) -> None:
    assert told(answers, "campaign_member", member("ada", op)) == {"ada": status}


@pytest.mark.parametrize(
    ("result", "status"),
    [
        ({"success": True, "id": ADA, "created": True, "errors": []}, "applied"),
        ({"success": True, "id": None, "errors": []}, "unknown"),
        ({"success": True, "errors": []}, "unknown"),
        ({"success": True, "id": ADA, "errors": [{"statusCode": "NO", "message": "no"}]}, "unknown"),
        ({"success": False, "errors": []}, "rejected"),
        ({"success": False, "errors": [{"statusCode": "UNABLE_TO_LOCK_ROW"}, {"statusCode": "NO"}]}, "rejected"),
    ],
)
def test_an_upserted_record_is_applied_where_it_has_an_id_and_no_error(result: Any, status: str) -> None:
    assert told([[result]], "contact", contact("ada")) == {"ada": status}
