"""`headgate connector test`: put a connector through the conformance kit."""

from __future__ import annotations

import importlib
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from sync.cli import output
from sync.cli.options import Command, Options
from sync.errors import Problem, ProjectError, UsageError

if TYPE_CHECKING:
    from sync.sdk.connector import Connector
    from sync.testing.contract import ConnectorContract, Result


@click.command("test", cls=Command)
@click.argument("what", metavar="NAME|FILE|FOLDER")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="A config option; repeatable.")
@click.pass_obj
def command(options: Options, what: str, settings: tuple[str, ...]) -> int:
    """Put a connector through the conformance kit; no account and no network are needed.

    NAME is an installed connector, FILE a manifest (.toml) or a Python file with contract classes, FOLDER a
    package of connectors. Everything a destination can do wrong is tried. The checks that need an answer of the
    platform run where the author gives one: in a contract class. It is found through the entry point
    `headgate.contracts`, in the Python file, or for a manifest `acme.toml` in `acme_contract.py` beside it. Exits
    1 where a check fails.
    """
    from sync.testing.contract import run

    found = list(_contracts(what, settings))
    results = [(contract, result) for contract in found for result in run(contract)]
    failed = [result for _, result in results if result.ok is False]
    code = 1 if failed else 0
    if options.json:
        checks = [{"connector": contract.connector.name, **asdict(result)} for contract, result in results]
        names = [contract.connector.name for contract in found]
        output.document(
            "connector test", connector=names[0], connectors=names, ok=not failed, checks=checks, exit_code=code
        )
        return code
    for contract in found:
        if not contract().has_answer:
            output.say(f"{contract.connector.name}: nobody answers in the platform's place: {_UNANSWERED}")
    for _, result in results:
        _tell(result)
    _sum_up(failed)
    passed = sum(result.ok is True for _, result in results)
    output.say(f"{passed} passed, {len(failed)} failed, {len(results) - passed - len(failed)} did not apply")
    return code


_UNANSWERED = "what needs a good answer is not tried (docs/write-a-connector.md says how to give one)"


def _sum_up(failed: list[Result]) -> None:
    """Where most failures have one cause, that one."""
    said, times = Counter(result.message for result in failed).most_common(1)[0] if failed else ("", 0)
    if times > 2:
        output.say(f"{times} checks fail for one reason, begin there: {said}")


def _tell(result: Result) -> None:
    line = f"{result.object}: {result.check}" if result.object else result.check
    if result.ok is None:
        output.say(f"- {line} (does not apply: {result.message})")
        return
    output.say(line + (f": {result.message}" if result.message else ""), kind="ok" if result.ok else "error")
    if result.where:
        output.say(f"    {result.where}")


# --- which contract -------------------------------------------------------------------------------------------


def _contracts(what: str, settings: tuple[str, ...]) -> Iterator[type[ConnectorContract]]:
    """The contract classes meant. Raises `UsageError` and `ProjectError`."""
    path = Path(what)
    if path.is_dir():
        yield from _of_package(path)
    elif path.suffix == ".py":
        yield from _of_file(path)
    else:
        yield _of_connector(what, path, settings)


def _of_connector(what: str, path: Path, settings: tuple[str, ...]) -> type[ConnectorContract]:
    """An installed connector's, or a manifest's."""
    from sync.sdk.registry import contract_of, is_file, load
    from sync.testing.contract import contract_for

    connector = load(what)
    beside = path.with_name(f"{path.stem}_contract.py")
    own: Any = None
    if is_file(what) and beside.is_file():
        own = next((one for one in _of_file(beside) if one.connector.name == connector.name), None)
        own = own and type(own.__name__, (own,), {"connector": connector})
    elif not is_file(what):
        own = contract_of(what)
    if own is not None and not settings:
        return own  # type: ignore[no-any-return]
    config = _config(connector, settings)
    return contract_for(connector, config) if own is None else type(own.__name__, (own,), {"config": config})


def _of_file(path: Path) -> list[type[ConnectorContract]]:
    """The contract classes of a Python file."""
    from sync.testing.contract import ConnectorContract

    module = _imported(path)
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, ConnectorContract) and hasattr(one, "connector")
    ]
    known = {one.connector.name: one for one in found}
    if not known:
        fix = (
            "a contract is a class that inherits sync.testing.contract.ConnectorContract and names its `connector`"
        )
        raise UsageError(f"{path} has no contract", fix=fix)
    return list(known.values())


def _imported(path: Path) -> ModuleType:
    """A Python file as a module. Raises `ProjectError` (HG411) where it cannot be loaded."""
    spec = spec_from_file_location(f"headgate_contract_{path.stem}", path.absolute())
    if spec is None or spec.loader is None or not path.is_file():
        raise UsageError(f"there is no file {path}", fix="give the path of a Python file with contract classes")
    package = next((one for one in path.absolute().parents if (one / "pyproject.toml").is_file()), None)
    sys.path[:0] = [str(path.parent.absolute()), *([str(package / "src"), str(package)] if package else [])]
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        raise _unloadable(str(path), exc) from exc
    return module


def _of_package(folder: Path) -> Iterator[type[ConnectorContract]]:
    """The contracts of a package that need not be installed: its entry points are read from pyproject.toml."""
    from sync.testing.contract import contract_for

    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        fix = "give a folder that `headgate connector new` made, a manifest or the name of a connector"
        raise UsageError(f"{folder} has no pyproject.toml that can be read", fix=fix) from None
    points = project.get("project", {}).get("entry-points", {})
    connectors, contracts = points.get("headgate.connectors", {}), points.get("headgate.contracts", {})
    if not connectors:
        fix = '[project.entry-points."headgate.connectors"] names them'
        raise UsageError(f"{folder / 'pyproject.toml'} names no connectors", fix=fix)
    sys.path[:0] = [str(path.absolute()) for path in (folder / "src", folder) if path.is_dir()]
    for name, target in connectors.items():
        if name in contracts:
            yield _attribute(contracts[name])
        else:
            connector = _attribute(target)
            yield contract_for(connector, _config(connector, ()))


def _attribute(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except ProjectError:
        raise
    except (Exception, SystemExit) as exc:
        raise _unloadable(target, exc) from exc


def _unloadable(what: str, exc: BaseException) -> ProjectError:
    message = f"{what} cannot be loaded: {type(exc).__name__}: {exc}"
    return ProjectError([Problem("HG411", message, "Mend the code, or install what it needs.")])


# --- its configuration ----------------------------------------------------------------------------------------


def _config(connector: type[Connector[Any]], settings: tuple[str, ...]) -> dict[str, str]:
    """The options given, and made-up ones where a manifest needs others; raises `UsageError` where the connector
    does not take them."""
    from pydantic import ValidationError

    given = _made_up(connector)
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


def _made_up(connector: type[Connector[Any]]) -> dict[str, str]:
    """A value for each option of a manifest that has to be given."""
    from sync.sdk.manifest.platform import ManifestConnector

    if not issubclass(connector, ManifestConnector):
        return {}
    options = connector.manifest.options.items()
    return {
        name: o.choices[0] if o.choices else f"made-up-{name.replace('_', '-')}-9f3c"
        for name, o in options
        if o.default is None
    }
