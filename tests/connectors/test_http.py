"""The client connectors are given: deadlines on real sockets, classification, pauses, authentication."""

from __future__ import annotations

import gzip
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.auth import Basic, Bearer, ClientCredentials, Header, ServiceAccount
from sync.sdk.connector import Config, Connector
from sync.sdk.http import DestinationClient, build_client, offline_client, reset_after, retry_after
from sync.sdk.nouns import Batch, Outcome
from sync.sdk.wire import MAX_ANSWER
from sync.testing.hostile import WIRES, refusing, serving


class Plain(Connector[Config]):
    """Does nothing; its client is what is tested."""

    name = "plain"
    title = "Plain"
    config_model = Config
    scheme: ClassVar[httpx.Auth | None] = None
    url: ClassVar[str] = "https://api.acme.example/v1"

    @classmethod
    def base_url(cls, config: Config) -> str:
        return cls.url

    @classmethod
    def auth(cls, config: Config) -> httpx.Auth | None:
        return cls.scheme

    def check(self) -> None:
        """Not used."""

    def push(self, batch: Batch) -> Outcome:
        return []


def _plain(**attributes: Any) -> type[Plain]:
    return type("Special", (Plain,), attributes)


def _client(answer: Callable[[httpx.Request], httpx.Response], **attributes: Any) -> DestinationClient:
    return build_client(_plain(**attributes), Config(), timeout=2, transport=httpx.MockTransport(answer))


_OPEN: list[DestinationClient] = []


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


def _real(port: int, timeout: float = 2) -> DestinationClient:
    _OPEN.append(build_client(_plain(url=f"http://127.0.0.1:{port}"), Config(), timeout=timeout))
    return _OPEN[-1]


def _answering(payload: bytes, close: bool = False) -> Callable[[socket.socket], None]:
    """A keep-alive server that answers each request (they fit one read) with these bytes."""

    def behave(sock: socket.socket) -> None:
        while sock.recv(1 << 20):
            sock.sendall(payload)
            if close:
                return

    return behave


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, ProtocolError),
        (302, ProtocolError),
        (304, ProtocolError),
        (400, RequestError),
        (401, AuthError),
        (403, AuthError),
        (404, RequestError),
        (408, Unavailable),
        (409, RequestError),
        (413, RequestError),
        (422, RequestError),
        (425, Unavailable),
        (429, RateLimited),
        (499, RequestError),
        (500, Unavailable),
        (503, Unavailable),
        (599, Unavailable),
    ],
)
def test_a_status_becomes_the_error_for_what_to_do_next(status: int, error: type[DestinationError]) -> None:
    client = _client(lambda request: httpx.Response(status, text="what the peer said", headers={"location": "/x"}))

    with pytest.raises(DestinationError) as raised:
        client.post("/people", json={})

    assert type(raised.value) is error
    assert f"api.acme.example answered {status}" in raised.value.message
    assert "what the peer said" not in raised.value.message
    assert raised.value.detail == "what the peer said"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 207])
def test_an_answer_that_is_well_is_returned(status: int) -> None:
    assert _client(lambda request: httpx.Response(status)).post("/people").status_code == status


def test_a_status_the_connector_expects_is_returned() -> None:
    client = _client(lambda request: httpx.Response(422, json={"errors": []}))

    answer = client.post("/people", extensions={"expects": frozenset({422})})

    assert answer.json() == {"errors": []}


def test_a_conflict_is_tried_again_where_the_connector_says_so() -> None:
    client = _client(lambda request: httpx.Response(409), unavailable=frozenset({409}))

    with pytest.raises(Unavailable) as raised:
        client.post("/people")

    assert raised.value.applied is None


@pytest.mark.parametrize(
    ("kind", "status", "hint"),
    [
        (RateLimited, 403, ", which is its rate limit"),
        (RateLimited, 400, ", which is its rate limit"),
        (AuthError, 400, ""),
        (RequestError, 500, ""),
        (Unavailable, 404, ""),
        (ProtocolError, 422, ""),
    ],
)
def test_a_connector_knows_what_a_refusal_means_where_its_status_does_not_tell(
    kind: type[DestinationError], status: int, hint: str
) -> None:
    knows = classmethod(lambda _, response: kind if response.text == "told" else None)
    answer = httpx.Response(status, text="told", headers={"retry-after": "9"})

    with pytest.raises(DestinationError) as raised:
        _client(lambda _: answer, refusal=knows).post("/people")

    assert type(raised.value) is kind
    assert raised.value.message.endswith(hint)
    if isinstance(raised.value, Unavailable):
        assert raised.value.retry_after == 9
        assert raised.value.applied is (False if kind is RateLimited else None)


@pytest.mark.parametrize("status", [200, 302])
def test_only_refusals_are_shown_to_the_connector_to_be_told_what_they_mean(status: int) -> None:
    knows = classmethod(lambda _, response: pytest.fail("it was asked"))
    client = _client(lambda _: httpx.Response(status), refusal=knows)

    if status == 200:
        assert client.get("/people").status_code == 200
    else:
        with pytest.raises(ProtocolError):
            client.get("/people")


def test_a_503_with_a_pause_keeps_the_pause_and_says_nothing_about_what_was_applied() -> None:
    client = _client(lambda request: httpx.Response(503, headers={"retry-after": "9"}))

    with pytest.raises(Unavailable) as raised:
        client.post("/people")

    assert (raised.value.applied, raised.value.retry_after) == (None, 9)
    assert not isinstance(raised.value, RateLimited)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3), ("0", 0), ("2.5", 2.5), ("-1", None), ("nan", None), ("inf", None), ("soon", None), ("", None)],
)
def test_retry_after_is_read_in_seconds_or_not_at_all(header: str, seconds: float | None) -> None:
    assert retry_after(httpx.Response(429, headers={"retry-after": header})) == seconds


def test_a_date_is_measured_by_the_destinations_own_clock() -> None:
    skewed = time.time() - 86400
    headers = {"date": formatdate(skewed, usegmt=True), "retry-after": formatdate(skewed + 30, usegmt=True)}

    assert retry_after(httpx.Response(429, headers=headers)) == 30


@pytest.mark.parametrize(
    ("unit", "since", "factor"), [("seconds", 0, 1), ("epoch_s", 1, 1), ("epoch_ms", 1, 1000)]
)
def test_a_vendors_reset_header_is_read_in_its_unit(unit: Any, since: int, factor: int) -> None:
    moment = (since * time.time() + 12) * factor
    response = httpx.Response(429, headers={"x-reset": str(moment)})

    assert reset_after(response, "X-Reset", unit) == pytest.approx(12, abs=5)


def test_retry_after_wins_over_the_vendors_header() -> None:
    response = httpx.Response(429, headers={"x-reset": "99", "retry-after": "1"})

    assert reset_after(response, "X-Reset", "seconds") == 1


def test_a_refused_connection_certainly_applied_nothing() -> None:
    with refusing() as port, pytest.raises(Unavailable) as raised:
        _real(port).post("/", content=b"x")

    assert raised.value.applied is False
    assert f"127.0.0.1:{port}" in raised.value.message


def test_an_unknown_host_certainly_applied_nothing() -> None:
    client = build_client(_plain(url="http://nobody.invalid"), Config(), timeout=5)

    with pytest.raises(Unavailable) as raised:
        client.get("/")

    assert raised.value.applied is False


@pytest.mark.parametrize("wire", sorted(WIRES))
def test_a_connection_that_breaks_leaves_the_outcome_unknown(wire: str) -> None:
    with serving(WIRES[wire]) as port, pytest.raises(Unavailable) as raised:
        _real(port, 0.4).post("/", content=b"x")

    assert raised.value.applied is None


@pytest.mark.parametrize("wire", ["never answers", "answers a byte at a time"])
def test_a_request_is_over_at_its_deadline_however_alive_the_connection_is(wire: str) -> None:
    with serving(WIRES[wire]) as port:
        began = time.monotonic()
        with pytest.raises(Unavailable):
            _real(port, 0.3).post("/", content=b"x")

    assert 0.25 < time.monotonic() - began < 1.2


def test_a_peer_that_takes_the_request_slowly_does_not_outlive_the_deadline() -> None:
    def sip(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        while sock.recv(512):
            time.sleep(0.05)

    with serving(sip) as port:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="in time"):
            _real(port, 0.4).post("/", content=b"x" * 12_000_000)

    assert time.monotonic() - began < 3


def test_what_was_not_sent_at_the_deadline_is_never_delivered() -> None:
    received: list[int] = []
    ended = threading.Event()

    def stall(sock: socket.socket) -> None:
        time.sleep(0.6)  # the client has given up by now
        try:
            while part := sock.recv(1 << 20):
                received.append(len(part))
        except ConnectionResetError:
            received.append(-1)
        ended.set()

    with serving(stall) as port:
        with pytest.raises(Unavailable):
            _real(port, 0.3).post("/", content=b"x" * 8_000_000)
        assert ended.wait(3)

    assert received[-1] == -1


def test_an_answer_without_end_is_given_up() -> None:
    def flood(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
        while True:
            sock.sendall(b" " * 1_000_000)

    with serving(flood) as port, pytest.raises(ProtocolError, match="more than 16 MiB"):
        _real(port, 10).get("/")


def test_a_small_answer_that_unpacks_to_a_huge_one_is_given_up() -> None:
    bomb = gzip.compress(b" " * (MAX_ANSWER + 1))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()

    with serving(_answering(head + bomb)) as port, pytest.raises(ProtocolError, match="more than 16 MiB"):
        _real(port, 10).get("/")


def test_a_compressed_answer_is_read() -> None:
    body = gzip.compress(b'{"ok": true}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode()

    with serving(_answering(head + body)) as port:
        assert _real(port).get("/").json() == {"ok": True}


def test_an_answer_that_cannot_be_unpacked_is_a_protocol_error() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nnope"

    with serving(_answering(head)) as port, pytest.raises(ProtocolError, match="decompressed"):
        _real(port).get("/")


def test_connections_are_kept_and_shared_by_threads() -> None:
    accepted: list[int] = []

    def behave(sock: socket.socket) -> None:
        accepted.append(1)
        _answering(OK)(sock)

    with serving(behave) as port, ThreadPoolExecutor(4) as pool:
        client = _real(port)
        answers = list(pool.map(lambda n: client.get("/").status_code, range(80)))

    assert answers == [200] * 80
    assert client.meter.requests == 80
    assert len(accepted) <= 4


def test_a_kept_connection_that_the_peer_closed_is_not_used_again() -> None:
    with serving(_answering(OK, close=True)) as port:
        client = _real(port)
        for _ in range(5):
            client.get("/")
            time.sleep(0.02)


def test_a_proxy_of_the_environment_is_used_but_not_for_the_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def proxy(sock: socket.socket) -> None:
        asked.append(sock.recv(1 << 16))
        sock.sendall(OK)

    with serving(proxy) as port, serving(_answering(OK)) as direct:
        monkeypatch.setenv("HTTP_PROXY", f"http://ana:pw@127.0.0.1:{port}")
        monkeypatch.setenv("http_proxy", f"http://ana:pw@127.0.0.1:{port}")
        _real(direct).get("/")
        _OPEN.append(build_client(_plain(url="http://api.acme.example"), Config(), timeout=2))
        _OPEN[-1].get("/people")

    (request,) = asked
    assert request.startswith(b"GET http://api.acme.example/people HTTP/1.1")
    assert b"Basic YW5hOnB3" in request


def test_the_hook_is_called_before_each_request_and_can_stop_it() -> None:
    seen: list[httpx.Request] = []
    client = _client(lambda request: seen.append(request) or httpx.Response(200))  # type: ignore[func-returns-value]
    client.get("/one")

    def stop() -> None:
        raise RuntimeError("the lease is lost")

    client.before_request = stop
    with pytest.raises(RuntimeError, match="the lease is lost"):
        client.get("/two")

    assert [r.url.path for r in seen] == ["/v1/one"]
    assert client.meter.requests == 1


def test_credentials_do_not_follow_a_redirect() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://elsewhere.example/"})

    with pytest.raises(ProtocolError, match="307"):
        _client(answer, scheme=Bearer(SecretStr("t"))).request("GET", "/", follow_redirects=True)

    assert seen == ["api.acme.example"]


def test_an_error_quotes_neither_what_the_peer_sent_nor_the_path() -> None:
    garbled = b"HTTP/1.1 200 OK\r\nana@acme.example \r\n\r\n"

    with serving(_answering(garbled)) as port, pytest.raises(Unavailable) as raised:
        _real(port).get("/people/ana@acme.example")

    told = "".join(traceback.format_exception(raised.value)) + repr(raised.value)
    assert "ana@" not in told.replace('get("/people/ana@acme.example")', "")
    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


def test_an_offline_client_sends_nothing() -> None:
    with pytest.raises(Unavailable, match="offline"):
        offline_client(Plain, Config()).get("/")


def test_an_offline_client_reads_no_credentials_for_they_may_be_placeholders() -> None:
    class Keyed(Plain):
        @classmethod
        def auth(cls, config: Config) -> httpx.Auth:
            return ServiceAccount(SecretStr("placeholder"), scope="all")

    assert offline_client(Keyed, Config()).auth is None


@pytest.mark.parametrize(
    ("scheme", "name", "value"),
    [
        (Bearer(SecretStr("t0k")), "authorization", "Bearer t0k"),
        (Basic("ana", SecretStr("pw")), "authorization", "Basic YW5hOnB3"),
        (Header("Api-Key", SecretStr("k")), "api-key", "k"),
        (Header("Authorization", SecretStr("k"), "Klaviyo-API-Key "), "authorization", "Klaviyo-API-Key k"),
    ],
)
def test_credentials_are_put_where_the_scheme_says(scheme: httpx.Auth, name: str, value: str) -> None:
    seen: list[httpx.Request] = []
    client = _client(lambda r: seen.append(r) or httpx.Response(200), scheme=scheme)  # type: ignore[func-returns-value]

    client.get("/")

    assert seen[0].headers[name] == value


class TokenServer:
    """Gives out t1, t2, ... and accepts only the newest, or none at all."""

    def __init__(self, answers: Iterable[httpx.Response] = ()) -> None:
        self.given = 0
        self.refuse: set[str] = set()
        self.answers = iter(answers)
        self.forms: list[bytes] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            self.forms.append(request.content)
            self.given += 1
            usual = httpx.Response(200, json={"access_token": f"t{self.given}", "expires_in": 3600})
            return next(self.answers, usual)
        token = request.headers["authorization"].removeprefix("Bearer ")
        return httpx.Response(401 if token in self.refuse else 200, json={"token": token})


def _oauth(server: TokenServer, **options: Any) -> DestinationClient:
    scheme = ClientCredentials("https://id.acme.example/token", "me", SecretStr("s3cret"), **options)
    return _client(server, scheme=scheme)


def test_one_token_serves_many_threads() -> None:
    server = TokenServer()
    client = _oauth(server)

    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda n: client.get("/").json()["token"], range(40)))

    assert tokens == {"t1"}
    assert server.given == 1


def test_a_token_that_is_no_longer_accepted_is_replaced_once() -> None:
    server = TokenServer()
    client = _oauth(server)
    client.get("/")
    server.refuse = {"t1"}

    assert client.get("/").json() == {"token": "t2"}
    assert server.given == 2


def test_a_new_token_that_is_refused_is_an_auth_error() -> None:
    server = TokenServer()
    server.refuse = {"t1", "t2"}

    with pytest.raises(AuthError):
        _oauth(server).get("/")

    assert server.given == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(400, json={"error": "invalid_client"}), AuthError),
        (httpx.Response(401), AuthError),
        (httpx.Response(429, headers={"retry-after": "4"}), RateLimited),
        (httpx.Response(503), Unavailable),
        (httpx.Response(200, json={"token_type": "bearer"}), ProtocolError),
        (httpx.Response(200, text="<html>"), ProtocolError),
    ],
)
def test_what_the_token_server_refuses_is_classified(answer: httpx.Response, error: type[Exception]) -> None:
    with pytest.raises(error):
        _oauth(TokenServer([answer])).get("/")


def test_an_expired_token_is_replaced_before_it_is_used() -> None:
    server = TokenServer([httpx.Response(200, json={"access_token": "brief", "expires_in": "1"})])
    client = _oauth(server, in_body=True, scope="people")
    client.get("/")
    time.sleep(1.05)

    assert client.get("/").json() == {"token": "t2"}
    assert b"client_secret=s3cret" in server.forms[0]
    assert b"scope=people" in server.forms[0]


class Keyed(Config):
    """An address and two secrets."""

    base_url: str = "https://api.acme.example"
    user: str = "ada"
    token: SecretStr = SecretStr("t0ken")
    spare: SecretStr | None = None


class Common(Connector[Keyed]):
    """A connector that leaves address and account to what all have in common."""

    name, title, config_model, objects = "common", "Common", Keyed, {}

    def check(self) -> None:
        """Nothing."""

    def push(self, batch: Batch) -> Outcome:
        return []


def test_the_address_and_the_secrets_tell_whose_quota_it_is() -> None:
    mine = Common.account(Keyed())

    assert Common.base_url(Keyed()) == "https://api.acme.example"
    assert mine == Common.account(Keyed(user="bob")) != Common.account(Keyed(token=SecretStr("other")))
    assert mine != Common.account(Keyed(spare=SecretStr("s"))) != Common.account(Keyed(token=SecretStr("s")))
    assert mine != Common.account(Keyed(base_url="https://eu.acme.example"))
    assert "t0ken" not in mine


def test_without_secrets_the_address_is_the_account_and_without_http_there_is_none() -> None:
    class Bare(Common):
        config_model = Config

    assert (Bare.base_url(Config()), Bare.account(Config())) == ("", "")
