"""Optional libraries: imported where they are needed, with clear words where they are missing."""

from __future__ import annotations

import importlib
from types import ModuleType

from sync.errors import Problem, ProjectError

__all__ = ["need"]


def need(module: str, extra: str) -> ModuleType:
    """The module. Raises `ProjectError` HG413, naming the extra that brings it, where it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if error.name is not None and not module.startswith(error.name.partition(".")[0]):
            raise  # it is there, and something that it needs is not
        fix = f"Install it: pip install 'headgate[{extra}]'."
        raise ProjectError([Problem("HG413", f"the library `{module}` is not installed", fix)]) from None
