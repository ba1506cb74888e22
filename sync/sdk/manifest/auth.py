"""The options of a manifest, and how it authenticates with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from sync.errors import AuthError
from sync.sdk import auth as schemes
from sync.sdk.manifest.text import fill
from sync.sdk.values import dumps, json_object

__all__ = ["Auth", "Option", "Strict", "build_auth", "credentials"]


class Strict(BaseModel):
    """Base of everything in a manifest: frozen, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Option(Strict):
    """One option of the destination's configuration; required where it has no default."""

    description: str = ""
    secret: bool = False
    default: str | None = None
    choices: tuple[str, ...] = ()


class NoAuth(Strict):
    """Requests carry no credentials."""

    scheme: Literal["none"]


class BearerAuth(Strict):
    """`Authorization: Bearer ...`; `token` names a secret option."""

    scheme: Literal["bearer"]
    token: str


class BasicAuth(Strict):
    """HTTP Basic; `user` and `password` name options, one of them secret.

    Where a platform takes its key as the user name, `password` is left out and `fixed_password` is what stands in
    its place, nothing or an `x` mostly.
    """

    scheme: Literal["basic"]
    user: str
    password: str = ""
    fixed_password: str = ""


class HeaderAuth(Strict):
    """The secret option `value`, after `prefix`, in the header `name`."""

    scheme: Literal["header"]
    name: str
    value: str
    prefix: str = ""


class QueryAuth(Strict):
    """The secret option `value` as the parameter `name` of the address."""

    scheme: Literal["query"]
    name: str
    value: str


class BodyAuth(Strict):
    """The secret option `value` as the key `name` of the JSON object or form that is sent; where nothing is sent,
    as a parameter of the address."""

    scheme: Literal["body"]
    name: str
    value: str


class ClientCredentialsAuth(Strict):
    """OAuth 2.0 client credentials; `client_id` and `client_secret` name options.

    `token_url` may hold placeholders, `{base_url}` among them. `extra` are constants of the form beside the usual
    ones: an `audience`, say. The token goes into the header `name`, after `prefix`.
    """

    scheme: Literal["client_credentials"]
    token_url: str
    client_id: str
    client_secret: str
    scope: str = ""
    in_body: bool = False
    extra: Mapping[str, str] = {}
    name: str = "Authorization"
    prefix: str = "Bearer "


class RefreshTokenAuth(Strict):
    """OAuth 2.0 with a refresh token that does not change; the three name options."""

    scheme: Literal["refresh_token"]
    token_url: str
    client_id: str
    client_secret: str
    refresh_token: str
    name: str = "Authorization"
    prefix: str = "Bearer "


OneStep = Annotated[BearerAuth | BasicAuth | HeaderAuth | QueryAuth | BodyAuth, Field(discriminator="scheme")]


class SeveralAuth(Strict):
    """Several of the schemes that need no token from elsewhere, all in each request: two headers, say."""

    scheme: Literal["several"]
    of: tuple[OneStep, ...] = Field(min_length=2)


Auth = Annotated[
    NoAuth
    | BearerAuth
    | BasicAuth
    | HeaderAuth
    | QueryAuth
    | BodyAuth
    | ClientCredentialsAuth
    | RefreshTokenAuth
    | SeveralAuth,
    Field(discriminator="scheme"),
]

_OPTIONS: Mapping[str, tuple[tuple[str, bool], ...]] = {
    "none": (),
    "bearer": (("token", True),),
    "basic": (("user", False), ("password", True)),
    "header": (("value", True),),
    "query": (("value", True),),
    "body": (("value", True),),
    "client_credentials": (("client_id", False), ("client_secret", True)),
    "refresh_token": (("client_id", False), ("client_secret", True), ("refresh_token", True)),
}


def credentials(spec: Any) -> Iterator[tuple[str, str, bool]]:
    """The keys of a scheme that name options: key, option, and whether the option has to be secret."""
    if isinstance(spec, SeveralAuth):
        for number, one in enumerate(spec.of):
            yield from ((f"of.{number}.{key}", name, secret) for key, name, secret in credentials(one))
        return
    for key, secret in _OPTIONS[spec.scheme]:
        if isinstance(spec, BasicAuth) and not spec.password:
            secret = key == "user"
            if key == "password":
                continue
        yield key, getattr(spec, key), secret


def build_auth(spec: Any, config: BaseModel, known: Mapping[str, Any]) -> httpx.Auth | None:
    """What signs the requests; `known` fills the placeholders of a token's address."""

    def option(key: str) -> Any:
        return getattr(config, getattr(spec, key))

    if isinstance(spec, NoAuth):
        return None
    if isinstance(spec, SeveralAuth):
        return schemes.Chain(*(one for part in spec.of if (one := build_auth(part, config, known)) is not None))
    if isinstance(spec, BearerAuth):
        return schemes.Bearer(option("token"))
    if isinstance(spec, BasicAuth):
        password = option("password") if spec.password else SecretStr(spec.fixed_password)
        return schemes.Basic(_clear(option("user")), password)
    if isinstance(spec, HeaderAuth):
        return schemes.Header(spec.name, option("value"), spec.prefix)
    if isinstance(spec, QueryAuth):
        return _Query(spec.name, option("value"))
    if isinstance(spec, BodyAuth):
        return _Body(spec.name, option("value"))
    token_url = fill(spec.token_url, known)
    client_id, client_secret = _clear(option("client_id")), option("client_secret")
    if isinstance(spec, RefreshTokenAuth):
        made: schemes.Token = schemes.RefreshToken(token_url, client_id, client_secret, option("refresh_token"))
    else:
        made = schemes.ClientCredentials(
            token_url, client_id, client_secret, scope=spec.scope, in_body=spec.in_body, extra=spec.extra
        )
    made.header, made.prefix = spec.name, spec.prefix
    return made


def _clear(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


class _Query(httpx.Auth):
    """The secret as a parameter of the address: for platforms that know no other way."""

    def __init__(self, name: str, secret: SecretStr) -> None:
        if not secret.get_secret_value():
            raise AuthError(f"the secret for the parameter `{name}` is empty", fix="was it pasted whole?")
        self._name = name
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> schemes.Flow:
        """Add the parameter."""
        request.url = request.url.copy_set_param(self._name, self._secret.get_secret_value())
        yield request


class _Body(httpx.Auth):
    """The secret in what is sent: put there as the request leaves, so that a preview does not have it."""

    requires_request_body = True

    def __init__(self, name: str, secret: SecretStr) -> None:
        self._query = _Query(name, secret)  # which refuses an empty one
        self._name = name
        self._secret = secret

    def auth_flow(self, request: httpx.Request) -> schemes.Flow:
        """Add the key to the object or the form."""
        secret, content = self._secret.get_secret_value(), request.content
        sent = json_object(content)
        if sent is not None:
            content = dumps({self._name: secret, **sent})
        elif request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            form = str(httpx.QueryParams({self._name: secret})).encode()
            content = form + b"&" + content if content else form
        else:
            yield from self._query.auth_flow(request)
            return
        signed = httpx.Request(request.method, request.url, content=content)
        request.stream, request.headers["Content-Length"] = signed.stream, str(len(content))
        request._content = content
        yield request
