"""Finds connectors, ours and yours alike, through the entry-point group `headgate.connectors`.

An entry point names a `Connector` class, written in Python or made of a manifest by `sync.sdk.manifest`. A
manifest can also be used as it is: the path of a file that ends in `.toml` stands for a name.
Listing imports nothing; a plugin that cannot be loaded is an error only for whoever uses it.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sync.errors import Problem, ProjectError

if TYPE_CHECKING:
    from sync.sdk.connector import Connector

__all__ = ["CONTRACTS", "GROUP", "ConnectorEntry", "available", "contract_of", "is_file", "load"]

GROUP = "headgate.connectors"
CONTRACTS = "headgate.contracts"


@dataclass(frozen=True, slots=True)
class ConnectorEntry:
    """An installed connector: its name, where its code is, and the distribution it came with."""

    name: str
    target: str  # module:attribute
    distribution: str = ""
    version: str = ""


def available() -> dict[str, ConnectorEntry]:
    """Every installed connector by name; nothing is imported."""
    return {name: _entry(point) for name, point in sorted(_points().items())}


def is_file(name: str) -> bool:
    """Is this the path of a manifest, and not the name of an installed connector."""
    return name.endswith(".toml")


def load(name: str, root: Path | None = None) -> type[Connector[Any]]:
    """The connector's class, of an installed connector or of a manifest file, whose path is relative to `root`.

    Raises `ProjectError`: HG410 no such connector, HG411 it cannot be loaded, HG412 the manifest has mistakes.
    """
    if is_file(name):
        from sync.sdk.manifest import connector

        return connector((root or Path()) / Path(name).expanduser(), name)  # type: ignore[no-any-return]
    points = _points()
    if name not in points:
        raise _problem("HG410", f"there is no connector '{name}'", _nearest(name, points))
    return _load(points[name])


def contract_of(name: str) -> Any:
    """The contract class that the package of an installed connector offers under `headgate.contracts`; None where
    it offers none. Raises `ProjectError` (HG411) where it cannot be loaded."""
    point = next((point for point in entry_points(group=CONTRACTS) if point.name == name), None)
    if point is None:
        return None
    try:
        return point.load()
    except (Exception, SystemExit) as exc:
        raise _broken(_entry(point), "", f"its contract: {type(exc).__name__}: {exc}") from exc


def _points() -> dict[str, EntryPoint]:
    """Entry points by name; of two with one name, the first wins."""
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        points.setdefault(point.name, point)
    return points


def _entry(point: EntryPoint) -> ConnectorEntry:
    dist = point.dist
    return ConnectorEntry(point.name, point.value, dist.name if dist else "", dist.version if dist else "")


def _load(point: EntryPoint) -> type[Connector[Any]]:
    from sync.sdk.connector import Connector

    entry = _entry(point)
    whose = f" of {entry.distribution} {entry.version}" if entry.distribution else ""
    try:
        found = point.load()
    except (Exception, SystemExit) as exc:
        raise _broken(entry, whose, f"{type(exc).__name__}: {exc}") from exc
    if not (isinstance(found, type) and issubclass(found, Connector)):
        raise _broken(entry, whose, f"{entry.target} is not a Connector class")
    if getattr(found, "name", None) != entry.name:
        raise _broken(entry, whose, f"it calls itself '{getattr(found, 'name', '')}'")
    return found


def _broken(entry: ConnectorEntry, whose: str, why: str) -> ProjectError:
    fix = f"Install a version of {entry.distribution or 'the plugin'} that works with this one, or remove it."
    return _problem("HG411", f"the connector '{entry.name}'{whose} cannot be loaded: {why}", fix)


def _nearest(name: str, points: dict[str, EntryPoint]) -> str:
    near = difflib.get_close_matches(name, points, n=1)
    names = ", ".join(sorted(points)) or "none"
    return f"Did you mean '{near[0]}'?" if near else f"Installed: {names}."


def _problem(code: str, message: str, fix: str) -> ProjectError:
    return ProjectError([Problem(code, message, fix)])
