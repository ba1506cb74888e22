"""`headgate connector new`: make the package of a connector."""

from __future__ import annotations

from pathlib import Path

import click

from sync.cli import output
from sync.cli.options import Command, Options


@click.command("new", cls=Command)
@click.argument("name")
@click.option(
    "--manifest/--python", "manifest", default=True, help="A TOML manifest (default), or a Python class."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The package's folder (NAME-headgate).",
)
@click.pass_obj
def command(options: Options, name: str, manifest: bool, folder: Path | None) -> None:
    """Make the package of a connector: its entry point, a stand-in for the platform, a contract and tests.

    The tests pass at once, against a platform that was made up. Change them, the stand-in and the connector to
    what the platform's documentation says.
    """
    from sync.authoring import write_package

    where = folder or Path(f"{name.replace('_', '-')}-headgate")
    written = write_package(where, name, manifest=manifest)
    if options.json:
        files = [str(path) for path in written]
        output.document("connector new", connector=name, folder=str(where), files=files, exit_code=0)
        return
    for path in written:
        output.say(f"  {path}")
    output.say(f"made {where}", kind="ok")
    output.say(f"  next: headgate connector test {where}")
