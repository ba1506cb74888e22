"""Unleash: what becomes of a segment's members, against an instance in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import httpx
import pytest

from connectors.unleash import Unleash, UnleashConfig
from sync.errors import AuthError, ProtocolError, RequestError
from sync.sdk.connector import Creates, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Delivery, Op
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.server import serve
from sync.testing.fakes.unleash import FakeUnleash, ready
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

TOKEN = "user:9f31c2d4"
URL = "https://unleash.example.com"
CONFIG = {"base_url": URL, "token": TOKEN}
PHONE = {"contextName": "appName", "operator": "STR_ENDS_WITH", "values": ["-phone"], "caseInsensitive": True}


def members(*values: str, **more: Any) -> dict[str, Any]:
    return {"contextName": "userId", "operator": "IN", "values": list(values), **more}


LISTS = {"IN", "NOT_IN", "STR_ENDS_WITH", "STR_STARTS_WITH", "STR_CONTAINS"}


def fit_for_the_server(request: httpx.Request) -> Iterable[str]:
    """What the server refuses and its description does not tell (schema/feature-schema.ts, util/segments.ts)."""
    constraints = _constraints(request)
    values = [value for one in constraints for value in one.get("values") or []]
    if len(values) > 1000:
        yield "more than 1,000 values"
    if not all(isinstance(value, str) and 0 < len(value) <= 100 for value in values):
        yield "a value has 1 to 100 characters"


def nobody_by_accident(request: httpx.Request) -> Iterable[str]:
    """What would make a segment another one: the description's text of updateSegment and of constraintSchema."""
    if request.method == "GET":
        return
    if not _constraints(request):
        yield "a segment without constraints is everybody"
    for one in _constraints(request):
        if ("values" if one.get("operator") in LISTS else "value") not in one:
            yield "a constraint has `values`, or the one `value` that its operator compares with"
    has_project = request.url.path.endswith("/segments/1")
    if request.method == "PUT" and has_project and "project" not in _body(request):
        yield "a project that is not named is taken away from the segment"


def _body(request: httpx.Request) -> dict[str, Any]:
    return dict(json.loads(request.content or b"{}"))


def _constraints(request: httpx.Request) -> list[dict[str, Any]]:
    return list(_body(request).get("constraints", []))


class TestUnleashContract(ConnectorContract):
    connector = Unleash
    config: ClassVar[dict[str, Any]] = CONFIG
    audience = "1"
    described = Described(
        "unleash/admin.json",
        authenticated=lambda request: request.headers.get("authorization") == TOKEN,
        rules=(fit_for_the_server, nobody_by_accident),
    )
    mutants_caught = 0.9

    fake: FakeUnleash

    def begin(self) -> None:
        self.fake = FakeUnleash(TOKEN)
        recent = {"contextName": "appVersion", "operator": "SEMVER_GT", "value": "2.0.0", "values": []}
        self.fake.add_segment("winback", recent, members(), description="Who lapsed", project="web")

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)


@pytest.fixture
def fake() -> FakeUnleash:
    return FakeUnleash(TOKEN)


def connected(app: App, **config: Any) -> AbstractContextManager[Unleash]:
    """A connector with its production client, whose wire is a function."""
    return connection(Unleash, app, **{**CONFIG, **config})


@pytest.fixture
def unleash(fake: FakeUnleash) -> Iterator[Unleash]:
    with connected(fake) as connector:
        yield connector


def push(connector: Unleash, *people: str, audience: str = "1", field: str = "userId") -> dict[str, str]:
    """The whole audience, as the engine hands it over."""
    changes = [Change(Op.UPDATE if n else Op.ADD, f"key-{p}", {field: p}, {}) for n, p in enumerate(people)]
    return statuses(pushed(connector, Batch("b1", "winback", "segment_member", audience, changes)))


def test_the_whole_list_is_replaced_and_the_rest_of_the_segment_stays(fake: FakeUnleash, unleash: Unleash) -> None:
    id = fake.add_segment("winback", PHONE, members("old", caseInsensitive=True), description="Who", project="web")
    before = dict(fake.segments[1])

    assert push(unleash, "ada", "bob") == {"ada": "applied", "bob": "applied"}

    assert fake.segments[int(id)] == before | {
        "constraints": [PHONE, members("ada", "bob", caseInsensitive=True)],
    }


def test_an_audience_without_anybody_is_a_list_without_values_and_never_no_list(
    fake: FakeUnleash, unleash: Unleash
) -> None:
    fake.add_segment("winback", members("ada"))

    assert push(unleash) == {}

    assert fake.segments[1]["constraints"] == [members()]


def test_a_segment_without_a_list_gets_one_beside_its_constraints(fake: FakeUnleash, unleash: Unleash) -> None:
    lists = ({"contextName": "userId", "operator": "NOT_IN", "values": ["eve"]}, members("mallory", inverted=True))
    fake.add_segment("winback", PHONE, *lists)

    push(unleash, "ada")

    assert fake.segments[1]["constraints"] == [PHONE, *lists, members("ada")]


def test_of_several_lists_none_is_chosen(fake: FakeUnleash, unleash: Unleash) -> None:
    fake.add_segment("winback", members("ada"), members("bob"))

    with pytest.raises(RequestError, match="the segment 'winback' has several lists of userId"):
        push(unleash, "cat")
    with pytest.raises(RequestError, match="several lists"):
        unleash.members("segment_member", "1")


def test_another_context_field_is_another_list(fake: FakeUnleash) -> None:
    fake.add_segment("winback", members("ada"))
    with connected(fake, context_field="companyId") as connector:
        assert [f.name for f in connector.objects["segment_member"].fields] == ["companyId"]
        assert push(connector, "acme", field="companyId") == {"acme": "applied"}
        assert [m.identifiers for m in connector.members("segment_member", "1").members] == [{"companyId": "acme"}]

    assert (fake.members("1"), fake.members("1", "companyId")) == (["ada"], ["acme"])


def test_the_whole_audience_goes_in_one_request_of_a_declared_size() -> None:
    with connected(lambda _: httpx.Response(500), max_values=20) as connector:
        spec = connector.objects["segment_member"]

    assert (spec.delivery, spec.limits.batch_size) == (Delivery.SNAPSHOT, 20)


def test_values_of_other_constraints_take_room_too(fake: FakeUnleash) -> None:
    fake.values = 3
    fake.add_segment("winback", PHONE, members("old"))
    with connected(fake, max_values=3) as connector:
        push(connector, "ada", "bob")
        with pytest.raises(RequestError, match="would have 4 values, and Unleash takes 3") as raised:
            push(connector, "ada", "bob", "cat")

    assert "UNLEASH_SEGMENT_VALUES_LIMIT" in raised.value.fix
    assert fake.members("1") == ["ada", "bob"]


@pytest.mark.parametrize("value", ["", "x" * 101])
def test_a_value_that_the_server_refuses_is_told_of_without_being_told(
    fake: FakeUnleash, unleash: Unleash, value: str
) -> None:
    fake.add_segment("winback", members())

    with pytest.raises(RequestError, match="1 of 2 identifiers are empty or longer than 100") as raised:
        push(unleash, "ada", value)

    assert "xxx" not in raised.value.message + raised.value.detail
    assert fake.members("1") == []
    assert push(unleash, "x" * 100) == {"x" * 100: "applied"}


@pytest.mark.parametrize("audience", ["7", "winback", "../users"])
def test_a_segment_that_is_not_there_is_refused(unleash: Unleash, audience: str) -> None:
    with pytest.raises(RequestError):
        push(unleash, "ada", audience=audience)


def test_a_segment_is_made_that_nobody_is_in(fake: FakeUnleash, unleash: Unleash) -> None:
    assert isinstance(unleash, Creates)
    assert isinstance(unleash, Reads)
    made = unleash.create_audience("segment_member", "Lapsed buyers")

    assert fake.segments[int(made)]["constraints"] == [members()]
    assert unleash.members("segment_member", made).members == []
    assert push(unleash, "ada", audience=made) == {"ada": "applied"}
    with pytest.raises(RequestError):
        unleash.create_audience("segment_member", "Lapsed buyers")


def test_what_somebody_else_wrote_meanwhile_is_noticed(fake: FakeUnleash) -> None:
    fake.add_segment("winback", members())

    def answer(request: httpx.Request) -> httpx.Response:
        response = fake(request)
        if request.method == "PUT":
            fake.segments[1]["constraints"] = [members("mallory")]
        return response

    with connected(answer) as connector, pytest.raises(ProtocolError, match="has other members"):
        push(connector, "ada")


@pytest.mark.parametrize(
    "lie",
    [
        {"id": 2, "name": "winback", "constraints": []},
        {"id": 1, "name": "winback"},
        {"id": 1, "name": "winback", "constraints": ["userId"]},
        {"id": 1, "name": "winback", "constraints": [members() | {"values": "ada"}]},
        {"id": 1, "name": "winback", "constraints": [members() | {"values": [1]}]},
    ],
)
def test_another_answer_than_the_segment_is_not_written_back(lie: dict[str, Any]) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        return httpx.Response(200, json=lie)

    with connected(answer) as connector, pytest.raises(ProtocolError):
        connector.members("segment_member", "1")
    with connected(answer) as connector, pytest.raises(ProtocolError):
        push(connector, "ada")
    assert "PUT" not in asked[:-1]


def test_a_token_of_somebody_else_is_refused(fake: FakeUnleash) -> None:
    with connected(fake, token="user:other") as connector, pytest.raises(AuthError):
        connector.check()


def test_a_base_path_is_kept(fake: FakeUnleash) -> None:
    def proxied(request: httpx.Request) -> httpx.Response:
        assert request.url.path.startswith("/flags/api/admin/")
        path = request.url.path.removeprefix("/flags")
        return fake(
            httpx.Request(request.method, f"{URL}{path}", headers=request.headers, content=request.content)
        )

    fake.add_segment("winback", members())
    with connected(proxied, base_url=f"{URL}/flags/") as connector:
        assert push(connector, "ada") == {"ada": "applied"}


def test_two_tokens_are_two_accounts_and_neither_is_told() -> None:
    one, other = UnleashConfig(**CONFIG), UnleashConfig(**{**CONFIG, "token": "user:other"})

    assert Unleash.account(one) != Unleash.account(other)
    assert TOKEN not in Unleash.account(one) + repr(one)


def test_the_fake_can_be_tried_over_a_real_connection() -> None:
    known = ready()
    with serve(known.app) as url:
        config = UnleashConfig.model_validate(known.options(url))
        with build_client(Unleash, config, timeout=5) as client:
            connector = Unleash(config, client)
            connector.check()
            (audience,) = known.audiences.values()
            assert push(connector, "ada", audience=audience) == {"ada": "applied"}
