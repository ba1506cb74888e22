"""The PostgreSQL source against a real server: what it reads, at what moment, and what it says when it cannot."""

from __future__ import annotations

import json
import re
import socket
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from sync.errors import HeadgateError, SourceError
from sync.sources import open_source
from sync.sources import postgres as module
from sync.sources.base import Column, Relation
from tests.servers import Postgres, write_certificate

psycopg = pytest.importorskip("psycopg")

PEOPLE = """
CREATE SCHEMA marts;
CREATE TABLE marts.vip (id bigint PRIMARY KEY, email text NOT NULL, ltv numeric(10, 2), "Country" text);
INSERT INTO marts.vip SELECT i, 'p' || i || '@acme.example', i / 4.0, 'AU' FROM generate_series(1, 10) i;
"""


class Warehouse:
    """A database of the cluster, and the sources that read it."""

    def __init__(self, server: Postgres, name: str, root: Path) -> None:
        self.server, self.name, self.root = server, name, root
        self.admin = psycopg.connect(server.url(name), autocommit=True)

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Do something there as a superuser."""
        cursor = self.admin.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def options(self, **more: Any) -> dict[str, Any]:
        given = {
            "type": "postgres",
            "host": self.server.host,
            "port": self.server.port,
            "database": self.name,
            "user": self.server.user,
            "password": self.server.password,
            "ssl_root_cert": str(self.server.certificate),
            **more,
        }
        return {key: value for key, value in given.items() if value is not None}

    def source(self, purpose: str = "", **more: Any) -> Any:
        return open_source("warehouse", self.options(**more), self.root, purpose)

    def read(self, relation: Relation | str, columns: list[str] | None = None, select: str = "*") -> list[Any]:
        return staged(self.source(), relation, self.root / "spool", columns or [], select)[1]

    def busy(self, words: str) -> int:
        """How many statements with these words the server works on."""
        return int(self.ask(
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid() "
            "AND query LIKE %s AND datname = current_database()", f"%{words}%",
        )[0][0])  # fmt: skip


def staged(
    source: Any, relation: Relation | str, spool: Path, columns: list[str] | None = None, select: str = "*"
) -> tuple[tuple[Column, ...], list[Any]]:
    """The columns and rows as the engine's DuckDB sees them; read twice, as the engine may."""
    where = Relation(query=relation) if isinstance(relation, str) else relation
    connection = duckdb.connect(":memory:")
    try:
        connection.execute("SET TimeZone = 'UTC'")
        with source.stage(connection, where, columns or [], spool) as found:
            described = connection.execute(f"DESCRIBE SELECT * FROM {found.sql}").fetchall()
            assert tuple(Column(row[0], row[1]) for row in described) == found.columns
            rows = connection.execute(f"SELECT {select} FROM {found.sql}").fetchall()
            assert connection.execute(f"SELECT {select} FROM {found.sql}").fetchall() == rows
        return found.columns, rows
    finally:
        connection.close()


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def warehouse(postgres: Postgres, shared: str, tmp_path: Path) -> Iterator[Warehouse]:
    made = Warehouse(postgres, shared, tmp_path)
    made.ask("DROP SCHEMA IF EXISTS marts CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    made.ask(PEOPLE)
    yield made
    made.admin.close()


def refused(work: Callable[[], Any]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        work()
    error = caught.value
    assert error.message.startswith(("source warehouse: ", "column ", "marts.", "the cohort's query"))
    assert error.fix
    assert "s3cret" not in f"{error.message} {error.fix} {error.__cause__} {error.__context__}"
    return error


def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- what it reads --------------------------------------------------------------------------------------------


def test_check_says_what_it_is_connected_to(warehouse: Warehouse) -> None:
    assert re.fullmatch(rf"PostgreSQL [\d.]+, {warehouse.name} as headgate, TLSv1\.\d", warehouse.source().check())


def test_columns_have_the_types_their_values_arrive_in(warehouse: Warehouse) -> None:
    assert warehouse.source().columns(Relation(table="marts.vip")) == (
        Column("id", "BIGINT"),
        Column("email", "VARCHAR"),
        Column("ltv", "DECIMAL(10,2)"),
        Column("Country", "VARCHAR"),
    )


def test_only_the_columns_asked_for_leave_the_server(warehouse: Warehouse) -> None:
    columns, rows = staged(
        warehouse.source(), Relation(table="marts.vip"), warehouse.root, ["EMAIL", "country"], '"Country", email'
    )

    assert [c.name for c in columns] == ["email", "Country"]
    assert rows[0] == ("AU", "p1@acme.example")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT email FROM marts.vip WHERE id = 1;",
        "WITH v AS (SELECT * FROM marts.vip WHERE id = 1) SELECT email FROM v -- the end",
        "TABLE marts.vip FETCH FIRST ROW ONLY",
        "SELECT email, 'x'::\"char\" AS x FROM marts.vip WHERE id = 1; ",
        "SELECT email FROM marts.vip WHERE id = 1 UNION ALL SELECT email FROM marts.vip WHERE false",
    ],
)
def test_a_query_is_a_relation(warehouse: Warehouse, query: str) -> None:
    assert warehouse.read(query, ["email"]) == [("p1@acme.example",)]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM marts.vip",
        "SELECT 1; DROP TABLE marts.vip",
        "COPY marts.vip TO STDOUT",
        "WITH gone AS (DELETE FROM marts.vip RETURNING *) SELECT * FROM gone",
        "SELECT * FROM marts.vip FOR UPDATE",
        "SELECT nextval('marts.counter') AS n",
        "SELECT * INTO marts.copy FROM marts.vip",
    ],
)
def test_a_source_never_writes(warehouse: Warehouse, query: str) -> None:
    warehouse.ask("CREATE SEQUENCE marts.counter")

    error = refused(lambda: warehouse.read(query))

    assert error.code == "HG204"
    assert warehouse.ask("SELECT count(*) FROM marts.vip") == [(10,)]
    assert warehouse.ask("SELECT is_called FROM marts.counter") == [(False,)]


def test_views_partitions_and_foreign_tables_are_read_like_tables(
    warehouse: Warehouse, postgres: Postgres
) -> None:
    file = postgres.sockets / f"people-{warehouse.name}.csv"
    file.write_text("1,ann@acme.example\n")
    file.chmod(0o644)
    warehouse.ask(
        "CREATE VIEW marts.a_view AS SELECT id, email FROM marts.vip WHERE id = 1;"
        "CREATE MATERIALIZED VIEW marts.a_copy AS SELECT id, email FROM marts.vip WHERE id = 1;"
        "CREATE TABLE marts.parts (id bigint, email text) PARTITION BY RANGE (id);"
        "CREATE TABLE marts.part_1 PARTITION OF marts.parts FOR VALUES FROM (0) TO (5);"
        "INSERT INTO marts.parts SELECT id, email FROM marts.vip WHERE id = 1;"
        "CREATE EXTENSION IF NOT EXISTS file_fdw; CREATE SERVER IF NOT EXISTS files FOREIGN DATA WRAPPER file_fdw;"
        "CREATE FOREIGN TABLE marts.abroad (id bigint, email text) SERVER files "
        f"OPTIONS (filename '{file}', format 'csv')"
    )
    names = warehouse.source().tables()
    for table in ("a_view", "a_copy", "parts", "part_1", "abroad"):
        assert f"marts.{table}" in names
        assert [row[0] for row in warehouse.read(Relation(table=f"marts.{table}"))] == [1]


def test_tables_are_listed_as_mappings_write_them_and_all_can_be_read(warehouse: Warehouse) -> None:
    warehouse.ask(
        'CREATE TABLE marts."Odd. ""one" ("a b" int, "Ünïcode" text, "x""y" int); CREATE TABLE "select" (a int)'
    )
    source = warehouse.source()

    names = source.tables()

    assert names == ['marts."Odd. ""one"', "marts.vip", "public.select"]
    assert all(source.columns(Relation(table=name)) for name in names)
    assert [c.name for c in source.columns(Relation(table=names[0]))] == ["a b", "Ünïcode", 'x"y']


@pytest.mark.parametrize("table", ["marts.vip", "MARTS.Vip", 'marts."vip"', "vip", "{database}.marts.vip"])
def test_a_table_is_found_however_it_is_written(warehouse: Warehouse, table: str) -> None:
    source = warehouse.source(schema=["nowhere", "marts"])

    assert len(source.columns(Relation(table=table.format(database=warehouse.name)))) == 4


def test_no_rows_still_have_their_types(warehouse: Warehouse) -> None:
    columns, rows = staged(warehouse.source(), "SELECT * FROM marts.vip WHERE false", warehouse.root)

    assert rows == []
    assert columns[2] == Column("ltv", "DECIMAL(10,2)")


def test_the_spool_file_is_ours_alone_and_goes(warehouse: Warehouse) -> None:
    connection, spool = duckdb.connect(":memory:"), warehouse.root / "spool"
    with warehouse.source().stage(connection, Relation(table="marts.vip"), ["id"], spool):
        (file,) = spool.iterdir()
        mode = stat.S_IMODE(file.stat().st_mode)
        assert warehouse.busy("") == 0  # and the snapshot is let go
    connection.close()
    refused(lambda: warehouse.read("SELECT 1 / (id - 5) AS x FROM marts.vip"))

    assert mode == 0o600
    assert list(spool.iterdir()) == []


def test_the_server_is_told_for_which_sync_we_read(warehouse: Warehouse) -> None:
    query = "SELECT current_setting('application_name') AS a, current_setting('TimeZone') AS b"
    plain = staged(warehouse.source("crm-vip"), query, warehouse.root)[1]
    given = {"application_name": "etl", "timezone": "Australia/Perth"}
    chosen = staged(warehouse.source("ü" * 80, **given), query, warehouse.root)[1]

    assert plain == [("headgate crm-vip", "UTC")]
    assert chosen == [("etl " + "?" * 59, "Australia/Perth")]


def test_a_socket_of_this_machine_needs_no_password(warehouse: Warehouse) -> None:
    source = warehouse.source(host=str(warehouse.server.sockets), password=None, ssl_root_cert=None)

    assert source.check().endswith("no TLS")


# --- one moment -----------------------------------------------------------------------------------------------


def test_columns_and_rows_are_of_one_moment(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = module.arrow_schema

    def meanwhile(*arguments: Any) -> Any:  # after the columns were read, before the rows are
        warehouse.ask("INSERT INTO marts.vip VALUES (11, 'late@acme.example'); DELETE FROM marts.vip WHERE id < 4")
        return inner(*arguments)

    monkeypatch.setattr(module, "arrow_schema", meanwhile)

    assert sorted(row[0] for row in warehouse.read(Relation(table="marts.vip"))) == list(range(1, 11))


def test_a_table_cannot_change_its_columns_while_it_is_read(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = module.arrow_schema

    def meanwhile(*arguments: Any) -> Any:
        warehouse.ask("SET lock_timeout = '50ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            warehouse.ask("ALTER TABLE marts.vip ALTER COLUMN ltv TYPE text")
        return inner(*arguments)

    monkeypatch.setattr(module, "arrow_schema", meanwhile)

    assert len(warehouse.read(Relation(table="marts.vip"))) == 10


def test_writers_that_keep_a_balance_are_never_seen_halfway(warehouse: Warehouse) -> None:
    warehouse.ask("CREATE TABLE marts.money (id int, n bigint)")
    warehouse.ask("INSERT INTO marts.money SELECT i, 100 FROM generate_series(1, 20000) i")
    over = threading.Event()

    def write() -> None:
        with psycopg.connect(warehouse.server.url(warehouse.name), autocommit=True) as writer:
            while not over.is_set():
                writer.execute("UPDATE marts.money SET n = n + CASE WHEN id = 1 THEN 7 ELSE -7 END "
                               "WHERE id IN (1, 20000)")  # fmt: skip

    thread = threading.Thread(target=write)
    thread.start()
    try:
        sums = [warehouse.read(Relation(table="marts.money"), [], "sum(n), count(*)") for _ in range(5)]
    finally:
        over.set()
        thread.join()

    assert sums == [[(2_000_000, 20_000)]] * 5


# --- broken off -----------------------------------------------------------------------------------------------

ENDLESS = "SELECT i::bigint AS id, pg_sleep(0.001)::text AS s FROM generate_series(1, 100000000) i"


@contextmanager
def reading(source: Any, query: str, spool: Path) -> Iterator[list[BaseException]]:
    """A thread that reads; the errors it ended with."""
    ended: list[BaseException] = []

    def read() -> None:
        try:
            staged(source, query, spool)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    yield ended
    thread.join(20)
    assert not thread.is_alive()


def again_until(ended: list[BaseException], do: Callable[[], Any]) -> None:
    """Cancelling may come between two statements, when there is nothing to cancel; the engine repeats it, too."""
    deadline = time.monotonic() + 20
    while not ended:
        assert time.monotonic() < deadline
        do()
        time.sleep(0.05)


@pytest.mark.parametrize("query", ["SELECT pg_sleep(600)::text AS x", ENDLESS])
def test_an_interrupted_query_ends_on_the_server_too(warehouse: Warehouse, query: str) -> None:
    source = warehouse.source()
    with reading(source, query, warehouse.root / "spool") as ended:
        eventually(lambda: warehouse.busy("pg_sleep") == 1)
        again_until(ended, source.interrupt)
    error = ended[0]

    assert isinstance(error, SourceError)
    assert (error.code, "was interrupted" in error.message) == ("HG218", True)
    eventually(lambda: warehouse.busy("pg_sleep") == 0)
    assert list((warehouse.root / "spool").iterdir()) == []


def test_an_idle_source_can_be_interrupted_and_used_again(warehouse: Warehouse) -> None:
    source = warehouse.source()
    source.interrupt()

    assert len(source.columns(Relation(table="marts.vip"))) == 4


@pytest.mark.parametrize("query", ["SELECT pg_sleep(600)::text AS x", ENDLESS])
def test_a_query_that_takes_too_long_is_ended_by_the_server(warehouse: Warehouse, query: str) -> None:
    source = warehouse.source(statement_timeout=0.3)

    error = refused(lambda: staged(source, query, warehouse.root / "spool"))

    assert error.code == "HG208"
    assert "statement_timeout" in error.message
    assert warehouse.busy("pg_sleep") == 0


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [("pg_terminate_backend", "HG200", "restarted"), ("pg_cancel_backend", "HG208", "somebody cancelled")],
)
@pytest.mark.parametrize("query", ["SELECT pg_sleep(600)::text AS x", ENDLESS])
def test_a_server_that_ends_the_query_is_told(
    warehouse: Warehouse, query: str, end: str, code: str, words: str
) -> None:
    with reading(warehouse.source(), query, warehouse.root / "spool") as ended:
        eventually(lambda: warehouse.busy("pg_sleep") == 1)
        again_until(ended, lambda: warehouse.ask(f"SELECT {end}(pid) FROM pg_stat_activity WHERE query LIKE "
                                                 "'%pg_sleep%' AND pid <> pg_backend_pid()"))  # fmt: skip
    error = ended[0]

    assert isinstance(error, SourceError)
    assert error.code == code
    assert words in error.message


def test_a_full_disk_ends_the_reading_at_once(warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyarrow.parquet.ParquetWriter, "write_batch", full)
    query = "SELECT repeat('x', 1000) AS x FROM generate_series(1, 10000000)"

    error = refused_disk(lambda: warehouse.read(query))

    assert (error.code, "No space left" in error.message) == ("HG208", True)
    eventually(lambda: warehouse.busy("generate_series") == 0)


def refused_disk(work: Callable[[], Any]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        work()
    return caught.value


# --- what goes wrong ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"password": "s3cret-but-wrong"}, "HG205", "user or password is wrong"),
        ({"user": "nobody", "password": "s3cret"}, "HG205", "user or password is wrong"),
        ({"password": None}, "HG205", "user or password is wrong"),
        ({"database": "nowhere"}, "HG205", "no database of that name"),
        ({"port": 1}, "HG200", "nobody listens there"),
        ({"host": "nowhere.invalid"}, "HG200", "no host of that name"),
        ({"host": "/nowhere"}, "HG200", "no socket of a server"),
        ({"ssl_root_cert": None}, "HG205", "not vouched for"),
        ({"ssl_root_cert": "/nowhere"}, "HG205", "not vouched for"),
        ({"role": "nobody"}, "HG207", "role does not exist"),
        ({"timezone": "Middle/Earth"}, "HG207", "a setting is refused"),
    ],
)
def test_a_server_that_cannot_be_reached_is_told(
    warehouse: Warehouse, more: dict[str, Any], code: str, words: str
) -> None:
    error = refused(warehouse.source(**more).check)

    assert (error.code, words in error.message) == (code, True), error.message
    assert error.message.startswith("source warehouse: ")


def test_somebody_elses_certificate_is_refused(warehouse: Warehouse, tmp_path: Path) -> None:
    write_certificate(tmp_path / "other.crt", tmp_path / "other.key")
    error = refused(warehouse.source(ssl_root_cert="other.crt").check)  # relative to the project
    missing = refused(warehouse.source(ssl_cert="other.crt", ssl_key="no.key").check)

    assert (error.code, "not vouched for" in error.message) == ("HG205", True)
    assert (missing.code, "client's certificate" in missing.message) == ("HG205", True)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
def test_every_mode_of_tls_encrypts(warehouse: Warehouse, mode: str) -> None:
    assert "TLSv1" in warehouse.source(sslmode=mode).check()


def test_a_server_that_the_system_vouches_for_needs_no_file(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(warehouse.server.certificate))

    assert "TLSv1" in warehouse.source(ssl_root_cert=None).check()


def test_without_tls_nothing_is_sent_unless_the_mode_says_so(warehouse: Warehouse) -> None:
    assert warehouse.source(sslmode="disable", ssl_root_cert=None).check().endswith("no TLS")
    heard = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(8)
                client.sendall(b"N")  # no TLS here
                heard.extend(client.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        error = refused(warehouse.source(port=listener.getsockname()[1]).check)
        thread.join()

    assert (error.code, "has no TLS" in error.message) == ("HG205", True)
    assert b"headgate" not in heard


def test_a_silent_server_is_given_up_on(warehouse: Warehouse) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        error = refused(warehouse.source(port=listener.getsockname()[1], login_timeout=2).check)

    assert (error.code, "no answer in time" in error.message) == ("HG200", True)


@pytest.mark.parametrize(
    ("relation", "code", "words", "fix"),
    [
        (Relation(table="marts.vipp"), "HG202", "vipp", "did you mean 'marts.vip'?"),
        (Relation(table="vip"), "HG202", "vip", "did you mean 'marts.vip'?"),
        (Relation(table='marts."VIP"'), "HG202", "VIP", "did you mean 'marts.vip'?"),
        (Relation(table="qqqqqq"), "HG202", "qqqqqq", "schema"),
        (Relation(table="elsewhere.marts.vip"), "HG204", "cannot do this", "schema.table"),
        (Relation(query="SELECT * FROM nowhere"), "HG202", "nowhere", "check"),
        (Relation(query="SELECT emial FROM marts.vip"), "HG204", "emial", "psql"),
        (Relation(query="SELECT no_function(1)"), "HG204", "42883", "psql"),
        (Relation(query="SELECT 1 AS a, 2 AS a"), "HG204", "two columns called 'a'", "AS"),
        (Relation(query="SELECT 'canary@acme.example'::int AS a"), "HG215", "a value does not fit", "mend"),
        (Relation(query="SELECT (email || 'x')::int AS a FROM marts.vip"), "HG215", "22P02", "mend"),
        (Relation(table="marts.unfilled"), "HG215", "never filled", "REFRESH"),
    ],
)
def test_a_relation_that_cannot_be_read_is_told(
    warehouse: Warehouse, relation: Relation, code: str, words: str, fix: str
) -> None:
    warehouse.ask("CREATE MATERIALIZED VIEW marts.unfilled AS SELECT * FROM marts.vip WITH NO DATA")

    error = refused(lambda: warehouse.read(relation))

    assert (error.code, words in error.message, fix in error.fix) == (code, True, True), (error.message, error.fix)
    assert "acme.example" not in error.message


def test_a_missing_column_is_named_with_the_nearest(warehouse: Warehouse) -> None:
    error = refused(lambda: warehouse.read(Relation(table="marts.vip"), ["emial"]))

    assert (error.code, error.fix) == ("HG212", "did you mean 'email'?")


def test_text_that_is_not_utf_8_is_told(warehouse: Warehouse) -> None:
    name = f"{warehouse.name}_ascii"
    warehouse.ask(f"DROP DATABASE IF EXISTS {name}")
    warehouse.ask(f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' TEMPLATE template0")
    odd = "SELECT 1 AS id, convert_from('\\xff41'::bytea, 'SQL_ASCII') AS first_name"
    error = refused(lambda: staged(warehouse.source(database=name), odd, warehouse.root))
    fine = staged(warehouse.source(database=name), "SELECT 'Ann' AS a", warehouse.root)[1]

    assert (error.code, "not UTF-8" in error.message) == ("HG209", True)
    assert fine == [("Ann",)]


def test_a_driver_that_is_not_installed_is_named_with_its_extra(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(HeadgateError, match="adbc_driver_postgresql") as caught:
        warehouse.source().check()

    assert (caught.value.code, "headgate[postgres]" in caught.value.fix) == ("HG413", True)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"sslmode": "verify-ca", "ssl_root_cert": None}, "needs `ssl_root_cert`"),
        ({"sslmode": "disable"}, "uses no certificates"),
        ({"ssl_cert": "a.crt"}, "go together"),
        ({"host": None}, "host"),
        ({"user": None}, "user"),
        ({"port": 0}, "port"),
        ({"sslmode": "prefer"}, "sslmode"),
        ({"statement_timeout": "0s"}, "statement_timeout"),
        ({"hots": "x"}, "hots"),
    ],
)
def test_options_that_cannot_work_are_refused(tmp_path: Path, more: dict[str, Any], words: str) -> None:
    given = {"type": "postgres", "host": "h", "database": "d", "user": "u", "password": "canary"}
    given["ssl_root_cert"] = "root.crt"
    with pytest.raises(SourceError) as caught:
        open_source("warehouse", {k: v for k, v in (given | more).items() if v is not None}, tmp_path)

    assert words in caught.value.message
    assert "canary" not in caught.value.message


@pytest.mark.parametrize("odd", ["it's", "back\\slash", "sp ace", "a=b host=elsewhere", "ü%20"])
def test_odd_passwords_reach_the_server_as_they_are(warehouse: Warehouse, odd: str) -> None:
    literal = odd.replace("'", "''")
    warehouse.ask(f"DROP ROLE IF EXISTS odd_one; CREATE ROLE odd_one LOGIN PASSWORD '{literal}'")

    assert "as odd_one" in warehouse.source(user="odd_one", password=odd).check()
    assert refused(warehouse.source(user="odd_one", password=odd + "x").check).code == "HG205"


# --- grants ---------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs/reference/postgres-source.md"


def test_the_documented_grants_are_enough_and_none_is_too_many(warehouse: Warehouse) -> None:
    sql = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)[0]
    statements = [s.strip() for s in sql.replace("analytics", warehouse.name).split(";") if s.strip()]
    grants = [s for s in statements if s.startswith("GRANT")]
    assert len(grants) == 3
    warehouse.ask(f"REVOKE ALL ON DATABASE {warehouse.name} FROM PUBLIC")

    def fresh(*chosen: str) -> Any:
        if warehouse.ask("SELECT 1 FROM pg_roles WHERE rolname = 'headgate_reader'"):
            warehouse.ask("DROP OWNED BY headgate_reader; DROP ROLE headgate_reader")
        for statement in (statements[0].replace("'...'", "'reader'"), *chosen):
            warehouse.ask(statement)
        return warehouse.source(user="headgate_reader", password="reader")

    source = fresh(*statements[1:])
    assert len(staged(source, Relation(table="marts.vip"), warehouse.root)[1]) == 10
    assert "marts.vip" in source.tables()
    for one in grants:
        without = fresh(*(s for s in statements[1:] if s != one))
        error = refused(lambda: staged(without, Relation(table="marts.vip"), warehouse.root))  # noqa: B023
        assert error.code == "HG207", one
    warehouse.ask("DROP OWNED BY headgate_reader; DROP ROLE headgate_reader")


def test_a_user_may_read_as_a_role(warehouse: Warehouse) -> None:
    warehouse.ask(
        "DROP ROLE IF EXISTS walker; CREATE ROLE walker LOGIN PASSWORD 'walker';"
        "DROP ROLE IF EXISTS hg_reader; CREATE ROLE hg_reader; GRANT USAGE ON SCHEMA marts TO hg_reader;"
        f"GRANT SELECT ON marts.vip TO hg_reader; GRANT CONNECT ON DATABASE {warehouse.name} TO walker"
    )
    try:
        given = {"user": "walker", "password": "walker", "role": "hg_reader"}
        before = refused(warehouse.source(**given).check)
        warehouse.ask("GRANT hg_reader TO walker")
        assert warehouse.source(**given).check().split(",")[1].endswith("as hg_reader")
        assert len(staged(warehouse.source(**given), Relation(table="marts.vip"), warehouse.root)[1]) == 10
    finally:
        warehouse.ask("DROP OWNED BY hg_reader, walker; DROP ROLE walker; DROP ROLE hg_reader")

    assert (before.code, "may not be taken" in before.message) == ("HG207", True)


def test_json_of_the_rows_is_json(warehouse: Warehouse) -> None:
    ((text,),) = warehouse.read("SELECT '{\"a\": [1, null]}'::jsonb AS j")

    assert json.loads(text) == {"a": [1, None]}


# --- has the table changed -------------------------------------------------------------------------------------


def version(warehouse: Warehouse, table: str = "marts.vip") -> str:
    """The mark, once the server has counted what was committed: the one who changed it says so at once."""
    warehouse.ask("SELECT pg_stat_force_next_flush()")
    found = warehouse.source().version(Relation(table))
    assert found.untold == ""
    return str(found.mark)


def test_a_table_nobody_changes_keeps_its_version(warehouse: Warehouse) -> None:
    before = version(warehouse)
    warehouse.read("SELECT * FROM marts.vip")

    assert version(warehouse) == before


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO marts.vip SELECT 99, 'x', 1, 'NZ'",
        "UPDATE marts.vip SET ltv = ltv WHERE id = 1",
        "DELETE FROM marts.vip WHERE id = 2",
        "TRUNCATE marts.vip",
        "CREATE TABLE marts.n AS SELECT * FROM marts.vip; DROP TABLE marts.vip; ALTER TABLE marts.n RENAME TO vip",
    ],
)
def test_a_changed_table_has_another_version(warehouse: Warehouse, change: str) -> None:
    before = version(warehouse)
    for statement in change.split("; "):
        warehouse.ask(statement)

    assert version(warehouse) != before


def test_a_change_of_a_partition_counts_as_one_of_the_table(warehouse: Warehouse) -> None:
    warehouse.ask("CREATE TABLE marts.parted (id int) PARTITION BY LIST (id)")
    warehouse.ask("CREATE TABLE marts.one PARTITION OF marts.parted FOR VALUES IN (1)")
    before = version(warehouse, "marts.parted")
    warehouse.ask("INSERT INTO marts.parted VALUES (1)")

    assert version(warehouse, "marts.parted") != before


def test_a_refreshed_materialized_view_has_another_version(warehouse: Warehouse) -> None:
    warehouse.ask("CREATE MATERIALIZED VIEW marts.seen AS SELECT * FROM marts.vip")
    before = version(warehouse, "marts.seen")
    warehouse.ask("REFRESH MATERIALIZED VIEW marts.seen")

    assert version(warehouse, "marts.seen") != before


def test_of_a_view_or_a_query_it_says_that_it_cannot_tell(warehouse: Warehouse) -> None:
    warehouse.ask("CREATE VIEW marts.v AS SELECT * FROM marts.vip")

    assert "this is none" in warehouse.source().version(Relation("marts.v")).untold
    assert "a query" in warehouse.source().version(Relation(query="SELECT 1 AS id")).untold


def test_of_a_table_that_is_not_there_it_names_the_nearest(warehouse: Warehouse) -> None:
    with pytest.raises(SourceError) as caught:
        warehouse.source().version(Relation("marts.vipp"))

    assert caught.value.code == "HG202"
    assert "marts.vip" in caught.value.fix
