"""Copies that do not outlive their process: the spool of a source, the sides of a comparison.

They hold personal data, so those that a crash left behind are removed by whoever comes next.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.parse import quote, unquote

from sync.engine.job import EngineSettings
from sync.state.holder import is_over, me

__all__ = ["scratch", "sweep"]

_NAME = "copies-"


def scratch(settings: EngineSettings) -> Path:
    """This process's own folder for them, made where there is none; what dead processes left is removed."""
    sweep(settings)
    folder = _all(settings) / f"{_NAME}{quote(me(), safe='')}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def sweep(settings: EngineSettings) -> None:
    """Remove the folders of processes that are certainly gone."""
    if not _all(settings).is_dir():
        return
    for folder in _all(settings).iterdir():
        if folder.name.startswith(_NAME) and is_over(unquote(folder.name.removeprefix(_NAME))):
            shutil.rmtree(folder, ignore_errors=True)


def _all(settings: EngineSettings) -> Path:
    return settings.folder / "tmp"
