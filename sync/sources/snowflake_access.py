"""Signing in to Snowflake: which of the connector's parameters each way takes, and what the session is set to."""

from __future__ import annotations

import json
import sys
from typing import Any

from sync.errors import SourceError
from sync.sources.options import SnowflakeOptions

__all__ = ["credentials", "parameters", "query_tag"]

_FOR_PEOPLE = {
    "externalbrowser": "opens a browser",
    "username_password_mfa": "asks for a second factor",
}
_WITH_ZONE = "YYYY-MM-DD HH24:MI:SS.FF9 TZHTZM"
_TAG = 2000  # characters that QUERY_TAG takes (SQL reference, Parameters)


def query_tag(app: str, sync: str, refresh: str) -> str:
    """What each query is tagged with: JSON, so that QUERY_HISTORY can be grouped by sync and found by refresh."""
    told = {"app": app, "sync": sync, "refresh": refresh}
    return json.dumps({key: value for key, value in told.items() if value})[:_TAG]


def parameters(options: SnowflakeOptions, tag: str) -> dict[str, Any]:
    """The session's parameters; those that the rows' types and memory depend on cannot be set otherwise.

    SQL reference, "Parameters". CLIENT_RESULT_CHUNK_SIZE bounds what of a result is in memory at a time: at most
    CLIENT_PREFETCH_THREADS chunks of so many MB.
    """
    return {
        "CLIENT_TELEMETRY_ENABLED": False,
        "CLIENT_RESULT_CHUNK_SIZE": 32,
        "CLIENT_PREFETCH_THREADS": 2,
        "CLIENT_MEMORY_LIMIT": 200,
        **{key.upper(): value for key, value in options.session_parameters.items()},
        "CLIENT_SESSION_KEEP_ALIVE": True,
        "JSON_INDENT": 0,
        "BINARY_OUTPUT_FORMAT": "HEX",
        "DATE_OUTPUT_FORMAT": "YYYY-MM-DD",
        "TIME_OUTPUT_FORMAT": "HH24:MI:SS.FF9",
        "TIMESTAMP_NTZ_OUTPUT_FORMAT": "YYYY-MM-DD HH24:MI:SS.FF9",
        **dict.fromkeys(("TIMESTAMP_LTZ_OUTPUT_FORMAT", "TIMESTAMP_TZ_OUTPUT_FORMAT"), _WITH_ZONE),
        "GEOGRAPHY_OUTPUT_FORMAT": "GeoJSON",
        "GEOMETRY_OUTPUT_FORMAT": "GeoJSON",
        "QUERY_TAG": tag,
        "STATEMENT_TIMEOUT_IN_SECONDS": round(options.statement_timeout),
        "TIMEZONE": options.timezone,
    }


def credentials(name: str, options: SnowflakeOptions) -> dict[str, Any]:
    """The connector's parameters of the way to sign in; raises `SourceError` HG205 where it cannot be gone.

    What people sign in with is kept by the connector in their own cache of credentials, so that they are asked
    every few hours and not at each run; what a program signs in with is not written anywhere.
    """
    way = options.way
    if way in _FOR_PEOPLE and not _somebody_there():
        raise SourceError(
            f"source {name}: authenticator = '{way}' {_FOR_PEOPLE[way]}, and nobody is there to answer",
            code="HG205",
            fix="give a daemon or a job a key pair: `private_key`",
        )
    return {"authenticator": way.upper(), **_remembering(keep=way in _FOR_PEOPLE), **_secrets(name, options)}


def _secrets(name: str, options: SnowflakeOptions) -> dict[str, Any]:
    if options.way == "snowflake_jwt":
        return {"private_key": _private_key(name, options)}
    plain = {
        key: secret.get_secret_value()
        for key in ("password", "passcode", "token", "oauth_client_secret")
        if (secret := getattr(options, key)) is not None
    }
    told = ("oauth_client_id", "oauth_token_request_url", "oauth_scope")
    return plain | {key: getattr(options, key) for key in told if getattr(options, key) is not None}


def _remembering(*, keep: bool) -> dict[str, Any]:
    import snowflake.connector

    found: dict[str, Any] = {"client_store_temporary_credential": keep}
    if not hasattr(snowflake.connector, "ConnectionConfig"):  # before 5.0 the second factor had its own setting
        found["client_request_mfa_token"] = keep
    return found


def _somebody_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _private_key(name: str, options: SnowflakeOptions) -> bytes:
    """The key as the connector takes it (unencrypted PKCS #8, DER); raises `SourceError` HG205."""
    from cryptography.hazmat.primitives import serialization

    phrase = options.private_key_passphrase
    pem = options.private_key.get_secret_value() if options.private_key else ""
    try:
        key = serialization.load_pem_private_key(
            pem.encode(), password=phrase.get_secret_value().encode() if phrase else None
        )
    except (ValueError, TypeError) as error:  # TypeError: a passphrase is missing, or there is one too many
        if "ENCRYPTED" not in pem:
            reason = "is not PEM text (PKCS #8), or needs no passphrase"
        else:
            reason = "needs `private_key_passphrase`" if phrase is None else "and its passphrase do not fit"
        raise SourceError(
            f"source {name}: `private_key` {reason}",
            code="HG205",
            fix="refer to the file: private_key = 'file:/run/secrets/rsa_key.p8'",
        ) from error
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
