"""How OpenLineage names the tables that cohorts come from and the audiences that syncs keep.

The names of tables are those of its specification ("Naming", openlineage.io/docs/spec/naming): other tools that
tell of the same table give it the same name, and so the two are joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from sync.engine.job import SyncJob
from sync.project import Project

__all__ = ["DatasetName", "read_by", "written_by"]


@dataclass(frozen=True, slots=True)
class DatasetName:
    """A dataset: `namespace` says where it is, `name` which it is there."""

    namespace: str
    name: str


def read_by(project: Project, job: SyncJob) -> list[DatasetName]:
    """The tables that the cohort's rows come from; none where its query cannot be read."""
    source = project.sources[job.cohort.source.connection]
    options: Any = source.options
    tables = _tables(job, source.settings.type)
    match source.settings.type:
        case "postgres":
            where = f"postgres://{_host(options.host)}:{options.port}"
            named = [_joined(table, options.database, "public") for table in tables]
        case "snowflake":
            where = f"snowflake://{options.account.lower()}"
            named = [_joined(table, options.database, options.schema_, upper=True) for table in tables]
        case _:
            where = f"duckdb://{project.root.resolve() / Path(options.path)}"
            named = [_joined(table, None, "main") for table in tables]
    return [DatasetName(where, name) for name in dict.fromkeys(named)]


def written_by(project: Project, job: SyncJob) -> DatasetName:
    """What the sync keeps: an audience of an object of a destination."""
    destination = project.destinations[job.destination]
    config: Any = destination.config
    if destination.settings.type == "postgres_table":
        name = _joined(exp.to_table(job.sync.audience or "", dialect="postgres"), config.database, "public")
        return DatasetName(f"postgres://{_host(config.host)}:{config.port}", name)
    kept = job.spec.name if job.sync.audience is None else f"{job.spec.name}/{job.sync.audience}"
    return DatasetName(f"{Path(destination.settings.type).stem}://{job.destination}", kept)


def _tables(job: SyncJob, dialect: str) -> list[exp.Table]:
    source = job.cohort.source
    try:
        if source.table is not None:
            return [exp.to_table(source.table, dialect=dialect)]
        query = sqlglot.parse_one(source.query or "", dialect=dialect)
    except SqlglotError:
        return []
    named = {cte.alias_or_name for cte in query.find_all(exp.CTE)}
    return [table for table in query.find_all(exp.Table) if table.name and (table.db or table.name not in named)]


def _joined(table: exp.Table, database: str | None, schema: str | None, *, upper: bool = False) -> str:
    """`database.schema.table` with the parts that the reference leaves out, as far as they are known."""
    parts = list(_parts(table, upper=upper))
    known = [database, schema] if len(parts) == 1 else [database] if len(parts) == 2 else []
    return ".".join([*(_folded(part, upper=upper) for part in known if part), *parts])


def _parts(table: exp.Table, *, upper: bool) -> Iterator[str]:
    for part in table.parts:
        quoted = isinstance(part, exp.Identifier) and bool(part.args.get("quoted"))
        yield part.name if quoted else _folded(part.name, upper=upper)


def _folded(name: str, *, upper: bool) -> str:
    """Snowflake keeps names that are not quoted in capitals."""
    return name.upper() if upper else name


def _host(host: str) -> str:
    """A Unix socket is on this machine."""
    return "localhost" if host.startswith("/") else host
