"""What an answer says of each record: the forms a manifest's `answer` can have, and how each is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import httpx
import orjson
from pydantic import Field

from sync.errors import ProtocolError, RequestError
from sync.sdk.manifest.auth import Strict
from sync.sdk.manifest.text import ABSENT, dig, is_one_of
from sync.sdk.nouns import Change, Receipt, Status
from sync.sdk.values import text

__all__ = [
    "Answer",
    "Proof",
    "body_of",
    "entries_of",
    "label",
    "label_of",
    "prove",
    "read",
    "reason_of",
    "unproven",
]

Scalar = str | int | bool
_NUMBER = re.compile(r"(?:^|[/\[.])(\d{1,8})(?=$|[/\].])")


class Proof(Strict):
    """What has to stand in an answer for it to count: at a dotted path one of some values; without `equals`,
    anything but nothing: null, false, an empty text."""

    at: str = Field(min_length=1)
    equals: tuple[Scalar, ...] = ()


class _Answered(Strict):
    """What every form has: statuses that are read beside 2xx, what proves success, and `accepted` where the
    platform has only promised to do it."""

    statuses: tuple[int, ...] = ()
    success: Proof | None = None
    accepted: bool = False


class Silent(_Answered):
    """All or nothing. Without `success` and `bodies`, only a 204 or a body listed in `plain_success` counts."""

    kind: Literal["silent"]
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
    """An entry a record, in the order they were sent, or with `match` each with its `identifier`.

    Good is a row whose `status` is one of `good`, or without `status` one that has nothing at `error`; then
    `remote_id` has to be there, if it is given.
    """

    kind: Literal["rows"]
    list: str
    status: str = ""
    good: tuple[Scalar, ...] = ()
    error: str | None = None
    reason: str = ""
    remote_id: str = ""
    match: str = ""
    identifier: str = ""


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


def read(answer: Any, plain: Sequence[str], changes: Sequence[Change], response: httpx.Response) -> list[Receipt]:
    """One receipt a change. Raises `ProtocolError` where the answer does not prove anything, and
    `RequestError` where it refuses the whole request."""
    if isinstance(answer, Silent) and response.text.strip() in answer.bodies:
        return _all(changes, Status.ACCEPTED if answer.accepted else Status.APPLIED)
    body = body_of(response)
    if answer.success is not None and not _proves(answer.success, body):
        raise unproven(answer.success.at, response)
    if isinstance(answer, Silent):
        receipts = _silent(answer, plain, changes, body, response)
    elif isinstance(answer, ByIndex | ByIdentifier) and response.status_code == 200 and _shape(body) in plain:
        receipts = _all(changes, Status.APPLIED)  # nobody is listed
    else:
        receipts = _READERS[type(answer)](answer, changes, body, response)
    return [_accepted(one) for one in receipts] if answer.accepted else receipts


def _accepted(receipt: Receipt) -> Receipt:
    if receipt.status is not Status.APPLIED:
        return receipt
    return Receipt(receipt.key, Status.ACCEPTED, receipt.reason, receipt.remote_id)


def body_of(response: httpx.Response) -> Any:
    """The JSON of the body; `ABSENT` where there is none. Raises `ProtocolError` for anything else."""
    if not response.content.strip():
        return ABSENT
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise ProtocolError(f"status {response.status_code} came without JSON", response.text) from None


def _proves(proof: Proof, body: Any) -> bool:
    found = dig(body, proof.at)
    if proof.equals:
        return is_one_of(found, proof.equals)
    return not any(found is nothing for nothing in (ABSENT, None, False)) and found not in ("", [], {})


def prove(proof: Proof, response: httpx.Response) -> None:
    """Raise `ProtocolError` where the answer lacks what it should have."""
    if not _proves(proof, body_of(response)):
        raise unproven(proof.at, response)


def unproven(where: str, response: httpx.Response) -> ProtocolError:
    """The error for an answer that lacks what it should have."""
    return ProtocolError(
        f"status {response.status_code} came without what was expected at '{where}'", response.text
    )


def entries_of(
    body: Any, path: str, response: httpx.Response, *, required: bool, keyed: bool = False
) -> Iterator[tuple[str | None, Any]]:
    """The entries of a list, or of an object with their keys. Raises `ProtocolError` where it is neither."""
    found = dig(body, path)
    if found is ABSENT and not required:
        return
    if keyed and isinstance(found, dict):
        yield from found.items()
    elif not keyed and isinstance(found, list):
        yield from ((None, entry) for entry in found)
    else:
        raise unproven(path, response)


def _list(body: Any, path: str, required: bool, response: httpx.Response) -> list[Any]:
    return [entry for _, entry in entries_of(body, path, response, required=required)]


def reason_of(entry: Any, path: str, otherwise: str) -> str:
    """What stands at the path, as text; `otherwise` where nothing does."""
    said = dig(entry, path) if path else ABSENT
    if isinstance(said, list) and said and all(isinstance(one, str) for one in said):
        said = "; ".join(said)
    return text(said)[:500] if said is not ABSENT and text(said).strip() else otherwise


def _all(changes: Sequence[Change], status: Status, reason: str = "") -> list[Receipt]:
    return [Receipt(change.key, status, reason) for change in changes]


def _id(entry: Any, path: str) -> str | None:
    """The platform's own id, where it stands at the path."""
    found = dig(entry, path) if path else ABSENT
    return text(found) if isinstance(found, str | int) and not isinstance(found, bool) and found != "" else None


def _shape(body: Any) -> str:
    """What `plain_success` calls a body that says next to nothing."""
    return "empty" if body is ABSENT else "{}" if body == {} else "other"


def _silent(
    answer: Silent, plain: Sequence[str], changes: Sequence[Change], body: Any, response: httpx.Response
) -> list[Receipt]:
    if answer.success is None and response.status_code != 204 and _shape(body) not in plain:
        raise ProtocolError(f"status {response.status_code} came with a body that proves nothing", response.text)
    return [Receipt(change.key, Status.APPLIED, remote_id=_id(body, answer.remote_id)) for change in changes]


def _by_index(answer: ByIndex, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    refused: dict[int, str] = {}
    for key, entry in entries_of(body, answer.list, response, required=answer.success is None, keyed=answer.keyed):
        why = reason_of(entry, answer.reason, text(entry)[:500] if answer.keyed else f"listed in {answer.list}")
        for number in _numbers(dig(entry, answer.index) if key is None else key):
            if number is None or not 0 <= number - answer.base < len(changes):
                raise unproven(f"{answer.list}.{answer.index}", response)
            refused[number - answer.base] = why
    return [_settled(change.key, refused.get(number)) for number, change in enumerate(changes)]


def _numbers(value: Any) -> Iterator[int | None]:
    """The numbers that an entry names; None for what is none."""
    if isinstance(value, list) and value:
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, str):
        found = _NUMBER.search(value)
        yield int(found[1]) if found else None
    else:
        yield value if isinstance(value, int) and not isinstance(value, bool) else None


def _by_identifier(
    answer: ByIdentifier, changes: Sequence[Change], body: Any, response: httpx.Response
) -> list[Receipt]:
    refused: dict[str, str] = {}
    for path in answer.lists:
        required = answer.success is None
        for key, entry in entries_of(body, path, response, required=required, keyed=answer.keyed):
            why = reason_of(entry, answer.reason, f"listed in {path}" if key is None else text(entry)[:500])
            for one in _labels(dig(entry, answer.identifier) if key is None else key):
                refused[one] = why or f"listed in {path}"
    strangers = set(refused) - {label_of(change, answer.match) for change in changes}
    rest = Status.UNKNOWN if strangers else Status.APPLIED  # somebody was refused, and we cannot tell who
    why = "the answer refuses an identifier that was not sent" if strangers else ""
    return [_settled(c.key, refused.get(label_of(c, answer.match)), rest, why) for c in changes]


def _labels(value: Any) -> list[str]:
    return [label(one) for one in value] if isinstance(value, list) and value else [label(value)]


def _two_lists(answer: TwoLists, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    applied = {label(dig(e, answer.identifier)) for e in _list(body, answer.applied, True, response)}
    refused = {
        label(dig(e, answer.identifier)): reason_of(e, answer.reason, f"listed in {answer.rejected}")
        for e in (_list(body, answer.rejected, True, response) if answer.rejected else ())
    }
    return [_of_two(answer, change, applied, refused) for change in changes]


def _of_two(answer: TwoLists, change: Change, applied: set[str], refused: Mapping[str, str]) -> Receipt:
    who = label_of(change, answer.match)
    if who in applied and who in refused:
        return Receipt(change.key, Status.UNKNOWN, "the answer mentions it twice")
    if who not in applied and who not in refused:
        rest = Status(answer.rest)
        return Receipt(
            change.key, rest, f"not listed in {answer.applied}" if answer.rest == "rejected" else _UNSAID
        )
    return _settled(change.key, refused.get(who))


_UNSAID = "the answer does not mention it"


def _rows(answer: Rows, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    rows = _list(body, answer.list, True, response)
    if answer.match:
        return _matched(answer, changes, rows)
    if len(rows) != len(changes):
        return _all(changes, Status.UNKNOWN, "the answer's list does not fit the records sent")
    return [_row(answer, change.key, row) for change, row in zip(changes, rows, strict=True)]


def _matched(answer: Rows, changes: Sequence[Change], rows: Sequence[Any]) -> list[Receipt]:
    """Rows by identifier; of somebody with two that differ nobody can tell."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(label(dig(row, answer.identifier)), []).append(row)
    receipts = []
    for change in changes:
        made = [_row(answer, change.key, row) for row in found.get(label_of(change, answer.match), ())]
        if len({receipt.status for receipt in made}) > 1:
            made = [Receipt(change.key, Status.UNKNOWN, "the answer says two different things of it")]
        receipts.append([*made, Receipt(change.key, Status.UNKNOWN, _UNSAID)][0])
    return receipts


def _row(answer: Rows, key: str, row: Any) -> Receipt:
    if answer.status:
        status = dig(row, answer.status)
        if status is ABSENT:
            return Receipt(key, Status.UNKNOWN, "the answer has no status for it")
        good, otherwise = is_one_of(status, answer.good), f"{answer.status}: {text(status)}"
    else:
        error = dig(row, answer.error or "")
        good, otherwise = error is ABSENT or error in (None, "", [], {}, False), text(error)[:500]
    if not good:
        return Receipt(key, Status.REJECTED, reason_of(row, answer.reason, otherwise))
    id = _id(row, answer.remote_id)
    if answer.remote_id and id is None and not answer.status:
        return Receipt(key, Status.UNKNOWN, "the answer has neither an id nor an error for it")
    return Receipt(key, Status.APPLIED, remote_id=id)


def _code(answer: Code, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    code = dig(body, answer.code)
    if code is ABSENT or isinstance(code, dict | list):
        raise unproven(answer.code, response)
    if not is_one_of(code, answer.good):
        raise RequestError(
            "the platform refused the request by a code in its answer", reason_of(body, answer.reason, text(code))
        )
    return [Receipt(change.key, Status.APPLIED, remote_id=_id(body, answer.remote_id)) for change in changes]


def _count(answer: Count, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    taken = _whole(body, answer.taken, response)
    refused = _whole(body, answer.refused, response) if answer.refused else len(changes) - taken
    if taken == len(changes) and refused == 0:
        return _all(changes, Status.APPLIED)
    if refused <= 0 or taken > len(changes):
        why = "the answer's numbers do not fit the records sent"
        return _all(changes, Status.UNKNOWN, why)
    raise RequestError(
        f"the platform did not take {refused} of {len(changes)} records and does not say which",
        reason_of(body, answer.reason, f"{answer.refused or answer.taken} counts it as refused"),
    )


def _whole(body: Any, path: str, response: httpx.Response) -> int:
    found = dig(body, path)
    if isinstance(found, bool) or not isinstance(found, int):
        raise unproven(path, response)
    return found


def _settled(key: str, refusal: str | None, rest: Status = Status.APPLIED, why: str = "") -> Receipt:
    return Receipt(key, rest, why) if refusal is None else Receipt(key, Status.REJECTED, refusal)


def label(value: Any) -> str:
    """An identifier as it is compared: text, in lower case, without spaces around it."""
    return "" if value is ABSENT else text(value).strip().lower()


def label_of(change: Change, field: str) -> str:
    """The same of a change's field, or of its `remote_id`."""
    if field == "remote_id":
        return label(change.remote_id)
    return label(change.identifiers.get(field, change.fields.get(field, "")))


_READERS: Mapping[type, Callable[..., list[Receipt]]] = {
    ByIndex: _by_index,
    ByIdentifier: _by_identifier,
    TwoLists: _two_lists,
    Rows: _rows,
    Code: _code,
    Count: _count,
}
