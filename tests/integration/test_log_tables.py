"""The sync log's tables in a real PostgreSQL: made by several at once, written whole or not at all, replaced."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from sync.errors import SourceError
from sync.sources import open_source
from sync.sources.base import Source
from sync.sources.log_tables import RECORDS, RUNS, LogTables
from tests.servers import Postgres


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    name = postgres.database()
    yield name
    postgres.ask("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def source(postgres: Postgres, database: str, tmp_path: Path) -> Source:
    options = {"host": postgres.host, "port": postgres.port, "user": postgres.user, "password": postgres.password}
    certificate = str(postgres.certificate)
    given = {"type": "postgres", "database": database, "ssl_root_cert": certificate, "sync_log": True, **options}
    return open_source("warehouse", given, tmp_path)


def run(id: str, sync: str = "vips", ended_at: float = 1_800_000_000.0) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(RUNS)
    return {**empty, "run": id, "sync": sync, "started_at": ended_at - 1, "ended_at": ended_at}


def records(run: str, *keys: str | None, sync: str = "vips", reason: str | None = None) -> pa.RecordBatchReader:
    import datetime

    ended = datetime.datetime.fromtimestamp(1_800_000_000, datetime.UTC)
    types = {"TEXT": pa.string(), "TIMESTAMPTZ": pa.timestamp("us", tz="UTC")}
    schema = pa.schema([(name, types[type_]) for name, type_ in RECORDS.items()])
    same = {"run": run, "sync": sync, "reason": reason, "ended_at": ended}
    rows = [{**same, "source_key": key, "member_key": f"9{key}"} for key in keys]
    return pa.Table.from_pylist(rows, schema).to_reader(1)


def test_syncs_that_begin_a_log_at_once_all_find_its_tables(
    source: Source, postgres: Postgres, database: str
) -> None:
    def begin(number: int) -> None:
        with source.session("writing the sync log") as session:
            tables = LogTables(session, "headgate")
            tables.make()
            tables.write([run(f"r{number}")], records(f"r{number}", "1", "2"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(begin, range(8)))

    assert postgres.ask(database, "SELECT count(*), count(DISTINCT run) FROM headgate.runs") == "8|8"
    indexes = "SELECT count(*) FROM pg_indexes WHERE schemaname = 'headgate'"
    assert postgres.ask(database, "SELECT count(*) FROM headgate.records", indexes) == "16\n2"


def test_a_schema_of_any_name_and_values_of_any_kind(source: Source, postgres: Postgres, database: str) -> None:
    odd = 'it\'s "Odd" é'
    with source.session("writing the sync log") as session:
        tables = LogTables(session, odd)
        tables.make()
        tables.make()
        tables.write([run("r1")], records("r1", "O'Hara \\ é \n", None))
        tables.erase("vips", ["9None"])

    name = '"' + odd.replace('"', '""') + '"'
    assert postgres.ask(database, f"SELECT source_key FROM {name}.records") == "O'Hara \\ é"


def test_what_is_written_again_takes_the_place_of_what_was_there(
    source: Source, postgres: Postgres, database: str
) -> None:
    with source.session("writing the sync log") as session:
        tables = LogTables(session, "headgate")
        tables.make()
        tables.write([run("r1"), run("r2")])
        tables.write([run("r3")], records("r3", "1", "2"))
        tables.write([run("r3")], records("r3", "2"))
        with pytest.raises(SourceError):
            tables.write([run("r2"), run("r2")], records("r2", "5"))
        tables.write([run("r4")])

    asked = "SELECT run, source_key FROM headgate.runs LEFT JOIN headgate.records USING (run) ORDER BY 1"
    assert postgres.ask(database, asked).splitlines() == ["r1|", "r2|", "r3|2", "r4|"]


def test_erasing_and_sweeping_touch_one_sync_alone(source: Source, postgres: Postgres, database: str) -> None:
    old = 1_700_000_000.0
    with source.session("writing the sync log") as session:
        tables = LogTables(session, "headgate")
        tables.make()
        for sync in ("vips", "others"):
            tables.write([run(f"{sync}1", sync)], records(f"{sync}1", "1", "2", sync=sync, reason="quotes them"))
            tables.write([run(f"{sync}0", sync, old)])
        tables.erase("vips", quoted=[("vips1", "92")])
        tables.erase("vips", keys=[str(number) for number in range(1000, 4000)], salt="s", people=["0" * 32])
        tables.erase("vips", keys=["91"])
        tables.sweep("vips", old + 1)

    kept = "SELECT sync, source_key, reason FROM headgate.records ORDER BY 1, 2"
    assert postgres.ask(database, kept).splitlines() == ["others|1|quotes them", "others|2|quotes them", "vips|2|"]
    left = postgres.ask(database, "SELECT run FROM headgate.runs ORDER BY 1").split()
    assert left == ["others0", "others1", "vips1"]
