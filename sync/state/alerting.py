"""Alerts in the ledger: what changed is kept once, and each message is sent by one process at a time."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import case, delete, func, insert, select, update

from sync.faultpoints import durable
from sync.state import rows, tables
from sync.state.alerts import Alert, AlertMessage, Mute, Telling
from sync.state.database import upsert
from sync.state.holder import is_dead
from sync.state.leases import LeaseLedger
from sync.state.nouns import Event, RequestKind, Run, RunRequest
from sync.state.tables import NOW, STEADY

__all__ = ["AlertLedger"]

_alert, _message, _mute = tables.alert.c, tables.alert_message.c, tables.alert_mute.c
_run, _request = tables.run.c, tables.run_request.c
_event = tables.audit_event.c
_WAITS = _message.sent_at.is_(None) & _message.gave_up_at.is_(None)
_KEPT_S = 30 * 86400.0  # how long messages that were sent, or given up, are listed
_AT_ONCE = 50  # messages that one notifier is given in one claim
_EVENTS = 20_000  # of the audit log that are looked at
_INTERRUPTIONS = 20  # of one run
_STOPPED = "HG520"  # somebody stopped it
_REQUESTS = 50  # of one sync that are looked at, of each kind
_SLOTS = ":"  # slots of a schedule begin with a digit and sort before it


class AlertLedger(LeaseLedger):
    """Keeps alerts, their messages and mutes; and answers what only alerts ask."""

    # --- what conditions are made of --------------------------------------------------------------------------

    def ended_run(self, sync: str) -> Run | None:
        """The newest run that is over."""
        query = select(tables.run).where(_run.sync == sync, _run.finished_at.is_not(None))
        return self._one(query.order_by(_run.seq.desc()).limit(1), rows.run)

    def interruption(self, run: str) -> tuple[str, float] | None:
        """Why a run that is open did not end, and when that was: the code of its newest error.

        A person's stop is none. It is what the audit log has of it, among its newest events: the run itself is
        as it was, for the next one to go on with.
        """
        newest = self._scalar(select(func.max(_event.seq))) or 0
        query = select(_event.at, _event.data).where(_event.seq > newest - _EVENTS)
        query = query.where(_event.action == "run.interrupted", _event.object == run).order_by(_event.seq.desc())
        found = self._all(query.limit(_INTERRUPTIONS), lambda r: (str(json.loads(r.data).get("code", "")), r.at))
        return next(((code, float(at)) for code, at in found if code != _STOPPED), None)

    def newest_requests(self, sync: str) -> list[RunRequest]:
        """The newest requests for runs of a schedule, and the newest of anybody else; oldest first."""
        of_sync = select(tables.run_request).where(_request.sync == sync, _request.kind == RequestKind.RUN.value)
        slots = of_sync.where(_request.slot < _SLOTS).order_by(_request.slot.desc()).limit(_REQUESTS)
        others = of_sync.where(_request.slot >= _SLOTS).order_by(_request.at.desc()).limit(_REQUESTS)
        found = self._all(slots, rows.request) + self._all(others, rows.request)
        return sorted(found, key=lambda request: request.at)

    # --- alerts -----------------------------------------------------------------------------------------------

    def alerts(self) -> list[Alert]:
        """Every condition that was ever true, open ones first, then by subject."""
        query = select(tables.alert).order_by(_alert.open.desc(), _alert.subject, _alert.condition)
        return self._all(query, rows.alert)

    @durable
    def change_alert(self, alert: Alert, telling: Telling | None = None) -> bool:
        """Keep an alert, and with it the message that each notifier is to be sent.

        False, and nothing is kept, where another process wrote it first: `alert.number` is one more than what
        was read. What still waits for the same notifier is superseded.
        """
        values = rows.values(alert)
        with self._db.write() as connection:
            if alert.number == 1:
                statement: Any = upsert(tables.alert).values(values).on_conflict_do_nothing()
            else:
                statement = update(tables.alert).values(values)
                statement = statement.where(
                    _alert.subject == alert.subject,
                    _alert.condition == alert.condition.value,
                    _alert.number == alert.number - 1,
                )
            if connection.execute(statement).rowcount != 1:
                return False
            if telling is not None:
                for target in sorted(telling.targets):
                    _put(connection, alert, telling, target)
            return True

    # --- messages ---------------------------------------------------------------------------------------------

    def messages(self, *, waiting: bool = False, limit: int = 50) -> list[AlertMessage]:
        """The newest messages, newest first; or those that still wait, oldest first."""
        query = select(tables.alert_message).limit(limit)
        if waiting:
            return self._all(query.where(_WAITS).order_by(_message.seq), rows.alert_message)
        return self._all(query.order_by(_message.seq.desc()), rows.alert_message)

    def waiting_messages(self) -> int:
        """How many still wait."""
        return int(self._scalar(select(func.count()).where(_WAITS)) or 0)

    def due_targets(self) -> dict[str, float]:
        """The notifiers that are to be sent something now, and when the oldest message of each was made.

        A notifier is due when none of its messages waits for another attempt, and no living process has one of
        them.
        """
        with self.reading() as connection:
            return _due(connection, _WAITS)

    @durable
    def claim_messages(self, holder: str, target: str, ttl: float) -> list[AlertMessage]:
        """What a notifier is to be sent, oldest first, for this process alone for `ttl` seconds.

        Empty where it is not due. `attempts` counts those before.
        """
        its = _WAITS & (_message.target == target)
        with self._db.write() as connection:
            query = select(tables.alert_message).where(its).order_by(_message.seq).limit(_AT_ONCE)
            mine = connection.execute(query).all() if _due(connection, its) else []
            if mine:
                claim = update(tables.alert_message).where(_message.seq.in_([r.seq for r in mine]))
                claim = claim.values(claimed_by=holder, claimed_until=STEADY + ttl, attempts=_message.attempts + 1)
                connection.execute(claim)
        return [rows.alert_message(row) for row in mine]

    @durable
    def end_messages(
        self, holder: str, messages: Sequence[AlertMessage], problem: str = "", *, after: float = 0.0, most: float
    ) -> None:
        """They were sent; or, where there is a `problem`, are tried again in `after` seconds.

        Those that were made more than `most` seconds ago are given up then: the notifier was not told of their
        alerts. Nothing is written of messages that another process claimed meanwhile.
        """
        ours = (_message.seq.in_([m.seq for m in messages]), _message.claimed_by == holder)
        gone = _message.at < NOW - most
        end: dict[str, Any] = {"sent_at": NOW, "problem": ""}
        if problem:
            gave_up = case((gone, NOW), else_=sa.null())
            end = {"problem": problem, "next_at": STEADY + after, "gave_up_at": gave_up}
        old = func.coalesce(_message.sent_at, _message.gave_up_at) < NOW - _KEPT_S
        with self._db.write() as connection:
            if problem:
                for row in connection.execute(select(tables.alert_message).where(*ours, gone)).all():
                    _untell(connection, row)
            released = {"claimed_by": "", "claimed_until": 0.0}
            connection.execute(update(tables.alert_message).where(*ours).values(end | released))
            connection.execute(delete(tables.alert_message).where(old))

    # --- mutes ------------------------------------------------------------------------------------------------

    def mutes(self) -> list[Mute]:
        """What is muted now."""
        query = select(tables.alert_mute).where(_mute.until > NOW).order_by(_mute.subject, _mute.condition)
        return self._all(query, lambda r: Mute(r.subject, r.condition, r.until, r.reason, r.actor, r.at))

    @durable
    def mute(self, subject: str, condition: str, mute: Mute | None, events: Sequence[Event] = ()) -> bool:
        """Mute a subject's condition, or with None let it be heard again; False where it was not muted."""
        this = (_mute.subject == subject, _mute.condition == condition)
        with self._db.write() as connection:
            found = connection.execute(delete(tables.alert_mute).where(*this)).rowcount
            connection.execute(delete(tables.alert_mute).where(_mute.until <= NOW))
            if mute is not None:
                connection.execute(insert(tables.alert_mute).values(rows.values(mute)))
            if mute is not None or found:
                self._record(connection, events)
        return mute is not None or found > 0


def _due(connection: sa.Connection, which: sa.ColumnElement[bool]) -> dict[str, float]:
    now = connection.execute(select(STEADY)).scalar_one()
    waiting = connection.execute(select(tables.alert_message).where(which)).all()
    busy = {r.target for r in waiting if r.next_at > now or _is_claimed(r, now)}
    due: dict[str, float] = {}
    for row in waiting:
        if row.target not in busy:
            due[row.target] = min(row.at, due.get(row.target, row.at))
    return due


def _is_claimed(row: Any, now: float) -> bool:
    return bool(row.claimed_by) and row.claimed_until > now and not is_dead(row.claimed_by)


def _untell(connection: sa.Connection, message: Any) -> None:
    """The notifier of a message was not told of its alert: whoever looks next has it told where it is open."""
    this = (_alert.subject == message.subject, _alert.condition == message.condition)
    row = connection.execute(select(tables.alert).where(*this)).one_or_none()
    alert = rows.alert(row) if row is not None else None
    if alert is not None and message.target in alert.told:
        told = tuple(name for name in alert.told if name != message.target)
        values = rows.values(replace(alert, told=told, number=alert.number + 1))
        connection.execute(update(tables.alert).where(*this).values(values))


def _put(connection: sa.Connection, alert: Alert, telling: Telling, target: str) -> None:
    same = (
        _message.target == target,
        _message.subject == alert.subject,
        _message.condition == alert.condition.value,
    )
    free = (_message.claimed_by == "") | (_message.claimed_until <= STEADY)
    connection.execute(delete(tables.alert_message).where(*same, _WAITS, free))
    kept = {
        "id": alert.id,
        "target": target,
        "subject": alert.subject,
        "condition": alert.condition.value,
        "kind": telling.kind.value,
        "at": NOW,
        "since": telling.since,
        "facts": rows.to_json(alert.facts),
        "attempts": 0,
        "problem": "",
        "next_at": 0.0,
        "claimed_by": "",
        "claimed_until": 0.0,
    }
    connection.execute(insert(tables.alert_message).values(kept))
