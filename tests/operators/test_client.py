"""What operators make of the daemon's answers, and of whatever else answers at its address."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sync.operators.client import Refused, address, read, told


def answer(status: int = 200, **content: Any) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "http://x"), **content)


@pytest.mark.parametrize(
    "other",
    [
        answer(json={"login": "please"}),
        answer(json=[]),
        answer(json="welcome"),
        answer(json={"status": "ended"}),
        answer(json={"status": "ended", "report": "all is well"}),
        answer(text="<html>welcome</html>"),
        answer(302, headers={"Location": "/login"}),
        answer(404, text="nginx"),
    ],
)
def test_what_no_daemon_says_is_refused_and_not_asked_again(other: httpx.Response) -> None:
    with pytest.raises(Refused, match="not by a daemon of headgate"):
        told(lambda: other)


def test_a_report_is_there_once_the_request_has_ended() -> None:
    assert told(lambda: answer(json={"status": "running", "report": None})) is None
    assert told(lambda: answer(json={"status": "ended", "report": {"exit_code": 0}})) == {"exit_code": 0}
    assert told(lambda: answer(503)) is None


def test_an_answer_is_read_as_far_as_it_is_needed() -> None:
    assert read(answer(202, json={"id": "api-1", "sync": "vip"}), "id") == {"id": "api-1"}


@pytest.mark.parametrize(
    ("host", "port", "scheme", "url"),
    [
        ("127.0.0.1", 8520, "http", "http://127.0.0.1:8520"),
        ("headgate.acme.example", None, "https", "https://headgate.acme.example"),
        ("https://headgate.acme.example", None, "http", "https://headgate.acme.example"),
        ("https://headgate.acme.example/", 8443, "http", "https://headgate.acme.example:8443"),
        ("http://127.0.0.1:8520", 8520, "http", "http://127.0.0.1:8520"),
    ],
)
def test_the_host_of_a_connection_may_be_a_whole_url(host: str, port: int | None, scheme: str, url: str) -> None:
    assert address(host, port, scheme) == url
