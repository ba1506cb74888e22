"""The project as a daemon has it in force: changed files are taken over whole, or refused whole and shown so."""

from __future__ import annotations

import os
import re
import time
import tomllib
from collections.abc import Hashable, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sync.authors import repository
from sync.errors import HeadgateError, Problem, ProjectError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sync.cli.context import Session
    from sync.engine.job import SyncJob
    from sync.project import Project

__all__ = ["ProjectFiles", "refused", "state_folder"]


_KEPT = (
    "state.path", "state.busy_timeout", "audit.checkpoints", "audit.every",
    "http.listen", "http.hosts", "http.open_metrics",
)  # fmt: skip
"""The settings of what a daemon opens once, at its start: the ledger, the audit log, the address it listens at."""

_AGAIN_S = 30.0


class ProjectFiles:
    """Reads the files for a daemon; `session` has what is in force."""

    def __init__(self, session: Session) -> None:
        self._session, self._root = session, session.root
        self._folder = session.project.settings.state_folder
        self._kept = _values(session.project)
        self._refused: Sequence[str] = ()
        self._tried = 0.0
        self._otherwise = 0  # how often files that did not change were found to be as good or bad as never before

    def load(self) -> list[SyncJob]:
        """Take the files over and return their syncs.

        Raises `ProjectError` or `UsageError`, and changes nothing, where they cannot be in force; `status` says so
        from then on.
        """
        with self._telling():
            project, jobs = self._read()
        self._session.adopt(project)
        return jobs

    def looks(self) -> Hashable:
        """What the files look like from outside: it changes when one of them does, or is committed.

        Files that are refused are tried again now and then: what they lack may be elsewhere, a key or a manifest.
        """
        settings = self._session.project.settings
        manifests = [self._root / d.type for d in settings.destinations.values() if d.type.endswith(".toml")]
        config = self._root / "config.toml"
        found = [config, *sorted((self._root / "mappings").glob("*.y*ml")), *manifests]
        if (git := repository(config)) is not None:
            found.append(git / "logs" / "HEAD")  # who changed a mapping last is known by its commit
        if self._refused and time.monotonic() - self._tried >= _AGAIN_S:
            self._tried = time.monotonic()
            self._otherwise += self._wrong() != self._refused
        return self._otherwise, *(_looks(path) for path in found)

    def _read(self) -> tuple[Project, list[SyncJob]]:
        from sync.project import load

        project = load(self._root)
        self._refuse_moves(project)
        project.settings.engine_settings()  # the keys of the state are there
        options = self._session.options
        return project, project.jobs(select=options.select, exclude=options.exclude, disabled=True)

    def _wrong(self) -> Sequence[str]:
        """Why the files would be refused now; nothing where they would not."""
        try:
            self._read()
        except HeadgateError as error:
            return _sentences(error)
        return ()

    def _refuse_moves(self, project: Project) -> None:
        """What is open stays open: its settings cannot be taken over."""
        fix = "Start the daemon anew, or put it back."
        moved = [
            project.settings.places.problem(
                tuple(name.split(".")), "HG144", f"the daemon keeps `{name}` as it was when it started", fix
            )
            for name, before, now in zip(_KEPT, self._kept, _values(project), strict=True)
            if before != now
        ]
        if moved:
            raise ProjectError(moved)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        from sync.state.refusal import Refusal

        try:
            yield
        except HeadgateError as error:
            self._refused, self._tried = _sentences(error), time.monotonic()
            with suppress(OSError):
                Refusal.write(self._folder, time.time(), self._refused)
            raise
        self._refused = ()
        with suppress(OSError):
            Refusal.withdraw(self._folder)


def refused(root: Path, folder: Path | None = None) -> Problem | None:
    """A daemon that refused the files as they are now, as a warning; `folder` of the state where it is known."""
    from sync.cli import words
    from sync.state.refusal import Refusal

    found = Refusal.read(folder or state_folder(root))
    if found is None:
        return None
    more = f" (and {found.count - 1} more)" if found.count > 1 else ""
    message = f"the daemon ({found.who}) goes on with the files of before {words.moment(found.at)}"
    return Problem("HG143", message, f"It says: {found.why[0] if found.why else '-'}{more}", warning=True)


def state_folder(root: Path) -> Path:
    """Where the state is, also where config.toml or the environment has a slip elsewhere."""
    from sync.paths import usable
    from sync.settings import StateSettings, load_settings

    with suppress(ProjectError):
        return load_settings(root).state_folder
    path = StateSettings().path
    said = os.environ.get("HEADGATE__STATE__PATH") or _path_in(root / "config.toml")
    with suppress(ValueError):
        path = usable(Path(said or path))
    return root / path.expanduser()


def _path_in(config: Path) -> str:
    """What `[state] path` says, or nothing; of a file that is no TOML, that table alone is read."""
    try:
        text = config.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    table = re.search(r"^\[state\].*?(?=^\[|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    for part in (text, table[0] if table else ""):
        with suppress(ValueError, RecursionError, LookupError, TypeError):
            return str(tomllib.loads(part)["state"]["path"])
    return ""


def _values(project: Project) -> list[object]:
    settings = project.settings
    return [getattr(getattr(settings, section), key) for section, _, key in (n.partition(".") for n in _KEPT)]


def _sentences(error: HeadgateError) -> Sequence[str]:
    if not isinstance(error, ProjectError):
        return [f"{error.message} [{error.code}]"]
    return [f"{p.where}: {p.message} [{p.code}]" for p in error.problems]


def _looks(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except OSError:
        return path.name, 0, -1
    return path.name, found.st_mtime_ns, found.st_size
