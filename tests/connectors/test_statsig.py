"""Statsig: what becomes of ids in id lists, against a project in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import httpx
import pytest

from connectors.statsig import Statsig, StatsigConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.connector import Creates, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Rate
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.server import serve
from sync.testing.fakes.statsig import FakeStatsig, Segment, ready
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

KEY = "console-9f31c2d4"
TEXT, WHOLE = {"type": "string"}, {"type": "number"}
# The description's schema of this answer wants `data` to be a list and an object at once. This one has the object,
# as the description's example and the vendor's page do; it is as strict otherwise.
IDS = {
    "type": "object",
    "required": ["message", "data", "pagination"],
    "properties": {
        "message": TEXT,
        "data": {"$ref": "#/components/schemas/IDListDto"},
        "pagination": {"$ref": "#/components/schemas/PaginationResponseMetadataDto"},
    },
}


class TestStatsigContract(ConnectorContract):
    connector = Statsig
    config: ClassVar[dict[str, Any]] = {"key": KEY}
    audience = "winback"
    described = Described(
        "statsig/console_segments.json",
        authenticated=lambda request: request.headers.get("statsig-api-key") == KEY,
        overlays={("GET /console/v1/segments/{id}/id_list", "200 application/json"): IDS},
    )
    mutants_caught = 0.95

    fake: FakeStatsig

    def begin(self) -> None:
        self.fake = FakeStatsig(KEY)
        self.fake.segments["winback"] = Segment("winback")

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)


@pytest.fixture
def fake() -> FakeStatsig:
    fake = FakeStatsig(KEY)
    fake.segments |= {"winback": Segment("winback"), "rules": Segment("rules", "rule_based")}
    return fake


def connected(app: App, **config: Any) -> AbstractContextManager[Statsig]:
    """A connector with its production client, whose wire is a function."""
    return connection(Statsig, app, **{"key": KEY, **config})


@pytest.fixture
def statsig(fake: FakeStatsig) -> Iterator[Statsig]:
    with connected(fake) as connector:
        yield connector


def push(connector: Statsig, op: Op, *ids: str, audience: str = "winback") -> dict[str, str]:
    changes = [Change(op, f"key-{id}", {"id": id}, {}) for id in ids]
    return statuses(pushed(connector, Batch("b1", "winback", "segment_member", audience, changes)))


def test_ids_come_and_go(fake: FakeStatsig, statsig: Statsig) -> None:
    assert push(statsig, Op.ADD, "ada", "bob") == {"ada": "applied", "bob": "applied"}
    assert push(statsig, Op.ADD, "bob") == {"bob": "applied"}
    assert push(statsig, Op.REMOVE, "ada", "nobody") == {"ada": "applied", "nobody": "applied"}

    assert list(fake.segments["winback"].ids) == ["bob"]


def test_an_id_that_is_a_number_in_the_warehouse_is_sent_as_text(fake: FakeStatsig, statsig: Statsig) -> None:
    changes = [Change(Op.ADD, "k", {"id": 7}, {})]
    list(statsig.push(Batch("b1", "winback", "segment_member", "winback", changes)))  # type: ignore[arg-type]

    assert list(fake.segments["winback"].ids) == ["7"]


def test_a_batch_is_as_large_as_a_request_may_be(statsig: Statsig) -> None:
    most = statsig.objects["segment_member"].limits.batch_size
    assert most == 1000
    ids = [f"p{n}" for n in range(most + 1)]

    assert set(push(statsig, Op.ADD, *ids[:most]).values()) == {"applied"}
    with pytest.raises(RequestError):
        push(statsig, Op.ADD, *ids)


def test_it_keeps_to_both_rates_of_the_vendor(statsig: Statsig) -> None:
    assert statsig.objects["segment_member"].limits.rates == (Rate(100, 10), Rate(900, 900))


@pytest.mark.parametrize("audience", ["rules", "nowhere"])
def test_a_segment_that_is_no_user_store_list_is_refused(statsig: Statsig, audience: str) -> None:
    with pytest.raises(RequestError):
        push(statsig, Op.ADD, "ada", audience=audience)


def test_everybody_is_read_back_page_by_page(fake: FakeStatsig, statsig: Statsig) -> None:
    fake.segments["winback"].ids = dict.fromkeys(f"p{n}" for n in range(250))
    assert isinstance(statsig, Reads)
    pages = [statsig.members("segment_member", "winback")]
    while pages[-1].next:
        pages.append(statsig.members("segment_member", "winback", pages[-1].next))

    assert [len(page.members) for page in pages] == [100, 100, 50]
    assert {m.identifiers["id"] for page in pages for m in page.members} == set(fake.segments["winback"].ids)


def test_an_empty_list_has_one_page(statsig: Statsig) -> None:
    page = statsig.members("segment_member", "winback")

    assert (page.members, page.next) == ([], None)


def test_a_segment_is_made_for_ids_of_the_kind_that_is_configured(fake: FakeStatsig) -> None:
    with connected(fake, id_type="companyID") as connector:
        assert isinstance(connector, Creates)
        made = connector.create_audience("segment_member", "Lapsed buyers")
        assert push(connector, Op.ADD, "acme", audience=made) == {"acme": "applied"}

    assert fake.segments[made] == Segment("Lapsed buyers", "user_store_id_list", "companyID", {"acme": None})


@pytest.mark.parametrize("title", ["Lapsed buyers (Q3)", "ab", "x" * 101, "Käufer"])
def test_a_name_that_statsig_does_not_take_is_refused_before_it_is_sent(fake: FakeStatsig, title: str) -> None:
    with connected(fake) as connector, pytest.raises(RequestError, match="takes no such name") as raised:
        connector.create_audience("segment_member", title)

    assert "3 to 100 letters" in raised.value.fix
    assert fake.requests == 0


def test_too_many_requests_are_told_without_a_time_to_wait(fake: FakeStatsig, statsig: Statsig) -> None:
    fake.rate = Rate(1, 10)
    push(statsig, Op.ADD, "ada")

    with pytest.raises(RateLimited) as raised:
        push(statsig, Op.ADD, "bob")
    assert raised.value.retry_after is None


def test_a_key_of_somebody_else_is_refused(fake: FakeStatsig) -> None:
    with connected(fake, key="console-other") as connector, pytest.raises(AuthError):
        connector.check()


DONE = "IDs successfully added to Segment ID List"


@pytest.mark.parametrize(
    "lie",
    [
        {"message": "The update was queued"},
        {"message": DONE, "success": False},
        {"message": DONE, "error": {"code": 17}},
        {"message": DONE, "errors": [{"message": "no"}]},
        {"message": [DONE]},
        {"note": DONE},
    ],
)
def test_an_answer_that_does_not_say_it_was_done_proves_nothing(lie: dict[str, Any]) -> None:
    with connected(lambda _: httpx.Response(200, json=lie)) as connector, pytest.raises(ProtocolError):
        push(connector, Op.ADD, "ada")


def test_a_page_without_ids_is_not_an_empty_list() -> None:
    page = {"message": "ok", "data": [], "pagination": {"pageNumber": 1, "nextPage": None}}
    with connected(lambda _: httpx.Response(200, json=page)) as connector, pytest.raises(ProtocolError):
        connector.members("segment_member", "winback")


def test_two_keys_are_two_accounts_and_neither_is_told() -> None:
    one, other = StatsigConfig(key=KEY), StatsigConfig(key="console-other")

    assert Statsig.account(one) != Statsig.account(other)
    assert KEY not in Statsig.account(one) + repr(one)


def test_the_fake_can_be_tried_over_a_real_connection() -> None:
    known = ready()
    with serve(known.app) as url:
        config = StatsigConfig.model_validate(known.options(url))
        with build_client(Statsig, config, timeout=5) as client:
            connector = Statsig(config, client)
            connector.check()
            (audience,) = known.audiences.values()
            assert push(connector, Op.ADD, "ada", audience=audience) == {"ada": "applied"}
