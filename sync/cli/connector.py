"""`headgate connector`: list the connectors; make one, and test it."""

from __future__ import annotations

from typing import Any

import click

from sync.cli import connector_fake, connector_new, connector_test, output
from sync.cli.options import Options, group
from sync.errors import HeadgateError


@group("connector", default="list")
def command() -> None:
    """The connectors that are installed, ours and others'."""


@command.command("list")
@click.pass_obj
def list_(options: Options) -> int:
    """Every connector that is installed, or a manifest in the project's config.toml, with its objects and where it
    comes from; exits 1 where one cannot be loaded."""
    from sync.sdk.registry import available

    found = [_data(entry, options) for entry in (*available().values(), *_manifests(options))]
    code = 1 if any(one["error"] for one in found) else 0
    if options.json:
        output.document("connector list", connectors=found, exit_code=code)
        return code
    for one in found:
        if one["error"]:
            output.say(f"{one['name']}: {one['error']}", kind="error")
            continue
        whence = (
            f"{one['distribution']} {one['version']}, {one['target']}" if one["distribution"] else one["target"]
        )
        output.say(f"{one['name']}: {one['title']}  ({whence})", kind="ok")
        for spec in one["objects"]:
            output.say(f"  {spec['name']}: {spec['title']} ({', '.join(spec['ops'])})")
    return code


command.add_command(connector_fake.command)
command.add_command(connector_new.command)
command.add_command(connector_test.command)


def _manifests(options: Options) -> list[Any]:
    """The manifest files that destinations of the project name; none where there is no project."""
    from sync.sdk.registry import ConnectorEntry, is_file
    from sync.settings import load_settings

    try:
        destinations = load_settings(options.project).destinations
    except HeadgateError:
        return []
    files = dict.fromkeys(one.type for one in destinations.values() if is_file(one.type))
    return [ConnectorEntry(file, file) for file in files]


def _data(entry: Any, options: Options) -> dict[str, Any]:
    from sync.sdk.registry import load

    data: dict[str, Any] = {
        "name": entry.name,
        "target": entry.target,
        "distribution": entry.distribution,
        "version": entry.version,
        "title": "",
        "docs": "",
        "objects": [],
        "error": None,
    }
    try:
        found = load(entry.name, options.project)
    except HeadgateError as error:
        return data | {"error": error.message}
    specs = getattr(found, "objects", {}).values()
    objects = [{"name": s.name, "title": s.title, "ops": sorted(op.value for op in s.ops)} for s in specs]
    return data | {"title": found.title, "docs": found.docs, "objects": objects}
