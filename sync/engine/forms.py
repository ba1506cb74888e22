"""The forms that one identifier of a person has: as given, as a mapping transforms it, and hashed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from sync.engine.expressions import columns_of, to_sql
from sync.engine.job import SyncJob
from sync.engine.sql import identifier as quoted
from sync.engine.transforms import apply
from sync.mapping import FieldMapping, Transform

if TYPE_CHECKING:
    import duckdb

__all__ = ["forms_of", "hashed", "is_address", "plain"]

_HASHES = ("md5", "sha1", "sha256", "sha512")
_DIGITS = 7  # of the shortest telephone number


def plain(value: str) -> str:
    """SQL of a value without white space around it, in lower case: how identifiers are compared."""
    return apply(value, Transform(name="email"))


def is_address(text: str) -> bool:
    """Is it an e-mail address or a telephone number, which identify somebody whatever column they stand in."""
    return "@" in text or (
        len(re.sub(r"[\s().+/-]", "", text)) >= _DIGITS and not re.search(r"[^\d\s().+/-]", text)
    )


def hashed(text: str) -> set[str]:
    """The text without white space around it, in lower case; and its usual hashes in hex."""
    bare = text.strip().lower()
    return {bare} | {hashlib.new(name, bare.encode(), usedforsecurity=False).hexdigest() for name in _HASHES}


def forms_of(
    connection: duckdb.DuckDBPyConnection, job: SyncJob, mappings: Iterable[FieldMapping], text: str
) -> dict[str, set[str]]:
    """By name of the mapped column: how it would be written if its source held this text."""
    forms = {}
    for mapping in mappings:
        field = next((f for f in job.spec.fields if f.name == mapping.to), None)
        platform = [Transform(name=n) for n in (field.normalise, field.hash) if n] if field else []
        columns = ["given", *_computed(mapping)]
        value = columns[-1]
        for transform in (*mapping.transform, *platform):
            value = apply(value, transform)
            columns.append(value)
        given = {text, text.strip().lower()}  # a digest is of what was in the column, mostly lower case
        forms[mapping.to] = {form for column in columns for form in _evaluated(connection, column, sorted(given))}
    return forms


def _computed(mapping: FieldMapping) -> list[str]:
    """SQL of an identifier that an expression makes of one column."""
    if mapping.expr is None or len(columns := columns_of(mapping.expr)) != 1:
        return []
    return [f"(SELECT {to_sql(mapping.expr, columns)} FROM (SELECT given AS {quoted(columns[0])}))"]


def _evaluated(connection: duckdb.DuckDBPyConnection, value: str, given: Sequence[str]) -> set[str]:
    """What the SQL makes of the texts; nothing where its column holds no text, as a number that is rounded."""
    import duckdb

    query = f"SELECT {plain(value)} FROM (SELECT unnest(?::VARCHAR[]) AS given)"
    try:
        return {str(form) for (form,) in connection.execute(query, [given]).fetchall() if form is not None}
    except (duckdb.BinderException, duckdb.ConversionException):
        return set()
