"""Makes the package of a new connector: whole, and with tests that pass before anything in it is changed."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from sync.errors import UsageError

__all__ = ["NAME", "write_package"]

NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
_BOTH = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "src/{module}/fake.py": "fake.py",
    "src/{module}/contract.py": "contract.py",
    "tests/test_{name}.py": "test.py",
}
_OWN = {
    True: {"src/{module}/__init__.py": "manifest_init.py", "src/{module}/{name}.toml": "manifest.toml"},
    False: {"src/{module}/__init__.py": "python_init.py"},
}


def write_package(folder: Path, name: str, *, manifest: bool) -> list[Path]:
    """The package of a connector in `folder`: with a manifest, or in Python. Returns the files that were made.

    Raises `UsageError`: HG190 for a name that no connector can have, HG130 where a file is there already (nothing
    is written then), HG131 where one cannot be written.
    """
    if not NAME.fullmatch(name):
        fix = "lower-case letters, digits and `_`, beginning with a letter: acme, acme_ads"
        raise UsageError(f"'{name}' cannot be the name of a connector", fix=fix)
    contents = {
        folder / target.format(module=f"{name}_headgate", name=name): _filled(source, name, manifest)
        for target, source in (_BOTH | _OWN[manifest]).items()
    }
    if there := [path for path in contents if path.exists() or path.is_symlink()]:
        fix = "Name another folder with --dir, or move the file away."
        raise UsageError(f"{there[0]} is there already, and nothing is overwritten", code="HG130", fix=fix)
    try:
        for path, text in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        what = f"cannot write {error.filename}: {(error.strerror or 'unknown reason').lower()}"
        raise UsageError(what, code="HG131", fix="Check the path and its rights.") from None
    return list(contents)


def _filled(source: str, name: str, manifest: bool) -> str:
    text = (files("sync.testing") / "package" / f"{source}.txt").read_text(encoding="utf-8")
    title = name.replace("_", " ").title()
    words = {
        "NAME": name,
        "DASHED": name.replace("_", "-"),
        "CLASS": title.replace(" ", ""),
        "TITLE": title,
        "UPPER": name.upper(),
        "CONNECTOR": f"`src/{name}_headgate/{name}.toml`" if manifest else f"`src/{name}_headgate/__init__.py`",
    }
    return re.sub("|".join(words), lambda match: words[match[0]], text)
