"""Klaviyo: what becomes of list members and profiles, against an account in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import httpx
import pytest

from connectors.klaviyo import Klaviyo, KlaviyoConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.connector import Creates, Describes, Polls, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Job, ObjectSpec, Op, Rate, Receipt, Status
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.klaviyo import FakeKlaviyo, ready
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, statuses

KEY = "pk_0123456789abcdef"


def revised(request: httpx.Request) -> Iterator[str]:
    """The header is required and has a default (description), so that its absence is not noticed."""
    if request.headers.get("revision") != "2026-07-15":
        yield "the revision header is not that of the description"


def asked(request: httpx.Request) -> Iterator[str]:
    """Parameters in brackets are families in the description's checker; these are the ones it names."""
    known = {"filter", "sort", "page[size]", "page[cursor]", "fields[profile]"}
    yield from (f"{name} is no parameter" for name in request.url.params if name not in known)


def identified(request: httpx.Request) -> Iterator[str]:
    """Every profile needs an identifier (answers to `POST /api/profiles` and imports without one)."""
    if request.method == "POST" and request.url.path == "/api/profile-bulk-import-jobs":
        rows = json.loads(request.content)["data"]["attributes"]["profiles"]["data"]
        if not all(row["attributes"].keys() & {"email", "phone_number", "external_id"} for row in rows):
            yield "a profile has no identifier"


def capped(request: httpx.Request) -> Iterator[str]:
    """What operations take at most (the text of each in the description)."""
    if request.method == "GET":
        return
    body = json.loads(request.content)["data"]
    if request.url.path.endswith("/relationships/profiles") and not 1 <= len(body) <= 1000:
        yield "between one and a thousand profiles are removed at once"
    rows = body["attributes"]["profiles"]["data"] if request.url.path.endswith("import-jobs") else [None]
    if not 1 <= len(rows) <= 10_000:
        yield "an import has between one and ten thousand profiles"


class TestKlaviyoContract(ConnectorContract):
    connector = Klaviyo
    config: ClassVar[dict[str, Any]] = {"api_key": KEY}
    audience = "LST001"
    mutants_caught = 0.95
    described = Described(
        "klaviyo/klaviyo_2026-07-15.json",
        authenticated=lambda request: request.headers.get("authorization") == f"Klaviyo-API-Key {KEY}",
        rules=(revised, asked, identified, capped),
    )

    def begin(self) -> None:
        self.fake = FakeKlaviyo(KEY, slow=0)  # the engine waits for jobs in earnest
        self.fake.add_list("Lapsed buyers")

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People who are in the list if they are to be removed."""
        made = samples.changes(spec, op, count, prefix)
        if op is Op.REMOVE:
            for change in made:
                known = self.fake.ids("email", change.identifiers["email"])
                self.fake.lists["LST001"] |= known or {self.fake.add_profile(**change.identifiers)}
        return made


@pytest.fixture
def fake() -> FakeKlaviyo:
    fake = FakeKlaviyo(KEY)
    fake.add_list("Lapsed buyers")
    return fake


@pytest.fixture
def klaviyo(fake: FakeKlaviyo) -> Iterator[Klaviyo]:
    with connect(fake) as connector:
        yield connector


def connect(app: App, **config: Any) -> AbstractContextManager[Klaviyo]:
    """A connector with its production client, whose wire is a function."""
    return connection(Klaviyo, app, **{"api_key": KEY, **config})


def change(name: str, op: Op = Op.ADD, /, **fields: Any) -> Change:
    return Change(op, f"key-{name}", {"email": f"{name}@example.com"}, fields)


def batch(object: str, *changes: Change, audience: str = "LST001") -> Batch:
    return Batch("b1", "winback", object, audience if object == "list_member" else None, changes)


def push(connector: Klaviyo, object: str, *changes: Change, audience: str = "LST001") -> dict[str, Receipt]:
    """Push, and poll until the job is over."""
    made = batch(object, *changes, audience=audience)
    outcome, settled = connector.push(made), []
    while isinstance(outcome, Job):
        settled = list(outcome.settled)
        outcome = connector.poll(outcome, made)
    return {receipt.key.removeprefix("key-"): receipt for receipt in [*settled, *outcome]}


def emails(fake: FakeKlaviyo, list_id: str = "LST001") -> set[str]:
    return {fake.profiles[id]["email"] for id in fake.lists[list_id]}


# -- list members


def test_somebody_klaviyo_does_not_know_yet_is_made_and_put_into_the_list(
    fake: FakeKlaviyo, klaviyo: Klaviyo
) -> None:
    ada = fake.add_profile(email="ada@example.com", first_name="A.")

    receipts = push(klaviyo, "list_member", change("ada", first_name="Ada"), change("bob", ltv=12.5))

    assert statuses(receipts) == {"ada": "applied", "bob": "applied"}
    assert emails(fake) == {"ada@example.com", "bob@example.com"}
    assert fake.profiles[ada]["first_name"] == "Ada"
    (bob,) = fake.ids("email", "bob@example.com")
    assert fake.profiles[bob]["properties"] == {"ltv": 12.5}


def test_an_import_is_a_job_that_is_asked_for_less_and_less_often(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    fake.slow = 8
    made = batch("list_member", change("ada"))
    job, waits = klaviyo.push(made), []
    while isinstance(job, Job):
        waits.append(job.poll_after)
        job = klaviyo.poll(job, made)

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
    assert [receipt.status for receipt in job] == [Status.APPLIED]


def test_malformed_profiles_are_rejected_and_the_others_are_sent_without_them(
    fake: FakeKlaviyo, klaviyo: Klaviyo
) -> None:
    bad = Change(Op.ADD, "key-bad", {"email": "ada at home"}, {})
    phone = Change(Op.ADD, "key-phone", {"email": "p@example.com", "phone_number": "0412 345 678"}, {})

    receipts = push(klaviyo, "list_member", change("ada"), bad, change("bob"), phone)

    assert statuses(receipts) == {"bad": "rejected", "phone": "rejected", "ada": "applied", "bob": "applied"}
    assert receipts["bad"].reason == "Invalid email address"
    assert receipts["phone"].reason == "Invalid phone number format"
    assert emails(fake) == {"ada@example.com", "bob@example.com"}


def test_a_batch_of_malformed_profiles_alone_starts_no_job(klaviyo: Klaviyo) -> None:
    bad = Change(Op.ADD, "key-bad", {"email": "ada at home"}, {})

    assert statuses(push(klaviyo, "list_member", bad)) == {"bad": "rejected"}


def test_a_platform_that_names_one_more_each_time_is_not_asked_for_ever(fake: FakeKlaviyo) -> None:
    asked: list[bytes] = []

    def fussy(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        pointer = {"pointer": "/data/attributes/profiles/data/0/attributes/email"}
        return httpx.Response(400, json={"errors": [{"detail": "Invalid email address", "source": pointer}]})

    with connect(fussy) as connector:
        receipts = push(connector, "list_member", *(change(f"p{n}") for n in range(5)))

    assert len(asked) == 3
    assert statuses(receipts) == {
        "p0": "rejected",
        "p1": "rejected",
        "p2": "rejected",
        "p3": "deferred",
        "p4": "deferred",
    }


def test_who_could_not_be_imported_is_rejected_and_the_others_are_in(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    fake.add_profile(email="ada@example.com")
    fake.add_profile(external_id="7")
    torn = Change(Op.ADD, "key-torn", {"email": "ada@example.com", "external_id": "7"}, {})

    receipts = push(klaviyo, "list_member", change("bob"), torn)

    assert statuses(receipts) == {"bob": "applied", "torn": "rejected"}
    assert receipts["torn"].reason == "The identifiers belong to several profiles."
    assert emails(fake) == {"bob@example.com"}


def job_that_fails(fake: FakeKlaviyo, errors: list[dict[str, Any]], failed: int | None) -> Callable[..., Any]:
    """A complete job with these import errors and this count of them."""

    def app(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/import-errors"):
            data = [{"type": "import-error", "id": "1", "attributes": error} for error in errors]
            return httpx.Response(200, json={"data": data})
        answer = fake(request)
        body = answer.json()
        if request.method == "GET":
            body["data"]["attributes"] |= {"status": "complete", "failed_count": failed}
        return httpx.Response(answer.status_code, json=body)

    return app


POINTED = {"detail": "no", "source": {"pointer": "/data/attributes/profiles/data/1/attributes/phone_number"}}
NAMED = {"detail": "no", "source": {"pointer": "/data"}, "original_payload": {"email": "BOB@example.com"}}
NESTED = {"detail": "no", "original_payload": {"type": "profile", "attributes": {"email": "bob@example.com"}}}


@pytest.mark.parametrize("error", [POINTED, NAMED, NESTED])
def test_an_import_error_is_laid_at_the_door_it_names(fake: FakeKlaviyo, error: dict[str, Any]) -> None:
    with connect(job_that_fails(fake, [error], 1)) as connector:
        receipts = push(connector, "list_member", change("ada"), change("bob"))

    assert statuses(receipts) == {"ada": "applied", "bob": "rejected"}


@pytest.mark.parametrize(
    ("errors", "failed"),
    [
        ([{"detail": "no", "source": {"pointer": "/data"}}], 1),
        ([{"detail": "no", "source": {"pointer": "/data/attributes/profiles/data/9"}}], 1),
        ([{"detail": "no", "source": {"pointer": f"/data/attributes/profiles/data/{'9' * 5000}"}}], 1),
        ([{"detail": "no", "original_payload": {"email": "somebody@else.example"}}], 1),
        ([], 1),
        ([POINTED], 2),
    ],
)
def test_where_it_is_unclear_who_failed_nobody_is_called_applied(
    fake: FakeKlaviyo, errors: list[dict[str, Any]], failed: int
) -> None:
    with connect(job_that_fails(fake, errors, failed)) as connector:
        receipts = push(connector, "list_member", change("ada"), change("bob"))

    assert set(statuses(receipts).values()) <= {"unknown", "rejected"}
    assert receipts["ada"] == Receipt(
        "key-ada",
        Status.UNKNOWN,
        "Klaviyo could not import some profiles of this batch and does not say which",
    )


def test_a_job_without_a_count_of_failures_is_asked_for_its_errors(fake: FakeKlaviyo) -> None:
    with connect(job_that_fails(fake, [NAMED], None)) as connector:
        assert statuses(push(connector, "list_member", change("ada"), change("bob")))["bob"] == "rejected"


def test_import_errors_are_read_to_the_last_page_and_no_further(fake: FakeKlaviyo) -> None:
    with connect(fake) as connector:
        torn = []
        for n in range(150):
            fake.add_profile(email=f"p{n}@example.com")
            fake.add_profile(external_id=str(n))
            torn.append(Change(Op.ADD, f"key-{n}", {"email": f"p{n}@example.com", "external_id": str(n)}, {}))
        assert set(statuses(push(connector, "profile", *torn)).values()) == {"rejected"}

    def endless(request: httpx.Request) -> httpx.Response:
        if not request.url.path.endswith("/import-errors"):
            return job_that_fails(fake, [], None)(request)
        link = "https://a.klaviyo.com/api?page%5Bcursor%5D=more"
        return httpx.Response(200, json={"data": [], "links": {"next": link}})

    with connect(endless) as connector, pytest.raises(ProtocolError, match="more import errors"):
        push(connector, "list_member", change("ada"))


def test_a_cancelled_import_leaves_everybody_unknown(fake: FakeKlaviyo) -> None:
    def cancelled(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=fake(request).content.replace(b'"processing"', b'"cancelled"'))

    with connect(cancelled) as connector:
        assert statuses(push(connector, "list_member", change("ada"))) == {"ada": "unknown"}


def test_the_answer_about_another_job_is_not_believed(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    made = batch("list_member", change("ada"))
    job = klaviyo.push(made)
    assert isinstance(job, Job)

    with (
        connect(
            lambda request: httpx.Response(200, content=fake(request).content.replace(b"job-1", b"job-2"))
        ) as other,
        pytest.raises(ProtocolError, match="another job"),
    ):
        other.poll(job, made)


@pytest.mark.parametrize("op", [Op.ADD, Op.REMOVE])
def test_a_list_that_does_not_exist_refuses_the_batch(fake: FakeKlaviyo, klaviyo: Klaviyo, op: Op) -> None:
    fake.add_profile(email="ada@example.com")

    with pytest.raises(RequestError) as raised:
        push(klaviyo, "list_member", change("ada", op), audience="../profiles")

    assert "audience" in raised.value.fix
    assert len(fake.profiles) == 1


def test_values_without_content_clear_what_can_be_cleared(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    ada = fake.add_profile(email="ada@example.com", first_name="Ada", properties={"ltv": 3, "vip": True})

    push(klaviyo, "profile", change("ada", Op.UPDATE, first_name=None, ltv=None, vip=False))

    assert fake.profiles[ada]["properties"] == {"vip": False}
    assert fake.profiles[ada]["first_name"] == "Ada"


def test_an_address_goes_where_klaviyo_has_it(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    fields = {"location.city": "Perth", "location.zip": 6000, "location.latitude": -31.95, "title": "Dr"}

    push(klaviyo, "profile", change("ada", **fields))

    (id,) = fake.ids("email", "ada@example.com")
    assert fake.profiles[id]["location"] == {"city": "Perth", "zip": "6000", "latitude": -31.95}
    assert fake.profiles[id]["title"] == "Dr"


# -- removals


def test_somebody_is_taken_out_of_the_list_and_stays_a_profile(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    ada = fake.add_profile(email="ada@example.com")
    fake.lists["LST001"] = {ada, fake.add_profile(email="bob@example.com")}

    receipts = push(klaviyo, "list_member", change("ada", Op.REMOVE), change("nobody", Op.REMOVE))

    assert receipts["ada"] == Receipt("key-ada", Status.APPLIED, remote_id=ada)
    assert receipts["nobody"] == Receipt("key-nobody", Status.APPLIED, "Klaviyo has nobody with these identifiers")
    assert emails(fake) == {"bob@example.com"}
    assert ada in fake.profiles


def test_who_is_not_found_by_one_identifier_is_looked_up_by_the_next(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    ada = fake.add_profile(email="ada@new.example", phone_number="+61412345678", external_id="A7")
    bob = fake.add_profile(email="bob@new.example", external_id="B7")
    fake.lists["LST001"] = {ada, bob}
    moved = [
        Change(Op.REMOVE, "key-ada", {"email": "ada@old.example", "phone_number": "+61412345678"}, {}),
        Change(Op.REMOVE, "key-bob", {"email": "bob@old.example", "external_id": "B7"}, {}),
    ]

    assert statuses(push(klaviyo, "list_member", *moved)) == {"ada": "applied", "bob": "applied"}
    assert fake.lists["LST001"] == set()


def test_several_profiles_with_one_identifier_are_left_alone(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    fake.lists["LST001"] = {fake.add_profile(external_id="7"), fake.add_profile(external_id="7")}
    gone = Change(Op.REMOVE, "key-gone", {"external_id": "7"}, {})

    assert statuses(push(klaviyo, "list_member", gone)) == {"gone": "deferred"}
    assert len(fake.lists["LST001"]) == 2


def test_a_thousand_are_removed_by_look_ups_of_fifty_and_one_request(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    fake.lists["LST001"] = {fake.add_profile(email=f"p{n}@example.com") for n in range(1000)}
    fake.requests = 0

    receipts = push(klaviyo, "list_member", *(change(f"p{n}", Op.REMOVE) for n in range(1000)))

    assert set(statuses(receipts).values()) == {"applied"}
    assert (fake.requests, fake.lists["LST001"]) == (21, set())


def test_a_removal_that_is_answered_with_something_else_than_204_is_unclear(fake: FakeKlaviyo) -> None:
    fake.lists["LST001"] = {fake.add_profile(email="ada@example.com")}

    def chatty(request: httpx.Request) -> httpx.Response:
        return fake(request) if request.method != "DELETE" else httpx.Response(200, json={"data": []})

    with connect(chatty) as connector, pytest.raises(ProtocolError, match="204"):
        push(connector, "list_member", change("ada", Op.REMOVE))


def test_a_look_up_that_names_somebody_else_is_not_believed(fake: FakeKlaviyo) -> None:
    fake.lists["LST001"] = {fake.add_profile(email="ada@example.com")}

    def confused(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=fake(request).content.replace(b"ada@", b"eve@"))

    with connect(confused) as connector, pytest.raises(ProtocolError, match="not asked for"):
        push(connector, "list_member", change("ada", Op.REMOVE))


@pytest.mark.parametrize("id", ['x"]),any(email,["ada@example.com', "\ud800", "日本語"])
def test_text_in_an_identifier_cannot_change_the_filter(fake: FakeKlaviyo, klaviyo: Klaviyo, id: str) -> None:
    odd = Change(Op.REMOVE, "key-odd", {"external_id": id}, {})
    fake.lists["LST001"] = {fake.add_profile(email="ada@example.com")}

    assert statuses(push(klaviyo, "list_member", odd)) == {"odd": "applied"}
    assert len(fake.lists["LST001"]) == 1


# -- the account


def test_a_list_can_be_made_and_read_page_by_page(fake: FakeKlaviyo, klaviyo: Klaviyo) -> None:
    audience = klaviyo.create_audience("list_member", "New")
    fake.lists[audience] = {fake.add_profile(email=f"p{n}@example.com") for n in range(230)}

    pages = [klaviyo.members("list_member", audience)]
    while pages[-1].next is not None:
        pages.append(klaviyo.members("list_member", audience, pages[-1].next))

    assert [len(page.members) for page in pages] == [100, 100, 30]
    members = [member for page in pages for member in page.members]
    assert {member.identifiers["email"] for member in members} == emails(fake, audience)
    assert {member.remote_id for member in members} == fake.lists[audience]


def test_custom_properties_are_found_in_the_profiles_that_changed_last(
    fake: FakeKlaviyo, klaviyo: Klaviyo
) -> None:
    fake.add_profile(email="a@b.example", properties={"ltv": 12.5, "vip": True, "mixed": 1, "$source": "x"})
    fake.add_profile(email="b@b.example", properties={"tags": ["a"], "plan": "pro", "mixed": "one", "none": None})

    fields = {field.name: field.type for field in klaviyo.describe("profile")}

    assert fields["email"] == "string"
    assert fields["location.latitude"] == "number"
    custom = {name: fields[name] for name in ("ltv", "vip", "tags", "plan", "mixed")}
    assert custom == {"ltv": "number", "vip": "boolean", "tags": "json", "plan": "string", "mixed": "json"}
    assert not {"$source", "none"} & set(fields)


def test_it_can_do_everything_that_is_asked_of_a_platform(klaviyo: Klaviyo) -> None:
    for ability in (Creates, Describes, Polls, Reads):
        assert isinstance(klaviyo, ability)


def test_the_limit_of_the_account_says_when_to_come_back() -> None:
    fake = FakeKlaviyo(KEY, rate=Rate(1, 10.0), clock=lambda: 100.0)
    with connect(fake) as connector:
        connector.check()
        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after == 10


def test_a_wrong_key_is_an_auth_error_and_two_keys_are_two_accounts(fake: FakeKlaviyo) -> None:
    with connect(fake, api_key="pk_wrong") as connector, pytest.raises(AuthError):
        connector.check()

    accounts = {Klaviyo.account(KlaviyoConfig(api_key=key)) for key in (KEY, KEY, "pk_other")}
    assert len(accounts) == 2
    assert KEY not in str(accounts)


def test_the_fake_that_is_ready_works_over_a_real_connection() -> None:
    made = ready()
    with serve(made.app) as url:
        config = KlaviyoConfig.model_validate(made.options(url))
        with build_client(Klaviyo, config, timeout=5) as client:
            page = Klaviyo(config, client).members("list_member", made.audiences["list_member"])

    assert [member.identifiers["email"] for member in page.members] == ["ada@example.com"]
