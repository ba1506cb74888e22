"""`headgate connector fake`: a platform that stands in for the real one, for a dry run from end to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from sync.cli import output, words
from sync.cli.options import Command, Options
from sync.errors import UsageError

if TYPE_CHECKING:
    from sync.testing.fakes.platform import Ready

_WHERE = "sync.testing.fakes"


@click.command("fake", cls=Command)
@click.argument("name")
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="The port (default: a free one).")
@click.pass_obj
def command(options: Options, name: str, port: int) -> int:
    """Serve a stand-in for a connector's platform on this machine, until Ctrl-C.

    It behaves as the platform documents: it keeps what it is sent, limits the rate, refuses what the platform
    refuses, and takes time over jobs. It prints what config.toml needs to send to it. Nothing leaves this machine,
    and what it was sent is forgotten when it ends.
    """
    from sync.cli.signals import draining

    ready = _ready(name)
    with _served(ready, port) as url, draining(lambda _: None) as stop:
        settings, secrets = _settings(name, ready.options(url))
        if options.json:
            found = {
                "url": url,
                "destination": settings,
                "environment": secrets,
                "audiences": dict(ready.audiences),
            }
            output.document("connector fake", connector=name, **found)
        else:
            _tell(name, url, ready, settings, secrets)
        sys.stdout.flush()
        told = 0
        while not stop.wait(0.5):
            if not options.json and ready.app.requests != told:
                told = ready.app.requests
                output.say(f"{words.several(told, 'request')}, {ready.app.refused:,} of them too fast")
                sys.stdout.flush()
    return 0


def _ready(name: str) -> Ready:
    """A fake with an account in it. Raises `UsageError` where there is none for this connector."""
    from sync.sdk.registry import load

    connector = load(name)
    if not name.isidentifier() or find_spec(f"{_WHERE}.{name}") is None:
        raise UsageError(
            f"there is no stand-in for {connector.title}",
            fix="try it on a test account, or a database, of your own",
        )
    ready: Ready = import_module(f"{_WHERE}.{name}").ready()
    return ready


@contextmanager
def _served(ready: Ready, port: int) -> Iterator[str]:
    from sync.testing.fakes.server import serve

    context = serve(ready.app, port)
    try:
        url = context.__enter__()
    except OSError:
        raise UsageError(f"port {port} is taken", fix="name another, or none: --port 0") from None
    try:
        yield url
    finally:
        context.__exit__(None, None, None)


def _settings(name: str, options: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The destination's section, with references for secrets, and the variables that they refer to."""
    from pydantic import SecretStr

    from sync.sdk.registry import load

    fields = load(name).config_model.model_fields
    settings: dict[str, Any] = {"type": name}
    secrets: dict[str, str] = {}
    for key, value in options.items():
        if SecretStr.__name__ in str(fields[key].annotation):
            variable = f"FAKE_{name}_{key}".upper()
            secrets[variable] = str(value)
            settings[key] = f"env:{variable}"
        else:
            settings[key] = value
    return settings, secrets


def _tell(name: str, url: str, ready: Ready, settings: dict[str, Any], secrets: dict[str, str]) -> None:
    import shlex

    import tomlkit

    output.say(f"a stand-in for {name} answers at {url}, on this machine only; Ctrl-C stops it", kind="ok")
    output.say("\nin config.toml:\n")
    output.say(tomlkit.dumps({"destinations": {f"fake_{name}": settings}}).replace("[destinations]\n", "").strip())
    if secrets:
        output.say("\nin the shell that runs headgate:\n")
        for variable, value in secrets.items():
            output.say(f"export {variable}={shlex.quote(value)}")
    for object, audience in ready.audiences.items():
        output.say(f"\nan audience for '{object}':  audience: {json.dumps(audience)}")
    output.say()
