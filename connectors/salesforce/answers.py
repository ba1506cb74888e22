"""Salesforce's answers, and the receipts they make."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field as Option
from pydantic import StrictBool

from connectors.salesforce.soql import ID, same
from sync.sdk.answer import Shape
from sync.sdk.nouns import Field, Receipt, Status

__all__ = [
    "BOTH",
    "LATER",
    "SILENT",
    "Described",
    "Problem",
    "Rows",
    "Saved",
    "about",
    "field_of",
    "reason",
    "receipt",
]

LATER = ("UNABLE_TO_LOCK_ROW",)  # somebody else was writing the record: nothing was done
SILENT = "Salesforce's answer does not say what became of this record"
BOTH = "Salesforce's answer says two different things of this record"
_TYPES = {
    "boolean": "boolean",
    "int": "integer",
    "long": "integer",
    "double": "number",
    "currency": "number",
    "percent": "number",
    "date": "date",
    "datetime": "timestamp",
}


class Problem(Shape):
    """Why a record was not written."""

    code: str = Option("", alias="statusCode")
    message: str = ""


class Saved(Shape):
    """What became of one record of a collection."""

    id: str | None = Option(None, pattern=f"^{ID}$")
    success: StrictBool
    errors: list[Problem] = Option([])


class Rows(Shape):
    """A page of a query's rows."""

    total: int = Option(alias="totalSize")
    done: StrictBool
    next: str = Option("", alias="nextRecordsUrl")
    records: list[dict[str, Any]]


class _Column(Shape):
    name: str
    label: str = ""
    type: str
    createable: bool = False
    updateable: bool = False
    nillable: bool = True
    defaulted: bool = Option(False, alias="defaultedOnCreate")
    external: bool = Option(False, alias="externalId")


class Described(Shape):
    """What an object is made of."""

    fields: list[_Column] = Option(min_length=1)


def field_of(one: _Column) -> Field | None:
    """The field of a column; None where it cannot be written, or is written once: whose row it is."""
    if not one.updateable and not (one.createable and not one.name.endswith("Id")):
        return None
    needed = one.createable and not one.nillable and not one.defaulted
    kind = _TYPES.get(one.type, "string")
    return Field(one.name, kind, required=needed, identifier=one.external, description=one.label)


def about(one: Saved, id: str) -> Saved:
    """The result; a contradiction where it claims success with another record than that of `id`."""
    return Saved(success=True, errors=[Problem()]) if one.success and not same(one.id, id) else one


def receipt(key: str, saved: Saved, id: str | None) -> Receipt:
    """The receipt for a result; `id` is what is kept as the platform's id."""
    if saved.success:
        whole = id is not None and not saved.errors
        return Receipt(key, Status.APPLIED, remote_id=id) if whole else Receipt(key, Status.UNKNOWN, BOTH)
    later = bool(saved.errors) and all(error.code in LATER for error in saved.errors)
    return Receipt(key, Status.DEFERRED if later else Status.REJECTED, reason(saved.errors))


def reason(errors: Sequence[Problem]) -> str:
    """Why, in Salesforce's words."""
    said = "; ".join(": ".join(filter(None, (error.code, error.message))) for error in errors)
    return said[:500] or "Salesforce gave no reason"
