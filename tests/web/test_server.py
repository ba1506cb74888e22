"""The server itself, on the loopback: who is let in, what every answer says, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI

from sync.address import Address, parse_address
from sync.engine.job import EngineSettings
from sync.errors import StateError
from sync.state.ledger import open_ledger
from sync.web import server
from sync.web.app import guarded_app, make_app
from sync.web.guard import MOST, Guard
from sync.web.server import bound, serving
from sync.web.site import Site
from tests.servers import free_port

HERE = Address("127.0.0.1", 0)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("state")
    with open_ledger(folder / "ledger.db") as ledger:
        yield Site(ledger, ledger.access, EngineSettings(folder=folder), dict, ("headgate.acme.example",))


@pytest.fixture(scope="module")
def client(site: Site) -> Iterator[httpx.Client]:
    with serving(guarded_app(site), bound(HERE)) as address, httpx.Client(base_url=f"http://{address}") as made:
        yield made


def with_echo(site: Site) -> FastAPI:
    app = make_app(site)

    @app.post("/echo")
    def echo(words: list[str]) -> int:
        return len(words)

    return app


def test_it_says_that_it_is_alive(client):
    answer = client.get("/healthz")

    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_every_answer_tells_browsers_to_do_nothing_with_it(client):
    for path in ("/healthz", "/nowhere"):
        headers = client.get(path, headers={"Origin": "https://evil.example"}).headers

        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control")]
        assert "server" not in headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("127.0.0.1:8520", 200), ("[::1]:8520", 200), ("localhost:8520", 200),
        ("10.0.0.7", 200),
        ("headgate.acme.example", 200), ("Headgate.ACME.example:443", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost.evil.example:8520", 421), ("", 421),
        ("[::1].evil.example", 200),
    ],
)  # fmt: skip
def test_only_its_own_names_are_answered_to(client, host, status):
    answer = client.get("/healthz", headers={"Host": host})

    assert answer.status_code == status
    if status == 421:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "HG810"


def test_there_is_no_page_that_loads_scripts_from_elsewhere(client):
    assert client.get("/docs").status_code == client.get("/redoc").status_code == 404


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("POST", "/healthz", 405)])
def test_what_is_not_there_is_a_problem_document(client, method, path, status):
    answer = client.request(method, path)

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "HG806"
    assert answer.json()["status"] == status


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/echo", "/nowhere"])
def test_a_body_that_is_too_large_is_not_read_to_its_end(site, path, announced):
    app, sent = with_echo(site), [0]

    def pieces() -> Iterator[bytes]:
        for _ in range(4000):
            sent[0] += 1
            yield b"[" * 16_384

    with serving(Guard(app), bound(HERE)) as address, httpx.Client(base_url=f"http://{address}") as client:
        try:
            status = client.post(path, content=b"[" * (MOST + 1) if announced else pieces()).status_code
        except httpx.TransportError:  # it may cut the rest off before its answer is read
            status = 413

    assert sent[0] < 4000
    assert status == (404 if path == "/nowhere" and not announced else 413)


def test_a_bug_tells_nothing_of_itself_but_its_name(site, capfd):
    app = make_app(site)

    @app.get("/bug")
    def bug() -> None:
        raise KeyError("person1@mail.example")

    with serving(Guard(app), bound(HERE)) as address:
        answer = httpx.get(f"http://{address}/bug")

    assert answer.status_code == 500
    assert answer.json()["code"] == "HG900"
    assert "person1" not in answer.text + "".join(capfd.readouterr())


def test_a_client_that_never_asks_is_let_go(site, monkeypatch):
    monkeypatch.setattr(server, "_HEAD_WITHIN", 0.2)
    with (
        serving(guarded_app(site), bound(HERE)) as address,
        socket.create_connection((address.host, address.port)) as one,
    ):
        one.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        one.settimeout(10)

        assert one.recv(100) == b""


def test_a_client_that_never_ends_its_body_is_let_go(site):
    with (
        serving(Guard(with_echo(site), patience=0.2), bound(HERE)) as address,
        socket.create_connection((address.host, address.port)) as one,
    ):
        one.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n[")
        one.settimeout(10)

        assert one.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_an_answer_under_way_is_finished_before_it_ends(site):
    app, asked, go = make_app(site), threading.Event(), threading.Event()

    @app.get("/slow")
    def slow() -> str:
        asked.set()
        go.wait(10)
        return "done"

    got: list[httpx.Response] = []
    with serving(Guard(app), bound(HERE)) as address:
        caller = threading.Thread(target=lambda: got.append(httpx.get(f"http://{address}/slow", timeout=20)))
        caller.start()
        assert asked.wait(10)
        threading.Timer(0.3, go.set).start()
    caller.join(10)

    assert got[0].json() == "done"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{address}/healthz")


def test_a_port_that_somebody_has_is_a_clear_error():
    with bound(HERE) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(StateError, match=f"cannot listen on 127.0.0.1:{port}: another process") as caught:
            bound(Address("127.0.0.1", port))

    assert caught.value.code == "HG801"


def test_an_address_of_another_machine_is_a_clear_error():
    with pytest.raises(StateError, match=r"cannot listen on 192\.0\.2\.1") as caught:
        bound(Address("192.0.2.1", free_port()))

    assert caught.value.code == "HG801"


@pytest.mark.parametrize(
    "text",
    ["", ":8520", "8520", "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "::1:8520", "a b:1", "[x]:1", "*:80"],
)
def test_an_address_without_a_host_is_refused(text):
    with pytest.raises(ValueError, match=r"127\.0\.0\.1:8520"):
        parse_address(text)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("127.0.0.1:8520", True), ("[::1]:1", True), ("LOCALHOST:80", True), ("0.0.0.0:80", False),
     ("[::]:80", False), ("db.acme.example:80", False), ("127.0.0.1.evil.example:80", False)],
)  # fmt: skip
def test_it_is_known_whether_others_can_reach_an_address(text, loopback):
    assert parse_address(text).loopback is loopback
