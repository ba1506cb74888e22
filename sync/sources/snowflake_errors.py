"""What Snowflake's error numbers mean to whoever reads our message, and what to do about them.

Numbers of signing in: Snowflake documentation, "Key-pair authentication: troubleshooting" (390144, 394300 to
394306), "External OAuth: error codes" (390303, 390318), "Using Duo: error codes" (390120 to 390132), "Programmatic
access tokens" (394400, 390432), "Network policies" (390422); the others are those of the server's own messages.
"""

from __future__ import annotations

import re
from typing import Any

from sync.errors import SourceError

__all__ = ["explained"]

_UNREACHABLE = ("HG200", "Snowflake cannot be reached", "check `account`, the network and the proxy")
_LOGIN = ("HG205", "user or password is wrong", "check `user` and `password`")
_LOCKED = (
    "HG205",
    "the user is locked for some minutes after too many failures",
    "mend the secret first; an administrator of the account can unlock it: ALTER USER ... SET MINS_TO_UNLOCK = 0",
)
_KEY = (
    "HG205",
    "the key is not accepted: expired, replaced, or another user's",
    "ALTER USER ... SET RSA_PUBLIC_KEY to its public half; check `account`, `user` and this machine's clock",
)
_PAT = (
    "HG205",
    "the programmatic access token is not accepted: expired, revoked, or another account's",
    "ALTER USER ... ROTATE PROGRAMMATIC ACCESS TOKEN and refer to the new one as `token`",
)
_PAT_NETWORK = (
    "HG205",
    "a programmatic access token needs a network policy, and the user has none",
    "ask an administrator of the account to give the user one",
)
_FACTOR = (
    "HG205",
    "a second factor is required",
    "give a daemon or a job a key pair (`private_key`); a person, authenticator = 'username_password_mfa'",
)
_FACTOR_REFUSED = (
    "HG205",
    "the second factor was not confirmed: denied, too late, locked, or not set up",
    "confirm it on the phone; a daemon or a job takes a key pair (`private_key`)",
)
_PAYMENT = (
    "HG206",
    "the account's warehouses are suspended: its trial has ended, or it is not paid for",
    "ask an administrator of the account to look at its billing",
)
_ACCOUNT = (
    "HG200",
    "there is no such account",
    "check `account`: SELECT CURRENT_ORGANIZATION_NAME() || '-' || CURRENT_ACCOUNT_NAME() says it",
)
_DISABLED = ("HG205", "the user is disabled", "ask an administrator of the account to enable it")
_TOKEN = ("HG205", "the OAuth token is invalid or has expired", "get a new one and refer to it as `token`")
_NETWORK = (
    "HG205",
    "the account's network policy does not let this machine in",
    "ask an administrator of the account to allow this machine's address",
)
_ROLE = (
    "HG207",
    "the role does not exist, or the user may not take it",
    "check `role`, or GRANT ROLE ... TO USER",
)
_OBJECT = (
    "HG202",
    "a table does not exist, or the role may not see it",
    "check the name, `database` and `schema`",
)
_RIGHTS = ("HG207", "the role may not read it", "GRANT SELECT on it, and USAGE on its database and schema")
_WAREHOUSE = (
    "HG206",
    "there is no warehouse to run the query on, or the role may not use it",
    "name `warehouse`, and grant USAGE on it to the role",
)
_SUSPENDED = (
    "HG206",
    "the warehouse is suspended, and does not resume by itself",
    "ALTER WAREHOUSE ... RESUME, or SET AUTO_RESUME = TRUE",
)
_QUOTA = (
    "HG206",
    "the warehouse has used up the quota of its resource monitor",
    "raise the quota (ALTER RESOURCE MONITOR), or name another `warehouse`",
)
_TIMEOUT = (
    "HG208",
    "the query took too long and was cancelled",
    "raise `statement_timeout`, take a larger warehouse, or make the cohort a table",
)
_SQL = ("HG204", "Snowflake does not understand the query", "try it in a worksheet")
_SESSION = ("HG205", "the session has ended", "run again: it signs in anew")

_BY_NUMBER = {
    390100: _LOGIN,
    390101: _DISABLED,
    390102: _LOCKED,
    390103: _SESSION,
    390104: _SESSION,
    390111: _SESSION,
    390112: _SESSION,
    390114: _SESSION,
    390113: _SESSION,
    390115: _SESSION,
    **dict.fromkeys((390120, 390121, 390122, 390123, 390126, 390127, 390129, 390132), _FACTOR_REFUSED),
    390124: _FACTOR,
    390144: _KEY,
    390186: _ROLE,
    390189: _ROLE,
    390195: _SESSION,
    390201: (
        "HG202",
        "the database, schema or warehouse that is named does not exist",
        "check `database`, `schema` and `warehouse`",
    ),
    390303: _TOKEN,
    390318: _TOKEN,
    390422: _NETWORK,
    390432: _PAT_NETWORK,
    **dict.fromkeys(range(394300, 394307), _KEY),
    394400: _PAT,
    394508: _FACTOR,
    604: _TIMEOUT,
    606: _WAREHOUSE,
    666: _PAYMENT,
    390913: _PAYMENT,
    630: _TIMEOUT,
    904: _SQL,
    1003: _SQL,
    2003: _OBJECT,
    2043: _OBJECT,
    3001: _RIGHTS,
    90073: _QUOTA,
    90105: ("HG202", "no database is chosen", "name `database`, or write database.schema.table"),
}
_UNSAID = frozenset({14, 250001, 250003})  # the connector's own: it could not sign in, for whatever reason
_BY_WORDS = (
    (re.compile(r"resource monitor", re.IGNORECASE), _QUOTA),
    (re.compile(r"free trial has ended|lack of payment", re.IGNORECASE), _PAYMENT),
    (re.compile(r"is suspended", re.IGNORECASE), _SUSPENDED),
    (re.compile(r"MFA with TOTP is required|multi-factor authentication is required", re.IGNORECASE), _FACTOR),
    (re.compile(r"Network policy is required", re.IGNORECASE), _PAT_NETWORK),
    (re.compile(r"Programmatic access token is invalid", re.IGNORECASE), _PAT),
    (re.compile(r"temporarily locked", re.IGNORECASE), _LOCKED),
    (re.compile(r"not granted to this user", re.IGNORECASE), _ROLE),
    (re.compile(r"not allowed to access Snowflake", re.IGNORECASE), _NETWORK),
    (re.compile(r"JWT token is invalid", re.IGNORECASE), _KEY),
    (re.compile(r"Failed to login.* 404 Not Found|404 Not Found.*login-request", re.IGNORECASE), _ACCOUNT),
    (re.compile(r"Incorrect username or password", re.IGNORECASE), _LOGIN),
    (re.compile(r"Insufficient privileges", re.IGNORECASE), _RIGHTS),
    (re.compile(r"does not exist or not authorized", re.IGNORECASE), _OBJECT),
)
_NAME = re.compile(
    r"(?:Object|Role|Warehouse|Schema|Database|Table|View|identifier) '([^'\n]{1,200})'", re.IGNORECASE
)
_UUID = re.compile(r"\[([0-9a-f]{8}[0-9a-f-]*)\]")


def explained(error: Any, source: str, what: str) -> SourceError:
    """Our error for the connector's.

    Snowflake's own words are not repeated, since they may quote a row; the name of an object is, and the id by
    which an administrator finds the reason of a refused sign-in (SYSTEM$GET_LOGIN_FAILURE_DETAILS).
    """
    text = str(getattr(error, "msg", None) or error)
    number = error.errno if isinstance(error.errno, int) else -1
    found = _BY_NUMBER.get(number) or next((m for pattern, m in _BY_WORDS if pattern.search(text)), None)
    if found is None and number in _UNSAID:
        found = _UNREACHABLE
    code, meaning, fix = found or ("HG200", "Snowflake refused", "look it up in the account's query history")
    details = [f"error {number:06d}"] if number >= 0 else []
    if name := _NAME.search(text):
        details.append(name[1])
    if code == "HG205" and (ticket := _UUID.search(text)):
        details.append(f"login failure {ticket[1]}")
    if query := getattr(error, "sfqid", None):
        details.append(f"query {query}")
    shown = f" ({', '.join(details)})" if details else ""
    return SourceError(f"source {source}: {what}: {meaning}{shown}", code=code, fix=fix)
