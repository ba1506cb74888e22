"""LaunchDarkly: what becomes of targets of segments, against an environment in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import httpx
import pytest

from connectors.launchdarkly import LaunchDarkly, LaunchDarklyConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.connector import Creates, Reads
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Rate, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.launchdarkly import FakeLaunchDarkly, Segment, ready
from sync.testing.fakes.server import serve
from sync.testing.hostile import RateSignal
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed, statuses

TOKEN = "api-9f31c2d4"
SEMANTIC = "application/json; domain-model=launchdarkly.semanticpatch"
CONFIG = {"token": TOKEN, "project": "web", "environment": "production"}


def one_environment(request: httpx.Request) -> Iterable[str]:
    """The environment of a patch is that of its path (the description's text of patchSegment)."""
    if request.method == "PATCH" and f"/{_body(request).get('environmentKey')}/" not in request.url.path:
        yield "environmentKey is not the environment of the path"


def capped_targets(request: httpx.Request) -> Iterable[str]:
    """At most 1,500 operations on targets, each instruction of one context kind (the same text)."""
    if request.method == "PATCH":
        instructions = [one for one in _body(request).get("instructions") or [] if isinstance(one, dict)]
        values = [one["values"] for one in instructions if isinstance(one.get("values"), list)]
        if sum(map(len, values)) > 1500:
            yield "more than 1,500 operations on targets"
        if not all(one.get("contextKind") for one in instructions):
            yield "an instruction without a context kind"


def some_targets(request: httpx.Request) -> Iterable[str]:
    """An update of a big segment says whom it is about; the description requires no key of it."""
    if request.url.path.endswith("/contexts"):
        lists = [side for side in _body(request).values() if isinstance(side, dict)]
        if not any(keys for side in lists for keys in side.values()):
            yield "nobody is added or removed"


def kind_of_a_big_segment(request: httpx.Request) -> Iterable[str]:
    """A context kind of its own is for big segments, which need one (the description's text of SegmentBody)."""
    body = _body(request)
    if "key" in body and ("unboundedContextKind" in body) is not (body.get("unbounded") is True):
        yield "`unbounded` and `unboundedContextKind` go together"


def _body(request: httpx.Request) -> dict[str, Any]:
    return dict(json.loads(request.content or b"{}"))


class TestLaunchDarklyContract(ConnectorContract):
    connector = LaunchDarkly
    config: ClassVar[dict[str, Any]] = CONFIG
    audience = "winback"
    rate_signals = (
        *RateSignal.usual(),
        RateSignal("reset", lambda now: {"X-Ratelimit-Reset": str(int((now + 9) * 1000))}, 9),
    )
    described = Described(
        "launchdarkly/launchdarkly_v2.json",
        authenticated=lambda request: request.headers.get("authorization") == TOKEN,
        overlays={("patchSegment", SEMANTIC): "launchdarkly/overlay_semantic_patch.json"},
        rules=(one_environment, capped_targets, some_targets, kind_of_a_big_segment),
    )
    mutants_caught = 0.95

    fake: FakeLaunchDarkly

    def begin(self) -> None:
        self.fake = FakeLaunchDarkly(TOKEN)
        self.fake.segments["winback"] = Segment("Win-back")

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The segment is of the kind that the request is for: each object has its own."""
        self.fake.segments["winback"].big = "user" if request.url.path.endswith("/contexts") else None
        return self.fake(request)


@pytest.fixture
def fake() -> FakeLaunchDarkly:
    fake = FakeLaunchDarkly(TOKEN)
    fake.segments |= {"winback": Segment("Win-back"), "everybody": Segment("Everybody", "user")}
    return fake


def connected(app: App, **config: Any) -> AbstractContextManager[LaunchDarkly]:
    """A connector with its production client, whose wire is a function."""
    return connection(LaunchDarkly, app, **{**CONFIG, **config})


@pytest.fixture
def launchdarkly(fake: FakeLaunchDarkly) -> Iterator[LaunchDarkly]:
    with connected(fake) as connector:
        yield connector


def batch(op: Op, *keys: str, audience: str = "winback", object: str = "segment_member") -> Batch:
    return Batch("b1", "winback", object, audience, [Change(op, f"key-{key}", {"key": key}, {}) for key in keys])


def push(connector: LaunchDarkly, op: Op, *keys: str, **target: str) -> dict[str, str]:
    return statuses(pushed(connector, batch(op, *keys, **target)))


def test_targets_come_and_go_and_the_answer_proves_it(fake: FakeLaunchDarkly, launchdarkly: LaunchDarkly) -> None:
    fake.segments["winback"].rules = [{"clauses": [], "_id": "r1"}]
    added = push(launchdarkly, Op.ADD, "ada", "bob")
    removed = push(launchdarkly, Op.REMOVE, "ada", "nobody")

    assert added == {"ada": "applied", "bob": "applied"}
    assert removed == {"ada": "applied", "nobody": "applied"}
    assert fake.segments["winback"].included == {"user": ["bob"]}
    assert fake.segments["winback"].rules, "what is not ours stays"


def test_another_kind_of_context_is_kept_apart(fake: FakeLaunchDarkly) -> None:
    fake.segments["winback"].included = {"user": ["acme"]}
    with connected(fake, context_kind="organization") as connector:
        assert push(connector, Op.ADD, "acme", "initech") == {"acme": "applied", "initech": "applied"}
        push(connector, Op.REMOVE, "acme")
        members = connector.members("segment_member", "winback").members

    assert fake.segments["winback"].included == {"user": ["acme"], "organization": ["initech"]}
    assert [member.identifiers for member in members] == [{"key": "initech"}]


def test_one_key_that_is_excluded_refuses_them_all(fake: FakeLaunchDarkly, launchdarkly: LaunchDarkly) -> None:
    fake.segments["winback"].excluded = {"user": ["ada"]}

    with pytest.raises(RequestError) as raised:
        push(launchdarkly, Op.ADD, "ada", "bob")

    assert "both included and excluded" in raised.value.detail
    assert fake.segments["winback"].included == {}
    assert push(launchdarkly, Op.ADD, "bob") == {"bob": "applied"}


def test_a_batch_is_as_large_as_a_patch_may_be(launchdarkly: LaunchDarkly) -> None:
    most = launchdarkly.objects["segment_member"].limits.batch_size
    assert most == 1500
    keys = [f"p{n}" for n in range(most + 1)]

    assert set(push(launchdarkly, Op.ADD, *keys[:most]).values()) == {"applied"}
    with pytest.raises(RequestError):
        push(launchdarkly, Op.REMOVE, *keys)


@pytest.mark.parametrize(
    ("object", "audience"), [("segment_member", "everybody"), ("big_segment_member", "winback")]
)
def test_a_segment_of_the_other_kind_is_refused(launchdarkly: LaunchDarkly, object: str, audience: str) -> None:
    with pytest.raises(RequestError):
        push(launchdarkly, Op.ADD, "ada", object=object, audience=audience)


def test_targets_of_a_big_segment_come_and_go(fake: FakeLaunchDarkly, launchdarkly: LaunchDarkly) -> None:
    where = {"object": "big_segment_member", "audience": "everybody"}

    assert push(launchdarkly, Op.ADD, "ada", "bob", **where) == {"ada": "applied", "bob": "applied"}
    assert push(launchdarkly, Op.REMOVE, "ada", **where) == {"ada": "applied"}

    assert fake.segments["everybody"].included == {"user": ["bob"]}


def test_who_is_in_a_big_segment_cannot_be_read(launchdarkly: LaunchDarkly) -> None:
    assert launchdarkly.objects["segment_member"].readable
    assert not launchdarkly.objects["big_segment_member"].readable
    with pytest.raises(RequestError, match="does not list who is in the segment 'everybody'"):
        launchdarkly.members("segment_member", "everybody")


def test_a_segment_is_made_with_a_key_of_its_title(fake: FakeLaunchDarkly, launchdarkly: LaunchDarkly) -> None:
    assert isinstance(launchdarkly, Creates)
    assert isinstance(launchdarkly, Reads)
    small = launchdarkly.create_audience("segment_member", "Lapsed buyers (Q3)")
    big = launchdarkly.create_audience("big_segment_member", "Everybody else")

    assert (small, big) == ("lapsed-buyers-q3", "everybody-else")
    assert (fake.segments[small].big, fake.segments[big].big) == (None, "user")
    assert push(launchdarkly, Op.ADD, "ada", audience=small) == {"ada": "applied"}
    with pytest.raises(RequestError):
        launchdarkly.create_audience("segment_member", "Lapsed buyers (Q3)")
    with pytest.raises(RequestError, match="no key"):
        launchdarkly.create_audience("segment_member", "日本")


def test_a_conflict_is_tried_again() -> None:
    conflict = {"code": "optimistic_locking_error", "message": "Conflict. Optimistic lock error. Try again later."}
    with (
        connected(lambda _: httpx.Response(409, json=conflict)) as connector,
        pytest.raises(Unavailable) as raised,
    ):
        push(connector, Op.ADD, "ada")
    assert type(raised.value) is Unavailable


def test_the_end_of_the_window_is_kept() -> None:
    fake = FakeLaunchDarkly(TOKEN, rate=Rate(1, 10))
    with connected(fake) as connector:
        connector.check()
        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after == pytest.approx(10, abs=1)


def test_a_token_of_somebody_else_is_refused(fake: FakeLaunchDarkly) -> None:
    with connected(fake, token="api-other") as connector, pytest.raises(AuthError):
        connector.check()


@pytest.mark.parametrize("environment", ["staging", "pro/duction"])
def test_an_environment_that_is_not_there_is_refused(fake: FakeLaunchDarkly, environment: str) -> None:
    with connected(fake, environment=environment) as connector, pytest.raises(RequestError):
        connector.check()


SEGMENT = {"key": "winback", "version": 2, "included": ["ada"], "includedContexts": []}


@pytest.mark.parametrize(
    "lie",
    [
        {**SEGMENT, "key": "other"},
        {**SEGMENT, "unbounded": True},
        {**SEGMENT, "included": "ada"},
        {k: v for k, v in SEGMENT.items() if k != "version"},
    ],
)
@pytest.mark.parametrize("op", [Op.ADD, Op.REMOVE])
def test_another_answer_than_the_segment_proves_nothing(lie: dict[str, Any], op: Op) -> None:
    with connected(lambda _: httpx.Response(200, json=lie)) as connector, pytest.raises(ProtocolError):
        push(connector, op, "ada")


def test_a_key_that_the_answer_shows_otherwise_is_unknown() -> None:
    with connected(lambda _: httpx.Response(200, json=SEGMENT)) as connector:
        assert push(connector, Op.ADD, "ada", "bob") == {"ada": "applied", "bob": "unknown"}
        assert push(connector, Op.REMOVE, "ada", "bob") == {"ada": "unknown", "bob": "applied"}


def test_a_big_segment_answers_204_or_nothing_is_known() -> None:
    with connected(lambda _: httpx.Response(200)) as connector, pytest.raises(ProtocolError):
        push(connector, Op.ADD, "ada", object="big_segment_member")


def test_a_dry_run_shows_the_request_without_the_token() -> None:
    with connected(lambda _: httpx.Response(500)) as connector:
        request = connector.request(batch(Op.REMOVE, "ada", audience="vip/1"))

    assert request.url.raw_path == b"/api/v2/segments/web/production/vip%2F1"
    assert request.headers["content-type"] == SEMANTIC
    assert TOKEN not in str(request.headers)


def test_two_tokens_are_two_accounts_and_neither_is_told() -> None:
    one, other = LaunchDarklyConfig(**CONFIG), LaunchDarklyConfig(**{**CONFIG, "token": "api-other"})

    assert LaunchDarkly.account(one) != LaunchDarkly.account(other)
    assert TOKEN not in LaunchDarkly.account(one) + repr(one)


def test_the_fake_can_be_tried_over_a_real_connection() -> None:
    known = ready()
    with serve(known.app) as url:
        config = LaunchDarklyConfig.model_validate(known.options(url))
        with build_client(LaunchDarkly, config, timeout=5) as client:
            connector = LaunchDarkly(config, client)
            for object, audience in known.audiences.items():
                assert push(connector, Op.ADD, "ada", object=object, audience=audience) == {"ada": "applied"}


def test_receipts_are_one_a_change_even_where_keys_repeat(launchdarkly: LaunchDarkly) -> None:
    changes = [Change(Op.ADD, f"k{n}", {"key": "ada"}, {}) for n in range(2)]
    receipts = launchdarkly.push(Batch("b1", "winback", "segment_member", "winback", changes))

    assert receipts == [Receipt("k0", Status.APPLIED), Receipt("k1", Status.APPLIED)]
