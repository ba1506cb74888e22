"""The file of `plan --out`: names and digests of plans, and nothing of their content."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sync.engine.report import SyncReport
from sync.errors import UsageError

__all__ = ["looks_like_file", "read", "write"]

_MAX_BYTES = 16 * 1024 * 1024


def write(path: Path, reports: list[SyncReport]) -> None:
    """Write the plans that there are; raises `UsageError` where the file cannot be written."""
    plans = [{"sync": r.sync, "plan": r.plan.id, "digest": r.plan.digest} for r in reports if r.plan is not None]
    try:
        path.write_text(json.dumps({"schema": 1, "plans": plans}, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", fix="give --out another place") from None


def looks_like_file(text: str) -> bool:
    """Is this a file of `plan --out` rather than the id of a plan?"""
    return "/" in text or text.endswith(".json") or os.path.isfile(text)  # noqa: PTH113 - pathlib raises for some


def read(path: Path) -> list[tuple[str, str]]:
    """(sync, digest) of each plan; raises `UsageError` where the file is something else."""
    try:
        with path.open("rb") as stream:
            document = json.loads(stream.read(_MAX_BYTES))
        return [(str(p["sync"]), str(p["digest"])) for p in document["plans"]]
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", fix="give the file that `plan --out` wrote"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(
            f"{path} is not a file of `plan --out`", fix="write it: headgate plan --out FILE"
        ) from None
