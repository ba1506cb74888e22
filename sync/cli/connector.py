"""`headgate connector`: list the connectors, or test one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from sync.cli import output
from sync.cli.options import Options, group
from sync.errors import HeadgateError, UsageError

if TYPE_CHECKING:
    from sync.sdk.connector import Connector


@group("connector", default="list")
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
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A config option; repeatable.")
@click.pass_obj
def test(options: Options, name: str, settings: tuple[str, ...]) -> int:
    """Put a connector through the conformance kit; no account and no network are needed.

    Everything a destination can do wrong is tried. The checks that need an answer of the platform run where the
    connector's author gives one: in the contract class of its tests.
    """
    from sync.sdk.registry import load
    from sync.testing.contract import contract_for, run

    connector = load(name)
    results = list(run(contract_for(connector, _config(connector, settings))))
    failed = [r for r in results if r.ok is False]
    code = 1 if failed else 0
    if options.json:
        keys = ("check", "object", "ok", "message")
        checks = [{key: getattr(r, key) for key in keys} for r in results]
        output.document("connector test", connector=name, ok=not failed, checks=checks, exit_code=code)
        return code
    for r in results:
        line = f"{r.object}: {r.check}" if r.object else r.check
        if r.ok is None:
            output.say(f"- {line} (does not apply: {r.message})")
        else:
            output.say(line + (f": {r.message}" if r.message else ""), kind="ok" if r.ok else "error")
    passed = sum(r.ok is True for r in results)
    output.say(f"{passed} passed, {len(failed)} failed, {len(results) - passed - len(failed)} did not apply")
    return code


def _config(connector: type[Connector[Any]], settings: tuple[str, ...]) -> dict[str, str]:
    """The options given; raises `UsageError` where the connector does not take them or needs others."""
    from pydantic import ValidationError

    given = {}
    for item in settings:
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"'{item}' is not KEY=VALUE", fix="write --set url=http://127.0.0.1:8080")
        given[key] = value
    try:
        connector.config_model.model_validate(given)
    except ValidationError as error:
        wrong = sorted({".".join(map(str, e["loc"])) + f" ({e['msg'].lower()})" for e in error.errors()})
        fix = " ".join(f"--set {name.partition(' ')[0]}=..." for name in wrong)
        raise UsageError(f"{connector.name} does not take these options: {', '.join(wrong)}", fix=fix) from None
    return given


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
