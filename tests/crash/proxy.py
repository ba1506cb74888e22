"""A network between the command and its destination that a test can cut: one way, the other, or half-way."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST


class Cut(Enum):
    """What the network does to bytes from now on."""

    NOTHING = "nothing"
    REQUESTS = "requests are lost"
    ANSWERS = "answers are lost"
    BOTH = "both ways are lost"
    RESET = "connections are reset at the first byte"
    BODY = "requests are cut in the middle and reset"
    ANSWER = "answers are cut in the middle and reset"
    STALL = "requests come late, after they were given up"
    HOLD = "requests are kept until they are let go"


class Proxy:
    """Listens on the loopback and passes bytes on to a port, as far as `cut` lets it.

    A connection that lost bytes never heals, as in a real network; new ones are cut as `cut` says then.
    """

    def __init__(self, port: int, stall: float) -> None:
        self._target, self._stall = port, stall
        self.cut = Cut.NOTHING
        self.cuts = 0  # connections that came to harm
        self.held = threading.Event()  # a request is kept back
        self.held_at = 0.0  # when it came, by the wall clock
        self._release = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lines: list[_Line] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Let go what is kept back."""
        self._release.set()

    def close(self) -> None:
        """Take no more connections, and end those there are."""
        self._release.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()
        for line in self._lines:
            line.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                self._lines.append(_Line(self, client, server))

    def keep(self) -> None:
        """Wait until what is kept back may go on."""
        self.held_at = time.time()
        self.held.set()
        self._release.wait(60)


class _Line:
    """One connection."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.client, self.server = proxy, client, server
        self.lost = False  # bytes were lost: nothing passes any more
        self._threads = [
            threading.Thread(target=t, daemon=True) for t in (self.carry_requests, self.carry_answers)
        ]
        for thread in self._threads:
            thread.start()

    def carry_requests(self) -> None:
        """From the command to the destination."""
        self._carry(self.client, self.server, {Cut.REQUESTS, Cut.BOTH}, Cut.BODY)

    def carry_answers(self) -> None:
        """And back."""
        self._carry(self.server, self.client, {Cut.ANSWERS, Cut.BOTH}, Cut.ANSWER)

    def _carry(self, start: socket.socket, end: socket.socket, losing: set[Cut], halving: Cut) -> None:
        requests = start is self.client
        with contextlib.suppress(OSError):
            while data := start.recv(65536):
                cut = self.proxy.cut
                if cut in losing and not self.lost:
                    self.proxy.cuts += 1
                    self.lost = True
                if self.lost:
                    continue
                if cut is halving or (cut is Cut.RESET and requests):
                    self.proxy.cuts += 1
                    end.sendall(data[: len(data) // 2] if cut is halving else b"")
                    self._reset()
                    return
                if requests and cut is Cut.STALL:
                    self.proxy.cuts += 1
                    time.sleep(self.proxy._stall)
                if requests and cut is Cut.HOLD and not self.proxy.held.is_set():
                    self.proxy.cuts += 1
                    self.proxy.keep()
                end.sendall(data)
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_WR)

    def _reset(self) -> None:
        """Both sides see a reset, not an end."""
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                side.shutdown(socket.SHUT_RD)  # wakes the thread that reads it; only then is it closed
                side.close()

    def close(self) -> None:
        """End it, and the threads that carry it."""
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for side in (self.client, self.server):
            side.close()


@contextmanager
def proxied(port: int, stall: float = 1.5) -> Iterator[Proxy]:
    """A proxy in front of a port of the loopback, closed at the end."""
    proxy = Proxy(port, stall)
    try:
        yield proxy
    finally:
        proxy.close()
