"""A destination on the loopback, over real sockets, that answers as told: honestly, or with a lie.

It reads every request to its end and keeps it. A lie is a function that is given the `Peer`: the connection, the
request, and what an honest destination would have done and said.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx

App = Callable[[httpx.Request], httpx.Response]

_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST
_OURS = {"content-length", "transfer-encoding", "connection"}


class HangUp(Exception):
    """The connection is over."""


def reply(status: int | str, body: bytes | str = b"", *headers: str) -> bytes:
    """An answer with its length."""
    content = body.encode() if isinstance(body, str) else body
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(content)}", "", ""]
    return "\r\n".join(lines).encode("latin-1", "replace") + content


@dataclass
class Peer:
    """One request on one connection, as a lie sees it."""

    sock: socket.socket
    request: httpx.Request
    raw: bytes  # the request as it came
    app: App
    earlier: list[httpx.Response]  # honest answers to the same address, given to other batches
    over: threading.Event
    straight: bool = False  # the lie came out as the honest answer: it names nobody, so there was nothing to bend
    _honest: httpx.Response | None = None

    @property
    def honest(self) -> httpx.Response:
        """What an honest destination answers; asking for it applies the request, once."""
        if self._honest is None:
            self._honest = self.app(self.request)
        return self._honest

    def send(self, data: bytes) -> None:
        """Put bytes on the wire."""
        self.sock.sendall(data)

    def answer(self, status: int | str, body: bytes | str = b"", *headers: str) -> None:
        """A complete answer."""
        self.send(reply(status, body, *headers))

    def be_honest(self, *headers: str) -> None:
        """The honest answer, with more headers."""
        said = [f"{k}: {v}" for k, v in self.honest.headers.multi_items() if k.lower() not in _OURS]
        self.answer(f"{self.honest.status_code} OK", self.honest.content, *said, *headers)

    def drip(self, data: bytes, pause: float = 0.05) -> None:
        """A byte now and then, until the other side has enough."""
        while not self.over.is_set():
            for byte in data:
                self.send(bytes([byte]))
                if self.over.wait(pause):
                    break

    def endless(self, data: bytes) -> None:
        """The same, over and over."""
        while not self.over.is_set():
            self.send(data)

    def silence(self) -> None:
        """Say nothing until the other side leaves."""
        self.sock.settimeout(30)
        with contextlib.suppress(OSError):
            while self.sock.recv(4096):
                pass
        raise HangUp

    def hang_up(self, *, reset: bool = False) -> None:
        """End the connection: in an orderly way, or with a reset."""
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        raise HangUp


Lie = Callable[[Peer], None]


@dataclass(frozen=True)
class Heard:
    """A request as it came."""

    method: str
    path: str
    raw: bytes


@dataclass
class Liar:
    """The server. `lie` answers requests to the path `where`, or to any where that is None.

    With `apply` such a request takes effect first. Otherwise only those take effect for which an honest answer is
    made. `crooked` says whether anything but the honest answer was told since `tell`.
    """

    app: App
    lie: Lie | None = None
    where: str | None = None
    apply: bool = False
    crooked: bool = False
    tls: ssl.SSLContext | None = None
    heard: list[Heard] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    _answers: dict[str, list[httpx.Response]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _open: set[socket.socket] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Liar]:
        """Listen; at the end every connection is closed and every thread has ended."""
        with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
            self.port = listener.getsockname()[1]
            accepting = threading.Thread(target=self._accept, args=(listener,), daemon=True)
            accepting.start()
            try:
                yield self
            finally:
                self.over.set()
                with contextlib.suppress(OSError):
                    listener.shutdown(socket.SHUT_RDWR)
                accepting.join(10)
                self.cut()
                for thread in self._threads:
                    thread.join(10)

    def cut(self) -> None:
        """Close every connection, so that what lies goes on no longer."""
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        """Its address, without a slash at the end."""
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    def tell(self, lie: Lie | None, where: str | None = None, *, apply: bool = False) -> None:
        """Lie from now on; None: be honest."""
        with self._lock:
            self.lie, self.where, self.apply, self.crooked = lie, where, apply, False

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            self._open.add(sock)
        stream = sock
        try:
            with contextlib.suppress(OSError, HangUp):
                stream = self.tls.wrap_socket(sock, server_side=True) if self.tls else sock
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                buffer = bytearray()
                while True:
                    self._one(stream, buffer)
        finally:
            with self._lock:
                self._open.discard(sock)
            with contextlib.suppress(OSError):
                stream.close()
            sock.close()

    def _one(self, sock: socket.socket, buffer: bytearray) -> None:
        raw, request = _request(sock, buffer, self.url)
        with self._lock:
            self.heard.append(Heard(request.method, request.url.path, raw))
            lie = self.lie if self.where in (None, request.url.path) else None
            earlier = self._answers.setdefault(request.url.path, [])
            peer = Peer(sock, request, raw, self.app, list(earlier), self.over)
        if lie is None:
            peer.be_honest()
            with self._lock:
                earlier.append(peer.honest)
            return
        if self.apply:
            _ = peer.honest
        try:
            lie(peer)
        finally:
            self.crooked |= not peer.straight


def _request(sock: socket.socket, buffer: bytearray, base: str) -> tuple[bytes, httpx.Request]:
    """One request, read to its end. Raises `HangUp` where there is no more.

    `buffer` has what came after the request before it: a client that was given two answers for one does not wait.
    """
    while (end := buffer.find(b"\r\n\r\n")) < 0:
        buffer += _more(sock)
    lines = buffer[:end].decode("latin-1").split("\r\n")
    method, target, _ = lines[0].split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
    length = int({k.lower(): v for k, v in headers}.get("content-length", "0"))
    begin = end + 4
    while len(buffer) < begin + length:
        buffer += _more(sock)
    raw = bytes(buffer[: begin + length])
    del buffer[: begin + length]
    return raw, httpx.Request(method, base + target, headers=headers, content=raw[begin:])


def _more(sock: socket.socket) -> bytes:
    data = sock.recv(1 << 16)
    if not data:
        raise HangUp
    return data
