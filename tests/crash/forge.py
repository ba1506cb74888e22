"""Processes of the command without the price of starting one: a helper that has the code in memory forks them.

Each is a process of its own with a PID, files and memory of its own, looks at its environment anew and runs
`headgate ARGUMENTS`. Before the fork modules are imported, nothing is opened and no thread is started.

    python -m tests.crash.forge FD     # the helper: a JSON request a line on the socket FD, an answer a line
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.acceptance.project import Done, Project
from tests.crash import clock

VARIABLE = "HEADGATE_FAULT"
_ROOT = Path(__file__).parents[2]
_MODULES = (
    *(
        f"sync.cli.{name}"
        for name in ("app", "run", "approve", "audit", "daemon", "plan", "rejected", "samples", "state", "status")
    ),
    *(f"sync.{name}" for name in ("audit", "daemon", "health", "project")),
    *("sync.engine.runner", "sync.state.ledger", "sync.sources.duckdb", "connectors.webhook"),
)


class Forge:
    """The helper, and the processes it made. Any thread may start one. `path` holds further distributions."""

    def __init__(self, path: Path) -> None:
        ours, theirs = socket.socketpair()
        self._helper = subprocess.Popen(
            [sys.executable, "-m", "tests.crash.forge", str(theirs.fileno())],
            cwd=_ROOT, env=os.environ | {"PYTHONPATH": str(path)}, pass_fds=[theirs.fileno()],
        )  # fmt: skip
        theirs.close()
        self._lock = threading.Lock()
        self._running: dict[int, Forked] = {}
        self._socket = ours
        self._lines = ours.makefile("rw")

    def ask(self, **request: Any) -> Any:
        """One request, one answer."""
        with self._lock:
            self._lines.write(json.dumps(request) + "\n")
            self._lines.flush()
            return json.loads(self._lines.readline())

    def start(self, project: Project, *arguments: str, **environment: str) -> Forked:
        """Start `headgate ARGUMENTS` in the project's folder."""
        stem = project.root / f".output-{time.monotonic_ns()}"
        keep = {k: v for k, v in os.environ.items() if not k.startswith("HEADGATE") and k != "FORCE_COLOR"}
        keep |= {"NO_COLOR": "1", "COLUMNS": "80", **project.environment, **environment}
        started = time.monotonic()
        for suffix in (".out", ".err"):  # it may be killed before it writes any
            stem.with_suffix(suffix).touch()
        pid = self.ask(arguments=arguments, folder=str(project.root), stem=str(stem), environment=keep)
        self._running[pid] = Forked(self, pid, stem, os.pidfd_open(pid), started)
        return self._running[pid]

    def reap(self, one: Forked) -> tuple[int, float]:
        """The exit status and the CPU seconds of a process that is over."""
        status, cpu = self.ask(reap=one.pid)
        os.close(self._running.pop(one.pid).handle)
        return status, cpu

    def end_all(self) -> None:
        """Kill whatever a test that failed left behind, and show what it said."""
        for one in list(self._running.values()):
            one.kill()
            one.over(10)
            print(one.stem.with_suffix(".err").read_text())
            self.reap(one)

    def close(self) -> None:
        """End the helper."""
        self.end_all()
        self._lines.close()
        self._socket.close()
        self._helper.wait(10)


@dataclass(frozen=True)
class Forked:
    """A running command."""

    forge: Forge
    pid: int
    stem: Path
    handle: int
    started: float

    def send(self, number: signal.Signals) -> None:
        """Send a signal; harmless where the process is gone."""
        try:
            signal.pidfd_send_signal(self.handle, number)
        except ProcessLookupError:
            return

    def kill(self) -> None:
        """`kill -9`."""
        self.send(signal.SIGKILL)

    @property
    def state(self) -> str:
        """What `/proc` says: R, S, T (stopped), Z (over)."""
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def over(self, seconds: float) -> bool:
        """Is it over within so many seconds."""
        poll = select.poll()
        poll.register(self.handle, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def wait(self, timeout: float = 120.0) -> Done:
        """Until it ends; kills it and fails when it does not."""
        ended = self.over(timeout)
        if not ended:
            self.kill()
            self.over(10)
        wall = time.monotonic() - self.started
        status, cpu = self.forge.reap(self)
        out, err = (self.stem.with_suffix(s).read_text() for s in (".out", ".err"))
        assert ended, f"the command did not end in {timeout} s:\n{err}"
        return Done(os.waitstatus_to_exitcode(status), out, err, cpu, wall, 0.0)


# --- in the helper --------------------------------------------------------------------------------------------


def _load() -> None:
    """What the command imports in the course of a run."""
    import alembic.command
    import alembic.config
    import apscheduler.schedulers.background
    import click
    import cryptography.hazmat.primitives.asymmetric.ed25519
    import cryptography.hazmat.primitives.serialization
    import duckdb
    import httpcore
    import httpx
    import orjson
    import phonenumbers
    import pydantic_settings
    import rfc8785
    import rich.console
    import ruamel.yaml
    import sqlalchemy.dialects.sqlite
    import sqlglot
    import structlog
    import tenacity

    loaded = (
        alembic, apscheduler, click, cryptography, duckdb, httpcore, httpx, orjson, phonenumbers,
        pydantic_settings, rfc8785, rich, ruamel, sqlalchemy, sqlglot, structlog, tenacity,
    )  # fmt: skip
    assert loaded
    for name in _MODULES:
        importlib.import_module(name)
    assert threading.active_count() == 1
    gc.freeze()


def _serve(number: int) -> list[str] | None:
    """Answer requests; returns in each forked process with its arguments, and at the end with None."""
    ours = socket.socket(fileno=number)
    lines = ours.makefile("rw")
    for line in lines:
        request = json.loads(line)
        if "reap" in request:
            _, status, usage = os.wait4(request["reap"], 0)
            answer: Any = [status, usage.ru_utime + usage.ru_stime]
        else:
            answer = os.fork()
            if answer == 0:
                os.close(ours.detach())
                _become(request)
                return list(request["arguments"])
        lines.write(json.dumps(answer) + "\n")
        lines.flush()
    return None


def _become(request: dict[str, Any]) -> None:
    for target, suffix in ((1, ".out"), (2, ".err")):
        handle = os.open(request["stem"] + suffix, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, target)
        os.close(handle)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])


def _work(number: int) -> None:
    os.environ[VARIABLE] = ","  # before Headgate is imported: its fault points are there, and nothing is asked for
    _load()
    arguments = _serve(number)
    if arguments is None:
        os._exit(0)
    else:
        from sync import faultpoints
        from sync.cli.app import main

        faultpoints.arm()
        if clock.VARIABLE in os.environ:
            clock.install(os.environ[clock.VARIABLE])
        status = 1
        try:
            main(arguments)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
        finally:
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # taking apart what the helper imported costs more than all the rest


if __name__ == "__main__":
    _work(int(sys.argv[1]))
