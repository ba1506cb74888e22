"""`headgate daemon`: run every sync on its schedule."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sync.cli import http, output
from sync.cli.context import Session, opened
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.cli.run import finish
from sync.cli.signals import draining
from sync.cli.telling import telling

if TYPE_CHECKING:
    from sync.engine.job import SyncJob


@_command("daemon")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1, 32), help="Syncs run at a time.")
@click.option("--once", is_flag=True, help="Do what is due now, and end.")
@click.option("--listen", metavar="HOST:PORT", help="Serve the HTTP API there (default: [http] listen).")
@click.pass_obj
def command(options: Options, workers: int, once: bool, listen: str | None) -> int:
    """Run every sync on its schedule until it is told to stop.

    It takes a lease for each run, so a second daemon is harmless. The first signal drains: batches in flight are
    finished and the rest is resumed by the next start. The second signal quits at once.
    """
    from sync.daemon.chores import Chore
    from sync.daemon.service import Daemon
    from sync.daemon.work import LogObserver
    from sync.engine.pacing import Pacers
    from sync.engine.runner import Runner
    from sync.logging import configure

    configure(options.verbose + 1, json=options.json or not sys.stderr.isatty())
    with nobody_there(), opened(options) as session, draining(lambda m: output.say(m, err=True)) as stop:
        pacers = Pacers(folder=session.engine.folder)
        shared: dict[str, Any] = {"observer": LogObserver(), "stop": stop, "pacers": pacers}

        def runner(trigger: str, actor: str) -> Runner:
            return Runner(session.ledger, session.engine, actor=actor, trigger=trigger, **shared)

        session.ledger.check()
        with telling(session, lambda: daemon.clock.ticking, once=once) as told:
            daemon = Daemon(
                lambda: _load(session),
                session.ledger,
                runner,
                stop=stop,
                workers=workers,
                watch=lambda: files(session.root),
                chores=[Chore("audit checkpoint", 60, lambda: _checkpoint(session)), *told],
            )
            if once:
                return finish(session, daemon.once(), "daemon", stopped=stop.is_set())
            with http.served(session, daemon.clock, http.address(session, listen)):
                daemon.serve()
            return 0


@contextmanager
def nobody_there() -> Iterator[None]:
    """Nobody answers a daemon, though it may have been started at a terminal."""
    before = sys.stdin
    with Path(os.devnull).open() as nobody:
        sys.stdin = nobody
        try:
            yield
        finally:
            sys.stdin = before


def files(root: Path) -> tuple[tuple[str, int, int], ...]:
    """What the project's files look like from outside: it changes when one of them does."""
    found = [root / "config.toml", *sorted((root / "mappings").glob("*.y*ml"))]
    return tuple((p.name, s.st_mtime_ns, s.st_size) for p in found if p.exists() for s in [p.stat()])


def _load(session: Session) -> list[SyncJob]:
    session.__dict__.pop("project", None)  # read the files anew
    options = session.options
    return session.project.jobs(select=options.select, exclude=options.exclude, disabled=True)


def _checkpoint(session: Session) -> None:
    with session.ledger.reading() as connection:
        session.audit.checkpoint(connection)
