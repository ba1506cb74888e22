"""Who receives alerts in tests: an HTTP service and a mail server on the loopback, which keep what they got."""

from __future__ import annotations

import contextlib
import email
import email.policy
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import httpx
from aiosmtpd.controller import Controller

from sync.testing.fakes.server import serve
from tests.servers import free_port


@dataclass
class Inbox:
    """Takes JSON, or answers with another `status`; `asked` counts requests of any kind."""

    url: str = ""
    status: int = 200
    asked: int = 0
    got: list[dict[str, Any]] = field(default_factory=list)
    refuses: Callable[[str], bool] = lambda _: False  # which messages are answered with HTTP 400
    answers: threading.Event = field(default_factory=threading.Event)  # cleared: nobody gets an answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.answers.wait(30)
        self.asked += 1
        if request.method == "POST" and self.status == 200:
            message = httpx.Response(200, content=request.content).json()
            if self.refuses(str(message.get("message"))):
                return httpx.Response(400)
            self.got.append(message)
        return httpx.Response(self.status, text="who are you? <b>go away</b> https://evil.example")

    @property
    def port(self) -> int:
        """Where it listens."""
        return httpx.URL(self.url).port or 0

    @property
    def titles(self) -> list[str]:
        """What the messages are about."""
        return [message["title"] for message in self.got]

    @property
    def text(self) -> str:
        """All that it was ever told."""
        return "\n".join(str(value) for message in self.got for value in message.values())


@contextlib.contextmanager
def inbox() -> Iterator[Inbox]:
    """A service that takes messages."""
    made = Inbox()
    made.answers.set()
    with serve(made) as made.url:
        yield made
        made.answers.set()


@contextlib.contextmanager
def tarpit() -> Iterator[int]:
    """The port of a server that answers with a letter of a header again and again, and never ends it."""
    over = threading.Event()

    def drip(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while not over.wait(0.05):
                connection.sendall(b"a")

    def serve_all(server: socket.socket) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                threading.Thread(target=drip, args=(server.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        threading.Thread(target=serve_all, args=(server,), daemon=True).start()
        yield server.getsockname()[1]
        over.set()


@dataclass
class Mailbox:
    """A mail server; `mails` are what it took."""

    port: int
    mails: list[EmailMessage] = field(default_factory=list)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a mail."""
        self.mails.append(email.message_from_bytes(envelope.content, policy=email.policy.default))  # type: ignore[arg-type]
        return "250 OK"


@contextlib.contextmanager
def mailbox() -> Iterator[Mailbox]:
    """A mail server that asks for no password."""
    made = Mailbox(free_port())
    controller = Controller(made, hostname="127.0.0.1", port=made.port)
    controller.start()
    try:
        yield made
    finally:
        controller.stop()


def until(done: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for something to come to pass."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
