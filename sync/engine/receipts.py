"""From a connector's receipts to the outcomes the ledger keeps: counted record by record, never by the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import quote

from sync.logging import hide_secrets
from sync.sdk.nouns import Batch, Change, Op, Receipt, Status
from sync.state.nouns import BatchRow, Outcomes

__all__ = ["discreet", "read", "the_same_for_all"]

_MISSING = (Status.UNKNOWN, "the destination said nothing of this record")
_NO_STATUS = (Status.UNKNOWN, "the connector gave a status that there is not")
_TWICE = (Status.UNKNOWN, "the destination answered twice, and not the same")
_ODD_ID = (Status.UNKNOWN, "the destination gave it an id that cannot be kept")

_HIDDEN = "•••"
_ID = 1000  # characters of a platform's own id
_READ, _KEPT = 16_000, 2000  # characters of a reason that are looked at, and that are kept


def read(row: BatchRow, batch: Batch, receipts: Iterable[Receipt]) -> Outcomes:
    """Match receipts to changes; reasons are as the destination gave them.

    A change without a receipt, or with two that differ, is unknown; receipts for other keys count for nothing.
    """
    positions = {change.key: row.first + index for index, change in enumerate(batch.changes)}
    accepted = 0
    applied = 0
    exceptions: dict[str, tuple[Status, str]] = {}
    seen: dict[str, object] = {}
    remote_ids: dict[int, str] = {}
    for receipt in receipts:
        key = receipt.key
        status: object = receipt.status  # whatever a connector put there
        if key not in positions:
            continue
        if key in seen:
            if seen[key] is not status:
                exceptions[key] = _TWICE
            continue
        seen[key] = status
        if status is Status.APPLIED:
            applied += 1
        elif status is Status.ACCEPTED:
            accepted += 1
        else:
            exceptions[key] = (status, str(receipt.reason)) if isinstance(status, Status) else _NO_STATUS
        if receipt.remote_id is not None:
            id = str(receipt.remote_id)
            if len(id) <= _ID and id.isprintable():
                remote_ids[positions[key]] = id
            else:
                exceptions.setdefault(key, _ODD_ID)
    for key in exceptions:
        applied -= seen[key] is Status.APPLIED
        accepted -= seen[key] is Status.ACCEPTED
    if len(seen) < len(positions):
        exceptions.update({key: _MISSING for key in positions if key not in seen})
    return Outcomes(applied, accepted, _rows(batch.changes, positions, exceptions), remote_ids)


def _rows(
    changes: Sequence[Change], positions: dict[str, int], exceptions: dict[str, tuple[Status, str]]
) -> list[tuple[int, str, Op, Status, str]]:
    if not exceptions:
        return []
    ops = {change.key: change.op for change in changes if change.key in exceptions}
    return [(positions[key], key, ops[key], status, reason) for key, (status, reason) in exceptions.items()]


def the_same_for_all(row: BatchRow, batch: Batch, status: Status, reason: str) -> Outcomes:
    """One outcome for every record of a batch."""
    changes = enumerate(batch.changes, row.first)
    return Outcomes(applied=0, exceptions=[(n, change.key, change.op, status, reason) for n, change in changes])


def discreet(outcomes: Outcomes, row: BatchRow, batch: Batch, private: frozenset[str]) -> Outcomes:
    """The outcomes with reasons that may be kept: no secret of ours, and none of the record's private values.

    Destinations quote what they were sent, at any length, the addresses of requests included. `private` names the
    identifiers and fields that are personal data. What a terminal would obey becomes a space.
    """
    if not outcomes.exceptions:
        return outcomes

    def kept(number: int, reason: str) -> str:
        change, reason = batch.changes[number - row.first], reason[:_READ]
        for name in private:
            value = change.identifiers.get(name, change.fields.get(name))
            if isinstance(value, str) and len(value) > 1:
                reason = reason.replace(value, _HIDDEN).replace(quote(value, "", errors="replace"), _HIDDEN)
        return _plain(hide_secrets(reason)[:_KEPT])

    exceptions = [(n, key, op, status, kept(n, reason)) for n, key, op, status, reason in outcomes.exceptions]
    return replace(outcomes, exceptions=exceptions)


def _plain(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
