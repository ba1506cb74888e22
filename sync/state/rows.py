"""Nouns to rows of the ledger and back."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cache, wraps
from typing import Any, TypeVar

import orjson
from sqlalchemy import Row

from sync.conditions import Condition
from sync.errors import Corrupt
from sync.sdk.nouns import Job, Op, Receipt, Status
from sync.state.alerts import Alert, AlertMessage, MessageKind
from sync.state.nouns import (
    Approval,
    Attempt,
    BatchRow,
    BatchState,
    Counts,
    Decision,
    Generation,
    Plan,
    PlanKind,
    PlanStatus,
    Refresh,
    RejectedRecord,
    RequestKind,
    Run,
    RunRequest,
    RunStatus,
    Verdict,
    VerdictAnswer,
)

AnyRow = Row[Any]
T = TypeVar("T")


def _sound(read: Callable[[AnyRow], T]) -> Callable[[AnyRow], T]:
    """A row that holds what was never written to it is damage; what it holds is not repeated."""

    @wraps(read)
    def reading(row: AnyRow) -> T:
        try:
            return read(row)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise Corrupt(
                f"the ledger is damaged: a row of its table `{read.__name__}` is not what was written",
                code="HG315",
                fix="stop every headgate process, keep a copy of the file with its -wal, and restore the newest "
                "backup; nothing is sent before that",
            ) from error

    return reading


def to_json(value: Any) -> str:
    """JSON text with sorted keys; keys that are not text become text."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # integers past 64 bits and lone surrogates, which a platform's answer may hold
        return json.dumps(value, sort_keys=True)


def clean(text: str) -> str:
    """The text as a database can keep it: a platform's answer may hold lone surrogates and NUL."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


_AS_IS = (int, float, bool, type(None))


@cache
def _names(noun: type) -> tuple[str, ...]:
    return tuple(f.name for f in dataclasses.fields(noun) if f.name != "job")


def _encode(value: Any) -> Any:
    if type(value) in _AS_IS:  # hundreds of thousands of rows come through here
        return value
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, str):
        return value if value.isascii() and "\x00" not in value else clean(value)
    if isinstance(value, frozenset):
        return to_json(sorted(value))
    if isinstance(value, Mapping):
        return to_json(dict(value))
    if isinstance(value, tuple):
        return to_json([dataclasses.asdict(v) if dataclasses.is_dataclass(v) else v for v in value])  # type: ignore[arg-type]
    if isinstance(value, Counts):
        return to_json(dataclasses.asdict(value))
    return value


def values(noun: Any) -> dict[str, Any]:
    """A noun's fields as values of the columns of the same names. `Job` has its own way: `job_text`."""
    return {name: _encode(getattr(noun, name)) for name in _names(noun.__class__)}


def job_text(job: Job) -> str:
    """A job as JSON."""
    return to_json(dataclasses.asdict(job))


def _job(text: str | None) -> Job | None:
    if text is None:
        return None
    plain = json.loads(text)
    settled = tuple(
        Receipt(r["key"], Status(r["status"]), r["reason"], r["remote_id"]) for r in plain.pop("settled")
    )
    return Job(**plain, settled=settled)


def _fields(row: AnyRow, *without: str) -> dict[str, Any]:
    return {name: value for name, value in row._mapping.items() if name not in without}


@_sound
def refresh(row: AnyRow) -> Refresh:
    """A refresh."""
    plain = _fields(row, "seq")
    return Refresh(**plain | {"nulls": json.loads(plain["nulls"])})


@_sound
def generation(row: AnyRow) -> Generation:
    """A generation."""
    plain = _fields(row)
    return Generation(
        **plain | {"fields": tuple(json.loads(plain["fields"])), "digests": json.loads(plain["digests"])}
    )


def _verdict(plain: dict[str, Any]) -> Verdict:
    return Verdict(**plain | {"answer": VerdictAnswer(plain["answer"])})


@_sound
def plan(row: AnyRow) -> Plan:
    """A plan."""
    plain = _fields(row, "seq", "round")
    plain["status"] = PlanStatus(plain["status"])
    plain["kind"] = PlanKind(plain["kind"])
    counts = json.loads(plain["counts"])
    counts["left_out"] = tuple((op, why, records) for op, why, records in counts.get("left_out", ()))
    plain["counts"] = Counts(**counts)
    plain["verdicts"] = tuple(_verdict(v) for v in json.loads(plain["verdicts"]))
    return Plan(**plain)


@_sound
def approval(row: AnyRow) -> Approval:
    """An approval."""
    plain = _fields(row, "seq", "round")
    return Approval(**plain | {"decision": Decision(plain["decision"])})


@_sound
def run(row: AnyRow) -> Run:
    """A run."""
    plain = _fields(row, "seq", "removed")
    plain["status"] = RunStatus(plain["status"])
    plain["ops"] = frozenset(Op(op) for op in json.loads(plain["ops"]))
    plain["counts"] = json.loads(plain["counts"])
    plain["error"] = json.loads(plain["error"]) if plain["error"] is not None else None
    return Run(**plain)


@_sound
def batch(row: AnyRow) -> BatchRow:
    """A batch; the row need not have `remote_ids`."""
    plain = _fields(row, "remote_ids")
    return BatchRow(**plain | {"state": BatchState(plain["state"]), "job": _job(plain["job"])})


@_sound
def attempt(row: AnyRow) -> Attempt:
    """An attempt."""
    return Attempt(**_fields(row, "sync", "settled"))


@_sound
def rejected(row: AnyRow) -> RejectedRecord:
    """A rejected record."""
    return RejectedRecord(**_fields(row))


@_sound
def request(row: AnyRow) -> RunRequest:
    """A run request."""
    plain = _fields(row)
    plain["kind"] = RequestKind(plain["kind"])
    plain["report"] = json.loads(plain["report"]) if plain["report"] is not None else None
    return RunRequest(**plain)


@_sound
def alert(row: AnyRow) -> Alert:
    """One alert."""
    own = {name: getattr(row, name) for name in _names(Alert)}
    read = {"condition": Condition(row.condition), "facts": json.loads(row.facts)}
    lists = {"told": tuple(json.loads(row.told)), "changes": tuple(json.loads(row.changes))}
    return Alert(**own | read | lists)


@_sound
def alert_message(row: AnyRow) -> AlertMessage:
    """One message."""
    own = {name: getattr(row, name) for name in _names(AlertMessage)}
    read = {"condition": Condition(row.condition), "kind": MessageKind(row.kind)}
    return AlertMessage(**own | read | {"facts": json.loads(row.facts)})
