"""Answers that are not what they claim: out of turn, half, packed, or pointing elsewhere; seen from the client."""

from __future__ import annotations

import gzip
import resource
import socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import httpx
import pytest
from pydantic import SecretStr

from connectors.webhook import Webhook, WebhookConfig
from sync.errors import DestinationError, ProtocolError, RateLimited, Unavailable
from sync.sdk.auth import Basic, Bearer, ClientCredentials
from sync.sdk.compression import Undecodable, decompressed
from sync.sdk.connector import Config, Connector
from sync.sdk.http import DestinationClient, build_client, retry_after
from sync.sdk.nouns import Batch, Outcome
from sync.testing.hostile import serving


class Plain(Connector[Config]):
    """Its client is what is tested."""

    name = "plain"
    title = "Plain"
    config_model = Config
    url: ClassVar[str] = "https://api.acme.example/v1"
    scheme: ClassVar[httpx.Auth | None] = Bearer(SecretStr("t0k-of-ours"))

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


@pytest.fixture
def real() -> Iterator[Callable[..., DestinationClient]]:
    """Makes clients for a port of the loopback."""
    made: list[DestinationClient] = []

    def make(port: int, timeout: float = 5) -> DestinationClient:
        kind = type("Special", (Plain,), {"url": f"http://127.0.0.1:{port}"})
        made.append(build_client(kind, Config(), timeout=timeout))
        return made[-1]

    yield make
    for client in made:
        client.close()


def _client(answer: Callable[[httpx.Request], httpx.Response], **attributes: Any) -> DestinationClient:
    kind = type("Special", (Plain,), attributes)
    return build_client(kind, Config(), timeout=2, transport=httpx.MockTransport(answer))


def _once(payload: bytes) -> Callable[[socket.socket], None]:
    """Answers the first request of a connection with these bytes, and then closes it in an orderly way."""

    def behave(sock: socket.socket) -> None:
        sock.recv(1 << 20)
        sock.sendall(payload)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1 << 20)

    return behave


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def test_an_answer_that_was_there_before_its_request_is_not_the_answer_to_it(real: Any) -> None:
    def twice_at_once(sock: socket.socket) -> None:
        while sock.recv(1 << 20):
            sock.sendall(OK + OK)

    with serving(twice_at_once) as port:
        client = real(port)
        assert client.get("/one").status_code == 200
        with pytest.raises(Unavailable, match="answered before it was asked") as raised:
            client.get("/two")
        assert raised.value.applied is None
        assert client.get("/three").status_code == 200  # on a new connection


def test_a_success_for_a_request_that_was_not_taken_to_its_end_is_no_success(real: Any) -> None:
    def hasty(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.recv(512)
        sock.sendall(OK)
        sock.shutdown(socket.SHUT_RD)
        sock.close()

    with serving(hasty) as port, pytest.raises(Unavailable) as raised:
        real(port).post("/", content=b"x" * 20_000_000)

    assert raised.value.applied is None


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"],
)
def test_an_empty_answer_whose_end_nobody_marked_may_have_been_cut_off(real: Any, head: bytes) -> None:
    with serving(_once(head)) as port, pytest.raises(Unavailable, match="without a complete HTTP answer"):
        real(port).post("/", content=b"x")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_an_empty_answer_that_says_where_it_ends_is_an_answer(real: Any, answer: bytes) -> None:
    with serving(_once(answer)) as port:
        assert real(port).post("/", content=b"x").content == b""


# --- compression ----------------------------------------------------------------------------------------------


def _packed(encoding: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def test_requests_ask_for_gzip_and_nothing_else() -> None:
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["accept-encoding"])
        return httpx.Response(200)

    _client(answer).get("/")

    assert seen == ["gzip"]


def test_a_packed_answer_that_is_cut_short_is_not_an_empty_one(real: Any) -> None:
    cut = gzip.compress(b'{"errors": [{"message": "no"}]}')[:10]

    with serving(_once(_packed("gzip", cut))) as port, pytest.raises(ProtocolError, match="decompressed"):
        real(port).get("/")


@pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate", "br", "zstd", "gzip, identity", "rot13"])
def test_an_encoding_that_was_not_asked_for_is_refused(real: Any, encoding: str) -> None:
    with serving(_once(_packed(encoding, zlib.compress(b"{}")))) as port, pytest.raises(ProtocolError):
        real(port).get("/")


def test_a_bomb_within_a_bomb_takes_little_memory(real: Any) -> None:
    bomb = gzip.compress(gzip.compress(b"\0" * 200_000_000, 9), 9)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with serving(_once(_packed("gzip", bomb))) as port:
        assert real(port).get("/").content[:2] == b"\x1f\x8b"  # unpacked once
    with serving(_once(_packed("gzip,gzip", bomb))) as port, pytest.raises(ProtocolError):
        real(port).get("/")

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 60_000  # KiB; unpacked twice it is 200 MB


@pytest.mark.parametrize("size", [1, 7, 1000, 10_000_000])
def test_what_was_packed_comes_out_whatever_the_pieces(size: int) -> None:
    body = bytes(range(256)) * 40 + b"\0" * 1_000_000
    packed = gzip.compress(body[:5000]) + gzip.compress(body[5000:])
    parts = [packed[n : n + size] for n in range(0, len(packed), size)]

    assert b"".join(decompressed(parts, "gzip")) == body
    assert max(map(len, decompressed(parts, " GZIP "))) <= 256 * 1024


@pytest.mark.parametrize("cut", [1, 9, 15, -1, -8])
def test_a_packed_body_has_to_reach_its_end(cut: int) -> None:
    packed = gzip.compress(b"the whole answer" * 100)

    with pytest.raises(Undecodable):
        list(decompressed([packed[:cut]], "gzip"))


# --- pointing elsewhere ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "https://elsewhere.example/next",
        "http://api.acme.example/v1/next",
        "https://api.acme.example:8443/next",
        "https://api.acme.example.elsewhere.example/",
        "https://api.acme.example@elsewhere.example/",
        "http://169.254.169.254/latest/meta-data/",
    ],
)
def test_a_link_to_another_address_is_not_followed(link: str) -> None:
    seen: list[httpx.Request] = []
    client = _client(lambda request: seen.append(request) or httpx.Response(200))  # type: ignore[func-returns-value]

    with pytest.raises(ProtocolError, match="own address only"):
        client.post(link, json={"email": "ana@acme.example"})

    assert seen == []


@pytest.mark.parametrize(
    "link", ["/v1/next?page=2", "https://api.acme.example/v2/next", "https://api.acme.example:443/"]
)
def test_a_link_to_the_same_address_is(link: str) -> None:
    assert _client(lambda request: httpx.Response(200)).get(link).status_code == 200


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    ["https://elsewhere.example/", "http://[::1", "file:///etc/passwd", "//", "", "\u00e9\ud83e", "x" * 9000],
)
def test_where_a_redirect_points_makes_no_difference(status: int, location: str) -> None:
    answer = httpx.Response(status, headers=[(b"Location", location.encode("utf-8", "surrogatepass"))])

    with pytest.raises(ProtocolError, match=f"answered {status}"):
        _client(lambda request: answer).post("/")


def test_a_token_is_asked_of_the_address_in_the_configuration() -> None:
    hosts: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(200, json={"access_token": "t1", "expires_in": 10})

    _client(answer, scheme=ClientCredentials("https://id.acme.example/token", "me", SecretStr("s3cret"))).get("/")

    assert hosts == ["id.acme.example", "api.acme.example"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"access_token": "x\\r\\nX-Evil: 1"}',
        b'{"access_token": "\\ud800"}',
        b'{"access_token": ""}',
        '{"access_token": "é"}'.encode(),
        b'{"access_token": 7}',
        b"[" * 100_000,
        b'{"access_token": "' + b"x" * 20_000 + b'"}',
        b'{"access_token": "ok", "expires_in": [1]}',
    ],
)
def test_a_token_that_no_header_can_carry_is_not_taken(body: bytes) -> None:
    scheme = ClientCredentials("https://id.acme.example/token", "me", SecretStr("s3cret"))

    with pytest.raises(ProtocolError, match="without one"):
        _client(lambda request: httpx.Response(200, content=body), scheme=scheme).get("/")


@pytest.mark.parametrize("lifetime", ["1e999", "nan", '"nan"', "-5", '"soon"', "1" + "0" * 400, "true"])
def test_an_absurd_lifetime_of_a_token_does_no_harm(lifetime: str) -> None:
    scheme = ClientCredentials("https://id.acme.example/token", "me", SecretStr("s3cret"))
    body = f'{{"access_token": "t1", "expires_in": {lifetime}}}'.encode()
    client = _client(lambda request: httpx.Response(200, content=body), scheme=scheme)

    if lifetime in ("1e999", "nan") or len(lifetime) > 300:  # no JSON
        with pytest.raises(ProtocolError, match="without one"):
            client.get("/")
    else:
        assert client.get("/").status_code == 200


def test_cookies_are_not_kept() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("cookie"))
        return httpx.Response(200, headers={"set-cookie": "session=abc; Path=/; Domain=acme.example"})

    client = _client(answer)
    client.get("/")
    client.get("/")

    assert seen == [None, None]
    assert not list(client.cookies.jar)


# --- words ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "charset", ["utf-16", "zlib", "hex", "idna", "rot13", "unicode_escape", "no-such", "\u00e9"]
)
def test_an_answer_is_read_as_utf_8_whatever_charset_it_names(charset: str) -> None:
    headers = [(b"Content-Type", f"text/html; charset={charset}".encode())]
    answer = httpx.Response(200, headers=headers, content="é \\u0041".encode())

    assert _client(lambda request: answer).get("/").text == "é \\u0041"


@pytest.mark.parametrize(
    "wish",
    [
        "-1", "1e400", "nan", "", "soon", "0x10", "9" * 5000, "Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 99 Foo 2026",
        "Mon, 01 Jan 2024 00:00:00 +99999999999999", "Mon, 01 Jan 0001 00:00:00 +2359",
        "Mon, 01 Jan 0001 00:00:00", "Fri, 31 Dec 9999 23:59:59 -2359",
        "Fri, 31 Dec 99999 23:59:59 GMT", "\u0663", "0" * 70_000,
    ],
)  # fmt: skip
def test_an_absurd_wish_to_wait_is_a_number_that_is_not_negative_or_none(wish: str) -> None:
    response = httpx.Response(429, headers=[(b"Retry-After", wish.encode())])

    said = retry_after(response)

    assert said is None or said >= 0
    with pytest.raises(RateLimited):
        _client(lambda request: response).get("/")


def test_the_header_of_basic_credentials_is_hidden_wherever_it_is_quoted() -> None:
    from sync.logging import hide_secrets

    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200)

    _client(answer, scheme=Basic("site-77", SecretStr("basic-canary-pw"))).get("/")

    assert hide_secrets(f"you sent {seen[0]}") == "you sent Basic •••"


def test_a_name_that_no_host_can_have_is_a_destination_that_cannot_be_reached() -> None:
    config = WebhookConfig(url=f"http://{'a' * 70}.example/")
    with build_client(Webhook, config, timeout=2) as client, pytest.raises(DestinationError) as raised:
        client.get(config.url)

    assert isinstance(raised.value, Unavailable)
    assert raised.value.applied is False
