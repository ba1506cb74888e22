"""What PostgreSQL's errors mean to whoever reads our message, and what to do about them.

SQLSTATEs: PostgreSQL manual, appendix A. While connecting libpq gives none, so those errors are told by its words:
its own, and a server's in the English of `lc_messages` that is not set otherwise.
"""

from __future__ import annotations

import re

from sync.errors import SourceError

__all__ = ["explained", "unreachable"]

Meaning = tuple[str, str, str]
"""Code, what it means, what to do."""

_GRANTS = "GRANT SELECT on it and USAGE on its schema to the user, or to `role`"
_RESTARTED: Meaning = (
    "HG200",
    "the connection broke off: the server was restarted or failed over, or the network was cut",
    "run again; nothing was sent, and nothing is lost",
)
_TIMEOUT: Meaning = (
    "HG208",
    "it took longer than `statement_timeout` and was cancelled",
    "raise `statement_timeout`, index the view's tables, or make the cohort a table",
)
_SETTING: Meaning = (
    "HG207",
    "the role does not exist or may not be taken, or a setting is refused",
    "check `role` (GRANT it TO the user), `timezone` and `statement_timeout`",
)

_WHILE_CONNECTING: tuple[tuple[str, Meaning], ...] = (
    (
        r"authentication failed|no password supplied|SCRAM|role \"[^\"]*\" does not",
        ("HG205", "user or password is wrong", "check `user` and `password`"),
    ),
    (
        r"no pg_hba\.conf entry|not permitted to log in",
        (
            "HG205",
            "the server does not let this user in from here",
            "allow this machine's address in pg_hba.conf, with the TLS that `sslmode` asks for",
        ),
    ),
    (
        r"database \"[^\"]*\" does not exist",
        ("HG205", "there is no database of that name", "check `database`"),
    ),
    (
        r"permission denied for database",
        ("HG207", "the user may not connect to the database", "GRANT CONNECT ON DATABASE ... TO the user"),
    ),
    (
        r"server does not support SSL",
        ("HG205", "the server has no TLS", 'turn TLS on there; `sslmode` = "disable" only where nobody listens'),
    ),
    (
        r"certificate verify failed|root certificate|does not match host name|self[- ]signed",
        (
            "HG205",
            "the server's certificate is not vouched for, or is another host's",
            "name the authority's file as `ssl_root_cert`, and `host` as the certificate has it",
        ),
    ),
    (
        r"private key|certificate (file|\")|client certificate|alert",
        ("HG205", "the client's certificate is not accepted", "check `ssl_cert` and `ssl_key` (mode 0600)"),
    ),
    (
        r"too many (clients|connections)|remaining connection slots|starting up|shutting down|recovery mode",
        ("HG200", "the server takes no connection at the moment", "run again; or leave it more connections"),
    ),
)

_BY_STATE: dict[str, Meaning] = {
    "42P01": ("HG202", "a table does not exist", "check the name and `schema`; names in capitals need quotes"),
    "3F000": ("HG202", "a schema does not exist", "check the name"),
    "42501": ("HG207", "the user may not read it", _GRANTS),
    "22023": (
        "HG207",
        "a setting is refused, or the role does not exist",
        "check `role`, `schema` and `timezone`",
    ),
    "57P01": _RESTARTED,
    "57P02": _RESTARTED,
    "57P03": ("HG200", "the server is starting up or shutting down", "run again in a moment"),
    "55000": (
        "HG215",
        "it is not in a state to be read: a materialised view that was never filled, say",
        "REFRESH MATERIALIZED VIEW, then run again",
    ),
    "55P03": ("HG208", "somebody holds a lock on it", "run again when the build is done"),
    "40001": (
        "HG215",
        "the standby cancelled it, because replication went on",
        "set hot_standby_feedback there, make the cohort a table, or read from the primary",
    ),
    "53100": ("HG208", "the server's disk is full", "make room there, or make the cohort a table"),
    "25006": ("HG204", "the query writes, and a source is only read", "give a single SELECT without side effects"),
    "22021": (
        "HG209",
        "a text is not UTF-8: the database's encoding is SQL_ASCII",
        "write convert_from(COLUMN::bytea, 'LATIN1') in a view or in the cohort's query",
    ),
    "42846": ("HG209", "a column's type has no text form", "leave it out, or convert it in a view"),
}
_BY_CLASS: dict[str, Meaning] = {
    "08": _RESTARTED,
    "22": ("HG215", "a value does not fit what the view or query computes", "mend the rows, or the view or query"),
    "28": ("HG205", "the server does not let this user in", "check `user` and `password`"),
    "42": ("HG204", "PostgreSQL does not understand the query", "try it in psql"),
    "0A": ("HG204", "PostgreSQL cannot do this", "try it in psql; a table is named `schema.table`"),
    "53": ("HG200", "the server lacks memory or connections", "run again; or give it more"),
    "HV": ("HG215", "the server behind a foreign table does not answer", "try it in psql"),
    "58": ("HG200", "the server has trouble with its files", "look into its log"),
    "XX": ("HG200", "the server has trouble with its files", "look into its log"),
}
_NAME = re.compile(
    r"(?:relation|table|view|column|schema|function|type|role|database|sequence|operator|materialized view)"
    r" ((?:\"[^\"\n]{1,200}\"|[\w.]{1,200}))(?= |$)"
)
_LOST = re.compile(
    r"server closed the connection|connection to server was lost|no connection to the server"
    r"|terminating connection|could not receive data|could not send data|SSL SYSCALL|EOF|connection reset",
    re.IGNORECASE,
)


def unreachable(error: Exception, source: str, where: str) -> SourceError:
    """Our error for one that came while connecting. The server's words are not repeated."""
    said = str(error)
    found = next((meaning for pattern, meaning in _WHILE_CONNECTING if re.search(pattern, said)), None)
    code, meaning, fix = found or (
        "HG200",
        _network(said),
        "check `host` and `port`, the network, and whether the server runs",
    )
    return SourceError(f"source {source}: connecting to {where}: {meaning}", code=code, fix=fix)


def _network(said: str) -> str:
    reasons = {
        "could not translate host name": "there is no host of that name",
        "Connection refused": "nobody listens there",
        "No such file": "there is no socket of a server",
        "timeout expired": "no answer in time",
        "timed out": "no answer in time",
        "No route": "there is no way to it",
        "unreachable": "there is no way to it",
    }
    return next((reason for words, reason in reasons.items() if words in said), "the server cannot be reached")


def explained(error: Exception, source: str, what: str, *, beginning: bool = False) -> SourceError:
    """Our error for one that came while reading; `beginning`: while the session was being set up.

    PostgreSQL's own words are not repeated, since they may quote a row; the names of a table or a column are.
    """
    details = dict(getattr(error, "details", None) or [])
    said = (details.get("PG_DIAG_MESSAGE_PRIMARY") or b"").decode(errors="replace") or str(error)
    state = str(getattr(error, "sqlstate", None) or "")
    code, meaning, fix = _SETTING if beginning and state[:2] in ("22", "42") else _meaning(state, said)
    named = [state] if state else []
    if state[:2] in ("42", "3F", "0A") and (name := _NAME.search(said)):
        named.insert(0, name[1].strip('"'))
    shown = f" ({', '.join(named)})" if named else ""
    return SourceError(f"source {source}: {what}: {meaning}{shown}", code=code, fix=fix)


def _meaning(state: str, said: str) -> Meaning:
    if state == "57014":
        if "statement timeout" in said:
            return _TIMEOUT
        return ("HG208", "somebody cancelled it", "run again, or ask who ended it on the server")
    if not state and _LOST.search(said):
        return _RESTARTED
    unknown: Meaning = ("HG200", "PostgreSQL refused", "look into the server's log")
    return _BY_STATE.get(state) or _BY_CLASS.get(state[:2]) or unknown
