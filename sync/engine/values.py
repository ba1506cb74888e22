"""Values that were sent before: found again in the files of executed plans, by key and fingerprint.

Equal fingerprints are equal values, so that it makes no difference which run sent them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sync.engine.database import identifier
from sync.engine.job import EngineSettings
from sync.engine.plan import verify_file
from sync.errors import Corrupt
from sync.state.base import StateReader
from sync.state.nouns import Plan, PlanStatus
from sync.state.parquet import source

if TYPE_CHECKING:
    import duckdb

__all__ = ["SentValues", "own_columns"]

_EVERY = 1_000_000
_PAYLOAD = "key, fingerprint, nulls, source_key"


def own_columns(connection: duckdb.DuckDBPyConnection, relation: str) -> dict[str, str]:
    """The columns of identifiers and fields -> their types."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    return {str(row[0]): str(row[1]) for row in rows if str(row[0]).startswith(("id.", "field."))}


@dataclass
class SentValues:
    """Looks up rows of one sync, into the table `found`.

    It has key, fingerprint, nulls, source_key, and the identifiers and fields. Only rows sent with these fields
    count, of the types that the newest such file has; those are `columns`, empty while no file fits, and then
    there is no table. Keys that only other files know are in the table `misfit`.
    """

    connection: duckdb.DuckDBPyConnection
    state: StateReader
    settings: EngineSettings
    sync: str
    fields: frozenset[str]
    columns: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.connection.execute("CREATE TEMP TABLE misfit (key DECIMAL(38, 0))")

    def look_up(self, wanted: str) -> None:
        """Find each (key, fingerprint) of a SELECT, newest plans first; the table `wanted` keeps the others."""
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE wanted AS {wanted}")
        for plan in self.state.plans(self.sync, PlanStatus.EXECUTED, limit=_EVERY):
            if not self.connection.execute("SELECT 1 FROM wanted LIMIT 1").fetchall():
                return
            self._read(plan)

    def _read(self, plan: Plan) -> None:
        try:
            file = source(self.connection, verify_file(self.settings, plan))
        except Corrupt:
            return  # what only this file knows is not found
        types = own_columns(self.connection, file)
        named = {name.removeprefix("field.") for name in types if name.startswith("field.")}
        if not self.columns and named == self.fields:
            self._begin(types, file)
        rows = (
            f"FROM {file} p SEMI JOIN wanted w ON p.key = w.key AND p.fingerprint = w.fingerprint "
            "WHERE p.op IN ('add', 'update', 'keep')"
        )
        if types == self.columns:
            self.connection.execute(f"INSERT INTO found SELECT {_PAYLOAD}, {self.own()} {rows}")
            self.connection.execute("DELETE FROM wanted WHERE key IN (SELECT key FROM found)")
        else:
            self.connection.execute(f"INSERT INTO misfit SELECT key {rows}")

    def _begin(self, types: dict[str, str], file: str) -> None:
        self.columns = types
        self.connection.execute(f"CREATE TEMP TABLE found AS SELECT {_PAYLOAD}, {self.own()} FROM {file} LIMIT 0")

    def own(self, alias: str = "") -> str:
        """SQL of the columns of identifiers and fields."""
        return ", ".join(f"{alias}{identifier(name)}" for name in self.columns)
