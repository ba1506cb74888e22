"""Changes made up from the fields an object declares, and text that shows up wherever it leaks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from sync.sdk.nouns import Batch, Change, Field, ObjectSpec, Op, Value

__all__ = ["CANARY", "batch", "changes", "odd", "padded"]

CANARY = "canary9f3c"
"""Part of every text that stands for personal data."""

_OPEN_IDENTIFIERS = (Field("email", identifier=True),)
_OPEN_FIELDS = (Field("first_name"), Field("score", "number"), Field("vip", "boolean"))

ODD_TEXTS = (
    "",
    " leading and trailing ",
    'quotes " and \\ and , and ;',
    "line\nbreak\r\nand\ttab",
    "emoji 🦜, עברית, 日本語, é",
    "=HYPERLINK(1)",
    "<b>&amp;</b>",
    "null",
    "{{template}}",
    "x" * 2000,
)


def changes(spec: ObjectSpec, op: Op, count: int, prefix: str = "") -> list[Change]:
    """Changes of one op with every field filled; a removal has identifiers alone. Keys are unique per prefix."""
    return [_change(spec, op, f"{prefix}{op.value}{number}") for number in range(count)]


def batch(spec: ObjectSpec, made: list[Change], *, audience: str = "1234", id: str = "batch-1") -> Batch:
    """A batch as the engine would push it."""
    return Batch(
        id=id,
        sync="sample-sync",
        object=spec.name,
        audience=audience if spec.audience else None,
        changes=tuple(made),
        types=_types(spec, made),
    )


def odd(spec: ObjectSpec, op: Op) -> list[Change]:
    """Changes whose free texts are nasty, and whose optional fields are empty."""
    free = {f.name for f in _fields(spec) if f.type == "string" and not f.hash}
    optional = {f.name for f in _fields(spec) if not f.required}
    made = []
    for change, text in zip(changes(spec, op, len(ODD_TEXTS), "odd"), ODD_TEXTS, strict=True):
        fields = {k: (text if k in free else v) for k, v in change.fields.items()}
        made.append(_with_fields(change, fields))
    if made and made[0].fields:
        made.append(_with_fields(changes(spec, op, 1, "nulls")[0], dict.fromkeys(optional & set(made[0].fields))))
    return made


def padded(spec: ObjectSpec, op: Op, size: int) -> list[Change]:
    """One change of about `size` bytes, where the object has a free text to fill."""
    (change,) = changes(spec, op, 1, "large")
    free = [f.name for f in _fields(spec) if f.type == "string" and not f.hash and f.name in change.fields]
    return [_with_fields(change, {**change.fields, free[0]: "x" * size})] if free else []


def _with_fields(change: Change, fields: Mapping[str, Value]) -> Change:
    return Change(change.op, change.key, change.identifiers, fields, change.remote_id)


def _identifiers(spec: ObjectSpec) -> tuple[Field, ...]:
    return spec.identifiers or _OPEN_IDENTIFIERS


def _fields(spec: ObjectSpec) -> tuple[Field, ...]:
    declared = tuple(f for f in spec.fields if not f.identifier)
    return declared or (_OPEN_FIELDS if spec.open_fields else ())


def _change(spec: ObjectSpec, op: Op, label: str) -> Change:
    identifiers = {f.name: _value(f, label) for f in _identifiers(spec)}
    fields = {} if op is Op.REMOVE else {f.name: _value(f, label) for f in _fields(spec)}
    remote = None if op is Op.ADD else f"remote-{label}"
    return Change(op, f"key-{label}", identifiers, fields, remote)


def _types(spec: ObjectSpec, made: list[Change]) -> dict[str, str]:
    names = {name for change in made for name in (*change.identifiers, *change.fields)}
    return {f.name: _WAREHOUSE[f.type] for f in (*_identifiers(spec), *_fields(spec)) if f.name in names}


_WAREHOUSE = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "json": "JSON",
}


def _value(field: Field, label: str) -> Value:
    """A plausible wire value; equal labels make equal values."""
    number = int(hashlib.sha256(label.encode()).hexdigest()[:6], 16)
    typed: dict[str, Value] = {
        "integer": number,
        "number": number / 8,
        "boolean": bool(number % 2),
        "date": f"20{number % 30:02}-0{number % 9 + 1}-1{number % 10}",
        "timestamp": f"2026-0{number % 9 + 1}-1{number % 10}T08:30:00Z",
        "json": {"note": f"{CANARY} {label}"},
    }
    if field.type in typed:
        return typed[field.type]
    text = _text(field, label, number)
    return hashlib.new(field.hash, text.encode(), usedforsecurity=False).hexdigest() if field.hash else text


def _text(field: Field, label: str, number: int) -> str:
    hint = f"{field.name} {field.normalise or ''}".lower()
    if "mail" in hint:
        return f"{CANARY}.{label}@acme.example"
    if "phone" in hint or "e164" in hint:
        return f"+614{number % 10**8:08}"
    if "country" in hint:
        return "AU"
    return f"{CANARY} {label}"
