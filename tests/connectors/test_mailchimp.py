"""Mailchimp: what becomes of contacts and segment members, against an account in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.mailchimp import Mailchimp, MailchimpConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.connector import Creates, Describes, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, ObjectSpec, Op, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.mailchimp import FakeMailchimp, hash_of, ready
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

KEY = "0123456789abcdef0123456789abcdef-us6"
LIST = "a1b2c3d4e5"


def authenticated(request: httpx.Request) -> bool:
    return httpx.BasicAuth("headgate", KEY)._auth_header == request.headers.get("authorization")


def hashed(request: httpx.Request) -> Iterator[str]:
    """A contact stands in the path as the MD5 of its address in lower case (parameter `subscriber_hash`)."""
    match = re.search(r"/members/([^/]+)", request.url.path)
    if match and not re.fullmatch(r"[0-9a-f]{32}", match[1]):
        yield "the path has no MD5 in it"
    if match and request.method == "PUT" and match[1] != hash_of(_body(request).get("email_address", "")):
        yield "the path has the MD5 of another address"


def capped(request: httpx.Request) -> Iterator[str]:
    """At most 500 members each (text of the operation), which have to be addresses."""
    if re.search(r"/segments/[^/]+$", request.url.path):
        for name in ("members_to_add", "members_to_remove"):
            people = _body(request).get(name)
            if not isinstance(people, list) or len(people) > 500:
                yield f"{name} is no list of at most 500"


def shaped(request: httpx.Request) -> Iterator[str]:
    """What the pages on segments and merge fields say, which no description here has."""
    if request.url.path.endswith("/segments"):
        body = _body(request)
        if body.keys() != {"name", "static_segment"} or body["static_segment"] != [] or not body["name"]:
            yield "a static segment is made with a name and an empty list"


def _body(request: httpx.Request) -> dict[str, Any]:
    body = json.loads(request.content or b"{}")
    return body if isinstance(body, dict) else {}


class TestMailchimpContract(ConnectorContract):
    connector = Mailchimp
    config: ClassVar[dict[str, Any]] = {"api_key": KEY, "list_id": LIST}
    audience = "100"
    mutants_caught = 0.95
    described = Described(
        "mailchimp/marketing_3.0.55.json",
        authenticated=authenticated,
        rules=(hashed, capped, shaped),
        also=(
            r"POST https://us6\.api\.mailchimp\.com/3\.0/lists/[^/]+/segments",
            r"GET https://[^/]+/3\.0/lists/[^/]+/merge-fields",
        ),
    )

    def begin(self) -> None:
        self.fake = FakeMailchimp(KEY, LIST)
        self.fake.add_segment("Lapsed buyers")
        self.fake.merge_fields |= {"first_name": "text", "name": "text", "score": "number"}

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        """The first address is refused by both objects; whoever is refused by a segment is looked up."""
        if request.method == "GET":
            return None if request.url.host != "localhost" else httpx.Response(400)
        body = _body(request)
        if "email_address" in body:
            self.fake.forgotten |= (
                {body["email_address"]} if re.search(r"[a-z]0@", body["email_address"]) else set()
            )
            return None
        (first, *_), ours = body["members_to_add"] or body["members_to_remove"], self.fake.segments["100"]
        answer = self.fake(request).json()
        there = body["members_to_remove"] and hash_of(first)
        self.fake.segments["100"] = (ours | {there}) if there else self.fake.segments["100"] - {hash_of(first)}
        for name in ("members_added", "members_removed"):
            answer[name] = [one for one in answer[name] if one["email_address"] != first]
        refused = {"email_addresses": [first], "error": "This address is not welcome."}
        return httpx.Response(200, json=answer | {"errors": [refused], "error_count": 1})

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People who are contacts, and in the segment if they are to be removed."""
        made = samples.changes(spec, op, count, prefix)
        if spec.audience:
            hashes = {self.fake.add_contact(change.identifiers["email_address"]) for change in made}
            self.fake.segments["100"] |= hashes if op is Op.REMOVE else set()
        return made


@pytest.fixture
def fake() -> FakeMailchimp:
    fake = FakeMailchimp(KEY, LIST)
    fake.add_segment("Lapsed buyers")
    return fake


@pytest.fixture
def mailchimp(fake: FakeMailchimp) -> Iterator[Mailchimp]:
    with connect(fake) as connector:
        yield connector


def connect(app: App, **config: Any) -> AbstractContextManager[Mailchimp]:
    """A connector with its production client, whose wire is a function."""
    return connection(Mailchimp, app, **{"api_key": KEY, "list_id": LIST, **config})


def change(name: str, op: Op = Op.ADD, /, **fields: Any) -> Change:
    return Change(op, f"key-{name}", {"email_address": f"{name}@example.com"}, fields)


def push(connector: Mailchimp, object: str, *changes: Change, audience: str = "100") -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", object, audience, changes))


# -- contacts


def test_adding_somebody_is_not_consent_unless_the_configuration_says_so(fake: FakeMailchimp) -> None:
    for name, config in {"ada": {}, "bob": {"status_if_new": "subscribed"}}.items():
        with connect(fake, **config) as connector:
            assert statuses(push(connector, "member", change(name))) == {name: "applied"}

    assert fake.contacts[hash_of("ada@example.com")]["status"] == "transactional"
    assert fake.contacts[hash_of("bob@example.com")]["status"] == "subscribed"


def test_whoever_has_unsubscribed_stays_unsubscribed(fake: FakeMailchimp) -> None:
    ada = fake.add_contact("ada@example.com", "unsubscribed", FNAME="A.")

    with connect(fake, status_if_new="subscribed") as connector:
        receipts = push(connector, "member", change("ada", Op.UPDATE, FNAME="Ada", status="subscribed"))

    assert fake.contacts[ada]["status"] == "unsubscribed"
    assert fake.contacts[ada]["merge_fields"]["FNAME"] == "Ada"
    assert statuses(receipts) == {"ada": "rejected"}
    assert receipts["ada"].reason == "Mailchimp took the contact, and the audience has no merge field status"


def test_fields_of_a_contact_and_merge_fields_go_where_mailchimp_has_them(
    fake: FakeMailchimp, mailchimp: Mailchimp
) -> None:
    fields = {
        "FNAME": "Ada",
        "LNAME": None,
        "language": "en",
        "vip": True,
        "email_type": None,
        "interests.9f": True,
    }

    receipts = push(mailchimp, "member", change("ada", **fields))

    assert receipts["ada"] == Receipt("key-ada", Status.APPLIED, remote_id=hash_of("ada@example.com"))
    assert fake.contacts[hash_of("ada@example.com")] == {
        "email_address": "ada@example.com",
        "status": "transactional",
        "merge_fields": {"FNAME": "Ada", "LNAME": ""},
        "language": "en",
        "vip": True,
        "interests": {"9f": True},
    }


def test_a_refused_contact_is_rejected_in_mailchimps_words_and_the_others_are_kept(
    fake: FakeMailchimp, mailchimp: Mailchimp
) -> None:
    fake.merge_fields["LTV"] = "number"
    fake.forgotten.add("gone@example.com")
    bad = Change(Op.ADD, "key-bad", {"email_address": "ada at home"}, {})

    receipts = push(mailchimp, "member", change("gone"), bad, change("odd", LTV="lots"), change("ada", LTV=12.5))

    assert statuses(receipts) == {"gone": "rejected", "bad": "rejected", "odd": "rejected", "ada": "applied"}
    assert receipts["gone"].reason.startswith("Forgotten Email Not Subscribed: ")
    assert "email_address: Please provide a valid email address." in receipts["bad"].reason
    assert "LTV: Please enter a number" in receipts["odd"].reason
    assert list(fake.contacts) == [hash_of("ada@example.com")]


def test_an_answer_about_somebody_else_is_not_believed(fake: FakeMailchimp) -> None:
    def confused(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=fake(request).content.replace(b"ada@", b"eve@"))

    with connect(confused) as connector:
        assert statuses(push(connector, "member", change("ada"))) == {"ada": "unknown"}


@pytest.mark.parametrize("object", ["member", "segment_member"])
def test_an_audience_or_a_segment_that_is_not_there_refuses_the_batch(fake: FakeMailchimp, object: str) -> None:
    with (
        connect(fake, list_id="../x") as connector,
        pytest.raises(RequestError, match="Mailchimp has no") as raised,
    ):
        push(connector, object, change("ada"))

    assert raised.value.fix


def test_a_refusal_that_is_not_in_mailchimps_words_rejects_nobody() -> None:
    with (
        connect(lambda _: httpx.Response(400, html="<html>Bad gateway</html>")) as connector,
        pytest.raises(RequestError, match="not in Mailchimp's words"),
    ):
        push(connector, "member", change("ada"))


def test_contacts_are_never_removed(mailchimp: Mailchimp) -> None:
    assert mailchimp.objects["member"].ops == {Op.ADD, Op.UPDATE}


# -- segments


def test_members_are_moved_in_and_out_of_a_segment_and_stay_contacts(
    fake: FakeMailchimp, mailchimp: Mailchimp
) -> None:
    ada, bob = fake.add_contact("Ada@example.com"), fake.add_contact("bob@example.com")
    fake.segments["100"] = {bob}

    added = push(mailchimp, "segment_member", change("ada"))
    removed = push(mailchimp, "segment_member", change("bob", Op.REMOVE))

    assert (statuses(added), statuses(removed)) == ({"ada": "applied"}, {"bob": "applied"})
    assert fake.segments["100"] == {ada}
    assert set(fake.contacts) == {ada, bob}
    assert fake.requests == 2


def test_whoever_the_answer_leaves_open_is_looked_up(fake: FakeMailchimp, mailchimp: Mailchimp) -> None:
    fake.segments["100"] = {fake.add_contact("ada@example.com")}
    fake.add_contact("out@example.com")

    again = push(mailchimp, "segment_member", change("ada"), change("nobody"))
    gone = push(mailchimp, "segment_member", change("out", Op.REMOVE), change("nobody", Op.REMOVE))

    assert statuses(again) == {"ada": "applied", "nobody": "rejected"}
    assert "sync it as a `member` first" in again["nobody"].reason
    assert statuses(gone) == {"out": "applied", "nobody": "applied"}


@pytest.mark.parametrize("op", [Op.ADD, Op.REMOVE])
def test_whoever_neither_the_answer_nor_the_look_up_confirms_is_unknown(fake: FakeMailchimp, op: Op) -> None:
    fake.segments["100"] = {fake.add_contact("ada@example.com")} if op is Op.REMOVE else set()
    fake.add_contact("ada@example.com")

    def forgetful(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return fake(request)
        return httpx.Response(200, json={"members_added": [], "members_removed": [], "errors": []})

    with connect(forgetful) as connector:
        receipts = push(connector, "segment_member", change("ada", op))

    assert statuses(receipts) == {"ada": "unknown"}
    assert receipts["ada"].reason


def test_whoever_is_added_and_refused_at_once_is_looked_up(fake: FakeMailchimp) -> None:
    ada = fake.add_contact("ada@example.com")

    def torn(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if request.method == "GET":
            return answer
        fake.segments["100"].discard(ada)
        refused = {"email_addresses": ["ADA@example.com"], "error": "No, after all."}
        return httpx.Response(200, json=answer.json() | {"errors": [refused]})

    with connect(torn) as connector:
        receipts = push(connector, "segment_member", change("ada"))

    assert receipts["ada"] == Receipt("key-ada", Status.REJECTED, "No, after all.")


def test_somebody_with_more_tags_than_are_shown_is_unknown(fake: FakeMailchimp) -> None:
    fake.segments["100"] = {fake.add_contact("ada@example.com")}

    def brief(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json={"tags": [], "total_items": 1001})
        return fake(request)

    with connect(brief) as connector:
        assert statuses(push(connector, "segment_member", change("ada"))) == {"ada": "unknown"}


def test_a_segment_of_another_kind_refuses_the_batch(fake: FakeMailchimp, mailchimp: Mailchimp) -> None:
    with pytest.raises(RequestError, match="400"):
        push(mailchimp, "segment_member", change("ada"), audience=fake.add_segment("Saved", static=False))


# -- the account


def test_a_segment_can_be_made_and_read_page_by_page_whoever_is_in_it(
    fake: FakeMailchimp, mailchimp: Mailchimp
) -> None:
    segment = mailchimp.create_audience("segment_member", "New")
    kinds = ("subscribed", "unsubscribed", "cleaned", "transactional")
    people = [fake.add_contact(f"p{n}@example.com", kinds[n % 4]) for n in range(2300)]
    fake.segments[segment] = set(people)

    pages = [mailchimp.members("segment_member", segment)]
    while pages[-1].next is not None:
        pages.append(mailchimp.members("segment_member", segment, pages[-1].next))

    assert [len(page.members) for page in pages] == [1000, 1000, 300]
    assert {member.remote_id for page in pages for member in page.members} == set(people)
    assert len(mailchimp.members("member", None).members) == 1000


def test_an_empty_page_before_the_end_is_an_error() -> None:
    with (
        connect(lambda _: httpx.Response(200, json={"members": [], "total_items": 7})) as connector,
        pytest.raises(ProtocolError),
    ):
        connector.members("segment_member", "100")


def test_merge_fields_are_described(fake: FakeMailchimp, mailchimp: Mailchimp) -> None:
    fake.merge_fields |= {"LTV": "number", "BORN": "date", "HOME": "address"}

    fields = {field.name: field.type for field in mailchimp.describe("member")}

    assert fields == {
        "email_address": "string",
        "FNAME": "string",
        "LNAME": "string",
        "LTV": "number",
        "BORN": "date",
        "HOME": "json",
    }
    assert [field.name for field in mailchimp.describe("segment_member")] == ["email_address"]


def test_it_can_make_read_and_describe(mailchimp: Mailchimp) -> None:
    for ability in (Creates, Describes, Reads):
        assert isinstance(mailchimp, ability)


def test_the_host_is_that_of_the_keys_data_centre() -> None:
    config = MailchimpConfig(api_key=KEY, list_id=LIST)

    assert Mailchimp.base_url(config) == "https://us6.api.mailchimp.com/3.0"
    assert (
        Mailchimp.base_url(MailchimpConfig(api_key="k", list_id=LIST, base_url="http://x/3.0")) == "http://x/3.0"
    )
    with pytest.raises(ValidationError, match="data centre"):
        MailchimpConfig(api_key="0123456789abcdef", list_id=LIST)


def test_a_403_without_a_body_asks_to_slow_down_and_one_with_words_is_about_the_key() -> None:
    with connect(lambda _: httpx.Response(403)) as connector, pytest.raises(RateLimited):
        connector.check()
    with (
        connect(lambda _: httpx.Response(403, json={"title": "Forbidden"})) as connector,
        pytest.raises(AuthError),
    ):
        connector.check()


def test_the_eleventh_connection_at_once_is_one_too_many(fake: FakeMailchimp) -> None:
    fake.slow = 0.2

    def check(_: int) -> bool:
        with connect(fake) as connector:
            try:
                connector.check()
            except RateLimited:
                return False
            return True

    with ThreadPoolExecutor(14) as pool:
        assert not all(pool.map(check, range(14)))
    assert all(spec.limits.concurrency < 10 for spec in Mailchimp.objects.values())


def test_a_wrong_key_is_an_auth_error_and_two_keys_are_two_accounts(fake: FakeMailchimp) -> None:
    with connect(fake, api_key="wrong-us6") as connector, pytest.raises(AuthError):
        connector.check()

    accounts = {Mailchimp.account(MailchimpConfig(api_key=key, list_id=LIST)) for key in (KEY, KEY, "other-us6")}
    assert len(accounts) == 2
    assert KEY not in str(accounts)


def test_the_fake_that_is_ready_works_over_a_real_connection() -> None:
    made = ready()
    with serve(made.app) as url:
        config = MailchimpConfig.model_validate(made.options(url))
        with build_client(Mailchimp, config, timeout=5) as client:
            page = Mailchimp(config, client).members("segment_member", made.audiences["segment_member"])

    assert [member.identifiers["email_address"] for member in page.members] == ["ada@example.com"]
