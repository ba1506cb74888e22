"""The HTTP client a connector is given: authenticated, timed out and classified; it never retries.

| the destination's answer | what the connector sees |
|---|---|
| 2xx, or a status in `request.extensions["expects"]` | the response |
| 401, 403 | `AuthError` |
| 408, 425, 5xx, and what the connector's `unavailable` lists | `Unavailable`, outcome unknown |
| 429 | `RateLimited`, nothing applied |
| any other 4xx | `RequestError` |
| 4xx or 5xx that the connector's `refusal` knows by its body or headers | what that says |
| 3xx (never followed: credentials must not travel), 1xx | `ProtocolError` |
| name unknown, refused, no connection in time | `Unavailable(applied=False)` |
| time over, reset, cut or garbled after the connection stood | `Unavailable(applied=None)` |

What the destination wrote goes to the error's `detail`, never into its message. It decides nothing about what is
sent next: cookies are not kept, redirects are not followed, and a link to another address is refused, so that
credentials and people never go where an answer points. Text is read as UTF-8, whatever charset an answer names.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, Literal

import httpx

from sync.errors import AuthError, DestinationError, ProtocolError, RateLimited, RequestError, Unavailable
from sync.sdk.compression import ACCEPTED
from sync.sdk.wire import MAX_ANSWER, OVER, Transport, boot_now, host_of, unreachable
from sync.spans import span

if TYPE_CHECKING:
    from sync.sdk.connector import Config, Connector

__all__ = [
    "MAX_ANSWER",
    "DestinationClient",
    "Meter",
    "build_client",
    "number_after",
    "offline_client",
    "reset_after",
    "retry_after",
    "turn",
]

# Their records quote URLs and headers, which can hold identifiers and credentials.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

_UNAVAILABLE = frozenset({408, 425})
_FOLLOWED = frozenset({301, 302, 303, 307, 308})  # what httpx reads a `Location` of
_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int | None]


class Meter:
    """Counts the HTTP requests of a client; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = 0

    @property
    def requests(self) -> int:
        """How many requests were sent, or at least begun."""
        return self._requests

    def count(self) -> None:
        """One more."""
        with self._lock:
            self._requests += 1


def _nothing() -> None:
    """The default hook."""


class _NoCookies(CookieJar):
    """Keeps none: a session that an answer opens must not decide what the next request means."""

    def extract_cookies(self, response: Any, request: Any) -> None:
        """Leave them where they are."""


class _Gate(httpx.BaseTransport):
    """Calls the client's hook before each request, then counts it."""

    def __init__(self, client: DestinationClient, inner: httpx.BaseTransport) -> None:
        self._client = client
        self._inner = inner

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        over = self._client.before_request()
        if over is not None:
            request.extensions = {**request.extensions, OVER: over}
        self._client.meter.count()
        with span("request", method=request.method, host=request.url.host) as exchange:
            response = self._inner.handle_request(request)
            exchange.learn(status=response.status_code)
        response.encoding = "utf-8"  # a charset can be anything, a decompressor too
        if response.status_code in _FOLLOWED:
            response.headers.pop("location", None)  # httpx would read it, though it is not to follow it
        return response

    def close(self) -> None:
        self._inner.close()


class DestinationClient(httpx.Client):
    """An `httpx.Client` that raises the errors of `sync.errors`.

    `before_request` is called before each request is sent, those that fetch a token included, from the thread
    that sends it; it may wait, and what it raises goes to the caller of `push`. It may return when the request has
    to be over, in seconds of the boot clock, where that can be sooner than the timeout. It may be replaced at any
    time. `meter` counts requests. `timeout_s` is the hard limit of one request, in seconds.
    """

    def __init__(
        self,
        connector: type[Connector[Any]],
        *,
        transport: httpx.BaseTransport,
        before_request: Callable[[], float | None] = _nothing,
        timeout_s: float = 30.0,
        **options: Any,
    ) -> None:
        super().__init__(
            transport=_Gate(self, transport), timeout=None, trust_env=False, cookies=_NoCookies(), **options
        )
        self.before_request = before_request
        self.timeout_s = timeout_s
        self.meter = Meter()
        self._connector = connector
        self._origin = _origin(self.base_url)

    def turn(self) -> float:
        """A turn for an exchange that is not HTTP: awaited, guarded and counted like a request.

        Returns the seconds within which the exchange has to be over, one way or the other.
        """
        over = self.before_request()
        self.meter.count()
        return self.timeout_s if over is None else min(self.timeout_s, max(0.0, over - boot_now()))

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send once and classify the answer. Raises `DestinationError`; nothing goes to another origin than that
        of the connector's `base_url`."""
        if _origin(request.url) != self._origin:
            raise ProtocolError(
                f"{self.base_url.host or 'the destination'} or its connector points to {host_of(request)}: "
                "requests and credentials go to the destination's own address only",
                fix="Check the address in config.toml; if it is right, report this.",
            )
        options["follow_redirects"] = False
        failure: DestinationError | None
        try:
            response = super().send(request, **options)
            failure = _failure(self._connector, request, response)
        except httpx.HTTPError as exc:
            failure = unreachable(request, exc)
        if failure is not None:
            raise failure  # out here, so that no cause or context can quote the peer
        return response


def build_client(
    connector: type[Connector[Any]],
    config: Config,
    *,
    timeout: float,
    user_agent: str = "headgate",
    connections: int = 256,
    before_request: Callable[[], float | None] = _nothing,
    transport: httpx.BaseTransport | None = None,
) -> DestinationClient:
    """The client for one destination.

    `timeout` is the hard limit in seconds of one request, from connecting to the last byte of its answer;
    `connections` limits simultaneous ones. `transport` replaces the network, for tests.
    """
    return DestinationClient(
        connector,
        base_url=connector.base_url(config),
        auth=connector.auth(config),
        headers={"user-agent": user_agent, "accept-encoding": ACCEPTED},
        before_request=before_request,
        timeout_s=timeout,
        transport=transport
        or Transport(timeout=timeout, connections=connections, tls=lambda: connector.tls(config)),
    )


def offline_client(connector: type[Connector[Any]], config: Config) -> DestinationClient:
    """A client that refuses to send, for reading a connector's objects without touching the network.

    It has no credentials: secrets may be placeholders, which are no key files.
    """

    def refuse(request: httpx.Request) -> httpx.Response:
        raise Unavailable(f"{host_of(request)} was not asked: this client is offline", applied=False)

    return DestinationClient(
        connector,
        base_url=connector.base_url(config),
        before_request=_nothing,
        timeout_s=0,
        transport=httpx.MockTransport(refuse),
    )


def turn(http: httpx.Client) -> float:
    """`DestinationClient.turn` of the client a connector was given: the seconds an exchange may take."""
    return http.turn() if isinstance(http, DestinationClient) else 30.0


def _origin(url: httpx.URL) -> Origin:
    """What decides whether two addresses are one server's (RFC 6454)."""
    return url.scheme, url.host, url.port or _PORTS.get(url.scheme)


def _failure(
    connector: type[Connector[Any]], request: httpx.Request, response: httpx.Response
) -> DestinationError | None:
    """The error a status stands for, None where the connector is to read the answer."""
    status = response.status_code
    if 200 <= status < 300 or status in request.extensions.get("expects", ()):
        return None
    kind = (connector.refusal(response) if status >= 400 else None) or _meaning(connector, status)
    hint = ", which is its rate limit" if kind is RateLimited and status != 429 else ""
    message = f"{host_of(request)} answered {_words(status)}{hint}"
    detail = response.content[:16000].decode("utf-8", "replace")
    if issubclass(kind, Unavailable):
        return kind(message, detail, retry_after=connector.retry_after(response))
    return kind(message, detail, fix=_fix(kind, status))


def _meaning(connector: type[Connector[Any]], status: int) -> type[DestinationError]:
    """The error that a status outside 2xx stands for."""
    if status in (401, 403):
        return AuthError
    if status == 429:
        return RateLimited
    if status >= 500 or status in _UNAVAILABLE or status in connector.unavailable:
        return Unavailable
    return RequestError if status >= 400 else ProtocolError


def _fix(kind: type[DestinationError], status: int) -> str:
    if kind is AuthError:
        return "Check the destination's credentials and what they may do."
    return "Give the address it redirects to: redirects are never followed." if 300 <= status < 400 else ""


def _words(status: int) -> str:
    """`404 Not Found`. The peer's own phrase is not used: it can quote anything."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def retry_after(response: httpx.Response) -> float | None:
    """Seconds from a `Retry-After` header (RFC 9110, section 10.2.3: seconds or a date); None without one.

    A date is compared with the answer's own `Date` where it has one, so that a wrong clock here does no harm.
    """
    text = response.headers.get("retry-after")
    if text is None:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    then, now = _date(text), _date(response.headers.get("date", ""))
    return None if then is None else max(0.0, then - (time.time() if now is None else now))


def reset_after(
    response: httpx.Response, header: str, unit: Literal["seconds", "epoch_s", "epoch_ms"]
) -> float | None:
    """Seconds from `Retry-After`, or else from a vendor's header with the moment or the time of its reset."""
    said = retry_after(response)
    if said is not None:
        return said
    return number_after(response.headers.get(header, ""), unit)


def number_after(value: object, unit: Literal["seconds", "epoch_s", "epoch_ms"]) -> float | None:
    """Seconds from now that a number, or the text of one, means in a unit; None for anything else."""
    number = _number(str(value)) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
    if number is None or unit == "seconds":
        return number
    return max(0.0, (number / 1000 if unit == "epoch_ms" else number) - time.time())


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _date(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
