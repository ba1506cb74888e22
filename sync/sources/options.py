"""What `[sources.NAME]` in config.toml may say, for each type of source."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, field_validator, model_validator

from sync.durations import parse_duration
from sync.paths import UsablePath

__all__ = ["DuckDBOptions", "MembersOptions", "Options", "PostgresOptions", "SnowflakeOptions", "SyncLogOptions"]

Duration = Annotated[float, BeforeValidator(parse_duration)]


class Options(BaseModel):
    """Frozen; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class SyncLogOptions(Options):
    """Where the runs of syncs from this source are logged, for people to query."""

    sync_log: bool = Field(default=False, description="Write what became of each run and record to tables there.")
    sync_log_schema: str = Field(default="headgate", min_length=1, max_length=63, description="Where they are.")
    sync_log_keep_days: int | None = Field(default=None, ge=1, description="For how long; for ever without it.")


class MembersOptions(Options):
    """Where the members of syncs from this source are kept."""

    members: Literal["local", "warehouse"] = Field(
        default="local",
        description="In files of the state folder, or in tables of the warehouse, which then compares there.",
    )
    members_schema: str = Field(
        default="headgate", min_length=1, max_length=63, description="The schema of those tables, which is ours."
    )


class DuckDBOptions(Options):
    """A DuckDB database file. Paths are relative to the project."""

    path: UsablePath = Field(description="The database file; it is only read.")
    directories: tuple[UsablePath, ...] = Field(
        default=(), description="Folders whose files the warehouse's views and the cohorts' queries may read."
    )

    @field_validator("path", mode="before")
    @classmethod
    def _is_file(cls, path: Any) -> Any:
        if Path(str(path)).name == ":memory:" or "://" in str(path):
            raise ValueError("a warehouse is a file on this machine: a database in memory has no rows to sync")
        return path


_WAYS = {  # what each way to sign in needs, in this order
    "snowflake": ("password",),
    "username_password_mfa": ("password",),
    "snowflake_jwt": ("private_key",),
    "oauth": ("token",),
    "programmatic_access_token": ("token",),
    "oauth_client_credentials": ("oauth_client_id", "oauth_client_secret", "oauth_token_request_url"),
    "externalbrowser": (),
}
_SECRETS = ("private_key", "token", "password", "oauth_client_secret")


class SnowflakeOptions(SyncLogOptions, MembersOptions):
    """A Snowflake account, and who reads from it with what.

    `authenticator` says how; without it `private_key`, `token` (OAuth) or `password` does. The names are those of
    Snowflake's documentation, "Connecting to Snowflake with the Python Connector".
    """

    account: str = Field(min_length=1, description="Account identifier: `myorg-account123`.")
    user: str = ""
    role: str | None = None
    warehouse: str | None = None
    database: str | None = None
    schema_: str | None = Field(default=None, alias="schema")
    authenticator: (
        Literal[
            "snowflake",
            "username_password_mfa",
            "snowflake_jwt",
            "oauth",
            "programmatic_access_token",
            "oauth_client_credentials",
            "externalbrowser",
        ]
        | None
    ) = None
    private_key: SecretStr | None = Field(default=None, description="PEM text (PKCS #8), encrypted or not.")
    private_key_passphrase: SecretStr | None = None
    token: SecretStr | None = Field(default=None, description="An OAuth or a programmatic access token.")
    password: SecretStr | None = None
    passcode: SecretStr | None = Field(default=None, description="Of the second factor, at this moment.")
    oauth_client_id: str | None = None
    oauth_client_secret: SecretStr | None = None
    oauth_token_request_url: str | None = Field(default=None, description="Where the client gets its token.")
    oauth_scope: str | None = None
    timezone: str = Field(default="UTC", min_length=1, description="Of the session: what CURRENT_DATE() is.")
    query_tag: str = Field(default="headgate", min_length=1, max_length=200, description="`app` in the query tag.")
    statement_timeout: Duration = Field(default=3600.0, ge=1, le=604800, description="Limit of one query.")
    login_timeout: Duration = Field(default=60.0, gt=0, le=3600, description="Limit of signing in.")
    session_parameters: dict[str, str | int | bool] = {}
    host: str | None = Field(default=None, description="Instead of ACCOUNT.snowflakecomputing.com.")
    port: int | None = Field(default=None, ge=1, le=65535)
    protocol: Literal["https", "http"] = "https"

    @property
    def way(self) -> str:
        """How it signs in: a name of `authenticator`."""
        if self.authenticator:
            return self.authenticator
        return "snowflake_jwt" if self.private_key else "oauth" if self.token else "snowflake"

    @model_validator(mode="before")
    @classmethod
    def _one_way_in(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        given = [name for name in _SECRETS if value.get(name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one way to sign in, not {' and '.join(f'`{name}`' for name in given)}")
        way = value.get("authenticator")
        if way is None and not given:
            raise ValueError("give `private_key`, `token` or `password`, or an `authenticator`")
        if way is None and "oauth_client_secret" in given:
            raise ValueError("`oauth_client_secret` needs authenticator = 'oauth_client_credentials'")
        needed = _WAYS.get(str(way), ())
        if missing := next((name for name in needed if value.get(name) is None), None):
            raise ValueError(f"authenticator = '{way}' needs `{missing}`")
        if way in _WAYS and (other := next((name for name in given if name not in needed), None)):
            raise ValueError(f"authenticator = '{way}' does not take `{other}`")
        return value

    @model_validator(mode="after")
    def _plain_only_here(self) -> SnowflakeOptions:
        if self.protocol == "http" and self.host not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError(
                "protocol = 'http' is for a server on this machine: anywhere else it shows the secret"
            )
        if self.passcode is not None and self.way not in ("snowflake", "username_password_mfa"):
            raise ValueError("`passcode` goes with `password`")
        if not self.user and self.way in (
            "snowflake",
            "username_password_mfa",
            "snowflake_jwt",
            "externalbrowser",
        ):
            raise ValueError("give `user`")
        return self


_NO_ZEROS = r"^[^\x00]*$"  # libpq takes no null character


class PostgresOptions(SyncLogOptions, MembersOptions):
    """A PostgreSQL database, and who reads from it with what. Paths are relative to the project."""

    host: str = Field(
        min_length=1, pattern=_NO_ZEROS, description="Name or address; a path is the folder of a Unix socket."
    )
    port: int = Field(default=5432, ge=1, le=65535)
    database: str = Field(min_length=1, pattern=_NO_ZEROS)
    user: str = Field(min_length=1, pattern=_NO_ZEROS)
    password: SecretStr | None = Field(
        default=None, description="Not needed where a certificate or the socket is enough."
    )
    sslmode: Literal["disable", "require", "verify-ca", "verify-full"] = Field(
        default="verify-full",
        description="`require` encrypts without knowing to whom; `disable` is for this machine.",
    )
    ssl_root_cert: UsablePath | None = Field(
        default=None, description="The certificate authority's file; without it `verify-full` trusts the system's."
    )
    ssl_cert: UsablePath | None = Field(default=None, description="The user's own certificate.")
    ssl_key: UsablePath | None = Field(
        default=None, description="The key of it; a file that only its owner reads."
    )
    schema_: str | tuple[str, ...] | None = Field(
        default=None, alias="schema", description="Where tables without a schema are looked for, in this order."
    )
    role: str | None = Field(default=None, min_length=1, description="SET ROLE: what the user reads as.")
    timezone: str = Field(default="UTC", min_length=1, description="Of the session: what a view's now()::date is.")
    statement_timeout: Duration = Field(default=3600.0, ge=0.001, le=2e6, description="Limit of one query.")
    login_timeout: Duration = Field(default=15.0, gt=0, le=3600, description="Limit of connecting.")
    application_name: str = Field(
        default="headgate", max_length=63, pattern=_NO_ZEROS, description="In pg_stat_activity; the sync follows."
    )

    @property
    def search_path(self) -> tuple[str, ...]:
        """The schemas that `schema` names; empty: the server's own setting."""
        named = self.schema_ or ()
        return (named,) if isinstance(named, str) else named

    @model_validator(mode="after")
    def _together(self) -> PostgresOptions:
        if self.sslmode == "verify-ca" and self.ssl_root_cert is None:
            raise ValueError('sslmode = "verify-ca" needs `ssl_root_cert`')
        if (self.ssl_cert is None) != (self.ssl_key is None):
            raise ValueError("`ssl_cert` and `ssl_key` go together")
        if self.sslmode == "disable" and (self.ssl_root_cert or self.ssl_cert):
            raise ValueError('sslmode = "disable" uses no certificates: leave them out, or have it verify')
        return self
