"""A wire on the loopback that a test can cut at a byte it chooses."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.wire import listening

__all__ = ["Cutter", "cutter", "silent"]


@dataclass
class Cutter:
    """Passes bytes on to `target` until `when`, given all bytes a client has sent so far, says to cut.

    The piece that made it say so is still passed on where `deliver`; no answer to it ever is.
    """

    target: int
    when: Callable[[bytes], bool]
    deliver: bool = False
    cut: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        """Take connections until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                for carry in (self._forth, self._back):
                    threading.Thread(target=carry, args=(client, server), daemon=True).start()

    def _forth(self, client: socket.socket, server: socket.socket) -> None:
        seen = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                seen += data
                if not self.cut.is_set() and self.when(seen):
                    self.cut.set()
                    if self.deliver:
                        server.sendall(data)
                        server.recv(65536)  # it has answered; nobody hears it
                    client.shutdown(socket.SHUT_RDWR)
                    break
                server.sendall(data)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        client.close()
        server.close()

    def _back(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not self.cut.is_set():
                server.settimeout(0.05)
                try:
                    data = server.recv(65536, socket.MSG_PEEK)
                except TimeoutError:
                    continue
                if self.cut.is_set():
                    return
                if not data:
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(server.recv(len(data)))


@contextmanager
def cutter(target: int, when: Callable[[bytes], bool], *, deliver: bool = False) -> Iterator[Cutter]:
    """A wire to a port of the loopback."""
    made = Cutter(target, when, deliver)
    with listening(made.serve) as made.port:
        yield made


@contextmanager
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield int(listener.getsockname()[1])
