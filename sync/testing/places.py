"""Where a check that failed looks at: the line of the author's code, or the key of the manifest."""

from __future__ import annotations

import inspect
import traceback
from pathlib import Path
from typing import Any

from sync.files import Unreadable, read_toml
from sync.sdk.connector import Connector, HttpConnector
from sync.sdk.manifest.platform import ManifestConnector
from sync.testing.check import Check

__all__ = ["place_of"]


def place_of(connector: type[Connector[Any]], check: Check, object: str, error: Exception) -> str:
    """`file:line` and what stands there; empty where nothing is known of it."""
    if issubclass(connector, ManifestConnector) and connector.path is not None:
        return _key(connector, connector.path, check, object, str(error))
    return _raised(connector, error) or _verb(connector, check)


def _part(check: Check) -> str:
    """What the check is about, by the module it stands in: a declaration, an audience, a receipt, an answer."""
    return check.run.__module__.rpartition(".")[2]


def _key(connector: type[ManifestConnector], path: Path, check: Check, object: str, said: str) -> str:
    """The key of the manifest, and its line."""
    way = _way(connector, check, object, said)
    try:
        document = read_toml(path, str(path))
    except Unreadable:
        return str(path)
    found = document.known(way)
    mark = document.mark(found, key=True)
    return f"{path}:{mark.line if mark else 1} {'.'.join(map(str, found))}".rstrip()


def _way(connector: type[ManifestConnector], check: Check, object: str, said: str) -> tuple[str, ...]:
    if not object:
        return ("check",) if check.sentence.startswith("check()") else ()
    part, op = _part(check), said.partition(":")[0]
    if part == "audiences":
        return ("objects", object, "members")
    if part == "discovery":
        return ("objects", object, "create")
    if part == "declared":
        return ("objects", object)
    if "429" in check.sentence:
        return ("rate_signal",)
    one = connector.manifest.objects.get(object)
    if one is None or one.mixed is not None:
        return ("objects", object, "mixed")
    if op in one.actions:
        return ("objects", object, "actions", op)
    return ("objects", object, "actions", "upsert" if op in ("add", "update") and "upsert" in one.actions else "")


def _raised(connector: type[Connector[Any]], error: Exception) -> str:
    """The last line of the author's own file in an exception's way."""
    own = inspect.getsourcefile(connector)
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == own]
    return f"{own}:{frames[-1].lineno} in {frames[-1].name}()" if frames else ""


def _verb(connector: type[Connector[Any]], check: Check) -> str:
    """The method the check is about."""
    names = {"audiences": ["members"], "discovery": ["create_audience"], "declared": []}.get(
        _part(check), ["receipts", "push"] if issubclass(connector, HttpConnector) else ["push"]
    )
    names = (
        ["check"]
        if check.sentence.startswith("check()")
        else ["retry_after"]
        if "429" in check.sentence
        else names
    )
    names = ["poll"] if "job" in check.sentence.split() or "poll" in check.sentence.split() else names
    for name in names:
        method = getattr(connector, name, None)
        if method is not None and not getattr(method, "__module__", "sync.").startswith("sync."):
            return _line(inspect.unwrap(getattr(method, "__func__", method)), f"{name}()")
    return _line(connector, connector.__name__)


def _line(thing: Any, name: str) -> str:
    try:
        _, line = inspect.getsourcelines(thing)
        return f"{inspect.getsourcefile(thing)}:{line} {name}"
    except (OSError, TypeError):
        return ""
