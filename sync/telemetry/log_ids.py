"""Every line of a run's log says which run, sync, phase and batch it is about, whichever thread writes it."""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import Token
from typing import Any

from structlog.contextvars import bind_contextvars, reset_contextvars

from sync.spans import Fact, Span

__all__ = ["LogIds"]

_IDS = {
    "run": ("run", "sync", "destination"),
    "phase": ("phase", "run"),  # a phase may belong to another run: an interrupted one is finished first
    "batch": ("batch",),
    "request": (),
}


class LogIds:
    """A watcher that binds ids to the log of the thread that a span is in."""

    def __init__(self) -> None:
        self._bound: dict[Span, Mapping[str, Token[Any]]] = {}

    def begins(self, span: Span) -> None:
        """Bind its ids."""
        if ids := {name: span.facts[name] for name in _IDS[span.kind] if name in span.facts}:
            self._bound[span] = bind_contextvars(**ids)

    def ends(self, span: Span) -> None:
        """Bind what was bound before."""
        if (tokens := self._bound.pop(span, None)) is not None:
            reset_contextvars(**tokens)

    def happens(self, name: str, span: Span | None, facts: dict[str, Fact]) -> None:
        """Nothing to bind."""
