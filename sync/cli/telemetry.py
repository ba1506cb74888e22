"""Who watches what a command runs: traces and lineage where the environment asks for them, metrics of a daemon."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sync.cli import output
from sync.spans import Watcher, watching

if TYPE_CHECKING:
    from sync.cli.context import Session
    from sync.daemon.chores import Chore
    from sync.daemon.service import Daemon
    from sync.daemon.work import Ended
    from sync.telemetry.metrics import Metrics
    from sync.telemetry.vitals import Pulse, Vitals

__all__ = ["Watched", "beating", "traced", "watched"]


class _Sending(Watcher, Protocol):
    def close(self) -> None:
        """Send what waits."""


@dataclass(frozen=True, slots=True)
class Watched:
    """What a daemon is watched by."""

    vitals: Vitals
    metrics: Metrics

    def ended(self, one: Ended) -> None:
        """A run ended; one that waits for its jobs is told of more than once."""
        if not one.over:
            return
        status = one.report.status if one.report is not None else "failed"
        self.metrics.ended(one.job.name, status, one.report.wall_s if one.report is not None else None)


def beating(pulse: Pulse) -> Chore:
    """The chore that shows that the daemon's main loop turns."""
    from sync.daemon.chores import Chore

    return Chore("beat of the main thread", 1.0, pulse.beat)


@contextmanager
def traced(session: Session) -> Iterator[None]:
    """Inside, traces and lineage of runs are sent to where the environment says."""
    with ExitStack() as stack:
        for make in (_traces, _lineage):
            watcher = make(session)
            if watcher is not None:
                stack.callback(watcher.close)
                stack.enter_context(watching(watcher))
        yield


@contextmanager
def watched(session: Session, daemon: Daemon, pulse: Pulse, looking: Pulse) -> Iterator[Watched]:
    """Inside, the daemon's runs are counted, traced and told of, and its log has their ids."""
    from sync.telemetry.log_ids import LogIds
    from sync.telemetry.metrics import Metrics
    from sync.telemetry.vitals import Vitals

    vitals = Vitals(session.ledger, daemon.clock, pulse, daemon.stop.is_set, looking)
    metrics = Metrics(session.ledger, session.engine.folder, vitals, session.engine.lease_ttl)
    found = Watched(vitals, metrics)
    daemon.workers.tell(found.ended)
    with watching(LogIds(), metrics), traced(session):
        yield found


def _traces(session: Session) -> _Sending | None:  # noqa: ARG001 - as `_lineage`
    wanted = any(name.startswith("OTEL_") for name in os.environ)

    def make() -> _Sending | None:
        from sync.telemetry import traces

        return traces.Traces(os.environ) if traces.wanted(os.environ) else None

    return _of_extra("otel", make) if wanted else None


def _lineage(session: Session) -> _Sending | None:
    wanted = any(name.startswith("OPENLINEAGE_") for name in os.environ)

    def make() -> _Sending | None:
        from sync.telemetry import lineage

        return lineage.Lineage(lambda: session.project, os.environ) if lineage.wanted(os.environ) else None

    return _of_extra("openlineage", make) if wanted else None


def _of_extra(extra: str, make: Callable[[], _Sending | None]) -> _Sending | None:
    """What an extra is needed for; a warning where it is not installed."""
    try:
        return make()
    except ModuleNotFoundError as error:
        fix = f"install it: uv tool install 'headgate[{extra}]'"
        output.say(
            f"warning: the environment asks for {extra}, and {error.name} is not installed; {fix}", err=True
        )
        return None
