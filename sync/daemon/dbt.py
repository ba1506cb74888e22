"""Runs after dbt: by the file that dbt writes at its end, or by what a webhook told.

The file is dbt's `run_results.json` (docs.getdbt.com, "Run results JSON file", v4 to v6): one invocation of one
command, with a status for each node it executed. It may be half-written, and anybody may have written it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import structlog

from sync.daemon.asking import Asking
from sync.engine.job import SyncJob
from sync.files import named
from sync.mapping import Dbt, Schedule

__all__ = ["HEARD", "DbtRuns", "Invocation", "failure", "read_results"]

log = structlog.get_logger("headgate.daemon")

HEARD = "dbt heard"
"""The fact that a webhook or a file leaves: its name and the newest run of it from which something follows."""
_ASKED = "dbt asked"

_MOST_BYTES = 64 * 1024 * 1024
_SETTLES_S = 10.0  # dbt writes into the file itself: while it does, the file is no JSON
_BUILDS = frozenset({"run", "build", "retry", "test", "seed", "snapshot", "clone"})
_DONE = frozenset({"success", "pass", "warn", "no-op", "reused"})
_TABLES = frozenset({"model", "seed", "snapshot"})
_LONGEST = 100


@dataclass(frozen=True, slots=True)
class Invocation:
    """One invocation of dbt: its id, its command (`run`, `build`) and the status of each node by its unique id."""

    id: str
    command: str
    nodes: Mapping[str, str]


class DbtRuns:
    """Looks at the files and at what webhooks told. `root` is the folder that paths start from."""

    def __init__(self, asking: Asking, root: Path) -> None:
        self._asking, self._root = asking, root
        self._files: dict[Path, tuple[tuple[int, ...], Invocation | None]] = {}

    def look(self) -> None:
        """Ask for what follows from dbt runs that ended since the last look.

        Files are looked at also while their sync may not be asked for: dbt writes over them.
        """
        files = [
            (job, dbt, self._root / dbt.run_results.expanduser())
            for job, dbt in _after_dbt(self._asking.syncs(all=True))
            if dbt.run_results is not None
        ]
        paths = {path for _, _, path in files}
        self._files = {path: kept for path, kept in self._files.items() if path in paths}
        for path in paths:
            self._read(path)
        for job, dbt, path in files:
            self._look_at(job, dbt, path)
        for job, dbt in _after_dbt(self._asking.syncs()):
            self._ask(job, dbt)

    def _read(self, path: Path) -> None:
        """Read a file that changed; one that cannot be read is tried again when it changes again."""
        try:
            found = path.stat()
            looks = (found.st_ino, found.st_size, found.st_mtime_ns)
        except OSError:
            self._files.pop(path, None)
            return
        if path in self._files and self._files[path][0] == looks:
            return
        try:
            self._files[path] = looks, read_results(path)
        except ValueError as error:
            if abs(time.time() - found.st_mtime) > _SETTLES_S:
                self._files[path] = looks, None
                log.warning("dbt_results_unreadable", file=path.name, why=str(error))

    def _look_at(self, job: SyncJob, dbt: Dbt, path: Path) -> None:
        fact = f"dbt {dbt.run_results}"
        before = self._asking.seen(job, fact)
        _, invocation = self._files.get(path, (None, None))
        if before is None and (invocation is not None or not path.exists()):
            self._asking.see(job, fact, None, invocation.id if invocation is not None else "")
            return
        if invocation is None or before is None or invocation.id == before or not _builds(invocation, dbt):
            return
        why = failure(invocation, dbt.models)
        if not why:
            self._asking.see(job, HEARD, self._asking.seen(job, HEARD), f"{dbt.run_results}/{invocation.id}")
        if self._asking.see(job, fact, before, invocation.id) and why:
            log.warning("dbt_run_failed", sync=job.name, invocation=invocation.id, why=why)

    def _ask(self, job: SyncJob, dbt: Dbt) -> None:
        """Ask for the run that follows from what was heard last."""
        heard, before = self._asking.seen(job, HEARD), self._asking.seen(job, _ASKED)
        told, _, run = (heard or "").rpartition("/")
        if heard != before and told == (dbt.webhook or str(dbt.run_results)):
            self._asking.ask(job, _ASKED, before, str(heard), f"dbt-{told}-{run}" if dbt.webhook else f"dbt-{run}")


def _after_dbt(syncs: Iterator[tuple[SyncJob, Schedule]]) -> Iterator[tuple[SyncJob, Dbt]]:
    return ((job, schedule.dbt) for job, schedule in syncs if schedule.dbt is not None)


def _builds(invocation: Invocation, dbt: Dbt) -> bool:
    """May something follow from such a command. A `dbt test` builds no model."""
    return invocation.command in _BUILDS and not (dbt.models and invocation.command == "test")


def read_results(path: Path) -> Invocation:
    """The invocation that a `run_results.json` tells of.

    Raises `ValueError`, in words, for a file that is none: half-written, too large, or of another shape.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise ValueError("it is no file, or larger than any of dbt's")
        data = orjson.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"it cannot be read: {error.strerror}") from None
    except orjson.JSONDecodeError:
        raise ValueError("it is no JSON, or only a part of one") from None
    metadata, results = _inside(data, "metadata"), data.get("results") if isinstance(data, dict) else None
    id_, command = metadata.get("invocation_id"), _inside(data, "args").get("which", "build")
    if not isinstance(id_, str) or not _is_plain(id_) or not isinstance(results, list):
        raise ValueError("it has no `metadata.invocation_id` and `results` as dbt writes them")
    return Invocation(id_, command if isinstance(command, str) else "", dict(_nodes(results)))


def _nodes(results: Sequence[Any]) -> Iterator[tuple[str, str]]:
    for one in results:
        name, status = (one.get("unique_id"), one.get("status")) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(status, str):
            raise ValueError("one of its results has no `unique_id` and `status`")
        yield name, status


def _inside(data: Any, key: str) -> dict[str, Any]:
    found = data.get(key) if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}


def _is_plain(text: str) -> bool:
    """May the text be kept and shown as a name."""
    return 0 < len(text) <= _LONGEST and text.isascii() and text.isprintable() and "/" not in text


def failure(invocation: Invocation, models: Sequence[str] = ()) -> str:
    """Why nothing follows from the invocation; empty where every node of interest succeeded.

    `models` names models, seeds and snapshots, or whole unique ids; without it every node counts, tests too.
    """
    nodes = invocation.nodes
    if not models and not nodes:
        return "dbt executed nothing"
    if models:
        absent = [m for m in models if not any(_is(m, node) for node in nodes)]
        if absent:
            return f"dbt did not build {named(absent, most=3)}"
        nodes = {node: status for node, status in nodes.items() if any(_is(m, node) for m in models)}
    failed = sorted(node for node, status in nodes.items() if status not in _DONE)
    shown = [node for node in failed if _is_plain(node)]
    return f"{len(failed):,} of {len(nodes):,} nodes did not succeed: {named(shown, most=3)}" if failed else ""


def _is(model: str, node: str) -> bool:
    """Is this the node: `model.shop.vip`, or `vip` for short."""
    kind, _, rest = node.partition(".")
    return model == node or (kind in _TABLES and rest.partition(".")[2] == model)
