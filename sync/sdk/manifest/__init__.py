"""The first rung: a connector as a TOML file, no Python.

    Acme = connector("acme_headgate", "acme.toml")      # in a module that an entry point names

A manifest says where the API is, how to authenticate, which objects there are, one request for each op, and
where an answer lists what it refused. It is closed on purpose: no conditions, no loops, no expressions; what it
cannot say is the next rung, `HttpConnector`. `docs/reference/manifest.md` describes the whole of it.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

__all__ = ["connector"]


def connector(package: str | Path, file: str = "") -> Any:
    """The `Connector` class of a manifest: a package and the name of a file in it, or a path and how messages call
    it.

    Raises `ProjectError` (HG412) with every mistake in the manifest.
    """
    from sync.sdk.manifest.making import make
    from sync.sdk.manifest.reading import read_file

    if isinstance(package, Path):
        return make(read_file(package, file), package)
    with as_file(files(package) / file) as path:
        return make(read_file(path, f"{package}/{file}"), path)
