"""Who last changed a file, as git has it; nothing here fails where there is no git."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

__all__ = ["author", "git_environment", "repository"]

_SECONDS = 5.0

_NEEDED = re.compile(r"PATH|HOME|USERPROFILE|SYSTEMROOT|XDG_\w+|GIT_\w+|LANG|LC_\w+|TMPDIR|TEMP", re.IGNORECASE)
"""The variables git is given: what else the environment holds may be secrets."""


def author(path: Path) -> str:
    """The e-mail address of whoever last changed the file; empty where git does not know.

    A file with changes that are not committed was last changed by whoever works here: git's `user.email`.
    """
    if repository(path) is None:
        return ""
    changed = _git(path, "status", "--porcelain", "--ignored", "--", path.name)
    if changed is None:
        return ""
    if changed:
        return _git(path, "config", "user.email") or ""
    return _git(path, "log", "-1", "--format=%ae", "--", path.name) or ""


def repository(path: Path) -> Path | None:
    """The nearest `.git` above a file; None where there is none."""
    return next((git for folder in path.absolute().parents if (git := folder / ".git").exists()), None)


def git_environment() -> dict[str, str]:
    """The environment git is started with: what it needs of ours, and neither prompts nor locks."""
    needed = {name: value for name, value in os.environ.items() if _NEEDED.fullmatch(name)}
    return needed | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _git(path: Path, *words: str) -> str | None:
    """What git says in the file's folder; None where it fails."""
    if (git := shutil.which("git")) is None:
        return None
    # No hook and no helper of the repository runs: the folder may be somebody else's.
    command = [git, "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-pager", *words]
    try:
        done = subprocess.run(
            command,
            cwd=path.absolute().parent,
            env=git_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
