"""A destination on the loopback that speaks the webhook protocol, remembers everything, and misbehaves on order.

It runs on a thread of its own. Every request is written to a JSON Lines file, and flushed, before it is answered:
what was asked, under which key, what was applied, what was answered.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tests.acceptance.faults import Answer, Fault, Request, Then

_REASONS = {200: "OK", 207: "Multi-Status", 422: "Unprocessable Content", 429: "Too Many Requests"}
_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST


@dataclass(frozen=True)
class Entry:
    """One line of the record: a request and what was done about it."""

    number: int  # from 1, in order of arrival
    time: float
    key: str
    op: str
    size: int  # records
    applied: int
    status: int  # 0: no answer was given
    records: tuple[dict[str, Any], ...] = ()  # empty where the sink keeps counts only

    @property
    def ids(self) -> list[Any]:
        """Whom it was about."""
        return [r["user_id"] for r in self.records]


@dataclass
class Sink:
    """The destination. `members` is its state; `requests` reads the record back from the file."""

    log: Path
    faults: tuple[Fault, ...] = ()
    latency: float = 0.0  # seconds before each answer
    counts_only: bool = False  # keep no records: neither in the file nor in `members`
    members: dict[Any, dict[str, Any]] = field(default_factory=dict)
    port: int = 0
    count: int = 0  # requests that carried records
    records_seen: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    headers: dict[str, str] = field(default_factory=dict)  # of the latest request

    def start(self) -> None:
        """Listen; returns when requests are taken."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="sink", daemon=True)
        self._thread.start()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        self._file = self.log.open("ab")
        self.up()

    def begin(self, log: Path, members: dict[Any, dict[str, Any]] | None = None) -> None:
        """Begin a new record on the same port: well-behaved, and with these members."""
        self.down()
        self._file.close()
        self.log, self.members = log, dict(members or {})
        self.faults, self.latency, self.headers = (), 0.0, {}
        self.count = self.records_seen = self.in_flight = self.most_in_flight = 0
        self._file = self.log.open("ab")
        self.up()

    def up(self) -> None:
        """Take connections (again, on the same port)."""
        if self._server is None:
            self._call(self._listen())

    def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        self._call(self._unlisten())

    def stop(self) -> None:
        """End the thread and close the record."""
        self.down()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._file.close()

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.port}/records"

    @property
    def requests(self) -> list[Entry]:
        """Every request so far, as recorded."""
        with self.log.open("rb") as lines:
            return [Entry(**{**(line := orjson.loads(raw)), "records": tuple(line["records"])}) for raw in lines]

    def since(self, number: int) -> list[Entry]:
        """The requests after the first `number`."""
        return self.requests[number:]

    def handle(self, request: Request) -> Answer:
        """Decide, apply, record."""
        answer = next((a for fault in self.faults if (a := fault(request)) is not None), Answer())
        applied = self._apply(request, answer)
        status = 0 if answer.then is Then.RESET else answer.status
        line = {
            "number": request.number, "time": time.time(), "key": request.key, "op": request.op,
            "size": len(request.records), "applied": applied, "status": status,
            "records": [] if self.counts_only else request.records,
        }  # fmt: skip
        self._file.write(orjson.dumps(line) + b"\n")
        self._file.flush()
        return answer

    def _apply(self, request: Request, answer: Answer) -> int:
        chosen = [r for i, r in enumerate(request.records) if answer.applies(i)]
        self.records_seen += len(request.records)
        if self.counts_only:
            return len(chosen)
        for record in chosen:
            if request.op == "remove":
                self.members.pop(record["user_id"], None)
            else:
                self.members[record["user_id"]] = record
        return len(chosen)

    def _call(self, work: Any) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await self._loop.create_server(
            lambda: _Connection(self), "127.0.0.1", self.port, reuse_address=True, backlog=256
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self._connections):
            connection.reset()


class _Connection(asyncio.Protocol):
    """One kept-alive connection: HTTP/1.1, one request at a time, bodies with a length."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.loop = asyncio.get_running_loop()
        self.buffer = bytearray()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.sink._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.sink._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        method, headers = _head(bytes(self.buffer[:end]))
        length = int(headers.get("content-length", "0"))
        if len(self.buffer) < end + 4 + length:
            return
        body = bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        if method == "POST":
            self._post(headers, body)
        else:
            self._send(Answer(status=204, body=b""))

    def _post(self, headers: dict[str, str], body: bytes) -> None:
        sink = self.sink
        sink.count += 1
        sink.in_flight += 1
        sink.most_in_flight = max(sink.most_in_flight, sink.in_flight)
        sink.headers = headers
        parsed = orjson.loads(body)
        request = Request(sink.count, headers.get("idempotency-key", ""), parsed["op"], parsed["records"], body)
        answer = sink.handle(request)
        self.loop.call_later(sink.latency + answer.delay, self._answer, answer)

    def _answer(self, answer: Answer) -> None:
        self.sink.in_flight -= 1
        if self.transport.is_closing():
            return
        if answer.then is Then.RESET:
            self.reset()
        elif answer.then is Then.HALF:
            self._send(answer, cut=max(1, len(answer.body) // 2))
            self.transport.close()
        elif answer.then is Then.DRIP:
            self._drip(_encode(answer))
        else:
            self._send(answer)

    def _send(self, answer: Answer, cut: int | None = None) -> None:
        whole = _encode(answer)
        self.transport.write(whole if cut is None else whole[:-cut])

    def _drip(self, rest: bytes) -> None:
        if rest and not self.transport.is_closing():
            self.transport.write(rest[:1])
            self.loop.call_later(0.2, self._drip, rest[1:])

    def reset(self) -> None:
        """Cut the connection so that the other side sees a reset, not an end."""
        handle = self.transport.get_extra_info("socket")
        if handle is not None:
            handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


def _head(raw: bytes) -> tuple[str, dict[str, str]]:
    first, *rest = raw.decode("latin-1").split("\r\n")
    pairs = (line.split(":", 1) for line in rest)
    return first.split(" ", 1)[0], {name.strip().lower(): value.strip() for name, value in pairs}


def _encode(answer: Answer) -> bytes:
    lines = [f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Status')}"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    lines += [f"Content-Type: {answer.content_type}", f"Content-Length: {len(answer.body)}", "", ""]
    return "\r\n".join(lines).encode() + answer.body


@contextmanager
def running(log: Path, faults: Iterable[Fault] = (), **settings: Any) -> Iterator[Sink]:
    """A started sink, stopped at the end."""
    sink = Sink(log, tuple(faults), **settings)
    sink.start()
    try:
        yield sink
    finally:
        sink.stop()
