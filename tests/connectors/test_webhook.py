"""The webhook connector: its contract, what it posts, and what it makes of answers."""

from __future__ import annotations

import hashlib
import hmac
import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from connectors.webhook import Webhook, WebhookConfig
from sync.errors import AuthError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.auth import HmacSignature
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op, Rate, Receipt, Status
from sync.testing.contract import ConnectorContract
from sync.testing.fakes.server import serve
from sync.testing.fakes.webhook import FakeReceiver, ready
from sync.testing.hostile import Wire
from sync.testing.openapi import Described
from tests.servers import write_certificate

URL = "https://hooks.acme.example/in?key=abc"
PROTOCOL = Path(__file__).parents[2] / "docs" / "reference" / "webhook.openapi.json"


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


def _signed(request: httpx.Request) -> bool:
    return {"x-headgate-signature", "x-headgate-timestamp", "x-key"} <= request.headers.keys()


def _flat_records(request: httpx.Request) -> Iterator[str]:
    """The names are the mapping's; of the kit's records we know them."""
    body = json.loads(request.content or b'{"op": "", "records": []}')
    known = {"email"} if body["op"] == "remove" else {"email", "first_name", "score", "vip"}
    for record in body["records"]:
        if not record.keys() <= known or not isinstance(record.get("email"), str):
            yield "a record is not flat, by the mapping's names, with its identifier"


class TestContract(ConnectorContract):
    connector = Webhook
    config: ClassVar = {
        "url": "https://hooks.acme.example/records",
        "secret": "s3cr3t-shared",
        "secret_headers": {"X-Key": "k3y-of-ours"},
    }
    described = Described(PROTOCOL, authenticated=_signed, rules=(_flat_records,))
    mutants_caught: ClassVar[float] = 0.95
    fake: FakeReceiver

    def begin(self) -> None:
        self.fake = FakeReceiver("s3cr3t-shared")

    def answer(self, request: httpx.Request) -> httpx.Response:
        return self.fake(request)

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


# --- certificates ---------------------------------------------------------------------------------------------


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


class Quiet(HTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass


@contextmanager
def receiver(folder: Path) -> Iterator[str]:
    """A server that talks to those alone who have the certificate `client.crt`."""
    for name in ("server", "client", "stranger"):
        write_certificate(folder / f"{name}.crt", folder / f"{name}.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    context.load_verify_locations(folder / "client.crt")
    context.verify_mode = ssl.CERT_REQUIRED
    server = Quiet(("127.0.0.1", 0), Receiver)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}/records"
    server.shutdown()
    server.server_close()
    thread.join()


def checked(url: str, folder: Path, **files: str) -> None:
    options = {name: str(folder / file) for name, file in files.items()}
    config = WebhookConfig.model_validate({"url": url, **options})
    with build_client(Webhook, config, timeout=5) as client:
        Webhook(config, client).check()


def test_mutual_tls_lets_the_holder_of_the_certificate_in_and_nobody_else(tmp_path: Path) -> None:
    with receiver(tmp_path) as url:
        checked(url, tmp_path, ca_cert="server.crt", client_cert="client.crt", client_key="client.key")
        for wrong in (
            {"ca_cert": "server.crt"},
            {"ca_cert": "server.crt", "client_cert": "stranger.crt", "client_key": "stranger.key"},
            {
                "client_cert": "client.crt",
                "client_key": "client.key",
            },  # the usual authorities do not know the server
        ):
            with pytest.raises(Unavailable):
                checked(url, tmp_path, **wrong)


@pytest.mark.parametrize(
    "files",
    [
        {"client_cert": "absent.crt"},
        {"client_cert": "client.crt"},
        {"client_cert": "client.crt", "client_key": "stranger.key"},
        {"ca_cert": "client.key"},
    ],
)
def test_certificates_that_cannot_be_read_are_told_before_anything_is_sent(
    tmp_path: Path, files: dict[str, str]
) -> None:
    with receiver(tmp_path) as url, pytest.raises(AuthError, match="certificates cannot be read"):
        checked(url, tmp_path, **files)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"client_key": "x"}, "needs its certificate"),
        ({"url": "http://h/x", "client_cert": "x"}, "https:// only"),
        ({"url": "http://h/x", "ca_cert": "x"}, "https:// only"),
    ],
)
def test_certificates_that_would_not_be_used_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        WebhookConfig.model_validate({"url": "https://h/x", **options})


# --- the fake -------------------------------------------------------------------------------------------------


def test_the_fake_takes_what_is_signed_and_new_and_whole() -> None:
    made = ready()
    with serve(made.app) as url:
        config = WebhookConfig.model_validate(dict(made.options(url)))
        with build_client(Webhook, config, timeout=5) as client:
            connector = Webhook(config, client)
            connector.check()
            receipts = list(connector.push(_batch()))
    fake = made.app
    assert isinstance(fake, FakeReceiver)
    assert ([r.status for r in receipts], len(fake.crm.people)) == ([Status.APPLIED] * 3, 3)

    signer = HmacSignature(SecretStr("shared-with-the-fake"))
    good = {"batch_id": "b", "sync": "s", "op": "add", "records": [{"email": "a@b.example"}]}
    json_type, key = {"Content-Type": "application/json"}, {"Idempotency-Key": "k"}
    for headers, body, path, status in (
        (json_type | key, good, "/records", 200),
        (json_type | key, good, "/other", 404),
        (json_type, good, "/records", 400),
        (key, good, "/records", 415),
        (json_type | key, good | {"records": []}, "/records", 400),
        (json_type | key, good | {"more": 1}, "/records", 400),
        (json_type | {"Idempotency-Key": "k2"}, good | {"op": "purge"}, "/records", 400),
        (json_type | {"Idempotency-Key": "k3"}, good | {"records": [{"name": "x"}]}, "/records", 207),
    ):
        content = json.dumps(body).encode()
        request = httpx.Request("POST", f"https://h.example{path}", headers=headers, content=content)
        next(signer.auth_flow(request))
        assert fake(request).status_code == status, (headers, body)
    assert fake(httpx.Request("POST", "https://h.example/records", json=good)).status_code == 401


def test_the_fake_asks_those_who_come_too_fast_to_wait() -> None:
    fake = FakeReceiver("s", rate=Rate(1, 10.0), clock=lambda: 0.0)
    config = WebhookConfig.model_validate({"url": URL.replace("/in?key=abc", "/records"), "secret": "s"})
    connector = Webhook(config, build_client(Webhook, config, timeout=5, transport=Wire(fake)))
    connector.check()

    with pytest.raises(RateLimited) as raised:
        connector.push(_batch())

    assert raised.value.retry_after == 11
