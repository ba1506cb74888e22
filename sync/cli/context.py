"""What a command works with: the project, the ledger, the audit log and a runner, each opened when first used."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING

from sync.cli.actor import actor
from sync.cli.options import Options
from sync.engine.report import Observer
from sync.errors import HeadgateError, UsageError

if TYPE_CHECKING:
    from sync.audit import Audit
    from sync.engine.job import EngineSettings, SyncJob
    from sync.engine.runner import Runner
    from sync.project import Project
    from sync.state.ledger import Ledger
    from sync.state.nouns import Plan

__all__ = ["Session", "opened", "reason_of"]


class Session:
    """One command's view of the project."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.root = options.project

    @cached_property
    def project(self) -> Project:
        """Settings, mappings and connectors; raises `ProjectError` with every problem."""
        from sync.project import load

        return load(self.root)

    @cached_property
    def engine(self) -> EngineSettings:
        """Where the engine keeps its files, and which warehouses may keep members."""
        from dataclasses import replace

        return replace(self.project.settings.engine_settings(), sources=self.project.openers("members"))

    @cached_property
    def audit(self) -> Audit:
        """The audit log; it appends inside the ledger's transactions."""
        from sync.audit import Audit

        settings = self.project.settings
        return Audit(settings.state_folder, settings.checkpoints_folder, settings.audit.every)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, made where there is none yet."""
        from sync.state.ledger import open_ledger

        settings = self.project.settings
        path, patience = settings.state_folder / "ledger.db", settings.state.busy_timeout
        return open_ledger(path, record=self.audit.append, busy_timeout=patience)

    @cached_property
    def actor(self) -> str:
        """Who is asking."""
        return actor(self.root)

    def adopt(self, project: Project) -> None:
        """Go on with another reading of the files."""
        self.__dict__["project"] = project
        self.__dict__.pop("engine", None)

    def jobs(self, names: Sequence[str] = ()) -> list[SyncJob]:
        """The syncs meant by the command's words; all of them where none is named."""
        return self.project.jobs(names=names, select=self.options.select, exclude=self.options.exclude)

    def job(self, name: str) -> SyncJob:
        """One sync, whatever is selected."""
        return self.project.jobs(names=[name], disabled=True)[0]

    def runner(
        self, *, trigger: str = "cli", observer: Observer | None = None, stop: threading.Event | None = None
    ) -> Runner:
        """Plans and runs in this command's name."""
        from sync.engine.runner import Runner
        from sync.state.restoring import refuse_restoring

        _log(self.options)
        refuse_restoring(self.engine.folder)
        self.audit.ready()
        self.ledger.check()
        return Runner(self.ledger, self.engine, actor=self.actor, trigger=trigger, observer=observer, stop=stop)

    def plan(self, name: str) -> Plan:
        """A plan by its id, its digest, a unique prefix of it, or a sync with one held plan."""
        from sync.engine.approvals import find_plan

        return find_plan(self.ledger, name)

    def command(self, words: str) -> str:
        """The command line a person types next, for this project."""
        import shlex

        where = "" if self.root.resolve() == self.root.cwd() else f" --project {shlex.quote(str(self.root))}"
        return f"headgate {words}{where}"

    def close(self) -> None:
        """Witness what was recorded, and close the ledger."""
        if "ledger" in self.__dict__:
            try:
                with self.ledger.reading() as connection:
                    self.audit.checkpoint(connection)
            finally:
                self.ledger.close()


@contextmanager
def opened(options: Options) -> Iterator[Session]:
    """A session that is closed again, whatever happens. What it writes meanwhile is for its owner only."""
    session = Session(options)
    before = os.umask(0o077)
    try:
        yield session
    except BaseException:
        with suppress(HeadgateError):  # the first error is the one to tell
            session.close()
        raise
    else:
        session.close()
    finally:
        os.umask(before)


def _log(options: Options) -> None:
    """Our log where it was asked for (-vv); else nothing: what libraries warn of may quote personal data."""
    if options.verbose > 1:
        from sync.logging import configure

        configure(options.verbose - 1, json=options.json)
    elif not logging.getLogger().handlers:
        logging.getLogger().addHandler(logging.NullHandler())


def reason_of(text: str, least: int = 3) -> str:
    """A reason that says something; raises `UsageError` for an empty one."""
    reason = " ".join(text.split())
    if len(reason) < least:
        raise UsageError("a reason is needed, in words", fix='--reason "why this is right"')
    return reason
