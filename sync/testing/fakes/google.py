"""Google's token server in memory, with one service account: what fakes of its APIs have in common."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

__all__ = ["TokenServer", "error"]

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_EMAIL = "headgate@fake-project.iam.gserviceaccount.com"
_LIFE = 3599  # seconds, as Google answers


class TokenServer:
    """Gives tokens for assertions that its service account signed (Google's "Using OAuth 2.0 for Server to Server
    Applications": algorithm, audience, times; the scope has to have `scope` in it).

    `url` is where it is reached; None: wherever it is asked. `clock` is in seconds since the epoch.
    """

    def __init__(self, scope: str, url: str | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.scope = scope
        self.url = url
        self.clock = clock
        self.given: dict[str, float] = {}

    def key(self, url: str) -> str:
        """The JSON key file of the service account, for a token server at `url`."""
        key = {"type": "service_account", "client_email": _EMAIL, "private_key_id": "k1", "token_uri": url}
        return json.dumps(key | {"private_key": _pem()})

    def accepts(self, request: httpx.Request) -> bool:
        """Does a request carry a token that was given here and is not over."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return scheme == "Bearer" and self.given.get(token, 0.0) > self.clock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        """Answer the request for a token."""
        form = dict(parse_qsl(request.read().decode()))
        if form.get("grant_type") != _GRANT:
            return _refused("unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type')}")
        claims = _verified(form.get("assertion", ""))
        url = self.url or str(request.url)
        wrong = "Invalid JWT Signature." if claims is None else self._wrong(claims, url)
        if wrong:
            return _refused("invalid_grant", wrong)
        token = f"ya29.fake-{len(self.given) + 1}"
        self.given[token] = self.clock() + _LIFE
        return httpx.Response(200, json={"access_token": token, "expires_in": _LIFE, "token_type": "Bearer"})

    def _wrong(self, claims: Mapping[str, Any], url: str) -> str:
        if claims.get("iss") != _EMAIL:
            return "Invalid grant: account not found"
        if claims.get("aud") != url:
            return "Invalid JWT: Failed audience check."
        now, begins, ends = self.clock(), claims.get("iat", 0), claims.get("exp", 0)
        if not (begins <= now + 60 and now <= ends <= begins + 3600):
            return "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."
        asked = str(claims.get("scope", "")).split()
        return "" if self.scope in asked else "Invalid OAuth scope or ID token audience provided."


def error(status: int, name: str, message: str) -> httpx.Response:
    """An error in the shape of Google's APIs (google.rpc.Status as JSON)."""
    return httpx.Response(status, json={"error": {"code": status, "message": message, "status": name}})


def _refused(code: str, description: str) -> httpx.Response:
    return httpx.Response(400, json={"error": code, "error_description": description})


@cache
def _private_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def _pem() -> str:
    return _private_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _verified(assertion: str) -> dict[str, Any] | None:
    """The claims of an assertion that our key signed; None for any other."""
    signed, _, signature = assertion.rpartition(".")
    try:
        header, claims = (json.loads(_decoded(part)) for part in signed.split("."))
        _private_key().public_key().verify(_decoded(signature), signed.encode(), PKCS1v15(), SHA256())
    except (ValueError, InvalidSignature):
        return None
    return claims if header.get("alg") == "RS256" else None


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
