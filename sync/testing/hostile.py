"""Destinations that misbehave: on the wire (real sockets), and in what they answer."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from time import sleep as _sleep  # the real one: checks watch `time.sleep`, and these servers run on

import httpx

from sync.sdk.wire import Transport

__all__ = [
    "NONSENSE",
    "WIRES",
    "Diverted",
    "RateSignal",
    "Wire",
    "always",
    "asks_for_token",
    "cut",
    "quoting",
    "refusing",
    "serving",
    "shortened",
]

Answer = Callable[[httpx.Request], httpx.Response]

NONSENSE: Mapping[str, httpx.Response] = {
    "empty": httpx.Response(200),
    "html": httpx.Response(200, html="<html><body>Please log in</body></html>"),
    "{}": httpx.Response(200, json={}),
    "[]": httpx.Response(200, json=[]),
    "null": httpx.Response(200, content=b"null"),
    "number": httpx.Response(200, json=42),
    "text": httpx.Response(200, text="accepted, thank you"),
    "cut JSON": httpx.Response(200, text='{"results": [{"id": "1", "sta'),
    "not UTF-8": httpx.Response(200, content=b'{"results": "\xff\xfe"}'),
}


@dataclass(frozen=True, slots=True)
class RateSignal:
    """A way in which a vendor says when to come back: the headers of a 429, and the seconds they mean.

    `headers` is given the time, in seconds since the epoch.
    """

    name: str
    headers: Callable[[float], Mapping[str, str]]
    seconds: float | None

    @classmethod
    def usual(cls) -> tuple[RateSignal, ...]:
        """RFC 9110's: seconds, a date; and none at all."""
        return (
            cls("seconds", lambda _: {"Retry-After": "7"}, 7),
            cls("date", lambda now: {"Retry-After": formatdate(now + 120, usegmt=True)}, 120),
            cls("silence", lambda _: {}, None),
        )


@dataclass
class Wire(httpx.BaseTransport):
    """Answers from a function and remembers what it was asked.

    With `bad`, that answers instead: to every request, or only to number `at` (from 0), and to the same one again
    where it was told 401 and fetched a token. Requests for a token (OAuth) are answered by `token`, always well,
    and are neither counted nor remembered: they are not the connector's. `judge` is shown each other request
    before it is answered.
    """

    good: Answer
    bad: Answer | None = None
    at: int | None = None
    token: Answer | None = None
    requests: list[httpx.Request] = field(default_factory=list)
    struck: bool = False
    judge: Callable[[httpx.Request], None] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Read the request, remember it, answer."""
        request.read()
        if self.token is not None and asks_for_token(request):
            return self.token(request)
        if self.judge is not None:
            self.judge(request)
        with self._lock:
            number = len(self.requests)
            self.requests.append(request)
        if self.bad is not None and (self.at in (None, number) or self._again(request, number)):
            self.struck = True
            return self.bad(request)
        return self.good(request)

    def _again(self, request: httpx.Request, number: int) -> bool:
        """Is it the request that was answered badly a moment ago: httpx sends the very object with a new token."""
        return self.at is not None and number == self.at + 1 and self.requests[self.at] is request

    @property
    def bodies(self) -> list[tuple[str, str, bytes]]:
        """What was asked: method, URL, body."""
        return [(r.method, str(r.url), r.content) for r in self.requests]


def asks_for_token(request: httpx.Request) -> bool:
    """Is it a request to a token server (RFC 6749, section 4): a form with a `grant_type`."""
    form = request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return request.method == "POST" and form and b"grant_type=" in request.read()


def always(response: httpx.Response) -> Answer:
    """Answers everything so; each time with a copy, as a client closes what it is given."""

    def answer(request: httpx.Request) -> httpx.Response:  # noqa: ARG001 - whatever was asked
        return httpx.Response(response.status_code, headers=response.headers, content=response.content)

    return answer


def cut(answer: Answer) -> Answer:
    """The good answer, cut off in the middle of its body (and with a length that fits)."""

    def half(request: httpx.Request) -> httpx.Response:
        whole = answer(request)
        kind = {"content-type": whole.headers.get("content-type", "application/json")}
        return httpx.Response(whole.status_code, headers=kind, content=whole.content[: len(whole.content) // 2])

    return half


def shortened(answer: Answer, length: int) -> Answer:
    """The good answer, each list of `length` entries in it one entry short."""

    def short(request: httpx.Request) -> httpx.Response:
        whole = answer(request)
        try:
            return httpx.Response(whole.status_code, json=_shorten(whole.json(), length))
        except ValueError:
            return whole

    return short


def _shorten(value: object, length: int) -> object:
    if isinstance(value, dict):
        return {k: _shorten(v, length) for k, v in value.items()}
    if isinstance(value, list):
        kept = value[:-1] if len(value) == length else value
        return [_shorten(v, length) for v in kept]
    return value


def quoting(status: int) -> Answer:
    """Answers with everything it was sent: body, URL and headers, in the body, in headers and in the phrase."""

    def quote(request: httpx.Request) -> httpx.Response:
        said = f"{request.url} {request.content.decode('utf-8', 'replace')} {dict(request.headers.multi_items())}"
        line = said.encode("ascii", "replace").replace(b"\r", b" ").replace(b"\n", b" ")
        return httpx.Response(
            status,
            json={
                "message": said,
                "error": said,
                "errors": [said],
                "status": "error",
                "results": [{"error": said}],
            },
            headers=[(b"x-echo", line), (b"location", b"https://elsewhere.example/")],
            extensions={"reason_phrase": line[:200]},
        )

    return quote


# Wires: what a loopback server does with a connection it accepted.

_RESET = struct.pack("ii", 1, 0)


def _take(sock: socket.socket) -> None:
    """Read a request, or as much of it as comes within a tenth of a second."""
    sock.settimeout(0.1)
    try:
        while sock.recv(65536):
            sock.settimeout(0.03)
    except TimeoutError:
        pass


def _reset(sock: socket.socket) -> None:
    _take(sock)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def _half_close(sock: socket.socket) -> None:
    _take(sock)
    sock.shutdown(socket.SHUT_WR)
    _sleep(0.1)


def _cut_body(sock: socket.socket) -> None:
    _take(sock)
    sock.sendall(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{"ok": true}')


def _garbage(sock: socket.socket) -> None:
    _take(sock)
    sock.sendall(b"\x16\x03\x01 this is not HTTP\r\n\r\n")


def _silent(sock: socket.socket) -> None:
    _take(sock)
    _sleep(1.5)


def _drip(sock: socket.socket) -> None:
    _take(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(60):
        sock.sendall(b"x")
        _sleep(0.025)


WIRES: Mapping[str, Callable[[socket.socket], None]] = {
    "resets the connection": _reset,
    "half-closes the connection": _half_close,
    "cuts its answer short": _cut_body,
    "does not speak HTTP": _garbage,
    "never answers": _silent,
    "answers a byte at a time": _drip,
}


@contextlib.contextmanager
def serving(behaviour: Callable[[socket.socket], None]) -> Iterator[int]:
    """A loopback server that treats each connection so; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(sock, behaviour), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _serve(sock: socket.socket, behaviour: Callable[[socket.socket], None]) -> None:
    with sock, contextlib.suppress(OSError):  # the client left
        behaviour(sock)


@contextlib.contextmanager
def refusing() -> Iterator[int]:
    """A loopback port that nobody listens on, kept from others meanwhile."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


class Diverted(httpx.BaseTransport):
    """The real transport, with every request sent to a loopback port instead of where it was meant for."""

    def __init__(self, port: int, *, timeout: float) -> None:
        self._port = port
        self._real = Transport(timeout=timeout)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send it to the loopback."""
        url = request.url.copy_with(scheme="http", host="127.0.0.1", port=self._port)
        return self._real.handle_request(
            httpx.Request(request.method, url, headers=request.headers, content=request.read())
        )

    def close(self) -> None:
        """Close the connections."""
        self._real.close()
