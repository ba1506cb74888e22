"""Where one person is known: in which sync's members, in which audience, and since when."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from sync.engine.batches import PlanFile
from sync.engine.database import identifier as quoted
from sync.engine.database import lock_down, open_database, translate
from sync.engine.expressions import columns_of, to_sql
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.settle import exceptions_file
from sync.engine.transforms import apply
from sync.errors import StateError
from sync.mapping import FieldMapping, Transform
from sync.state.base import StateReader
from sync.state.members import folder_of, relation
from sync.state.nouns import RejectedRecord

if TYPE_CHECKING:
    import duckdb

__all__ = ["find", "rejected_values"]


def find(state: StateReader, settings: EngineSettings, job: SyncJob, identifier: str) -> list[dict[str, Any]]:
    """Members of a sync with this identifier, as given or as the mapping would make it; or with this key.

    Case and white space around it make no difference, so that somebody is found as people spell them.
    Each is `status`, `audience`, `destination`, `since`, `updated` (seconds since the epoch) and `remote_id`.
    """
    generation = state.generation(job.name)
    if generation.number == 0:
        return []
    names = [mapping.to for mapping in job.sync.identifiers]
    with closing(open_database(settings)) as connection, translate("looking a person up", StateError):
        lock_down(connection)
        members = relation(connection, folder_of(settings.folder, job.name), generation, names)
        wanted = _forms(connection, job, identifier)
        stored = [_plain(quoted(f"id.{name}")) for name in names]
        tests = [f"{column} IN (SELECT unnest(?))" for column in stored]
        rows = connection.execute(
            f"SELECT key::VARCHAR, first_at, last_at, remote_id FROM ({members}) "
            f"WHERE source_key = ? OR {' OR '.join(tests)}",
            [identifier, *[sorted(wanted[name]) for name in names]],
        ).fetchall()
    waiting = {record.key: record for record in state.rejected(job.name)}
    return [
        {
            "status": "member",
            "destination": job.destination,
            "audience": job.sync.audience,
            "since": first,
            "updated": last,
            "remote_id": remote_id,
            "last_change": "rejected" if key in waiting else "delivered",
        }
        for key, first, last, remote_id in rows
    ]


def _plain(text: str) -> str:
    return apply(text, Transform(name="email"))


def _forms(connection: duckdb.DuckDBPyConnection, job: SyncJob, text: str) -> dict[str, set[str]]:
    """How each identifier would be written if its column held this text: as given, transformed, and hashed."""
    forms = {}
    for mapping in job.sync.identifiers:
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

    query = f"SELECT {_plain(value)} FROM (SELECT unnest(?::VARCHAR[]) AS given)"
    try:
        return {str(form) for (form,) in connection.execute(query, [given]).fetchall() if form is not None}
    except (duckdb.BinderException, duckdb.ConversionException):
        return set()


def rejected_values(settings: EngineSettings, record: RejectedRecord) -> dict[str, Any]:
    """What the destination was to be told of a rejected record: source_key, identifiers, fields. Unmasked.

    Empty where the file of its run is gone.
    """
    path = exceptions_file(settings, record.sync, record.run)
    if not path.is_file():
        return {}
    with PlanFile(settings, path) as file:
        return file.sample(record.row)
