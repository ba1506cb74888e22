"""Reads what an answer says of each record, as a manifest's `answer` describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx
import orjson

from sync.errors import ProtocolError, RequestError
from sync.sdk.manifest import Answer, ByIdentifier, ByIndex, Code, Proof, Rows, Silent, TwoLists
from sync.sdk.nouns import Change, Receipt, Status
from sync.sdk.values import text

__all__ = ["read"]

_MISSING = object()


def read(
    answer: Answer, plain: Sequence[str], changes: Sequence[Change], response: httpx.Response
) -> list[Receipt]:
    """One receipt a change. Raises `ProtocolError` where the answer does not prove anything, and
    `RequestError` where a code refuses the whole request."""
    body = _body(response)
    if answer.success is not None and not _proves(answer.success, body):
        raise _unproven(answer.success.at, response)
    if isinstance(answer, Silent):
        return _silent(answer, plain, changes, body, response)
    return _READERS[type(answer)](answer, changes, body, response)


def _body(response: httpx.Response) -> Any:
    """The JSON of the body; `_MISSING` where there is none."""
    if not response.content.strip():
        return _MISSING
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        raise ProtocolError(f"status {response.status_code} came without JSON", response.text) from None


def _dig(value: Any, path: str) -> Any:
    """What stands at a dotted path; `_MISSING` where there is nothing."""
    for key in filter(None, path.split(".")):
        value = value.get(key, _MISSING) if isinstance(value, dict) else _MISSING
    return value


def _is(value: Any, allowed: Sequence[str | int | bool]) -> bool:
    """Equality without `1 == True`."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed)


def _proves(proof: Proof, body: Any) -> bool:
    return _is(_dig(body, proof.at), proof.equals)


def _unproven(where: str, response: httpx.Response) -> ProtocolError:
    return ProtocolError(
        f"status {response.status_code} came without what was expected at '{where}'", response.text
    )


def _list(body: Any, path: str, required: bool, response: httpx.Response) -> list[Any]:
    found = _dig(body, path)
    if found is _MISSING and not required:
        return []
    if not isinstance(found, list):
        raise _unproven(path, response)
    return found


def _reason(entry: Any, path: str, otherwise: str) -> str:
    said = _dig(entry, path) if path else _MISSING
    return text(said)[:500] if said is not _MISSING and text(said).strip() else otherwise


def _all(changes: Sequence[Change], status: Status, reason: str = "") -> list[Receipt]:
    return [Receipt(change.key, status, reason) for change in changes]


def _silent(
    answer: Silent, plain: Sequence[str], changes: Sequence[Change], body: Any, response: httpx.Response
) -> list[Receipt]:
    shape = "empty" if body is _MISSING else "{}" if body == {} else "other"
    if answer.success is None and response.status_code != 204 and shape not in plain:
        raise ProtocolError(f"status {response.status_code} came with a body that proves nothing", response.text)
    return _all(changes, Status.APPLIED)


def _by_index(answer: ByIndex, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    refused: dict[int, str] = {}
    for entry in _list(body, answer.list, answer.success is None, response):
        number = _dig(entry, answer.index)
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(changes):
            raise _unproven(f"{answer.list}.{answer.index}", response)
        refused[number] = _reason(entry, answer.reason, f"listed in {answer.list}")
    return [_settled(change.key, refused.get(number)) for number, change in enumerate(changes)]


def _by_identifier(
    answer: ByIdentifier, changes: Sequence[Change], body: Any, response: httpx.Response
) -> list[Receipt]:
    refused: dict[str, str] = {}
    for path in answer.lists:
        for entry in _list(body, path, answer.success is None, response):
            refused[_label(_dig(entry, answer.identifier))] = _reason(entry, answer.reason, f"listed in {path}")
    strangers = set(refused) - {_label_of(change, answer.match) for change in changes}
    rest = Status.UNKNOWN if strangers else Status.APPLIED  # somebody was refused, and we cannot tell who
    why = "the answer refuses an identifier that was not sent" if strangers else ""
    return [_settled(c.key, refused.get(_label_of(c, answer.match)), rest, why) for c in changes]


def _two_lists(answer: TwoLists, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    applied = {_label(_dig(e, answer.identifier)) for e in _list(body, answer.applied, True, response)}
    refused = {
        _label(_dig(e, answer.identifier)): _reason(e, answer.reason, f"listed in {answer.rejected}")
        for e in _list(body, answer.rejected, True, response)
    }
    receipts = []
    for change in changes:
        label = _label_of(change, answer.match)
        if (label in applied) == (label in refused):
            why = "the answer mentions it twice" if label in applied else "the answer does not mention it"
            receipts.append(Receipt(change.key, Status.UNKNOWN, why))
        else:
            receipts.append(_settled(change.key, refused.get(label)))
    return receipts


def _rows(answer: Rows, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    rows = _list(body, answer.list, True, response)
    if len(rows) != len(changes):
        return _all(changes, Status.UNKNOWN, "the answer's list does not fit the records sent")
    return [_row(answer, change.key, row) for change, row in zip(changes, rows, strict=True)]


def _row(answer: Rows, key: str, row: Any) -> Receipt:
    status = _dig(row, answer.status)
    if status is _MISSING:
        return Receipt(key, Status.UNKNOWN, "the answer has no status for it")
    if _is(status, answer.good):
        return Receipt(key, Status.APPLIED)
    return Receipt(key, Status.REJECTED, _reason(row, answer.reason, f"{answer.status}: {text(status)}"))


def _code(answer: Code, changes: Sequence[Change], body: Any, response: httpx.Response) -> list[Receipt]:
    code = _dig(body, answer.code)
    if code is _MISSING or isinstance(code, dict | list):
        raise _unproven(answer.code, response)
    if not _is(code, answer.good):
        raise RequestError(
            "the platform refused the request by a code in its answer", _reason(body, answer.reason, text(code))
        )
    return _all(changes, Status.APPLIED)


def _settled(key: str, refusal: str | None, rest: Status = Status.APPLIED, why: str = "") -> Receipt:
    return Receipt(key, rest, why) if refusal is None else Receipt(key, Status.REJECTED, refusal)


def _label(value: Any) -> str:
    return "" if value is _MISSING else text(value).strip().lower()


def _label_of(change: Change, field: str) -> str:
    return _label(change.identifiers.get(field, change.fields.get(field, "")))


_READERS: Mapping[type, Callable[..., list[Receipt]]] = {
    ByIndex: _by_index,
    ByIdentifier: _by_identifier,
    TwoLists: _two_lists,
    Rows: _rows,
    Code: _code,
}
