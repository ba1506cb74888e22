"""A PostgreSQL table, against a real server: rows as they should be, all of a batch or nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import psycopg
import pytest
from pydantic import ValidationError

from connectors.postgres_table import PostgresTable, PostgresTableConfig
from sync.errors import AuthError, DestinationError, ProjectError, RequestError, Unavailable
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Field, Member, Op, Receipt
from sync.testing.case import told
from sync.testing.contract import ConnectorContract
from tests.cutter import cutter, silent
from tests.servers import Postgres

PEOPLE = """create table people (email text primary key, name text, age integer check (age < 150), vip boolean,
    seen timestamptz, doc jsonb, tags text[])"""
TYPES = {"email": "VARCHAR", "name": "VARCHAR", "age": "INTEGER", "vip": "BOOLEAN"}


class Database:
    """A database of the server with an empty schema, and connectors to it."""

    def __init__(self, server: Postgres, name: str) -> None:
        self.server, self.name = server, name
        self.admin = psycopg.connect(server.url(name), autocommit=True)
        self.ask("drop schema public cascade; create schema public")

    def ask(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self.admin.execute(sql.encode(), values or None)
        return cursor.fetchall() if cursor.description else []

    def connect(self, *, seconds: float = 10.0, **options: Any) -> PostgresTable:
        given = {
            "host": "127.0.0.1",
            "port": self.server.port,
            "database": self.name,
            "user": self.server.user,
            "password": self.server.password,
            "sslmode": "disable",
        }
        config = PostgresTableConfig.model_validate(given | options)
        return PostgresTable(config, build_client(PostgresTable, config, timeout=seconds))

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return self.ask("select email, name, age from people order by email")


@pytest.fixture(scope="module")
def shared(postgres: Postgres) -> str:
    return postgres.database()


@pytest.fixture
def database(postgres: Postgres, shared: str) -> Iterator[Database]:
    made = Database(postgres, shared)
    made.ask(PEOPLE)
    yield made
    made.admin.close()


def change(n: int, op: Op = Op.ADD, /, **fields: Any) -> Change:
    return Change(op, f"k{n}", {"email": f"p{n}@example.com"}, {} if op is Op.REMOVE else fields)


def batch(*changes: Change, table: str = "people", types: dict[str, str] | None = None) -> Batch:
    return Batch("b1", "sync", "row", table, changes, types or TYPES)


def push(connector: PostgresTable, of: Batch) -> list[Receipt]:
    outcome = connector.push(of)
    assert isinstance(outcome, list)
    return outcome


def statuses(receipts: list[Receipt]) -> str:
    return " ".join(receipt.status for receipt in receipts)


# --- what it writes -------------------------------------------------------------------------------------------


def test_rows_are_added_changed_and_removed_and_no_other_is_touched(database: Database) -> None:
    database.ask("insert into people values ('mine@example.com', 'Mine', 1)")
    connector = database.connect()

    push(connector, batch(change(1, name="Ada", age=36), change(2, name="Bob", age=None)))
    push(connector, batch(change(1, Op.UPDATE, name="Ada L.", age=37)))
    receipts = push(connector, batch(change(2, Op.REMOVE), change(3, Op.REMOVE)))

    assert statuses(receipts) == "applied applied"
    assert database.rows == [("mine@example.com", "Mine", 1), ("p1@example.com", "Ada L.", 37)]


def test_an_update_of_a_row_that_somebody_deleted_puts_it_back(database: Database) -> None:
    push(database.connect(), batch(change(1, Op.UPDATE, name="Ada")))

    assert database.rows == [("p1@example.com", "Ada", None)]


def test_a_column_that_the_mapping_does_not_have_keeps_its_value(database: Database) -> None:
    database.ask("insert into people values ('p1@example.com', 'Ada', 36)")

    push(database.connect(), batch(change(1, Op.UPDATE, name="Ada L.")))

    assert database.rows == [("p1@example.com", "Ada L.", 36)]


def test_values_arrive_with_the_types_of_the_columns(database: Database) -> None:
    database.ask(
        "create table wide (id bigint primary key, d date, n numeric, raw bytea, t text, gap interval, j json)"
    )
    types = {"d": "DATE", "n": "DECIMAL(38,4)", "raw": "BLOB", "t": "BIGINT", "gap": "INTERVAL", "j": "JSON"}
    fields = {"d": "2026-02-28", "n": "12.5000", "raw": "AAH/", "t": 7, "gap": "P1M2DT3S", "j": "a text"}

    push(database.connect(), batch(Change(Op.ADD, "k", {"id": 1}, fields), table="wide", types=types))

    ((d, n, raw, t, gap, j),) = database.ask("select d, n, raw, t, gap::text, j from wide")
    assert (d, n, raw, t) == (date(2026, 2, 28), Decimal("12.5"), b"\x00\x01\xff", "7")
    assert (gap, j) == ("1 mon 2 days 00:00:03", "a text")


def test_lists_and_objects_are_json_or_arrays(database: Database) -> None:
    one = change(1, doc={"a": [1, None]}, tags=["x", None, 'q"{},\\'], seen="2026-01-02T03:04:05Z", name=["a"])

    push(database.connect(), batch(one))

    ((doc, tags, seen, name),) = database.ask(
        "select doc, tags, extract(epoch from seen)::bigint, name from people"
    )
    assert (doc, tags, seen, name) == ({"a": [1, None]}, ["x", None, 'q"{},\\'], 1767323045, '["a"]')


def test_text_survives_as_it_is(database: Database) -> None:
    nasty = ["", "\\N", "\\.", "tab\tline\nbreak\r", "quote ' \" ;--", "é 🐈 עברית", "{}", "%s %%", "null"]

    push(database.connect(), batch(*(change(n, name=text) for n, text in enumerate(nasty))))

    assert [row[1] for row in database.rows] == nasty


@pytest.mark.parametrize("name", ['qu"ote', "Capital Letters", "select", "p%s", "a;b--", "é", "n", "c0"])
def test_any_name_of_a_table_and_a_column_is_taken_as_a_name(database: Database, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    database.ask(f'create table {quoted} ({quoted} text primary key, {quoted[:-1]}2" text)')
    connector = database.connect()
    one = Change(Op.ADD, "k", {name: "x' OR 1=1"}, {f"{name}2": "y"})

    push(connector, batch(one, table=name))
    found = connector.members("row", name)
    removed = push(connector, batch(Change(Op.REMOVE, "k", {name: "x' OR 1=1"}, {}), table=name))

    assert found.members == [Member({name: "x' OR 1=1"})]
    assert statuses(removed) == "applied"
    assert database.ask(f"select * from {quoted}") == []


def test_a_name_that_would_be_cut_off_is_refused_instead_of_taken_for_another(database: Database) -> None:
    database.ask(f"create table {'x' * 63} (email text primary key)")

    with pytest.raises(RequestError, match="63 bytes"):
        push(database.connect(), batch(change(1), table="x" * 64))


def test_a_key_of_several_columns_finds_its_row(database: Database) -> None:
    database.ask("create table pairs (region text, id integer, name text, primary key (region, id))")
    made = [Change(Op.ADD, f"{r}{n}", {"id": n, "region": r}, {"name": f"{r}{n}"}) for r in "ab" for n in (1, 2)]
    connector = database.connect()

    push(connector, batch(*made, table="pairs"))
    push(connector, batch(Change(Op.REMOVE, "k", {"id": 1, "region": "b"}, {}), table="pairs"))

    assert database.ask("select name from pairs order by name") == [("a1",), ("a2",), ("b2",)]


def test_a_row_without_its_key_is_rejected_and_the_others_are_written(database: Database) -> None:
    receipts = push(
        database.connect(), batch(Change(Op.ADD, "k0", {"email": None}, {"name": "x"}), change(1, name="y"))
    )

    assert statuses(receipts) == "rejected applied"
    assert receipts[0].reason == "the key column email is empty"


def test_rows_that_have_other_fields_are_written_with_theirs(database: Database) -> None:
    push(database.connect(), batch(change(1, name="Ada"), change(2, age=3), change(3, name="Cy", age=4)))

    assert [row[1:] for row in database.rows] == [("Ada", None), (None, 3), ("Cy", 4)]


def test_what_a_trigger_drops_is_unknown_and_what_it_keeps_is_rejected(database: Database) -> None:
    database.ask("create function nothing() returns trigger language plpgsql as 'begin return null; end'")
    database.ask(
        "create trigger t before insert or delete on people for each row "
        "when (pg_trigger_depth() = 0) execute function nothing()"
    )
    connector = database.connect()

    added = push(connector, batch(change(1, name="Ada")))
    database.ask("alter table people disable trigger t")
    push(connector, batch(change(1, name="Ada")))
    database.ask("alter table people enable trigger t")
    removed = push(connector, batch(change(1, Op.REMOVE)))

    assert (statuses(added), statuses(removed)) == ("unknown", "rejected")
    assert "a trigger or a rule" in added[0].reason


def test_sent_twice_a_batch_has_the_effect_of_one(database: Database) -> None:
    connector, one = database.connect(), batch(change(1, name="Ada"), change(2, name="Bob"))

    assert push(connector, one) == push(connector, one)
    assert len(database.rows) == 2


def test_a_case_blind_key_takes_the_last_row_of_a_batch_apart(database: Database) -> None:
    database.ask("create extension citext; alter table people alter column email type citext")
    upper = Change(Op.ADD, "k9", {"email": "P1@example.com"}, {"name": "x"})

    with pytest.raises(RequestError, match="cardinality violation"):
        push(database.connect(), batch(change(1, name="Ada"), upper))

    push(database.connect(), batch(upper))
    assert statuses(push(database.connect(), batch(change(1, Op.REMOVE)))) == "applied"
    assert database.rows == []


# --- a table that it makes ------------------------------------------------------------------------------------


def test_a_missing_table_is_made_of_the_warehouses_types(database: Database) -> None:
    types = {
        "email": "VARCHAR", "n": "BIGINT", "x": "DOUBLE", "price": "DECIMAL(10,2)", "born": "DATE",
        "huge": "HUGEINT", "seen": "TIMESTAMP WITH TIME ZONE", "raw": "BLOB", "uid": "UUID", "tags": "VARCHAR[]",
        "place": "STRUCT(a INTEGER)", "kind": "ENUM('a')", "ok": "BOOLEAN",
    }  # fmt: skip
    fields = dict.fromkeys(set(types) - {"email"})
    connector = database.connect(create=True)

    push(connector, batch(change(1, **fields), table="fresh", types=types))
    push(connector, batch(change(1, Op.UPDATE, later=[1]), table="fresh", types={"later": "INTEGER[]"}))

    made = dict(
        database.ask(
            "select attname::text, format_type(atttypid, atttypmod) from pg_attribute "
            "where attrelid = 'fresh'::regclass and attnum > 0"
        )
    )
    assert made == {
        "email": "text", "n": "bigint", "x": "double precision", "price": "numeric(10,2)", "born": "date",
        "huge": "numeric", "seen": "timestamp with time zone", "raw": "bytea", "uid": "uuid", "tags": "jsonb",
        "place": "jsonb", "kind": "text", "ok": "boolean", "later": "jsonb",
    }  # fmt: skip
    assert database.ask("select count(*) from fresh") == [(1,)]


def test_a_table_is_made_once_by_several_workers(database: Database) -> None:
    connector, met, failures = database.connect(create=True, concurrency=4), threading.Barrier(4), []

    def work(n: int) -> None:
        met.wait()
        try:
            push(connector, batch(change(n, name="x"), table="fresh"))
        except DestinationError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert database.ask("select count(*) from fresh") == [(4,)]


def test_a_missing_table_waits_for_somebody_to_make_it_and_nothing_is_rejected(database: Database) -> None:
    with pytest.raises(Unavailable, match=r'no table "public"\."absent"') as raised:
        push(database.connect(), batch(change(1), table="absent"))

    assert raised.value.applied is False
    assert "create = true" in raised.value.fix


def test_a_missing_column_is_named(database: Database) -> None:
    with pytest.raises(RequestError, match="has no column nick"):
        push(database.connect(), batch(change(1, nick="x")))


def test_a_table_without_the_key_says_what_it_needs(database: Database) -> None:
    database.ask("create table loose (email text, name text)")

    with pytest.raises(Unavailable, match="42P10") as raised:
        push(database.connect(), batch(change(1, name="x"), table="loose"))

    assert "unique index" in raised.value.fix


# --- what it tells --------------------------------------------------------------------------------------------


def test_fields_are_the_tables_columns(database: Database) -> None:
    database.ask(
        "create table t (id bigint generated always as identity, email text unique not null, n numeric(9,2))"
    )
    connector = database.connect()

    assert connector.describe("row", "t") == [
        Field("id", "integer", description="bigint, written by the server"),
        Field("email", "string", required=True, identifier=True, description="text"),
        Field("n", "number", description="numeric(9,2)"),
    ]
    assert {field.name for field in connector.describe("row")} == {
        *("id", "email", "n"),
        *("name", "age", "vip", "seen", "doc", "tags"),
    }


def test_members_are_read_page_by_page(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connectors.postgres_table._PAGE", 2)
    database.ask("create table t (region text, id integer, email text unique, primary key (region, id))")
    database.ask(
        "insert into t select 'r' || n % 2, n, case when n > 1 then 'p' || n end from generate_series(1, 5) n"
    )
    connector, found, after = database.connect(), [], None

    for _ in range(4):
        page = connector.members("row", "t", after)
        found += page.members
        if (after := page.next) is None:
            break

    assert [member.identifiers for member in found] == [
        {"region": f"r{n % 2}", "id": n, "email": f"p{n}" if n > 1 else None} for n in (2, 4, 1, 3, 5)
    ]


def test_a_table_without_a_key_cannot_be_read(database: Database) -> None:
    with pytest.raises(Unavailable, match="no table absent with a key"):
        database.connect().members("row", "absent")


# --- refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"age": "canary"}, "invalid text representation, column age"),
        ({"age": 2**40}, "numeric value out of range, column age"),
        ({"age": 151}, "check violation, constraint people_age_check"),
        ({"name": "a\0canary"}, "cannot be written"),
        ({"tags": [{"a": "canary"}]}, "cannot be written"),
        ({"name": "\ud800canary"}, "cannot be written"),
    ],
)
def test_a_row_that_the_table_refuses_is_a_refusal_that_quotes_nobody(
    database: Database, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(RequestError, match=words) as raised:
        push(database.connect(), batch(change(1, name="fine"), change(2, **fields)))

    assert "canary" not in told(raised.value)
    assert database.rows == []


LATE = """
    create function no() returns trigger language plpgsql as $$begin raise 'canary'; end$$;
    create constraint trigger t after insert on people deferrable initially deferred
        for each row execute function no()
"""


@pytest.mark.parametrize(
    ("change_of_mind", "words"),
    [
        ("alter table people add constraint u unique (name) deferrable initially deferred", "unique violation"),
        (LATE, "raise exception"),
    ],
)
def test_a_refusal_at_the_end_is_certain_too(database: Database, change_of_mind: str, words: str) -> None:
    database.ask(change_of_mind)

    with pytest.raises(RequestError, match=words) as raised:
        push(database.connect(), batch(change(1, name="x"), change(2, name="x")))

    assert "canary" not in told(raised.value)
    assert database.rows == []


def test_wrong_base64_is_refused_by_its_column(database: Database) -> None:
    database.ask("alter table people add raw bytea")

    with pytest.raises(RequestError, match="column raw"):
        push(database.connect(), batch(change(1, raw="?"), types={"raw": "BLOB"}))


@pytest.mark.parametrize(
    "wrong", [{"password": "wrong-canary"}, {"user": "nobody_here"}, {"database": "nowhere"}, {"password": None}]
)
def test_credentials_that_are_refused_pause_the_destination(database: Database, wrong: dict[str, Any]) -> None:
    connector = database.connect(**wrong)

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(AuthError, match="refused the connection") as raised:
            attempt()
        assert "canary" not in told(raised.value)


def test_grants_that_are_missing_pause_the_destination_and_those_of_the_documentation_are_enough(
    database: Database,
) -> None:
    role = f"limited_{os.getpid()}_{time.monotonic_ns()}"
    database.ask(f"create role {role} login password 'pw'")
    connector = database.connect(user=role, password="pw")
    with pytest.raises(AuthError, match="insufficient privilege"):
        push(connector, batch(change(1, name="x")))

    database.ask(f"grant connect, temporary on database {database.name} to {role}")
    database.ask(f"grant usage on schema public to {role}")
    database.ask(f"grant select, insert, update, delete on people to {role}")

    connector.check()
    assert statuses(push(connector, batch(change(1, name="x")))) == "applied"
    assert statuses(push(connector, batch(change(1, Op.REMOVE)))) == "applied"
    assert len(connector.members("row", "people").members) == 0


def test_a_schema_that_is_not_there_is_told_by_check(database: Database) -> None:
    with pytest.raises(AuthError, match="schema"):
        database.connect(schema="nowhere").check()


# --- trouble --------------------------------------------------------------------------------------------------


def test_nobody_listening_is_unavailable_and_nothing_was_applied(database: Database) -> None:
    with silent() as port:
        pass
    connector = database.connect(port=port)

    for attempt in (connector.check, lambda: push(connector, batch(change(1)))):
        with pytest.raises(Unavailable, match="cannot connect") as raised:
            attempt()
        assert raised.value.applied is False


def test_a_server_that_says_nothing_is_left_in_time(database: Database) -> None:
    with silent() as port:
        connector, began = database.connect(port=port, seconds=1), time.monotonic()
        with pytest.raises(Unavailable) as raised:
            connector.check()

    assert raised.value.applied is False
    assert time.monotonic() - began < 5


def rows(count: int) -> Batch:
    return batch(*(change(n, name="x" * 200) for n in range(count)))


@pytest.mark.parametrize("what", [b"BEGIN", b"COPY", b"x" * 60_000, b"INSERT INTO"])
def test_a_wire_cut_before_the_commit_applied_nothing_for_certain(database: Database, what: bytes) -> None:
    with cutter(database.server.port, lambda seen: what in seen.replace(b"\tx", b"")) as wire:
        connector = database.connect(port=wire.port)
        with pytest.raises(Unavailable) as raised:
            push(connector, rows(1000) if what.startswith(b"x") is False else _wide())
        assert wire.cut.is_set()

    assert raised.value.applied is False
    assert database.rows == []


def _wide() -> Batch:
    return batch(change(1, name="x" * 200_000))


@pytest.mark.parametrize("deliver", [False, True])
def test_a_wire_cut_at_the_commit_leaves_it_unknown_and_sending_again_settles_it(
    database: Database, deliver: bool
) -> None:
    one = rows(10)
    with cutter(database.server.port, lambda seen: b"COMMIT\0" in seen, deliver=deliver) as wire:
        connector = database.connect(port=wire.port)
        with pytest.raises(Unavailable, match="lost while it committed") as raised:
            push(connector, one)

    assert raised.value.applied is None
    assert len(database.rows) == (10 if deliver else 0)
    assert set(statuses(push(database.connect(), one)).split()) == {"applied"}
    assert len(database.rows) == 10


@pytest.mark.parametrize(("what", "applied"), [(b"INSERT INTO", False), (b"COMMIT\0", None)])
def test_a_wire_that_stalls_is_left_in_time(database: Database, what: bytes, applied: bool | None) -> None:
    go_on = threading.Event()

    def stall(seen: bytes) -> bool:
        return what in seen and go_on.wait(30)

    with cutter(database.server.port, stall) as wire:
        began = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            push(database.connect(port=wire.port, seconds=1), rows(10))
        took = time.monotonic() - began
        go_on.set()

    assert raised.value.applied is applied
    assert took < 4


def test_a_row_that_somebody_holds_is_waited_for_only_so_long(database: Database) -> None:
    database.ask("insert into people values ('p1@example.com')")
    with psycopg.connect(database.server.url(database.name)) as other:
        other.execute("update people set name = 'held'")
        began = time.monotonic()
        with pytest.raises(Unavailable) as raised:
            push(database.connect(seconds=0.5), batch(change(1, name="x")))
        other.rollback()

    assert raised.value.applied is False
    assert time.monotonic() - began < 3


@contextmanager
def disconnected(database: Database, when: str) -> Iterator[None]:
    """An administrator ends our session once it runs a statement like that."""
    found = "select pid from pg_stat_activity where application_name = 'headgate' and query like %s"

    def end() -> None:
        with psycopg.connect(database.server.url(database.name), autocommit=True) as admin:
            for _ in range(500):
                if row := admin.execute(found, [when]).fetchone():
                    admin.execute("select pg_terminate_backend(%s)", [row[0]])
                    return
                time.sleep(0.01)

    thread = threading.Thread(target=end)
    thread.start()
    yield
    thread.join()


def test_a_session_that_is_ended_there_applied_nothing(database: Database) -> None:
    database.ask(
        "create function slow() returns trigger language plpgsql as 'begin perform pg_sleep(3); return new; end'"
    )
    database.ask("create trigger t before insert on people for each row execute function slow()")

    with disconnected(database, "WITH done%"), pytest.raises(Unavailable, match=r"57P01|broke") as raised:
        push(database.connect(), batch(change(1, name="x")))

    assert raised.value.applied is False


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("alter database {} set default_transaction_read_only = on", "read only sql transaction"),
        ("alter database {} allow_connections false", "cannot connect|refused"),
    ],
)
def test_a_server_in_trouble_is_unavailable(postgres: Postgres, setting: str, words: str) -> None:
    database = Database(postgres, postgres.database())
    database.ask(PEOPLE)
    postgres.ask("postgres", setting.format(database.name))

    with pytest.raises((Unavailable, AuthError), match=words):
        push(database.connect(), batch(change(1, name="x")))
    database.admin.close()


@pytest.mark.parametrize("code", ["53100", "40P01", "40001", "55P03", "58030", "57014", "XX000"])
def test_trouble_of_the_servers_own_is_tried_again(database: Database, code: str) -> None:
    raising = f"begin raise 'canary' using errcode = '{code}'; end"
    database.ask(f"create function full_() returns trigger language plpgsql as $${raising}$$")
    database.ask("create trigger t before insert on people for each row execute function full_()")

    with pytest.raises(Unavailable, match=code) as raised:
        push(database.connect(), batch(change(1, name="x")))

    assert raised.value.applied is False
    assert "canary" not in told(raised.value)


PUSH = """
import sys
from connectors.postgres_table import PostgresTable, PostgresTableConfig
from sync.sdk.http import build_client
from sync.sdk.nouns import Batch, Change, Op

port, database, user, password = sys.argv[1:]
config = PostgresTableConfig(
    host="127.0.0.1", port=int(port), database=database, user=user, password=password, sslmode="disable"
)
made = tuple(Change(Op.ADD, str(n), {"email": str(n)}, {"name": "x"}) for n in range(1000))
PostgresTable(config, build_client(PostgresTable, config, timeout=60)).push(Batch("b", "s", "row", "people", made))
"""


def test_a_process_that_is_killed_in_the_middle_leaves_nothing_half_done(database: Database) -> None:
    pause = "begin perform pg_sleep(0.05); return new; end"
    database.ask(f"create function slow() returns trigger language plpgsql as '{pause}'")
    database.ask("create trigger t before insert on people for each row execute function slow()")
    server = database.server
    arguments = [str(server.port), database.name, server.user, server.password]
    process = subprocess.Popen([sys.executable, "-c", PUSH, *arguments])
    ours = "from pg_stat_activity where application_name = 'headgate'"
    _until(lambda: database.ask(f"select count(*) {ours} and query like 'WITH done%'") == [(1,)])

    process.kill()
    process.wait()
    database.ask(f"select pg_terminate_backend(pid) {ours}")
    _until(lambda: database.ask(f"select count(*) {ours}") == [(0,)])

    assert database.rows == []


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


CONFIG = """
[sources.warehouse]
type = "duckdb"
path = "warehouse.duckdb"

[destinations.app]
type = "postgres_table"
host = "127.0.0.1"
port = {port}
database = "{database}"
user = "{user}"
password = "env:APP_PASSWORD"
sslmode = "disable"
"""
MAPPING = """
version: 1
cohort:
  name: people
  owner: data@acme.example
  purpose: Show the app who is who.
  definition: Everybody.
  source: { connection: warehouse, table: people, key: id }
syncs:
  - name: app-people
    destination: app
    audience: people
    mode: mirror
    identifiers: [{ to: email, from: email }]
    fields: [{ to: name, from: name }, { to: age, from: age }]
"""


def test_two_bad_rows_of_many_are_found_and_the_others_are_there(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mappings").mkdir()
    (tmp_path / "mappings" / "people.yaml").write_text(MAPPING)
    server = database.server
    given = {"port": server.port, "database": database.name, "user": server.user}
    (tmp_path / "config.toml").write_text(CONFIG.format(**given))
    bad = "CASE WHEN i IN (7, 200) THEN 151 ELSE i % 90 END"
    with duckdb.connect(str(tmp_path / "warehouse.duckdb")) as warehouse:
        warehouse.execute(
            "CREATE TABLE people AS "
            f"SELECT i AS id, 'p' || i AS email, 'x' AS name, {bad} AS age FROM range(256) t(i)"
        )
    monkeypatch.setenv("APP_PASSWORD", server.password)
    command = [sys.executable, "-m", "sync.cli.app", "run", "--first-run", "--json"]

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    (report,) = json.loads(done.stdout)["syncs"]
    assert (report["applied"], report["rejected"], report["unknown"]) == (254, 2, 0)
    assert report["requests"] <= 1 + 2 * 2 * 8  # twice the depth of the halving, for each of them
    assert len(database.rows) == 254


# --- encryption and configuration -----------------------------------------------------------------------------


def test_the_server_is_verified_before_anything_is_said_to_it(database: Database, tmp_path: Path) -> None:
    root = str(database.server.certificate)

    database.connect(sslmode="verify-full", ssl_root_cert=root).check()
    database.connect(sslmode="verify-full", ssl_root_cert=root, host="localhost").check()
    database.connect(sslmode="verify-ca", ssl_root_cert=root).check()
    database.connect(sslmode="require").check()
    with pytest.raises(AuthError, match="refused the connection"):
        database.connect(sslmode="verify-full").check()  # the system trusts no such authority


def test_settings_of_the_environment_change_nothing(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "HOSTADDR": "192.0.2.1",
        "OPTIONS": "-c role=x",
        "TARGETSESSIONATTRS": "standby",
        "SSLMODE": "require",
    }
    for name, value in given.items():
        monkeypatch.setitem(os.environ, f"PG{name}", value)

    database.connect().check()


def test_without_the_driver_it_says_what_to_install(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(ProjectError, match="`psycopg` is not installed") as raised:
        database.connect().check()

    assert (raised.value.code, raised.value.fix) == ("HG413", "Install it: pip install 'headgate[postgres]'.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sslmode": "verify-ca"}, "needs `ssl_root_cert`"),
        ({"sslmode": "prefer"}, "verify-full"),
        ({"host": ""}, "at least 1 character"),
        ({"port": 70000}, "65535"),
        ({"namespace": "x"}, "Extra inputs"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        PostgresTableConfig.model_validate({"host": "h", "database": "d", "user": "u", **options})


class TestContract(ConnectorContract):
    connector = PostgresTable
    server: ClassVar[Postgres | None] = None
    database: ClassVar[str] = ""

    @pytest.fixture(autouse=True)
    def _server(self, postgres: Postgres) -> None:
        if type(self).server is not postgres:
            type(self).server, type(self).database = postgres, postgres.database()

    def begin(self) -> None:
        if self.server is not None:
            with psycopg.connect(self.server.url(self.database), autocommit=True) as admin:
                admin.execute('drop table if exists "1234"')

    def options(self, folder: Path) -> dict[str, Any]:
        port = self.server.port if self.server else 5432
        return {
            "host": "127.0.0.1",
            "port": port,
            "database": self.database or "none",
            "user": "headgate",
            "password": "s3cret-of-tests",
            "sslmode": "disable",
            "create": True,
        }
