"""The webhook connector: its contract, what it posts, and what it makes of answers."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import ClassVar

import httpx
import pytest
from pydantic import ValidationError

from connectors.webhook import Webhook, WebhookConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.hostile import Wire

URL = "https://hooks.acme.example/in?key=abc"


def _change(n: int, op: Op = Op.ADD) -> Change:
    fields = {} if op is Op.REMOVE else {"first_name": f"Ana {n}", "ltv": 12.5}
    return Change(op, f"k{n}", {"email": f"p{n}@acme.example"}, fields)


def _batch(count: int = 3, op: Op = Op.ADD) -> Batch:
    return Batch("batch-7", "vip", "record", None, tuple(_change(n, op) for n in range(count)))


def _webhook(answer: httpx.Response, **options: object) -> tuple[Webhook, Wire]:
    config = WebhookConfig.model_validate({"url": URL, **options})
    wire = Wire(lambda request: answer)
    return Webhook(config, build_client(Webhook, config, timeout=5, transport=wire)), wire


def _statuses(answer: httpx.Response, count: int = 3) -> str:
    connector, _ = _webhook(answer)
    letters = {Status.APPLIED: "a", Status.REJECTED: "r", Status.UNKNOWN: "?"}
    return "".join(letters[r.status] for r in connector.push(_batch(count)))


class TestContract(ConnectorContract):
    connector = Webhook
    config: ClassVar = {"url": URL, "secret": "s3cr3t-shared", "secret_headers": {"X-Key": "k3y-of-ours"}}

    def answer(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"ok": True})

    def refuse_first(self, request: httpx.Request) -> httpx.Response | None:
        records = json.loads(request.content)["records"] if request.content else []
        return httpx.Response(207, json={"errors": [{"message": "no such country"}, *[None] * (len(records) - 1)]})


@pytest.mark.parametrize("op", list(Op))
def test_a_batch_is_one_post_of_flat_records(op: Op) -> None:
    connector, wire = _webhook(httpx.Response(204))

    connector.push(_batch(1, op))

    (request,) = wire.requests
    record = {"email": "p0@acme.example"} | ({} if op is Op.REMOVE else {"first_name": "Ana 0", "ltv": 12.5})
    assert (request.method, str(request.url)) == ("POST", URL)
    assert request.headers["idempotency-key"] == "batch-7"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"batch_id": "batch-7", "sync": "vip", "op": op, "records": [record]}


def test_the_signature_can_be_checked_by_the_receiver() -> None:
    connector, wire = _webhook(
        httpx.Response(200), secret="shared", secret_headers={"X-Key": "k"}, headers={"A": "b"}
    )

    connector.push(_batch())

    (request,) = wire.requests
    signed = request.headers["x-headgate-timestamp"].encode() + b"." + request.content
    expected = hmac.new(b"shared", signed, hashlib.sha256).hexdigest()
    assert request.headers["x-headgate-signature"] == f"sha256={expected}"
    assert (request.headers["x-key"], request.headers["a"]) == ("k", "b")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200), "aaa"),
        (httpx.Response(204), "aaa"),
        (httpx.Response(202, json={"queued": 3}), "aaa"),
        (httpx.Response(200, json={"errors": None}), "aaa"),
        (httpx.Response(200, json={"errors": []}), "aaa"),
        (httpx.Response(200, json={"errors": [None, {"message": "bad"}, None]}), "ara"),
        (httpx.Response(207, json={"errors": [None, {"message": "bad"}, None]}), "ara"),
        (httpx.Response(422, json={"errors": [None, {"message": "bad"}, {}]}), "arr"),
        (httpx.Response(200, json={"errors": [None, "bad", None]}), "ara"),
        (httpx.Response(200, json={"errors": [None, 7, None]}), "a?a"),
        (httpx.Response(200, json={"errors": [" ", "", False]}), "???"),
        (httpx.Response(200, json={"errors": [{"message": "bad"}]}), "???"),
        (httpx.Response(200, json={"errors": {"0": "bad"}}), "???"),
        (httpx.Response(200, json={"errors": "bad"}), "???"),
        (httpx.Response(207, json={"ok": True}), "???"),
        (httpx.Response(207), "???"),
        (httpx.Response(422, json={"errors": [None, None, None]}), "???"),
        (httpx.Response(422, json={"errors": [{"message": "bad"}]}), "???"),
    ],
)
def test_each_record_gets_what_the_answer_says_of_it(answer: httpx.Response, expected: str) -> None:
    assert _statuses(answer) == expected


def test_a_rejection_has_the_reason_the_webhook_gave() -> None:
    connector, _ = _webhook(httpx.Response(207, json={"errors": [{"message": "x" * 900}, {"message": {}}]}))

    first, second = connector.push(_batch(2))

    assert (first.reason, second) == ("x" * 500, Receipt("k1", Status.REJECTED, "the webhook gave no reason"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(422, json={"message": "no"}), RequestError),
        (httpx.Response(422, json={"errors": []}), RequestError),
        (httpx.Response(422, text="no"), RequestError),
        (httpx.Response(400, json={"errors": [None, None, None]}), RequestError),
        (httpx.Response(413), RequestError),
        (httpx.Response(401), AuthError),
        (httpx.Response(429, headers={"retry-after": "3"}), RateLimited),
        (httpx.Response(200, html="<p>Sign in</p>"), ProtocolError),
        (httpx.Response(200, json=[]), ProtocolError),
        (httpx.Response(200, text="OK"), ProtocolError),
    ],
)
def test_an_answer_for_the_whole_batch_is_raised(answer: httpx.Response, error: type[Exception]) -> None:
    connector, _ = _webhook(answer)

    with pytest.raises(error):
        connector.push(_batch())


@pytest.mark.parametrize("status", [200, 204, 301, 404, 405, 429, 500])
def test_any_answer_but_a_refusal_of_our_credentials_proves_that_somebody_is_there(status: int) -> None:
    connector, wire = _webhook(httpx.Response(status))

    connector.check()

    assert [(r.method, r.content) for r in wire.requests] == [("HEAD", b"")]


def test_limits_come_from_the_configuration() -> None:
    connector, _ = _webhook(httpx.Response(200), batch_size=1000, concurrency=16)

    limits = connector.objects["record"].limits

    assert (limits.batch_size, limits.concurrency, limits.mixed_ops) == (1000, 16, False)
    assert Webhook.objects["record"].limits.batch_size == 100


def test_the_account_is_the_host_because_paths_can_be_credentials() -> None:
    assert Webhook.account(WebhookConfig(url="https://hooks.acme.example:8443/t0ken")) == (
        "https://hooks.acme.example:8443"
    )


@pytest.mark.parametrize("url", ["", "hooks.acme.example/in", "ftp://acme.example/in", "https://", "http://[::1"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValidationError, match="write https://host/path"):
        WebhookConfig(url=url)
