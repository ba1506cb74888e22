"""Writes `docs/connectors.md`: what every connector takes, and how much its tests mean.

    python -m sync.testing.table              # what they take: from the registry and the contract classes
    python -m sync.testing.table --figures    # and the figures, by running every contract once

Only the parts between the markers are written; the rest of the document is a person's.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sync.sdk.connector import Connector, Creates, Describes, Polls, Reads
from sync.sdk.http import offline_client
from sync.sdk.nouns import Delivery, Field, Limits, ObjectSpec, Op
from sync.sdk.registry import available
from sync.testing.contract import ConnectorContract
from sync.testing.openapi import FOLDER

__all__ = ["contracts", "objects", "replaced"]

_GRADES = {
    "A": "the vendor's own",
    "A'": "made from the vendor's own source",
    "B": "a copy of the vendor's",
    "B'": "put together from the vendor's words",
    "C": "**reconstructed** (nobody's contract)",
}


# -- what they take


def contracts(folder: Path) -> dict[str, type[ConnectorContract]]:
    """The contract class of each installed connector, by its name, from the test files of a folder."""
    kept = [_module(path) for path in sorted(folder.glob("test_*.py")) if "ConnectorContract" in path.read_text()]
    found = [one for module in kept for one in vars(module).values() if _is_contract(one)]
    named = {one.connector.name: one for one in reversed(found) if hasattr(one, "connector")}
    return {name: named[name] for name in available() if name in named}


def _is_contract(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, ConnectorContract) and value.__name__.startswith("Test")


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"contract_of_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file", path=str(path))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def objects(found: Mapping[str, type[ConnectorContract]]) -> str:
    """The generated part that says what each connector takes, in Markdown."""
    return "\n".join(line for contract in found.values() for line in _section(contract))


def _section(contract: type[ConnectorContract]) -> Iterator[str]:
    connector = _made(contract)
    yield f"## {connector.title} (`{connector.name}`)"
    yield ""
    yield "| object | ops | it is sent | identified by | at once |"
    yield "|---|---|---|---|---|"
    for spec in connector.objects.values():
        cells = (f"{spec.title} `{spec.name}`", _ops(spec), _sent(spec), _identified(spec), _limits(spec.limits))
        yield f"| {' | '.join(cells)} |"
    yield ""
    if able := list(_able(connector)):
        yield f"It {', '.join(able)}."
        yield ""


def _made(contract: type[ConnectorContract]) -> Connector[Any]:
    with tempfile.TemporaryDirectory(prefix="headgate-") as folder:
        config = contract().make_config(Path(folder))
        return contract.connector(config, offline_client(contract.connector, config))


def _ops(spec: ObjectSpec) -> str:
    return ", ".join(
        f"{op.value} (for good)" if op in spec.irreversible else op.value for op in Op if op in spec.ops
    )


def _sent(spec: ObjectSpec) -> str:
    what = "every member" if spec.delivery is Delivery.SNAPSHOT else "the changes"
    again = "" if spec.idempotent else ", never twice"
    return f"{what}{', into an audience' if spec.audience else ''}{again}"


def _identified(spec: ObjectSpec) -> str:
    said = ", ".join(_field(one) for one in spec.identifiers)
    return said or "any field"


def _field(one: Field) -> str:
    how = ", ".join(word for word in (one.normalise, one.hash) if word)
    return f"`{one.name}`{f' ({how})' if how else ''}"


def _limits(limits: Limits) -> str:
    parts = [f"{limits.batch_size:,} records"] if limits.batch_size else []
    parts += [f"{limits.batch_bytes:,} bytes"] if limits.batch_bytes else []
    parts += [f"{limits.concurrency} requests"] if limits.concurrency > 1 else ["1 request"]
    parts += [f"{rate.requests:,} in {rate.per:g} s" for rate in limits.rates]
    return ", ".join(parts) + (", ops mixed" if limits.mixed_ops else "")


def _able(connector: Connector[Any]) -> Iterator[str]:
    if isinstance(connector, Creates):
        yield "makes audiences"
    if isinstance(connector, Reads):
        yield "reads who is in them"
    if isinstance(connector, Describes):
        yield "says which fields the account has"


# -- figures


def figures(found: Mapping[str, type[ConnectorContract]], folder: Path) -> str:
    """The generated part with the figures, in Markdown, from running every contract once with pytest.

    Raises `subprocess.CalledProcessError` where a check fails: figures are of what is green.
    """
    lines = [
        "| connector | what became of a record is told | described by | checks passed | broken requests caught |",
        "|---|---|---|--:|--:|",
    ]
    seen = _run(folder)
    total = 0
    for name, contract in found.items():
        cases = seen.get(name, [])
        passed = [case for case in cases if case["passed"]]
        total += len(passed)
        told, caught = _told(contract, passed), _caught(passed)
        lines.append(f"| `{name}` | {told} | {_described(contract)} | {len(passed)} | {caught} |")
    return "\n".join([*lines, "", f"{total:,} checks in all."])


def _run(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """The tests of the contracts, by connector: what pytest says of each."""
    with tempfile.TemporaryDirectory(prefix="headgate-") as scratch:
        report = Path(scratch) / "report.xml"
        names = "test_contract or test_request_mutants"
        command = [sys.executable, "-m", "pytest", "-q", "-o", "junit_family=xunit1", f"--junitxml={report}"]
        workers = ["-n", str(os.cpu_count() or 1)] if importlib.util.find_spec("xdist") else []
        subprocess.run([*command, *workers, "-k", names, str(folder)], check=True)
        tree = ElementTree.parse(report)  # noqa: S314 - pytest wrote it just now
    seen: dict[str, list[dict[str, Any]]] = {}
    for case in tree.iter("testcase"):
        told = {str(one.get("name")): str(one.get("value")) for one in case.iter("property")}
        if "connector" in told:
            passed = case.find("skipped") is None
            seen.setdefault(told["connector"], []).append({"name": case.get("name"), "passed": passed, **told})
    return seen


def _told(contract: type[ConnectorContract], passed: list[dict[str, Any]]) -> str:
    """How the destination reports, as far as the checks show it."""
    statuses = {word for case in passed for word in case.get("statuses", "").split()}
    how = [" or ".join(sorted(statuses))] if statuses else []
    how += ["by a job that is polled"] if isinstance(_made(contract), Polls) else []
    how += ["one record refused alone"] if any("a rejected record has" in case["name"] for case in passed) else []
    return "; ".join(how)


def _caught(passed: list[dict[str, Any]]) -> str:
    for case in passed:
        if "made" in case:
            return f"{int(float(case['caught']) * 100 + 1e-9)}% of {case['made']}"
    return "-"


def _described(contract: type[ConnectorContract]) -> str:
    described = contract.described
    if described is None:
        return "-"
    graded = _graded()
    words = {_GRADES.get(graded.get(str(one), ""), f"our own `{Path(one).name}`") for one in described.files}
    if described.reconstructed:
        words.add(_GRADES["C"])
    return f"{', '.join(sorted(words))}{', rules by hand' if described.rules else ''}"


def _graded() -> dict[str, str]:
    """The grade of each description, from the table beside them."""
    table = FOLDER / "PROVENANCE.md"
    if not table.exists():
        return {}
    rows = [[cell.strip() for cell in line.split("|")] for line in table.read_text().splitlines()]
    return {row[1]: row[9].partition(" ")[0] for row in rows if len(row) > 10}


# -- the document


def replaced(document: str, name: str, text: str) -> str:
    """The document with the part of a name replaced. Raises `LookupError` where it has no such part."""
    pattern = re.compile(rf"(<!-- {name}: [^>]*-->\n).*?(<!-- end of {name} -->)", re.DOTALL)
    made, count = pattern.subn(lambda match: f"{match[1]}\n{text.strip()}\n\n{match[2]}", document)
    if count != 1:
        raise LookupError(f"the document has no part `{name}`")
    return made


def main() -> None:
    """Write the document."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--figures", action="store_true", help="run every contract, and write the figures too")
    parser.add_argument("--document", type=Path, default=Path("docs/connectors.md"))
    parser.add_argument("--tests", type=Path, default=Path("tests/connectors"))
    given = parser.parse_args()
    found = contracts(given.tests)
    document = replaced(given.document.read_text(), "objects", objects(found))
    if given.figures:
        document = replaced(document, "figures", figures(found, given.tests))
    given.document.write_text(document)


if __name__ == "__main__":
    sys.path.insert(0, str(Path.cwd()))
    main()
