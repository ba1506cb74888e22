"""`headgate schema`: write JSON Schemas, so that editors complete and check the project's files."""

from __future__ import annotations

import json
from pathlib import Path

import click

from sync.cli import output
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.errors import UsageError


@_command("schema")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), help="The folder (default: .headgate/schema)."
)
@click.pass_obj
def command(options: Options, out: Path | None) -> None:
    """Write the JSON Schemas of the mapping files, of config.toml and of connectors' manifests."""
    from sync.project import schemas

    folder = out or options.project / ".headgate" / "schema"
    found = schemas()
    written = []
    try:
        if out is None:  # inside the state folder, which is for its owner only
            folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for name, schema in found.items():
            path = folder / f"{name}.schema.json"
            path.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            written.append(str(path))
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}", fix="give --out another folder") from None
    if options.json:
        output.document("schema", files=written, exit_code=0)
    else:
        for path_name in written:
            output.say(path_name)
