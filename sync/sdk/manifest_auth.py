"""The options of a manifest, and how it authenticates with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import httpx
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from sync.sdk import auth as schemes

__all__ = ["CREDENTIALS", "Auth", "Option", "Strict", "build_auth"]


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
    """HTTP Basic; `user` and `password` name options, the second a secret one."""

    scheme: Literal["basic"]
    user: str
    password: str


class HeaderAuth(Strict):
    """The secret option `value`, after `prefix`, in the header `name`."""

    scheme: Literal["header"]
    name: str
    value: str
    prefix: str = ""


class ClientCredentialsAuth(Strict):
    """OAuth 2.0 client credentials; `client_id` and `client_secret` name options."""

    scheme: Literal["client_credentials"]
    token_url: str
    client_id: str
    client_secret: str
    scope: str = ""
    in_body: bool = False


Auth = Annotated[
    NoAuth | BearerAuth | BasicAuth | HeaderAuth | ClientCredentialsAuth, Field(discriminator="scheme")
]


CREDENTIALS: Mapping[str, tuple[tuple[str, bool], ...]] = {
    "none": (),
    "bearer": (("token", True),),
    "basic": (("user", False), ("password", True)),
    "header": (("value", True),),
    "client_credentials": (("client_id", False), ("client_secret", True)),
}
"""For each scheme the keys that name options, and whether the option has to be secret."""


def build_auth(spec: Any, config: BaseModel, token_url: str) -> httpx.Auth | None:
    """What signs the requests; `token_url` has its placeholders filled."""

    def option(key: str) -> Any:
        return getattr(config, getattr(spec, key))

    if spec.scheme == "bearer":
        return schemes.Bearer(option("token"))
    if spec.scheme == "basic":
        return schemes.Basic(_clear(option("user")), option("password"))
    if spec.scheme == "header":
        return schemes.Header(spec.name, option("value"), spec.prefix)
    if spec.scheme == "client_credentials":
        return schemes.ClientCredentials(
            token_url,
            _clear(option("client_id")),
            option("client_secret"),
            scope=spec.scope,
            in_body=spec.in_body,
        )
    return None


def _clear(value: str | SecretStr) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value
