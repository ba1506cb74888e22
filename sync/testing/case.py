"""What a check is given: one connector with one object of it, and the means to push and to watch."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import httpx
from pydantic import BaseModel, SecretStr

from sync.errors import DestinationError
from sync.sdk.connector import Config, Connector, Polls
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Job, ObjectSpec, Op, Outcome, Receipt, Status
from sync.testing import samples
from sync.testing.hostile import Answer, Wire
from sync.testing.openapi import Violation

if TYPE_CHECKING:
    from sync.testing.contract import ConnectorContract

__all__ = ["SUCCESS", "Case", "Failure", "NotApplicable", "Watch", "require", "watching"]

SUCCESS = frozenset({Status.APPLIED, Status.ACCEPTED})
_POLLS = 25
_sleep, _connect = time.sleep, socket.socket.connect  # the real ones, for whom a watch is not about
_OPS = (Op.ADD, Op.UPDATE, Op.REMOVE)


class Failure(AssertionError):
    """A check found something."""


class NotApplicable(Exception):
    """A check has nothing to look at in this connector."""


def require(condition: object, message: str) -> None:
    """Fail with the message unless the condition holds."""
    if not condition:
        raise Failure(message)


@dataclass
class Case:
    """One contract, one object. `folder` is empty and belongs to this check alone.

    `violations`: how requests, and the contract's own answers, differ from what the vendor describes. `statuses`:
    of the receipts seen.
    """

    contract: ConnectorContract
    object: str
    folder: Path
    config: Config = field(init=False)
    spec: ObjectSpec = field(init=False)
    violations: list[str] = field(default_factory=list)
    statuses: set[Status] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._described = self.contract.judges
        if self._described is not None:
            _ = self._described.descriptions  # read now: a check may be watching what is read
        self.contract.begin()
        self.config = self.contract.make_config(self.folder)
        if self.object:
            self.spec = self.connect(self.wire()).objects[self.object]

    @property
    def connector(self) -> type[Connector[Any]]:
        """The class under test."""
        return self.contract.connector

    @property
    def ops(self) -> list[Op]:
        """The object's ops in a fixed order."""
        return [op for op in _OPS if op in self.spec.ops]

    @property
    def uses_http(self) -> bool:
        """Whether the connector speaks HTTP at all."""
        return bool(self.connector.base_url(self.config))

    @property
    def secrets(self) -> list[str]:
        """Every secret of the configuration, in the clear."""
        return list(_secrets(self.config))

    def wire(self, bad: Answer | None = None, at: int | None = None) -> Wire:
        """A fresh wire that gives the contract's answers, and `bad` ones instead (to request `at`, or all)."""
        return Wire(self.answer, bad, at, token=self.contract.token_answer, judge=self._judge)

    def answer(self, request: httpx.Request) -> httpx.Response:
        """The contract's answer, judged by the vendor's description where there is one."""
        return self.judged(request, self.contract.answer(request))

    def judged(self, request: httpx.Request, response: httpx.Response) -> httpx.Response:
        """The same answer, which the contract gave, with a note of what is wrong with it."""
        response.read()
        self._judge(request, response)
        return response

    def _judge(self, request: httpx.Request, response: httpx.Response | None = None) -> None:
        if self._described is None:
            return
        try:
            self._described.judge(request, response)
        except Violation as exc:
            self.violations.append(str(exc))

    def connect(self, transport: httpx.BaseTransport | None = None, *, timeout: float = 5.0) -> Connector[Any]:
        """A connector on that wire, with the client it gets in production."""
        client = build_client(self.connector, self.config, timeout=timeout, transport=transport or self.wire())
        return self.connector(self.config, client)

    def batch(self, op: Op | None = None, count: int = 3, prefix: str = "") -> Batch:
        """A batch of one op, never larger than the object takes."""
        most = self.spec.limits.batch_size or count
        made = self.contract.changes(self.spec, op or self.ops[0], min(count, most), prefix)
        return self.batch_of(made, id=f"batch-{prefix or 1}")

    def batch_of(self, made: list[Any], id: str = "batch-1") -> Batch:
        """A batch of these changes."""
        return samples.batch(self.spec, made, audience=self.contract.audience, id=id)

    def push(self, connector: Connector[Any], batch: Batch) -> list[Receipt]:
        """Push, and poll until everything is settled. Checks that there is one receipt a change."""
        settled, outcome = [], _read(connector.push(batch))
        for _ in range(_POLLS):
            if not isinstance(outcome, Job):
                settled += outcome
                self.complete(batch, settled)
                return settled
            settled += outcome.settled
            outcome = self.poll(connector, outcome, batch)
            if isinstance(outcome, Job):
                settled.clear()  # it repeats what is settled
        raise Failure(f"the job is not over after {_POLLS} polls")

    def poll(self, connector: Connector[Any], job: Job, batch: Batch) -> list[Receipt] | Job:
        """Ask once."""
        if not isinstance(connector, Polls):
            raise Failure("push returned a Job, and the connector has no poll()")
        return _read(connector.poll(job, batch))

    def complete(self, batch: Batch, receipts: list[Receipt]) -> None:
        """Exactly one receipt a change, each of them a Receipt with a Status."""
        sent = sorted(change.key for change in batch.changes)
        strays = [r for r in receipts if not _is_receipt(r)]
        require(not strays, f"push answered something that is not a Receipt with a Status: {strays[:1]!r}")
        self.statuses |= {receipt.status for receipt in receipts}
        got = sorted(receipt.key for receipt in receipts)
        require(
            sent == got,
            f"{len(sent)} changes were pushed and {len(got)} receipts came back "
            f"(for {len(set(got) & set(sent))} of the changes): there must be exactly one each",
        )

    def requests_of_a_good_push(self, op: Op | None = None) -> int:
        """How many requests a push makes when all goes well, polls not counted."""
        wire = self.wire()
        _read(self.connect(wire).push(self.batch(op)))
        return len(wire.requests)


def _read(outcome: Outcome) -> list[Receipt] | Job:
    """Run through the receipts where they are made one by one."""
    require(isinstance(outcome, Job | Iterable), f"push answered {outcome!r}, neither receipts nor a Job")
    return outcome if isinstance(outcome, Job) else list(outcome)


def _is_receipt(value: object) -> bool:
    return isinstance(value, Receipt) and isinstance(value.status, Status)


def _secrets(value: Any) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _secrets(getattr(value, name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _secrets(one)


@dataclass
class Watch:
    """What a connector did beside answering: this thread, and every thread that began since.

    Threads that ran before are somebody else's: they sleep, read and connect as if nobody watched.
    """

    strangers: frozenset[int | None] = field(default_factory=lambda: _others())
    slept: list[float] = field(default_factory=list)
    environment: list[str] = field(default_factory=list)
    connected: list[object] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    output: io.StringIO = field(default_factory=io.StringIO)

    def is_strange(self) -> bool:
        """Whether the thread that asks ran before the watch began."""
        return threading.get_ident() in self.strangers

    def sleep(self, seconds: float) -> None:
        """Stands in for `time.sleep`."""
        if self.is_strange():
            _sleep(seconds)
        else:
            self.slept.append(seconds)

    def connect(self, client: socket.socket, address: Any) -> None:
        """Stands in for `socket.connect`."""
        if self.is_strange():
            _connect(client, address)
        else:
            self.connected.append(address)

    @property
    def said(self) -> str:
        """Everything written to logs and to the terminal."""
        return "\n".join([*self.log, self.output.getvalue()])


def _others() -> frozenset[int | None]:
    return frozenset(one.ident for one in threading.enumerate()) - {threading.get_ident()}


class _Listener(logging.Handler):
    def __init__(self, watch: Watch) -> None:
        super().__init__(logging.DEBUG)
        self._watch = watch
        self._formatter = logging.Formatter("%(name)s %(message)s")

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread not in self._watch.strangers:
            self._watch.log.append(f"{self._formatter.format(record)} {record.__dict__}")


class _Environment(dict[str, str]):
    """The environment, with a note of what was read by the connector."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(os.environ)
        self._watch = watch

    def __getitem__(self, key: str) -> str:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        """Note and look up."""
        self._note(key)
        return super().get(key, default)

    def _note(self, key: str) -> None:
        if not self._watch.is_strange():
            self._watch.environment.append(key)


@contextlib.contextmanager
def watching(*, http: bool = True) -> Iterator[Watch]:
    """Watch for sleeping, reading the environment, opening connections, logging and printing.

    A connector that speaks something else than `http` opens its own connections: it is let.
    """
    watch = Watch()

    def watched(client: socket.socket, address: Any) -> None:  # a function, so that it is bound as a method is
        watch.connect(client, address)

    listener, root = _Listener(watch), logging.getLogger()
    level = root.level
    root.addHandler(listener)
    root.setLevel(logging.DEBUG)
    try:
        with (
            mock.patch.object(time, "sleep", watch.sleep),
            mock.patch.object(os, "environ", _Environment(watch)),
            mock.patch.object(socket.socket, "connect", watched) if http else contextlib.nullcontext(),
            contextlib.redirect_stdout(watch.output),
            contextlib.redirect_stderr(watch.output),
        ):
            yield watch
    finally:
        root.removeHandler(listener)
        root.setLevel(level)


def told(error: DestinationError) -> str:
    """Everything a log could show of an error and its causes; `detail` is not shown, it is evidence."""
    parts, seen = [], error
    following: BaseException | None = error
    while following is not None:
        parts += [str(following), repr(following), str(following.args)]
        following = following.__cause__ or following.__context__
    return "\n".join([*parts, error.message, error.fix, *traceback.format_exception(seen)])
