"""The wheel has what a user needs, and what is committed names nobody's machine."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def uv() -> str:
    """The path of uv."""
    found = shutil.which("uv")
    if found is None:
        pytest.skip("uv is not installed")
    return found


@pytest.fixture(scope="module")
def wheel_file(uv: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made now."""
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", str(out)], cwd=ROOT, check=True)
    (file,) = out.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def wheel(wheel_file: Path) -> list[str]:
    """The names of the files in it."""
    with zipfile.ZipFile(wheel_file) as archive:
        return archive.namelist()


@pytest.mark.parametrize(
    "name",
    ["sync/cli/app.py", "sync/py.typed", "connectors/webhook.py", "sync/testing/__init__.py"],
)
def test_the_wheel_has_the_code(wheel: list[str], name: str) -> None:
    assert name in wheel


@pytest.mark.parametrize("name", ["mappings/README.md", "config.example.toml"])
def test_the_wheel_has_the_examples_as_shared_data(wheel: list[str], name: str) -> None:
    assert [found for found in wheel if found.endswith(f".data/data/share/headgate/{name}")]


def test_the_wheel_has_the_migrations(wheel: list[str]) -> None:
    assert [name for name in wheel if name.startswith("sync/state/migrations/versions/")]


def test_the_wheel_has_nothing_else(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel if not name.startswith("headgate-")}

    assert tops == {"sync", "connectors"}


def test_an_installed_wheel_owns_sync_and_connectors_alone(uv: str, wheel_file: Path, tmp_path: Path) -> None:
    command = [uv, "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), str(wheel_file)]
    subprocess.run([*command, "--python", sys.executable], check=True)
    script = (
        "import importlib.metadata as m, json; d = m.packages_distributions(); "
        "print(json.dumps([sorted(set(d[name])) for name in ('sync', 'connectors')]))"
    )
    clean = {**os.environ, "PYTHONPATH": str(tmp_path)}

    owners = json.loads(
        subprocess.check_output([sys.executable, "-c", script], cwd=tmp_path, env=clean, text=True)
    )

    assert owners == [["headgate"], ["headgate"]]


def test_every_connector_entry_point_loads() -> None:
    entries = importlib.metadata.entry_points(group="headgate.connectors")

    assert {e.name for e in entries} == set(PROJECT["project"]["entry-points"]["headgate.connectors"])
    for entry in entries:
        assert entry.load().name == entry.name


def test_the_package_of_connectors_has_no_code() -> None:
    lines = (ROOT / "connectors" / "__init__.py").read_text().strip()

    assert re.fullmatch(r'"""[^"]*"""', lines)


def test_the_command_starts_without_the_heavy_libraries() -> None:
    script = "import sync.cli.app, sys; print(*sorted({name.split('.')[0] for name in sys.modules}))"

    loaded = set(subprocess.check_output([sys.executable, "-c", script], text=True).split())

    heavy = {
        "duckdb",
        "pyarrow",
        "sqlalchemy",
        "alembic",
        "httpx",
        "sqlglot",
        "snowflake",
        "adbc_driver_manager",
        "cryptography",
        "apscheduler",
    }
    assert loaded & heavy == set()


def test_both_lists_of_tested_versions_agree() -> None:
    assert (ROOT / "constraints.txt").read_text().splitlines() == PROJECT["tool"]["uv"]["constraint-dependencies"]


def test_every_dependency_has_a_tested_version() -> None:
    wanted = PROJECT["project"]["dependencies"] + PROJECT["dependency-groups"]["dev"]
    wanted += [one for extra in PROJECT["project"]["optional-dependencies"].values() for one in extra]
    tested = {_name(line) for line in (ROOT / "constraints.txt").read_text().splitlines()}

    assert {_name(requirement) for requirement in wanted} <= {*tested, "headgate"}  # the extras, by our own name


def test_no_committed_file_names_a_machine_or_a_registry() -> None:
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    files = subprocess.check_output([git, "ls-files", "-z"], cwd=ROOT, text=True).split("\0")
    found = [
        f"{name}:{number}: {match[0]}"
        for name in filter(None, files)
        for number, line in enumerate(_lines(ROOT / name), start=1)
        if (match := _FORBIDDEN.search(line))
    ]

    assert found == []


def test_no_lock_file_is_committed() -> None:
    assert "uv.lock" in (ROOT / ".gitignore").read_text().splitlines()


# Spelled in pieces, so that this file does not find itself.
_FORBIDDEN = re.compile(
    "|".join(
        (
            r"(?<![\w.])/" + r"(?:work|root)/",
            r"files\.python" + r"hosted",
            r"(?:test\.)?py" + r"pi\.org",
            r"registry\." + r"npmjs",
            r"deb\.deb" + r"ian\.org",
        )
    )
)


def _name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name
    return re.sub(r"[._-]+", "-", name[0]).lower()


def _lines(path: Path) -> list[str]:
    return path.read_text(errors="ignore").splitlines() if path.is_file() else []
