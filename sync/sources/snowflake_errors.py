"""What Snowflake's error numbers mean to whoever reads our message, and what to do about them.

Numbers: Snowflake documentation, "Key pair authentication: troubleshooting" (390144), "Error messages" of
External OAuth (390303, 390318), "Network policies" (390422), and the server's own messages for the rest.
"""

from __future__ import annotations

import re
from typing import Any

from sync.errors import SourceError

__all__ = ["explained"]

_UNREACHABLE = ("HG200", "Snowflake cannot be reached", "check `account`, the network and the proxy")
_LOGIN = ("HG205", "user or password is wrong", "check `user` and `password`")
_LOCKED = ("HG205", "the user is locked or disabled", "ask an administrator of the account to unlock it")
_KEY = (
    "HG205",
    "the key is not accepted: expired, replaced, or another user's",
    "ALTER USER ... SET RSA_PUBLIC_KEY to its public half; check `account`, `user` and this machine's clock",
)
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
    "the warehouse is suspended and cannot be resumed",
    "ALTER WAREHOUSE ... RESUME, or raise the quota of its resource monitor",
)
_TIMEOUT = (
    "HG208",
    "the query took too long and was cancelled",
    "raise `statement_timeout`, take a larger warehouse, or make the cohort a table",
)
_SQL = ("HG204", "Snowflake does not understand the query", "try it in a worksheet")
_SESSION = ("HG205", "the session has ended", "run again: it signs in anew")

_BY_NUMBER = {
    14: _UNREACHABLE,
    250001: _UNREACHABLE,
    250003: _UNREACHABLE,
    390100: _LOGIN,
    390101: _LOCKED,
    390102: _LOCKED,
    390103: _SESSION,
    390104: _SESSION,
    390111: _SESSION,
    390112: _SESSION,
    390114: _SESSION,
    390144: _KEY,
    390189: _ROLE,
    390201: _OBJECT,
    390303: _TOKEN,
    390318: _TOKEN,
    390422: _NETWORK,
    604: _TIMEOUT,
    606: _WAREHOUSE,
    630: _TIMEOUT,
    904: _SQL,
    1003: _SQL,
    2003: _OBJECT,
    2043: _OBJECT,
    3001: _RIGHTS,
    90073: _SUSPENDED,
    90105: ("HG202", "no database is chosen", "name `database`, or write database.schema.table"),
}
_BY_WORDS = (
    (re.compile(r"resource monitor|is suspended", re.IGNORECASE), _SUSPENDED),
    (re.compile(r"not allowed to access Snowflake", re.IGNORECASE), _NETWORK),
    (re.compile(r"JWT token is invalid", re.IGNORECASE), _KEY),
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
