"""Braze: what becomes of users, members and subscription groups, against a workspace in memory."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.braze import Braze, BrazeConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Rate, Receipt
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.braze import FakeBraze, ready
from sync.testing.fakes.server import serve
from sync.testing.hostile import RateSignal
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

KEY = "bz-0123456789abcdef"
HOST = "https://rest.iad-01.braze.com"


def beyond_the_names(request: httpx.Request) -> Iterator[str]:
    """What Braze's pages ask of `/users/track` ("Track users", "User attributes object")."""
    body = json.loads(request.content) if request.content.startswith(b"{") else {}
    if request.url.path != "/users/track":
        return
    objects = body.get("attributes")
    if not isinstance(objects, list) or not 1 <= len(objects) <= 75:
        yield "`attributes` has 1 to 75 objects"
        return
    for one in objects[:3]:
        yield from _faults(one) if isinstance(one, dict) else ["an entry that is no object"]


def _faults(one: dict[str, Any]) -> Iterator[str]:
    if not isinstance(one.get("external_id", one.get("email")), str):
        yield "an object without an identifier"
    yield from (f"`{name}` is no text" for name in _TEXTS if not isinstance(one.get(name), str | None))
    if not isinstance(one.get("_update_existing_only", False), bool):
        yield "`_update_existing_only` is no boolean"
    if strange := [n for n in one if n.startswith("_") and n not in ("_update_existing_only", "_merge_objects")]:
        yield f"there is no switch `{strange[0]}`"


_TEXTS = ("first_name", "last_name", "email", "phone", "country", "home_city", "dob")
_PEOPLE = {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1, "maxItems": 50}
_GROUP = {
    "type": "object",
    "required": ["subscription_group_id", "subscription_state"],
    "properties": {
        "subscription_group_id": {"type": "string", "minLength": 1},
        "subscription_state": {"type": "string", "enum": ["subscribed", "unsubscribed"]},
        "external_ids": _PEOPLE,
        "emails": _PEOPLE,
        "phones": _PEOPLE,
    },
    "oneOf": [{"required": [name]} for name in ("external_ids", "emails", "phones")],
}
# The description names `emails` alone; this is the page "Update user's subscription group status V2".
SET_STATUS = {
    "type": "object",
    "required": ["subscription_groups"],
    "properties": {"subscription_groups": {"type": "array", "items": _GROUP, "minItems": 1}},
}


class TestBrazeContract(ConnectorContract):
    connector = Braze
    config: ClassVar[dict[str, Any]] = {"api_key": KEY}
    audience = "1234"
    rate_signals = (
        RateSignal("reset", lambda now: {"X-RateLimit-Reset": str(int(now) + 9)}, 9),
        *RateSignal.usual(),
    )
    described = Described(
        "braze/braze.json",
        authenticated=lambda request: request.headers.get("authorization") == f"Bearer {KEY}",
        overlays={("POST /v2/subscription/status/set", "application/json"): SET_STATUS},
        rules=(beyond_the_names,),
        also=(f"GET {HOST}/custom_attributes",),
    )
    mutants_caught: ClassVar[float] = 0.7

    @cached_property
    def fake(self) -> FakeBraze:
        fake = FakeBraze(KEY)
        fake.groups["1234"] = {}
        return fake

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        """Of a subscription group the platform refuses nobody alone."""
        if request.url.path != "/users/track":
            return None if request.url.path.endswith("/set") else self.fake(request)
        sent = self.fake(request).json()
        error = {"index": 0, "input_array": "attributes", "type": "'email' has a value that is not valid"}
        refused = {"attributes_processed": sent["attributes_processed"] - 1, "errors": [error]}
        return httpx.Response(201, json=sent | refused)


def connect(app: App, **config: Any) -> AbstractContextManager[Braze]:
    """A connector with its production client, whose wire is a function."""
    return connection(Braze, app, **{"api_key": KEY, **config})


@pytest.fixture
def fake() -> FakeBraze:
    fake = FakeBraze(KEY)
    fake.groups["news"] = {}
    return fake


@pytest.fixture
def braze(fake: FakeBraze) -> Iterator[Braze]:
    with connect(fake) as connector:
        yield connector


def change(name: str, op: Op = Op.ADD, /, by: str = "external_id", **fields: Any) -> Change:
    return Change(op, f"key-{name}", {by: name}, fields)


def push(connector: Braze, object: str, *changes: Change, audience: str = "lapsed") -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", object, audience, changes))


# -- users


def test_profiles_are_made_and_updated_and_null_takes_an_attribute_away(fake: FakeBraze, braze: Braze) -> None:
    fake.profiles.append({"external_id": "u1", "last_name": "L", "shoe_size": 38})

    receipts = push(
        braze, "user", change("u1", Op.UPDATE, first_name="Ada", shoe_size=None), change("u2", vip=True)
    )

    assert statuses(receipts) == {"u1": "accepted", "u2": "accepted"}
    assert fake.profiles == [
        {"external_id": "u1", "last_name": "L", "first_name": "Ada"},
        {"external_id": "u2", "vip": True},
    ]


def test_a_refused_profile_is_found_by_its_place_and_the_others_are_accepted(
    fake: FakeBraze, braze: Braze
) -> None:
    receipts = push(braze, "user", change("u1", vip=True), change("u2", email="nobody"), change("u3", vip=True))

    assert statuses(receipts) == {"u1": "accepted", "u2": "rejected", "u3": "accepted"}
    assert receipts["u2"].reason == "'email' has a value that is not valid"
    assert [profile["external_id"] for profile in fake.profiles] == ["u1", "u3"]


def test_a_batch_of_refused_profiles_is_refused_for_the_engine_to_halve(braze: Braze) -> None:
    with pytest.raises(RequestError) as raised:
        push(braze, "user", change("u1", email="nobody"))

    assert "'email'" in raised.value.detail


def test_profiles_can_be_found_by_address(fake: FakeBraze) -> None:
    fake.profiles.append({"external_id": "u1", "email": "ada@example.com"})

    with connect(fake, identify_by="email") as connector:
        push(connector, "user", change("ada@example.com", by="email", first_name="Ada"))

    assert fake.profiles == [{"external_id": "u1", "email": "ada@example.com", "first_name": "Ada"}]


@pytest.mark.parametrize("field", ["external_id", "braze_id", "user_alias", "push_token_import"])
def test_a_field_that_would_say_whom_to_write_to_is_refused(fake: FakeBraze, field: str) -> None:
    with connect(fake, identify_by="email") as connector, pytest.raises(RequestError, match=field):
        push(connector, "user", change("ada@example.com", by="email", **{field: "u2"}))

    assert fake.requests == 0


# -- membership


def test_a_member_has_an_attribute_with_the_audiences_name(fake: FakeBraze, braze: Braze) -> None:
    push(braze, "membership", change("u1", first_name="Ada"), change("u2"))
    receipts = push(braze, "membership", change("u1", Op.REMOVE))

    assert statuses(receipts) == {"u1": "accepted"}
    assert fake.profiles == [
        {"external_id": "u1", "first_name": "Ada", "lapsed": False},
        {"external_id": "u2", "lapsed": True},
    ]


def test_whoever_leaves_and_has_no_profile_is_not_given_one(fake: FakeBraze, braze: Braze) -> None:
    assert statuses(push(braze, "membership", change("nobody", Op.REMOVE))) == {"nobody": "accepted"}
    assert fake.profiles == []


def test_no_profiles_are_made_where_that_is_switched_off(fake: FakeBraze) -> None:
    fake.profiles.append({"external_id": "u1"})

    with connect(fake, create_users=False) as connector:
        push(connector, "membership", change("u1"), change("nobody"))

    assert fake.profiles == [{"external_id": "u1", "lapsed": True}]


@pytest.mark.parametrize("audience", ["", "  ", "email", "external_id", "_update_existing_only", "$x", "x" * 256])
def test_an_audience_that_would_overwrite_something_else_is_refused(
    fake: FakeBraze, braze: Braze, audience: str
) -> None:
    with pytest.raises(RequestError, match="cannot be the name"):
        push(braze, "membership", change("u1"), audience=audience)

    assert fake.requests == 0


def test_a_field_with_the_audiences_name_does_not_decide_who_is_in_it(fake: FakeBraze, braze: Braze) -> None:
    push(braze, "membership", change("u1", lapsed="maybe"))

    assert fake.profiles[0]["lapsed"] is True


# -- subscription groups


def test_people_are_subscribed_and_unsubscribed(fake: FakeBraze, braze: Braze) -> None:
    push(braze, "subscription_group", change("u1"), change("u2"), audience="news")
    receipts = push(braze, "subscription_group", change("u1", Op.REMOVE), audience="news")

    assert statuses(receipts) == {"u1": "accepted"}
    assert fake.groups["news"] == {"u1": "unsubscribed", "u2": "subscribed"}
    assert fake.profiles == []


def test_people_can_be_subscribed_by_address(fake: FakeBraze) -> None:
    with connect(fake, identify_by="email") as connector:
        push(connector, "subscription_group", change("ada@example.com", by="email"), audience="news")

    assert fake.groups["news"] == {"ada@example.com": "subscribed"}


def test_unsubscribing_is_an_irreversible_op_and_leaving_an_audience_is_none(braze: Braze) -> None:
    assert braze.objects["subscription_group"].irreversible == {Op.REMOVE}
    assert braze.objects["membership"].irreversible == frozenset()


def test_a_group_that_is_not_there_refuses_the_batch(braze: Braze) -> None:
    with pytest.raises(RequestError) as raised:
        push(braze, "subscription_group", change("u1"), audience="gone")

    assert "subscription_group_id" in raised.value.detail


# -- answers that leave something open


def _error(index: Any = 0, array: str = "attributes", type: str = "no") -> dict[str, Any]:
    return {"index": index, "input_array": array, "type": type}


@pytest.mark.parametrize(
    "answer",
    [
        {"message": "success"},
        {"message": "Something broke", "attributes_processed": 2},
        {"message": "success", "attributes_processed": 1},
        {"message": "success", "attributes_processed": 3},
        {"message": "success", "attributes_processed": 2, "errors": [_error()]},
        {"message": "success", "attributes_processed": 1, "errors": [_error(2)]},
        {"message": "success", "attributes_processed": 1, "errors": [_error(-1)]},
        {"message": "success", "attributes_processed": 1, "errors": [_error("x")]},
        {"message": "success", "attributes_processed": 1, "errors": [_error(0, "events")]},
        {"message": "success", "attributes_processed": 1, "errors": ["something"]},
    ],
)
def test_an_answer_that_does_not_account_for_everybody_proves_nothing(answer: dict[str, Any]) -> None:
    with connect(lambda _: httpx.Response(201, json=answer)) as connector, pytest.raises(ProtocolError):
        push(connector, "user", change("u1"), change("u2"))


@pytest.mark.parametrize("answer", [{"message": "queued"}, {"message": "success", "errors": ["one of them"]}])
def test_a_group_whose_answer_is_no_plain_success_is_unknown(answer: dict[str, Any]) -> None:
    with connect(lambda _: httpx.Response(201, json=answer)) as connector, pytest.raises(ProtocolError):
        push(connector, "subscription_group", change("u1"), audience="news")


# -- the workspace


def test_custom_attributes_are_found_beside_the_profile_page_by_page(fake: FakeBraze, braze: Braze) -> None:
    fake.profiles.append({"external_id": "u1", "vip": True, **{f"score_{n:03}": n for n in range(120)}})

    found = {field.name: field for field in braze.describe("membership")}

    assert len([name for name in found if name.startswith("score_")]) == 120
    assert (found["score_000"].type, found["vip"].type) == ("number", "boolean")
    assert found["external_id"].identifier
    assert found["phone"].normalise == "e164"
    assert [field.name for field in braze.describe("subscription_group")] == ["external_id"]


def test_pages_that_never_end_end() -> None:
    link = {"Link": '<https://rest.iad-01.braze.com/custom_attributes?cursor=abc>; rel="next"'}

    with connect(lambda _: httpx.Response(200, json={"attributes": []}, headers=link)) as connector:
        assert connector.describe("user")


def test_a_wrong_key_is_an_auth_error(fake: FakeBraze) -> None:
    with connect(fake, api_key="wrong") as connector, pytest.raises(AuthError):
        connector.check()


def test_the_window_of_the_limit_is_waited_for() -> None:
    with connect(FakeBraze(KEY, rate=Rate(1, 30.0))) as connector:
        connector.check()
        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after is not None
    assert 25 < raised.value.retry_after <= 32


def test_a_batch_is_as_large_as_the_contract_with_braze_says() -> None:
    with connect(FakeBraze(), batch_size=50) as connector:
        assert connector.objects["user"].limits.batch_size == 50
    with pytest.raises(ValidationError):
        BrazeConfig(api_key=KEY, batch_size=76)


def test_two_workspaces_are_two_accounts_and_the_key_is_not_told() -> None:
    one, other = BrazeConfig(api_key=KEY), BrazeConfig(api_key="other")

    assert Braze.account(one) != Braze.account(other)
    assert KEY not in Braze.account(one) + repr(one)


def test_the_fake_that_is_ready_can_be_synced_to() -> None:
    made = ready()
    began = time.monotonic()
    with serve(made.app) as url:
        config = BrazeConfig(**made.options(url))
        with build_client(Braze, config, timeout=5) as client:
            connector = Braze(config, client)
            for object, audience in made.audiences.items():
                assert statuses(push(connector, object, change("u1"), audience=audience)) == {"u1": "accepted"}
    assert time.monotonic() - began < 5
