"""Certificates of encrypted connections: whom to trust, and who we are; what `Connector.tls` returns."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
from pydantic import SecretStr

from sync.errors import AuthError

__all__ = ["certificates"]


def certificates(
    ca_cert: Path | None, client_cert: Path | None, client_key: Path | None, password: SecretStr | None
) -> ssl.SSLContext | None:
    """Trust the authority of `ca_cert` and no other, identify by `client_cert` (mutual TLS); None without either.

    All are PEM files; the key may stand in its certificate's file, and `password` opens it.

    Raises `AuthError` where one cannot be read.
    """
    if ca_cert is None and client_cert is None:
        return None
    failure = ""
    try:
        context = ssl.create_default_context(cafile=ca_cert) if ca_cert else httpx.create_ssl_context()
        if client_cert is not None:
            context.load_cert_chain(client_cert, client_key, password.get_secret_value() if password else "")
    except (OSError, ValueError) as error:  # a wrong password, too, is an OSError
        failure = getattr(error, "reason", None) or getattr(error, "strerror", None) or "unreadable"
    else:
        return context
    raise AuthError(
        f"the certificates cannot be read: {failure}",
        fix="`ca_cert`, `client_cert` and `client_key` are PEM files; `client_key_password` opens the key.",
    )
