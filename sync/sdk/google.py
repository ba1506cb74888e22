"""Ways into an API of Google's: the key of a service account, or the consent of somebody who has an account."""

from __future__ import annotations

from typing import Self

import httpx
from pydantic import Field as Option
from pydantic import SecretStr, model_validator

from sync.sdk.auth import RefreshToken, ServiceAccount
from sync.sdk.connector import Config

__all__ = ["GoogleConfig"]


class GoogleConfig(Config):
    """The credentials of a Google API's configuration: exactly one of the two ways in."""

    service_account: SecretStr | None = Option(None, description="The JSON of a service account's key file.")
    client_id: str = Option("", description="Instead of a service account: an OAuth client ...")
    client_secret: SecretStr | None = Option(None, description="... its secret ...")
    refresh_token: SecretStr | None = Option(None, description="... and the refresh token it was given.")
    token_url: str = Option("https://oauth2.googleapis.com/token", description="Where a refresh token is taken.")

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        person = (self.client_id, self.client_secret, self.refresh_token)
        if bool(self.service_account) == any(person) or (any(person) and not all(person)):
            raise ValueError("give service_account, or client_id with client_secret and refresh_token")
        return self

    def tokens(self, scope: str) -> httpx.Auth:
        """What fetches tokens for `scope`. Raises `AuthError` where the key of a service account is none."""
        if self.service_account is not None:
            return ServiceAccount(self.service_account, scope=scope)
        secret, refresh = self.client_secret or SecretStr(""), self.refresh_token or SecretStr("")
        return RefreshToken(self.token_url, self.client_id, secret, refresh)
