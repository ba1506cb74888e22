"""`headgate version`."""

from __future__ import annotations

from importlib.metadata import version
from platform import python_version

import click

from sync.cli import output
from sync.cli.options import Options
from sync.cli.options import command as _command


@_command("version")
@click.pass_obj
def command(options: Options) -> None:
    """Print the version."""
    if options.json:
        output.document("version", version=version("headgate"), python=python_version(), exit_code=0)
    else:
        output.say(version("headgate"))
