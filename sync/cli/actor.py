"""Who is asking: the name the audit log keeps."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from pathlib import Path

from sync.authors import git_environment

__all__ = ["actor"]


def actor(root: Path) -> str:
    """$HEADGATE_ACTOR, else the project's git e-mail address, else the account at this host."""
    return os.environ.get("HEADGATE_ACTOR", "").strip() or _git(root) or f"{_account()}@{socket.gethostname()}"


def _git(root: Path) -> str:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "config", "user.email"],
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
            env=git_environment(),
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _account() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, in a container say
        return f"uid-{os.getuid()}"
