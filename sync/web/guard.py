"""What every request passes first: who is called, how much is sent and how slowly; and what every answer says.

Browsers are told to do nothing with the answers, and get no leave to read them from other sites: no CORS.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from starlette.exceptions import HTTPException

from sync.address import is_literal
from sync.web.problems import MEDIA_TYPE, body

__all__ = ["Guard"]

log = structlog.get_logger("headgate.web")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

MOST = 64 * 1024
"""Bytes of a request's body."""
PATIENCE = 15.0
"""Seconds within which a request's body has to come, however many pieces it comes in."""
AT_A_TIME = 64
"""Requests that are under way at a time; half of them from one address."""

_ALWAYS = "/healthz"
"""Answered however busy we are: whoever asks may end the daemon where nobody answers."""

_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """The app behind its guard.

    `hosts` are the names it may be called by: a page of another site can have a browser call us under a name of
    its own (DNS rebinding), but not under an address.
    """

    def __init__(
        self, app: App, hosts: tuple[str, ...] = (), *, patience: float = PATIENCE, at_a_time: int = AT_A_TIME
    ) -> None:
        self._app, self._patience, self._at_a_time = app, patience, at_a_time
        self._under_way = Counter[str]()  # requests by address
        self._hosts = {"localhost", *(host.lower() for host in hosts)}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        rest, begun = _Body(receive, self._patience), False
        sends_one = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])

        async def sending(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                # What nobody reads is not to be sent to its end.
                unread = [(b"connection", b"close")] if sends_one and not rest.whole else []
                message = {**message, "headers": [*message["headers"], *unread, *_HEADERS]}
            await send(message)

        try:
            refused = self._refusal(scope)
            if refused is None:
                with self._counted(_address(scope)):
                    await self._app(scope, rest, sending)
        except Exception as error:  # noqa: BLE001 - a bug: its words may hold anything, so only its name is told
            log.error("internal", code="HG900", why=f"internal error: {type(error).__name__}")
            refused = (500, "HG900", f"internal error: {type(error).__name__}")
        if refused is not None and not begun:
            await _answer(sending, *refused)

    def _refusal(self, scope: Message) -> tuple[int, str, str] | None:
        headers = {name.lower(): value for name, value in scope["headers"]}
        if not self._known(headers.get(b"host", b"").decode("latin-1")):
            return 421, "HG810", "this is not the host that was called"
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > MOST:
            return 413, "HG808", "the body is too large"
        if scope["path"] != _ALWAYS and self._busy(_address(scope)):
            return 503, "HG815", "too many requests are under way"
        return None

    def _busy(self, address: str) -> bool:
        return self._under_way.total() >= self._at_a_time or self._under_way[address] >= self._at_a_time // 2

    @contextmanager
    def _counted(self, address: str) -> Iterator[None]:
        self._under_way[address] += 1
        try:
            yield
        finally:
            self._under_way -= Counter([address])  # which forgets an address that has none

    def _known(self, called: str) -> bool:
        host = called.rpartition("]")[0].removeprefix("[") if called.startswith("[") else called.partition(":")[0]
        return host.lower() in self._hosts or is_literal(host)


def _address(scope: Message) -> str:
    return scope["client"][0] if scope["client"] else ""


class _Body:
    """A request's body in pieces, no more of it than may be, and no slower."""

    def __init__(self, receive: Receive, patience: float) -> None:
        self._receive, self._until = receive, asyncio.get_running_loop().time() + patience
        self._had, self.whole = 0, False

    async def __call__(self) -> Message:
        """ASGI. Raises `HTTPException`, the only error that the framework does not take for a bad body."""
        if self.whole:  # what comes now is that the caller went away
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408) from None
        self._had += len(message.get("body", b""))
        self.whole = not message.get("more_body", False)
        if self._had > MOST:
            raise HTTPException(413)
        return message


async def _answer(send: Send, status: int, code: str, detail: str) -> None:
    content = body(status, code, detail)
    headers = [(b"content-type", MEDIA_TYPE.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
