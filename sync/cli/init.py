"""`headgate init`: make a project."""

from __future__ import annotations

from pathlib import Path

import click

from sync.cli import output
from sync.cli.options import Options
from sync.cli.options import command as _command


@_command("init")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIR")
@click.option("--demo", is_flag=True, help="With a DuckDB warehouse of 20,000 fictional people and a mapping.")
@click.pass_obj
def command(options: Options, directory: Path, demo: bool) -> None:
    """Make a project: config.toml and a first mapping. Nothing is overwritten."""
    from sync.templates import write_project

    written = write_project(directory, demo)
    if options.json:
        output.document("init", folder=str(directory), files=[str(path) for path in written], exit_code=0)
        return
    for path in written:
        output.say(f"  {path}")
    output.say(f"made {directory}", kind="ok")
    output.say(f"  next: cd {directory}; headgate validate --offline")
