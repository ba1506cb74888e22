"""The files of a new project: copied from the examples that come with Headgate, and never over anything."""

from __future__ import annotations

import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from sync.errors import HeadgateError, UsageError

__all__ = ["CONFIG_EXAMPLE", "WAREHOUSE", "example_folder", "refresh_demo", "write_project"]

CONFIG_EXAMPLE = "config.example.toml"
WAREHOUSE = "warehouse.duckdb"

_FILES = {
    "config.toml": CONFIG_EXAMPLE,
    "mappings/README.md": "mappings/README.md",
    "mappings/vip_customers.yaml": "mappings/vip_customers.yaml",
}
_DEMO_FILES = {
    "warehouse/people.sql": "mappings/demo/people.sql",
    "warehouse/vip_customers.sql": "mappings/demo/vip_customers.sql",
}
_GITIGNORE = ".headgate/\ncheckpoints/\n*.duckdb\n*.duckdb.wal\n"


def write_project(folder: Path, demo: bool = False) -> list[Path]:
    """Make a project in `folder`, with a DuckDB warehouse of 20,000 fictional people for a `demo`.

    Returns the files that were made. Raises `UsageError`: HG130 where one is there already (nothing is written
    then), HG131 where one cannot be written.
    """
    contents = {
        folder / target: (example_folder() / source).read_text() for target, source in _chosen(demo).items()
    }
    contents[folder / ".gitignore"] = _GITIGNORE
    wanted = [*contents, *([folder / WAREHOUSE] if demo else [])]
    if there := [path for path in wanted if path.exists() or path.is_symlink()]:
        fix = "Name another folder, or move the file away."
        raise UsageError(f"{there[0]} is there already, and init overwrites nothing", code="HG130", fix=fix)
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        what = f"cannot write {error.filename}: {(error.strerror or 'unknown reason').lower()}"
        raise UsageError(what, code="HG131", fix="Check the path and its rights.") from None
    if demo:
        _build(folder, "people.sql", "vip_customers.sql")
    return wanted


def refresh_demo(folder: Path) -> None:
    """Build the demo's cohort again from its table `people`, as a warehouse would do every day."""
    _build(folder, "vip_customers.sql")


def _chosen(demo: bool) -> dict[str, str]:
    return _FILES | _DEMO_FILES if demo else _FILES


def _build(folder: Path, *names: str) -> None:
    """Run SQL files of the project in its warehouse."""
    import duckdb

    with duckdb.connect(str(folder / WAREHOUSE)) as connection:
        for name in names:
            connection.execute((folder / "warehouse" / name).read_text(encoding="utf-8"))


def example_folder() -> Path:
    """Where config.example.toml and mappings/ are: the checkout, or share/headgate of the installation."""
    checkout = Path(__file__).parent.parent
    candidates = [checkout, *_installed(), *(Path(p) / "share" / "headgate" for p in _prefixes())]
    for candidate in candidates:
        if (candidate / CONFIG_EXAMPLE).is_file():
            return candidate
    raise HeadgateError(f"{CONFIG_EXAMPLE} did not come with this installation", fix="Install headgate again.")


def _installed() -> list[Path]:
    """The folder as the installed distribution lists it; it may be a user's, a target's or a zip's."""
    try:
        files = distribution("headgate").files or []
    except PackageNotFoundError:
        return []
    return [Path(str(file.locate())).parent for file in files if file.name == CONFIG_EXAMPLE]


def _prefixes() -> list[str]:
    return [sysconfig.get_path("data"), sys.prefix]
