"""Write down the tested versions of everything we depend on: constraints.txt, and a list for uv in pyproject.toml.

pip and `uv pip` read the file; `uv run` and `uv sync` read the list. A lock file would name a registry's host.
With `--forget` the list is emptied first, so that the next resolution may take newer versions.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tomlkit

ROOT = Path(__file__).parent.parent
EXPORT = ["uv", "export", "--quiet", "--all-groups", "--all-extras", "--no-hashes", "--no-emit-project"]
EXPORT += ["--no-annotate", "--no-header"]


def resolved() -> list[str]:
    """`name==version ; marker` of every package in the resolution."""
    lines = subprocess.check_output(EXPORT, cwd=ROOT, text=True).splitlines()
    return [line for line in lines if "==" in line]


def main() -> None:
    """Write both lists."""
    pins = [] if "--forget" in sys.argv else resolved()
    (ROOT / "constraints.txt").write_text("".join(f"{pin}\n" for pin in pins))
    file = ROOT / "pyproject.toml"
    project = tomlkit.parse(file.read_text())
    wanted = tomlkit.array()
    wanted.extend(pins)
    project["tool"]["uv"]["constraint-dependencies"] = wanted.multiline(True)  # type: ignore[index]
    file.write_text(tomlkit.dumps(project))


if __name__ == "__main__":
    main()
