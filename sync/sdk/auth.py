"""How requests are authenticated: what `Connector.auth` returns.

Each is an `httpx.Auth`: it signs a request as it is sent, so a dry run's preview holds no credentials.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import httpx
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError
from pydantic import Field as Option

from sync.errors import AuthError, ProtocolError, RateLimited, Unavailable
from sync.logging import register_secret
from sync.sdk.http import retry_after
from sync.sdk.values import dumps, json_object
from sync.sdk.wire import host_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

__all__ = [
    "Basic",
    "Bearer",
    "Chain",
    "ClientCredentials",
    "Header",
    "HmacSignature",
    "RefreshToken",
    "ServiceAccount",
    "Token",
    "account_of",
    "header_value",
    "service_account_email",
]

Flow = Generator[httpx.Request, httpx.Response, None]

_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")  # what a header can carry (RFC 6750, section 2.1, and some)
_LONGEST = 86400.0  # seconds a token is believed to live
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def account_of(base_url: str, *credentials: SecretStr) -> str:
    """Whose quota requests with these credentials count against, where nothing but the credentials tells: the
    address and a digest of them."""
    whole = "\n".join(credential.get_secret_value() for credential in credentials)
    return f"{base_url}#{hashlib.sha256(whole.encode()).hexdigest()[:12]}"


def header_value(text: str) -> bool:
    """Can a header hold this: printable ASCII (RFC 9110, section 5.5, without what httpx does not encode)."""
    return bool(text) and text.isascii() and text.isprintable()


class Header(httpx.Auth):
    """A secret in a header of its own: `Header("Api-Key", key)`; `prefix` stands before it.

    Raises `AuthError` for a secret that no header can hold, one with a line break for example.
    """

    def __init__(self, name: str, secret: SecretStr, prefix: str = "") -> None:
        if not header_value(secret.get_secret_value()):
            raise AuthError(
                f"the secret for the header `{name}` cannot stand in a header",
                fix="it is empty, or has line breaks or characters beyond ASCII: was it pasted whole?",
            )
        self._name = name
        self._secret = secret
        self._prefix = prefix

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Set the header."""
        request.headers[self._name] = self._prefix + self._secret.get_secret_value()
        yield request


class Bearer(Header):
    """`Authorization: Bearer TOKEN` (RFC 6750, section 2.1)."""

    def __init__(self, token: SecretStr) -> None:
        super().__init__("Authorization", token, "Bearer ")


class Basic(httpx.Auth):
    """`Authorization: Basic ...` (RFC 7617)."""

    def __init__(self, user: str, password: SecretStr) -> None:
        self._basic = httpx.BasicAuth(user, password.get_secret_value())
        pair = f"{user}:{password.get_secret_value()}".encode()
        register_secret(base64.b64encode(pair).decode())  # the header, which an answer may quote

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Set the header."""
        yield from self._basic.auth_flow(request)


class HmacSignature(httpx.Auth):
    """Signs the body, so that the receiver can tell who sent it and when.

    `X-Headgate-Timestamp` has seconds since the epoch; `X-Headgate-Signature` is `sha256=` and the lower-case
    hex HMAC-SHA256, under the shared secret, of the timestamp, a full stop and the body's bytes.
    """

    requires_request_body = True

    def __init__(self, secret: SecretStr) -> None:
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Set both headers."""
        stamp = str(int(time.time()))
        digest = hmac.new(self._secret.get_secret_value().encode(), digestmod=hashlib.sha256)
        digest.update(f"{stamp}.".encode())
        digest.update(request.content)
        request.headers["X-Headgate-Timestamp"] = stamp
        request.headers["X-Headgate-Signature"] = f"sha256={digest.hexdigest()}"
        yield request


class Chain(httpx.Auth):
    """Several of the one-step schemes above, one after the other."""

    requires_request_body = True

    def __init__(self, *schemes: httpx.Auth) -> None:
        self._schemes = schemes

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Let each scheme sign the request; none of them may need an answer."""
        for scheme in self._schemes:
            next(scheme.auth_flow(request))
        yield request


class Token(httpx.Auth, ABC):
    """A token that is fetched from a token server, a bearer token unless `header` and `prefix` say otherwise: what
    the OAuth 2.0 grants below have in common.

    The token is kept until a minute before it expires, shared by all threads, and fetched anew, once, when
    the destination answers 401 to it. Raises `AuthError` where the token is refused.
    """

    requires_response_body = True
    fix = "Check the client's id and secret."
    header = "Authorization"
    prefix = "Bearer "

    def __init__(self, token_url: str) -> None:
        self._url = token_url
        self._lock = threading.Lock()
        self._token = ""
        self._until = 0.0

    @abstractmethod
    def token_request(self) -> httpx.Request:
        """The request that fetches a token from `token_url`."""

    def auth_flow(self, request: httpx.Request) -> Flow:
        """Send with the token in hand; fetch one where there is none or it is no longer accepted."""
        token = yield from self._current("")
        request.headers[self.header] = self.prefix + token
        response = yield request
        if response.status_code == 401:
            token = yield from self._current(token)
            request.headers[self.header] = self.prefix + token
            yield request

    def _current(self, refused: str) -> Generator[httpx.Request, httpx.Response, str]:
        """The token in hand unless it is `refused` or over; one thread fetches, the others wait for it."""
        with self._lock:
            if not self._token or self._token == refused or time.monotonic() >= self._until:
                self._token = ""
                request = self.token_request()
                self._keep(request, (yield request))
            return self._token

    def _keep(self, request: httpx.Request, response: httpx.Response) -> None:
        host, status = host_of(request), response.status_code
        if status == 429:
            raise RateLimited(
                f"{host} has no token for us yet: it answered 429", retry_after=retry_after(response)
            )
        if status >= 500 or status in (408, 425):
            raise Unavailable(f"{host} has no token for us: it answered {status}", applied=False)
        if not 200 <= status < 300:
            raise AuthError(f"{host} refused us a token: it answered {status}", fix=self.fix)
        answer = json_object(response.content) or {}
        token, lifetime = answer.get("access_token"), answer.get("expires_in", 300)
        if (
            not isinstance(token, str)
            or not _TOKEN.fullmatch(token)
            or not isinstance(lifetime, int | float | str)
        ):
            raise ProtocolError(f"{host} answered the request for a token without one")
        register_secret(token)
        self._token = token
        self._until = time.monotonic() + max(1.0, _seconds(lifetime) - 60)


class ClientCredentials(Token):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4), with the client's id and secret as HTTP Basic or,
    with `in_body`, as form fields (section 2.3.1). `extra` are form fields beside them: an audience, say."""

    def __init__(
        self,
        token_url: str,
        client_id: str,
        client_secret: SecretStr,
        *,
        scope: str = "",
        in_body: bool = False,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(token_url)
        self._extra = dict(extra or {})
        self._client = (client_id, client_secret)
        self._scope = scope
        self._in_body = in_body

    def token_request(self) -> httpx.Request:
        """The form of section 4.4.2."""
        client_id, secret = self._client[0], self._client[1].get_secret_value()
        form = {**self._extra, "grant_type": "client_credentials"} | (
            {"scope": self._scope} if self._scope else {}
        )
        if self._in_body:
            return httpx.Request("POST", self._url, data=form | {"client_id": client_id, "client_secret": secret})
        request = httpx.Request("POST", self._url, data=form)
        return next(httpx.BasicAuth(client_id, secret).auth_flow(request))


class RefreshToken(Token):
    """OAuth 2.0 refresh token (RFC 6749, section 6) of somebody who agreed once, with the client's id and secret
    as form fields."""

    fix = "Check the client's id and secret; if the consent was taken back or ran out, ask for it again."

    def __init__(self, token_url: str, client_id: str, client_secret: SecretStr, refresh_token: SecretStr) -> None:
        super().__init__(token_url)
        self._form = {"client_id": client_id}
        self._secrets = {"client_secret": client_secret, "refresh_token": refresh_token}

    def token_request(self) -> httpx.Request:
        """The form of section 6."""
        secrets = {name: secret.get_secret_value() for name, secret in self._secrets.items()}
        return httpx.Request("POST", self._url, data={"grant_type": "refresh_token"} | self._form | secrets)


class _Key(BaseModel):
    """What we read of a service account's key file."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    client_email: str = Option(min_length=1)
    private_key: SecretStr
    private_key_id: str = ""
    token_uri: str = Option(pattern="^https?://")


class ServiceAccount(Token):
    """A Google service account: a signed assertion is given for a token (RFC 7523, section 2.1).

    `key` is the JSON of its key file, `scope` what it asks for, several with spaces between. The assertion has the
    claims of Google's "Using OAuth 2.0 for Server to Server Applications": issuer, scope, audience (the key's own
    token server), and an hour of life, the most there is. Raises `AuthError` where the key cannot be read.
    """

    fix = (
        "Check that the key was not revoked and that the clock is right; what Google says to it is in its "
        "console, under IAM & Admin, Service Accounts."
    )

    def __init__(self, key: SecretStr, *, scope: str) -> None:
        self._key = _service_key(key)
        self._scope = scope
        super().__init__(self._key.token_uri)

    def token_request(self) -> httpx.Request:
        """The form with a new assertion."""
        return httpx.Request("POST", self._url, data={"grant_type": _JWT_BEARER, "assertion": self._assertion()})

    def _assertion(self) -> str:
        """A JSON Web Token signed with RS256 (RFC 7518, section 3.3)."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        now = int(time.time())
        header = {"alg": "RS256", "typ": "JWT", "kid": self._key.private_key_id}
        claims = {"iss": self._key.client_email, "scope": self._scope, "aud": self._url}
        parts = (header, claims | {"iat": now, "exp": now + 3600})
        signed = ".".join(_base64url(dumps(part)) for part in parts)
        signature = _rsa_key(self._key.private_key.get_secret_value()).sign(signed.encode(), PKCS1v15(), SHA256())
        return f"{signed}.{_base64url(signature)}"


def service_account_email(key: SecretStr) -> str:
    """Whose key it is: no secret. Raises `AuthError` where the key cannot be read."""
    return _service_key(key).client_email


def _service_key(key: SecretStr) -> _Key:
    try:
        return _Key.model_validate_json(key.get_secret_value())
    except ValidationError:
        pass
    raise AuthError(
        "the service account's key is not the JSON of a key file",
        fix="Give the whole file: it has client_email, private_key and token_uri.",
    )


@lru_cache(maxsize=4)
def _rsa_key(pem: str) -> RSAPrivateKey:
    """The key, which takes a tenth of a second to read and to validate."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise AuthError(
            "the private_key of the service account's key is not an RSA key in PEM",
            fix="Give the file as it was downloaded, with the line breaks (\\n) inside private_key.",
        )
    return key


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _seconds(lifetime: float | str) -> float:
    """Some servers send the number as text."""
    try:
        return min(float(lifetime), _LONGEST)
    except (ValueError, OverflowError):
        return 300.0
