"""What the documents say of commands, options, codes and files is so."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from sync.cli.app import COMMANDS
from sync.engine.guardrails import GUARDRAILS

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]
COMMAND_NAMES = {name for section in COMMANDS.values() for name in section}

_USE = re.compile(r"(?:^\$ |`)(?:uv run )?headgate ([a-z][a-z-]*)([^`\n#]*)", re.MULTILINE)


def uses() -> Iterator[tuple[str, str, str]]:
    """Each command line in the documents: where, the command, its words."""
    for document in DOCUMENTS:
        for match in _USE.finditer(document.read_text()):
            yield document.name, match[1], match[2]


def command_of(name: str, words: str) -> click.Command:
    """The command, or the subcommand that the words name."""
    found: click.Command = importlib.import_module(f"sync.cli.{name}").command
    if isinstance(found, click.Group):
        first = (words.split() or [""])[0]
        return found.commands.get(first, found)
    return found


@pytest.mark.parametrize(("where", "name", "words"), list(uses()))
def test_a_command_in_the_documents_exists_and_takes_those_options(where: str, name: str, words: str) -> None:
    assert name in COMMAND_NAMES
    options = command_of(name, words).params
    known = {flag for option in options for flag in (*option.opts, *option.secondary_opts)}
    known |= {"--project", "--json", "--select", "--exclude", "--help"}

    assert set(re.findall(r"--[a-z-]+", words)) <= known


def test_the_readme_lists_every_command() -> None:
    table = re.findall(r"^\| `([a-z]+)", (ROOT / "README.md").read_text(), re.MULTILINE)

    assert set(table) == COMMAND_NAMES


def test_the_reference_lists_every_guardrail() -> None:
    table = re.findall(r"^\| `([a-z_0-9]+)` \|", (ROOT / "docs/reference/guardrails.md").read_text(), re.MULTILINE)

    assert set(table) == {rule.__name__ for rule in GUARDRAILS} | {"repair"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text())
    local = [link for link in links if "://" not in link]

    assert [link for link in local if not (document.parent / link).exists()] == []


def test_the_readmes_project_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    (config,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (mapping,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mappings").mkdir()
    (tmp_path / "config.toml").write_text(config)
    (tmp_path / "mappings" / "vip.yaml").write_text(mapping)

    done = subprocess.run(
        [sys.executable, "-m", "sync.cli.app", "validate", "--offline"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
