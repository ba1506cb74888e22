"""The web server in a thread of the daemon: it has its socket before anything else starts, and ends in order."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sync.address import Address
from sync.errors import StateError
from sync.web.guard import App

__all__ = ["bound", "serving"]

log = structlog.get_logger("headgate.web")

_HEAD_WITHIN = 10.0  # seconds a client may take for a request's first lines
_CONNECTIONS = 256  # at a time, and half of them from one address; more are closed unheard
_DRAIN = 5  # seconds that answers under way are waited for


class Unlistenable(StateError):
    """The address cannot be listened on."""

    code = "HG801"


def bound(address: Address) -> socket.socket:
    """A socket that listens at the address. Raises `Unlistenable`."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address.host, address.port))
        made.listen(128)
    except OSError as error:
        made.close()
        busy = error.errno == errno.EADDRINUSE
        why = "another process listens there" if busy else (error.strerror or "it is not known").lower()
        fix = (
            "end the other one, a daemon say, or name another port" if busy else "name an address of this machine"
        )
        raise Unlistenable(f"cannot listen on {address}: {why}", fix=f"{fix}: --listen HOST:PORT") from None
    os.set_inheritable(made.fileno(), False)
    return made


@contextmanager
def serving(app: App, listener: socket.socket) -> Iterator[Address]:
    """Serve until the block ends; gives the address. Answers under way are finished, for some seconds."""
    config = uvicorn.Config(
        app,
        http=_Impatient,
        ws="none",
        lifespan="off",
        loop="asyncio",
        interface="asgi3",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_DRAIN,
    )
    server = uvicorn.Server(config)
    host, port = listener.getsockname()[:2]
    thread = threading.Thread(target=server.run, args=([listener],), name="headgate-web", daemon=True)
    thread.start()
    log.info("listening", address=str(Address(host, port)))
    try:
        yield Address(host, port)
    finally:
        server.should_exit = True
        thread.join(_DRAIN + 5)


class _Impatient(H11Protocol):
    """Closes connections that do not get on with the first lines of their request, and those that are too many."""

    _timer: asyncio.TimerHandle | None = None
    _seen: Any = None  # the request that was the last one when we looked before

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if self._crowded:
            transport.close()
        self._timer = self.loop.call_later(_HEAD_WITHIN, self._hurry)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    @property
    def _crowded(self) -> bool:
        """Are there too many connections with this one. One address leaves room for others."""
        connections: Any = self.connections
        hosts = [one.client and one.client[0] for one in connections]
        return len(hosts) > _CONNECTIONS or hosts.count(self.client and self.client[0]) > _CONNECTIONS // 2

    def _hurry(self) -> None:
        """Look at the connection every so often: has it a request, or had it one since."""
        answered: Any = self.cycle
        if answered is None or (answered is self._seen and answered.response_complete and self._partial):
            self.transport.close()
            return
        self._seen = answered
        self._timer = self.loop.call_later(_HEAD_WITHIN, self._hurry)

    @property
    def _partial(self) -> bool:
        """Is there the beginning of a request that has not come whole."""
        return bool(self.conn.trailing_data[0])
