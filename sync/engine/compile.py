"""From a mapping to SQL: the mapped rows of a cohort, their keys and their fingerprints.

The mapped relation has one row a cohort row, with the columns

    source_key   VARCHAR   the cohort's key
    newest       TIMESTAMP updated_at, or null; with a time zone where it has one
    id.NAME, field.NAME    what the destination is told, in the source's types after transforms
    why          VARCHAR   why the row is invalid; null where it is fit to be sent

and the digested relation adds

    key          DECIMAL(38,0)  two independent 63- and 64-bit hashes of the identifiers, packed
    fingerprint  UBIGINT        hash of the mapped fields and of their names
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from sync.engine.columns import BadExpression, spelled
from sync.engine.sql import identifier, literal
from sync.engine.transforms import TRANSFORMS, BadTransform, apply
from sync.engine.wire import is_nested, json_sql
from sync.errors import CohortError
from sync.mapping import Cohort, FieldMapping, Sync, Transform
from sync.sdk.nouns import Field, ObjectSpec
from sync.sources.base import Column

__all__ = ["PROBE", "Compiled", "compile_sync", "key_sql", "needed_columns", "problems"]

PROBE = "SELECT hash('headgate', 1, 2.5, DATE '2020-02-29', NULL)::VARCHAR || ',' || hash('k' || 'é')::VARCHAR"
"""Changes when DuckDB's hash function does: keys and fingerprints made before are not comparable then."""

Problem = tuple[tuple[str | int, ...], str, str, str]
"""Where in the sync, code, message, fix."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """The compiled mapping over one staged relation."""

    relation: str  # of the staged rows
    source_key: str  # SQL of the cohort's key over the relation
    selected: str  # SQL of the values over the relation, as the mapping makes them
    cleaned: str  # SQL over these, as they are kept
    identifiers: tuple[str, ...]  # the destination's names
    fields: tuple[str, ...]
    types: dict[str, str]  # column of `mapped` -> DuckDB type
    shape: str  # digest of the names, part of every fingerprint

    @property
    def mapped(self) -> str:
        """A SELECT of every mapped column."""
        return f"SELECT {self.cleaned} FROM (SELECT {self.selected} FROM {self.relation})"

    def among(self, hashes: str) -> Compiled:
        """The same over fewer rows: those with a key whose hash a SELECT names, and hardly any others."""
        fewer = f"(SELECT * FROM {self.relation} WHERE hash({self.source_key}) IN ({hashes}))"
        return replace(self, relation=fewer)

    @property
    def digested(self) -> str:
        """A SELECT of every mapped column with key and fingerprint."""
        return f"SELECT *, {self.key} AS key, {self.fingerprint} AS fingerprint FROM ({self.mapped})"

    @property
    def key(self) -> str:
        """SQL of the member key over the mapped columns."""
        return key_sql([identifier(f"id.{name}") for name in self.identifiers])

    @property
    def fingerprint(self) -> str:
        """SQL of the fingerprint over the mapped columns."""
        columns = [_hashable(identifier(f"field.{n}"), self.types[f"field.{n}"]) for n in self.fields]
        return f"hash({', '.join([literal(self.shape), *columns])})"

    @property
    def nulls(self) -> str:
        """SQL of the names of the mapped fields that are null, joined by the unit separator."""
        cases = [
            f"CASE WHEN {identifier(f'field.{name}')} IS NULL THEN {literal(name)} END" for name in self.fields
        ]
        return f"concat_ws(chr(31), {', '.join(cases)})" if cases else "''"


def _hashable(column: str, type: str) -> str:
    """DuckDB hashes [] and {'a': NULL} as it hashes NULL, but not their JSON."""
    return f"to_json({column})::VARCHAR" if is_nested(type) and type != "JSON" else column


def key_sql(columns: Sequence[str]) -> str:
    """A 127-bit digest of the identifiers: two hashes of different texts, so that neither follows from the other.

    Parquet has no 128-bit integer; a DECIMAL(38,0) is stored in 16 bytes and joins as fast.
    """
    first = ", ".join(f"CAST({c} AS VARCHAR)" for c in columns)
    second = ", ".join(f"'k' || CAST({c} AS VARCHAR)" for c in columns)
    return f"CAST((((hash({first}) >> 2)::UHUGEINT << 64) | hash({second})::UHUGEINT) AS DECIMAL(38, 0))"


def _value(mapping: FieldMapping, columns: Sequence[str]) -> str:
    """SQL of the value before transforms. Raises `BadExpression`."""
    if mapping.from_ is not None:
        return identifier(spelled(mapping.from_, columns))
    if mapping.expr is not None:
        from sync.engine.expressions import to_sql

        return to_sql(mapping.expr, columns)
    return _constant(mapping.value)


def _constant(value: str | int | float | bool | None) -> str:
    if value is None:
        return "CAST(NULL AS VARCHAR)"
    return literal(value) if isinstance(value, str) else str(value).upper()


def _transforms(mapping: FieldMapping, field: Field | None) -> tuple[Transform, ...]:
    """The mapping's own, then what the platform wants: normalised first, hashed last."""
    platform = [n for n in (field.normalise, field.hash) if n] if field else []
    return (*mapping.transform, *(Transform(name=name) for name in platform))


def _field(spec: ObjectSpec, name: str) -> Field | None:
    return next((f for f in spec.fields if f.name == name), None)


def _expression(mapping: FieldMapping, spec: ObjectSpec, columns: Sequence[str]) -> str:
    value = _value(mapping, columns)
    for transform in _transforms(mapping, _field(spec, mapping.to)):
        value = apply(value, transform)
    return value


def needed_columns(cohort: Cohort, sync: Sync, columns: Sequence[str]) -> list[str]:
    """The cohort's columns that the sync reads, as the source spells them; only these leave the warehouse.

    Raises `CohortError` naming a mapped column that is missing.
    """
    wanted = [cohort.source.key, *([cohort.source.updated_at] if cohort.source.updated_at else [])]
    try:
        for mapping in (*sync.identifiers, *sync.fields):
            wanted += _reads(mapping)
        return list(dict.fromkeys(spelled(name, columns) for name in wanted))
    except BadExpression as error:
        raise _unfit(error) from None


def _reads(mapping: FieldMapping) -> list[str]:
    if mapping.from_ is not None:
        return [mapping.from_]
    if mapping.expr is not None:
        from sync.engine.expressions import columns_of

        return columns_of(mapping.expr)
    return []


def _unfit(error: BadExpression | BadTransform) -> CohortError:
    code = error.code if isinstance(error, BadExpression) else "HG122"
    return CohortError(f"{error}; nothing was sent", code=code, fix=error.fix or "mend the mapping or the table")


def compile_sync(
    cohort: Cohort,
    sync: Sync,
    spec: ObjectSpec,
    relation: str,
    columns: Sequence[Column],
    describe: Callable[[str], dict[str, str]],
) -> Compiled:
    """Compile the mapping over a staged relation.

    `describe` answers a SELECT's column names and DuckDB types. Raises `CohortError` where a mapped column is
    missing or a transform does not fit its column.
    """
    names = [c.name for c in columns]
    try:
        key = f"CAST({identifier(spelled(cohort.source.key, names))} AS VARCHAR)"
        selected = [f"{key} AS source_key"]
        newest = cohort.source.updated_at
        selected.append(f"{_instant(spelled(newest, names), columns) if newest else 'NULL::TIMESTAMP'} AS newest")
        selected += [f"{_expression(m, spec, names)} AS {identifier(f'id.{m.to}')}" for m in sync.identifiers]
        selected += [f"{_expression(m, spec, names)} AS {identifier(f'field.{m.to}')}" for m in sync.fields]
    except (BadExpression, BadTransform) as error:
        raise _unfit(error) from None
    inner = f"SELECT {', '.join(selected)} FROM {relation}"
    types = describe(inner)
    identifiers = tuple(m.to for m in sync.identifiers)
    fields = tuple(m.to for m in sync.fields)
    cleaned = ["source_key, newest"]
    cleaned += [_clean(f"id.{name}", types, empty=True) for name in identifiers]
    cleaned += [_clean(f"field.{name}", types) for name in fields]
    cleaned.append(f"{_why(sync, spec, types)} AS why")
    shape = hashlib.sha256("\x1f".join([spec.name, *fields]).encode()).hexdigest()[:16]
    return Compiled(
        relation=relation,
        source_key=key,
        selected=", ".join(selected),
        cleaned=", ".join(cleaned),
        identifiers=identifiers,
        fields=fields,
        types={n: _kept_as(t) for n, t in types.items() if n.startswith(("id.", "field."))},
        shape=shape,
    )


_NOBODY = ("", hashlib.sha256(b"").hexdigest(), hashlib.md5(b"", usedforsecurity=False).hexdigest())
"""Texts that identify nobody: an empty one, also where the warehouse hashed it."""

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
"""Types whose values are none of these texts."""

_WIDE = re.compile(r"U?HUGEINT|UNION\(|INTERVAL")


def _kept_as(type: str) -> str:
    """The type that keeps a value whole in Parquet.

    DuckDB writes 128-bit integers as DOUBLE, unions as structs, and intervals in milliseconds, positive ones only.
    """
    if is_nested(type):
        return "JSON" if _WIDE.search(type) else type
    return {"HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "VARCHAR", "INTERVAL": "VARCHAR"}.get(type, type)


def _instant(name: str, columns: Sequence[Column]) -> str:
    """A time as it is; casts of one with a time zone are dear."""
    types = {c.name: c.type for c in columns}
    column = identifier(name)
    return (
        column if types[name] in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE") else f"TRY_CAST({column} AS TIMESTAMP)"
    )


def _clean(name: str, types: dict[str, str], *, empty: bool = False) -> str:
    """A mapped column as it is kept; an identifier that identifies nobody is null."""
    column, given = identifier(name), types[name]
    kept = _kept_as(given)
    if empty and given == "VARCHAR":
        return f"CASE WHEN {_nobody(column, given)} THEN NULL ELSE {column} END AS {column}"
    if kept == given:
        return column
    if given == "HUGEINT":  # rows with more than 38 digits are invalid
        return f"TRY_CAST({column} AS {kept}) AS {column}"
    return f"{json_sql(name, given)} AS {column}"


def _nobody(column: str, type: str) -> str:
    if type in _NUMBERS:
        return f"{column} IS NULL"
    return f"coalesce(CAST({column} AS VARCHAR), '') IN ({', '.join(map(literal, _NOBODY))})"


def _no_number(column: str, type: str) -> str:
    """SQL that is true of a value that JSON has no number for: NaN, infinity, an integer beyond 38 digits."""
    if type in ("DOUBLE", "FLOAT"):
        return f"NOT isfinite({column})"
    if type == "HUGEINT":
        return f"{column} IS NOT NULL AND TRY_CAST({column} AS DECIMAL(38, 0)) IS NULL"
    if is_nested(type) and ("DOUBLE" in type or "FLOAT" in type):
        unquoted = f"""regexp_replace(to_json({column})::VARCHAR, '"(?:[^"\\\\]|\\\\.)*"', '', 'g')"""
        return f"regexp_matches({unquoted}, 'NaN|Infinity')"
    return ""


def _why(sync: Sync, spec: ObjectSpec, types: dict[str, str]) -> str:
    """SQL of the reason why a row must not be sent; null where there is none."""
    cases = ["WHEN source_key IS NULL THEN 'the key is null'"]
    empty = {m.to: _nobody(identifier(f"id.{m.to}"), types[f"id.{m.to}"]) for m in sync.identifiers}
    if len(empty) > 1:
        cases.append(f"WHEN {' AND '.join(empty.values())} THEN 'every identifier is empty'")
    for name, test in empty.items():
        field = _field(spec, name)
        if len(empty) == 1 or (field and field.required):
            cases.append(f"WHEN {test} THEN {literal(f'identifier {name} is empty')}")
    for mapping in sync.identifiers:
        if test := _no_number(identifier(f"id.{mapping.to}"), types[f"id.{mapping.to}"]):
            cases.append(f"WHEN {test} THEN {literal(f'identifier {mapping.to} is no number')}")  # noqa: PERF401
    for mapping in sync.fields:
        column, field = f"field.{mapping.to}", _field(spec, mapping.to)
        if test := _no_number(identifier(column), types[column]):
            cases.append(f"WHEN {test} THEN {literal(f'field {mapping.to} is no number')}")
        if field and field.required:
            cases.append(f"WHEN {identifier(column)} IS NULL THEN {literal(f'field {mapping.to} is empty')}")
    return f"CASE {' '.join(cases)} END"


def problems(sync: Sync, cohort: Cohort, columns: Sequence[Column] | None, spec: ObjectSpec) -> Iterator[Problem]:
    """What is wrong with a sync's expressions, transforms and, where `columns` are known, column names."""
    names = [c.name for c in columns] if columns is not None else None
    for kind, mappings in (("identifiers", sync.identifiers), ("fields", sync.fields)):
        for index, mapping in enumerate(mappings):
            yield from _field_problems((kind, index), mapping, names, _field(spec, mapping.to))
    if names is not None:
        for key in ("key", "updated_at"):
            try:
                spelled(getattr(cohort.source, key) or names[0], names)
            except BadExpression as error:
                yield ("cohort", "source", key), error.code, str(error), error.fix


def _field_problems(
    path: tuple[str | int, ...], mapping: FieldMapping, names: list[str] | None, field: Field | None
) -> Iterator[Problem]:
    where = "from" if mapping.from_ is not None else "expr" if mapping.expr is not None else "value"
    try:
        if names is not None:
            _value(mapping, names)
        else:
            _reads(mapping)
    except BadExpression as error:
        yield (*path, where), error.code, str(error), error.fix
    for index, transform in enumerate(_transforms(mapping, field)):
        try:
            apply("x", transform)
        except BadTransform as error:
            near = difflib.get_close_matches(transform.name, TRANSFORMS, 1, 0.5) if error.unknown else []
            fix = f"did you mean '{near[0]}'?" if near else error.fix or f"there are {', '.join(TRANSFORMS)}"
            yield (*path, "transform", index), "HG121" if error.unknown else "HG122", str(error), fix
