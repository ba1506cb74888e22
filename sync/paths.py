"""Paths as config files give them, checked before anything is opened with them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

__all__ = ["UsablePath", "usable"]

_LONGEST_NAME = 255  # bytes; what Linux's and macOS' file systems take
_LONGEST = 4095


def usable(path: Path) -> Path:
    """The path, where the operating system could open it. Raises `ValueError` with a sentence for people."""
    try:
        raw = os.fsencode(path.expanduser())
    except RuntimeError:
        raise ValueError(f"`{path.parts[0]}` is nobody's home folder on this machine") from None
    except UnicodeEncodeError:
        raise ValueError("not a path: it holds half a character") from None
    if b"\0" in raw:
        raise ValueError("not a path: it holds the character NUL")
    if len(raw) > _LONGEST or any(len(name) > _LONGEST_NAME for name in raw.split(b"/")):
        raise ValueError("not a path: it is longer than any file system takes")
    return path


UsablePath = Annotated[Path, AfterValidator(usable)]
"""A path that the operating system could open."""
