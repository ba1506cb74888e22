"""The least that could be done instead, each as a process of its own: what the ratios are measured against.

    python -m benchmarks.floor scan PROJECT     scan and hash both sides of the comparison, and nothing else
    python -m benchmarks.floor postgres URI     read the cohort with the Arrow driver alone, and hash it
    python -m benchmarks.floor post URL N SIZE  post ready-made rows in batches, and nothing else

Prints the CPU-seconds of that work alone, without the interpreter's start.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from queue import Empty, SimpleQueue

EMAIL = r"lower(regexp_replace(email, '^[\s\p{Z}]+|[\s\p{Z}]+$', '', 'g'))"  # as the mapping asks for it
MAPPED = f"user_id, {EMAIL}, phone, first_name, country, ltv, score"
THREADS = 2


def scan(project: Path) -> float:
    """Hash every mapped value of the warehouse, and every key and fingerprint of the members."""
    import duckdb

    members = sorted(str(file) for file in project.glob(".headgate/members/*/*.parquet"))
    began = time.process_time()
    with duckdb.connect(config={"threads": THREADS, "memory_limit": "128MB"}) as connection:
        connection.execute(f"ATTACH '{project / 'warehouse.duckdb'}' AS warehouse (READ_ONLY)")
        connection.sql(f"SELECT sum(hash({MAPPED})) FROM warehouse.vip_cohort").fetchall()
        for file in members:
            connection.sql(f"SELECT sum(hash(key, fingerprint)) FROM '{file}'").fetchall()
    return time.process_time() - began


def postgres(uri: str) -> float:
    """Read the mapped columns of the cohort as the driver gives them, and hash every value in DuckDB."""
    import duckdb
    import pyarrow
    from adbc_driver_manager import AdbcConnection, AdbcStatement
    from adbc_driver_postgresql import connect

    began = time.process_time()
    with connect(uri) as database, AdbcConnection(database) as connection, AdbcStatement(connection) as statement:
        statement.set_sql_query(
            "SELECT user_id, email, phone, first_name, country, ltv, score, updated_at FROM vip_cohort"
        )
        people = pyarrow.RecordBatchReader.from_stream(statement.execute_query()[0])
        with duckdb.connect(config={"threads": THREADS, "memory_limit": "128MB"}) as hashing:
            hashing.register("people", people)
            hashing.sql(f"SELECT sum(hash({MAPPED})) FROM people").fetchall()
    return time.process_time() - began


def post(url: str, rows: int, size: int) -> float:
    """Encode rows that are there already and post them from four threads on one client."""
    import httpx
    import orjson

    people = [_person(i) for i in range(rows)]
    starts: SimpleQueue[int] = SimpleQueue()
    for start in range(0, rows, size):
        starts.put(start)
    client = httpx.Client()

    def work() -> None:
        while True:
            try:
                start = starts.get_nowait()
            except Empty:
                return
            body = {"batch_id": str(start), "sync": "floor", "op": "add", "records": people[start : start + size]}
            client.post(
                url, content=orjson.dumps(body), headers={"Idempotency-Key": str(start)}
            ).raise_for_status()

    began = time.process_time()
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.process_time() - began


def _person(i: int) -> dict[str, object]:
    return {
        "user_id": i,
        "email": f"person{i}@mail.example",
        "phone": f"+6141{i:07}",
        "first_name": f"Name{i % 1000}",
        "country": "AU",
        "ltv": (i % 90000) / 100,
        "score": (i * 7919) % 1000,
    }


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "scan":
        print(scan(Path(arguments[0])))
    elif what == "postgres":
        print(postgres(arguments[0]))
    else:
        print(post(arguments[0], int(arguments[1]), int(arguments[2])))
