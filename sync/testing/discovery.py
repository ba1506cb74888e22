"""Checks of connectors that make audiences, or say which fields an account has."""

from __future__ import annotations

from collections.abc import Callable

from sync.errors import DestinationError
from sync.sdk.connector import Creates, Describes
from sync.sdk.nouns import Op
from sync.testing import samples
from sync.testing.case import SUCCESS, Case, NotApplicable, require
from sync.testing.check import check
from sync.testing.declared import TYPES
from sync.testing.hostile import NONSENSE, always

_TITLE = "Made by the conformance kit"


@check("an audience that it makes can be filled at once")
def made_and_filled(case: Case) -> None:
    """Its id is what a mapping has as `audience`."""
    connector = case.connect()
    if not isinstance(connector, Creates) or not case.spec.audience or Op.ADD not in case.ops:
        raise NotApplicable("it makes no audiences")
    made = connector.create_audience(case.object, _TITLE)
    require(made.strip(), "the audience's id is empty")
    batch = case.batch(Op.ADD, prefix="made")
    filled = samples.batch(case.spec, list(batch.changes), audience=made, id=batch.id)
    receipts = case.push(connector, filled)
    failed = [r for r in receipts if r.status not in SUCCESS]
    require(not failed, f"the audience was made, yet a receipt says {failed[:1]}")


@check("nonsense instead of a new audience's id is an error", http=True)
def nonsense_audience(case: Case) -> None:
    """A mapping must not be given an id that is none."""

    def ask(wired: object) -> object:
        if not isinstance(wired, Creates) or not case.spec.audience:
            raise NotApplicable("it makes no audiences")
        return wired.create_audience(case.object, _TITLE)

    _refused(case, ask, "is read as a new audience")


@check("the fields it says the account has are of known types, and each is there once")
def fields_described(case: Case) -> None:
    """Mappings are completed and checked by them."""
    connector = case.connect()
    if not isinstance(connector, Describes):
        raise NotApplicable("it does not say which fields an account has")
    found = list(connector.describe(case.object))
    strays = [one for one in found if one.type not in TYPES or not one.name]
    require(not strays, f"it names a field of an unknown type, or without a name: {strays[:1]!r}")
    names = [one.name for one in found]
    require(len(names) == len(set(names)), "it names a field twice")


@check("nonsense instead of fields is an error, never an account without fields", http=True)
def nonsense_fields(case: Case) -> None:
    """Every field of a mapping would look as if it were misspelt."""

    def ask(wired: object) -> object:
        if not isinstance(wired, Describes):
            raise NotApplicable("it does not say which fields an account has")
        return list(wired.describe(case.object))

    _refused(case, ask, "is read as fields")


def _refused(case: Case, ask: Callable[[object], object], what: str) -> None:
    """Every nonsense is an error; one that needs no request is not about answers."""
    for name, response in NONSENSE.items():
        wire = case.wire(always(response))
        try:
            ask(case.connect(wire))
        except DestinationError:
            continue
        if not wire.requests:
            raise NotApplicable("it asks nobody")
        require(False, f"a 200 with {name} {what}")
