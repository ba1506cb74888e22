"""A process's connection to the ledger: a commit may fail, or be done and look as if it failed."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from sync.errors import StateError
from sync.state.ledger import Ledger
from sync.state.nouns import RunStatus
from tests.state.fragile import WRITES
from tests.state.simulation.scheduler import Scheduler
from tests.state.simulation.witness import Witness, Working

__all__ = ["Connection"]

_BEFORE_THE_FIRST_BYTE = 10  # how much likelier something happens there: it is what the send guard is for
_UNFENCED = {"acquire", "release", "add_run", "record", "set_plan"}


class Connection:
    """`State`, as one process has it. `troubled` is the share of its writes that fail."""

    def __init__(
        self,
        ledger: Ledger,
        scheduler: Scheduler,
        witness: Witness,
        working: Working,
        rng: random.Random,
        troubled: float,
        seen: Counter[str],
    ) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._witness = witness
        self._working = working
        self._rng = rng
        self._troubled = troubled
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._ledger, name)
        call = self._write if name in WRITES else self._read

        def called(*arguments: Any, **options: Any) -> Any:
            return call(name, method, arguments, options)

        setattr(self, name, called)
        return called

    def _read(self, name: str, method: Any, arguments: Any, options: Any) -> Any:
        self._scheduler.pause()
        if self._rng.random() < self._troubled / 10:
            self._seen["unreadable"] += 1
            raise StateError("the ledger could not be read", code="HG314")
        return method(*arguments, **options)

    def _write(self, name: str, method: Any, arguments: Any, options: Any) -> Any:
        self._scheduler.pause(2)
        chance = self._rng.random()
        if chance < self._troubled:
            self._seen["refused commits"] += 1
            raise StateError("the ledger is locked", code="HG311")
        before = self._witness.before_end(arguments[0].sync) if name == "finish" else None
        result = method(*arguments, **options)
        self._tell(name, arguments, result, before)
        if chance > 1 - self._troubled:
            self._seen["ambiguous commits"] += 1
            raise StateError("the ledger's disk reported an error", code="HG314")
        self._scheduler.pause(_BEFORE_THE_FIRST_BYTE if name == "intend" else 2)
        return result

    def _tell(self, name: str, arguments: Any, result: Any, before: Any) -> None:
        witness, working = self._witness, self._working
        if name == "acquire":
            witness.leased(working, result, self._scheduler.now)
        elif name == "release":
            witness.released(arguments[0])
        elif name not in _UNFENCED:
            witness.wrote(arguments[0], name)
        if name == "renew":
            witness.renewed(result)
        elif name == "intend":
            self._scheduler.threads.alive_until = result.alive_until
        elif name == "open":
            witness.opened(working, *arguments[1:3])
        elif name == "set_run" and arguments[2] is RunStatus.SENDING:
            working.run = arguments[1]
        elif name == "acknowledge":
            witness.acknowledged(arguments[2], getattr(self._scheduler.threads, "told", 0))
        elif name == "finish":
            witness.ended(working, arguments[1], arguments[2], before)
        elif name == "add_run":
            witness.recorded(working, arguments[0])
