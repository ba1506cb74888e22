"""Where one person is known: in which sync's members, in which audience, and since when."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from sync.engine.batches import PlanFile
from sync.engine.database import lock_down, open_database, translate
from sync.engine.forms import forms_of, plain
from sync.engine.job import EngineSettings, SyncJob
from sync.engine.kept import members_of
from sync.engine.settle import exceptions_file
from sync.engine.sql import identifier as quoted
from sync.errors import StateError
from sync.state.base import StateReader
from sync.state.nouns import RejectedRecord

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
        members = members_of(connection, settings, generation, names)
        wanted = forms_of(connection, job, job.sync.identifiers, identifier)
        stored = [plain(quoted(f"id.{name}")) for name in names]
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


def rejected_values(settings: EngineSettings, record: RejectedRecord) -> dict[str, Any]:
    """What the destination was to be told of a rejected record: source_key, identifiers, fields. Unmasked.

    Empty where the file of its run is gone.
    """
    path = exceptions_file(settings, record.sync, record.run)
    if not path.is_file():
        return {}
    with PlanFile(settings, path) as file:
        return file.sample(record.row)
