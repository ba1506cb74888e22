"""A service account and a refresh token, against a token server that checks what it is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from pydantic import SecretStr

from sync.errors import AuthError, ProtocolError, RateLimited, Unavailable
from sync.sdk.auth import RefreshToken, ServiceAccount, Token, service_account_email
from sync.testing.fakes.google import TokenServer

SCOPE = "https://www.googleapis.com/auth/spreadsheets"
URL = "https://id.acme.example/token"
App = Callable[[httpx.Request], httpx.Response]


class Api:
    """A token server, and an API that takes its tokens."""

    def __init__(self, **options: Any) -> None:
        self.tokens = TokenServer(SCOPE, **options)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            return self.tokens(request)
        return httpx.Response(200 if self.tokens.accepts(request) else 401)


def client(app: App, scheme: Token) -> httpx.Client:
    return httpx.Client(transport=httpx.MockTransport(app), auth=scheme, base_url="https://api.acme.example")


def key(**changes: Any) -> SecretStr:
    return SecretStr(json.dumps(json.loads(TokenServer(SCOPE).key(URL)) | changes))


def test_a_signed_assertion_is_given_for_a_token_that_serves_many_requests() -> None:
    api = Api()
    http = client(api, ServiceAccount(key(), scope=SCOPE))

    assert [http.get("/").status_code for _ in range(3)] == [200, 200, 200]
    assert len(api.tokens.given) == 1


def test_a_token_that_the_api_forgot_is_fetched_anew_once() -> None:
    api = Api()
    http = client(api, ServiceAccount(key(), scope=SCOPE))
    http.get("/")
    api.tokens.given = dict.fromkeys(api.tokens.given, 0.0)

    assert http.get("/").status_code == 200
    assert len(api.tokens.given) == 2


@pytest.mark.parametrize(
    ("changes", "scope", "app"),
    [
        ({"client_email": "somebody@else.example"}, SCOPE, Api()),
        ({}, "https://www.googleapis.com/auth/drive", Api()),
        ({"token_uri": "https://id.acme.example/token"}, SCOPE, Api(url="https://other.example/token")),
        ({}, SCOPE, Api(clock=lambda: 4_000_000_000.0)),
        ({}, SCOPE, Api(clock=lambda: 1_000_000_000.0)),
    ],
    ids=["another account", "another scope", "another audience", "a clock behind", "a clock ahead"],
)
def test_an_assertion_that_says_something_else_is_refused(changes: Any, scope: str, app: Api) -> None:
    with pytest.raises(AuthError, match="refused us a token") as raised:
        client(app, ServiceAccount(key(**changes), scope=scope)).get("/")

    assert "clock" in raised.value.fix


def test_a_key_of_somebody_else_is_refused() -> None:
    from cryptography.hazmat.primitives.asymmetric import rsa
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    with pytest.raises(AuthError):
        client(Api(), ServiceAccount(key(private_key=pem), scope=SCOPE)).get("/")


@pytest.mark.parametrize("text", ["", "{}", "[]", "not JSON", '{"client_email": "a@b.example"}'])
def test_what_is_not_a_key_file_is_told_without_quoting_it(text: str) -> None:
    with pytest.raises(AuthError, match="not the JSON of a key file") as raised:
        ServiceAccount(SecretStr(text), scope=SCOPE)

    assert raised.value.__cause__ is None
    assert raised.value.__context__ is None


@pytest.mark.parametrize("pem", ["", "s3cret", "-----BEGIN PRIVATE KEY-----\ns3cret\n-----END PRIVATE KEY-----\n"])
def test_a_private_key_that_is_none_is_told_without_quoting_it(pem: str) -> None:
    with pytest.raises(AuthError, match="not an RSA key in PEM") as raised:
        client(Api(), ServiceAccount(key(private_key=pem), scope=SCOPE)).get("/")

    assert "s3cret" not in raised.value.message


def test_whose_key_it_is_can_be_said() -> None:
    assert service_account_email(key()) == "headgate@fake-project.iam.gserviceaccount.com"


def test_a_refresh_token_is_given_for_a_token() -> None:
    forms: list[dict[str, list[str]]] = []

    def app(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/token":
            forms.append(parse_qs(request.read().decode()))
            return httpx.Response(200, json={"access_token": "t1", "expires_in": 3599})
        return httpx.Response(200 if request.headers["authorization"] == "Bearer t1" else 401)

    scheme = RefreshToken(URL, "client-1", SecretStr("s3cret"), SecretStr("1//refresh"))

    assert client(app, scheme).get("/").status_code == 200
    assert forms == [
        {
            "grant_type": ["refresh_token"],
            "client_id": ["client-1"],
            "client_secret": ["s3cret"],
            "refresh_token": ["1//refresh"],
        }
    ]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (httpx.Response(400, json={"error": "invalid_grant"}), AuthError),
        (httpx.Response(408), Unavailable),
        (httpx.Response(429, headers={"retry-after": "4"}), RateLimited),
        (httpx.Response(503), Unavailable),
        (httpx.Response(200, text="<html>"), ProtocolError),
    ],
)
@pytest.mark.parametrize(
    "scheme",
    [
        ServiceAccount(key(), scope=SCOPE),
        RefreshToken(URL, "client-1", SecretStr("s3cret"), SecretStr("1//refresh")),
    ],
    ids=["service account", "refresh token"],
)
def test_what_the_token_server_says_is_classified(
    scheme: Token, answer: httpx.Response, error: type[Exception]
) -> None:
    with pytest.raises(error) as raised:
        client(lambda _: answer, scheme).get("/")

    assert "s3cret" not in str(raised.value)
    assert "refresh-1" not in str(raised.value)
