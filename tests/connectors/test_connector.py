"""What every connector is given: requests with JSON bodies, and answers that are read or raised."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sync.errors import RequestError
from sync.sdk.connector import Config, Connector
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Outcome


class AcmeConfig(Config):
    """Where Acme is."""

    base_url: str = "https://api.acme.example"


class Acme(Connector[AcmeConfig]):
    """Does nothing by itself."""

    name = "acme"
    title = "Acme"
    config_model = AcmeConfig
    objects = {}  # noqa: RUF012

    def check(self) -> None:
        """Nothing to ask."""

    def push(self, batch: Batch) -> Outcome:
        """Nothing to send."""
        return []


@pytest.fixture
def asked() -> list[httpx.Request]:
    return []


@pytest.fixture
def acme(asked: list[httpx.Request]) -> Iterator[Acme]:
    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(404 if request.url.path == "/gone" else 200)

    config = AcmeConfig()
    with build_client(Acme, config, timeout=5, transport=httpx.MockTransport(answer)) as client:
        yield Acme(config, client)


@pytest.mark.parametrize(("body", "content"), [({"a": 2**70}, b'{"a":1180591620717411303424}'), ([], b"[]")])
def test_a_body_is_sent_as_json(acme: Acme, asked: list[httpx.Request], body: Any, content: bytes) -> None:
    acme.send("POST", "/people?all=1", body)

    assert (asked[0].method, str(asked[0].url)) == ("POST", "https://api.acme.example/people?all=1")
    assert (asked[0].headers["content-type"], asked[0].content) == ("application/json", content)


def test_a_request_without_a_body_has_no_type_of_one(acme: Acme, asked: list[httpx.Request]) -> None:
    acme.send("GET", "/people", params={"page": 2}, headers={"accept": "text/plain"})

    assert "content-type" not in asked[0].headers
    assert asked[0].url.query == b"page=2"
    assert asked[0].headers["accept"] == "text/plain"


def test_a_connector_may_say_what_kind_of_json_it_is(acme: Acme) -> None:
    request = acme.build("PATCH", "/people", {}, headers={"Content-Type": "application/vnd.api+json"})

    assert request.headers.get_list("content-type") == ["application/vnd.api+json"]


def test_a_status_that_is_expected_is_read_and_another_is_raised(acme: Acme) -> None:
    assert acme.send("GET", "/gone", expects={404}).status_code == 404
    with pytest.raises(RequestError, match="404 Not Found"):
        acme.send("GET", "/gone", expects={409})
