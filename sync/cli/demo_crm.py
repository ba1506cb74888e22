"""The small CRM of the demo: on the loopback, remembered in the demo's folder between two commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from sync.cli import words
from sync.errors import UsageError

if TYPE_CHECKING:
    from sync.testing.fakes.crm import Crm

__all__ = ["configured", "counts", "serving"]

PEOPLE = "crm.json"


@contextmanager
def serving(folder: Path) -> Iterator[Crm]:
    """Serve the CRM at the address that the folder's config.toml has for it.

    What it knew when it was last stopped it knows again. Raises `UsageError` where the port is taken.
    """
    from sync.testing.fakes.crm import Crm

    crm, store, port = Crm(), folder / PEOPLE, urlsplit(configured(folder)).port or 0
    if store.is_file():
        crm.people.update(json.loads(store.read_text(encoding="utf-8")))
    try:
        context = crm.serve(port)
        context.__enter__()
    except OSError:
        fix = f"stop what listens there, or change the url in {folder / 'config.toml'}"
        raise UsageError(f"port {port} is taken", fix=fix) from None
    try:
        yield crm
    finally:
        context.__exit__(None, None, None)
        store.write_text(json.dumps(crm.people), encoding="utf-8")


def configured(folder: Path) -> str:
    """The URL of `[destinations.crm]`."""
    from sync.settings import load_settings

    destination = load_settings(folder).destinations.get("crm")
    url = destination.options.get("url") if destination is not None else None
    if not isinstance(url, str):
        raise UsageError(f"{folder} is not a folder of the demo", fix="make one: headgate demo")
    return url


def free_port(folder: Path) -> None:
    """Give the CRM another port in config.toml where the usual one is taken."""
    import socket

    url = configured(folder)
    port = urlsplit(url).port
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return
        except OSError:
            probe.bind(("127.0.0.1", 0))
            other = probe.getsockname()[1]
    config = folder / "config.toml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace(url, url.replace(f":{port}", f":{other}")), encoding="utf-8")


def counts(crm: Crm) -> str:
    """What reached it so far."""
    if not crm.requests:
        return f"{len(crm.people):,} people, no request so far"
    sent = ", ".join(
        f"{crm.records[op]:,} {op} in {words.several(crm.requests[op], 'request')}" for op in crm.requests
    )
    return f"{len(crm.people):,} people; received {sent}"
