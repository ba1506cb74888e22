"""`headgate rejected`: records a destination refused, or that we refused to send."""

from __future__ import annotations

import hashlib
from collections import Counter
from typing import Any

import click

from sync.cli import output, words
from sync.cli.context import Session, opened, reason_of
from sync.cli.options import Options, SyncName, group
from sync.errors import UsageError
from sync.state.nouns import Event, RejectedRecord


@group("rejected", default="list")
def command() -> None:
    """Records a destination refused, or that we refused to send.

    They are sent again by later runs without any flag, ever more rarely, until they succeed or are given up.
    """


@command.command("list")
@click.argument("sync", required=False, type=SyncName(), metavar="[SYNC]")
@click.option("--given-up", is_flag=True, help="Those that were given up instead.")
@click.option("--limit", default=50, show_default=True, help="Records listed; all are counted.")
@click.pass_obj
def list_(options: Options, sync: str | None, given_up: bool, limit: int) -> None:
    """Count them by reason, and list the newest. Reasons are masked: they may quote the record."""
    with opened(options) as session:
        found = _records(session, sync, given_up=given_up)
        groups = Counter((r.sync, r.code, words.masked(r.reason)) for r in found)
        if options.json:
            output.document(
                "rejected list",
                count=len(found),
                groups=[{"sync": s, "code": c, "reason": t, "count": n} for (s, c, t), n in groups.most_common()],
                records=[_data(r) for r in found[:limit]],
                exit_code=0,
            )
            return
        for (name, _, reason), count in groups.most_common(20):
            output.say(f"{name}: {count:,} x {words.cut(reason, 60)}")
        if not found:
            output.say("no rejected records", kind="ok")
            return
        _table(found[:limit], session.ledger.now())
        if len(found) > limit:
            output.say(f"... and {len(found) - limit:,} more (--limit)")
        first = found[0]
        output.say(f"  next: {session.command(f'rejected show {first.sync} {_handle(first)[:12]}')}")


@command.command("show")
@click.argument("sync", type=SyncName(), metavar="SYNC")
@click.argument("key")
@click.option("--reveal", is_flag=True, help="Show the values; needs --reason and is audited.")
@click.option("--reason", default="", help="Why the values are needed.")
@click.pass_obj
def show(options: Options, sync: str, key: str, reveal: bool, reason: str) -> None:
    """Show one record: what was to be sent, and what the destination said. Masked unless --reveal."""
    why = reason_of(reason) if reveal else ""
    with opened(options) as session:
        record = next(iter(_chosen(session, sync, (key,), everything=False)))
        data = _data(record, reveal=reveal) | {"values": _values(session, record, reveal=reveal)}
        if reveal:
            event = Event(session.actor, "rejected.revealed", sync, {"key": _handle(record), "reason": why})
            session.ledger.record(event)
        if options.json:
            output.document("rejected show", record=data, exit_code=0)
            return
        for name, value in data.items():
            output.say(f"{name}: {value if value is not None else '-'}")


@command.command("retry")
@click.argument("sync", type=SyncName(), metavar="SYNC")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "everything", is_flag=True, help="All rejected records of the sync.")
@click.option("--reason", default="", help="Kept in the audit log.")
@click.pass_obj
def retry(options: Options, sync: str, keys: tuple[str, ...], everything: bool, reason: str) -> None:
    """Send records with the next run, however long they were to wait; also those that were given up."""
    with opened(options) as session:
        _set(session, sync, keys, everything=everything, retry=True, reason=" ".join(reason.split()))


@command.command("give-up")
@click.argument("sync", type=SyncName(), metavar="SYNC")
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "everything", is_flag=True, help="All rejected records of the sync.")
@click.option("--reason", required=True, help="Why they need not be delivered; kept in the audit log.")
@click.pass_obj
def give_up(options: Options, sync: str, keys: tuple[str, ...], everything: bool, reason: str) -> None:
    """Do not send these records any more, until `retry`."""
    with opened(options) as session:
        _set(session, sync, keys, everything=everything, retry=False, reason=reason_of(reason))


def _records(session: Session, sync: str | None, *, given_up: bool | None) -> list[RejectedRecord]:
    if sync is not None:
        session.job(sync)  # an unknown name is an error with the nearest one
    return session.ledger.rejected(sync, given_up=given_up)


def _chosen(session: Session, sync: str, keys: tuple[str, ...], *, everything: bool) -> list[RejectedRecord]:
    """The records meant, each by a unique beginning of its key. Raises `UsageError` for none or many."""
    found = _records(session, sync, given_up=None)
    if everything and keys:
        raise UsageError("give keys or --all, not both")
    if everything:
        return found
    if not keys:
        raise UsageError("which records", fix=f"give keys ({session.command(f'rejected list {sync}')}) or --all")
    chosen = []
    for key in keys:
        fits = [r for r in found if key in (r.key, _handle(r))] or [r for r in found if _handle(r).startswith(key)]
        if len(fits) != 1:
            count = "no record" if not fits else f"{len(fits)} records"
            raise UsageError(f"{count} of {sync} with the key {key}", fix=session.command(f"rejected list {sync}"))
        chosen += fits
    return chosen


def _set(
    session: Session, sync: str, keys: tuple[str, ...], *, everything: bool, retry: bool, reason: str
) -> None:
    chosen = [r.key for r in _chosen(session, sync, keys, everything=everything)]
    name = "retry" if retry else "give-up"
    action = "rejected.retried" if retry else "rejected.given_up"
    event = Event(session.actor, action, sync, {"count": len(chosen), "reason": reason})
    count = session.ledger.set_rejected(
        sync, chosen, retry=retry, actor=session.actor, reason=reason, events=[event] if chosen else []
    )
    if session.options.json:
        output.document(f"rejected {name}", sync=sync, count=count, exit_code=0)
    elif retry:
        goes = "goes" if count == 1 else "go"
        output.say(f"{words.several(count, 'record')} {goes} with the next run of {sync}", kind="ok")
        output.say(f"  next: {session.command(f'run {sync}')}")
    else:
        output.say(f"{words.several(count, 'record')} of {sync} given up", kind="ok")


def _handle(record: RejectedRecord) -> str:
    """What a record is called: its key; a digest of it where it is the warehouse's, which may be personal."""
    kind, _, key = record.key.partition(":")
    if kind != "row" or key.startswith("#"):
        return record.key
    return f"row:{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _data(record: RejectedRecord, *, reveal: bool = False) -> dict[str, Any]:
    return {
        "sync": record.sync,
        "key": _handle(record),
        "op": record.op,
        "code": record.code,
        "reason": record.reason if reveal else words.masked(record.reason),
        "attempts": record.attempts,
        "run": record.run,
        "first_at": words.iso(record.first_at),
        "last_at": words.iso(record.last_at),
        "next_at": words.iso(record.next_at),
        "given_up_by": record.given_up_by,
        "given_up_reason": record.given_up_reason,
        "given_up_at": words.iso(record.given_up_at),
    }


def _values(session: Session, record: RejectedRecord, *, reveal: bool) -> Any:
    from sync.engine.people import rejected_values

    found = rejected_values(session.engine, record)
    if reveal or not found:
        return found
    fields = session.job(record.sync).sync.fields
    return words.masked_sample(found, frozenset(field.to for field in fields if field.pii))


def _table(records: list[RejectedRecord], now: float) -> None:
    """With the sync's name where there are several: the reasons need the room."""
    named = ("sync",) if len({r.sync for r in records}) > 1 else ()
    columns = (*named, "key", "op", "tries", "last", "next try", "reason")
    table = output.table(*columns, right=("tries",), fold=("sync", "reason"))
    for r in records:
        waits = "given up" if r.given_up_at else ("next run" if r.next_at <= now else words.due(r.next_at, now))
        reason = output.visible(words.cut(words.masked(r.reason), 120))
        name = (r.sync,) if named else ()
        table.add_row(*name, _handle(r)[:12], r.op, str(r.attempts), words.age(r.last_at, now), waits, reason)
    output.console().print(table)
