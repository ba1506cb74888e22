"""A webhook on the loopback that keeps the bodies it was sent, byte for byte, and takes everything."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

__all__ = ["Hook", "hooked"]


class Hook:
    """What was sent, and where to send it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.answers: list[bytes] = []  # used up, one a request; then an empty object
        self.url = ""

    def records(self) -> list[dict[str, Any]]:
        """Every record, numbers with a fraction as `Decimal`, so that no digit is lost in reading."""
        return [r for body in self.bodies for r in json.loads(body, parse_float=Decimal)["records"]]

    def forget(self) -> None:
        """Forget what was sent."""
        self.bodies.clear()


@contextmanager
def hooked() -> Iterator[Hook]:
    """A hook that listens."""
    hook = Hook()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            hook.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            answer = hook.answers.pop(0) if hook.answers else b"{}"
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    hook.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield hook
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
