"""The transport under every connector: one request may live for so many seconds, and its answer is bounded.

httpx limits single socket operations, not a request: a peer that takes or gives a byte a second keeps one alive
for ever. The commit protocol needs a moment after which a request is certainly dead, so the time left is
checked at every socket operation, and at the deadline the connection is reset, which also drops what the kernel
had not sent yet.

An answer proves something only where it is whole and is the answer to this request: one that lay ready before
its request left, that says success to a request it did not take to its end, or whose end nobody marked and that is
empty, is as good as none.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

import httpcore
import httpx

from sync.errors import DestinationError, ProtocolError, RequestError, Unavailable
from sync.sdk.compression import Undecodable, decompressed

__all__ = ["MAX_ANSWER", "OVER", "Transport", "boot_now", "host_of", "unreachable"]

MAX_ANSWER = 16 * 1024 * 1024  # bytes of an answer's body, decoded
OVER = "headgate.over"  # in a request's extensions: when it has to be over, where that is before its timeout
_SLICE = 256 * 1024  # bytes handed to the kernel between two looks at the clock
_IDLE = 15.0  # seconds a kept connection may be idle
_RESET = struct.pack("ii", 1, 0)  # linger for 0 s: close with a reset

# Counts while the machine sleeps, so that a request does not survive a suspended laptop.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boot_now() -> float:
    """Seconds on that clock."""
    return time.clock_gettime(_CLOCK)


class _Deadline(threading.local):
    """When the request this thread is working on has to be over."""

    ends = float("inf")

    def left(self, error: type[Exception]) -> float:
        """Seconds left; raises `error` when there are none."""
        left = self.ends - boot_now()
        if left <= 0:
            raise error("the time of the request is over")
        return left


class _Stream(httpcore.NetworkStream):
    """A socket whose every operation looks at the deadline.

    `heard` says whether anything was read since the last write, `refused` whether a write failed: such a
    connection is not used again.
    """

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline
        self.heard = False
        self.refused = False

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - the deadline's
        try:
            self._sock.settimeout(self._deadline.left(httpcore.ReadTimeout))
            self.heard = True
            return self._sock.recv(max_bytes)
        except TimeoutError:
            raise httpcore.ReadTimeout from None
        except OSError as exc:
            raise httpcore.ReadError(str(exc)) from None

    def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ARG002 - the deadline's
        view = memoryview(buffer)
        self.heard = False
        try:
            while view:
                self._sock.settimeout(self._deadline.left(httpcore.WriteTimeout))
                view = view[self._sock.send(view[:_SLICE]) :]
        except TimeoutError:
            raise httpcore.WriteTimeout from None
        except OSError as exc:
            self.refused = True
            raise httpcore.WriteError(str(exc)) from None

    def close(self) -> None:
        if self._deadline.ends <= boot_now():
            with contextlib.suppress(OSError):  # it is closed already
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ARG002 - the deadline's
    ) -> httpcore.NetworkStream:
        try:
            self._sock.settimeout(self._deadline.left(httpcore.ConnectTimeout))
            return _Stream(ssl_context.wrap_socket(self._sock, server_hostname=server_hostname), self._deadline)
        except (TimeoutError, httpcore.ConnectTimeout):
            self.close()
            raise httpcore.ConnectTimeout from None
        except OSError as exc:
            self.close()
            raise httpcore.ConnectError(str(exc)) from None

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return _readable(self._sock)
        if info == "socket":
            return self._sock
        return self._sock if info == "ssl_object" and isinstance(self._sock, ssl.SSLSocket) else None


def _readable(sock: socket.socket) -> bool:
    """Whether an idle connection has something to read, which means that its peer closed it."""
    if sock.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(0))


class _Backend(httpcore.NetworkBackend):
    """Opens sockets within the deadline."""

    def __init__(self, deadline: _Deadline) -> None:
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ARG002 - the deadline's
        local_address: str | None = None,  # noqa: ARG002 - never set
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002 - never set
    ) -> httpcore.NetworkStream:
        try:
            sock = self._connect(host, port)
        except TimeoutError:
            raise httpcore.ConnectTimeout from None
        except UnicodeError:  # a label of more than 63 characters, say
            raise httpcore.ConnectError("the name is none that a host can have") from None
        except OSError as exc:
            raise httpcore.ConnectError(exc.strerror or str(exc)) from None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Stream(sock, self._deadline)

    def _connect(self, host: str, port: int) -> socket.socket:
        failure: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self._deadline.left(httpcore.ConnectTimeout))
                sock.connect(address)
            except OSError as exc:
                failure = exc
                sock.close()
            except httpcore.ConnectTimeout:
                sock.close()
                raise
            else:
                return sock
        raise failure


class _Proxies:
    """The proxies of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), read once; loopback needs none."""

    def __init__(self) -> None:
        self._by_scheme = urllib.request.getproxies()
        self._direct: dict[str, bool] = {}

    def of(self, scheme: str, host: str) -> str | None:
        """The address of the proxy for a host; None where it is asked directly."""
        if not self._by_scheme:
            return None
        if host not in self._direct:
            loopback = host == "localhost" or host.startswith("127.") or host == "::1"
            self._direct[host] = loopback or bool(urllib.request.proxy_bypass(host))
        return None if self._direct[host] else self._by_scheme.get(scheme)


def _proxy(address: str) -> httpcore.Proxy:
    proxy = httpx.Proxy(address if "://" in address else f"http://{address}")
    return httpcore.Proxy(str(proxy.url), auth=proxy.raw_auth)


class Transport(httpx.BaseTransport):
    """Sends a request and reads its whole answer within `timeout` seconds; thread-safe.

    `tls` gives the settings of encrypted connections, or None for the usual ones; it is asked once.

    Raises `Unavailable` where the wire failed (`applied` is False where the request was never sent) and
    `ProtocolError` where the answer is larger than `MAX_ANSWER`.
    """

    def __init__(
        self, *, timeout: float, connections: int = 256, tls: Callable[[], ssl.SSLContext | None] = lambda: None
    ) -> None:
        self.timeout = timeout
        self._tls = tls
        self._deadline = _Deadline()
        self._connections = connections
        self._lock = threading.Lock()
        self._proxies = _Proxies()
        self._pools: dict[tuple[bool, str | None], httpcore.ConnectionPool] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request, one answer, read to its end."""
        failure: DestinationError
        self._deadline.ends = min(boot_now() + self.timeout, request.extensions.get(OVER, float("inf")))
        try:
            return self._exchange(request)
        except (
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
            httpcore.ProxyError,
            httpcore.UnsupportedProtocol,
            Undecodable,
        ) as exc:
            failure = unreachable(request, exc)
        finally:
            self._deadline.ends = float("inf")
        raise failure  # out here, so that no cause or context can quote the peer

    def _exchange(self, request: httpx.Request) -> httpx.Response:
        proxy = self._proxies.of(request.url.scheme, request.url.host)
        answer = self._pool(request.url.scheme == "https", proxy).handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=request.url.raw_scheme,
                    host=request.url.raw_host,
                    port=request.url.port,
                    target=request.url.raw_path,
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions={"timeout": {"pool": self.timeout}},
            )
        )
        try:
            _refuse_out_of_turn(request, answer)
            return _read(request, answer)
        finally:
            answer.close()

    def _pool(self, tls: bool, proxy: str | None) -> httpcore.ConnectionPool:
        """The pool for `https` or `http`: only the first needs the (slow to load) trusted certificates."""
        with self._lock:
            if (tls, proxy) not in self._pools:
                self._pools[tls, proxy] = httpcore.ConnectionPool(
                    ssl_context=(self._tls() or httpx.create_ssl_context()) if tls else None,
                    proxy=None if proxy is None else _proxy(proxy),
                    max_connections=self._connections,
                    max_keepalive_connections=self._connections,
                    keepalive_expiry=_IDLE,
                    network_backend=_Backend(self._deadline),
                )
            return self._pools[tls, proxy]

    def close(self) -> None:
        """Close every connection."""
        for pool in self._pools.values():
            pool.close()


def _refuse_out_of_turn(request: httpx.Request, answer: httpcore.Response) -> None:
    """Raise `Unavailable` for an answer that cannot be the answer to this request."""
    stream = answer.extensions.get("network_stream")
    if not isinstance(stream, _Stream):  # after a switch of protocols: never a success
        return
    if not stream.heard:
        raise Unavailable(f"{host_of(request)} answered before it was asked")
    if stream.refused and answer.status < 300:
        raise Unavailable(f"{host_of(request)} answered and had not taken the whole request")


def _read(request: httpx.Request, answer: httpcore.Response) -> httpx.Response:
    """The answer with its body read and decoded."""
    headers = httpx.Headers(answer.headers)
    parts: Iterable[bytes] = answer.iter_stream()
    if "content-encoding" in headers:
        parts = decompressed(parts, headers.pop("content-encoding"))
        headers.pop("content-length", None)
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > MAX_ANSWER:
            raise ProtocolError(f"{host_of(request)} answered with more than {MAX_ANSWER // 1048576} MiB")
    if not body and _unmarked(request, answer):
        raise httpcore.RemoteProtocolError("an empty body whose end nobody marked")
    return httpx.Response(answer.status, headers=headers, content=bytes(body))


def _unmarked(request: httpx.Request, answer: httpcore.Response) -> bool:
    """Did only the end of the connection end the answer, without the peer having said that it would (RFC 9112,
    section 9.6)? Then the body may have been cut off before it began."""
    headers = httpx.Headers(answer.headers)
    bodiless = request.method == "HEAD" or answer.status in (204, 304) or "content-length" in headers
    if bodiless or "transfer-encoding" in headers or answer.extensions.get("http_version") != b"HTTP/1.1":
        return False
    return "close" not in headers.get("connection", "").lower()


def host_of(request: httpx.Request) -> str:
    """The host to name in messages. Paths and queries are left out: they can hold tokens and identifiers."""
    port = f":{request.url.port}" if request.url.port else ""
    return f"{request.url.host}{port}"


_BAD_REQUEST = {"LocalProtocolError", "UnsupportedProtocol"}
_NEVER_SENT = {"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"}
_WORDS = {
    "ConnectTimeout": "did not accept a connection in time",
    "PoolTimeout": "had no free connection in time",
    "ReadTimeout": "did not finish its answer in time",
    "WriteTimeout": "did not take the whole request in time",
    "ReadError": "broke the connection off before its answer was complete",
    "WriteError": "broke the connection off while the request was being sent",
    "RemoteProtocolError": "closed the connection without a complete HTTP answer",
}


def unreachable(request: httpx.Request, exc: Exception) -> DestinationError:
    """The error for a failure on the wire. httpx and httpcore use the same class names."""
    host, kind = host_of(request), type(exc).__name__
    if kind in _BAD_REQUEST:
        return RequestError(f"the request for {host} is not valid HTTP", str(exc))
    if kind == "Undecodable":
        return ProtocolError(f"{host} sent an answer that cannot be decompressed", str(exc))
    if kind == "ConnectError":
        return Unavailable(f"cannot connect to {host}: {exc}", applied=False)
    words = _WORDS.get(kind, "cannot be reached")
    return Unavailable(f"{host} {words}", str(exc), applied=False if kind in _NEVER_SENT else None)
