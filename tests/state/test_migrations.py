"""Migrations make what the tables say, once, and never touch a ledger that they do not know."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from sync.errors import StateError
from sync.state import schema
from sync.state.ledger import open_ledger
from sync.state.tables import metadata

OPENER = """
import sys
from pathlib import Path
from sync.state.ledger import open_ledger

print("ready", flush=True)
sys.stdin.readline()
with open_ledger(Path(sys.argv[1])) as ledger:
    print(ledger.generation("s").number, "alembic" in sys.modules)
"""


def test_the_migrations_make_exactly_the_tables(ledger):
    with ledger.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})

        assert compare_metadata(context, metadata) == []


def test_the_partial_indices_are_as_the_tables_say(ledger):
    with ledger.reading() as connection:
        rows = connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE type = 'index'")
        made = {row.name: row.sql for row in rows}

    assert made["uq_run_open"].endswith("(sync) WHERE status IN ('sending', 'waiting')")
    assert made["ix_attempt_sync"].endswith("(sync) WHERE settled IS 0")


@pytest.mark.parametrize(
    ("ask", "index"),
    [
        (lambda ledger, lease: ledger.barrier("s", "r"), "ix_attempt_sync"),
        (lambda ledger, lease: ledger.attempts("r"), "ix_attempt_batch"),
        (lambda ledger, lease: ledger.open_run("s"), "uq_run_open"),
        (lambda ledger, lease: ledger.removed_since("s", 1.0), "ix_run_sync_finished_at"),
        (lambda ledger, lease: ledger.refreshes("s"), "ix_refresh_sync_seq"),
        (lambda ledger, lease: ledger.runs("s"), "ix_run_sync_seq"),
        (lambda ledger, lease: ledger.plans("s"), "ix_plan_sync_seq"),
        (lambda ledger, lease: ledger.intend(lease, "r1", 0, 5), "sqlite_autoindex_batch_1"),
    ],
)
def test_what_is_asked_often_has_an_index(ledger, lease, sending, ask, index):
    asked = []

    def listen(_connection, _cursor, statement, parameters, _context, _many):
        asked.append((statement, parameters))

    sa.event.listen(ledger._db._engine, "before_cursor_execute", listen)
    ask(ledger, lease)
    sa.event.remove(ledger._db._engine, "before_cursor_execute", listen)

    with ledger.reading() as connection:
        steps = [
            row.detail
            for statement, parameters in asked
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        ]
    assert any(index in step for step in steps), steps
    assert not any(step.startswith("SCAN") and "CONSTANT" not in step for step in steps), steps


def test_the_head_named_in_code_is_the_newest_migration():
    config = Config()
    config.set_main_option("script_location", str(Path(schema.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    scripts = ScriptDirectory.from_config(config)

    assert scripts.get_heads() == [schema.HEAD]
    assert [s.revision for s in scripts.walk_revisions()] == sorted(
        (s.revision for s in scripts.walk_revisions()), reverse=True
    )


def test_a_ledger_of_a_later_version_is_refused_and_left_alone(ledger, path):
    ledger.close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9001'")
    connection.close()

    with pytest.raises(StateError, match="schema is 9001") as refused:
        open_ledger(path)

    assert refused.value.code == "HG316"
    assert "upgrade headgate" in refused.value.fix


def test_another_programs_database_is_refused_and_left_alone(tmp_path):
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE invoices (id)")
    connection.close()

    with pytest.raises(StateError, match="not a ledger of headgate") as refused:
        open_ledger(other)

    assert refused.value.code == "HG317"
    with sqlite3.connect(other) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    connection.close()


def test_processes_that_make_the_ledger_at_the_same_moment_make_it_once(path):
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for opener in openers:
        opener.stdout.readline()
    for opener in openers:
        opener.stdin.write("go\n")
        opener.stdin.flush()

    assert [opener.communicate()[0].split()[0] for opener in openers] == ["0", "0", "0"]
    with open_ledger(path) as ledger, ledger.reading() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [(schema.HEAD,)]


def test_a_ledger_that_is_up_to_date_is_opened_without_alembic(ledger, path):
    opener = subprocess.run(
        [sys.executable, "-c", OPENER, path], input="go\n", capture_output=True, text=True, check=True
    )

    assert opener.stdout.splitlines() == ["ready", "0 False"]


def test_a_migration_that_fails_leaves_nothing_behind(path, monkeypatch):
    def fail(_connection):
        _connection.exec_driver_sql("CREATE TABLE half (id)")
        raise RuntimeError("power cut")

    monkeypatch.setattr(schema, "_upgrade", fail)
    with pytest.raises(RuntimeError, match="power cut"):
        open_ledger(path)
    monkeypatch.undo()

    with open_ledger(path) as ledger:
        assert ledger.plans() == []
