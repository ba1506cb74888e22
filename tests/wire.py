"""A wire on the loopback that counts what goes over it, whatever is spoken."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Wire", "listening", "wire"]


@dataclass
class Wire:
    """Passes bytes on to the port `target`, and counts those that clients `sent` and `received`."""

    target: int
    port: int = 0
    sent: int = 0
    received: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def reset(self) -> None:
        """Count from here."""
        with self._lock:
            self.sent = self.received = 0

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.target)) as server:
            back = threading.Thread(target=self._carry, args=(server, client, "received"), daemon=True)
            back.start()
            self._carry(client, server, "sent")
            back.join()

    def _carry(self, one: socket.socket, other: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(1 << 18):
                with self._lock:  # before they are passed on: whoever has them finds them counted
                    setattr(self, name, getattr(self, name) + len(data))
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_WR)


@contextmanager
def wire(target: int) -> Iterator[Wire]:
    """A wire to a port of the loopback."""
    made = Wire(target)
    with listening(made.serve) as made.port:
        yield made


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A port of the loopback, whose connections `serve` takes in a thread until the listener is closed."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)
