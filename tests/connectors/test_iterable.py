"""Iterable: what becomes of list members and users, against a project in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar

import httpx
import pytest

from connectors.iterable import Iterable, IterableConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, ObjectSpec, Op, Rate, Receipt
from sync.testing import samples
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.iterable import FakeIterable, ready
from sync.testing.fakes.server import serve
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

KEY = "it-0123456789abcdef"


def beyond_the_schema(request: httpx.Request) -> Iterator[str]:
    """What the vendor's pages ask, and its client's schema does not: one identifier a user, a cap, no opt-out."""
    body = json.loads(request.content) if request.content.startswith(b"{") else {}
    users = body.get("users", body.get("subscribers"))
    users = users if isinstance(users, list) else []
    if len(users) > 1000:
        yield f"{len(users)} users, where 1,000 are taken"
    if any(isinstance(user, dict) and len(user.keys() & {"email", "userId"}) != 1 for user in users):
        yield "a user without exactly one identifier"
    if isinstance(body.get("listId"), float):
        yield "a list's number is whole"
    if body.get("channelUnsubscribe"):
        yield "this unsubscribes people from everything"


class TestIterableContract(ConnectorContract):
    connector = Iterable
    config: ClassVar[dict[str, Any]] = {"api_key": KEY}
    audience = "1001"
    described = Described(
        "iterable/lists_users.json",
        authenticated=lambda request: request.headers.get("api-key") == KEY,
        rules=(beyond_the_schema,),
        also=(
            "GET https://api.iterable.com/api/lists/getUsers",
            "GET https://api.iterable.com/api/users/getFields",
        ),
    )
    mutants_caught: ClassVar[float] = 0.9

    @cached_property
    def fake(self) -> FakeIterable:
        fake = FakeIterable(KEY)
        fake.add_list("Lapsed buyers")
        return fake

    def answer(self, request: httpx.Request) -> httpx.Response:
        """Everybody is known: the client's schema of the answer lacks the list of those who are not."""
        if request.url.path.endswith("unsubscribe"):
            self.fake.users |= {user["email"]: {} for user in _users(request)}
        return self.fake(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST":
            return self.answer(request)
        sent, first = self.answer(request).json(), _users(request)[0]["email"]
        refused = {"successCount": sent["successCount"] - 1, "failCount": 1}
        return httpx.Response(200, json=sent | refused | {"failedUpdates": {"invalidEmails": [first.upper()]}})

    def changes(self, spec: ObjectSpec, op: Op, count: int, prefix: str) -> list[Change]:
        """People whom the project knows, and who are on the list if they are to be removed."""
        made = samples.changes(spec, op, count, prefix)
        emails = [change.identifiers["email"] for change in made]
        self.fake.users |= {email: {} for email in emails}
        self.fake.lists[1001] = set(emails) if op is Op.REMOVE else set()
        return made


def _users(request: httpx.Request) -> list[dict[str, Any]]:
    body = json.loads(request.content)
    found: list[dict[str, Any]] = body.get("users") or body.get("subscribers") or []
    return found


def connect(app: App, **config: Any) -> AbstractContextManager[Iterable]:
    """A connector with its production client, whose wire is a function."""
    return connection(Iterable, app, **{"api_key": KEY, **config})


@pytest.fixture
def fake() -> FakeIterable:
    fake = FakeIterable(KEY)
    fake.add_list("Lapsed")
    return fake


@pytest.fixture
def iterable(fake: FakeIterable) -> Iterator[Iterable]:
    with connect(fake) as connector:
        yield connector


def change(name: str, op: Op = Op.ADD, /, **fields: Any) -> Change:
    email = name if "@" in name else f"{name}@example.com"
    return Change(op, f"key-{name}", {"email": email}, fields)


def push(connector: Iterable, object: str, *changes: Change, audience: str = "1001") -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", object, audience, changes))


# -- list members


def test_people_join_a_list_with_their_fields_and_leave_it(fake: FakeIterable, iterable: Iterable) -> None:
    added = push(iterable, "list_member", change("ada", firstName="Ada"), change("bob"))
    assert fake.lists[1001] == {"ada@example.com", "bob@example.com"}
    removed = push(iterable, "list_member", change("ada", Op.REMOVE))

    assert statuses(added) == {"ada": "applied", "bob": "applied"}
    assert statuses(removed) == {"ada": "applied"}
    assert fake.lists[1001] == {"bob@example.com"}
    assert fake.users["ada@example.com"] == {"firstName": "Ada"}


def test_leaving_a_list_never_unsubscribes_from_its_channel(fake: FakeIterable, iterable: Iterable) -> None:
    push(iterable, "list_member", change("ada"))
    push(iterable, "list_member", change("ada", Op.REMOVE))

    assert fake.lists[1001] == set()
    assert fake.opted_out == set()


def test_a_malformed_address_is_rejected_and_the_others_are_applied(
    fake: FakeIterable, iterable: Iterable
) -> None:
    receipts = push(iterable, "list_member", change("no dots@here"), change("ada"))

    assert statuses(receipts) == {"no dots@here": "rejected", "ada": "applied"}
    assert receipts["no dots@here"].reason == "the identifier is malformed"
    assert fake.lists[1001] == {"ada@example.com"}


def test_somebody_forgotten_is_rejected_when_added_and_gone_when_removed(
    fake: FakeIterable, iterable: Iterable
) -> None:
    fake.forgotten = {"ada@example.com"}

    assert "forgotten" in push(iterable, "list_member", change("ada"))["ada"].reason
    assert statuses(push(iterable, "list_member", change("ada", Op.REMOVE))) == {"ada": "applied"}


def test_removing_somebody_iterable_does_not_know_has_its_effect_already(iterable: Iterable) -> None:
    assert statuses(push(iterable, "list_member", change("nobody", Op.REMOVE))) == {"nobody": "applied"}


def test_users_who_are_unknown_are_not_made_where_that_is_switched_off(fake: FakeIterable) -> None:
    fake.users["ada@example.com"] = {}

    with connect(fake, create_users=False) as connector:
        receipts = push(connector, "list_member", change("ada"), change("nobody"))

    assert statuses(receipts) == {"ada": "applied", "nobody": "rejected"}
    assert receipts["nobody"].reason == "Iterable has no such user"


def test_a_field_that_the_project_drops_leaves_those_who_have_it_unknown(
    fake: FakeIterable, iterable: Iterable
) -> None:
    fake.takes_new_fields = False

    receipts = push(iterable, "list_member", change("ada", shoeSize=38), change("bob", firstName="Bob"))

    assert statuses(receipts) == {"ada": "unknown", "bob": "applied"}
    assert "`shoeSize`" in receipts["ada"].reason


def test_a_batch_with_a_field_of_another_type_is_refused_for_the_engine_to_halve(iterable: Iterable) -> None:
    with pytest.raises(RequestError) as raised:
        push(iterable, "list_member", change("ada", vip="yes"), change("bob"))

    assert "vip" in raised.value.detail


def test_a_list_that_is_not_there_or_dynamic_refuses_the_batch(fake: FakeIterable, iterable: Iterable) -> None:
    dynamic = fake.add_list("All buyers", "Dynamic")

    for audience in ("77", str(dynamic)):
        with pytest.raises(RequestError) as raised:
            push(iterable, "list_member", change("ada"), audience=audience)
        assert "invalidListId" in raised.value.detail


@pytest.mark.parametrize("audience", ["", "Lapsed", "1.5", "-1", "١٢"])
def test_an_audience_that_is_no_number_is_told_so(fake: FakeIterable, iterable: Iterable, audience: str) -> None:
    with pytest.raises(RequestError, match="has a number"):
        push(iterable, "list_member", change("ada"), audience=audience)

    assert fake.requests == 0


def test_a_project_can_tell_users_apart_by_id() -> None:
    fake = FakeIterable(KEY, by="userId")
    fake.add_list("Lapsed")
    people = [Change(Op.ADD, id, {"userId": id}, {}) for id in ("a1", "A1", "trailing ")]

    with connect(fake, identify_by="userId") as connector:
        receipts = push(connector, "list_member", *people)
        members = connector.members("list_member", "1001").members

    assert statuses(receipts) == {"a1": "applied", "A1": "applied", "trailing ": "rejected"}
    assert [member.identifiers for member in members] == [{"userId": "A1"}, {"userId": "a1"}]


# -- users


def test_users_are_made_and_updated_and_never_removed(fake: FakeIterable, iterable: Iterable) -> None:
    fake.users["ada@example.com"] = {"vip": True}

    receipts = push(iterable, "user", change("ada", Op.UPDATE, ltv=12.5), change("bob", firstName="Bob"))

    assert statuses(receipts) == {"ada": "applied", "bob": "applied"}
    assert fake.users == {"ada@example.com": {"vip": True, "ltv": 12.5}, "bob@example.com": {"firstName": "Bob"}}
    assert iterable.objects["user"].ops == {Op.ADD, Op.UPDATE}


# -- answers that leave something open


@pytest.mark.parametrize(
    ("counts", "failed", "expected"),
    [
        ((2, 0), {}, {"ada": "applied", "bob": "applied"}),
        ((1, 1), {"invalidEmails": ["ADA@example.com"]}, {"ada": "rejected", "bob": "applied"}),
        ((1, 1), {"sundryEmails": ["ada@example.com"]}, {"ada": "rejected", "bob": "applied"}),
        ((1, 1), {"invalidUserIds": ["ada@example.com"]}, {"ada": "unknown", "bob": "unknown"}),
        ((1, 1), {}, {"ada": "unknown", "bob": "unknown"}),
        ((0, 2), {"invalidEmails": ["ada@example.com"]}, {"ada": "rejected", "bob": "unknown"}),
        ((1, 1), {"invalidEmails": ["eve@example.com"]}, {"ada": "unknown", "bob": "unknown"}),
        ((2, 0), {"invalidEmails": ["ada@example.com"]}, {"ada": "unknown", "bob": "unknown"}),
        ((1, 0), {}, {"ada": "unknown", "bob": "unknown"}),
        ((3, 0), {}, {"ada": "unknown", "bob": "unknown"}),
    ],
)
def test_nobody_is_called_applied_whom_the_counts_leave_open(
    counts: tuple[int, int], failed: dict[str, list[str]], expected: dict[str, str]
) -> None:
    answer = {"successCount": counts[0], "failCount": counts[1], "failedUpdates": failed}

    with connect(lambda _: httpx.Response(200, json=answer)) as connector:
        assert statuses(push(connector, "user", change("ada"), change("bob"))) == expected


@pytest.mark.parametrize("text", ["<html>", "a@b.example\nnull", "a@b.example,c@d.example e", '{"msg": "x@y"}'])
def test_a_page_of_something_else_is_an_error(text: str) -> None:
    with connect(lambda _: httpx.Response(200, text=text)) as connector, pytest.raises(ProtocolError):
        connector.members("list_member", "1001")


# -- the project


def test_a_list_can_be_made_and_read(fake: FakeIterable, iterable: Iterable) -> None:
    audience = iterable.create_audience("list_member", "Winback")
    assert iterable.members("list_member", audience).members == []
    push(iterable, "list_member", change("ada"), change("bob"), audience=audience)

    page = iterable.members("list_member", audience)

    assert [member.identifiers["email"] for member in page.members] == ["ada@example.com", "bob@example.com"]
    assert page.next is None


def test_the_fields_of_the_project_can_be_named(fake: FakeIterable, iterable: Iterable) -> None:
    fake.fields |= {"itblInternal.documentCreatedAt": "date", "born": "date"}

    found = {field.name: (field.type, field.identifier) for field in iterable.describe("user")}

    assert found == {
        "email": ("string", True),
        "born": ("timestamp", False),
        "firstName": ("string", False),
        "ltv": ("number", False),
        "vip": ("boolean", False),
    }


def test_a_wrong_key_is_an_auth_error(fake: FakeIterable) -> None:
    with connect(fake, api_key="wrong") as connector, pytest.raises(AuthError):
        connector.check()


def test_a_rate_limit_says_in_its_body_when_to_come_back() -> None:
    fake = FakeIterable(KEY, rate=Rate(1, 60.0), clock=lambda: 5.0)
    with connect(fake) as connector:
        connector.check()
        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after == 60.0


def test_two_projects_are_two_accounts_and_the_key_is_not_told() -> None:
    one, other = IterableConfig(api_key=KEY), IterableConfig(api_key="other")

    assert Iterable.account(one) != Iterable.account(other)
    assert KEY not in Iterable.account(one) + repr(one)


def test_the_fake_that_is_ready_can_be_synced_to() -> None:
    made = ready()
    with serve(made.app) as url:
        config = IterableConfig(**made.options(url))
        with build_client(Iterable, config, timeout=5) as client:
            receipts = push(
                Iterable(config, client), "list_member", change("ada"), audience=made.audiences["list_member"]
            )

    assert statuses(receipts) == {"ada": "applied"}
