"""Meta: what becomes of a custom audience's people, against an ad account in memory."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest

from connectors.meta import Meta
from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.nouns import Batch, Change, Op, Rate, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.meta import FakeMeta, ready
from sync.testing.hostile import RateSignal
from sync.testing.openapi import Described
from tests.connectors.common import App, connection, pushed
from tests.connectors.uploads import Upload

TOKEN, SECRET = "EAA0123456789", "app-secret-0123456789"
ACCOUNT = "1234567"
OPTIONS = {"token": TOKEN, "ad_account_id": ACCOUNT}
USAGE = {"1234567": [{"type": "custom_audience", "call_count": 100, "estimated_time_to_regain_access": 3}]}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def wrong_rows(request: httpx.Request) -> Iterator[str]:
    """Rows fit the schema, and what is to be hashed is: the description says neither."""
    if not request.url.path.endswith("/users"):
        return
    payload = json.loads(request.content).get("payload") or {}
    schema = payload.get("schema") or []
    for row in payload.get("data") or []:
        if not isinstance(row, list) or len(row) != len(schema):
            yield "a row does not fit the schema"
        elif any(
            v and k not in ("MADID", "EXTERN_ID") and not re.fullmatch("[0-9a-f]{64}", v)
            for k, v in zip(schema, row, strict=True)
        ):
            yield "a value is not hashed"


class TestMetaContract(ConnectorContract):
    connector = Meta
    config: ClassVar[dict[str, Any]] = OPTIONS | {"app_secret": None}
    audience = "23840000000000000"
    rate_signals = (
        *RateSignal.usual(),
        RateSignal("usage", lambda _: {"X-Business-Use-Case-Usage": json.dumps(USAGE)}, 180),
    )
    described = Described(
        "reconstructed/meta/custom_audience.json",
        authenticated=lambda request: request.headers.get("authorization", "").startswith("Bearer "),
        rules=(wrong_rows,),
        also=(r"GET https://graph\.facebook\.com/v25\.0/act_1234567/customaudiences",),  # in codegen's list
        reconstructed=True,
    )
    mutants_caught = 0.70

    @cached_property
    def fake(self) -> FakeMeta:
        fake = FakeMeta(TOKEN, ACCOUNT)
        fake.add_audience()
        return fake

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)


@pytest.fixture
def fake() -> FakeMeta:
    return FakeMeta(TOKEN, ACCOUNT)


@pytest.fixture
def meta(fake: FakeMeta) -> Iterator[Meta]:
    with connected(fake) as connector:
        yield connector


def connected(app: App, **options: Any) -> AbstractContextManager[Meta]:
    """A connector with its production client, whose wire is a function."""
    return connection(Meta, app, **{**OPTIONS, **options})


def change(name: str, op: Op = Op.ADD, **identifiers: Any) -> Change:
    return Change(op, name, identifiers or {"email": sha(f"{name}@x.example")}, {})


def push(connector: Meta, audience: str, *changes: Change) -> dict[str, Receipt]:
    return pushed(connector, Batch("b1", "winback", "audience_user", audience, changes))


def test_people_are_added_and_removed_and_meta_decides_later(fake: FakeMeta, meta: Meta) -> None:
    audience = fake.add_audience()

    added = push(meta, audience, change("ada"), change("bob", email=sha("b"), madid="aece-52e7"))
    there = fake.values(audience)
    removed = push(meta, audience, change("ada", Op.REMOVE))

    assert there == {("EMAIL", sha("ada@x.example")), ("EMAIL", sha("b")), ("MADID", "aece-52e7")}
    assert fake.values(audience) == {("EMAIL", sha("b")), ("MADID", "aece-52e7")}
    assert {r.status for r in (*added.values(), *removed.values())} == {Status.ACCEPTED}


def test_only_the_columns_that_somebody_has_are_sent(fake: FakeMeta) -> None:
    audience, bodies = fake.add_audience(), []

    def watched(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.read()))
        return fake(request)

    with connected(watched) as connector:
        push(connector, audience, change("ada", email=sha("a"), phone=None, city=""), change("bob", zip=sha("z")))

    assert bodies[0]["payload"] == {"schema": ["EMAIL", "ZIP"], "data": [[sha("a"), ""], ["", sha("z")]]}


def test_somebody_without_any_value_is_rejected_and_the_others_are_sent(fake: FakeMeta, meta: Meta) -> None:
    audience = fake.add_audience()

    receipts = push(meta, audience, change("nobody", email=None), change("ada"))
    requests = fake.requests

    assert receipts["nobody"] == Receipt("nobody", Status.REJECTED, "it has nothing to be matched by")
    assert receipts["ada"].status is Status.ACCEPTED
    assert push(meta, audience, change("nobody", email=None))["nobody"].status is Status.REJECTED
    assert fake.requests == requests


def test_invalid_entries_are_counted_and_not_named_so_that_the_batch_is_refused(
    fake: FakeMeta, meta: Meta
) -> None:
    audience = fake.add_audience()

    with pytest.raises(RequestError, match="1 of 2 entries invalid, and not which"):
        push(meta, audience, change("ada"), change("bad", email="not a digest"))


@pytest.mark.parametrize(
    "bent",
    [
        {"num_received": 1},
        {"num_received": True},
        {"num_received": "2"},
        {"num_invalid_entries": 3},
        {"num_invalid_entries": None},
        {"audience_id": "7"},
    ],
)
def test_counts_that_do_not_fit_are_no_answer(fake: FakeMeta, bent: dict[str, Any]) -> None:
    audience = fake.add_audience()

    def app(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=json.loads(fake(request).content) | bent)

    with connected(app) as connector, pytest.raises(ProtocolError):
        push(connector, audience, change("ada"), change("bob"))


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, 190, AuthError),
        (400, 10, AuthError),
        (403, 294, AuthError),
        (400, 80003, RateLimited),
        (403, 4, RateLimited),
        (400, 613, RateLimited),
        (400, 2, Unavailable),
        (500, 1, Unavailable),
        (400, 2650, RequestError),
        (400, 105, RequestError),
    ],
)
def test_the_code_in_the_body_says_what_a_refusal_means(
    status: int, code: int, error: type[DestinationError]
) -> None:
    answer = httpx.Response(status, json={"error": {"code": code, "message": "m"}})

    with connected(lambda _: answer) as connector, pytest.raises(DestinationError) as raised:
        push(connector, "1", change("ada"))

    assert type(raised.value) is error


def test_a_flagged_audience_needs_a_person(fake: FakeMeta, meta: Meta) -> None:
    audience = fake.add_audience()
    fake.flagged.add(audience)

    with pytest.raises(AuthError, match="flagged this audience") as raised:
        push(meta, audience, change("ada"))

    assert "Audience Manager" in raised.value.fix


def test_an_audience_that_is_not_there_refuses_the_batch(meta: Meta) -> None:
    with pytest.raises(RequestError):
        push(meta, "../act_1?x=", change("ada"))


def test_the_rate_limit_says_after_how_many_minutes_to_come_back() -> None:
    fake = FakeMeta(TOKEN, ACCOUNT, rate=Rate(1, 3600.0), clock=lambda: 0.0)
    with connected(fake) as connector:
        connector.check()

        with pytest.raises(RateLimited) as raised:
            connector.check()

    assert raised.value.retry_after == 3600


@pytest.mark.parametrize(
    "usage", ["", "[]", "{", '{"1": 2}', '{"1": [3, {"estimated_time_to_regain_access": "x"}]}']
)
def test_a_header_that_says_nothing_is_no_time(usage: str) -> None:
    answer = httpx.Response(429, headers={"X-Business-Use-Case-Usage": usage})

    assert Meta.retry_after(answer) is None


@pytest.mark.parametrize(
    "wrong", [{"token": "EAAwrong"}, {"ad_account_id": "1"}, {"app_secret": "another-secret-0123"}]
)
def test_wrong_credentials_are_an_auth_error(wrong: dict[str, str]) -> None:
    fake = FakeMeta(TOKEN, ACCOUNT, SECRET)
    with connected(fake, **{"app_secret": SECRET, **wrong}) as connector, pytest.raises(AuthError):
        connector.check()


def test_the_proof_of_the_app_goes_with_every_request() -> None:
    fake = FakeMeta(TOKEN, ACCOUNT, SECRET)
    with connected(fake, app_secret=SECRET) as connector:
        connector.check()
        audience = connector.create_audience("audience_user", "Lapsed")
        push(connector, audience, change("ada"))

    assert fake.values(audience) == {("EMAIL", sha("ada@x.example"))}


def test_what_arrives_is_the_digest_of_the_normalised_value(tmp_path: Path) -> None:
    """By hand, from Meta's guide."""
    fake = FakeMeta(TOKEN, ACCOUNT)
    audience = fake.add_audience()
    ada = {
        "email": " Ada.L+x@GMail.com ",
        "phone": "+1 (650) 561-5622",
        "first_name": " Ada-Mae ",
        "last_name": "O'Néill",
        "gender": "Female",
        "birth_year": "1968",
        "birth_month": "7",
        "birth_day": "21",
        "city": "Menlo Park",
        "state": "CA",
        "zip": "94025-1234",
        "country": "US",
        "madid": "AECE52E7-03EE-455A-B3C4-E57283966239",
        "extern_id": " C-77 ",
    }
    upload = _upload(tmp_path, fake, audience)

    upload.cohort(ada, {**dict.fromkeys(ada), "phone": "0044 20 7946 0958"}).run()
    there = fake.values(audience)
    upload.cohort({**dict.fromkeys(ada), "phone": "0044 20 7946 0958"}).run()

    assert there == {
        ("EMAIL", sha("ada.l+x@gmail.com")),
        ("PHONE", sha("16505615622")),
        ("PHONE", sha("442079460958")),
        ("FN", sha("adamae")),
        ("LN", sha("onéill")),
        ("GEN", sha("f")),
        ("DOBY", sha("1968")),
        ("DOBM", sha("07")),
        ("DOBD", sha("21")),
        ("CT", sha("menlopark")),
        ("ST", sha("ca")),
        ("ZIP", sha("94025")),
        ("COUNTRY", sha("us")),
        ("MADID", "aece52e7-03ee-455a-b3c4-e57283966239"),
        ("EXTERN_ID", "C-77"),
    }
    assert fake.values(audience) == {("PHONE", sha("442079460958"))}
    upload.close()


def test_removals_go_first_because_two_rows_can_be_one_account(tmp_path: Path) -> None:
    fake = FakeMeta(TOKEN, ACCOUNT)
    audience = fake.add_audience()
    upload = _upload(tmp_path, fake, audience)
    upload.cohort({"email": "ada@x.example", "extern_id": "old"}).run()

    upload.cohort({"email": "ada@x.example", "extern_id": "new"}).run()

    assert fake.values(audience) == {("EMAIL", sha("ada@x.example")), ("EXTERN_ID", "new")}
    upload.close()


def test_an_invalid_entry_is_found_by_halves_and_the_others_are_in(tmp_path: Path) -> None:
    """Meta does not say which entry it calls invalid; sending the others again adds nobody twice."""
    fake = FakeMeta(TOKEN, ACCOUNT)
    audience = fake.add_audience()

    def picky(request: httpx.Request) -> httpx.Response:
        answer = fake(request)
        if b'"p3"' not in request.content:
            return answer
        fake.audiences[audience] = {row for row in fake.audiences[audience] if ("EXTERN_ID", "p3") not in row}
        return httpx.Response(200, json=json.loads(answer.content) | {"num_invalid_entries": 1})

    upload = _upload(tmp_path, picky, audience)
    report = upload.cohort(*({"extern_id": f"p{n}"} for n in range(8))).run()

    assert (report.accepted, report.undelivered, report.status) == (7, 1, "completed_with_errors")
    assert {value for _, value in fake.values(audience)} == {f"p{n}" for n in range(8) if n != 3}
    upload.close()


def _upload(folder: Path, app: Callable[[httpx.Request], httpx.Response], audience: str) -> Upload:
    return Upload(folder, kind=Meta, options=OPTIONS, app=app, object="audience_user", audience=audience)


def test_the_ready_made_account_takes_its_own_options() -> None:
    made = ready()
    with connected(made.app, **made.options("https://graph.facebook.com")) as connector:
        assert push(connector, made.audiences["audience_user"], change("ada"))["ada"].status is Status.ACCEPTED
