"""`headgate daemon`: run every sync on its schedule."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sync.cli import http, output
from sync.cli.context import Session, opened
from sync.cli.daemon_files import ProjectFiles, state_folder
from sync.cli.options import Options
from sync.cli.options import command as _command
from sync.cli.run import finish
from sync.cli.signals import draining
from sync.cli.telemetry import beating, watched
from sync.cli.telling import telling
from sync.durations import format_duration

if TYPE_CHECKING:
    from sync.daemon.chores import Chore
    from sync.daemon.life import Life
    from sync.daemon.service import Daemon
    from sync.engine.job import LogTarget, SyncJob
    from sync.engine.runner import Runner


_JOB_WAIT_S = 5.0
"""A worker waits no longer for jobs: it takes other syncs, and asks again when the platform may be done."""


@_command("daemon")
@click.option(
    "--workers",
    type=click.IntRange(1, 32),
    help="Syncs that read and compare at a time; [daemon] workers where left out.",
)
@click.option("--once", is_flag=True, help="Do what is due now, and end.")
@click.option("--listen", metavar="HOST:PORT", help="Serve the HTTP API there (default: [http] listen).")
@click.option("--health", is_flag=True, help="Only say whether a daemon works here: exit code 0, or 1.")
@click.pass_obj
def command(options: Options, workers: int | None, once: bool, listen: str | None, health: bool) -> int:
    """Run every sync on its schedule until it is told to stop.

    It takes a lease for each run, so a second daemon is harmless. The first signal drains: batches in flight are
    finished and the rest is resumed by the next start. The second signal quits at once.
    """
    if health:
        return _health(options)
    from sync.logging import configure
    from sync.telemetry.vitals import Pulse

    configure(options.verbose + 1, json=options.json or not sys.stderr.isatty())
    with nobody_there(), opened(options) as session, draining(lambda m: output.say(m, err=True)) as stop:
        session.ledger.check()
        pulse, looking = Pulse(), Pulse()
        with telling(session, looking, lambda: seen.vitals.working(), once=once) as told:
            daemon = _daemon(session, stop, workers, [*told, beating(pulse)])
            with watched(session, daemon, pulse, looking) as seen:
                if once:
                    return finish(session, daemon.once(), "daemon", stopped=stop.is_set())
                with http.served(session, daemon.clock, http.address(session, listen), seen):
                    daemon.serve()
            return 0


def _health(options: Options) -> int:
    """What a container's health check asks: has the daemon's main thread gone round lately."""
    from sync.daemon.pulse import FRESH, since

    ago = since(state_folder(options.project))
    well = ago is not None and ago <= FRESH
    if options.json:
        silent = None if ago is None else round(ago, 1)
        output.document("daemon", healthy=well, seconds_since=silent, exit_code=int(not well))
    elif ago is None:
        output.say("no daemon works on this state folder, on this machine")
    else:
        output.say(f"the daemon gave a sign of life {format_duration(ago)} ago", kind="ok" if well else "")
    return int(not well)


def _daemon(session: Session, stop: threading.Event, workers: int | None, more: Sequence[Chore]) -> Daemon:
    from sync.daemon.service import Daemon
    from sync.daemon.supervisor import Supervisor

    files = ProjectFiles(session)

    def load() -> list[SyncJob]:
        jobs, settings = files.load(), session.project.settings.daemon
        daemon.limit(workers or settings.workers, settings.stuck_after, settings.quit_after)
        return jobs

    daemon = Daemon(
        load,
        session.ledger,
        _runner(session),
        stop=stop,
        watch=files.looks,
        names=lambda: [one.sync.name for one in session.project.syncs()],
        chores=[*_chores(session, stop), *more],
        supervisor=Supervisor(),
        root=session.root,
    )
    return daemon


def _runner(session: Session) -> Callable[[str, str, Life], Runner]:
    """What makes the runner of one run, by the settings that are in force when it begins."""
    from sync.engine.pacing import Pacers
    from sync.engine.runner import Runner

    pacers = Pacers(folder=session.engine.folder)

    def runner(trigger: str, actor: str, life: Life) -> Runner:
        delivery = session.engine.delivery
        delivery = replace(delivery, job_wait=min(delivery.job_wait, _JOB_WAIT_S))
        engine = replace(session.engine, delivery=delivery)
        told: dict[str, Any] = {"observer": life, "stop": life.stop, "pacers": pacers}
        return Runner(session.ledger, engine, actor=actor, trigger=trigger, **told)

    return runner


def _chores(session: Session, stop: threading.Event) -> list[Chore]:
    """What is done now and then beside runs."""
    from sync.daemon import pulse, retention
    from sync.daemon.chores import Chore

    def logs() -> Mapping[str, LogTarget | None]:
        return {job.name: job.log for job in session.project.jobs(disabled=True)}

    old = retention.Retention(session.ledger, lambda: session.engine, logs, stop)
    pulse.beat(session.engine.folder)
    return [
        Chore("sign of life", pulse.EVERY, lambda: pulse.beat(session.engine.folder)),
        Chore("audit checkpoint", 60, lambda: _checkpoint(session)),
        Chore("deleting what is old", retention.LOOK, old.look, aside=True),
    ]


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


def _checkpoint(session: Session) -> None:
    with session.ledger.reading() as connection:
        session.audit.checkpoint(connection)
