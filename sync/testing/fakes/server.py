"""Serves a fake destination on the loopback."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

__all__ = ["App", "serve"]

App = Callable[[httpx.Request], httpx.Response]
"""What a fake is: also what `httpx.MockTransport` takes. Called from many threads."""

_OURS = {"content-length", "transfer-encoding", "connection"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    app: App

    def answer(self) -> None:
        """Read the request, ask the app, write its response."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = f"http://{self.headers.get('host', 'localhost')}{self.path}"
        headers = [(name, value) for name, value in self.headers.items() if name.lower() not in _OURS]
        response = type(self).app(httpx.Request(self.command, url, headers=headers, content=body))
        self.send_response(response.status_code)
        for name, value in response.headers.multi_items():
            if name.lower() not in _OURS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.content)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: paths can hold identifiers."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is not worth a traceback."""


@contextlib.contextmanager
def serve(app: App, port: int = 0) -> Iterator[str]:
    """Serve `app` from a thread, on a port of the loopback (0: a free one); yields the base URL, without a slash.

    Raises `OSError` where the port is taken.
    """
    server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"app": staticmethod(app)}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="fake destination", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
