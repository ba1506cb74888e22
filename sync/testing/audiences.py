"""Checks of connectors that read who is in an audience, against the author's own stateful answer."""

from __future__ import annotations

from typing import Any

from sync.errors import DestinationError
from sync.sdk.connector import Connector, Reads
from sync.sdk.nouns import Batch, Change, Member, Op
from sync.testing.case import Case, NotApplicable, require
from sync.testing.check import check
from sync.testing.hostile import NONSENSE, always

_PAGES = 50


@check("who was added is read back, and who was removed is not")
def read_back(case: Case) -> None:
    """By the platform's own id, or by an identifier."""
    added = case.batch(Op.ADD, 3, "read")
    connector = case.connect()
    reads = _reading(case, connector)
    case.push(connector, added)
    there = _members(reads, added)
    require(all(_has(there, c) for c in added.changes), "somebody who was added is not read back")
    if Op.REMOVE not in case.ops:
        return
    removed = case.batch(Op.REMOVE, 3, "read")
    case.push(connector, removed)
    there = _members(reads, removed)
    require(not any(_has(there, c) for c in removed.changes), "somebody who was removed is still read back")


@check("nonsense instead of a page of members is an error, never an empty audience", http=True)
def nonsense_page(case: Case) -> None:
    """An audience that looks empty would look as if everybody had to be put back."""
    for name, response in NONSENSE.items():
        if name in case.connector.plain_success:
            continue
        reads = _reading(case, case.connect(case.wire(always(response))))
        try:
            _members(reads, case.batch(Op.ADD))
        except DestinationError:
            continue
        require(False, f"a page of {name} is read as members, or as nobody")


def _reading(case: Case, connector: Connector[Any]) -> Reads:
    if not isinstance(connector, Reads) or not (case.spec.audience and case.spec.readable):
        raise NotApplicable("it does not read audiences")
    return connector


def _members(connector: Reads, batch: Batch) -> list[Member]:
    page = connector.members(batch.object, batch.audience)
    found: list[Member] = []
    for _ in range(_PAGES):
        found += page.members
        if page.next is None:
            return found
        page = connector.members(batch.object, batch.audience, page.next)
    raise AssertionError(f"the audience of the contract has no more than {_PAGES} pages")


def _has(members: list[Member], change: Change) -> bool:
    wanted = {(name, str(value).lower()) for name, value in change.identifiers.items()}
    return any(
        (change.remote_id is not None and member.remote_id == change.remote_id)
        or wanted & {(name, str(value).lower()) for name, value in member.identifiers.items()}
        for member in members
    )
