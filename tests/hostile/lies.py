"""The lies: each is what a destination does with one request instead of answering honestly.

`believed` are the stands whose platform documents just this answer as success, so that to believe it is right;
`"*"` is every stand. All other lies must leave every record of the request unapplied in our books. `partly` lies
leave only some of the records out. A `refusal` is taken at its word: nothing was applied.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.hostile.server import Lie, Peer

HUBSPOT = frozenset({"hubspot contact", "hubspot list_member"})
WEBHOOK, CUSTOMERIO = "webhook record", "customerio segment_member"
COUNTS = frozenset({"meta audience_user", "pinterest customer_list_member"})  # at most numbers, and no names
DESK = "thetradedesk segment_member"
JOBS = frozenset({"klaviyo list_member", "klaviyo profile"})  # a push is answered with the number of a job
EVERYBODY = frozenset({"*"})
_ELSEWHERE = "http://elsewhere.example:9/away"
_LOGIN = "<!doctype html><html><body><form action=/login>Welcome back, please log in</form></body></html>"


@dataclass(frozen=True)
class Told:
    """A lie with its name. `slow` ones go on until the time of the request is over."""

    name: str
    lie: Lie
    believed: frozenset[str] = frozenset()
    slow: bool = False
    partly: bool = False
    refusal: bool = False
    bent: bool = False  # made of the honest answer
    answered: bool = False  # it is an answer with a 2xx: the engine does not stop at it


# --- the wire -------------------------------------------------------------------------------------------------

_JSON = "Content-Type: application/json"


def _then(data: bytes, *, reset: bool = False) -> Lie:
    """These bytes, and the connection is over."""

    def lie(peer: Peer) -> None:
        peer.send(data)
        peer.hang_up(reset=reset)

    return lie


def _says(status: int | str, body: bytes | str = b"", *headers: str) -> Lie:
    return lambda peer: peer.answer(status, body, *headers)


def _half(peer: Peer) -> None:
    """The honest answer, cut in its middle, with its true length."""
    body = peer.honest.content
    peer.send(
        f"HTTP/1.1 200 OK\r\n{_JSON}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2]
    )
    peer.hang_up()


def _half_chunked(peer: Peer) -> None:
    body = peer.honest.content
    half = body[: len(body) // 2] or b" "
    head = f"HTTP/1.1 200 OK\r\n{_JSON}\r\nTransfer-Encoding: chunked\r\n\r\n{len(half):x}\r\n".encode()
    peer.send(head + half + b"\r\n")
    peer.hang_up()


def _half_packed(peer: Peer) -> None:
    """So little of it that nothing can be unpacked."""
    packed = gzip.compress(peer.honest.content)
    peer.answer(200, packed[:10], _JSON, "Content-Encoding: gzip")


def _endless(head: str, part: bytes) -> Lie:
    def lie(peer: Peer) -> None:
        peer.send(head.encode())
        peer.endless(part)

    return lie


def _dripping(head: str, part: bytes) -> Lie:
    def lie(peer: Peer) -> None:
        peer.send(head.encode())
        peer.drip(part)

    return lie


@cache
def _bomb() -> bytes:
    return gzip.compress(b" " * 17 * 1024 * 1024, 1)


@cache
def _double_bomb() -> bytes:
    return gzip.compress(gzip.compress(b" " * 64 * 1024 * 1024, 1), 9)


_OK = "HTTP/1.1 200 OK\r\n"
_CHUNKED = f"{_OK}{_JSON}\r\nTransfer-Encoding: chunked\r\n\r\n"

_WIRE: dict[str, Lie] = {
    "resets the connection": lambda peer: peer.hang_up(reset=True),
    "closes the connection without a word": lambda peer: peer.hang_up(),
    "says half a status line": _then(b"HTTP/1.1 20"),
    "says half its headers": _then(b"HTTP/1.1 200 OK\r\nContent-Len"),
    "ends after its headers": _then(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"),
    "says half a body": _half,
    "says half a body in chunks": _half_chunked,
    "says half a packed body": _half_packed,
    "resets in the middle of a body": _then(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"errors', reset=True),
    "speaks no HTTP": _then(b"220 mail.acme.example ESMTP ready\r\n"),
    "speaks TLS": _then(b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + b"\x00" * 100),
    "speaks HTTP/2": _then(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00" + b"\x00" * 18),
    "speaks HTTP/0.9": _then(b"{}"),
    "switches protocols": _says("101 Switching Protocols", b"", "Upgrade: websocket", "Connection: Upgrade"),
    "gives a length below zero": _then(b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}"),
    "gives two lengths": _then(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} "),
    "gives a length that is no number": _then(b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\n{}"),
    "gives a length too large": _then(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"),
    "gives a chunk that is no chunk": _then(f"{_CHUNKED}xyz\r\n{{}}\r\n0\r\n\r\n".encode()),
    "gives a chunk without end": _then(f"{_CHUNKED}ffffffffffffffff\r\n{{}}".encode()),
    "gives a status that is no number": _then(b"HTTP/1.1 OK OK\r\nContent-Length: 2\r\n\r\n{}"),
    "gives a status of four digits": _then(b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "gives a status below 100": _then(b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\n{}"),
    "has NUL in a header": _then(b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}"),
    "has a header without a colon": _then(b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\n{}"),
    "has a header of 300 KB": _says(200, "{}", "X-Huge: " + "x" * 300_000),
    "has 40,000 headers": _says(200, "{}", *[f"X-{n}: {n}" for n in range(40_000)]),
    "is a bomb": lambda peer: peer.answer(200, _bomb(), "Content-Encoding: gzip"),
    "is a bomb within a bomb": lambda peer: peer.answer(200, _double_bomb(), "Content-Encoding: gzip, gzip"),
    "has a body without end": _endless(f"{_OK}Content-Length: 99999999999\r\n\r\n", b" " * 262_144),
    "has chunks without end": _endless(_CHUNKED, b"10000\r\n" + b" " * 65_536 + b"\r\n"),
    "has headers without end": _endless(_OK, b"X-More: and more\r\n" * 1000),
}

_SLOW: dict[str, Lie] = {
    "never answers": lambda peer: peer.silence(),
    "drips its headers": _dripping(_OK, b"X-Slow: yes\r\n"),
    "drips its body": _dripping(f"{_OK}Content-Length: 100000\r\n\r\n", b"{"),
    "floods with 1xx": _endless("", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" * 50),
    "packs nothing for ever": _dripping(
        f"{_OK}Content-Encoding: gzip\r\nConnection: close\r\n\r\n", gzip.compress(b"")
    ),
}

# --- statuses -------------------------------------------------------------------------------------------------

_STATUSES = (
    300, 304, 305, 400, 402, 404, 405, 407, 409, 410, 413, 415, 418, 421, 422, 423, 425, 426, 431, 451, 499,
    500, 501, 503, 507, 511, 520, 599, 600, 999,
)  # fmt: skip

_REDIRECTS = {
    "to another host": (302, _ELSEWHERE),
    "to another host, with the body": (307, _ELSEWHERE),
    "to itself": (308, "/"),
    "to a file": (301, "file:///etc/passwd"),
    "to the metadata of a cloud": (303, "http://169.254.169.254/latest/meta-data/"),
    "to no address": (302, "http://[::1"),
}

_WAITS = ("-5", "315360000", "soon", "Thu, 01 Jan 1970 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "1e400", "")


def _statuses() -> Iterator[Told]:
    for status in _STATUSES:
        said = _says(f"{status} No", '{"message": "no", "errors": []}', _JSON)
        yield Told(f"answers {status}", said, refusal=400 <= status < 500 and status != 425)
    for status in (401, 403):
        yield Told(f"answers {status}", _says(f"{status} No", "no"), refusal=True)
    for where, (status, location) in _REDIRECTS.items():
        yield Told(f"redirects {where}", _says(f"{status} Over there", "{}", f"Location: {location}"))
    for wish in _WAITS:
        said = _says("429 Slow down", "{}", f"Retry-After: {wish}")
        yield Told(f"answers 429 and asks to wait '{wish}'", said, refusal=True)
    yield Told("answers 503 and asks to wait ten years", _says("503 No", "{}", "Retry-After: 315360000"))


# --- a 200 that says nothing ----------------------------------------------------------------------------------


def _nested(open: str, close: str, depth: int) -> str:
    return open * depth + close * depth


_NONSENSE: dict[str, bytes | str] = {
    "a login page": _LOGIN,
    "[]": "[]",
    "null": "null",
    "true": "true",
    "a number": "42",
    "a text": "OK, thank you",
    "NaN": "NaN",
    "Infinity for errors": '{"errors": Infinity, "status": "COMPLETE"}',
    "a number without end": '{"errors": ' + "9" * 20_000 + "}",
    "a huge exponent": '{"errors": 1e999999, "results": 1e999999}',
    "invalid UTF-8": b'{"errors": null, "x": "\xff\xfe"}',
    "a lone surrogate": '{"errors": null, "x": "\\ud800"}',
    "UTF-16": '{"errors": null}'.encode("utf-16"),
    "deeply nested lists": _nested("[", "]", 100_000),
    "deeply nested objects": _nested('{"a":', "}", 50_000),
    "lists nested in the errors": '{"errors": ' + _nested("[", "]", 900) + "}",
    "lists nested in the results": '{"status": "COMPLETE", "results": '
    + _nested("[", "]", 900)
    + ', "errors": 1}',
    "cut JSON": '{"errors": [null, null',
    "two documents": '{"errors": null}{"errors": null}',
    "JSONP": 'callback({"errors": null})',
    "XML": "<response><status>ok</status></response>",
    "success: false": '{"success": false}',
    "an error": '{"error": {"code": 17, "message": "not today"}, "status": "error"}',
    "errors of one record": '{"errors": [{"message": "no"}], "results": [], "status": "COMPLETE", "numErrors": 1}',
    "errors that are none": '{"errors": [0, false, ""], "results": "COMPLETE", "status": 200}',
}


def _nonsense() -> Iterator[Told]:
    for name, body in _NONSENSE.items():
        yield Told(f"answers 200 with {name}", _says(200, body, _JSON), answered=True)
    yield Told("answers 200 with nothing", _says(200), frozenset({WEBHOOK}))
    yield Told("answers 200 with {}", _says(200, "{}", _JSON), frozenset({WEBHOOK, CUSTOMERIO, DESK}))
    yield Told("answers 206 with a part", _says(206, _LOGIN[:20], "Content-Range: bytes 0-19/900"))
    yield Told("answers 207 with nothing", _says(207, "", _JSON))
    brotli = _says(200, b"\x0b\x02\x80{}\x03", _JSON, "Content-Encoding: br")
    yield Told("answers in an encoding that was not asked for", brotli)
    for charset in ("utf-16", "zlib", "no-such-charset", "idna"):
        said = _says(200, _LOGIN, f"Content-Type: text/html; charset={charset}")
        yield Told(f"answers with a login page in {charset}", said)
    yield Told("answers 204 with a body", _says("204 No Content", "{}"), frozenset({WEBHOOK, CUSTOMERIO}))


# --- an honest answer, bent -----------------------------------------------------------------------------------


def _bent(bend: Callable[[Any], Any]) -> Lie:
    """The honest answer's JSON, changed."""

    def lie(peer: Peer) -> None:
        honest = peer.honest
        if not honest.content:  # a 204: there is nothing to bend
            peer.straight = True
            peer.be_honest()
            return
        said = json.loads(honest.content)
        bent = bend(said)
        peer.straight = bent == said
        peer.answer(honest.status_code, json.dumps(bent), _JSON)

    return lie


def _lists(value: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    """Every list of entries in a document, changed."""
    if isinstance(value, dict):
        return {k: _lists(v, change) for k, v in value.items()}
    return change(value) if isinstance(value, list) else value


def _stranger(entry: Any) -> Any:
    """The entry, about somebody who was never sent."""
    if isinstance(entry, str):
        return f"9{entry}9"
    if not isinstance(entry, dict):
        return entry
    return {k: f"stranger-{v}" if isinstance(v, str) else _stranger(v) for k, v in entry.items()}


def _contradicted(answer: Any) -> Any:
    """Everything that was done is refused as well, and what was moved is missing, too."""
    if isinstance(answer, list):  # a result a record
        return [one | {"errors": [{"message": "no"}]} if isinstance(one, dict) else one for one in answer]
    if not isinstance(answer, dict):
        return answer
    if "recordIdsMissing" in answer:
        every = [*answer["recordsIdsAdded"], *answer["recordIdsRemoved"]]
        return answer | dict.fromkeys(answer, every or ["0"])
    if isinstance(answer.get("results"), list):
        traces = [r.get("objectWriteTraceId") for r in answer["results"] if isinstance(r, dict)]
        problem = {"category": "VALIDATION_ERROR", "message": "no", "context": {"objectWriteTraceId": traces}}
        return answer | {
            "errors": [problem],
            "results": [_other(r) for r in answer["results"]] + answer["results"],
        }
    return answer | {"errors": [{"message": "no"}, *answer.get("errors", [])], "success": False}


def _other(entry: Any) -> Any:
    """The same record under another id."""
    return entry | {"id": f"8{entry['id']}"} if isinstance(entry, dict) and "id" in entry else entry


def _bent_ones() -> Iterator[Told]:
    # Their answers name nobody, or only those who were refused: there is nothing to bend.
    plain = COUNTS | JOBS | {CUSTOMERIO, DESK}
    no_names = plain | {WEBHOOK}  # an answer that names nobody
    in_order = no_names | {"salesforce contact", "salesforce lead"}  # results are told apart by their places alone
    removed = {"attio list_entry"}  # whoever has no entry in a list has left it
    more = plain | HUBSPOT | removed | {"attio company", "attio person"}  # a value told twice is no other value
    every = {
        "leaves one record out": (_bent(lambda a: _lists(a, lambda e: e[:-1])), plain | removed),
        "tells of one record more": (_bent(lambda a: _lists(a, lambda e: [*e, *e[-1:]])), more),
        "tells of people who were never sent": (
            _bent(lambda a: _lists(a, lambda e: [*map(_stranger, e)])),
            no_names,
        ),
        "contradicts itself": (_bent(_contradicted), plain),
        "tells of no record": (_bent(lambda a: _lists(a, lambda _: [])), no_names | removed),
        "answers for another batch": (_another, in_order),
    }
    for name, (lie, believed) in every.items():
        yield Told(name, lie, believed, partly=name == "leaves one record out", bent=True, answered=True)


def _another(peer: Peer) -> None:
    """What it said of an earlier batch, this one being applied."""
    honest = peer.honest
    said = peer.earlier[0].content if peer.earlier else b'{"status": "COMPLETE", "results": []}'
    peer.straight = said == honest.content
    peer.answer(200, said, _JSON)


# --- an honest answer, with noise -----------------------------------------------------------------------------


def _noisy() -> Iterator[Told]:
    cookies = [f"Set-Cookie: session{n}=canary-cookie-{n}; Path=/; Max-Age=999999" for n in range(50)]
    noise: dict[str, tuple[str, ...]] = {
        "gives cookies": tuple(cookies),
        "has 2,000 headers": tuple(f"X-{n}: {n}" for n in range(2000)),
        "has a header of 60 KB": ("X-Huge: " + "x" * 60_000,),
        "names a wrong charset": ("Content-Type: application/json; charset=utf-16",),
        "points elsewhere": (f"Link: <{_ELSEWHERE}>; rel=next", f"Refresh: 0;url={_ELSEWHERE}"),
    }
    for name, headers in noise.items():
        yield Told(name, lambda peer, h=headers: peer.be_honest(*h), EVERYBODY)  # type: ignore[misc]

    def hints(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n" + b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 20)
        peer.be_honest()

    yield Told("says 1xx first", hints, EVERYBODY)

    def twice(peer: Peer) -> None:
        peer.be_honest()
        peer.be_honest()

    yield Told("answers twice", twice, EVERYBODY)


# --- an answer that quotes ------------------------------------------------------------------------------------


def _quoting(status: int) -> Lie:
    """Everything it was sent, in the body, the headers and the phrase; with what a terminal would obey."""

    def lie(peer: Peer) -> None:
        said = peer.raw.decode("utf-8", "replace")
        line = said.replace("\r", " ").replace("\n", " ")
        words = f"\x1b]0;{said}\x07\x1b[2J{said}"
        entry = {"message": words, "id": words, "context": {"objectWriteTraceId": [words]}}
        body = {"message": words, "error": words, "errors": [entry] * 3, "status": "error", "results": [entry]}
        peer.answer(
            f"{status} {line[:200]}", json.dumps(body), _JSON, f"X-Echo: {line}", f"Location: /{line[:90]}"
        )

    return lie


def _quoting_ones() -> Iterator[Told]:
    for status in (200, 207, 302, 400, 401, 422, 429, 500):
        refusal = status < 300 or 400 <= status < 500
        yield Told(f"quotes the request in a {status}", _quoting(status), refusal=refusal)


# --- all of them ----------------------------------------------------------------------------------------------


def _all() -> Iterator[Told]:
    for name, lie in _WIRE.items():
        yield Told(name, lie)
    for name, lie in _SLOW.items():
        yield Told(name, lie, slow=True)
    yield from _statuses()
    yield from _nonsense()
    yield from _bent_ones()
    yield from _noisy()
    yield from _quoting_ones()


LIES: dict[str, Told] = {told.name: told for told in _all()}
