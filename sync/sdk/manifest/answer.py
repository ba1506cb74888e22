"""Reads what an answer says of each record, as the form of the manifest says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx
import orjson

from sync.errors import ProtocolError, RequestError
from sync.sdk.manifest.forms import ByIdentifier, ByIndex, Code, Count, Proof, Refusal, Rows, Silent, TwoLists
from sync.sdk.manifest.text import ABSENT, dig, is_one_of
from sync.sdk.nouns import Change, Receipt, Status
from sync.sdk.values import text

__all__ = [
    "body_of",
    "created",
    "entries_of",
    "label",
    "label_of",
    "prove",
    "read",
    "reason_of",
    "unproven",
]

_NUMBER = re.compile(r"(?:^|[/\[.])(\d{1,8})(?=$|[/\].])")


def read(answer: Any, plain: Sequence[str], changes: Sequence[Change], response: httpx.Response) -> list[Receipt]:
    """One receipt a change. Raises `ProtocolError` where the answer does not prove anything, and
    `RequestError` where it refuses the whole request."""
    if isinstance(answer, Silent) and response.text.strip() in answer.bodies:
        return _all(changes, Status.ACCEPTED if answer.accepted else Status.APPLIED)
    if isinstance(answer, Silent) and response.status_code in answer.proven and not response.content.strip():
        return _all(changes, Status.ACCEPTED if answer.accepted else Status.APPLIED)
    body = body_of(response)
    if answer.refusal is not None:
        refuse(answer.refusal, body)
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


def refuse(refusal: Refusal, body: Any, reason: str = "") -> None:
    """Raise `RequestError` where the answer refuses the whole request; it says why at `reason`, unless the refusal
    knows better."""
    found = dig(body, refusal.at)
    if refusal.unless:
        refused = found is not ABSENT and not is_one_of(found, refusal.unless)
    else:
        refused = _proves(Proof(at=refusal.at, equals=refusal.equals), body)
    if refused:
        why = reason_of(
            body,
            refusal.reason or reason,
            f"{refusal.at}: {text(found)}" if refusal.equals or refusal.unless else text(found),
        )
        raise RequestError("the platform refused the request in an answer with a good status", why)


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
    elif keyed and found == [] and isinstance(found, list):
        return  # an object with nothing in it, as PHP writes it
    elif not keyed and isinstance(found, list):
        yield from ((None, entry) for entry in found)
    else:
        raise unproven(path, response)


def _list(body: Any, path: str, required: bool, response: httpx.Response) -> list[Any]:
    return [entry for _, entry in entries_of(body, path, response, required=required)]


def created(path: str, response: httpx.Response) -> str:
    """The id of what was made, which stands at the path. Raises `ProtocolError` where there is none."""
    id = dig(body_of(response), path)
    if isinstance(id, bool) or not isinstance(id, str | int) or not text(id).strip():
        raise unproven(path, response)
    return text(id)


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
    rows = list(entries_of(body, answer.list, response, required=True, keyed=answer.keyed))
    if answer.match:
        names = [(label(dig(row, answer.identifier) if key is None else key), row) for key, row in rows]
        return _matched(answer, changes, names, lambda change: label_of(change, answer.match))
    if answer.index:
        numbered = [(dig(row, answer.index), row) for _, row in rows]
        places = {change.key: number for number, change in enumerate(changes, answer.base)}
        return _matched(answer, changes, numbered, lambda change: places[change.key])
    if len(rows) != len(changes):
        return _all(changes, Status.UNKNOWN, "the answer's list does not fit the records sent")
    return [_row(answer, change.key, row) for change, (_, row) in zip(changes, rows, strict=True)]


def _matched(
    answer: Rows, changes: Sequence[Change], rows: Sequence[tuple[Any, Any]], name: Callable[[Change], Any]
) -> list[Receipt]:
    """Rows by the name or the number of their record; of one with two that differ nobody can tell."""
    found: dict[str, list[Any]] = {}
    for of, row in rows:
        found.setdefault(text(of), []).append(row)
    receipts = []
    for change in changes:
        made = [_row(answer, change.key, row) for row in found.get(text(name(change)), ())]
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
        if is_one_of(status, answer.later):
            return Receipt(key, Status.DEFERRED, reason_of(row, answer.reason, otherwise))
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
    """The same of a change's field, or of its `remote_id` or its `key`."""
    if field == "key":
        return label(change.key)
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
