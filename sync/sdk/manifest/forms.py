"""The forms that an answer can have: what a manifest says of where it tells what became of each record."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sync.sdk.manifest.auth import Strict

__all__ = [
    "Answer", "ByIdentifier", "ByIndex", "Code", "Count", "Proof", "Refusal", "Rows", "Scalar", "Silent",
    "TwoLists",
]  # fmt: skip

Scalar = str | int | bool


class Proof(Strict):
    """What has to stand in an answer for it to count: at a dotted path one of some values; without `equals`,
    anything but nothing: null, false, an empty text."""

    at: str = Field(min_length=1)
    equals: tuple[Scalar, ...] = ()


class Refusal(Strict):
    """What stands in an answer of a good status that refuses the whole request: at a dotted path one of `equals`,
    or anything but one of `unless`; without these, anything but nothing. `reason` is where it says why, if not
    there."""

    at: str = Field(min_length=1)
    equals: tuple[Scalar, ...] = ()
    unless: tuple[Scalar, ...] = ()
    reason: str = ""


class _Answered(Strict):
    """What every form has: statuses that are read beside 2xx, what proves success, what refuses the whole request,
    and `accepted` where the platform has only promised to do it."""

    statuses: tuple[int, ...] = ()
    success: Proof | None = None
    refusal: Refusal | None = None
    accepted: bool = False


class Silent(_Answered):
    """All or nothing. Without `success` and `bodies`, only a 204 or a body listed in `plain_success` counts; with
    it, statuses in `proven` do, which need no body: a 204 for what was there already, beside a 201 with an id."""

    kind: Literal["silent"]
    proven: tuple[int, ...] = ()
    bodies: tuple[str, ...] = ()  # whole bodies that mean success: `OK`, `1`
    remote_id: str = ""


class ByIndex(_Answered):
    """Refusals in a list, each with the number of its record: a number, several, or a path that begins with one
    (`/data/3/email`, `contacts[3]`). Without `index` the entries are the numbers; with `keyed` the list is an
    object whose keys are. `base` is the number of the first record. A 200 with a `plain_success` lists nobody."""

    kind: Literal["by_index"]
    list: str
    index: str = ""
    base: Literal[0, 1] = 0
    keyed: bool = False
    reason: str = ""


class ByIdentifier(_Answered):
    """Refusals in lists, each with its record's identifier; without `identifier` the entries are identifiers, and
    with `keyed` the keys of an object are.

    `match` is the field they are compared with, in lower case. Without `reason`, the list's name is the reason.
    """

    kind: Literal["by_identifier"]
    lists: tuple[str, ...] = Field(min_length=1)
    match: str
    identifier: str = ""
    keyed: bool = False
    reason: str = ""


class TwoLists(_Answered):
    """One list has who was taken, the other who was not; whoever is in neither is unknown, or with `rest`
    rejected. Without `rejected` there is only the first list."""

    kind: Literal["two_lists"]
    applied: str
    rejected: str = ""
    match: str
    identifier: str = ""
    reason: str = ""
    rest: Literal["unknown", "rejected"] = "unknown"


class Rows(_Answered):
    """An entry a record, in the order they were sent, or with `match` each with its `identifier`, which with
    `keyed` is the key of an object, or with `index` each with the number of its record, the first being `base`.

    Good is a row whose `status` is one of `good`, or without `status` one that has nothing at `error`; then
    `remote_id` has to be there, if it is given. One whose `status` is in `later` is sent again by a later run.
    """

    kind: Literal["rows"]
    list: str
    status: str = ""
    good: tuple[Scalar, ...] = ()
    later: tuple[Scalar, ...] = ()
    error: str | None = None
    reason: str = ""
    remote_id: str = ""
    match: str = ""
    identifier: str = ""
    keyed: bool = False
    index: str = ""
    base: Literal[0, 1] = 0


class Code(_Answered):
    """A code in the body speaks for the whole request, whatever the HTTP status says."""

    kind: Literal["code"]
    code: str
    good: tuple[Scalar, ...] = Field(min_length=1)
    reason: str = ""
    remote_id: str = ""


class Count(_Answered):
    """Only numbers: how many were taken, and how many were not. Where not all were, nobody says who: the batch is
    cut in halves until the refused record stands alone."""

    kind: Literal["count"]
    taken: str
    refused: str = ""
    reason: str = ""


Answer = Annotated[Silent | ByIndex | ByIdentifier | TwoLists | Rows | Code | Count, Field(discriminator="kind")]
