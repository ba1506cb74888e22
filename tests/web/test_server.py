"""The server itself, on the loopback: who is let in, what every answer says, and how it ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import httpx
import pytest
from fastapi import FastAPI

from sync.address import Address, parse_address
from sync.engine.job import EngineSettings
from sync.errors import StateError
from sync.secrets import SecretError
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


def test_a_body_that_comes_in_drips_has_no_more_time_than_another(site):
    with (
        serving(Guard(with_echo(site), patience=0.3), bound(HERE)) as address,
        socket.create_connection((address.host, address.port)) as one,
    ):
        one.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n[")
        one.settimeout(0.05)
        answer = b""
        for _ in range(200):
            try:
                answer = one.recv(1000)
                break
            except TimeoutError:
                one.sendall(b" ")

        assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("token", ["", f"Authorization: Bearer hg_{'0' * 8}_{'x' * 43}\r\n"])
def test_no_word_of_whoever_has_no_token_is_waited_for(client, token):
    with socket.create_connection((client.base_url.host, client.base_url.port)) as one:
        head = f"POST /api/v1/syncs/vip/runs HTTP/1.1\r\nHost: localhost\r\n{token}Content-Length: 500\r\n"
        one.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode())
        one.settimeout(5)

        assert one.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_one_address_leaves_room_for_others_and_health_is_always_told(site):
    app, asked, go = make_app(site), threading.Semaphore(0), threading.Event()

    @app.get("/slow")
    def slow() -> None:
        asked.release()
        go.wait(20)

    def occupied(address: Address, source: str) -> socket.socket:
        one = socket.create_connection((address.host, address.port), source_address=(source, 0))
        one.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert asked.acquire(timeout=10)
        return one

    with serving(Guard(app, at_a_time=4), bound(HERE)) as address, ExitStack() as ends:
        ends.callback(go.set)
        client = ends.enter_context(httpx.Client(base_url=f"http://{address}", timeout=10))
        for _ in range(2):
            ends.enter_context(occupied(address, "127.0.0.1"))
        full = client.get("/nowhere")
        for _ in range(2):
            ends.enter_context(occupied(address, "127.0.0.2"))

        assert (full.status_code, full.json()["code"]) == (503, "HG815")
        assert full.headers["content-type"] == "application/problem+json"
        assert client.get("/healthz").status_code == 200


def test_connections_of_one_address_that_say_nothing_leave_room_for_others(site, monkeypatch):
    monkeypatch.setattr(server, "_CONNECTIONS", 4)
    with serving(guarded_app(site), bound(HERE)) as address, ExitStack() as ends:
        for _ in range(3):
            one = ends.enter_context(socket.create_connection((address.host, address.port)))
        one.settimeout(5)
        assert one.recv(1) == b""
        transport = httpx.HTTPTransport(local_address="127.0.0.2")
        client = ends.enter_context(httpx.Client(base_url=f"http://{address}", transport=transport))

        assert client.get("/healthz").status_code == 200


def test_health_is_told_while_every_thread_is_taken(site):
    app, asked, go = make_app(site), threading.Semaphore(0), threading.Event()

    @app.get("/slow")
    def slow() -> None:
        asked.release()
        go.wait(20)

    with serving(Guard(app, at_a_time=200), bound(HERE)) as address, ExitStack() as ends:
        ends.callback(go.set)
        for _ in range(45):
            one = ends.enter_context(socket.create_connection((address.host, address.port)))
            one.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\n\r\n")
        for _ in range(40):
            assert asked.acquire(timeout=10)

        assert httpx.get(f"http://{address}/healthz", timeout=10).status_code == 200


def test_a_webhook_whose_secret_is_gone_tells_strangers_nothing_and_the_log_seldom(site, capfd):
    def hear(*_: object) -> tuple[int, str, tuple[str, ...]]:
        raise SecretError("there is no file:secrets/acme/dbt")

    answers, log = told_by_webhook(replace(site, hear=hear), capfd)

    assert [a.status_code for a in answers[:20]] == [503] * 20
    assert answers[-1].status_code == 429
    assert "secret" not in "".join(a.text for a in answers)
    assert log.count("webhook_deaf") == log.count("file:secrets/acme/dbt") == 20


def test_events_that_are_not_signed_do_not_fill_the_log(site, capfd):
    answers, log = told_by_webhook(replace(site, hear=lambda *_: (401, "not signed", ())), capfd)

    assert [(a.status_code, a.json()["code"]) for a in answers] == [(401, "HG814")] * 20 + [(429, "HG809")] * 5
    assert log.count("webhook_refused") == 20


def told_by_webhook(site: Site, capfd: pytest.CaptureFixture[str]) -> tuple[list[httpx.Response], str]:
    """Answers to 25 events from one address, and what the log has of them."""
    with serving(guarded_app(site), bound(HERE)) as address, httpx.Client(base_url=f"http://{address}") as client:
        answers = [client.post("/webhooks/cloud", content=b"{}") for _ in range(25)]
    return answers, "".join(capfd.readouterr())


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
