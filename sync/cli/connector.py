"""`headgate connector`: list the connectors, or test one."""

from __future__ import annotations

from typing import Any

import click

from sync.cli import output
from sync.cli.options import Options, group
from sync.errors import HeadgateError


@group("connector")
def command() -> None:
    """The connectors that are installed, ours and others'."""


@command.command("list")
@click.pass_obj
def list_(options: Options) -> int:
    """Every installed connector with its objects; exits 1 where one cannot be loaded."""
    from sync.sdk.registry import available

    found = [_data(entry) for entry in available().values()]
    code = 1 if any(one["error"] for one in found) else 0
    if options.json:
        output.document("connector list", connectors=found, exit_code=code)
        return code
    for one in found:
        if one["error"]:
            output.say(f"{one['name']}: {one['error']}", kind="error")
            continue
        output.say(f"{one['name']}: {one['title']}  ({one['distribution']} {one['version']})", kind="ok")
        for spec in one["objects"]:
            output.say(f"  {spec['name']}: {spec['title']} ({', '.join(spec['ops'])})")
    return code


@command.command("test")
@click.argument("name")
@click.pass_obj
def test(options: Options, name: str) -> int:
    """Put a connector through the conformance kit; no account and no network are needed."""
    from sync.sdk.registry import load
    from sync.testing.contract import run

    connector = load(name)
    results = list(run(connector))
    failed = [r for r in results if not r.ok]
    code = 1 if failed else 0
    if options.json:
        checks = [{"check": r.name, "ok": r.ok, "message": r.message} for r in results]
        output.document("connector test", connector=name, ok=not failed, checks=checks, exit_code=code)
        return code
    for r in results:
        output.say(r.name + (f": {r.message}" if r.message else ""), kind="ok" if r.ok else "error")
    output.say(f"{len(results) - len(failed)} of {len(results)} checks passed")
    return code


def _data(entry: Any) -> dict[str, Any]:
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
        found = load(entry.name)
    except HeadgateError as error:
        return data | {"error": error.message}
    specs = getattr(found, "objects", {}).values()
    objects = [{"name": s.name, "title": s.title, "ops": sorted(op.value for op in s.ops)} for s in specs]
    return data | {"title": found.title, "docs": found.docs, "objects": objects}
