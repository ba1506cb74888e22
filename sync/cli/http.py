"""Serves the HTTP API beside the daemon, where config.toml or `--listen` says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sync.address import Address, parse_address
from sync.errors import StateError, UsageError
from sync.secrets import parse, resolve

if TYPE_CHECKING:
    from sync.cli.context import Session
    from sync.cli.telemetry import Watched
    from sync.daemon.clock import Clock

__all__ = ["address", "served"]


def address(session: Session, given: str | None) -> Address | None:
    """Where to listen: as given, or as config.toml has it; None is nowhere. Raises `UsageError`."""
    text = given or session.project.settings.http.listen
    try:
        return parse_address(text) if text else None
    except ValueError as error:
        raise UsageError(f"--listen {given}: {error}", fix="--listen 127.0.0.1:8520") from None


def _hearing(session: Session, clock: Clock) -> Callable[[str, str, bytes], tuple[int, str, tuple[str, ...]]]:
    """What judges events that come to webhooks, by the files that are in force."""
    from sync.daemon.webhook import Webhooks

    def secret(name: str) -> str | None:
        found = session.project.settings.webhooks.get(name)
        return None if found is None else resolve(parse(found.secret), session.root).get_secret_value()

    hooks = Webhooks(session.ledger, lambda: clock.jobs, secret)

    def hear(name: str, signature: str, body: bytes) -> tuple[int, str, tuple[str, ...]]:
        answer = hooks.receive(name, signature, body)
        return answer.status, answer.message, answer.syncs

    return hear


@contextmanager
def served(session: Session, clock: Clock, where: Address | None, seen: Watched) -> Iterator[None]:
    """Serve while the block runs. Raises `StateError` where nobody can listen there, before anything is begun."""
    if where is None:
        yield
        return
    if not (where.loopback or session.ledger.access.usable()):
        raise StateError(
            f"others could reach {where}, and there is no valid token",
            code="HG813",
            fix="make one: headgate token create NAME --scope read; or listen on 127.0.0.1",
        )
    from sync.web.app import guarded_app
    from sync.web.server import bound, serving
    from sync.web.site import Site

    listener = bound(where)
    settings = session.project.settings.http
    site = Site(
        session.ledger,
        session.ledger.access,
        session.engine,
        lambda: clock.jobs,
        settings.hosts,
        _hearing(session, clock),
        seen.vitals,
        seen.metrics,
        settings.open_metrics,
    )
    with serving(guarded_app(site), listener):
        yield
